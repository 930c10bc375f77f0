"""The executor: a function's module is a program, kept by the registry like any other module.

What one run of a program is, pipes and deadline, is in runner_command.process.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from runner.contracts import FunctionExecutor, Host
from runner.errors import InvalidModule, InvocationError, Stopped
from runner.models import Function, InvocationContext, InvocationResult
from runner.workers.engine import LogBuffer
from runner_command.process import Process
from runner_command.settings import CommandSettings

STARTS = (b"#!", b"\x7fELF")
"""How the kernel tells that a file is a program."""
LIMIT = 'ulimit -v "$1" && exec "$0"'
"""Sets the limit in the process that becomes the program: nothing runs before it holds."""


class Run:
    """An `execute_many` under way."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.stopped = False
        self.process: Process | None = None
        """The program that runs now."""


class CommandExecutor(FunctionExecutor):
    """Runs a program once for each input: input on stdin, output on stdout, log on stderr.

    The programs lie in the project's state folder under their content ids, so that a version of a
    function stays what it was when it was registered. May be used from several threads.
    """

    def __init__(self, settings: CommandSettings, host: Host) -> None:
        self._settings = settings
        self._host = host
        self._folder = host.state_dir / "command"
        self._lock = threading.Lock()
        self._running: set[Run] = set()

    def execute_many(
        self, function: Function, inputs: Iterable[bytes], context: InvocationContext
    ) -> Iterator[InvocationResult]:
        return self._results(self._program(function.wasm_cid), function, inputs, context)

    def stop(self, request_id: str) -> bool:
        with self._lock:
            found = [run for run in self._running if run.request_id == request_id]
            for run in found:
                run.stopped = True
                if run.process is not None:
                    run.process.kill()
        return bool(found)

    def precompile(self, wasm_cid: str, wasm: bytes, *, memory_limit_mb: int = 64) -> None:  # noqa: ARG002
        if not wasm.startswith(STARTS):
            raise InvalidModule(
                "executor 'command' runs scripts that start with #! and Linux programs; "
                f"this module starts with {wasm[:8]!r}"
            )
        if not self._path(wasm_cid).exists():
            self._write(self._path(wasm_cid), wasm)

    def invalidate(self, wasm_cid: str) -> None:
        self._path(wasm_cid).unlink(missing_ok=True)

    def close(self) -> None:
        with self._lock:
            running = [run.process for run in self._running]
        for process in filter(None, running):
            process.kill()

    def _path(self, wasm_cid: str) -> Path:
        return self._folder / wasm_cid

    def _program(self, wasm_cid: str) -> Path:
        if not self._path(wasm_cid).exists():
            self.precompile(wasm_cid, self._host.get_wasm_bytes(wasm_cid))
        return self._path(wasm_cid)

    def _write(self, path: Path, program: bytes) -> None:
        """Atomic; under the lock, because a program that a fork holds open for writing cannot start."""
        with self._lock:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=path.parent)
            with open(descriptor, "wb") as file:
                file.write(program)
                os.fchmod(descriptor, 0o700)
            Path(temporary).replace(path)

    def _results(
        self, program: Path, function: Function, inputs: Iterable[bytes], context: InvocationContext
    ) -> Iterator[InvocationResult]:
        run = Run(context.request_id)
        with self._lock:
            self._running.add(run)
        try:
            for input in inputs:
                if run.stopped:
                    yield InvocationResult(None, Stopped(begun=False))
                else:
                    yield self._invoke(run, program, function, input, context)
        finally:
            with self._lock:
                self._running.discard(run)

    def _invoke(
        self, run: Run, program: Path, function: Function, input: bytes, context: InvocationContext
    ) -> InvocationResult:
        logs = LogBuffer(self._settings.log_limit_kb * 1024)
        started = time.perf_counter()
        with self._started(run, program, function, context) as process:
            error, output = None, None
            try:
                output = process.exchange(
                    input,
                    logs,
                    timeout_seconds=function.timeout_seconds,
                    limit_bytes=self._settings.output_limit_mb << 20,
                )
            except InvocationError as raised:
                error = Stopped(stderr_tail=logs.tail) if run.stopped else raised
        return InvocationResult(
            output=output,
            error=error,
            logs=tuple(logs.take()),
            duration_ms=(time.perf_counter() - started) * 1e3,
            memory_peak_bytes=process.memory_peak_bytes,
        )

    @contextlib.contextmanager
    def _started(self, run: Run, program: Path, function: Function, context: InvocationContext) -> Iterator[Process]:
        command = ["/bin/sh", "-c", LIMIT, str(program), str(function.memory_limit_mb * 1024)]
        with self._lock:
            process = Process(command, cwd=self._host.project_dir, env=self._environment(function, context))
            run.process = process
            if run.stopped:
                process.kill()
        try:
            yield process
        finally:
            with self._lock:
                run.process = None
            process.end()

    def _environment(self, function: Function, context: InvocationContext) -> dict[str, str]:
        facts = {"RUNNER_FUNCTION": function.name, "RUNNER_REQUEST_ID": context.request_id}
        return {"PATH": self._settings.path, **facts, **context.env_vars, **context.secrets}
