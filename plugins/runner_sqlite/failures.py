"""The one place that turns an error of SQLite or of the file system into one of ours, with its remedy.

SQLite's messages are matched, not its codes: Python has `sqlite_errorcode` from 3.11 on only.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from runner.errors import (
    InvalidInput,
    RunnerError,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
)

_LITTLE_BYTES = 256 * 1024
"""Less room than this explains a failed read or write: the shared index and the log grow by as much."""


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise what SQLite or the file system raise in here as one of our errors about the store `path`."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{error.object!r} is no text that can be stored: it has lone surrogates") from error
    except UnicodeDecodeError as error:  # also from SQLite's messages, where they quote what is damaged
        raise damaged(path, error) from error
    except (OverflowError, sqlite3.DataError) as error:
        why = "a number of more than 64 bits" if isinstance(error, OverflowError) else str(error)
        raise InvalidInput(f"a value is too large for the store {path}: {why}") from error
    except sqlite3.Error as error:
        raise _of_sqlite(path, error) from error
    except OSError as error:
        raise _of_file_system(path, error) from error


def damaged(path: Path, reason: object) -> StoreDamaged:
    """The error for a store whose content is not what was written."""
    return StoreDamaged(
        f"the store {path} is damaged ({reason}); move {path.name}, {path.name}-wal and {path.name}-shm away "
        "and `runner run` makes a new store and registers the functions of jobs.yaml again "
        "(`sqlite3 FILE .recover` may save runs, older versions and logs from the old one)"
    )


def damaged_module(path: Path, wasm_cid: str) -> StoreDamaged:
    """The error for a module whose stored bytes do not match their id."""
    return StoreDamaged(
        f"module {wasm_cid} in the store {path} is damaged: its bytes do not match its id; "
        "registering its function again (`runner run`) repairs it"
    )


def read_only(path: Path) -> StoreReadOnly:
    """The error for a write to a store that may only be read."""
    return StoreReadOnly(
        f"the store {path} is read-only; make the file and its folder {path.parent} writable for this user, "
        "or choose another file with `registry: {sqlite: {path: ...}}`"
    )


def locked(path: Path) -> StoreLocked:
    """The error for a store that others kept busy for longer than we wait."""
    return StoreLocked(
        f"the store {path} is locked: another process has been writing to it for longer than we wait; "
        "try again, or look for a process that hangs while it holds the file open"
    )


def _full(path: Path) -> StoreFull:
    return StoreFull(f"no room is left for the store {path}; make room on the disk of {path.parent}")


def _of_sqlite(path: Path, error: sqlite3.Error) -> RunnerError:
    message = str(error).lower()
    for words, make in _MEANINGS.items():
        if words in message:
            return make(path, error)
    return StoreError(f"the store {path} refused: {error}")


def _perhaps_full(path: Path, error: sqlite3.Error) -> StoreError:
    """SQLite reports a full disk as an I/O error where it grows a file without writing to it."""
    if _is_full(path.parent):
        return _full(path)
    return StoreError(f"the disk of the store {path} fails ({error}); look at the system's log")


def _not_opened(path: Path, error: sqlite3.Error) -> StoreError:
    if path.is_dir():
        return StoreError(f"the store {path} is a folder; name a file")
    if not os.access(path if path.exists() else path.parent, os.R_OK):
        return StoreReadOnly(f"the store {path} cannot be read by this user; give it the right to")
    if not is_writable(path):
        return read_only(path)
    return _perhaps_full(path, error)


_MEANINGS: dict[str, Callable[[Path, sqlite3.Error], StoreError]] = {
    "file is not a database": damaged,
    "malformed": damaged,
    "could not decode to utf-8": damaged,
    "no such table": damaged,
    "no such column": damaged,
    "locked": lambda path, _: locked(path),
    "disk is full": lambda path, _: _full(path),
    "readonly": lambda path, _: read_only(path),
    "disk i/o error": _perhaps_full,
    "unable to open database file": _not_opened,
}
"""What a part of SQLite's message means, tried in this order."""


def _of_file_system(path: Path, error: OSError) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _full(path)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return read_only(path)
    return StoreError(f"the store {path} cannot be used: {error}")


def is_writable(path: Path) -> bool:
    """Whether SQLite could write the database file and the files it keeps beside it."""
    return os.access(path.parent, os.W_OK | os.X_OK) and (not path.exists() or os.access(path, os.W_OK))


def _is_full(folder: Path) -> bool:
    try:
        room = os.statvfs(folder)
    except OSError:
        return False
    return room.f_bavail * room.f_frsize < _LITTLE_BYTES or (room.f_files > 0 and room.f_favail == 0)
