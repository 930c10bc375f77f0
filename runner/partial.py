"""A file that grows beside its name and takes it when it is whole: what sinks and quarantines write to.

`out.jsonl.partial` belongs to one process at a time, can be cut back to a length that it had, and stays
when the process is killed. Nobody sees `out.jsonl` before `publish`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path

from runner.errors import FileUnavailable, StoreLocked

ENDING = ".partial"
BUFFER_BYTES = 1 << 20


class PartialFile:
    """One output file on its way. Used by one thread; nothing is opened or looked at before `open`."""

    def __init__(self, path: Path, shown: str = "") -> None:
        self.path = path
        self.shown = shown or str(path)
        """How messages name the file."""
        self.partial = path.with_name(path.name + ENDING)
        self._descriptor = -1
        self._length = 0
        self._waiting: list[bytes] = []
        self._buffered = 0
        self._failure: FileUnavailable | None = None

    @property
    def length(self) -> int:
        """Bytes appended since the beginning."""
        return self._length

    def open(self, length: int | None = None) -> None:
        """Begin anew, or go on behind that many bytes.

        Raises FileUnavailable when the file cannot be written or is shorter, StoreLocked when another
        process writes it.
        """
        if self.path.is_dir():
            raise FileUnavailable(f"cannot write {self.shown}: it is a folder")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = self._locked(create=length is None)
            has = os.fstat(self._descriptor).st_size
            if length is not None and has < length:
                short = f"{self.shown}{ENDING} has {has:,} bytes where the checkpoint has {length:,}"
                raise FileUnavailable(f"{short}; begin again with --restart")
            os.ftruncate(self._descriptor, length or 0)
            os.lseek(self._descriptor, length or 0, os.SEEK_SET)
        except OSError as error:
            self.close()
            raise self._refused(error) from error
        except BaseException:
            self.close()
            raise
        self._length = length or 0

    def append(self, data: bytes) -> None:
        """Add bytes at the end, some time. Raises FileUnavailable."""
        self._waiting.append(data)
        self._buffered += len(data)
        self._length += len(data)
        if self._buffered >= BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand all that was appended to the system. Raises FileUnavailable, also for a full disk."""
        if self._failure is not None:
            raise self._failure
        waiting, size = self._waiting, self._buffered
        self._waiting, self._buffered = [], 0
        view = memoryview(b"".join(waiting))
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            self._failure = self._refused(error)  # something is missing now: never sync what follows
            raise self._failure from error
        if size >= BUFFER_BYTES:  # have it written while we go on: `sync` has the less to wait for
            with contextlib.suppress(OSError):  # a hint, which some file systems may not know
                os.posix_fadvise(self._descriptor, self._length - size, size, os.POSIX_FADV_DONTNEED)

    def sync(self) -> None:
        """Bring all that was appended to the disk. Raises FileUnavailable."""
        self.flush()
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._refused(error) from error

    def publish(self) -> None:
        """Give the file its name, durably. Nothing happens if it has it already. Raises FileUnavailable, also
        when somebody took it away before."""
        places = (self.partial, self.path)
        there = any(_is_at(self._descriptor, path) if self._descriptor >= 0 else path.exists() for path in places)
        if not there:
            raise FileUnavailable(f"{self.shown}{ENDING} was taken away while it was written; run again with --restart")
        try:
            with contextlib.suppress(FileNotFoundError):
                self.partial.replace(self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise self._refused(error) from error

    def withdraw(self) -> None:
        """Take away what is not published, and what an earlier run published."""
        try:
            self.partial.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
            sync_folder(self.path.parent)
        except OSError as error:
            raise self._refused(error) from error

    def close(self) -> None:
        """Give the file and its lock back. What is not published stays. May be called twice."""
        self._waiting.clear()
        self._buffered, self._failure = 0, None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _locked(self, *, create: bool) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        while True:
            descriptor = os.open(self.partial, flags, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise StoreLocked(f"another run is writing {self.shown}; wait for it or stop it") from None
            except OSError:
                os.close(descriptor)
                raise
            if _is_at(descriptor, self.partial):
                return descriptor
            os.close(descriptor)  # it was published between our opening and our locking it

    def _refused(self, error: OSError) -> FileUnavailable:
        if isinstance(error, FileExistsError | NotADirectoryError):
            return FileUnavailable(f"cannot write {self.shown}: what should be its folder is a file")
        hint = "; begin again with --restart" if isinstance(error, FileNotFoundError) else ""
        return FileUnavailable(f"cannot write {self.shown}{ENDING}: {error.strerror}{hint}")


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def sync_folder(folder: Path) -> None:
    """Make what was named and renamed in a folder last. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_stream(path: Path) -> bool:
    """Whether a path is there and no file or folder: a pipe, a terminal, /dev/null."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
