"""Isolated invocations a second, latency, replacement, memory: `python benchmarks/invocations.py`.

200 bytes in, upper-cased out, fresh state each. Beside ours, in the same run and in turn: the
engine called in a loop in a process, with no one to stop it (the floor), and wasmtime-py as its
documents use it. Names of executors as arguments; wasmer without.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.guests import COMMAND, INPUT, OUTPUT, REACTOR, SPIN
from benchmarks.measure import (
    Row,
    durations,
    function_of,
    in_processes,
    in_rounds,
    make_executor,
    median,
    show,
    wants_json,
)
from runner.contracts import FunctionExecutor
from runner.errors import TimedOut
from runner.models import Abi
from runner.workers.engine import Call, LogBuffer, import_engine

PROCESSES = 2
ROUNDS = 5
COUNT, SINGLE, PEER = 40_000, 2_000, 3_000
KINDS = {"WASI": COMMAND, "reactor": REACTOR}
DEADLINE_SECONDS = 0.05


def check(output: bytes | None) -> None:
    """End with an error for an output that is wrong: its speed would mean nothing."""
    if output != OUTPUT:
        raise SystemExit(f"wrong output: {output!r}")


def engine_alone(engine_path: str, artifact: bytes, abi: Abi) -> Callable[[], None]:
    """A call of the engine itself, in this process."""
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
    return lambda: check(loaded.invoke(INPUT, call)[0])


def wasmtime_py(kind: str) -> Callable[[], None]:
    """A call of wasmtime-py: a new Store and Instance for each."""
    import wasmtime

    engine = wasmtime.Engine()
    module = wasmtime.Module(engine, KINDS[kind])
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    folder = Path(tempfile.mkdtemp())
    (folder / "in").write_bytes(INPUT)

    def wasi() -> None:
        store, config = wasmtime.Store(engine), wasmtime.WasiConfig()
        config.stdin_file = str(folder / "in")
        config.stdout_file = str(folder / "out")
        store.set_wasi(config)
        linker.instantiate(store, module).exports(store)["_start"](store)  # type: ignore[operator]
        check((folder / "out").read_bytes())

    def reactor() -> None:
        store = wasmtime.Store(engine)
        exports = wasmtime.Instance(store, module, []).exports(store)
        memory, pointer = exports["memory"], exports["malloc"](store, len(INPUT))  # type: ignore[operator]
        memory.write(store, INPUT, pointer)  # type: ignore[union-attr]
        packed = exports["handle"](store, pointer, len(INPUT))  # type: ignore[operator]
        start = packed & 0xFFFFFFFF
        check(bytes(memory.read(store, start, start + (packed >> 32))))  # type: ignore[union-attr]

    return wasi if kind == "WASI" else reactor


def through_workers(executor: FunctionExecutor, module: bytes) -> float:
    """Invocations a second of a stream."""
    function, context = function_of(module)
    started = time.perf_counter()
    for result in executor.execute_many(function, (INPUT for _ in range(COUNT)), context):
        check(result.output)
    return COUNT / (time.perf_counter() - started)


def one_at_a_time(executor: FunctionExecutor, module: bytes, at: float) -> float:
    """Microseconds of one invocation, each with facts of its own: so many of all are quicker."""
    function, context = function_of(module)
    contexts = [replace(context, request_id=str(number)) for number in range(SINGLE)]
    calls = [partial(executor.execute, function, INPUT, each) for each in contexts]
    return durations(calls)[int(SINGLE * at)] * 1e6


def rate(*arguments: Any) -> float:
    """Calls a second; see in_processes."""
    return in_processes(*arguments)[0]


def p50(*arguments: Any) -> float:
    """Microseconds of the median call in one process; see in_processes."""
    return in_processes(1, *arguments)[1]


def speeds(name: str, executor: FunctionExecutor, state: Path, kind: str) -> tuple[Row, Row]:
    """Throughput and latency of ours, the floor and the peer, in rounds."""
    module, abi = KINDS[kind], Abi.COMMAND if kind == "WASI" else Abi.REACTOR
    cid = function_of(module)[0].wasm_cid
    executor.precompile(cid, module)
    alone = (engine_alone, f"runner_{name}.engine", _artifact(state, cid), abi)
    figures = in_rounds(
        ROUNDS,
        {
            "ours": partial(through_workers, executor, module),
            "floor": partial(rate, PROCESSES, COUNT // PROCESSES, *alone),
            "floor_1": partial(rate, 1, COUNT // PROCESSES, *alone),
            "peer": partial(rate, PROCESSES, PEER // PROCESSES, wasmtime_py, kind),
            "p50": partial(one_at_a_time, executor, module, 0.5),
            "p99": partial(one_at_a_time, executor, module, 0.99),
            "floor_p50": partial(p50, SINGLE, *alone),
            "peer_p50": partial(p50, SINGLE, wasmtime_py, kind),
        },
    )
    at = {key: median(values) for key, values in figures.items()}
    throughput: Row = {
        "abi": kind,
        f"{name}_per_second": at["ours"],
        "engine_alone_per_second": at["floor"],
        "engine_alone_1_process_per_second": at["floor_1"],
        "wasmtime_py_per_second": at["peer"],
        "by_engine_alone": at["ours"] / at["floor"],
        "by_wasmtime_py": at["ours"] / at["peer"],
    }
    latency: Row = {
        "abi": kind,
        "p50_us": at["p50"],
        "least_p50_us": min(figures["p50"]),
        "p99_us": at["p99"],
        "engine_alone_p50_us": at["floor_p50"],
        "wasmtime_py_p50_us": at["peer_p50"],
        "by_wasmtime_py": at["p50"] / at["peer_p50"],
    }
    return throughput, latency


def _artifact(state: Path, wasm_cid: str) -> bytes:
    (path,) = state.glob(f"artifacts/*/{wasm_cid}-*")
    return path.read_bytes()[32:].partition(b"\n")[2]


def _waits(name: str, taken: list[float]) -> Row:
    return {"wait": name, "median_ms": median(taken) * 1e3, "least_ms": min(taken) * 1e3}


def after_a_kill(executor: FunctionExecutor) -> Row:
    """From the death of every idle worker to the next result."""
    function, context = function_of(COMMAND)
    taken = []
    for _ in range(30):
        for pid in _workers():
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)  # until they are dead: one that is dying may still take an invocation with it
        taken += durations([lambda: check(executor.execute(function, INPUT, context))])
    return _waits("all workers killed, to the next result", taken)


def after_a_deadline(executor: FunctionExecutor) -> Row:
    """From the deadline of an endless loop to the result of the next invocation."""
    endless, _ = function_of(SPIN, timeout_seconds=DEADLINE_SECONDS)
    function, context = function_of(COMMAND)
    executor.precompile(endless.wasm_cid, SPIN)
    taken = []
    for _ in range(20):
        started = time.perf_counter()
        if not isinstance(executor.invoke(endless, b"", context).error, TimedOut):
            raise SystemExit("an endless loop ended")
        check(executor.execute(function, INPUT, context))
        taken.append(time.perf_counter() - started - DEADLINE_SECONDS)
    return _waits("deadline of an endless loop, to the next result", taken)


def cold_artifact(executor: FunctionExecutor, fresh: FunctionExecutor) -> Row:
    """From artifacts on disk, which `executor` made, to the first result of `fresh`, whose workers run."""
    function, context = function_of(COMMAND)
    fresh.execute(function, INPUT, context)
    limits = [replace(function, memory_limit_mb=limit) for limit in range(65, 80)]
    for each in limits:
        executor.precompile(each.wasm_cid, COMMAND, memory_limit_mb=each.memory_limit_mb)
    taken = durations([partial(fresh.execute, each, INPUT, context) for each in limits])
    return _waits("artifact on disk, to the first result", taken)


def memory() -> list[Row]:
    """Resident memory of each process of ours at rest, and its share of it; workers are forks of the zygote."""
    zygotes = _children(os.getpid())
    return [
        {"process": name, **_sizes(pid)} for name, pids in (("zygote", zygotes), ("worker", _workers())) for pid in pids
    ]


def _sizes(pid: int) -> dict[str, float | str]:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except PermissionError:  # they are walled off, and only root sees through
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
        return {"resident_mb": resident, "share_mb": "for root only"}
    sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines[1:]}
    return {"resident_mb": sizes["Rss"], "share_mb": sizes["Pss"]}


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _workers() -> list[int]:
    return [worker for zygote in _children(os.getpid()) for worker in _children(zygote)]


def main() -> None:
    """Measure the executors named as arguments, or wasmer."""
    wanted = wants_json(__doc__, "executor")
    modules = [*KINDS.values(), SPIN]
    for name in wanted.executor or ["wasmer"]:
        with tempfile.TemporaryDirectory() as folder:
            executor = make_executor(name, modules, Path(folder))
            if executor is None:
                continue
            rates, latencies = zip(*(speeds(name, executor, Path(folder), kind) for kind in KINDS), strict=True)
            show(f"{name}, invocations through {PROCESSES} workers", rates, as_json=wanted.json)
            show(f"{name}, one invocation at a time, deadline armed", latencies, as_json=wanted.json)
            show(f"{name}, processes at rest", memory(), as_json=wanted.json)
            fresh = make_executor(name, modules, Path(folder))
            assert fresh is not None
            waits = [cold_artifact(executor, fresh)]
            fresh.close()
            waits += [after_a_kill(executor), after_a_deadline(executor)]
            show(f"{name}, waits", waits, as_json=wanted.json)
            executor.close()


if __name__ == "__main__":
    main()
