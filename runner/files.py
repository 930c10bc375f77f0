"""Reading and writing whole files, and the folder of our own, with errors that say which and why."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from runner.errors import FileUnavailable, StoreReadOnly


def read_file(path: Path) -> bytes:
    """All of a file. Raises FileUnavailable, which names it and says why."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileUnavailable(f"cannot read {path}: {error.strerror}") from error


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it appears whole or not at all, and lasts once it has appeared.

    Raises FileUnavailable, with nothing changed, when it cannot be written.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise FileUnavailable(f"cannot write {path}: it is a folder")
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise FileUnavailable(f"cannot write {path}: {error.strerror}") from error


def make_state_folder(path: Path) -> None:
    """Make a folder for what this program keeps, readable by this user only and out of version control,
    unless it is there. Raises FileUnavailable for a file of that name, StoreReadOnly."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        ignore = path / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
    except FileExistsError:
        raise FileUnavailable(f"{path} is a file; the state needs a folder of that name") from None
    except OSError as error:
        if not path.is_dir():
            raise StoreReadOnly(
                f"the state folder {path} cannot be made ({error.strerror}); "
                "make its parent writable or give another with --state-dir"
            ) from error


def _umask() -> int:
    with contextlib.suppress(OSError, StopIteration, ValueError), open("/proc/self/status") as lines:
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    return 0o022
