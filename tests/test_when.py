"""Moments and durations as people write them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.when import format_duration, format_moment, parse_duration, parse_moment

NINE = datetime(2027, 1, 15, 9, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2027-01-15T09:00:00Z", NINE),
        ("2027-01-15t09:00:00z", NINE),
        (" 2027-01-15 09:00Z ", NINE),
        ("2027-01-15 11:00+02:00", NINE),
        ("2027-01-15 11:00 +0200", NINE),
        ("2027-01-15T03:30:00-05:30", NINE),
        ("2027-01-15T09:00:00.25Z", NINE + timedelta(milliseconds=250)),
        ("2027-01-15T09:00:00.123456789Z", NINE + timedelta(microseconds=123456)),
        ("2027-01-15", NINE - timedelta(hours=9)),
    ],
)
def test_moments(text: str, expected: datetime) -> None:
    assert parse_moment(text) == expected
    assert parse_moment(text).tzinfo is timezone.utc


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a moment like"),
        ("tomorrow", "expected a moment like"),
        ("15:00", "expected a moment like"),
        ("2027-01-15T09:00:00", "has no time zone; add Z for UTC"),
        ("2027-02-30", "is no moment: day is out of range"),
        ("2027-01-15T25:00Z", "is no moment"),
        ("2027-01-15T09:00+99:00", "is no moment"),
        ("0001-01-01T00:00+10:00", "is no moment"),
        ("٢٠٢٧-01-15", "expected a moment like"),
    ],
)
def test_no_moments(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_moment(text)


@given(st.datetimes(timezones=st.timezones()))
def test_every_moment_comes_back(moment: datetime) -> None:
    in_utc = moment.astimezone(timezone.utc)
    assert parse_moment(in_utc.isoformat().replace("+00:00", "Z")) == in_utc


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("0s", 0),
        ("1.5s", 1.5),
        ("15m", 900),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1d", 86400),
        ("1w1d", 691200),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "m", "-5m", "5 m", "5x", "5m1h", "1h1h", "9" * 5000 + "s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration like"):
        parse_duration(text)


def test_a_duration_that_is_too_long() -> None:
    with pytest.raises(ValueError, match="longer than time lasts"):
        parse_duration("999999999w")


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.timezones()))
def test_a_moment_is_shown_as_it_is_read(moment: datetime) -> None:
    assert parse_moment(format_moment(moment)) == moment.astimezone(timezone.utc)


@given(st.integers(0, 10**9))
def test_a_duration_is_shown_as_it_is_read(seconds: int) -> None:
    assert parse_duration(format_duration(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


def test_durations_are_short() -> None:
    lengths = [timedelta(0), timedelta(days=1, seconds=30.4), timedelta(minutes=90), timedelta(seconds=-5)]
    assert [format_duration(length) for length in lengths] == ["0s", "1d30s", "1h30m", "-5s"]
