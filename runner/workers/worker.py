"""The loop of a worker process: receives modules and frames, runs each input on a fresh instance.

It runs in a process forked from the zygote, after the last wall has risen: no file can be opened
and no module imported any more.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from runner.errors import InvocationError, WorkerLost
from runner.workers import protocol
from runner.workers.area import ResultWriter
from runner.workers.engine import Abi, Call, Engine, Loaded, LogBuffer
from runner.workers.live import Live
from runner.workers.recording import world_of
from runner.workers.wire import decode_error

LOST_STATUS = 70
"""The exit status of a worker that gave itself up (EX_SOFTWARE of sysexits.h)."""
_LATE_SECONDS = 0.05
_LONGEST_SECONDS = 1e8
_DONE = protocol.message(protocol.DONE)


class Worker:
    """One worker: its socket, its results and the modules it has loaded."""

    def __init__(self, engine: Engine, sock: socket.socket, area: int) -> None:
        self._engine = engine
        self._sock = sock
        self._inbox = protocol.Inbox(sock)
        self._results = ResultWriter(area, self._hand_over)
        self._live = Live(self._results, self._ask)
        self._modules: dict[int, Loaded] = {}
        self._facts = self._shared = b""
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
        try:
            self._modules[number] = self._engine.load(body[8 + abi_size :], abi)
        except BaseException as raised:
            self._results.begin_frame()
            self._give_up(raised)

    def _run(self, body: bytes) -> None:
        number, facts, sizes, position = protocol.parse_run(body)
        call = self._call_for(facts)
        invoke = self._modules[number].invoke
        results, logs, world = self._results, call.logs, call.world
        results.begin_frame()
        arm_again_at = 0
        for size in sizes:
            if results.started_ns >= arm_again_at:
                arm_again_at = results.started_ns + _arm(call.timeout_seconds)
            end = position + size
            data = body[position:end]
            world.begin(data)
            try:
                output, peak = invoke(data, call)
                error = None
            except InvocationError as raised:
                output, peak, error = b"", getattr(raised, "memory_peak_bytes", 0), raised
            except BaseException as raised:
                self._give_up(raised, logs)
            if not results.write(output, error, logs.take(), peak, world.recording(failed=error is not None)):
                break  # the app sends the rest again
            position = end
        results.end_frame()
        _disarm()
        self._sock.sendall(_DONE)

    def _give_up(self, raised: BaseException, logs: LogBuffer | None = None) -> NoReturn:
        reason = f"{type(raised).__name__}: {str(raised)[:500]}"
        error = WorkerLost(reason, stderr_tail=logs.tail if logs else "")
        self._results.write(b"", error, logs.take() if logs else (), 0)
        os._exit(LOST_STATUS)

    def _call_for(self, facts: bytes) -> Call:
        if self._call is not None and facts == self._facts:
            return self._call
        shared, own = protocol.split_facts(facts)
        if self._call is None or shared != self._shared:
            self._call = self._make_call(json.loads(shared))
            self._shared = shared
        call, of_its_own = self._call, json.loads(own)
        call.request_id, call.caller_wallet = of_its_own["request_id"], of_its_own["caller_wallet"]
        call.logs.take_early = self._live.take_logs if "live_logs" in of_its_own else None
        call.world = world_of(of_its_own, call.secrets)
        self._facts = facts
        return call

    def _make_call(self, shared: dict[str, Any]) -> Call:
        logs = LogBuffer(shared.pop("log_limit_bytes"), mirror=self._results.mirror)
        call = Call(**shared, request_id="", caller_wallet=None, logs=logs, ask_app=self._ask)
        if protocol.PROGRESS in call.host_calls:
            call.report_progress = self._live.report_progress
        return call

    def _hand_over(self) -> None:
        _disarm()  # the guest is through, and it is not its fault if nobody takes the result
        self._sock.sendall(protocol.message(protocol.FULL))
        self._await(protocol.CONTINUE)

    def _ask(self, name: str, arguments: Sequence[bytes]) -> bytes:
        self._sock.sendall(protocol.message(protocol.ASK, protocol.encode_ask(name, arguments)))
        answer = self._await(protocol.ANSWER)
        if answer[:1] == protocol.REFUSED:
            raise decode_error(answer[1:])
        return answer[1:]

    def _await(self, wanted: int) -> bytes:
        kind, body = self._inbox.receive()
        if kind != wanted:
            raise RuntimeError(f"message {kind} came where {wanted} was due")
        return body


def _arm(timeout_seconds: float) -> int:
    """Let the kernel end this process some time after the deadline of an invocation that begins now;
    returns for how many nanoseconds that will do for others, too.

    The app ends it sooner and tells a timeout. It may be away, though, in its consumer's code, or
    dead slow, and a guest must not run on for that."""
    slack = timeout_seconds / 16
    signal.setitimer(signal.ITIMER_REAL, min(timeout_seconds + slack + _LATE_SECONDS, _LONGEST_SECONDS))
    return int(min(slack, _LONGEST_SECONDS / 2) * 1e9)


def _disarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)


def load_message(number: int, abi: Abi, artifact: bytes) -> bytes:
    """The message that gives a worker a module under a number."""
    name = abi.value.encode()
    return protocol.message(protocol.LOAD, struct.pack("<II", number, len(name)), name, artifact)


Serve = Callable[[socket.socket, int], None]
