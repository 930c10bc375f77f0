"""Executors over real worker processes, and what can be told of processes from outside. What
tests/test_workers_*.py, test_artifacts.py, test_walls.py, test_compiler.py and test_hostile.py share."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from wasmtime import wat2wasm

from runner.contracts import Host, Provider
from runner.models import Function, InvocationContext
from runner.wasm import content_id
from runner.workers.executor import EngineTraits, WorkerExecutor
from runner.workers.launch import EngineSpec
from runner.workers.settings import WorkerSettings

ENGINES_FOLDER = Path(__file__).parent / "engines"
ENGINE_NAMES = ("wasmer", "wasmtime") if sys.version_info[:2] == (3, 10) else ("wasmtime",)
"""The real engines that run in this interpreter."""
LONG_AGO = datetime(2026, 1, 1, tzinfo=timezone.utc)
COMMAND = bytes(wat2wasm('(module (func (export "_start")))'))
"""The smallest module that has an entry point."""

_PREVIEW_1 = "wasi_snapshot_preview1"
READ = f'(import "{_PREVIEW_1}" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))'
WRITE = f'(import "{_PREVIEW_1}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))'


def command(body: str, *parts: str, memory: str = "1") -> bytes:
    """A module whose `_start` has this body, with a local $n."""
    head = " ".join(parts)
    start = f'(func $main (export "_start") (local $n i32) {body})'
    return bytes(wat2wasm(f'(module {head} (memory (export "memory") {memory}) {start})'))


ECHO = command(
    """(loop $again
      (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 65000))
      (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (i32.store (i32.const 4) (i32.load (i32.const 8)))
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))
      (br_if $again (i32.load (i32.const 8))))""",
    READ,
    WRITE,
)
"""A real guest that answers its input."""
FOREVER = command("(loop br 0)")
"""A real guest that never ends."""


def steps(*all_steps: Sequence[Any]) -> bytes:
    """The input that makes the puppet engine do these steps."""
    return json.dumps(all_steps).encode()


def say(text: object) -> bytes:
    """The input that makes the puppet engine answer `text`."""
    return steps(["say", text])


def marked(mark: str, wasm: bytes = COMMAND) -> bytes:
    """The module with a custom section of that name: other bytes, the same behaviour."""
    name = mark.encode()
    assert len(name) < 100
    return wasm + bytes((0, len(name) + 1, len(name))) + name


class Modules(dict[str, bytes]):
    """Module bytes by content id, as a registry has them."""

    def add(self, wasm: bytes) -> str:
        cid = content_id(wasm)
        self[cid] = wasm
        return cid


MODULES = Modules()


def function(wasm: bytes = COMMAND, **settings: Any) -> Function:
    """A function over these module bytes; the executors of this file find them."""
    return Function(
        **{
            "id": "f1",
            "name": "guest",
            "namespace": "tests",
            "version": 1,
            "wasm_cid": MODULES.add(wasm),
            "created_at": LONG_AGO,
            "updated_at": LONG_AGO,
            "timeout_seconds": 10,
            **settings,
        }
    )


def context(**facts: Any) -> InvocationContext:
    """The facts of an invocation."""
    given = {"request_id": "r1", "function_id": "f1", "function_name": "guest", "namespace": "tests"}
    return InvocationContext(**{**given, **facts})


def host(state_dir: Path, **parts: Any) -> Host:
    """What a Runner would hand to an executor."""
    return Host(project_dir=state_dir, state_dir=state_dir, get_wasm_bytes=MODULES.__getitem__, **parts)


def puppets(
    state_dir: Path,
    *,
    host_calls: Mapping[str, Callable[[InvocationContext, Sequence[bytes]], bytes]] | None = None,
    version: str = "1",
    python: str = sys.executable,
    **settings: Any,
) -> WorkerExecutor:
    """An executor over the puppet engine. The caller closes it."""
    given = WorkerSettings(**{"workers": 2, "compile_timeout_seconds": 20, **settings})
    return puppet_executor(given, host(state_dir, host_calls=host_calls or {}), version=version, python=python)


def puppet_executor(
    settings: WorkerSettings, host: Host, *, version: str = "1", python: str = sys.executable
) -> WorkerExecutor:
    """The same, as a plugin makes it."""
    return WorkerExecutor(
        EngineSpec(name="puppet", module="puppet_engine", version=version, package_dir=ENGINES_FOLDER, python=python),
        EngineTraits(signatures={}, features=frozenset()),
        settings,
        host,
    )


def real_executor(name: str, state_dir: Path, **settings: Any) -> WorkerExecutor:
    """An executor over a real engine, as its plugin makes it. The caller closes it."""
    import runner_wasmtime

    plugins: list[Any] = [runner_wasmtime]
    if name == "wasmer":
        import runner_wasmer

        plugins = [runner_wasmer]
    provider: Provider[Any] = plugins[0].runner_executors()[0]
    executor = provider.create(WorkerSettings(**{"workers": 2, **settings}), host(state_dir))
    assert isinstance(executor, WorkerExecutor)
    return executor


# Processes


def parent_of(pid: int) -> int:
    """The parent's pid; 0 for a process that is gone, or dead and not yet waited for."""
    with contextlib.suppress(OSError):
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
        return 0 if state == "Z" else int(parent)
    return 0


def children(pid: int | None = None) -> list[int]:
    """The living children of a process (this one), oldest first."""
    mine = os.getpid() if pid is None else pid
    return [found for found in _all_pids() if parent_of(found) == mine]


def _all_pids() -> list[int]:
    return sorted((int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()), key=_started)


def _started(pid: int) -> tuple[int, int]:
    """When the process started, in ticks since boot; a pid alone may be one that was used before."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]), pid
    return 0, pid


def command_line(pid: int) -> str:
    """How a process was started; empty for one that is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def is_alive(pid: int) -> bool:
    """Whether the process still runs."""
    return parent_of(pid) != 0


def zygotes() -> list[int]:
    """The zygotes of this process, oldest first."""
    return [pid for pid in children() if "runner.workers.zygote" in command_line(pid)]


def compilers() -> list[int]:
    """The compile processes of this process."""
    return [pid for pid in children() if "runner.workers.compiler" in command_line(pid)]


def eventually(condition: Callable[[], Any], *, seconds: float = 5.0) -> Any:
    """The first true answer of `condition`, which is asked again and again; fails without one."""
    until = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < until, f"it did not come true within {seconds:g} s"
        time.sleep(0.001)


def open_descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def memory_kib(pid: int | str = "self", field: str = "VmRSS") -> int:
    """A process's memory, as /proc/PID/status has it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])
