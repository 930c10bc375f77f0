"""The loop of a worker process: receives modules and frames, runs each input on a fresh instance.

It runs in a process forked from the zygote, after the last wall has risen: no file can be opened
and no module imported any more.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

from runner.errors import InvocationError, WorkerLost
from runner.workers import protocol
from runner.workers.area import ResultWriter
from runner.workers.engine import Abi, Call, Engine, Loaded, LogBuffer

LOST_STATUS = 70
"""The exit status of a worker that gave itself up (EX_SOFTWARE of sysexits.h)."""


class Worker:
    """One worker: its socket, its results and the modules it has loaded."""

    def __init__(self, engine: Engine, sock: socket.socket, area: int) -> None:
        self._engine = engine
        self._sock = sock
        self._inbox = protocol.Inbox(sock)
        self._results = ResultWriter(area, self._hand_over)
        self._modules: dict[int, Loaded] = {}
        self._facts = b""
        self._call: Call | None = None

    def serve(self) -> None:
        """Answer messages until the app closes the socket."""
        try:
            while True:
                kind, body = self._inbox.receive()
                if kind == protocol.RUN:
                    self._run(body)
                elif kind == protocol.LOAD:
                    self._load(body)
                elif kind == protocol.DROP:
                    self._modules.pop(struct.unpack("<I", body)[0], None)
        except (protocol.ConnectionClosed, ConnectionError):
            return

    def _load(self, body: bytes) -> None:
        number, abi_size = struct.unpack_from("<II", body)
        abi = Abi(body[8 : 8 + abi_size].decode())
        self._modules[number] = self._engine.load(body[8 + abi_size :], abi)

    def _run(self, body: bytes) -> None:
        number, facts, sizes, position = protocol.parse_run(body)
        call = self._call_for(facts)
        invoke = self._modules[number].invoke
        results, logs, now = self._results, call.logs, time.monotonic_ns
        results.begin_frame()
        for size in sizes:
            end = position + size
            started = now()
            results.begin_invocation(started)
            try:
                output, peak = invoke(body[position:end], call)
                error = None
            except InvocationError as raised:
                output, peak, error = b"", getattr(raised, "memory_peak_bytes", 0), raised
            except BaseException as raised:
                self._give_up(raised, call, now() - started)
            results.write(output, error, logs.take(), now() - started, peak)
            position = end
        results.end_frame()
        self._sock.sendall(protocol.message(protocol.DONE))

    def _give_up(self, raised: BaseException, call: Call, ns: int) -> None:
        reason = f"{type(raised).__name__}: {str(raised)[:500]}"
        error = WorkerLost(reason, stderr_tail=call.logs.tail)
        self._results.write(b"", error, call.logs.take(), ns, 0)
        os._exit(LOST_STATUS)

    def _call_for(self, facts: bytes) -> Call:
        if facts != self._facts or self._call is None:
            values: dict[str, Any] = json.loads(facts)
            log_limit = values.pop("log_limit_bytes")
            host_calls = frozenset(values.pop("host_calls"))
            logs = LogBuffer(log_limit, mirror=self._results.mirror)
            self._call = Call(**values, logs=logs, host_calls=host_calls, ask_app=self._ask)
            self._facts = facts
        return self._call

    def _hand_over(self) -> None:
        self._sock.sendall(protocol.message(protocol.FULL))
        self._await(protocol.CONTINUE)

    def _ask(self, name: str, arguments: Sequence[bytes]) -> bytes:
        self._sock.sendall(protocol.message(protocol.ASK, protocol.encode_ask(name, arguments)))
        return self._await(protocol.ANSWER)

    def _await(self, wanted: int) -> bytes:
        kind, body = self._inbox.receive()
        if kind != wanted:
            raise RuntimeError(f"message {kind} came where {wanted} was due")
        return body


def load_message(number: int, abi: Abi, artifact: bytes) -> bytes:
    """The message that gives a worker a module under a number."""
    name = abi.value.encode()
    return protocol.message(protocol.LOAD, struct.pack("<II", number, len(name)), name, artifact)


Serve = Callable[[socket.socket, int], None]
