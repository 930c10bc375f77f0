"""Compiles one module in a process of its own, under a deadline and behind walls.

A compiler is a large program that is given bytes from strangers: it may hang, blow up or crash, and
none of that may reach the app.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from runner.errors import CompileTimedOut, EngineUnavailable, InvalidModule
from runner.workers import walls
from runner.workers.engine import import_engine
from runner.workers.launch import EngineSpec

REFUSED_STATUS = 65
"""The module is invalid (EX_DATAERR of sysexits.h); the reason is on standard error."""


def main(argv: Sequence[str]) -> None:
    """The process: `argv` is the engine's import path; module on stdin, artifact on stdout."""
    engine = import_engine(argv[0])
    engine.prepare_compile()
    parent = os.getppid()
    walls.raise_compiler()
    walls.die_with_parent()
    if os.getppid() != parent:
        return
    os.write(sys.stdout.fileno(), b"+")
    wasm = sys.stdin.buffer.read()
    try:
        artifact = engine.compile(wasm)
    except InvalidModule as error:
        print(error, file=sys.stderr)
        sys.stderr.flush()
        os._exit(REFUSED_STATUS)
    except MemoryError:
        os.write(2, b"compiling the module takes more memory than a compiler may have\n")
        os._exit(REFUSED_STATUS)
    sys.stdout.buffer.write(artifact)
    sys.stdout.buffer.flush()
    os._exit(0)  # a compiler's threads and destructors have nothing to tell any more


def compile_module(spec: EngineSpec, wasm: bytes, *, timeout_seconds: float) -> bytes:
    """The artifact of `wasm`. Raises InvalidModule, CompileTimedOut, EngineUnavailable."""
    with tempfile.TemporaryFile() as complaints:
        with spec.popen(
            "runner.workers.compiler",
            [spec.module],
            environment=spec.compile_environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
        ) as process:
            try:
                output, _ = process.communicate(wasm, timeout_seconds)
            except subprocess.TimeoutExpired:
                raise CompileTimedOut(timeout_seconds, size_bytes=len(wasm)) from None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                process.wait()  # leaving the block does not, after Ctrl-C
        complaints.seek(0)
        words = complaints.read(65536).decode("utf-8", "replace").strip()
    if process.returncode == 0 and output[:1] == b"+":
        return output[1:]
    if process.returncode == REFUSED_STATUS:
        raise InvalidModule(words or "the compiler refused the module")
    if process.returncode == -signal.SIGKILL:
        raise EngineUnavailable(spec.name, "its compile process was killed from outside", remedy="try again")
    last = words.splitlines()[-1][:500] if words else ""
    ended = _ending(process.returncode)
    if output[:1] != b"+":
        raise EngineUnavailable(
            spec.name, f"its compiler does not start: {last or ended}", remedy="see `runner doctor`"
        )
    raise InvalidModule(f"the compiler crashed on the module ({ended}{': ' + last if last else ''})")


def _ending(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
