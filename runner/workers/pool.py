"""The pool: the workers of one engine and who has them.

A worker is taken by one thread at a time. One that had to be killed is replaced at once, so that the
next invocation finds one ready. No thread of its own: waiting is the caller's.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from runner.errors import EngineUnavailable
from runner.workers import walls
from runner.workers.launch import EngineSpec
from runner.workers.permits import Closed, Permits
from runner.workers.processes import Worker, Zygote, ZygoteGone


class Pool:
    """`size` workers of one engine; more for as long as who holds one is away and others need one.
    Safe to use from several threads."""

    def __init__(self, spec: EngineSpec, *, size: int, allow_missing_walls: frozenset[str] = frozenset()) -> None:
        self._size = size
        self._spec = spec
        self._allowed = allow_missing_walls
        self._permits = Permits(size)
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._taken: set[Worker] = set()
        self._zygote_lock = threading.Lock()
        self._zygote: Zygote | None = None
        self._closed = False

    def start(self) -> None:
        """Begin to start the engine, without waiting for it."""
        self._get_zygote()

    def walls(self) -> dict[str, str]:
        """See FunctionExecutor.walls; found out by a zygote of its own, which may lack any of them."""
        probe = Zygote(self._spec, frozenset(walls.WALLS))
        try:
            missing = probe.missing_walls()
        except ZygoteGone as gone:
            raise EngineUnavailable(self._spec.name, str(gone)) from gone
        finally:
            probe.close()
        return {name: missing.get(name, "") for name in walls.WALLS}

    def states(self) -> list[str]:
        """See FunctionExecutor.workers."""
        with self._lock:
            told = {worker.pid: "idle" for worker in self._idle}
            for worker in self._taken:
                with contextlib.suppress(ValueError):  # it is being closed
                    began = worker.reader.started_ns()
                    seconds = int(time.monotonic() - began / 1e9) if began else 0
                    told[worker.pid] = f"busy {seconds} s" if seconds else "busy"
        return [told[pid] for pid in sorted(told)]

    def acquire(self, is_stopped: Callable[[], bool]) -> Worker | None:
        """A worker for this thread alone; waits while all are taken. None when `is_stopped` turns true
        meanwhile. Raises EngineUnavailable."""
        try:
            return self._take() if self._permits.acquire(is_stopped) else None
        except Closed:
            raise self._is_closed() from None

    def try_acquire(self) -> Worker | None:
        """A worker if one is free now and nobody waits for it. Raises EngineUnavailable."""
        try:
            return self._take() if self._permits.try_acquire() else None
        except Closed:
            raise self._is_closed() from None

    def release(self, worker: Worker) -> None:
        """Give back a worker that is idle and well."""
        with self._lock:
            if worker not in self._taken:
                return
            self._taken.remove(worker)
            keep = not self._closed and len(self._idle) < self._size
            if keep:
                self._idle.append(worker)
        self._permits.release()
        if not keep:
            worker.end()
            worker.close()

    def discard(self, worker: Worker) -> None:
        """Kill a worker, wait for its end and put another in its place."""
        worker.end()
        with self._lock:
            if worker not in self._taken:
                return
            self._taken.remove(worker)
        try:
            worker.close()
            with contextlib.suppress(EngineUnavailable):  # told to the next who asks for a worker
                self._add_idle()
        finally:
            self._permits.release()

    def away(self, count: int) -> AbstractContextManager[None]:
        """The caller, this thread, does not look at the `count` workers that it has meanwhile."""
        return self._permits.away(count)

    def close(self) -> None:
        """End all processes and wait for them. Who still has a worker finds it dead."""
        self._permits.close()
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            taken = list(self._taken)
        for worker in (*idle, *taken):
            worker.kill()
        with self._zygote_lock:
            if self._zygote is not None:
                self._zygote.close()
                self._zygote = None
        for worker in idle:
            worker.end()
            worker.close()
        for worker in taken:
            worker.wait()

    def _is_closed(self) -> EngineUnavailable:
        return EngineUnavailable(self._spec.name, "its executor is closed")

    def _take(self) -> Worker:
        """A worker that is well, for a permit that was taken."""
        try:
            while True:
                with self._lock:
                    worker = self._idle.pop() if self._idle else None
                if worker is None:
                    worker = self._fork()
                elif not worker.is_quiet():  # it died while nobody used it
                    worker.end()
                    worker.close()
                    continue
                with self._lock:
                    self._taken.add(worker)
                return worker
        except BaseException:
            self._permits.release()
            raise

    def _add_idle(self) -> None:
        with self._lock:
            if self._closed or len(self._idle) >= self._size:
                return
        worker = self._fork()
        with self._lock:
            self._idle.append(worker)

    def _fork(self) -> Worker:
        gone = ""
        for _ in range(3):  # a zygote that was killed from outside is replaced, and that one once more
            zygote = self._get_zygote()
            try:
                return zygote.fork()
            except ZygoteGone as error:
                gone = str(error)
                self._drop(zygote)
            except EngineUnavailable:
                self._drop(zygote)
                raise
            except OSError as error:
                raise EngineUnavailable(self._spec.name, f"no worker can be started: {error}") from error
        raise EngineUnavailable(self._spec.name, f"its zygote does not stay alive ({gone})")

    def _get_zygote(self) -> Zygote:
        with self._zygote_lock:
            if self._closed:
                raise self._is_closed()
            if self._zygote is None:
                self._zygote = Zygote(self._spec, self._allowed)
            return self._zygote

    def _drop(self, zygote: Zygote) -> None:
        with self._zygote_lock:
            if self._zygote is zygote:
                self._zygote = None
        zygote.close()
