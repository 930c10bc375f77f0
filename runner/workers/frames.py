"""Runs a stream of inputs on the workers of a pool: several in a frame, results in order.

Each frame goes to one worker. While workers run, the next frames are filled; at most `WINDOW`
frames are under way, so that memory stays bounded however long the stream is. A worker that passes
its deadline or dies takes one invocation with it: what it had finished is kept, what it had not
begun is sent again.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from runner.errors import InvocationError, TimedOut, WorkerLost
from runner.models import InvocationResult
from runner.workers import protocol
from runner.workers.area import parse_results
from runner.workers.pool import Module, Pool, Worker

FRAME_INPUTS = 256
FRAME_BYTES = 1 << 18
FRAME_SECONDS = 0.004
"""A frame grows while the ones before took less than this, and is sent when filling took as long."""
WINDOW = 16
BEGIN_SECONDS = 20.0
"""How long a worker may take to load a module, before its first invocation begins."""

AnswerCall = Callable[[str, Sequence[bytes]], bytes]


class _Frame:
    __slots__ = ("begun", "data", "done", "inputs", "results")

    def __init__(self, inputs: list[bytes]) -> None:
        self.inputs = inputs
        self.results: list[InvocationResult] = []
        self.data = b""
        self.done = False
        self.begun = 0.0


class FrameRun:
    """One stream of inputs on its way through the pool; used by one thread."""

    def __init__(
        self, pool: Pool, module: Module, facts: bytes, timeout_seconds: float, answer_call: AnswerCall
    ) -> None:
        self._pool, self._module, self._facts = pool, module, facts
        self._timeout = timeout_seconds
        self._answer_call = answer_call
        self._busy: dict[int, tuple[Worker, _Frame]] = {}
        self._held: list[Worker] = []
        self._again: deque[_Frame] = deque()
        self._frame_inputs = 1
        self._poller = select.poll()

    def run(self, inputs: Iterable[bytes]) -> Iterator[InvocationResult]:
        """One result for each input, in order. Closing the iterator kills what is running."""
        source = iter(inputs)
        window: deque[_Frame] = deque()
        ended = False
        try:
            while True:
                while (self._again or (not ended and len(window) < WINDOW)) and self._can_send(bool(self._busy)):
                    if self._again:
                        self._send(self._again.popleft())
                        continue
                    frame = self._fill(source)
                    if frame is None:
                        ended = True
                        break
                    window.append(frame)
                    self._send(frame)
                while window and window[0].done:
                    yield from window.popleft().results
                if self._busy:
                    self._wait()
                elif ended and not window:
                    return
        finally:
            self._clear()

    def _can_send(self, others_run: bool) -> bool:
        """Whether a worker is at hand; waits for one only if none of ours is running."""
        if self._held:
            return True
        worker = self._pool.try_acquire() if others_run else self._pool.acquire()
        if worker is None:
            return False
        self._held.append(worker)
        return True

    def _fill(self, source: Iterator[bytes]) -> _Frame | None:
        inputs: list[bytes] = []
        size = 0
        until = time.monotonic() + FRAME_SECONDS
        for data in source:
            inputs.append(data)
            size += len(data)
            if len(inputs) >= self._frame_inputs or size >= FRAME_BYTES or time.monotonic() > until:
                break
        return _Frame(inputs) if inputs else None

    def _send(self, frame: _Frame) -> None:
        worker = self._held.pop()
        frame.begun = time.monotonic()
        descriptor = worker.sock.fileno()
        worker.reader.forget()
        self._busy[descriptor] = (worker, frame)
        self._poller.register(descriptor, select.POLLIN)
        try:
            number = worker.number_of(self._module)
            worker.sock.sendall(protocol.run_message(number, self._facts, frame.inputs))
        except OSError:
            self._lose(worker, frame, None)

    def _wait(self) -> None:
        now = time.monotonic()
        remaining = min(self._next_look(worker, frame, now) for worker, frame in self._busy.values()) - now
        events = self._poller.poll(max(0.0, remaining) * 1000 + 0.2)
        for descriptor, _ in events:
            self._receive(*self._busy[descriptor])
        if not events:
            now = time.monotonic()
            for worker, frame in list(self._busy.values()):
                if self._deadline(worker, frame) <= now:
                    self._lose(worker, frame, self._timeout)

    def _next_look(self, worker: Worker, frame: _Frame, now: float) -> float:
        """Before this moment it cannot be overdue. One that has not begun may begin while we wait."""
        deadline = self._deadline(worker, frame)
        return deadline if worker.reader.started_ns() else min(now + self._timeout, deadline)

    def _deadline(self, worker: Worker, frame: _Frame) -> float:
        """When the running invocation must have ended, on the monotonic clock."""
        started = worker.reader.started_ns()
        return started / 1e9 + self._timeout if started else frame.begun + BEGIN_SECONDS + self._timeout

    def _receive(self, worker: Worker, frame: _Frame) -> None:
        try:
            kind, body = worker.inbox.receive()
            if kind == protocol.DONE:
                self._finish(worker, frame)
            elif kind == protocol.FULL:
                frame.data += worker.reader.take()
                worker.sock.sendall(protocol.message(protocol.CONTINUE))
            elif kind == protocol.ASK:
                answer = self._answer_call(*protocol.parse_ask(body))
                worker.sock.sendall(protocol.message(protocol.ANSWER, answer))
            else:
                self._lose(worker, frame, None)
        except (OSError, protocol.ConnectionClosed):
            self._lose(worker, frame, None)

    def _finish(self, worker: Worker, frame: _Frame) -> None:
        data = worker.reader.take()
        self._forget(worker)
        elapsed = time.monotonic() - frame.begun
        if elapsed < FRAME_SECONDS and len(frame.inputs) >= self._frame_inputs:
            self._frame_inputs = min(FRAME_INPUTS, self._frame_inputs * 4)
        elif elapsed > 2 * FRAME_SECONDS:
            self._frame_inputs = max(1, self._frame_inputs // 2)
        if self._pool.waiting:
            self._pool.release(worker)
        else:
            self._held.append(worker)
        frame.results += parse_results(frame.data + data if frame.data else data)
        frame.data = b""
        frame.done = True

    def _lose(self, worker: Worker, frame: _Frame, timeout_seconds: float | None) -> None:
        """End a worker, keep what it finished, tell what it was at, and send the rest again."""
        self._forget(worker)
        worker.kill()
        started = worker.reader.started_ns()
        frame.data += worker.reader.take()
        tail = worker.reader.stderr_tail()
        status = self._pool.discard(worker)
        results = parse_results(frame.data)
        frame.data = b""
        rest = frame.inputs[len(results) :]
        gave_up = bool(results) and isinstance(results[-1].error, WorkerLost)
        frame.results += results
        if rest and (started or timeout_seconds is not None) and not gave_up:
            error: InvocationError = (
                TimedOut(timeout_seconds, stderr_tail=tail)
                if timeout_seconds is not None
                else WorkerLost(_describe(status), stderr_tail=tail)
            )
            elapsed_ms = time.monotonic() * 1e3 - started / 1e6 if started else 0.0
            frame.results.append(InvocationResult(None, error, (), elapsed_ms))
            rest = rest[1:]
        elif rest and not results:
            # It died before it began: nothing was run, but a module that kills every worker that
            # loads it must not be sent for ever.
            frame.results.append(InvocationResult(None, WorkerLost(_describe(status), stderr_tail=tail)))
            rest = rest[1:]
        frame.inputs = rest
        if rest:
            self._again.append(frame)
        else:
            frame.done = True

    def _forget(self, worker: Worker) -> None:
        descriptor = worker.sock.fileno()
        self._poller.unregister(descriptor)
        del self._busy[descriptor]

    def _clear(self) -> None:
        for worker, _ in self._busy.values():
            self._pool.discard(worker)
        self._busy.clear()
        for worker in self._held:
            self._pool.release(worker)
        self._held.clear()


def _describe(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"its process was killed by {signal.Signals(number).name}"
    return f"its process ended with exit status {os.WEXITSTATUS(status)}"
