"""What a Zig source is and which files it reads, told from its text.

Zig writes no list of inputs; but `@import` takes literal names only, and a module's files lie in or
below its root's folder. Where a name is no literal, the answer is "cannot be told".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

_MAIN = re.compile(r"^\s*(?:pub\s+(?:fn|const)\s+main\b|export\s+fn\s+_start\b)", re.MULTILINE)
_HANDLE = re.compile(r"^\s*(?:pub\s+)?export\s+fn\s+handle\b", re.MULTILINE)
_READS = re.compile(r"@(?:import|embedFile)\s*\(\s*(?:\"((?:[^\"\\\n])*)\"\s*\))?")
_UNTOLD = re.compile(r"@(?:cImport|cInclude)\b")


class Kind(Enum):
    """How the module is entered."""

    COMMAND = "command"  # it has a main
    REACTOR = "reactor"  # it exports handle
    NEITHER = "neither"  # nothing can be called


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """`inputs` holds the source and every file it reads; empty when that cannot be told."""

    kind: Kind
    inputs: tuple[Path, ...]


def scan(source: Path) -> Scan:
    """Read the source and what it imports. Raises OSError when the source cannot be read."""
    text = source.read_text(encoding="utf-8", errors="replace")
    kind = Kind.COMMAND if _MAIN.search(text) else Kind.REACTOR if _HANDLE.search(text) else Kind.NEITHER
    seen: dict[Path, None] = {}
    told = _follow(source, seen)
    return Scan(kind=kind, inputs=tuple(seen) if told else ())


def _follow(path: Path, seen: dict[Path, None]) -> bool:
    """Add the file and all it reads to `seen`; False when a name is no plain literal."""
    if path in seen or not path.is_file():
        return True
    seen[path] = None
    if path.suffix != ".zig":
        return True
    text = path.read_text(encoding="utf-8", errors="replace")
    if _UNTOLD.search(text) or any(match.group(1) is None for match in _READS.finditer(text)):
        return False
    return all(_follow(path.parent / match.group(1), seen) for match in _READS.finditer(text))
