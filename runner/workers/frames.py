"""Runs a stream of inputs on the workers of a pool: several in a frame, results in order.

Each frame goes to one worker. While workers run, the next frames are filled; at most `WINDOW`
frames are under way and the results held are bounded, so that memory is bounded however long the
stream is. A worker that passes its deadline or dies takes one invocation with it: what it had
finished is kept, what it had not begun is sent again.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from runner.errors import InvocationError, Stopped, TimedOut, WorkerLost
from runner.models import InvocationResult
from runner.workers import protocol
from runner.workers.area import AREA_BYTES, parse_results
from runner.workers.frame import Frame
from runner.workers.pool import Pool
from runner.workers.processes import Module, Worker, describe_end, ended_by_alarm

FRAME_INPUTS = 256
FRAME_BYTES = 1 << 17
"""As much as a socket takes at once: a larger frame waits for its worker to read, and the worker for the rest."""
FRAME_SECONDS = 0.004
"""A frame grows while the ones before took less than this, and is sent when filling took as long."""
WINDOW = 16
HELD_BYTES = 32 << 20
"""With more output than this waiting for results before it, only the first frame goes on."""
BEGIN_SECONDS = 20.0
"""How long a worker may be busy with anything but an invocation: loading a module, above all."""
TRIES = 2
"""How often inputs are sent to workers that die before they begin with the first of them."""
_LONGEST_WAIT_SECONDS = 3600.0

AnswerCall = Callable[[Frame, bytes], bytes]
"""Gives the body of the answer to an ASK of the worker that has this frame. Raises Violation."""


class FrameRun:
    """One stream of inputs on its way through the pool; used by one thread, and stopped by any."""

    def __init__(
        self,
        pool: Pool,
        request_id: str,
        facts: bytes,
        timeout_seconds: float,
        answer_call: AnswerCall,
        *,
        result_limit_bytes: int,
        recording_limit_bytes: int = 0,
    ) -> None:
        self.request_id = request_id
        self._pool, self._facts = pool, facts
        self._timeout = timeout_seconds
        self._answer_call = answer_call
        self._piled_limit = result_limit_bytes + recording_limit_bytes + AREA_BYTES
        self._recording_limit = recording_limit_bytes
        self._busy: dict[int, tuple[Worker, Frame]] = {}
        self._poller = select.poll()
        self._window: deque[Frame] = deque()
        self._ready: list[Frame] = []
        self._held = 0
        self._frames = 0
        self._frame_inputs = 1
        self._pull_seconds = 0.0
        self._ended = False
        self._failure: Exception | None = None
        self._lock = threading.Lock()
        """Held to change `_busy`, and to kill what is in it: a worker that was given back is another's."""
        self._stopped = False

    def stop(self) -> None:
        """Let all that is left end as Stopped, now; from any thread."""
        with self._lock:
            self._stopped = True
            for worker, _ in self._busy.values():
                worker.kill()

    def is_stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def run(self, module: Module, inputs: Iterable[bytes]) -> Iterator[InvocationResult]:
        """One result for each input, in order. Closing the iterator kills what is running. What the
        inputs raise is raised after the results of those before."""
        source = iter(inputs)
        self._module, self._ended = module, False
        window = self._window
        try:
            while True:
                while self._advance(source):
                    pass
                if not window:
                    break
                head = window[0]
                if not head.inputs:
                    window.popleft()
                elif not head.results:
                    self._wait(_LONGEST_WAIT_SECONDS)
                    continue
                results, head.results = head.results, []
                self._held, head.size = self._held - head.size, 0
                with self._away():
                    yield from results
            failure, self._failure = self._failure, None
            if failure is not None:
                raise failure
        finally:
            self._clear()

    def run_one(self, module: Module, data: bytes) -> InvocationResult:
        """The result of one input: `run` without what a stream needs, which takes as long as the rest."""
        self._module = module
        frame = Frame(1, [data])
        self._ready.append(frame)
        try:
            while self._ready:
                worker = self._pool.acquire(self.is_stopped)
                self._ready.pop()
                if worker is None:
                    frame.stop_rest()
                elif self._send(worker, frame):
                    worker.look_out()
                    while self._busy:
                        self._wait(_LONGEST_WAIT_SECONDS)
            return frame.results[0]
        finally:
            self._clear()

    @contextlib.contextmanager
    def _away(self) -> Iterator[None]:
        """While code of others runs: it may take its time, and need the workers that we have."""
        busy = self._busy
        if not busy:
            yield
            return
        left = time.monotonic()
        with self._pool.away(len(busy)):
            yield
        elapsed = time.monotonic() - left
        for _, frame in busy.values():
            frame.quiet += elapsed
            frame.cap += elapsed

    def _advance(self, source: Iterator[bytes]) -> bool:
        """Send a frame, if there is one and a worker for it."""
        window, ready = self._window, self._ready
        if not ready and not self._ended and len(window) < WINDOW and self._held < HELD_BYTES:
            if self._rather_deliver():
                return False
            with self._away():
                frame = self._fill(source)
            if frame is not None:
                window.append(frame)
                ready.append(frame)
        if not ready:
            return False
        frame = min(ready, key=lambda each: each.number)
        if self._held >= HELD_BYTES and frame is not window[0]:
            return False
        if self._stopped:
            ready.remove(frame)
            frame.stop_rest()
            return True
        worker = self._pool.try_acquire() if self._busy else self._pool.acquire(self.is_stopped)
        if worker is None:
            return self._stopped
        ready.remove(frame)
        self._send(worker, frame)
        return True

    def _rather_deliver(self) -> bool:
        """Whether to yield what is there before asking a source that keeps us waiting. Workers that
        are at it get a tenth of that time, for they may be through at once."""
        if self._pull_seconds <= FRAME_SECONDS:
            return False
        while self._busy and not self._window[0].results:
            if not self._wait(self._pull_seconds / 10):
                return False
        return bool(self._window) and (bool(self._window[0].results) or not self._window[0].inputs)

    def _fill(self, source: Iterator[bytes]) -> Frame | None:
        inputs: list[bytes] = []
        size, begun = 0, time.monotonic()
        try:
            for data in source:
                inputs.append(data)
                size += len(data)
                is_full = len(inputs) >= self._frame_inputs or size + len(data) > FRAME_BYTES  # with another like it
                if is_full or time.monotonic() > begun + FRAME_SECONDS:
                    break
            else:
                self._ended = True
        except Exception as error:  # the source is the caller's code: what it gave before comes first
            self._failure, self._ended = error, True
        self._pull_seconds = time.monotonic() - begun
        self._frames += 1
        return Frame(self._frames, inputs) if inputs else None

    def _send(self, worker: Worker, frame: Frame) -> bool:
        """False if it was stopped before."""
        descriptor = worker.sock.fileno()
        with self._lock:
            stopped = self._stopped
            if not stopped:
                self._busy[descriptor] = (worker, frame)
        if stopped:
            self._pool.release(worker)
            frame.stop_rest()
            return False
        self._poller.register(descriptor, select.POLLIN)
        frame.quiet = now = time.monotonic()
        frame.cap = now + BEGIN_SECONDS + len(frame.inputs) * self._timeout
        worker.reader.forget()
        self._post(worker, frame, worker.request(self._module, self._facts, frame.inputs))
        return True

    def _post(self, worker: Worker, frame: Frame, data: bytes) -> None:
        """Send what fits now; the rest when the worker reads on."""
        try:
            sent = worker.sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lose(worker, frame)
            return
        if sent < len(data):
            frame.unsent = memoryview(data)[sent:]
            self._poller.modify(worker.sock.fileno(), select.POLLIN | select.POLLOUT)

    def _post_more(self, worker: Worker, frame: Frame) -> None:
        try:
            frame.unsent = frame.unsent[worker.sock.send(frame.unsent, socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            return
        except OSError:
            self._lose(worker, frame)
            return
        frame.quiet = time.monotonic()
        if not frame.unsent:
            self._poller.modify(worker.sock.fileno(), select.POLLIN)

    def _wait(self, most_seconds: float) -> bool:
        """Wait until something happens, and do what is to be done; False if nothing did."""
        now = time.monotonic()
        until = min(self._next_look(worker, frame, now) for worker, frame in self._busy.values())
        pause = min(max(0.0, until - now), most_seconds, _LONGEST_WAIT_SECONDS)
        events = self._poller.poll(pause * 1000 + 0.2)
        for descriptor, event in events:
            worker, frame = self._busy[descriptor]
            if event & ~select.POLLOUT:
                self._receive(worker, frame)
            else:
                self._post_more(worker, frame)
        now = time.monotonic()
        if now >= until:
            for worker, frame in list(self._busy.values()):
                if self._deadline(worker, frame, now) <= now:
                    self._lose(worker, frame, overdue=True)
        return bool(events)

    def _next_look(self, worker: Worker, frame: Frame, now: float) -> float:
        """Before this moment it cannot be overdue. One that has not begun may begin while we wait."""
        deadline = self._deadline(worker, frame, now)
        return deadline if worker.reader.started_ns() else min(now + self._timeout, deadline)

    def _deadline(self, worker: Worker, frame: Frame, now: float) -> float:
        """When the running invocation must have ended, on the monotonic clock."""
        started = worker.reader.started_ns()
        if not started:
            return min(frame.quiet + BEGIN_SECONDS, frame.cap)
        frame.quiet = now
        return min(started / 1e9 + self._timeout, frame.cap)

    def _receive(self, worker: Worker, frame: Frame) -> None:
        try:
            message = worker.inbox.receive()
            if message is None:
                return
            kind, body = message
            if frame.unsent:
                raise protocol.Violation("it spoke before it had listened")
            if kind == protocol.DONE:
                self._finish(worker, frame)
            elif kind == protocol.FULL:
                self._take(worker, frame)
                self._post(worker, frame, protocol.message(protocol.CONTINUE))
            elif kind == protocol.ASK:
                with self._away():
                    answer = self._answer_call(frame, body)
                self._post(worker, frame, protocol.message(protocol.ANSWER, answer))
            else:
                raise protocol.Violation(f"it sent a message of kind {kind}")
        except protocol.Violation as violation:
            self._lose(worker, frame, reason=str(violation))
        except (OSError, protocol.ConnectionClosed):
            self._lose(worker, frame)

    def _take(self, worker: Worker, frame: Frame) -> None:
        """Copy out a part of results that do not fit into the area."""
        piece = worker.reader.take()
        frame.pieces.append(piece)
        frame.piled += len(piece)
        frame.quiet = time.monotonic()
        if frame.piled > self._piled_limit:
            raise protocol.Violation("its results are longer than any may be")

    def _finish(self, worker: Worker, frame: Frame) -> None:
        data = worker.reader.take()
        whole = b"".join((*frame.pieces, data)) if frame.pieces else data
        results = parse_results(whole, self._recording_limit)
        count = len(results)
        if not count or count > len(frame.inputs) or type(results[-1].error) is WorkerLost:
            raise protocol.Violation(f"it told {count} results of {len(frame.inputs)}")
        if self._forget(worker):
            self._pool.discard(worker)
        else:
            self._pool.release(worker)
        self._adapt(results, len(frame.inputs))
        self._held += frame.keep(results)
        if frame.inputs:
            self._ready.append(frame)

    def _adapt(self, results: list[InvocationResult], sent: int) -> None:
        """Make the next frames as large as fits what the guests of this one took."""
        seconds = sum([result.duration_ms for result in results]) / 1e3
        if len(results) < sent:
            self._frame_inputs = len(results)
        elif seconds > 2 * FRAME_SECONDS:
            self._frame_inputs = max(1, self._frame_inputs // 2)
        elif seconds < FRAME_SECONDS and sent >= self._frame_inputs:
            self._frame_inputs = min(FRAME_INPUTS, self._frame_inputs * 4)

    def _lose(self, worker: Worker, frame: Frame, *, overdue: bool = False, reason: str = "") -> None:
        """End a worker, keep what it finished, tell what it was at, and send the rest again."""
        ended_at = time.monotonic()
        status = worker.end()  # from here on the area does not change
        started_ns, tail = worker.reader.started_ns(), worker.reader.stderr_tail()
        data = b"".join((*frame.pieces, worker.reader.take()))
        self._forget(worker)
        self._pool.discard(worker)
        results = parse_results(data, self._recording_limit)[: len(frame.inputs)]
        self._held += frame.keep(results)
        frame.unsent = memoryview(b"")
        frame.tries = 0 if results else frame.tries + 1
        told = bool(results) and type(results[-1].error) is WorkerLost
        if frame.inputs and not told:
            error = self._verdict(frame, status, started_ns, ended_at, overdue, reason)
            if error is not None:
                error.stderr_tail = tail
                elapsed_ms = max(0.0, ended_at * 1e3 - started_ns / 1e6) if started_ns else 0.0
                frame.keep([InvocationResult(None, error, (), elapsed_ms)])
                frame.tries = 0
        if frame.inputs:
            self._ready.append(frame)

    def _verdict(
        self, frame: Frame, status: int, started_ns: int, ended_at: float, overdue: bool, reason: str
    ) -> InvocationError | None:
        """How the first input of a lost frame ended; None when it had not begun, or when it is not the
        one that was overdue: it is sent again."""
        late = overdue and started_ns / 1e9 + self._timeout <= ended_at
        if started_ns and (late or ended_by_alarm(status)):
            return TimedOut(self._timeout)
        if self._stopped:
            return Stopped(begun=bool(started_ns))
        if overdue and not started_ns:
            reason = f"it did not begin within {BEGIN_SECONDS:g} s"
        elif overdue and ended_at >= frame.cap:
            reason = "it told nothing for too long"
        elif overdue:
            return None
        if started_ns or frame.tries >= TRIES:
            return WorkerLost(reason or describe_end(status))
        return None

    def _forget(self, worker: Worker) -> bool:
        """Let go of a worker; returns whether it was killed by `stop`."""
        descriptor = worker.sock.fileno()
        self._poller.unregister(descriptor)
        with self._lock:
            del self._busy[descriptor]
            return self._stopped

    def _clear(self) -> None:
        with self._lock:
            busy, self._busy = self._busy, {}
        for descriptor, (worker, _) in busy.items():
            self._poller.unregister(descriptor)
            self._pool.discard(worker)
        self._window.clear()
        self._ready.clear()
        self._held = 0
