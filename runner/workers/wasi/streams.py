"""File descriptors of WASI preview 1: the standard streams in memory, and refusals for the rest.

Source: the witx document of wasi_snapshot_preview1. Where a stream lacks a right the answer is
ENOTCAPABLE, except where POSIX has a more telling errno for a pipe: ESPIPE for positions and ranges,
EINVAL for sizes and syncing, ENOTDIR for what needs a directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from runner.errors import OutputTooLarge
from runner.models import LogLevel
from runner.workers.engine import Call
from runner.workers.wasi import abi
from runner.workers.wasi.abi import BADF, INVAL, IOVEC, NOTCAPABLE, NOTDIR, SPIPE, SUCCESS, U32_MAX, U64_MAX
from runner.workers.wasi.memory import GuestMemory, PointerFault

STDIN, STDOUT, STDERR = 0, 1, 2

_CHUNK_BYTES: Final = 1 << 16
"""How much of standard error is copied at once: a guest may hand over its whole memory."""
_LINE_LIMIT: Final = 1 << 13
"""The longest line of a reactor's standard output that stays one log entry, in bytes."""

_READ, _WRITE = abi.RIGHT_FD_READ, abi.RIGHT_FD_WRITE


@dataclass(frozen=True, slots=True)
class Descriptor:
    """An open file descriptor; changed by replacing it in the table."""

    stream: int
    """STDIN, STDOUT or STDERR, whatever number the descriptor has."""
    rights: int
    inheriting: int = 0
    flags: int = 0


_COMMON_RIGHTS: Final = abi.RIGHT_FD_FDSTAT_SET_FLAGS | abi.RIGHT_FD_FILESTAT_GET | abi.RIGHT_POLL_FD_READWRITE

STANDARD_STREAMS: Final[Mapping[int, Descriptor]] = {
    STDIN: Descriptor(STDIN, _READ | _COMMON_RIGHTS),
    STDOUT: Descriptor(STDOUT, _WRITE | _COMMON_RIGHTS),
    STDERR: Descriptor(STDERR, _WRITE | _COMMON_RIGHTS),
}
"""The table that every invocation starts with. Never changed in place."""

_NO_STREAM: Final = -1

_load_iovec = IOVEC.unpack_from
_store_u32 = abi.U32.pack_into


class Streams(GuestMemory):
    """The `fd_*` functions over the streams of one invocation.

    `call` is the invocation that runs, None between two; `output` is what it wrote to standard
    output. After `log_output` standard output is no result but lines for the log.
    """

    __slots__ = ("_input", "_output_limit", "_position", "_result", "call", "descriptors", "output")

    def __init__(self) -> None:
        super().__init__()
        self.call: Call | None = None
        self.descriptors = STANDARD_STREAMS
        self.output = bytearray()
        self._result = STDOUT
        self._output_limit = 0
        self._input: bytes | memoryview = b""
        self._position = 0

    def log_output(self) -> None:
        """Take standard output for lines of the log from now on."""
        self._result = _NO_STREAM

    def open_streams(self, call: Call, stdin: bytes) -> None:
        """Start with the standard streams, untouched."""
        self.call = call
        self.descriptors = STANDARD_STREAMS
        self.output = bytearray()
        self._output_limit = call.output_limit_bytes
        # Slices of a small input are cheaper copied, those of a large one looked at.
        self._input = stdin if len(stdin) < _CHUNK_BYTES else memoryview(stdin)
        self._position = 0

    def close_streams(self) -> None:
        """Log an unfinished line and forget input and output."""
        if self._result == _NO_STREAM and self.output and self.call is not None:
            self.call.logs.log(LogLevel.INFO, bytes(self.output))
        self.call = None
        self.output = bytearray()
        self._input = b""

    @property
    def unread(self) -> int:
        """Bytes of standard input that were not read yet."""
        return len(self._input) - self._position

    def fd_read(self, fd: int, iovs: int, count: int, read: int) -> int:
        descriptor = self.descriptors.get(fd)
        if descriptor is None:
            return BADF
        if not descriptor.rights & _READ:
            return NOTCAPABLE
        view, size = self.view, self.size
        iovs, read = iovs & U32_MAX, read & U32_MAX
        if count == 1 and iovs + 8 <= size and read + 4 <= size:
            address, length = _load_iovec(view, iovs)
            if address + length <= size:
                position = self._position
                piece = self._input[position : position + length]
                length = len(piece)
                view[address : address + length] = piece
                self._position = position + length
                _store_u32(view, read, length)
                return SUCCESS
        return self._read_vectors(iovs, count, read)

    def fd_write(self, fd: int, iovs: int, count: int, written: int) -> int:
        descriptor = self.descriptors.get(fd)
        if descriptor is None:
            return BADF
        if not descriptor.rights & _WRITE:
            return NOTCAPABLE
        view, size = self.view, self.size
        iovs, written = iovs & U32_MAX, written & U32_MAX
        if count == 1 and descriptor.stream == self._result and iovs + 8 <= size and written + 4 <= size:
            address, length = _load_iovec(view, iovs)
            if address + length <= size and len(self.output) + length <= self._output_limit:
                self.output += view[address : address + length]
                _store_u32(view, written, length)
                return SUCCESS
        return self._write_vectors(descriptor.stream, iovs, count, written)

    # The two above know one iovec within the memory as last seen, which is nearly every call; the
    # two below know everything.

    def _read_vectors(self, iovs: int, count: int, read: int) -> int:
        result = self.at(read, 4)
        vectors, wanted = self._vectors(iovs, count)
        if wanted > U32_MAX:
            return INVAL
        view, source, begin = self.view, self._input, self._position
        position, end = begin, min(begin + wanted, len(source))
        for address, length in IOVEC.iter_unpack(vectors):
            if position == end:
                break
            length = min(length, end - position)
            view[address : address + length] = source[position : position + length]
            position += length
        self._position = end
        _store_u32(view, result, end - begin)
        return SUCCESS

    def _write_vectors(self, stream: int, iovs: int, count: int, written: int) -> int:
        result = self.at(written, 4)
        vectors, total = self._vectors(iovs, count)
        if total > U32_MAX:
            return INVAL
        if stream == STDERR:
            self._write_stderr(vectors)
        elif stream == self._result:
            self._write_output(vectors, total)
        else:
            self._log_stdout(vectors)
        _store_u32(self.view, result, total)
        return SUCCESS

    def _vectors(self, pointer: int, count: int) -> tuple[bytes, int]:
        """A copy of the iovecs, each checked, and the sum of their lengths. A copy, because reading
        may overwrite the array itself."""
        size = 8 * (count & U32_MAX)
        start = self.at(pointer, size)
        vectors = bytes(self.view[start : start + size])
        total, last = 0, 0
        for address, length in IOVEC.iter_unpack(vectors):
            total += length
            end = address + length
            if end > last:
                last = end
        if last > self.size and last > self.refresh():
            raise PointerFault(f"an iovec ends at {last:#x} of a memory of {self.size} bytes")
        return vectors, total

    def _write_output(self, vectors: bytes, total: int) -> None:
        output, view = self.output, self.view
        if len(output) + total > self._output_limit:
            raise OutputTooLarge(self._output_limit)
        for address, length in IOVEC.iter_unpack(vectors):
            output += view[address : address + length]

    def _write_stderr(self, vectors: bytes) -> None:
        call, view = self.call, self.view
        if call is None:
            return
        if len(vectors) <= 16:  # libc writes its buffer and the rest with two: keep them together
            parts = [view[address : address + length] for address, length in IOVEC.iter_unpack(vectors)]
            if sum(map(len, parts)) <= _CHUNK_BYTES:
                call.logs.write_stderr(b"".join(parts))
                return
        for address, length in IOVEC.iter_unpack(vectors):
            for start in range(address, address + length, _CHUNK_BYTES):
                call.logs.write_stderr(bytes(view[start : min(start + _CHUNK_BYTES, address + length)]))

    def _log_stdout(self, vectors: bytes) -> None:
        for address, length in IOVEC.iter_unpack(vectors):
            for start in range(address, address + length, _LINE_LIMIT):
                self._log_lines(self.view[start : min(start + _LINE_LIMIT, address + length)])

    def _log_lines(self, data: memoryview) -> None:
        call = self.call
        if call is None:
            return
        *lines, rest = (bytes(self.output) + data).split(b"\n")
        for line in lines:
            call.logs.log(LogLevel.INFO, line)
        if len(rest) > _LINE_LIMIT:
            call.logs.log(LogLevel.INFO, rest)
            rest = b""
        self.output = bytearray(rest)

    def fd_close(self, fd: int) -> int:
        if fd not in self.descriptors:
            return BADF
        self.descriptors = {number: kept for number, kept in self.descriptors.items() if number != fd}
        return SUCCESS

    def fd_renumber(self, fd: int, to: int) -> int:
        moved = self.descriptors.get(fd)
        if moved is None or to not in self.descriptors:
            return BADF
        if fd != to:
            self.fd_close(fd)
            self.descriptors = {**self.descriptors, to: moved}
        return SUCCESS

    def fd_fdstat_get(self, fd: int, pointer: int) -> int:
        descriptor = self.descriptors.get(fd)
        if descriptor is None:
            return BADF
        start = self.at(pointer, abi.FDSTAT.size)
        facts = (abi.FILETYPE_UNKNOWN, descriptor.flags, descriptor.rights, descriptor.inheriting)
        abi.FDSTAT.pack_into(self.view, start, *facts)
        return SUCCESS

    def fd_fdstat_set_flags(self, fd: int, flags: int) -> int:
        descriptor = self.descriptors.get(fd)
        if descriptor is None:
            return BADF
        if not descriptor.rights & abi.RIGHT_FD_FDSTAT_SET_FLAGS:
            return NOTCAPABLE
        if flags & U32_MAX & ~abi.FDFLAGS_ALL:
            return INVAL
        self.descriptors = {**self.descriptors, fd: replace(descriptor, flags=flags)}
        return SUCCESS

    def fd_fdstat_set_rights(self, fd: int, rights: int, inheriting: int) -> int:
        descriptor = self.descriptors.get(fd)
        if descriptor is None:
            return BADF
        rights, inheriting = rights & U64_MAX, inheriting & U64_MAX
        if rights & ~descriptor.rights or inheriting & ~descriptor.inheriting:
            return NOTCAPABLE
        self.descriptors = {**self.descriptors, fd: replace(descriptor, rights=rights, inheriting=inheriting)}
        return SUCCESS

    def fd_filestat_get(self, fd: int, pointer: int) -> int:
        descriptor = self.descriptors.get(fd)
        if descriptor is None:
            return BADF
        if not descriptor.rights & abi.RIGHT_FD_FILESTAT_GET:
            return NOTCAPABLE
        start = self.at(pointer, abi.FILESTAT.size)
        abi.FILESTAT.pack_into(self.view, start, 0, descriptor.stream, abi.FILETYPE_UNKNOWN, 1, 0, 0, 0, 0)
        return SUCCESS

    def fd_seek(self, fd: int, offset: int, whence: int, position: int) -> int:  # noqa: ARG002
        if 0 <= whence <= abi.WHENCE_LAST:
            return self.refuse(fd, SPIPE)
        return self.refuse(fd, INVAL)

    def fd_tell(self, fd: int, position: int) -> int:  # noqa: ARG002
        return self.refuse(fd, SPIPE)

    def fd_pread(self, fd: int, iovs: int, count: int, offset: int, read: int) -> int:  # noqa: ARG002
        return self.refuse(fd, SPIPE, _READ)

    def fd_pwrite(self, fd: int, iovs: int, count: int, offset: int, written: int) -> int:  # noqa: ARG002
        return self.refuse(fd, SPIPE, _WRITE)

    def fd_advise(self, fd: int, offset: int, length: int, advice: int) -> int:  # noqa: ARG002
        return self.refuse(fd, SPIPE if 0 <= advice <= abi.ADVICE_LAST else INVAL)

    def fd_allocate(self, fd: int, offset: int, length: int) -> int:  # noqa: ARG002
        return self.refuse(fd, SPIPE)

    def fd_sync(self, fd: int) -> int:
        return self.refuse(fd, INVAL)

    def fd_datasync(self, fd: int) -> int:
        return self.refuse(fd, INVAL)

    def fd_filestat_set_size(self, fd: int, size: int) -> int:  # noqa: ARG002
        return self.refuse(fd, INVAL)

    def fd_filestat_set_times(self, fd: int, accessed: int, modified: int, flags: int) -> int:  # noqa: ARG002
        return self.refuse(fd, NOTCAPABLE)

    def fd_readdir(self, fd: int, buffer: int, size: int, cookie: int, used: int) -> int:  # noqa: ARG002
        return self.refuse(fd, NOTDIR)

    def fd_prestat_get(self, fd: int, pointer: int) -> int:  # noqa: ARG002
        return BADF

    def fd_prestat_dir_name(self, fd: int, path: int, size: int) -> int:  # noqa: ARG002
        return BADF

    def refuse(self, fd: int, errno: int, right: int = 0) -> int:
        """`errno` if `fd` is open and has the right, else what is wrong with it."""
        descriptor = self.descriptors.get(fd)
        if descriptor is None:
            return BADF
        return errno if descriptor.rights & right == right else NOTCAPABLE
