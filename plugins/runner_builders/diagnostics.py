"""Turns what compilers print into text whose file names start at the project's folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

_PLACE = re.compile(r"^((?:In file included from |\s+from )?)([^\s:][^:\n]*?)(:\d+)", re.MULTILINE)
_WAT_PLACE = re.compile(r"\A(.*?)\n\s*--> [^\n]*?:(\d+):(\d+)\n", re.DOTALL)


def shown(path: Path, project_dir: Path) -> str:
    """The file's name as messages show it: relative to the project when it lies inside."""
    try:
        return str(path.relative_to(project_dir))
    except ValueError:
        return str(path)


def from_clang(text: str, folder: Path, project_dir: Path) -> str:
    """Diagnostics of clang or zig that ran in `folder`, with file names as `shown` gives them."""

    def rename(match: re.Match[str]) -> str:
        before, name, line = match.groups()
        path = Path(os.path.normpath(folder / name))
        return before + (shown(path, project_dir) if path.exists() else name) + line

    return _PLACE.sub(rename, text)


def from_wat(text: str, name: str) -> str:
    """Diagnostics of the wat parser as `file:line:column: error: ...`, the excerpt after it."""
    match = _WAT_PLACE.match(text)
    if match is None:
        return f"{name}: error: {text}"
    message, line, column = match.groups()
    return f"{name}:{line}:{column}: error: {message}\n{text[match.end() :]}"
