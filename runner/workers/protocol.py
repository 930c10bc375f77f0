"""The messages between app and worker, over one stream socket.

To the worker: `LOAD` (a module), `DROP` (forget one), `RUN` (a frame of inputs), `CONTINUE` (the
area is free again), `ANSWER` (to an `ASK`; its first byte tells an answer from an error). From it:
`DONE` (the frame is through), `FULL` (copy the area out), `ASK` (a host call for the app, log lines
or a progress). A message is a head (kind, size) and its body; numbers are little-endian. Both ends
are of one version: the app starts the worker from its own files.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any

LOAD, DROP, RUN, CONTINUE, ANSWER, DONE, FULL, ASK = range(1, 9)

LOGS, PROGRESS = "add_logs", "report_progress"
"""Names in an `ASK` for what a worker tells while its guest runs: log lines, a percentage."""
ANSWERED, REFUSED = b"+", b"-"
"""First byte of an `ANSWER`: an answer follows, or an error."""

HEAD = struct.Struct("<IQ")
_RUN_HEAD = struct.Struct("<IIII")  # module, size of facts, inputs, the most bytes of an input's length
RECEIVE_BYTES = 1 << 16
"""Below what malloc maps and unmaps anew for every call, which costs ten times the call itself."""

MESSAGE_LIMIT_BYTES = 1 << 28
"""The longest message that the app takes from a worker: a host call with its arguments."""


class ConnectionClosed(Exception):
    """The other end is gone."""


class Violation(Exception):
    """A worker told what no worker of ours tells: its guest has taken it over."""


def message(kind: int, *body: bytes) -> bytes:
    """One whole message."""
    return b"".join((HEAD.pack(kind, sum(map(len, body))), *body))


class Inbox:
    """Reads whole messages from a blocking socket: the worker's end, which trusts the app."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._bytes = b""

    def receive(self) -> tuple[int, bytes]:
        """The next message; raises ConnectionClosed at the end of the stream."""
        while len(self._bytes) < HEAD.size:
            self._more()
        kind, size = HEAD.unpack_from(self._bytes)
        end = HEAD.size + size
        if len(self._bytes) < end:
            self._fill(end)
        body = self._bytes[HEAD.size : end]
        self._bytes = self._bytes[end:]
        return kind, body

    def _more(self) -> None:
        piece = self._sock.recv(RECEIVE_BYTES)
        if not piece:
            raise ConnectionClosed
        self._bytes += piece

    def _fill(self, size: int) -> None:
        whole = bytearray(size)
        have = len(self._bytes)
        whole[:have] = self._bytes
        view = memoryview(whole)
        while have < size:
            count = self._sock.recv_into(view[have:])
            if not count:
                raise ConnectionClosed
            have += count
        self._bytes = bytes(whole)


class PolledInbox:
    """Reads messages without ever waiting: the app's end, which does not trust the worker."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._bytes = bytearray()

    def receive(self) -> tuple[int, bytes] | None:
        """The next message, None as long as it is not whole. Reads once; for a socket that has
        something to read. Raises ConnectionClosed at the end of the stream, Violation for more than
        a worker may say, which never speaks again before it is answered."""
        try:
            piece = self._sock.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        if not piece:
            raise ConnectionClosed
        data = self._bytes
        data += piece
        if len(data) < HEAD.size:
            return None
        kind, size = HEAD.unpack_from(data)
        if size > MESSAGE_LIMIT_BYTES or len(data) > HEAD.size + size:
            raise Violation(f"it sent a message of {size:,} bytes, and {len(data) - HEAD.size:,} are here")
        if len(data) < HEAD.size + size:
            return None
        body = bytes(data[HEAD.size :])
        data.clear()
        return kind, body


_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode
_SHARED_SIZE = struct.Struct("<I")


def encode_shared(facts: Mapping[str, Any]) -> bytes:
    """Those facts of a frame that other frames of the function share; equal facts give equal bytes."""
    return _encode(facts).encode()


def encode_facts(shared: bytes, own: Mapping[str, Any]) -> bytes:
    """All facts of a frame, equal for all its inputs: its own and those of `encode_shared`, which a
    worker reads only when they are others than before."""
    return b"".join((_SHARED_SIZE.pack(len(shared)), shared, _encode(own).encode()))


def split_facts(facts: bytes) -> tuple[bytes, bytes]:
    """Shared and own facts, each still JSON."""
    end = _SHARED_SIZE.size + _SHARED_SIZE.unpack_from(facts)[0]
    return facts[_SHARED_SIZE.size : end], facts[end:]


def run_message(module: int, facts: bytes, inputs: Sequence[bytes]) -> bytes:
    """A frame: `module` is the number that LOAD gave it."""
    count = len(inputs)
    sizes = struct.pack(f"<{count}Q", *map(len, inputs))
    return message(RUN, _RUN_HEAD.pack(module, len(facts), count, 0), facts, sizes, *inputs)


def parse_run(body: bytes) -> tuple[int, bytes, tuple[int, ...], int]:
    """Module, facts, the inputs' sizes, and where the first input begins in `body`."""
    module, facts_size, count, _ = _RUN_HEAD.unpack_from(body)
    start = _RUN_HEAD.size
    facts = body[start : start + facts_size]
    sizes = struct.unpack_from(f"<{count}Q", body, start + facts_size)
    return module, facts, sizes, start + facts_size + 8 * count


_ASK_HEAD = struct.Struct("<I")


def encode_ask(name: str, arguments: Sequence[bytes]) -> bytes:
    """A host call: its name and arguments, each with its size in front."""
    parts: list[bytes] = []
    for part in (name.encode(), *arguments):
        parts += (_ASK_HEAD.pack(len(part)), part)
    return b"".join(parts)


def parse_ask(body: bytes) -> tuple[str, list[bytes]]:
    """Name and arguments of a host call; raises Violation when the sizes lie."""
    parts: list[bytes] = []
    position = 0
    while position < len(body):
        if position + 4 > len(body):
            raise Violation("a host call is cut short")
        (size,) = _ASK_HEAD.unpack_from(body, position)
        position += 4
        if position + size > len(body):
            raise Violation("a host call is cut short")
        parts.append(body[position : position + size])
        position += size
    if not parts:
        raise Violation("a host call has no name")
    return parts[0].decode("utf-8", "replace"), parts[1:]
