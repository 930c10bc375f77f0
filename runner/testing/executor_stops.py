"""The executor suite, fourth part: invocations that are stopped on request, from another thread."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from runner.errors import Stopped
from runner.models import InvocationResult
from runner.testing import guests
from runner.testing.executor_bench import Bench, ExecutorSuite, context

FOR_EVER = b"L"
"""What makes MOODY loop for ever."""
WAIT_SECONDS = 15.0
"""How long to wait for what must happen: less than the deadline of the guests here."""


class Stops(ExecutorSuite):
    """Stopping one invocation, a stream, and nothing else."""

    @pytest.fixture
    def threads(self) -> Iterator[ThreadPoolExecutor]:
        """Threads to run guests in."""
        with ThreadPoolExecutor(3) as threads:
            yield threads

    def test_a_guest_that_never_ends_is_stopped(self, bench: Bench, threads: ThreadPoolExecutor) -> None:
        function = bench.function(guests.MOODY)
        running = threads.submit(bench.executor.invoke, function, FOR_EVER, context(request_id="endless"))
        stop(bench, "endless")
        result = running.result(WAIT_SECONDS)
        assert isinstance(result.error, Stopped)
        assert not result.error.retryable
        assert bench.output(guests.MOODY, b"after") == b"after"

    def test_all_that_is_left_of_a_stream_is_stopped(self, bench: Bench) -> None:
        function = bench.function(guests.MOODY)
        inputs = [b"first", *[FOR_EVER] * 5, *[b"never begun"] * 300]
        results = bench.executor.execute_many(function, inputs, context(request_id="stream"))
        first = next(results)
        assert bench.executor.stop("stream")
        rest = list(results)
        assert first.output == b"first"
        assert [type(result.error) for result in rest] == [Stopped] * 305
        assert isinstance(rest[-1].error, Stopped)
        assert not rest[-1].error.begun
        assert bench.output(guests.MOODY, b"after") == b"after"

    def test_inputs_that_come_later_are_not_begun(self, bench: Bench) -> None:
        function = bench.function(guests.MOODY)

        def inputs() -> Iterator[bytes]:
            yield b"first"
            bench.executor.stop("stream")
            yield b"second"
            yield FOR_EVER

        results = list(bench.executor.execute_many(function, inputs(), context(request_id="stream")))
        assert [type(result.error) for result in results[1:]] == [Stopped] * 2
        assert results[0].output == b"first" or isinstance(results[0].error, Stopped)

    def test_nothing_runs_under_an_unknown_id(self, bench: Bench) -> None:
        assert not bench.executor.stop("nobody")
        bench.executor.execute(bench.function(guests.ECHO), b"", context(request_id="over"))
        assert not bench.executor.stop("over")

    def test_a_stream_that_was_closed_does_not_run(self, bench: Bench) -> None:
        results = bench.many(guests.ECHO, [b"1", b"2", b"3"], context(request_id="closed"))
        next(results)
        results.close()  # type: ignore[attr-defined]
        assert not bench.executor.stop("closed")

    def test_others_are_not_disturbed(self, bench: Bench, threads: ThreadPoolExecutor) -> None:
        function = bench.function(guests.MOODY)
        one, other = (
            threads.submit(bench.executor.invoke, function, FOR_EVER, context(request_id=name))
            for name in ("one", "other")
        )
        stop(bench, "one")
        assert isinstance(one.result(WAIT_SECONDS).error, Stopped)
        assert bench.output(guests.MOODY, b"a third") == b"a third"
        assert not other.done()
        stop(bench, "other")
        assert isinstance(other.result(WAIT_SECONDS).error, Stopped)

    def test_stopping_at_any_moment_hits_nobody_else(self, bench: Bench, threads: ThreadPoolExecutor) -> None:
        function = bench.function(guests.ECHO)

        def invoke(name: str) -> InvocationResult:
            return bench.executor.invoke(function, b"data", context(request_id=name))

        for number in range(100):
            stopped: Future[InvocationResult] = threads.submit(invoke, "stopped")
            others = [threads.submit(invoke, "other") for _ in range(2)]
            while not stopped.done():
                bench.executor.stop("stopped")
                time.sleep(0.00002 * (number % 10))
            assert [other.result(WAIT_SECONDS).output for other in others] == [b"data"] * 2
            result = stopped.result()
            assert result.output == b"data" or isinstance(result.error, Stopped)


def stop(bench: Bench, request_id: str) -> None:
    """Stop what is about to run under this id, as soon as it does."""
    until = time.monotonic() + WAIT_SECONDS
    while not bench.executor.stop(request_id):
        assert time.monotonic() < until, f"nothing ran under {request_id!r}"
        time.sleep(0.001)
