"""Stopping what runs in workers: whichever moment it is in, and nobody else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from runner.automatic import AutoExecutor
from runner.errors import InvocationError, Stopped, TimedOut
from runner.models import InvocationContext, InvocationResult
from runner.workers.executor import WorkerExecutor
from tests.support import (
    ECHO,
    ENGINE_NAMES,
    FOREVER,
    children,
    context,
    eventually,
    function,
    is_alive,
    marked,
    puppets,
    real_executor,
    say,
    steps,
    zygotes,
)

HANG = steps(["stderr", "begun"], ["hang"])
asked, go_on = threading.Event(), threading.Event()


def wait_for_test(_: InvocationContext, __: Sequence[bytes]) -> bytes:
    asked.set()
    assert go_on.wait(20)
    return b"answered"


@pytest.fixture
def single(tmp_path: Path) -> Iterator[WorkerExecutor]:
    """Puppets on one worker."""
    executor = puppets(tmp_path, workers=1, host_calls={"wait": wait_for_test})
    yield executor
    executor.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture(params=ENGINE_NAMES)
def real(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WorkerExecutor]:
    """Each real engine on one worker."""
    executor = real_executor(request.param, tmp_path, workers=1)
    yield executor
    executor.close()


def worker_of(executor: WorkerExecutor) -> int:
    return int(executor.execute(function(), steps(["pid"]), context(request_id="whose pid")))


def stop(executor: WorkerExecutor, request_id: str) -> None:
    """Stop it when it runs."""
    eventually(lambda: executor.stop(request_id))


def begun(executor: WorkerExecutor) -> None:
    """Wait until the one guest that runs has written to stderr."""
    (run,) = eventually(lambda: list(executor._running._runs))
    eventually(lambda: any(worker.reader.stderr_tail() for worker, _ in list(run._busy.values())))


def error_of(running: Future[InvocationResult]) -> Stopped:
    error = running.result(10).error
    assert isinstance(error, Stopped)
    return error


def test_the_worker_is_killed_and_replaced(single: WorkerExecutor, threads: ThreadPoolExecutor) -> None:
    pid = worker_of(single)
    running = threads.submit(single.invoke, function(), HANG, context(request_id="it"))
    begun(single)
    assert single.stop("it")
    error = error_of(running)
    assert (error.begun, error.stderr_tail) == (True, "begun")
    assert not is_alive(pid)
    assert worker_of(single) != pid
    assert len(children(zygotes()[-1])) == 1


def test_a_real_guest_is_stopped_at_once(real: WorkerExecutor, threads: ThreadPoolExecutor) -> None:
    real.execute(function(ECHO), b"", context())
    for _ in range(5):
        running = threads.submit(real.invoke, function(FOREVER), b"", context(request_id="it"))
        stop(real, "it")
        error_of(running)
        assert real.execute(function(ECHO), b"next", context()) == b"next"


def test_what_had_ended_is_kept(single: WorkerExecutor, threads: ThreadPoolExecutor) -> None:
    inputs = [*[say(number) for number in range(300)], HANG, *[say("never")] * 50]

    def run() -> list[InvocationResult]:
        return list(single.execute_many(function(), inputs, context(request_id="it")))

    running = threads.submit(run)
    begun(single)
    assert single.stop("it")
    results = running.result(10)
    assert [result.output for result in results[:300]] == [str(number).encode() for number in range(300)]
    assert [type(result.error) for result in results[300:]] == [Stopped] * 51


def test_while_its_module_is_compiled(single: WorkerExecutor, threads: ThreadPoolExecutor) -> None:
    running = threads.submit(single.invoke, function(marked("compile-slow")), HANG, context(request_id="it"))
    stop(single, "it")
    assert not error_of(running).begun


def test_a_stream_while_its_module_is_compiled(single: WorkerExecutor, threads: ThreadPoolExecutor) -> None:
    def run() -> list[InvocationResult]:
        return list(single.execute_many(function(marked("compile-slow 2")), [HANG] * 3, context(request_id="it")))

    running = threads.submit(run)
    stop(single, "it")
    assert [str(result.error) for result in running.result(10)] == ["stopped on request before it began"] * 3


def test_while_it_waits_for_a_worker(single: WorkerExecutor, threads: ThreadPoolExecutor) -> None:
    worker_of(single)
    first = threads.submit(single.invoke, function(), HANG, context(request_id="first"))
    begun(single)
    second = threads.submit(single.invoke, function(), HANG, context(request_id="second"))
    stop(single, "second")
    assert not error_of(second).begun
    assert not first.done()
    assert single.stop("first")
    assert error_of(first).begun


def test_while_the_app_answers_its_host_call(single: WorkerExecutor, threads: ThreadPoolExecutor) -> None:
    asked.clear()
    go_on.clear()
    running = threads.submit(single.invoke, function(), steps(["ask", "wait"], ["hang"]), context(request_id="it"))
    assert asked.wait(10)
    assert single.stop("it")
    go_on.set()
    assert error_of(running).begun


def test_while_the_consumer_is_away(single: WorkerExecutor) -> None:
    results = single.execute_many(function(), [say(1), HANG, say(2)], context(request_id="it"))
    assert next(results).output == b"1"
    pid = eventually(lambda: children(zygotes()[-1]))[0]
    assert single.stop("it")
    eventually(lambda: not is_alive(pid) or pid not in children(zygotes()[-1]))
    assert [type(result.error) for result in results] == [Stopped] * 2


def test_with_other_streams_on_the_same_workers(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    executor = puppets(tmp_path, workers=2)

    def stream(name: str) -> list[InvocationResult]:
        inputs = [steps(["sleep", 0.0005], ["say", number]) for number in range(400)]
        return list(executor.execute_many(function(), inputs, context(request_id=name)))

    try:
        for number in range(10):
            running = {name: threads.submit(stream, name) for name in ("one", "two", "three")}
            time.sleep(0.01 * number)
            executor.stop("two")
            for name in ("one", "three"):
                assert [result.output for result in running[name].result(20)] == [b"%d" % n for n in range(400)]
            outcomes = running["two"].result(20)
            assert len(outcomes) == 400
            assert {type(result.error) for result in outcomes} <= {type(None), Stopped}
    finally:
        executor.close()


def test_one_that_is_overdue_in_that_moment_is_one_or_the_other(single: WorkerExecutor) -> None:
    worker_of(single)
    for number in range(20):
        timer = threading.Timer(0.03 + 0.0004 * (number - 10), single.stop, ["it"])
        timer.start()
        error = single.invoke(function(timeout_seconds=0.03), HANG, context(request_id="it")).error
        timer.join()
        assert isinstance(error, (Stopped, TimedOut))
        assert single.execute(function(), say("next"), context()) == b"next"


def test_auto_stops_what_runs_and_starts_nothing_for_it(single: WorkerExecutor, threads: ThreadPoolExecutor) -> None:
    started: list[str] = []

    def executor(name: str) -> WorkerExecutor:
        started.append(name)
        return single

    auto = AutoExecutor(["first", "second"], executor, lambda _: None)
    assert not auto.stop("it")
    assert started == []
    running = threads.submit(auto.invoke, function(), HANG, context(request_id="it"))
    eventually(lambda: auto.stop("it"))
    error_of(running)
    assert started == ["first"]


def test_nothing_is_kept_of_what_has_ended(single: WorkerExecutor) -> None:
    single.invoke(function(), say(1), context(request_id="it"))
    list(single.execute_many(function(), [say(1), steps(["fail", "Exited", 3])], context(request_id="it")))
    with pytest.raises(ZeroDivisionError):
        list(single.execute_many(function(), (1 // 0 for _ in range(2)), context(request_id="it")))  # type: ignore[misc]
    abandoned = single.execute_many(function(), [say(1)], context(request_id="it"))
    del abandoned
    assert not single._running._runs
    assert not single.stop("it")


def test_an_error_that_a_worker_may_not_tell(single: WorkerExecutor) -> None:
    # A guest that took over its worker cannot end as if somebody had asked for it.
    error = single.invoke(function(), steps(["fail", "Stopped"]), context()).error
    assert isinstance(error, InvocationError)
    assert not isinstance(error, Stopped)
