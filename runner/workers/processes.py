"""Worker processes and their zygote, as the app holds them: start, kill, wait for the end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from runner.errors import EngineUnavailable
from runner.workers import protocol, zygote
from runner.workers.area import ResultReader, create_area
from runner.workers.engine import Abi
from runner.workers.launch import EngineSpec, start_zygote
from runner.workers.worker import load_message

START_SECONDS = 30.0
"""How long an engine may take to import and warm up."""
LOOK_OUT_SECONDS = 150e-6
"""How long to look for an answer before sleeping until it comes: what it takes to wake a worker on
another core, and a small invocation."""
MODULES_PER_WORKER = 64
"""How many modules a worker keeps loaded; the one unused longest is dropped."""


class ZygoteGone(Exception):
    """The zygote has ended, or question and answer no longer fit together."""


@dataclass(frozen=True, slots=True)
class Module:
    """A compiled module, ready to be given to workers. `key` names its bytes for good."""

    key: str
    artifact: bytes
    abi: Abi


class Worker:
    """A worker process. Used by one thread at a time."""

    def __init__(self, zygote: Zygote, pid: int, sock: socket.socket, reader: ResultReader) -> None:
        self.pid = pid
        self.sock = sock
        self.reader = reader
        self.inbox = protocol.PolledInbox(sock)
        self._zygote = zygote
        self._poller = select.poll()
        self._poller.register(sock, select.POLLIN)
        self._pidfd = os.pidfd_open(pid)
        self._status: int | None = None
        self._skip = self._in_vain = 0
        self._loaded: OrderedDict[str, int] = OrderedDict()
        self._numbers = 0

    def request(self, module: Module, facts: bytes, inputs: Sequence[bytes]) -> bytes:
        """The messages that make it run a frame; they load the module first if it does not have it."""
        loaded = self._loaded
        number = loaded.get(module.key)
        if number is not None:
            if len(loaded) > 1:
                loaded.move_to_end(module.key)
            return protocol.run_message(number, facts, inputs)
        self._numbers = number = self._numbers + 1
        drop = b""
        if len(loaded) >= MODULES_PER_WORKER:
            _, oldest = loaded.popitem(last=False)
            drop = protocol.message(protocol.DROP, oldest.to_bytes(4, "little"))
        loaded[module.key] = number
        load = load_message(number, module.abi, module.artifact)
        return b"".join((drop, load, protocol.run_message(number, facts, inputs)))

    def is_quiet(self) -> bool:
        """Whether it is alive and says nothing, as a worker must that has nothing to do."""
        return not self._poller.poll(0)

    def look_out(self) -> None:
        """Wait a moment for its answer without going to sleep: to be woken takes as long as a small
        invocation. It helps while a core is free for each of the two, so what was in vain is tried less
        and less."""
        if self._skip:
            self._skip -= 1
            return
        look, now = self._poller.poll, time.monotonic
        until = now() + LOOK_OUT_SECONDS
        while not look(0):
            if now() > until:
                self._skip = self._in_vain = min(2 * self._in_vain + 1, 63)
                return
        self._in_vain = 0

    def kill(self) -> None:
        """End the process, without waiting for it; it may be dead already."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def end(self) -> int:
        """Kill the process and wait for its end; its wait status. What it has told can still be read,
        and does not change any more."""
        if self._status is None:
            self.kill()
            try:
                self._status = self._zygote.reap(self.pid)
            except ZygoteGone:
                self.wait()
                self._status = signal.SIGKILL.value
        return self._status

    def wait(self) -> None:
        """Wait for the end of a process that was killed."""
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        poller.poll(START_SECONDS * 1000)

    def close(self) -> None:
        """Give back what the app holds of it."""
        os.close(self._pidfd)
        self.sock.close()
        self.reader.close()


class Zygote:
    """A zygote process. Safe to use from several threads."""

    def __init__(self, spec: EngineSpec, allow_missing_walls: frozenset[str]) -> None:
        self._spec = spec
        self._lock = threading.Lock()
        self._greeted = False
        self._in_step = True
        try:
            self._process, self._control = start_zygote(spec.python)
        except OSError as error:
            reason = f"its interpreter {spec.python} does not start: {error}"
            raise EngineUnavailable(spec.name, reason, remedy="`runner doctor` tells more") from error
        self._control.settimeout(START_SECONDS)
        order = {
            "module": spec.module,
            "package_dir": str(spec.package_dir),
            "allow_missing_walls": sorted(allow_missing_walls),
        }
        with contextlib.suppress(OSError):  # it has ended, and the wait for its greeting will tell
            self._control.send(json.dumps(order).encode())

    def missing_walls(self) -> dict[str, str]:
        """Why, for each wall that does not stand. Raises ZygoteGone, and EngineUnavailable when it does not
        start."""
        with self._lock:
            self._greet()
            return self._missing

    def _greet(self) -> None:
        if self._greeted:
            return
        try:
            greeting = self._control.recv(65536)
        except TimeoutError:
            raise self._failed(f"it did not start within {START_SECONDS:g} s") from None
        except OSError:
            greeting = b""
        if not greeting:
            words = f"its process ended at start: {self._last_words()}"
            if self._process.returncode == -signal.SIGKILL:  # from outside: another may do better
                raise ZygoteGone(words)
            raise self._failed(words)
        told = json.loads(greeting)
        if told["refused"]:
            reasons = "; ".join(f"{name}: {told['missing'][name]}" for name in told["refused"])
            raise self._failed(
                f"walls around the sandbox cannot be raised here ({reasons})",
                f"if you accept running without, set RUNNER_ALLOW_MISSING_WALLS={','.join(told['refused'])}",
            )
        self._greeted = True
        self._missing: dict[str, str] = told["missing"]

    def _failed(self, reason: str, remedy: str | None = None) -> EngineUnavailable:
        return EngineUnavailable(self._spec.name, reason, remedy=remedy or "`runner doctor` tells more")

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._process.kill()
        self._process.wait()
        assert self._process.stderr is not None
        words = self._process.stderr.read().decode("utf-8", "replace").strip().splitlines()
        return words[-1][:500] if words else f"exit status {self._process.returncode}"

    def fork(self) -> Worker:
        """A new worker. Raises ZygoteGone, EngineUnavailable, and OSError when the app has no
        descriptor or memory left for one."""
        with contextlib.ExitStack() as on_failure, contextlib.ExitStack() as always:
            ours, theirs = socket.socketpair()
            on_failure.callback(ours.close)
            always.callback(theirs.close)
            area = create_area()
            always.callback(os.close, area)
            reader = ResultReader(area)
            on_failure.callback(reader.close)
            pid = self._ask(zygote.FORK, [theirs.fileno(), area])
            try:
                worker = Worker(self, pid, ours, reader)
            except OSError:
                os.kill(pid, signal.SIGKILL)
                self.reap(pid)
                raise
            on_failure.pop_all()
            return worker

    def reap(self, pid: int) -> int:
        """Wait for a worker that is ending; its wait status. Raises ZygoteGone."""
        return self._ask(zygote.REAP + zygote.PID.pack(pid))

    def _ask(self, question: bytes, descriptors: Sequence[int] = ()) -> int:
        with self._lock:
            if not self._in_step:
                raise ZygoteGone("it was interrupted")
            self._greet()
            # Interrupted from here on, by Ctrl-C, the next question would get the answer to this one.
            self._in_step = False
            try:
                socket.send_fds(self._control, [question], descriptors)
                answer = self._control.recv(zygote.PID.size)
            except OSError as error:
                raise ZygoteGone(str(error)) from error
            if not answer:
                raise ZygoteGone("its process has ended")
            self._in_step = True
        number: int = zygote.PID.unpack(answer)[0]
        return number

    def close(self) -> None:
        """End it, and with it every worker, and wait for its end."""
        self._process.kill()
        self._process.wait()
        with self._lock:
            self._in_step = False
            self._control.close()
            if self._process.stderr is not None:
                self._process.stderr.close()


def ended_by_alarm(status: int) -> bool:
    """Whether the worker's own timer ended it, which is set for each invocation."""
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM


def describe_end(status: int) -> str:
    """How a worker ended, from its wait status, for a sentence that begins with what it cost."""
    if not os.WIFSIGNALED(status):
        return f"its process ended with exit status {os.WEXITSTATUS(status)}"
    number = os.WTERMSIG(status)
    name = signal.Signals(number).name if number in {each.value for each in signal.Signals} else f"signal {number}"
    return f"its process was killed by {name}"
