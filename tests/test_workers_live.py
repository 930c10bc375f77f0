"""What guests tell while they run, log lines and progress: once, in bounds, and not believed if forged."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from runner.errors import StoreLocked, TimedOut, WorkerLost
from runner.models import InvocationContext, LogEntry
from runner.workers.executor import WorkerExecutor
from runner.workers.settings import WorkerSettings
from tests.support import context, eventually, function, host, puppet_executor, puppets, say, steps

RUN = context(run_id=7, request_id="7.1")


class Listener:
    """Notes what is told."""

    def __init__(self) -> None:
        self.handed: list[list[str]] = []
        self.whose: list[int | None] = []
        self.progress: list[int] = []
        self.raises: Exception | None = None

    def on_logs(self, facts: InvocationContext, entries: Sequence[LogEntry]) -> None:
        if self.raises is not None:
            raise self.raises
        self.whose.append(facts.run_id)
        self.handed.append([entry.message for entry in entries])

    def on_progress(self, facts: InvocationContext, percent: int) -> None:
        self.whose.append(facts.run_id)
        self.progress.append(percent)

    @property
    def lines(self) -> list[str]:
        return [line for lines in self.handed for line in lines]


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def single(tmp_path: Path, listener: Listener) -> Iterator[WorkerExecutor]:
    """Puppets on one worker, 4 KiB of log each."""
    parts = host(
        tmp_path,
        on_logs=listener.on_logs,
        on_progress=listener.on_progress,
        host_calls={"enqueue_background": lambda _, arguments: b"+".join(arguments)},
    )
    executor = puppet_executor(WorkerSettings(workers=1, log_limit_kb=4), parts)
    executor.execute(function(), say("warm"), context())
    yield executor
    executor.close()


def ticking(count: int, seconds: float = 0.03, text: str = "line") -> list[list[Any]]:
    return [step for number in range(count) for step in (["sleep", seconds], ["stderr", f"{text} {number}\n"])]


def numbered(count: int, text: str = "line") -> list[str]:
    return [f"{text} {number}" for number in range(count)]


# Log lines


def test_lines_come_while_the_guest_runs(single: WorkerExecutor, listener: Listener) -> None:
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(single.invoke, function(), steps(*ticking(5, 0.05), ["hang"]), RUN)
        eventually(lambda: listener.lines)
        assert not running.done()
        eventually(lambda: len(listener.lines) >= 3)
        assert single.stop("7.1")
        running.result(10)
    assert listener.lines == numbered(len(listener.lines))
    assert set(listener.whose) == {7}


def test_a_line_is_told_once(single: WorkerExecutor, listener: Listener) -> None:
    inputs = [steps(*ticking(8, text=f"of {number}")) for number in range(3)]
    told = []
    for number, result in enumerate(single.execute_many(function(), inputs, RUN)):
        told += [entry.message for entry in result.logs]
        early = [line for line in listener.lines if line.startswith(f"of {number}")]
        rest = [entry.message for entry in result.logs]
        assert early + rest == numbered(8, f"of {number}")
        assert early


def test_a_short_invocation_hands_nothing_over(single: WorkerExecutor, listener: Listener) -> None:
    for _ in range(20):
        result = single.invoke(function(), steps(["log", "one"], ["log", "two"]), RUN)
        assert result.duration_ms > 90 or [entry.message for entry in result.logs] == ["one", "two"]
        assert result.duration_ms > 90 or listener.handed == []


def test_a_flood_is_handed_over_now_and_then(single: WorkerExecutor, listener: Listener) -> None:
    flood = [step for number in range(200) for step in (["sleep", 0.002], ["log", str(number)])]
    result = single.invoke(function(), steps(*flood), RUN)
    assert listener.lines + [entry.message for entry in result.logs] == [str(number) for number in range(200)]
    assert 1 <= len(listener.handed) <= result.duration_ms / 100


def test_the_limit_holds_for_early_lines_and_others_together(single: WorkerExecutor, listener: Listener) -> None:
    long = [step for _ in range(40) for step in (["sleep", 0.01], ["stderr", "x" * 199 + "\n"])]
    for _ in range(2):  # the second has a limit of its own
        listener.handed.clear()
        result = single.invoke(function(), steps(*long), RUN)
        assert listener.lines
        kept = [*listener.lines, *[entry.message for entry in result.logs[:-1]]]
        assert 4096 - 200 <= sum(len(line) + 1 for line in kept) <= 4096 + 1
        assert "bytes more were logged and dropped" in result.logs[-1].message


def test_lines_of_a_guest_that_is_killed_are_not_lost(single: WorkerExecutor, listener: Listener) -> None:
    guest = steps(["sleep", 0.15], ["stderr", "the end is near\n"], ["hang"])
    result = single.invoke(function(timeout_seconds=0.4), guest, RUN)
    assert isinstance(result.error, TimedOut)
    assert listener.lines == ["the end is near"]


def test_lines_of_an_invocation_of_no_run_wait_for_its_end(single: WorkerExecutor, listener: Listener) -> None:
    for facts, early in ((context(), False), (RUN, True), (context(), False)):
        listener.handed.clear()
        result = single.invoke(function(), steps(*ticking(6)), facts)
        assert bool(listener.handed) is early
        assert listener.lines + [entry.message for entry in result.logs] == numbered(6)


def test_lines_that_are_not_taken_stay(single: WorkerExecutor, listener: Listener) -> None:
    listener.raises = StoreLocked("for a while")
    result = single.invoke(function(), steps(*ticking(6)), RUN)
    assert [entry.message for entry in result.logs] == numbered(6)


def test_lines_that_are_offered_again_and_again_count_once(single: WorkerExecutor, listener: Listener) -> None:
    listener.raises = StoreLocked("for long")
    lines = [step for _ in range(15) for step in (["sleep", 0.11], ["stderr", "x" * 255 + "\n"])]
    guest = steps(["flood", 1, 200], *lines)  # offered 15 times, they are more than a guest may log
    result = single.invoke(function(), guest, RUN)
    assert result.error is None
    assert len(result.logs) == 15


def test_a_listener_with_a_bug_is_its_owners(single: WorkerExecutor, listener: Listener) -> None:
    listener.raises = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        single.invoke(function(), steps(*ticking(6)), RUN)
    assert single.execute(function(), say("next"), RUN) == b"next"


def test_handing_lines_over_counts_as_the_guests_time(single: WorkerExecutor, listener: Listener) -> None:
    taken = listener.on_logs

    def slow(facts: InvocationContext, entries: Sequence[LogEntry]) -> None:
        taken(facts, entries)
        time.sleep(0.5)

    object.__setattr__(single._host, "on_logs", slow)
    guest = steps(["sleep", 0.15], ["log", "x"], ["say", "late"])
    assert isinstance(single.invoke(function(timeout_seconds=0.3), guest, RUN).error, TimedOut)


# Progress


def test_progress_is_told_when_it_is_news(single: WorkerExecutor, listener: Listener) -> None:
    single.execute(function(), steps(["progress", 0], ["progress", 0], ["progress", 100], ["progress", 100]), RUN)
    assert listener.progress == [0, 100]
    assert listener.whose == [7, 7]


def test_progress_is_told_now_and_then(single: WorkerExecutor, listener: Listener) -> None:
    result = single.invoke(function(), steps(*[["progress", number % 100] for number in range(20_000)]), RUN)
    assert 1 <= len(listener.progress) <= 1 + result.duration_ms / 100
    listener.progress.clear()
    slowly = [step for number in (1, 2, 3) for step in (["sleep", 0.11], ["progress", number])]
    single.execute(function(), steps(*slowly), RUN)
    assert listener.progress == [1, 2, 3]


def test_each_invocation_of_a_stream_has_its_own_progress(single: WorkerExecutor, listener: Listener) -> None:
    list(single.execute_many(function(), [steps(["progress", 50])] * 10, RUN))
    assert listener.progress == [50] * 10


def test_progress_that_is_not_taken_is_no_failure(single: WorkerExecutor) -> None:
    def refuse(_: InvocationContext, __: int) -> None:
        raise StoreLocked("for a while")

    object.__setattr__(single._host, "on_progress", refuse)
    assert single.execute(function(), steps(["progress", 50], ["say", "well"]), RUN) == b"well"


def test_progress_that_nobody_wants_is_not_told(tmp_path: Path) -> None:
    executor = puppets(tmp_path, workers=1)
    try:
        assert executor.execute(function(), steps(["progress", 50], ["say", "well"]), RUN) == b"well"
    finally:
        executor.close()


# Workers that were taken over by their guest

FORGED_LOGS: dict[str, list[Any]] = {
    "no JSON": ["[["],
    "no list": ["7"],
    "another shape": ['["info","x",1]'],
    "an unknown level": ['[["loud","x",1]]'],
    "too few": ['[["info","x"]]'],
    "deeply nested": ["[" * 200_000],
    "no moment": ['[["info","x","soon"]]'],
    "not a number": ['[["info","x",NaN]]'],
    "no end of time": ['[["info","x",1e999]]'],
    "a lone surrogate": ['[["info","\\ud800",1]]'],
    "nothing": [],
    "two": ["[]", "[]"],
}


@pytest.mark.parametrize("name", FORGED_LOGS)
def test_forged_lines_cost_the_forger_only(single: WorkerExecutor, listener: Listener, name: str) -> None:
    inputs = [steps(["ask", "add_logs", *FORGED_LOGS[name]]), say("next")]
    forged, following = single.execute_many(function(), inputs, RUN)
    assert isinstance(forged.error, WorkerLost), forged
    assert following.output == b"next"
    assert listener.handed == []


def test_lines_that_nobody_wants_cost_the_forger(single: WorkerExecutor, listener: Listener) -> None:
    error = single.invoke(function(), steps(["ask", "add_logs", '[["info","x",1]]']), context()).error
    assert isinstance(error, WorkerLost)
    assert listener.handed == []


def test_more_lines_than_any_guest_may_have_are_cut_off(single: WorkerExecutor, listener: Listener) -> None:
    piece = '[["info","' + "x" * 2000 + '",1]]'
    error = single.invoke(function(), steps(*[["ask", "add_logs", piece]] * 100), RUN).error
    assert isinstance(error, WorkerLost)
    assert sum(map(len, listener.lines)) < 8 * 4096


@pytest.mark.parametrize("told", [[""], ["ab"], ["e"], ["\x7f"], [], ["a", "b"]], ids=repr)
def test_a_forged_progress_costs_the_forger_only(single: WorkerExecutor, listener: Listener, told: list[str]) -> None:
    forged, following = single.execute_many(function(), [steps(["ask", "report_progress", *told]), say("next")], RUN)
    assert isinstance(forged.error, WorkerLost)
    assert following.output == b"next"
    assert listener.progress == []


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_host_call_with_too_little_or_too_much(single: WorkerExecutor, count: int) -> None:
    assert single.execute(function(), steps(["ask", "enqueue_background", "a", "b"]), RUN) == b"a+b"
    error = single.invoke(function(), steps(["ask", "enqueue_background", *["a"] * count]), RUN).error
    assert isinstance(error, WorkerLost)
