"""Finds the entry points of a group in the installed distributions, and a version, quickly.

The same answers as `importlib.metadata.entry_points(group=...)` and `version(...)`, without its 25 ms of imports: every
command of the program pays for this. Distributions in zip files are not looked into.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class EntryPoint:
    """One entry point and the distribution that declares it."""

    name: str
    value: str
    """`module` or `module:attribute`."""
    distribution: str
    version: str

    def load(self) -> Any:
        """Import what it names; raises whatever that raises."""
        module, _, attribute = self.value.partition(":")
        loaded: Any = importlib.import_module(module.strip())
        for part in filter(None, attribute.partition("[")[0].strip().split(".")):
            loaded = getattr(loaded, part)
        return loaded


def find(group: str, path: Sequence[str] | None = None) -> list[EntryPoint]:
    """The entry points of a group, in the order of `path` (None: sys.path). Of a distribution that
    is there twice the first counts, as for an import."""
    found = []
    seen: set[str] = set()
    for folder in sys.path if path is None else path:
        for info in _infos(folder or "."):
            declared = _read(os.path.join(info, "entry_points.txt"))
            if f"[{group}]" not in declared:
                continue
            name, version = _identity(info)
            if _normal(name) not in seen:
                seen.add(_normal(name))
                found += [
                    EntryPoint(name=key, value=value, distribution=name, version=version)
                    for key, value in _section(declared, group)
                ]
    return found


def version(distribution: str, path: Sequence[str] | None = None) -> str | None:
    """The version of an installed distribution, None when it is not there; as quickly."""
    wanted = _normal(distribution)
    for folder in sys.path if path is None else path:
        for info in _infos(folder or "."):
            if _normal(os.path.basename(info).partition("-")[0].removesuffix(".egg")) == wanted:
                return _identity(info)[1]
    return None


def _infos(folder: str) -> list[str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:  # sys.path names folders that are not there, and zip files
        return []
    return [os.path.join(folder, name) for name in names if name.endswith((".dist-info", ".egg-info"))]


def _read(file: str) -> str:
    try:
        with open(file, encoding="utf-8", errors="replace") as text:
            return text.read()
    except OSError:
        return ""


def _section(text: str, group: str) -> Iterator[tuple[str, str]]:
    inside = False
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            inside = line == f"[{group}]"
        elif inside and "=" in line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            yield name.strip(), value.strip()


def _identity(info: str) -> tuple[str, str]:
    """Name and version, from the head of the metadata; else from the folder's name."""
    folder_name, _, rest = os.path.basename(info).partition("-")
    facts = {"name": folder_name, "version": rest.rpartition(".")[0]}
    for line in (_read(os.path.join(info, "METADATA")) or _read(os.path.join(info, "PKG-INFO"))).splitlines():
        if not line:
            break
        key, _, value = line.partition(":")
        if key.lower() in facts:
            facts[key.lower()] = value.strip()
    return facts["name"], facts["version"]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
