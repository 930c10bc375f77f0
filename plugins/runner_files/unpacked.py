"""Bytes of a file as they are before they were packed: plain, gzip, zstd; and those of a stream."""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

from runner.errors import FileUnavailable
from runner_files.inputs import READ_BYTES, InputFile, OpenFile


class Unpacked(ABC):
    """The bytes of one input, in order."""

    is_stream: bool = False
    """Whether `read` gives what is there, and does not wait for more."""

    @abstractmethod
    def read(self, size: int) -> bytes:
        """At most so many of the next bytes; b"" at the end only. Raises FileUnavailable."""

    @abstractmethod
    def skip(self, offset: int) -> None:
        """Go to an offset behind this place."""

    @property
    @abstractmethod
    def place(self) -> int:
        """How many bytes of the file itself were read."""

    @abstractmethod
    def close(self) -> None:
        """Give the file back. May be called twice."""


class Plain(Unpacked):
    """A file as it is."""

    def __init__(self, file: OpenFile) -> None:
        self._file = file
        self.read = file.read  # type: ignore[method-assign]  # one call less for every block

    def read(self, size: int) -> bytes:
        """See Unpacked."""
        return self._file.read(size)

    def skip(self, offset: int) -> None:
        """See Unpacked."""
        if offset > self._file.file.size:
            raise FileUnavailable(f"{self._file.file.name} is shorter than {offset:,} bytes, where it is to be read on")
        self._file.seek(offset)

    @property
    def place(self) -> int:
        """See Unpacked."""
        return self._file.place

    def close(self) -> None:
        """See Unpacked."""
        self._file.close()


class Packed(Unpacked):
    """A packed file. `unpack` makes a stream of its bytes from one of ours, with `read(size)`; it is never
    asked for more than is to be held."""

    def __init__(
        self, file: OpenFile, method: str, unpack: Callable[[Any], Any], errors: tuple[type[Exception], ...]
    ) -> None:
        self._file, self._method, self._errors = file, method, errors
        self._stream = unpack(file)

    def read(self, size: int) -> bytes:
        """See Unpacked."""
        try:
            data: bytes = self._stream.read(size)
        except self._errors as error:
            name, place = self._file.file.name, self._file.place
            raise FileUnavailable(
                f"{name} is no whole {self._method} file: {error} (before its byte {place})"
            ) from error
        return data

    def skip(self, offset: int) -> None:
        """See Unpacked. Everything before is unpacked again."""
        while offset:
            data = self.read(min(offset, READ_BYTES))
            if not data:
                raise FileUnavailable(f"{self._file.file.name} is shorter than where it is to be read on")
            offset -= len(data)

    @property
    def place(self) -> int:
        """See Unpacked."""
        return self._file.place

    def close(self) -> None:
        """See Unpacked."""
        self._file.close()


class Stream(Unpacked):
    """Standard input, or what else comes once."""

    is_stream = True

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor, self._name = descriptor, name
        self._place = 0

    def read(self, size: int) -> bytes:
        """See Unpacked."""
        try:
            data = os.read(self._descriptor, size)
        except OSError as error:
            raise FileUnavailable(f"cannot read {self._name}: {error.strerror}") from error
        self._place += len(data)
        return data

    def skip(self, offset: int) -> None:
        """See Unpacked; never asked for."""
        raise FileUnavailable(f"{self._name} comes once: it cannot be read on from byte {offset}")

    @property
    def place(self) -> int:
        """See Unpacked."""
        return self._place

    def close(self) -> None:
        """See Unpacked. The stream is not ours to close."""


def unpacked(file: InputFile) -> Unpacked:
    """The bytes of a file, unpacked if its ending says so. Raises FileUnavailable, SourceChanged, and
    NotAvailable when what unpacks it is not installed."""
    suffix = PurePath(file.name).suffix
    if suffix == ".gz":
        return Packed(OpenFile(file), "gzip", _gunzip, (EOFError, OSError, zlib.error))
    if suffix == ".zst":
        from runner_files import zstd  # before the file is opened: it may not be installed

        return Packed(OpenFile(file), "zstd", zstd.unpack, zstd.errors())
    return Plain(OpenFile(file))


def _gunzip(file: Any) -> Any:
    return gzip.GzipFile(fileobj=file, mode="rb")


def standard_input() -> Stream:
    """Stdin. Raises FileUnavailable when it is closed."""
    if sys.stdin is None:
        raise FileUnavailable("standard input is closed")
    return Stream(sys.stdin.fileno(), "standard input")
