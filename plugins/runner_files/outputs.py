"""Sinks of lines: a file, packed or not, and stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from runner.errors import FileUnavailable
from runner.partial import PartialFile
from runner.records import PlaceOf, Position, Sink
from runner_files.framing import Framed, Framing
from runner_files.inputs import READ_BYTES, find
from runner_files.packing import Nothing, Packer, packer_for
from runner_files.unpacked import Unpacked, unpacked


class FileSink(Sink):
    """A file that appears when it is whole."""

    def __init__(self, folder: Path, path: str, framing: Framing, *, level: int = 0) -> None:
        self.target = path
        self._folder, self._framing, self._level = folder, framing, level
        self._file = PartialFile(folder / path, path)
        self._packer: Packer | None = None
        self._offset = 0
        self._old: Unpacked | None = None
        self._copied = self._published = 0

    def open(self, position: Position | None = None) -> None:
        """See Sink."""
        self._packer = packer_for(self.target, self._level, begins=position is None)
        self.seamless = isinstance(self._packer, Nothing)
        self._file.open(None if position is None else position["bytes"])
        self._offset = 0
        if position is not None:
            self._offset = position["offset"]
            self._framing.recall(position)

    @property
    def offset(self) -> int:
        """See Sink."""
        return self._offset

    def write(self, outputs: Sequence[bytes], place: PlaceOf) -> int:  # noqa: ARG002
        """See Sink."""
        framed = self._framing.frame(outputs)
        self._add(framed.text)
        return written(framed)

    def cut(self) -> Position:
        """See Sink."""
        assert self._packer is not None
        self._file.append(self._packer.end())
        return {"bytes": self._file.length, "offset": self._offset, **self._framing.facts}

    def sync(self) -> None:
        """See Sink."""
        self._file.sync()

    def publish(self) -> None:
        """See Sink."""
        self._file.publish()

    def is_published(self) -> bool | None:
        """See Sink."""
        return self._file.path.exists()

    def open_copy(self, offset: int) -> None:
        """See Sink."""
        (published,) = find(self._folder, self.target, "name")
        self._old, self._copied, self._published = unpacked(published), 0, offset
        self.open()

    def copy(self, offset: int | None) -> None:
        """See Sink."""
        assert self._old is not None
        while offset is None or self._copied < offset:
            data = self._old.read(READ_BYTES if offset is None else min(READ_BYTES, offset - self._copied))
            if not data:
                break
            if not self._offset:
                self._framing.begin_with(data)
            self._add(data)
            self._copied += len(data)
        if offset is None and self._copied != self._published:
            raise FileUnavailable(
                f"{self.target} has {self._copied:,} bytes where the run before wrote {self._published:,}: it was "
                "changed since; run the whole job"
            )

    def close(self) -> None:
        """See Sink."""
        self._file.close()
        if self._old is not None:
            self._old.close()

    def _add(self, text: bytes) -> None:
        assert self._packer is not None
        self._offset += len(text)
        self._file.append(self._packer.pack(text))


class StreamSink(Sink):
    """Stdout, or a file that is a pipe or a device: what is written is gone."""

    resumable = False

    def __init__(self, path: Path | None, target: str, framing: Framing) -> None:
        self._path, self.target, self._framing = path, target, framing
        self._descriptor = -1
        self._offset = 0

    def open(self, position: Position | None = None) -> None:  # noqa: ARG002
        """See Sink."""
        try:
            if self._path is not None:
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            elif sys.stdout is None:
                raise FileUnavailable("standard output is closed")
            else:
                sys.stdout.flush()
                self._descriptor = os.dup(sys.stdout.fileno())
        except OSError as error:
            raise FileUnavailable(f"cannot write {self.target}: {error.strerror}") from error

    @property
    def offset(self) -> int:
        """See Sink."""
        return self._offset

    def write(self, outputs: Sequence[bytes], place: PlaceOf) -> int:  # noqa: ARG002
        """See Sink."""
        framed = self._framing.frame(outputs)
        view = memoryview(framed.text)
        self._offset += len(view)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except BrokenPipeError:
            raise  # nobody reads on, and that is their good right
        except OSError as error:
            raise FileUnavailable(f"cannot write {self.target}: {error.strerror}") from error
        return written(framed)

    def cut(self) -> Position:
        """See Sink."""
        return {}

    def sync(self) -> None:
        """See Sink."""

    def publish(self) -> None:
        """See Sink."""

    def close(self) -> None:
        """See Sink."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def written(framed: Framed) -> int:
    """How many lines were written; raises OutputRefused if that was not all."""
    if framed.refused is not None:
        framed.refused.written = framed.lines
        raise framed.refused
    return framed.lines
