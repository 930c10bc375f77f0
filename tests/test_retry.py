"""Backoff is arithmetic: a table and its bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import BadOutput, Exited, FunctionNotFound, RunnerError, TimedOut
from runner.retry import CEILING_SECONDS, delay_seconds, should_retry


@pytest.mark.parametrize(
    ("error", "attempts", "retry_count", "again"),
    [
        (Exited(3), 1, 0, False),
        (Exited(3), 1, 1, True),
        (TimedOut(1.0), 3, 3, True),
        (TimedOut(1.0), 4, 3, False),
        (FunctionNotFound("a", namespace="n"), 1, 5, False),
        (BadOutput("outside memory"), 1, 5, False),
    ],
)
def test_should_retry(error: RunnerError, attempts: int, retry_count: int, again: bool) -> None:
    assert should_retry(error, attempts=attempts, retry_count=retry_count) is again


@pytest.mark.parametrize(("attempts", "longest"), [(1, 5.0), (2, 10.0), (3, 20.0), (7, 300.0), (100_000, 300.0)])
def test_the_delay_doubles_up_to_the_ceiling(attempts: int, longest: float) -> None:
    assert delay_seconds(attempts=attempts, retry_delay_seconds=5, chance=1.0) == longest


@given(st.integers(1, 10**6), st.floats(0, 10**6), st.floats(0, 1, exclude_max=True))
def test_the_delay_stays_in_its_bounds(attempts: int, base: float, chance: float) -> None:
    assert 0 <= delay_seconds(attempts=attempts, retry_delay_seconds=base, chance=chance) <= CEILING_SECONDS
