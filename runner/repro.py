"""A repro file: one past attempt with all that it takes to replay it, on any machine.

It is a zip without compression, of the same bytes for the same attempt: facts.json, module.wasm, input,
and as far as there is one recording.json and output. Whoever made one may be anybody: reading is bounded
and nothing is believed that can be checked.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from runner.errors import FileUnavailable, InvalidInput, UsageError
from runner.models import LogLevel
from runner.recordings import Kept
from runner.wasm import content_id
from runner.workers.recording import masked

MEBIBYTE: Final = 1 << 20
LIMITS: Final[Mapping[str, int]] = {
    "facts.json": 64 * MEBIBYTE,
    "module.wasm": 256 * MEBIBYTE,
    "input": 256 * MEBIBYTE,
    "recording.json": 128 * MEBIBYTE,
    "output": 256 * MEBIBYTE,
}
"""What may be in a repro file, and how long it may be."""
_NEEDED: Final = ("facts.json", "module.wasm", "input")
_UNREADABLE: Final = (
    *(ValueError, LookupError, TypeError, AttributeError, RecursionError, EOFError, OSError),
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError),
)
"""What zipfile, json and we raise for bytes that are no repro file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """How the attempt ended."""

    error_class: str | None
    """None: it succeeded."""
    message: str | None
    logs: tuple[tuple[str, str], ...]
    """Level and text of each line."""
    logs_are_whole: bool
    output: bytes | None
    """None unless it succeeded and its output is known."""

    @property
    def status(self) -> str:
        """`succeeded` or `failed`."""
        return "succeeded" if self.error_class is None else "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Repro:
    """A past attempt."""

    name: str
    """Which, for people."""
    attempt: int | None = None
    """Its number, counted from 1; None for what is no attempt of a run."""
    kept: Kept
    wasm: bytes
    input: bytes
    expected: Expected
    lacks: str = ""
    """Why it cannot be replayed exactly; empty if it can."""

    def without_secrets(self, secrets: Mapping[str, str]) -> Repro:
        """The same with the names of secrets where their values stood in what was logged or written. Raises
        InvalidInput for an input that has one: it would be another input."""
        for name, value in secrets.items():
            if masked(self.input, {name: value}) != self.input:
                raise InvalidInput(f"the input of {self.name} has the value of the secret {name!r}; it is not packed")
        old = self.expected
        output = old.output
        if output is not None and masked(output, secrets) != output:
            output = None
        message = None if old.message is None else _masked(old.message, secrets)
        logs = tuple((level, _masked(text, secrets)) for level, text in old.logs)
        env_vars = {name: _masked(value, secrets) for name, value in self.kept.env_vars.items()}
        expected = replace(old, message=message, logs=logs, output=output)
        return replace(self, kept=replace(self.kept, env_vars=env_vars), expected=expected)

    def pack(self) -> bytes:
        """The bytes of the file."""
        expected = self.expected
        facts = {
            "name": self.name,
            "attempt": self.attempt,
            "lacks": self.lacks,
            "kept": json.loads(replace(self.kept, calls=None, input_text=None).encode()),
            "expected": {
                "error_class": expected.error_class,
                "message": expected.message,
                "logs": expected.logs,
                "logs_are_whole": expected.logs_are_whole,
            },
        }
        parts: dict[str, bytes | None] = {
            "facts.json": json.dumps(facts, indent=1, ensure_ascii=True).encode(),
            "module.wasm": self.wasm,
            "input": self.input,
            "recording.json": None if self.kept.calls is None else self.kept.calls.encode(),
            "output": expected.output,
        }
        target = BytesIO()
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            for name, data in parts.items():
                if data is not None:
                    archive.writestr(zipfile.ZipInfo(name), data)  # of 1980: the moment is no part of it
        return target.getvalue()

    @classmethod
    def unpack(cls, data: bytes) -> Repro:
        """Raises InvalidInput for bytes that `pack` never gave."""
        try:
            parts = _parts(data)
            facts = json.loads(parts["facts.json"])
            kept = Kept.parse(json.dumps(facts["kept"]).encode())
            if kept.wasm_cid != content_id(parts["module.wasm"]):
                raise ValueError(f"its module is not the one of its facts, {kept.wasm_cid}")
            calls = parts.get("recording.json")
            return cls(
                name=_text(facts["name"]),
                attempt=None if facts["attempt"] is None else int(facts["attempt"]),
                kept=replace(kept, calls=None if calls is None else calls.decode()),
                wasm=parts["module.wasm"],
                input=parts["input"],
                expected=_expected(facts["expected"], parts.get("output")),
                lacks=_text(facts["lacks"]),
            )
        except _UNREADABLE as why:
            reason = f"it has no {why}" if isinstance(why, KeyError) else str(why)[:200] or type(why).__name__
            raise InvalidInput(f"this is no repro file, or a damaged one: {reason}") from None


def read(path: Path) -> Repro:
    """The repro in a file. Raises FileUnavailable, InvalidInput."""
    most = sum(LIMITS.values())
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > most:
                raise InvalidInput(f"{path} has more than {most:,} bytes: it is no repro file")
            data = file.read(most)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise FileUnavailable(f"the repro file {path} cannot be read: {reason}") from error
    try:
        return Repro.unpack(data)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from None


def write(path: Path, repro: Repro) -> int:
    """Write a repro into a new file; its size. Raises UsageError for one that is there, FileUnavailable."""
    data = repro.pack()
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        raise UsageError(f"{path} is there already; name another file, or remove it") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise FileUnavailable(f"{path} cannot be written: {reason}") from error
    return len(data)


def _parts(data: bytes) -> dict[str, bytes]:
    parts = {}
    with zipfile.ZipFile(BytesIO(data)) as archive:
        infos = archive.infolist()
        if len(infos) > len(LIMITS):
            raise ValueError("it has more than a repro file has")
        for info in infos:
            limit = LIMITS.get(info.filename)
            if limit is None or info.filename in parts:
                raise ValueError(f"it has a {info.filename[:100]!r}")
            with archive.open(info) as file:
                parts[info.filename] = file.read(limit + 1)
            if len(parts[info.filename]) > limit:
                raise ValueError(f"its {info.filename} has more than {limit:,} bytes")
    for name in _NEEDED:
        parts[name]  # a KeyError tells that it is not there
    return parts


def _expected(facts: dict[str, Any], output: bytes | None) -> Expected:
    error_class, message = facts["error_class"], facts["message"]
    return Expected(
        error_class=None if error_class is None else _text(error_class),
        message=None if message is None else _text(message),
        logs=tuple((LogLevel(level).value, _text(text)) for level, text in facts["logs"]),
        logs_are_whole=bool(facts["logs_are_whole"]),
        output=output,
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} where a text should be")
    value.encode()
    return value


def _masked(text: str, secrets: Mapping[str, str]) -> str:
    return masked(text.encode("utf-8", "surrogateescape"), secrets).decode("utf-8", "surrogateescape")
