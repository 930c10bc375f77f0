"""Which files a path or pattern means, and opening them as what they were found to be."""

from __future__ import annotations

import glob
import os
import stat
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from runner.errors import FileUnavailable, SourceChanged
from runner.partial import ENDING

READ_BYTES = 1 << 18


@dataclass(frozen=True, kw_only=True, slots=True)
class InputFile:
    """A file as it was when it was looked up."""

    name: str
    """As the user would write it."""
    path: Path
    size: int
    modified_ns: int
    inode: int

    @property
    def state(self) -> str:
        """What tells this state of the file from another, for people as well."""
        moment = datetime.fromtimestamp(self.modified_ns // 10**9, timezone.utc)
        text = moment.isoformat().replace("+00:00", f".{self.modified_ns % 10**9:09}Z")
        return f"{self.size:,} bytes changed {text} (inode {self.inode})"


def find(folder: Path, pattern: str, sort: str) -> list[InputFile]:
    """The files that a path or pattern means, from a folder, sorted by `name` or by when they were
    `modified`. Raises FileUnavailable when there is none, or when one cannot be looked at."""
    if _exists(folder / pattern) or not glob.has_magic(pattern):
        return [_look_up(folder, pattern)]
    found = glob.iglob(pattern, root_dir=folder, recursive=True)  # noqa: PTH207  # Path.glob takes no absolute one
    names = sorted(set(found), key=os.fsencode)
    files = [_look_up(folder, name) for name in names if _is_input(folder / name)]
    if not files:
        raise FileUnavailable(f"no file matches {pattern} in {folder}")
    return sorted(files, key=lambda file: file.modified_ns) if sort == "modified" else files


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _is_input(path: Path) -> bool:
    return path.is_file() and path.suffix != ENDING


def _look_up(folder: Path, name: str) -> InputFile:
    path = folder / name
    try:
        found = path.stat()
    except OSError as error:
        raise FileUnavailable(f"cannot read {name}: {error.strerror}") from error
    if stat.S_ISDIR(found.st_mode):
        raise FileUnavailable(f"cannot read {name}: it is a folder; `{name.rstrip('/')}/*` means the files in it")
    return InputFile(name=name, path=path, size=found.st_size, modified_ns=found.st_mtime_ns, inode=found.st_ino)


class OpenFile:
    """The bytes of an input file, which must stay what they were until the end."""

    def __init__(self, file: InputFile) -> None:
        self.file = file
        self.place = 0
        """Bytes read so far."""
        try:
            self._descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise FileUnavailable(f"{file.name} has vanished since the run began") from error
        except OSError as error:
            raise FileUnavailable(f"cannot read {file.name}: {error.strerror}") from error
        try:
            self._check(os.fstat(self._descriptor))
        except BaseException:
            self.close()
            raise

    def seek(self, offset: int) -> None:
        """Read on from there."""
        os.lseek(self._descriptor, offset, os.SEEK_SET)
        self.place = offset

    def read(self, size: int) -> bytes:
        """So many bytes, fewer only at the end. Raises SourceChanged, FileUnavailable."""
        size = min(size, self.file.size - self.place)
        try:
            data = os.read(self._descriptor, size) if size else b""
            while len(data) < size and (more := os.read(self._descriptor, size - len(data))):
                data += more
            self._check(os.fstat(self._descriptor))
            if self.place + len(data) == self.file.size:
                self._check(self.file.path.stat())
        except FileNotFoundError as error:
            raise FileUnavailable(f"{self.file.name} vanished while it was read") from error
        except OSError as error:
            raise FileUnavailable(f"cannot read {self.file.name} at byte {self.place}: {error.strerror}") from error
        self.place += len(data)
        return data

    def close(self) -> None:
        """Give the descriptor back. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _check(self, now: os.stat_result) -> None:
        file = self.file
        if (now.st_size, now.st_mtime_ns, now.st_ino) == (file.size, file.modified_ns, file.inode):
            return
        size = f"had {file.size:,} bytes and has {now.st_size:,}" if now.st_size != file.size else "was written to"
        raise SourceChanged(
            f"{file.name} changed while it was read (near byte {self.place}): it {size}; "
            "run again with --restart, or with --resume to go on with what is there now"
        )
