"""What a command is given to read: a file, standard input, or the text itself."""

from __future__ import annotations

import re
import sys
from contextlib import AbstractContextManager, nullcontext
from io import BufferedReader
from pathlib import Path
from typing import cast

from runner.cli.project import Project
from runner.errors import FileUnavailable

STDIN = "-"


def read_given(project: Project, given: str | None, *, most: int | None = None) -> bytes:
    """The bytes of FILE, - or TEXT; nothing for None. Of a file or stdin no more than `most` bytes and one
    are read. Raises FileUnavailable."""
    if given is None:
        return b""
    if given == STDIN or given.startswith("@") or _is_file(given):
        with _stdin() if given == STDIN else _file(given.removeprefix("@")) as file:
            try:
                return file.read(-1 if most is None else most + 1)
            except OSError as error:
                raise _cannot_read(given.removeprefix("@"), error) from error
    if re.fullmatch(r"[\w.-]*/[\w./-]+|[\w-]+\.[a-z]{2,5}", given):
        project.say(f"there is no file {given}; the function gets this text")
    return given.encode(errors="surrogateescape")


def open_given(given: str) -> AbstractContextManager[BufferedReader]:
    """A file, or - for stdin, which stays open. Raises FileUnavailable."""
    return _stdin() if given == STDIN else _file(given)


def _stdin() -> AbstractContextManager[BufferedReader]:
    if sys.stdin is None:
        raise FileUnavailable("standard input is closed")
    return nullcontext(cast(BufferedReader, sys.stdin.buffer))


def _file(path: str) -> AbstractContextManager[BufferedReader]:
    try:
        return Path(path).open("rb")
    except (OSError, ValueError) as error:
        raise _cannot_read(path, error) from error


def _cannot_read(path: str, error: OSError | ValueError) -> FileUnavailable:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return FileUnavailable(f"the input {path} cannot be read: {reason}")


def _is_file(given: str) -> bool:
    try:
        return Path(given).is_file()
    except (OSError, ValueError):  # too long or with a NUL: no name of a file
        return False
