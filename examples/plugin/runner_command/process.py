"""One run of a program: pipes, deadline, limits, and how it ended. Knows nothing of functions."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from runner.errors import Exited, OutputTooLarge, TimedOut, Trapped
from runner.workers.engine import LogBuffer

CHUNK = 1 << 16


class Process:
    """A program in a process group of its own. Call `exchange` once, then `end`."""

    memory_peak_bytes = 0
    """The largest resident set of the program; known after `end`."""

    def __init__(self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> None:
        pipe = subprocess.PIPE
        self._popen = subprocess.Popen(
            command, cwd=cwd, env=env, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True
        )
        self._pidfd = os.pidfd_open(self._popen.pid)
        self._lock = threading.Lock()  # between reaping and killing: a reaped id may be another's

    def exchange(self, input: bytes, logs: LogBuffer, *, timeout_seconds: float, limit_bytes: int) -> bytes:
        """Give it the input, return its output when it has ended well; stderr goes to `logs`.

        A program need not read its input. What it started in the background ends with it.
        Raises TimedOut, OutputTooLarge, Exited, Trapped (by a signal).
        """
        output = bytearray()
        deadline = time.monotonic() + timeout_seconds
        with selectors.DefaultSelector() as selector:
            self._register(selector)
            waiting = memoryview(input)
            while selector.get_map():
                ready = selector.select(deadline - time.monotonic())
                if not ready or time.monotonic() > deadline:
                    raise TimedOut(timeout_seconds, stderr_tail=logs.tail)
                for key, _ in ready:
                    if key.data == "end":
                        selector.unregister(key.fileobj)
                        self.kill()
                    elif key.data == "input":
                        waiting = self._feed(selector, waiting)
                    elif not (data := os.read(key.fd, CHUNK)):
                        selector.unregister(key.fileobj)
                    elif key.data == "log":
                        logs.write_stderr(data)
                    else:
                        output += data
                if len(output) > limit_bytes:
                    raise OutputTooLarge(limit_bytes, stderr_tail=logs.tail)
        self._check_end(logs)
        return bytes(output)

    def kill(self) -> None:
        """Kill the program and all that it started; harmless when it has ended. From any thread."""
        with self._lock:
            if self._popen.returncode is None:
                os.killpg(self._popen.pid, signal.SIGKILL)

    def end(self) -> None:
        """Make sure that nothing of it is left."""
        self.kill()
        self._reap()
        os.close(self._pidfd)
        for stream in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if stream is not None:
                stream.close()

    def _register(self, selector: selectors.BaseSelector) -> None:
        assert self._popen.stdin
        assert self._popen.stdout
        assert self._popen.stderr
        os.set_blocking(self._popen.stdin.fileno(), False)
        selector.register(self._popen.stdin, selectors.EVENT_WRITE, "input")
        selector.register(self._popen.stdout, selectors.EVENT_READ, "output")
        selector.register(self._popen.stderr, selectors.EVENT_READ, "log")
        selector.register(self._pidfd, selectors.EVENT_READ, "end")

    def _feed(self, selector: selectors.BaseSelector, waiting: memoryview) -> memoryview:
        assert self._popen.stdin
        try:
            waiting = waiting[os.write(self._popen.stdin.fileno(), waiting[:CHUNK]) :]
        except BrokenPipeError:
            waiting = waiting[:0]
        if not waiting:
            selector.unregister(self._popen.stdin)
            self._popen.stdin.close()
        return waiting

    def _reap(self) -> None:
        with self._lock:  # never for long: it is called when the program has ended or was killed
            if self._popen.returncode is None:
                _, status, usage = os.wait4(self._popen.pid, 0)
                self._popen.returncode = os.waitstatus_to_exitcode(status)
                self.memory_peak_bytes = usage.ru_maxrss * 1024

    def _check_end(self, logs: LogBuffer) -> None:
        self._reap()
        code = self._popen.returncode
        if code < 0:
            name = signal.Signals(-code).name
            raise Trapped(name, f"the program was ended by {name}", stderr_tail=logs.tail)
        if code:
            raise Exited(code, stderr_tail=logs.tail)
