"""How results come back: a byte stream through a bounded area of shared memory.

The worker commits each result as it ends, so that killing it in the next invocation loses none; the
app copies the bytes out when told, or after the worker's death. A stream may be longer than the
area: it is then handed over piece by piece. Results are told in a fixed binary form and never as
anything that could run code here.

Layout: a page of header (`committed` u64, `started_ns` u64, `tail_size` u32, the stderr tail of the
running invocation), then the bytes.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable, Sequence
from time import monotonic_ns

from runner.errors import InvocationError, WorkerLost
from runner.models import InvocationResult, LogEntry
from runner.workers.recording import Recorded
from runner.workers.wire import UNREADABLE, decode_error, decode_logs, encode_error, encode_logs

AREA_BYTES = 1 << 20
"""Room for results. More does not run faster: results of a frame of small records fill a few KiB."""
HEADER_BYTES = 4096
TAIL_OFFSET = 64

_WORDS_BYTES = 16
_COMMITTED, _STARTED = 0, 1
_WORD = struct.Struct("<Q")
_SIZE = struct.Struct("<I")
_RESULT = struct.Struct("<IIIQQQ")  # is error, size of logs, of recording, of output, nanoseconds, peak bytes


def create_area() -> int:
    """A file descriptor of new shared memory, for `ResultWriter` there and `ResultReader` here."""
    descriptor = os.memfd_create("runner-results", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, HEADER_BYTES + AREA_BYTES)
    return descriptor


class ResultWriter:
    """The worker's end. `hand_over` is called when the area is full; it returns when it is free."""

    def __init__(self, descriptor: int, hand_over: Callable[[], None]) -> None:
        self._map = memoryview(mmap.mmap(descriptor, HEADER_BYTES + AREA_BYTES))
        self._words = self._map[:_WORDS_BYTES].cast("Q")  # a word is stored whole: the app reads while we run
        self._hand_over = hand_over
        self._used = 0
        self.started_ns = 0
        """When the running invocation began, on the monotonic clock."""

    def begin_frame(self) -> None:
        """Start again at the front, and with the first invocation; the app has copied everything."""
        self._used = 0
        self._words[_COMMITTED] = 0
        self._begin_invocation(monotonic_ns())

    def _begin_invocation(self, now_ns: int) -> None:
        # The app measures the invocation's deadline from here.
        self.started_ns = self._words[_STARTED] = now_ns

    def end_frame(self) -> None:
        """Note that no invocation is running."""
        self._words[_STARTED] = 0

    def mirror(self, tail: bytes) -> None:
        """Show the end of standard error to the app, which may have to kill us before we tell it."""
        self._map[TAIL_OFFSET : TAIL_OFFSET + len(tail)] = tail
        _SIZE.pack_into(self._map, 16, len(tail))

    def write(
        self, output: bytes, error: InvocationError | None, logs: Sequence[LogEntry], peak: int, recording: bytes = b""
    ) -> bool:
        """Commit the result of the running invocation, and begin the next. Returns whether there was
        room for it: after one that went over in pieces the frame should end instead, so that the app
        need not hold several such results."""
        now = monotonic_ns()
        log_bytes = encode_logs(logs) if logs else b""
        if error is not None:
            output = encode_error(error)
        size = len(output)
        head = _RESULT.pack(error is not None, len(log_bytes), len(recording), size, now - self.started_ns, peak)
        place = HEADER_BYTES + self._used
        end = place + _RESULT.size + size + len(log_bytes) + len(recording)
        if end > HEADER_BYTES + AREA_BYTES:
            self.end_frame()  # the guest is through: waiting for the app is nobody's time
            for part in (head, output, log_bytes, recording):
                self._stream(part)
            self._words[_COMMITTED] = self._used
            return False
        self._map[place:end] = head + output + log_bytes + recording
        self._used = end - HEADER_BYTES
        self._words[_COMMITTED] = self._used
        self._begin_invocation(now)
        return True

    def _stream(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            room = AREA_BYTES - self._used
            if room == 0:
                self._words[_COMMITTED] = self._used
                self._hand_over()
                self._used, room = 0, AREA_BYTES
            piece = view[:room]
            place = HEADER_BYTES + self._used
            self._map[place : place + len(piece)] = piece
            self._used += len(piece)
            view = view[len(piece) :]


class ResultReader:
    """The app's end. Nothing in the area is trusted: sizes are checked before they are used."""

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, HEADER_BYTES + AREA_BYTES)

    def started_ns(self) -> int:
        """When the running invocation began, on the monotonic clock; 0 when none is running."""
        moment: int = _WORD.unpack_from(self._map, 8)[0]
        return moment

    def take(self) -> bytes:
        """A copy of everything committed since the last hand-over."""
        committed = min(_WORD.unpack_from(self._map, 0)[0], AREA_BYTES)
        return self._map[HEADER_BYTES : HEADER_BYTES + committed]

    def stderr_tail(self) -> str:
        """The end of what the running invocation wrote to standard error."""
        size = min(_SIZE.unpack_from(self._map, 16)[0], HEADER_BYTES - TAIL_OFFSET)
        return self._map[TAIL_OFFSET : TAIL_OFFSET + size].decode("utf-8", "replace")

    def forget(self) -> None:
        """Clear the header before a frame is sent."""
        self._map[:24] = bytes(24)

    def close(self) -> None:
        """Give the memory back."""
        self._map.close()


def parse_results(data: bytes, recording_limit_bytes: int = 0) -> list[InvocationResult]:
    """Every whole result in `data`; an unfinished one at the end is left out. One that cannot be read
    is the last, and WorkerLost; so is one with a longer recording than the limit."""
    results: list[InvocationResult] = []
    append, unpack, make = results.append, _RESULT.unpack_from, InvocationResult
    position, end, head = 0, len(data), _RESULT.size
    while position + head <= end:
        failed, log_size, recorded, size, ns, peak = unpack(data, position)
        start = position + head
        logged = start + size
        position = logged + log_size + recorded
        if position > end:
            break
        try:
            logs = decode_logs(data[logged : logged + log_size]) if log_size else ()
            error = decode_error(data[start:logged]) if failed else None
            recording = _recording(data[position - recorded : position], recording_limit_bytes) if recorded else None
        except UNREADABLE as why:
            append(make(None, WorkerLost(f"it told an unreadable result ({type(why).__name__})")))
            break
        append(make(None if failed else data[start:logged], error, logs, ns / 1e6, peak, recording))
    return results


def _recording(data: bytes, limit_bytes: int) -> bytes:
    if len(data) > limit_bytes:
        raise ValueError("a recording that is too long")
    Recorded.parse(data)
    return data
