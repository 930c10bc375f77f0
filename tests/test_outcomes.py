"""What the end of an attempt means for its run, as a table; and what an executor tells is fit for any store."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from runner import errors
from runner.models import InvocationResult, LogEntry, LogLevel, TriggerType
from runner.outcomes import ENGINE_TRIES, outcome_of, sound
from runner.runs import Claim, Dead, Failed, Failure, Lost, Released, Retry, Succeeded
from runner.testing.runs_bench import START

GUESTS_FAULT = [
    errors.Trapped("unreachable", "unreachable"),
    errors.Exited(3),
    errors.TimedOut(30),
    errors.OutOfMemory(64, "memory.grow"),
]
MACHINES_FAULT = [
    errors.FileUnavailable("in.txt is not here"),
    errors.PluginUnavailable("no plugin"),
    errors.StoreFull("no room"),
    errors.StoreLocked("busy"),
]
FOR_GOOD = [
    errors.FunctionNotFound("gone", namespace="shop"),
    errors.InvalidModule("no module"),
    errors.UnsupportedFeature("simd", executor="wasmer"),
    errors.CompileTimedOut(60, size_bytes=5),
    errors.InputTooLarge(5, 4),
    errors.OutputTooLarge(4),
    errors.BadOutput("a pointer"),
    errors.GrantMissing("http_fetch", "`allow`"),
    errors.UsageError("wrong"),
]


def name(error: errors.RunnerError) -> str:
    return error.error_class


def claim(*, failures: int = 0, retry_count: int = 0) -> Claim:
    return Claim(
        run_id=7,
        token=9,
        attempt=failures + 1,
        failures=failures,
        namespace="shop",
        job="work",
        function="guest",
        function_version=1,
        payload=b"",
        queue="default",
        retry_count=retry_count,
        trigger_type=TriggerType.JOB,
        trigger=None,
        slot=None,
        dlq_topic=None,
    )


def outcome(error: errors.RunnerError | None, *, chance: float = 0.5, delay: float = 4.0, **counts: int) -> Any:
    result = InvocationResult(None if error else b"out", error, duration_ms=5.0, memory_peak_bytes=6)
    return outcome_of(claim(**counts), result, retry_delay_seconds=delay, now=START, chance=chance)


def test_success() -> None:
    assert outcome(None) == Succeeded(7, 9, b"out", 5.0, 6, ())


@pytest.mark.parametrize("error", [*GUESTS_FAULT, *MACHINES_FAULT], ids=name)
def test_what_may_work_next_time_is_tried_again_and_then_dead(error: errors.RunnerError) -> None:
    failure = Failure(error.error_class, str(error), "")
    assert outcome(error) == Dead(7, 9, failure, 5.0, 6, ())
    first = outcome(error, retry_count=2)
    assert first == Retry(7, 9, START + timedelta(seconds=2), failure, 5.0, 6, ())
    assert outcome(error, retry_count=2, failures=1).run_at == START + timedelta(seconds=4)
    assert outcome(error, retry_count=2, failures=2) == Dead(7, 9, failure, 5.0, 6, ())


def test_without_an_engine_a_run_waits() -> None:
    error = errors.EngineUnavailable("wasmer", "it is not here")
    assert outcome(error) == Released(7, 9, str(error), run_at=START + timedelta(seconds=2))
    third = claim(failures=1)._replace(attempt=4)  # the first failed, two waited
    result = InvocationResult(None, error)
    waits = outcome_of(third, result, retry_delay_seconds=4, now=START, chance=1)
    assert waits == Released(7, 9, str(error), run_at=START + timedelta(seconds=16))
    at_last = claim()._replace(attempt=ENGINE_TRIES + 1)
    assert type(outcome_of(at_last, result, retry_delay_seconds=4, now=START, chance=1)) is Dead


@pytest.mark.parametrize("error", FOR_GOOD, ids=name)
def test_what_cannot_work_has_failed(error: errors.RunnerError) -> None:
    assert outcome(error, retry_count=5) == Failed(7, 9, Failure(error.error_class, str(error), ""), 5.0, 6, ())


@pytest.mark.parametrize("counts", [{}, {"failures": 5}, {"retry_count": 2}])
def test_a_lost_worker_is_nobodys_failure(counts: dict[str, int]) -> None:
    assert isinstance(outcome(errors.WorkerLost("it was killed"), **counts), Lost)


@pytest.mark.parametrize(
    ("failures", "chance", "seconds"), [(0, 0.0, 0), (0, 1.0, 4), (1, 1.0, 8), (5, 1.0, 128), (20, 1.0, 300)]
)
def test_the_delay_grows_to_five_minutes(failures: int, chance: float, seconds: float) -> None:
    retry = outcome(errors.Exited(1), failures=failures, retry_count=99, chance=chance)
    assert retry.run_at == START + timedelta(seconds=seconds)


def test_the_end_of_stderr_is_kept() -> None:
    assert outcome(errors.Exited(3, stderr_tail="last words")).failure.stderr_tail == "last words"


# What an executor tells


@dataclass(frozen=True)
class Odd:
    """A number that no store keeps, and what is kept in its place."""

    duration_ms: float = 1.0
    peak: int = 1
    kept: tuple[float, int] = (1.0, 1)


@pytest.mark.parametrize(
    "odd",
    [
        Odd(duration_ms=math.nan, kept=(0.0, 1)),
        Odd(duration_ms=math.inf, kept=(0.0, 1)),
        Odd(duration_ms=-1.0, kept=(0.0, 1)),
        Odd(peak=-1, kept=(1.0, 0)),
        Odd(peak=2**64 - 1, kept=(1.0, 2**63 - 1)),
    ],
)
def test_odd_numbers(odd: Odd) -> None:
    result = sound(InvocationResult(b"", None, (), odd.duration_ms, odd.peak))
    assert (result.duration_ms, result.memory_peak_bytes) == odd.kept


def test_odd_log_lines() -> None:
    lines = (LogEntry(LogLevel.INFO, "\ud800 é", math.nan), LogEntry(LogLevel.ERROR, "fine", 5.0))
    (odd, fine) = sound(InvocationResult(b"", None, lines)).logs
    assert odd == LogEntry(LogLevel.INFO, "\\ud800 é", 0.0)
    assert fine == lines[1]


def test_odd_messages() -> None:
    failure = outcome(errors.Trapped("x", "\udfff", stderr_tail="\ud800")).failure
    assert (failure.message, failure.stderr_tail) == ("trapped: \\udfff", "\\ud800")


def test_what_is_sound_stays_as_it_is() -> None:
    result = InvocationResult(b"out", None, (), 1.5, 65536)
    assert sound(result) is result
