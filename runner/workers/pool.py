"""The pool: one zygote and its workers, as the app holds them.

A worker is taken by one thread at a time. A worker that had to be killed is replaced at once, so
that the next invocation finds one ready. No thread of its own: waiting is the caller's.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import threading
from collections import OrderedDict
from dataclasses import dataclass

from runner.errors import EngineUnavailable
from runner.workers import protocol, walls, zygote
from runner.workers.area import ResultReader, create_area
from runner.workers.engine import Abi
from runner.workers.launch import EngineSpec
from runner.workers.worker import load_message

START_SECONDS = 30.0
"""How long an engine may take to import and warm up."""
MODULES_PER_WORKER = 64
"""How many modules a worker keeps loaded; the one unused longest is dropped."""


@dataclass(frozen=True, slots=True)
class Module:
    """A compiled module, ready to be given to workers. `key` names its bytes for good."""

    key: str
    artifact: bytes
    abi: Abi


class Worker:
    """A worker process, seen from the app."""

    def __init__(self, pid: int, sock: socket.socket, reader: ResultReader) -> None:
        self.pid = pid
        self.sock = sock
        self.reader = reader
        self.inbox = protocol.Inbox(sock)
        self.poller = select.poll()
        self.poller.register(sock, select.POLLIN)
        self._pidfd = os.pidfd_open(pid)
        self._loaded: OrderedDict[str, int] = OrderedDict()
        self._numbers = 0

    def number_of(self, module: Module) -> int:
        """The number under which the worker knows the module; loads it first if it does not."""
        number = self._loaded.get(module.key)
        if number is not None:
            if len(self._loaded) > 1:
                self._loaded.move_to_end(module.key)
            return number
        self._numbers += 1
        if len(self._loaded) >= MODULES_PER_WORKER:
            _, oldest = self._loaded.popitem(last=False)
            self.sock.sendall(protocol.message(protocol.DROP, oldest.to_bytes(4, "little")))
        self.sock.sendall(load_message(self._numbers, module.abi, module.artifact))
        self._loaded[module.key] = self._numbers
        return self._numbers

    def kill(self) -> None:
        """End the process now; it may be dead already."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Give back what the app holds of it."""
        os.close(self._pidfd)
        self.sock.close()
        self.reader.close()


class _Zygote:
    """The zygote process and its control socket."""

    def __init__(self, spec: EngineSpec, allow_missing_walls: frozenset[str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(START_SECONDS)
        self._control = ours
        with theirs:
            self._process = spec.popen(
                "runner.workers.zygote",
                [spec.module, str(theirs.fileno()), ",".join(sorted(allow_missing_walls))],
                environment={},
                pass_fds=[theirs.fileno()],
                stderr=subprocess.PIPE,  # a pipe and no file: a worker may not make a file grow
            )
        self._spec = spec
        self._greeted = False

    def _greet(self) -> None:
        try:
            greeting = self._control.recv(65536)
        except TimeoutError:
            raise self._failed(f"it did not start within {START_SECONDS:g} s") from None
        if not greeting:
            raise self._failed(f"its process ended at start: {self._last_words()}")
        told = json.loads(greeting)
        if told["refused"]:
            reasons = "; ".join(f"{name}: {told['missing'][name]}" for name in told["refused"])
            raise self._failed(
                f"walls around the sandbox cannot be raised here ({reasons})",
                f"if you accept running without, set RUNNER_ALLOW_MISSING_WALLS={','.join(told['refused'])}",
            )
        self._greeted = True
        self._missing: dict[str, str] = told["missing"]

    def missing_walls(self) -> dict[str, str]:
        """Why, for each wall that does not stand. For a zygote that has not forked yet."""
        self._greet()
        return self._missing

    def _failed(self, reason: str, remedy: str | None = None) -> EngineUnavailable:
        self.close()
        return EngineUnavailable(self._spec.name, reason, remedy=remedy or "`runner doctor` tells more")

    def _last_words(self) -> str:
        self._process.wait(5)
        assert self._process.stderr is not None
        words = self._process.stderr.read().decode("utf-8", "replace").strip().splitlines()
        return words[-1][:500] if words else f"exit status {self._process.returncode}"

    def fork(self) -> Worker:
        """A new worker."""
        if not self._greeted:
            self._greet()
        ours, theirs = socket.socketpair()
        area = create_area()
        try:
            socket.send_fds(self._control, [zygote.FORK], [theirs.fileno(), area])
            answer = self._control.recv(zygote.PID.size)
            if not answer:
                raise ConnectionResetError("the zygote is gone")
            return Worker(zygote.PID.unpack(answer)[0], ours, ResultReader(area))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(area)

    def reap(self, pid: int) -> int:
        """Wait for a worker that is ending; its wait status."""
        self._control.send(zygote.REAP + zygote.PID.pack(pid))
        answer = self._control.recv(zygote.PID.size)
        if not answer:
            raise ConnectionResetError("the zygote is gone")
        status: int = zygote.PID.unpack(answer)[0]
        return status

    def close(self) -> None:
        """End it, and with it every worker, and wait for its end."""
        self._control.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()


class Pool:
    """At most `size` workers of one engine. Safe to use from several threads."""

    def __init__(self, spec: EngineSpec, *, size: int, allow_missing_walls: frozenset[str] = frozenset()) -> None:
        self.size = size
        self._spec = spec
        self._allowed = allow_missing_walls
        self._changed = threading.Condition(threading.Lock())
        self._idle: list[Worker] = []
        self._count = 0
        self.waiting = 0
        """How many threads wait for a worker now; a hint for those that hold several."""
        self._zygote: _Zygote | None = None
        self._closed = False

    def start(self) -> None:
        """Begin to start the engine, without waiting for it."""
        with self._changed:
            self._get_zygote()

    def walls(self) -> dict[str, str]:
        """See FunctionExecutor.walls; found out by a zygote of its own, which may lack any of them."""
        probe = _Zygote(self._spec, frozenset(walls.WALLS))
        try:
            missing = probe.missing_walls()
        finally:
            probe.close()
        return {name: missing.get(name, "") for name in walls.WALLS}

    def acquire(self) -> Worker:
        """A worker for this thread alone; waits while all are taken."""
        with self._changed:
            while True:
                worker = self._take()
                if worker is not None:
                    return worker
                self.waiting += 1
                try:
                    self._changed.wait()
                finally:
                    self.waiting -= 1

    def try_acquire(self) -> Worker | None:
        """A worker if one is free now."""
        with self._changed:
            return self._take()

    def release(self, worker: Worker) -> None:
        """Give back a worker that is idle and well."""
        with self._changed:
            if self._closed:
                self._end(worker)
            else:
                self._idle.append(worker)
                self._changed.notify()

    def discard(self, worker: Worker, *, replace: bool = True) -> int:
        """Kill a worker, wait for its end and put another in its place; the wait status of the old."""
        with self._changed:
            status = self._end(worker)
            if replace and not self._closed:
                with contextlib.suppress(EngineUnavailable):  # told to the next who asks for a worker
                    self._idle.append(self._fork())
                    self._count += 1
            self._changed.notify()
            return status

    def close(self) -> None:
        """End all processes and wait for them."""
        with self._changed:
            self._closed = True
            for worker in self._idle:
                self._end(worker)
            self._idle.clear()
            if self._zygote is not None:
                self._zygote.close()
                self._zygote = None
            self._changed.notify_all()

    def _take(self) -> Worker | None:
        if self._closed:
            raise EngineUnavailable(self._spec.name, "its executor is closed")
        while self._idle:
            worker = self._idle.pop()
            if not worker.poller.poll(0):
                return worker
            self._end(worker)  # it died while nobody used it
        if self._count >= self.size:
            return None
        worker = self._fork()
        self._count += 1
        return worker

    def _end(self, worker: Worker) -> int:
        worker.kill()
        status = signal.SIGKILL.value
        if self._zygote is not None:
            try:
                status = self._zygote.reap(worker.pid)
            except OSError:
                self._drop_zygote()
        worker.close()
        self._count -= 1
        return status

    def _get_zygote(self) -> _Zygote:
        if self._zygote is None:
            self._zygote = _Zygote(self._spec, self._allowed)
        return self._zygote

    def _drop_zygote(self) -> None:
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None

    def _fork(self) -> Worker:
        try:
            return self._get_zygote().fork()
        except EngineUnavailable:
            self._zygote = None
            raise
        except OSError:  # the zygote was killed from outside: once more with a new one
            self._drop_zygote()
        try:
            return self._get_zygote().fork()
        except OSError as error:
            self._drop_zygote()
            raise EngineUnavailable(self._spec.name, f"its zygote does not stay alive ({error})") from error
