"""The one road: tries as often as the function says, waits between, and keeps what was logged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from runner.contracts import FunctionExecutor
from runner.dispatcher import Dispatcher
from runner.errors import BadOutput, Exited, RunnerError, StoreFull, UnsupportedFeature
from runner.models import Function, FunctionDefinition, InvocationContext, InvocationResult, LogEntry, LogLevel
from runner.testing import MemoryRegistry

LINE = LogEntry(LogLevel.INFO, "a line", 1.0)
CONTEXT = InvocationContext(request_id="request", function_id="1", function_name="work", namespace="tests")


class Scripted(FunctionExecutor):
    """An executor whose attempts end as its script says."""

    def __init__(self, *endings: RunnerError | bytes) -> None:
        self.endings = list(endings)

    def execute_many(
        self, function: Function, inputs: Iterable[bytes], context: InvocationContext
    ) -> Iterator[InvocationResult]:
        for _ in inputs:
            ending = self.endings.pop(0)
            if isinstance(ending, bytes):
                yield InvocationResult(ending, None, (LINE,))
            else:
                yield InvocationResult(None, ending, (LINE,))

    def stop(self, request_id: str) -> bool:
        """Nothing runs for long."""
        return False

    def precompile(self, wasm_cid: str, wasm: bytes, *, memory_limit_mb: int = 64) -> None:
        """Nothing to compile."""

    def invalidate(self, wasm_cid: str) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is held."""


class Listener:
    """Notes the moments."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def before_invocation(self, function: Function, context: InvocationContext) -> None:
        self.seen.append("before")

    def after_invocation(self, function: Function, context: InvocationContext, result: InvocationResult) -> None:
        self.seen.append("failed" if result.error else "succeeded")


class Road:
    """A dispatcher with everything it was given and told."""

    def __init__(self, *endings: RunnerError | bytes, retry_count: int = 0) -> None:
        self.registry = MemoryRegistry()
        definition = FunctionDefinition(name="work", namespace="tests", retry_count=retry_count, retry_delay_seconds=4)
        self.registry.register(definition, b"module")
        self.function = self.registry.get("tests", "work")
        self.executor, self.moments = Scripted(*endings), Listener()
        self.waits: list[float] = []
        self.notices: list[str] = []
        self.dispatcher = Dispatcher(
            open_registry=lambda: self.registry,
            executor_for=lambda _: self.executor,
            moments=self.moments,
            notify=self.notices.append,
            sleep=self.waits.append,
            chance=lambda: 0.5,
        )


def test_it_tries_until_it_succeeds_with_growing_delays() -> None:
    road = Road(Exited(1), Exited(2), b"done", retry_count=5)
    attempted = road.dispatcher.run(road.function, b"", CONTEXT)
    assert (attempted.attempts, attempted.result.output) == (3, b"done")
    assert road.waits == [2.0, 4.0]  # half of 4, half of 8
    assert "attempt 2 of 6 failed (exited with code 2); the next in 4.0 s" in road.notices[1]
    assert road.moments.seen == ["before", "failed", "before", "failed", "before", "succeeded"]


def test_it_gives_up_after_its_retries_with_the_last_error() -> None:
    road = Road(Exited(1), Exited(2), Exited(3), retry_count=1)
    attempted = road.dispatcher.run(road.function, b"", CONTEXT)
    assert attempted.attempts == 2
    assert isinstance(attempted.result.error, Exited)
    assert attempted.result.error.code == 2
    assert len(road.executor.endings) == 1


def test_what_would_end_the_same_way_is_not_tried_again() -> None:
    road = Road(BadOutput("outside its memory"), b"never", retry_count=5)
    assert road.dispatcher.run(road.function, b"", CONTEXT).attempts == 1
    assert road.waits == []


def test_the_lines_of_every_attempt_are_kept() -> None:
    road = Road(Exited(1), b"done", retry_count=1)
    road.dispatcher.run(road.function, b"", CONTEXT)
    assert [entry.message for entry in road.registry.get_logs("tests", "work")] == ["a line", "a line"]


def test_a_result_is_not_lost_over_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    road = Road(b"done")

    def full(function: Function, request_id: str, entries: object) -> None:
        raise StoreFull("no room is left")

    monkeypatch.setattr(road.registry, "add_logs", full)
    assert road.dispatcher.run(road.function, b"", CONTEXT).result.output == b"done"
    assert "could not be kept: no room is left" in road.notices[0]


def test_what_stands_in_the_way_of_every_attempt_is_raised() -> None:
    road = Road(retry_count=5)

    def refuse(function: Function) -> FunctionExecutor:
        raise UnsupportedFeature("simd", executor="wasmer")

    refusing = Dispatcher(
        open_registry=lambda: road.registry, executor_for=refuse, moments=road.moments, notify=road.notices.append
    )
    with pytest.raises(UnsupportedFeature):
        refusing.run(road.function, b"", CONTEXT)
