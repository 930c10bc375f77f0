"""Isolated invocations a second, latency, replacement, memory: `python benchmarks/invocations.py`.

200 bytes in, upper-cased out, fresh state each. Beside ours, in the same run and in turn: the
engine called in a process of its own, with no one to stop it (the floor), and wasmtime-py as its
documents use it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.guests import COMMAND, INPUT, OUTPUT, REACTOR
from benchmarks.measure import describe_machine, function_of, in_rounds, make_executor, median, print_table
from runner.contracts import FunctionExecutor
from runner.models import Abi
from runner.workers.engine import Call, LogBuffer, import_engine

PROCESSES = 2
ROUNDS = 5
OURS, PEER = 40_000, 4_000
KINDS = {"WASI": COMMAND, "reactor": REACTOR}


def ours(executor: FunctionExecutor, module: bytes) -> Callable[[], float]:
    """Invocations a second through two workers."""
    function, context = function_of(module)

    def measure() -> float:
        started = time.perf_counter()
        for result in executor.execute_many(function, (INPUT for _ in range(OURS)), context):
            if result.output != OUTPUT:
                raise SystemExit(f"wrong result: {result}")
        return OURS / (time.perf_counter() - started)

    return measure


def on_two_processes(target: Callable[..., None], count: int, *arguments: object) -> float:
    """Calls a second of two processes that make `count` calls each, from the moment both are warm."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(PROCESSES + 1)
    processes = [context.Process(target=target, args=(barrier, count, *arguments)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    barrier.wait()
    started = time.perf_counter()
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit("a process of the peer failed")
    return count * PROCESSES / (time.perf_counter() - started)


def floor_process(barrier: object, count: int, engine_path: str, artifact: bytes, abi: Abi) -> None:
    """The engine alone, called in a loop."""
    engine = import_engine(engine_path)
    engine.warm_up()
    engine.start()
    loaded = engine.load(artifact, abi)
    call = Call(
        name="bench",
        env_vars={},
        secrets={},
        request_id="bench",
        caller_wallet=None,
        timeout_seconds=60,
        memory_limit_mb=64,
        output_limit_bytes=1 << 26,
        logs=LogBuffer(1 << 18),
    )
    for _ in range(2000):
        loaded.invoke(INPUT, call)
    barrier.wait()  # type: ignore[attr-defined]
    for _ in range(count):
        output, _ = loaded.invoke(INPUT, call)
        if output != OUTPUT:
            raise SystemExit(1)


def wasmtime_process(barrier: object, count: int, kind: str) -> None:
    """wasmtime-py: a new Store and Instance for each call."""
    import wasmtime

    engine = wasmtime.Engine()
    module = wasmtime.Module(engine, KINDS[kind])
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    folder = Path(tempfile.mkdtemp())
    (folder / "in").write_bytes(INPUT)

    def wasi() -> bytes:
        store, config = wasmtime.Store(engine), wasmtime.WasiConfig()
        config.stdin_file = str(folder / "in")
        config.stdout_file = str(folder / "out")
        store.set_wasi(config)
        linker.instantiate(store, module).exports(store)["_start"](store)  # type: ignore[operator]
        return (folder / "out").read_bytes()

    def reactor() -> bytes:
        store = wasmtime.Store(engine)
        exports = wasmtime.Instance(store, module, []).exports(store)
        memory, pointer = exports["memory"], exports["malloc"](store, len(INPUT))  # type: ignore[operator]
        memory.write(store, INPUT, pointer)  # type: ignore[union-attr]
        packed = exports["handle"](store, pointer, len(INPUT))  # type: ignore[operator]
        start = packed & 0xFFFFFFFF
        return bytes(memory.read(store, start, start + (packed >> 32)))  # type: ignore[union-attr]

    call = wasi if kind == "WASI" else reactor
    for _ in range(50):
        call()
    barrier.wait()  # type: ignore[attr-defined]
    for _ in range(count):
        if call() != OUTPUT:
            raise SystemExit(1)


def throughput(name: str, executor: FunctionExecutor, state: Path) -> None:
    """Ours, the floor and the peer, for both ABIs."""
    rows = []
    for kind, module in KINDS.items():
        abi = Abi.COMMAND if kind == "WASI" else Abi.REACTOR
        executor.precompile(function_of(module)[0].wasm_cid, module)
        artifact = _artifact(state, function_of(module)[0].wasm_cid)

        def floor(artifact: bytes = artifact, abi: Abi = abi) -> float:
            return on_two_processes(floor_process, OURS // 2, f"runner_{name}.engine", artifact, abi)

        def peer(kind: str = kind) -> float:
            return on_two_processes(wasmtime_process, PEER // 2, kind)

        figures = in_rounds(ROUNDS, ours=ours(executor, module), floor=floor, peer=peer)
        mine, low, other = (median(figures[key]) for key in ("ours", "floor", "peer"))
        rows.append([kind, f"{mine:,.0f}", f"{low:,.0f}", f"{other:,.0f}", f"{mine / low:.2f}", f"{mine / other:.1f}"])
    print(f"\nInvocations a second, {PROCESSES} workers or processes, median of {ROUNDS} rounds\n")
    print_table(["ABI", name, "engine alone", "wasmtime-py", "ours / alone", "ours / wasmtime-py"], rows)


def _artifact(state: Path, wasm_cid: str) -> bytes:
    (path,) = state.glob(f"artifacts/*/{wasm_cid}-*")
    return path.read_bytes()[32:].partition(b"\n")[2]


def latency(executor: FunctionExecutor) -> list[list[str]]:
    """One invocation at a time, its deadline armed."""
    rows = []
    for kind, module in KINDS.items():
        function, context = function_of(module)
        taken = []
        for _ in range(5000):
            started = time.perf_counter()
            executor.execute(function, INPUT, context)
            taken.append((time.perf_counter() - started) * 1e6)
        taken.sort()
        rows.append([f"one {kind} invocation, p50", f"{taken[2500]:.0f} us"])
        rows.append([f"one {kind} invocation, p99", f"{taken[4950]:.0f} us"])
    return rows


def replacement(executor: FunctionExecutor) -> list[str]:
    """From the kill of every worker to the next result."""
    function, context = function_of(COMMAND)
    taken = []
    for _ in range(30):
        for pid in _workers():
            os.kill(pid, signal.SIGKILL)
        started = time.perf_counter()
        while executor.invoke(function, INPUT, context).error is not None:
            pass  # a worker that had not died yet took this one with it
        taken.append((time.perf_counter() - started) * 1e3)
    return ["killed workers to next good result, median", f"{median(taken):.1f} ms"]


def cold_artifact(executor: FunctionExecutor) -> list[str]:
    """From an artifact on disk that no worker has loaded to the first result."""
    taken = []
    for limit in range(65, 85):
        function, context = function_of(COMMAND)
        function = replace(function, memory_limit_mb=limit)
        executor.precompile(function.wasm_cid, COMMAND, memory_limit_mb=limit)
        executor._modules.clear()  # type: ignore[attr-defined]  # as in a new process: on disk only
        started = time.perf_counter()
        executor.execute(function, INPUT, context)
        taken.append((time.perf_counter() - started) * 1e3)
    return ["artifact on disk to first result, median", f"{median(taken):.1f} ms"]


def memory() -> list[list[str]]:
    """Resident and proportional memory of each worker at rest."""
    rows = []
    for pid in _workers():
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
        rows.append(
            ["worker at rest", f"{sizes['Rss'] / 1024:.0f} MB resident, {sizes['Pss'] / 1024:.0f} MB of its own"]
        )
    return rows


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _workers() -> list[int]:
    return [worker for zygote in _children(os.getpid()) for worker in _children(zygote)]


def main() -> None:
    """Measure the executors named as arguments, or wasmer."""
    for name in sys.argv[1:] or ["wasmer"]:
        with tempfile.TemporaryDirectory() as folder:
            state = Path(folder)
            executor = make_executor(name, list(KINDS.values()), state)
            if executor is None:
                continue
            print(f"# {name}: {describe_machine()}")
            throughput(name, executor, state)
            rows = [*latency(executor), replacement(executor), cold_artifact(executor), *memory()]
            print()
            print_table(["measure", "figure"], rows)
            executor.close()


if __name__ == "__main__":
    main()
