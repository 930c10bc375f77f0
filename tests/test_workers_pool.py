"""Worker processes that die, hang or are fought over: nobody waits for ever and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from runner.errors import EngineUnavailable, Trapped, WorkerLost
from runner.workers import frames, processes
from runner.workers.executor import WorkerExecutor
from tests.support import (
    ECHO,
    ENGINE_NAMES,
    FOREVER,
    MODULES,
    children,
    context,
    eventually,
    function,
    is_alive,
    marked,
    memory_kib,
    open_descriptors,
    puppets,
    real_executor,
    say,
    steps,
    zygotes,
)

PID = steps(["pid"])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerExecutor]:
    """Puppets on two workers."""
    executor = puppets(tmp_path_factory.mktemp("state"))
    yield executor
    executor.close()


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerExecutor]:
    """Puppets on one worker."""
    executor = puppets(tmp_path_factory.mktemp("state"), workers=1)
    yield executor
    executor.close()


@pytest.fixture(scope="module", params=ENGINE_NAMES)
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerExecutor]:
    """Each real engine on one worker."""
    executor = real_executor(request.param, tmp_path_factory.mktemp("state"), workers=1)
    yield executor
    executor.close()


def worker_pid(executor: WorkerExecutor) -> int:
    """The process that answers; with one worker it is the one that answers next, too."""
    return int(executor.execute(function(), PID, context()))


def newest_worker() -> int:
    """The one worker of the zygote that was started last."""
    (worker,) = eventually(lambda: children(zygotes()[-1]))
    return int(worker)


def kill_soon(pid: int, seconds: float = 0.1) -> threading.Timer:
    timer = threading.Timer(seconds, os.kill, (pid, signal.SIGKILL))
    timer.start()
    return timer


# Killed from outside


def test_a_worker_killed_while_it_runs_is_told_and_replaced(single: WorkerExecutor) -> None:
    kill_soon(worker_pid(single))
    result = single.invoke(function(), steps(["stderr", "half way"], ["hang"]), context())
    assert isinstance(result.error, WorkerLost)
    assert "SIGKILL" in str(result.error)
    assert result.error.stderr_tail == "half way"
    assert result.error.retryable
    assert 50 < result.duration_ms < 5000
    assert single.execute(function(), say("next"), context()) == b"next"


def test_a_real_worker_killed_while_it_runs_is_told_and_replaced(tmp_path: Path) -> None:
    for engine in ENGINE_NAMES:
        executor = real_executor(engine, tmp_path / engine, workers=1)
        try:
            assert executor.execute(function(ECHO), b"first", context()) == b"first"
            executor.precompile(MODULES.add(FOREVER), FOREVER)
            kill_soon(newest_worker())
            result = executor.invoke(function(FOREVER), b"", context())
            assert isinstance(result.error, WorkerLost), engine
            assert "SIGKILL" in str(result.error)
            assert executor.execute(function(ECHO), b"next", context()) == b"next"
        finally:
            executor.close()


def test_killing_a_worker_in_a_frame_costs_one_result_of_it(single: WorkerExecutor) -> None:
    inputs = [say(number) for number in range(500)]
    inputs[250] = steps(["sleep", 0.5], ["say", "never"])
    kill_soon(worker_pid(single), 0.25)
    results = list(single.execute_many(function(), inputs, context()))
    assert len(results) == 500
    lost = [number for number, result in enumerate(results) if result.error is not None]
    assert lost == [250]
    assert isinstance(results[250].error, WorkerLost)
    assert [result.output for result in results if result.output] == [
        str(number).encode() for number in range(500) if number != 250
    ]


def test_a_worker_killed_while_idle_costs_nothing(single: WorkerExecutor) -> None:
    for _ in range(20):
        os.kill(worker_pid(single), signal.SIGKILL)
        assert single.execute(function(), say("fine"), context()) == b"fine"


def test_a_worker_that_dies_between_acquiring_and_sending_costs_nothing(single: WorkerExecutor) -> None:
    # The kill falls at every moment of an invocation's way; only one that has begun may be lost.
    for _ in range(100):
        pid = worker_pid(single)
        killer = threading.Thread(target=os.kill, args=(pid, signal.SIGKILL))
        killer.start()
        result = single.invoke(function(), say("fine"), context())
        killer.join()
        if result.error is not None:
            assert isinstance(result.error, WorkerLost)
            assert result.duration_ms > 0, "it was lost before it began"


def test_an_idle_zygote_that_is_killed_is_replaced(single: WorkerExecutor) -> None:
    worker_pid(single)
    for zygote in zygotes():
        os.kill(zygote, signal.SIGKILL)
    assert single.execute(function(), say("fine"), context()) == b"fine"


def test_a_zygote_that_is_killed_at_its_start_is_replaced(tmp_path: Path) -> None:
    before = zygotes()
    executor = puppets(tmp_path, workers=1)
    try:
        (starting,) = set(zygotes()) - set(before)
        os.kill(starting, signal.SIGKILL)
        assert executor.execute(function(), say("fine"), context()) == b"fine"
    finally:
        executor.close()


def test_a_zygote_killed_while_its_workers_run_is_told_and_replaced(pair: WorkerExecutor) -> None:
    before = worker_pid(pair)
    mine = next(pid for pid in zygotes() if before in children(pid))
    kill_soon(mine)
    results = list(pair.execute_many(function(), [steps(["hang"]), steps(["hang"]), say("after")], context()))
    assert [type(result.error) for result in results] == [WorkerLost, WorkerLost, type(None)]
    assert "SIGKILL" in str(results[0].error)
    assert results[2].output == b"after"


def test_a_stopped_worker_is_replaced(single: WorkerExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "BEGIN_SECONDS", 0.5)
    pid = worker_pid(single)
    os.kill(pid, signal.SIGSTOP)
    # Much more than a socket takes at once, for a reader that does not read.
    text = "x" * (5 << 20)
    assert single.execute(function(timeout_seconds=5), say(text), context()) == text.encode()
    assert not is_alive(pid)


# What a worker does to itself


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (["crash"], "SIGSEGV"),
        (["exit", 3], "exit status 3"),
        (["raise", "RuntimeError", "engine bug"], "RuntimeError: engine bug"),
        (["raise", "SystemExit", "leave"], "SystemExit: leave"),
        (["raise", "KeyboardInterrupt", ""], "KeyboardInterrupt"),
        (["raise", "MemoryError", "all gone"], "MemoryError: all gone"),
        (["fail", "InvocationError", "of no kind"], "exit status 70"),
    ],
)
def test_a_worker_that_gives_up_says_why(single: WorkerExecutor, step: list[Any], reason: str) -> None:
    before = worker_pid(single)
    result = single.invoke(function(), steps(["log", "so far"], ["stderr", "the end"], step), context())
    assert isinstance(result.error, WorkerLost)
    assert reason in str(result.error)
    assert "the end" in result.error.stderr_tail or reason == "exit status 70"
    assert worker_pid(single) != before


def test_a_guest_that_fails_keeps_its_worker(single: WorkerExecutor) -> None:
    before = worker_pid(single)
    result = single.invoke(function(), steps(["fail", "Trapped", "unreachable", "it ends here"]), context())
    assert isinstance(result.error, Trapped)
    assert result.error.trap == "unreachable"
    assert worker_pid(single) == before


def test_a_module_that_does_not_load_says_why(single: WorkerExecutor) -> None:
    started = time.monotonic()
    results = list(single.execute_many(function(marked("load-raise")), [b"", b"", b""], context()))
    assert [type(result.error) for result in results] == [WorkerLost] * 3
    assert all("command does not load" in str(result.error) for result in results)
    assert time.monotonic() - started < 5
    assert single.execute(function(), say("next"), context()) == b"next"


def test_a_module_that_crashes_while_it_loads_is_not_tried_for_ever(single: WorkerExecutor) -> None:
    results = list(single.execute_many(function(marked("load-crash")), [b"", b""], context()))
    assert [type(result.error) for result in results] == [WorkerLost] * 2
    assert all("SIGSEGV" in str(result.error) for result in results)
    assert single.execute(function(), say("next"), context()) == b"next"


def test_many_crashes_with_last_words_still_end_at_once(single: WorkerExecutor) -> None:
    # Nobody reads what a dying engine prints: it must not wait for a reader.
    for _ in range(20):
        result = single.invoke(function(), steps(["complain", 4], ["exit", 1]), context())
        assert isinstance(result.error, WorkerLost), "it hung instead"


# Nothing is left behind


def test_close_ends_every_process(tmp_path: Path) -> None:
    executor = puppets(tmp_path)
    list(executor.execute_many(function(), [steps(["sleep", 0.01])] * 20, context()))
    family = [pid for zygote in zygotes() for pid in (zygote, *children(zygote))]
    assert len(family) >= 3
    executor.close()
    executor.close()
    ours = set(family) & {pid for zygote in zygotes() for pid in (zygote, *children(zygote))}
    eventually(lambda: not any(is_alive(pid) for pid in set(family) - ours), seconds=2)
    with pytest.raises(EngineUnavailable, match="closed"):
        executor.execute(function(), say(1), context())


def test_close_while_others_run_ends_them(tmp_path: Path) -> None:
    executor = puppets(tmp_path, workers=1)
    with ThreadPoolExecutor(3) as threads:
        running = [threads.submit(executor.invoke, function(), steps(["hang"]), context()) for _ in range(3)]
        time.sleep(0.3)
        started = time.monotonic()
        executor.close()
        for future in running:
            error = future.exception(timeout=5) or future.result().error
            assert isinstance(error, (WorkerLost, EngineUnavailable))
    assert time.monotonic() - started < 5


APP = """
import sys
from pathlib import Path
from tests.support import *
executor = puppets(Path(sys.argv[1]))
mode = sys.argv[2]
if mode == "idle":
    executor.execute(function(), say(1), context())
    print("ready", flush=True)
    time.sleep(60)
elif mode == "busy":
    print("ready", flush=True)
    list(executor.execute_many(function(), [steps(["hang"])] * 2, context()))
elif mode == "compiling":
    print("ready", flush=True)
    executor.precompile(MODULES.add(marked("compile-hang")), marked("compile-hang"))
elif mode == "starting":
    print("ready", flush=True)
    time.sleep(60)
"""


def descendants(pid: int) -> list[int]:
    found = children(pid)
    return [*found, *(below for child in found for below in descendants(child))]


@pytest.mark.parametrize("mode", ["idle", "busy", "compiling", "starting"])
def test_nothing_outlives_an_app_that_is_killed(tmp_path: Path, mode: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", APP, str(tmp_path), mode], stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent
    ) as app:
        assert app.stdout is not None
        assert app.stdout.readline() == b"ready\n"
        if mode != "starting":
            time.sleep(0.5)
        family = descendants(app.pid)
        app.kill()
    assert len(family) >= 1
    eventually(lambda: not any(is_alive(pid) for pid in family), seconds=2)


def test_two_hundred_kills_leak_nothing(tmp_path: Path) -> None:
    executor = puppets(tmp_path, workers=1)
    try:
        crash = [steps(["exit", 1])]
        for _ in range(20):
            executor.invoke(function(), crash[0], context())
        descriptors, memory = open_descriptors(), memory_kib()
        for _ in range(200):
            executor.invoke(function(), crash[0], context())
        assert open_descriptors() == descriptors
        assert memory_kib() - memory < 4096
        zygote = zygotes()[-1]
        assert len(list(Path(f"/proc/{zygote}/fd").iterdir())) <= 5
        assert len(children(zygote)) == 1
    finally:
        executor.close()


def test_close_gives_back_every_descriptor(tmp_path: Path) -> None:
    before = open_descriptors()
    executor = puppets(tmp_path)
    list(executor.execute_many(function(), [say(1)] * 100, context()))
    executor.close()
    assert open_descriptors() == before


def test_a_replaced_worker_answers_soon(single: WorkerExecutor) -> None:
    waits = []
    for _ in range(20):
        single.invoke(function(), steps(["exit", 1]), context())
        started = time.perf_counter()
        single.execute(function(), say(1), context())
        waits.append(time.perf_counter() - started)
    print(f"killed worker to next result: median {sorted(waits)[10] * 1e3:.1f} ms")
    assert sorted(waits)[10] < 0.05


def test_a_worker_is_small_at_rest(real: WorkerExecutor) -> None:
    real.execute(function(ECHO), b"x", context())
    zygote = zygotes()[-1]
    sizes = {pid: memory_kib(pid) for pid in (zygote, *children(zygote))}
    print(f"resident memory in MB: {[round(size / 1024, 1) for size in sizes.values()]}")
    assert max(sizes.values()) < 40 * 1024


# Several who want a worker


def test_eight_threads_share_two_workers(pair: WorkerExecutor) -> None:
    def many(thread: int) -> list[bytes]:
        return [pair.execute(function(), say(f"{thread}.{number}"), context()) for number in range(200)]

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(many, range(8)))
    assert answers == [[f"{thread}.{number}".encode() for number in range(200)] for thread in range(8)]


def test_threads_that_crash_workers_do_not_disturb_others(pair: WorkerExecutor) -> None:
    def crash(_: int) -> list[object]:
        return [type(pair.invoke(function(), steps(["exit", 1]), context()).error) for _ in range(30)]

    def fine(thread: int) -> list[bytes]:
        return [result.unwrap() for result in pair.execute_many(function(), [say(thread)] * 300, context())]

    with ThreadPoolExecutor(6) as threads:
        crashes, answers = threads.map(crash, range(2)), threads.map(fine, range(4))
        assert list(crashes) == [[WorkerLost] * 30] * 2
        assert list(answers) == [[str(thread).encode()] * 300 for thread in range(4)]


def test_a_long_batch_lets_others_in(single: WorkerExecutor) -> None:
    stop = threading.Event()

    def batch() -> int:
        inputs = iter(lambda: b"" if stop.is_set() else steps(["sleep", 0.002]), b"")
        return sum(1 for _ in single.execute_many(function(), inputs, context()))

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(batch)
        try:
            time.sleep(0.2)
            started = time.monotonic()
            for _ in range(10):
                single.execute(function(), say(1), context())
            waited = (time.monotonic() - started) / 10
        finally:
            stop.set()
        assert running.result(timeout=10) > 10
    assert waited < 0.2


def test_a_consumer_may_call_the_executor_again(single: WorkerExecutor, pair: WorkerExecutor) -> None:
    for executor in (single, pair):
        inputs = (say(number) for number in range(50))
        answers = [
            executor.execute(function(), say(result.unwrap().decode() + "!"), context())
            for result in executor.execute_many(function(), inputs, context())
        ]
        assert answers == [f"{number}!".encode() for number in range(50)]


def chained(executor: WorkerExecutor, inputs: Iterator[bytes], mark: str) -> Iterator[bytes]:
    for result in executor.execute_many(function(), inputs, context()):
        yield say(result.unwrap().decode() + mark)


def test_streams_can_be_chained(single: WorkerExecutor, pair: WorkerExecutor) -> None:
    for executor in (single, pair):
        stream: Iterator[bytes] = (say(number) for number in range(50))
        for stage in "abcd":
            stream = chained(executor, stream, stage)
        assert list(stream) == [say(f"{number}abcd") for number in range(50)]


def test_an_iterator_that_nobody_reads_does_not_keep_the_workers(pair: WorkerExecutor) -> None:
    left = pair.execute_many(function(), (say(number) for number in range(1000)), context())
    next(iter(left))
    started = time.monotonic()
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda _: pair.execute(function(), say("fine"), context()), range(20)))
    assert answers == [b"fine"] * 20
    assert time.monotonic() - started < 5
    assert len(list(left)) == 999


def test_extra_workers_do_not_stay(tmp_path: Path) -> None:
    executor = puppets(tmp_path, workers=1)
    try:
        streams = [executor.execute_many(function(), (say(number) for number in range(100)), context()) for _ in "abcd"]
        for stream in streams:
            next(iter(stream))
        for stream in streams:
            assert len(list(stream)) == 99
        eventually(lambda: len(children(zygotes()[-1])) <= 1, seconds=2)
    finally:
        executor.close()


# Modules in workers


@pytest.fixture
def room_for_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MODULES_PER_WORKER", 8)


@pytest.mark.usefixtures("room_for_eight")
def test_more_modules_than_a_worker_keeps(single: WorkerExecutor) -> None:
    functions = [function(marked(f"module {number}")) for number in range(20)]
    for _ in range(2):
        for number, each in enumerate(functions):
            assert single.execute(each, b"", context()).endswith(f"module {number}".encode())
    # Mixed with a favourite, which is never the one unused longest.
    for number, each in enumerate(functions):
        assert single.execute(each, b"", context()).endswith(f"module {number}".encode())
        assert single.execute(functions[0], b"", context()).endswith(b"module 0")


@pytest.mark.usefixtures("room_for_eight")
def test_more_real_modules_than_a_worker_keeps(real: WorkerExecutor) -> None:
    functions = [function(marked(f"real module {number}", ECHO)) for number in range(12)]
    for number, each in enumerate((*functions, *functions)):
        assert real.execute(each, str(number).encode(), context()) == str(number).encode()


# An engine that is not there


def test_an_interpreter_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="/nowhere/python"):
        puppets(tmp_path, python="/nowhere/python").execute(function(), b"", context())


def test_an_interpreter_that_fails_is_told(tmp_path: Path) -> None:
    executor = puppets(tmp_path, python="/bin/false")
    try:
        with pytest.raises(EngineUnavailable, match="exit status 1"):
            executor.execute(function(), b"", context())
    finally:
        executor.close()


def test_a_process_out_of_descriptors_is_told_and_recovers(tmp_path: Path) -> None:
    import resource

    executor = puppets(tmp_path, workers=2)
    executor.execute(function(), say("warm"), context())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        with ThreadPoolExecutor(1) as threads:
            busy = threads.submit(executor.invoke, function(), steps(["sleep", 1], ["say", "undisturbed"]), context())
            time.sleep(0.3)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
            with pytest.raises(EngineUnavailable, match="Too many open files"):
                executor.execute(function(), say(1), context())
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            assert executor.execute(function(), say("again"), context()) == b"again"
            assert busy.result().output == b"undisturbed"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        executor.close()
