"""Keeps built modules, so that an unchanged source is not compiled again.

One file a source: a line of JSON (what went into the build), then the module. Knows no compiler;
it is told which files were read. What is damaged or out of date is no hit, never an error.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

CLOCK_SLACK_NS = 20_000_000
"""How far a file's time may lag behind the clock: file systems stamp with a coarse one."""


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class BuildCache:
    """Modules by source file.

    A hit needs the same recipe (builder, version, flags) and unchanged bytes of every file that the
    build read, the source itself and its headers among them. Each source keeps its newest module
    only, so the folder grows with the number of sources and not with the number of edits. Safe
    under several threads and processes: entries are replaced whole.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _entry(self, source: Path) -> Path:
        return self._folder / _digest(os.fsencode(source))[:40]

    def find(self, source: Path, recipe: str) -> bytes | None:
        """The module built earlier from this source by this recipe, or None."""
        try:
            head, module = self._entry(source).read_bytes().split(b"\n", 1)
            facts = json.loads(head)
            if facts["recipe"] != recipe or facts["module"] != _digest(module):
                return None
            unchanged = all(
                _digest((source.parent / name).read_bytes()) == digest for name, digest in facts["inputs"].items()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return module if unchanged else None

    def keep(self, source: Path, recipe: str, inputs: Iterable[Path], module: bytes, *, started_ns: int) -> bool:
        """Remember a module; returns whether that was done.

        `inputs` are the files the build read, `started_ns` its start (`time.time_ns`). Nothing is
        kept when one of them changed since then: nobody knows which of its bytes were compiled.
        Raises OSError when the folder cannot be written.
        """
        digests = {}
        for path in inputs:
            if path.stat().st_mtime_ns > started_ns - CLOCK_SLACK_NS:
                return False
            digests[os.path.relpath(path, source.parent)] = _digest(path.read_bytes())
        head = json.dumps({"recipe": recipe, "inputs": digests, "module": _digest(module)})
        self._replace(self._entry(source), head.encode() + b"\n" + module)
        return True

    def _replace(self, entry: Path, data: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self._folder, prefix="new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(temporary).replace(entry)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def now_ns() -> int:
    """The clock that file times are compared with."""
    return time.time_ns()
