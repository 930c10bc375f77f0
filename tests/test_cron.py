"""Cron expressions: what crontab(5) says, in every time zone, against an oracle that goes minute by minute."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone, tzinfo
from functools import cache

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from runner_apscheduler.cron import CronSchedule, changes
from runner_apscheduler.expression import MACROS, parse
from runner_apscheduler.settings import zone

UTC = timezone.utc
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MONTHS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split()
DAYS = "SUN MON TUE WED THU FRI SAT".split()
ATHENS, APIA, LORD_HOWE = "Europe/Athens", "Pacific/Apia", "Australia/Lord_Howe"


# The oracle: written from the manual page, and slow


def values(text: str, low: int, high: int, names: list[str]) -> set[int]:
    def number(word: str) -> int:
        return low + names.index(word.upper()) if word.upper() in names else int(word)

    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        if span == "*":
            first, last = low, high
        elif "-" in span:
            first, last = map(number, span.split("-"))
        else:
            first = last = number(span)
        found.update(range(first, last + 1, int(step or 1)))
    return found


@cache
def fields(text: str) -> tuple[set[int], ...]:
    parts = text.split()
    second, minute, hour, day, month, week = parts if len(parts) == 6 else ["0", *parts]
    return (
        values(second, 0, 59, []),
        values(minute, 0, 59, []),
        values(hour, 0, 23, []),
        values(day, 1, 31, []),
        values(month, 1, 12, MONTHS),
        {value % 7 for value in values(week, 0, 7, DAYS)},
    )


def day_matches(text: str, wall: datetime) -> bool:
    _, _, _, day, month, week = fields(text)
    by_day, by_week = wall.day in day, wall.isoweekday() % 7 in week
    parts = text.split()
    both = parts[-3].startswith("*") or parts[-1].startswith("*")
    return wall.month in month and (by_day and by_week if both else by_day or by_week)


def matches(text: str, wall: datetime) -> bool:
    second, minute, hour, *_ = fields(text)
    return wall.minute in minute and wall.hour in hour and wall.second in second and day_matches(text, wall)


def next_match(text: str, wall: datetime, step: timedelta) -> datetime | None:
    """The first match later than `wall` within nine years, a step at a time on the days that match."""
    start = wall.replace(microsecond=0, second=0 if step == MINUTE else wall.second) + step
    for number in range(9 * 366):
        midnight = start.replace(hour=0, minute=0, second=0) + number * DAY
        if not day_matches(text, midnight):
            continue
        moment = max(start, midnight)
        while moment < midnight + DAY:
            if matches(text, moment):
                return moment
            moment += step
    return None


def due_times(text: str, where: tzinfo, begin: datetime, end: datetime, step: timedelta = MINUTE) -> Iterator[datetime]:
    """As cron finds them: it wakes every minute and looks at the clock on the wall."""
    minute, hour = text.split()[-5:-3]
    is_rhythm = minute.startswith("*") or hour.startswith("*")
    before = latest = (begin - 4 * HOUR).astimezone(where).replace(tzinfo=None)
    now = begin - 4 * HOUR + step
    while now <= end:
        wall = now.astimezone(where).replace(tzinfo=None)
        jump = wall - before - step
        if is_rhythm or abs(jump) >= 3 * HOUR:
            due, latest = matches(text, wall), wall
        elif wall <= latest:
            due = False  # these minutes have been lived through
        else:
            skipped = (latest + number * step for number in range(1, (wall - latest) // step))
            due, latest = matches(text, wall) or any(matches(text, moment) for moment in skipped), wall
        if due and now > begin:
            yield now
        before, now = wall, now + step


# Expressions


def field_texts(low: int, high: int, names: list[str]) -> st.SearchStrategy[str]:
    words = st.integers(low, high).map(
        lambda number: names[(number - low) % len(names)] if names and number % 3 == 0 and number < 7 else str(number)
    )
    steps = st.integers(1, high - low + 1).map(str)
    spans = st.tuples(st.integers(low, high), st.integers(low, high)).map(lambda pair: "-".join(map(str, sorted(pair))))
    terms = st.one_of(
        words,
        spans,
        st.tuples(spans, steps).map("/".join),
        steps.map(lambda step: f"*/{step}"),
    )
    return st.one_of(st.just("*"), st.lists(terms, min_size=1, max_size=3).map(",".join))


EXPRESSIONS = st.tuples(
    field_texts(0, 59, []),
    field_texts(0, 23, []),
    field_texts(1, 31, []),
    field_texts(1, 12, MONTHS),
    field_texts(0, 7, DAYS),
).map(" ".join)
WALLS = st.datetimes(datetime(1999, 1, 1), datetime(2040, 1, 1))


@settings(max_examples=300, deadline=None)
@given(text=EXPRESSIONS, wall=WALLS)
def test_an_expression_means_what_the_manual_says(text: str, wall: datetime) -> None:
    expected = next_match(text, wall, MINUTE)
    assume(expected is not None)
    assert parse(text).after(wall.replace(microsecond=0)) == expected


@settings(max_examples=50, deadline=None)
@given(seconds=field_texts(0, 59, []), text=EXPRESSIONS, wall=WALLS)
def test_six_fields_have_seconds_in_front(seconds: str, text: str, wall: datetime) -> None:
    in_minutes = next_match(text, wall, MINUTE)
    assume(in_minutes is not None and in_minutes - wall < 30 * DAY)
    expected = next_match(f"{seconds} {text}", wall, timedelta(seconds=1))
    assert parse(f"{seconds} {text}").after(wall.replace(microsecond=0)) == expected


@settings(max_examples=100, deadline=None)
@given(text=st.text("0123456789*/-,@LW# SUNMOayil", max_size=20))
def test_any_text_is_an_expression_or_an_error(text: str) -> None:
    with suppress(ValueError):
        assert parse(parse(text).text)._replace(text=text) == parse(text)._replace(text=text)


@pytest.mark.parametrize(
    ("text", "begin", "due"),
    [
        ("15 2 * * *", "2027-01-01T00:00", ["2027-01-01T02:15", "2027-01-02T02:15"]),
        ("0 0 1,15 * MON", "2027-03-01T00:00", ["2027-03-08T00:00", "2027-03-15T00:00", "2027-03-22T00:00"]),
        ("0 0 */2 * MON", "2027-03-01T00:00", ["2027-03-15T00:00", "2027-03-29T00:00", "2027-04-05T00:00"]),
        ("0 0 1 * */2", "2027-03-01T00:00", ["2027-04-01T00:00", "2027-05-01T00:00", "2027-06-01T00:00"]),
        ("0 12 * * 0", "2027-03-01T00:00", ["2027-03-07T12:00"]),
        ("0 12 * * 7", "2027-03-01T00:00", ["2027-03-07T12:00"]),
        ("0 12 * * sun", "2027-03-01T00:00", ["2027-03-07T12:00"]),
        ("0 12 * jan-mar,Dec fri-7", "2027-03-26T13:00", ["2027-03-27T12:00", "2027-03-28T12:00", "2027-12-03T12:00"]),
        ("0 0 29 2 *", "2027-01-01T00:00", ["2028-02-29T00:00", "2032-02-29T00:00"]),
        ("0 0 30 2 1", "2027-01-01T00:00", ["2027-02-01T00:00", "2027-02-08T00:00"]),
        ("10-20/5 8-10/2 * * *", "2027-01-01T08:12", ["2027-01-01T08:15", "2027-01-01T08:20", "2027-01-01T10:10"]),
        ("*/20 30 2 * * *", "2027-01-01T00:00", ["2027-01-01T02:30:00", "2027-01-01T02:30:20", "2027-01-01T02:30:40"]),
        ("0 0 L * *", "2027-02-01T00:00", ["2027-02-28T00:00", "2027-03-31T00:00", "2027-04-30T00:00"]),
        ("0 0 LW * *", "2027-02-01T00:00", ["2027-02-26T00:00", "2027-03-31T00:00"]),
        ("0 0 * * 5L", "2027-02-01T00:00", ["2027-02-26T00:00", "2027-03-26T00:00"]),
        ("0 0 * * FRI#2", "2027-02-01T00:00", ["2027-02-12T00:00", "2027-03-12T00:00"]),
        ("@weekly", "2027-03-01T00:00", ["2027-03-07T00:00", "2027-03-14T00:00"]),
        ("  @hourly ", "2027-03-01T00:00", ["2027-03-01T01:00"]),
    ],
)
def test_due_times(text: str, begin: str, due: list[str]) -> None:
    schedule = CronSchedule(parse(text), UTC)
    moment = datetime.fromisoformat(begin).replace(tzinfo=UTC)
    for expected in due:
        found = schedule.next_after(moment)
        assert found == datetime.fromisoformat(expected).replace(tzinfo=UTC)
        moment = found


@pytest.mark.parametrize("name", MACROS)
def test_a_macro_is_the_expression_it_stands_for(name: str) -> None:
    assert parse(name) == parse(MACROS[name])
    assert parse(name).text == MACROS[name]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has 0 fields; expected 5 (minute, hour,"),
        ("* * * *", "has 4 fields"),
        ("* * * * * * *", "has 7 fields"),
        ("60 * * * *", "minute: '60': expected 0 to 59, got '60'"),
        ("-1 * * * *", "minute: '-1' is not *, a value or a range"),
        ("* 24 * * *", "hour: '24': expected 0 to 23"),
        ("* * 0 * *", "day of month: '0': expected 1 to 31"),
        ("* * * 13 *", "month: '13': expected 1 to 12 or JAN to DEC"),
        ("* * * jam *", "month: 'JAM': expected 1 to 12 or JAN to DEC, got 'JAM'"),
        ("* * * * 8", "day of week: '8': expected 0 to 7 or SUN to SAT"),
        ("99 * * * * *", "second: '99': expected 0 to 59"),
        ("5-1 * * * *", "minute: '5-1' ends before it begins"),
        ("* * * * fri-sun", "at the end of a range Sunday is 7: FRI-7"),
        ("5/15 * * * *", "a step follows * or a range; write 5-59/15"),
        ("*/0 * * * *", "expected a step from 1 to 60, got '0'"),
        ("*/90 * * * *", "expected a step from 1 to 60, got '90'"),
        ("*-5 * * * *", "* is a whole range already"),
        ("1,,2 * * * *", "minute: '' is not *"),
        ("?", "has 1 fields"),
        ("0 0 ? * *", "day of month: '?' is not *"),
        ("\u0663 * * * *", "is not *, a value or a range"),
        ("0 0 30 2 *", "is never due: there is no such day"),
        ("0 0 31 4,6 *", "is never due"),
        ("0 0 */31 2 1#5", "is never due"),
        ("@reboot", "@reboot is no time"),
        ("@dayly", "did you mean '@daily'?"),
        ("@", "is unknown; there are @yearly"),
    ],
)
def test_no_expressions(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(text)


def test_time_ends() -> None:
    assert CronSchedule(parse("0 0 1 1 *"), UTC).next_after(datetime(9999, 6, 1, tzinfo=UTC)) is None
    assert CronSchedule(parse("0 0 1 1 *"), zone(ATHENS)).next_after(datetime(9999, 6, 1, tzinfo=UTC)) is None


# Changes of the clocks


@pytest.mark.parametrize(
    ("text", "where", "begin", "due"),
    [
        # set times: what is jumped over comes when the clocks have jumped, once
        ("30 3 * * *", ATHENS, "2026-03-28T12:00", ["2026-03-29T04:00+03:00", "2026-03-30T03:30+03:00"]),
        ("0,30 3 * * *", ATHENS, "2026-03-28T12:00", ["2026-03-29T04:00+03:00", "2026-03-30T03:00+03:00"]),
        ("30 3,4 * * *", ATHENS, "2026-03-28T12:00", ["2026-03-29T04:00+03:00", "2026-03-29T04:30+03:00"]),
        ("0 3,4 * * *", ATHENS, "2026-03-28T12:00", ["2026-03-29T04:00+03:00", "2026-03-30T03:00+03:00"]),
        ("0 0 * * *", "America/Sao_Paulo", "2017-10-14T12:00", ["2017-10-15T01:00-02:00", "2017-10-16T00:00-02:00"]),
        ("15 2 * * *", LORD_HOWE, "2026-10-03T00:00", ["2026-10-04T02:30+11:00", "2026-10-05T02:15+11:00"]),
        # what comes twice is due the first time
        ("30 3 * * *", ATHENS, "2026-10-24T12:00", ["2026-10-25T03:30+03:00", "2026-10-26T03:30+02:00"]),
        ("30 3 * * *", ATHENS, "2026-10-25T01:15", ["2026-10-26T03:30+02:00"]),
        ("45 1 * * *", LORD_HOWE, "2026-04-04T00:00", ["2026-04-05T01:45+11:00", "2026-04-06T01:45+10:30"]),
        # a rhythm goes by the wall
        ("30 * * * *", ATHENS, "2026-03-29T00:00", ["2026-03-29T02:30+02:00", "2026-03-29T04:30+03:00"]),
        ("30 * * * *", ATHENS, "2026-10-25T00:00", ["2026-10-25T03:30+03:00", "2026-10-25T03:30+02:00"]),
        ("30 */3 * * *", ATHENS, "2026-10-25T00:00", ["2026-10-25T03:30+03:00", "2026-10-25T03:30+02:00"]),
        ("*/30 3 * * *", ATHENS, "2026-03-28T12:00", ["2026-03-30T03:00+03:00", "2026-03-30T03:30+03:00"]),
        # a day that was left out is no daylight saving
        ("0 9 * * *", APIA, "2011-12-29T00:00", ["2011-12-29T09:00-10:00", "2011-12-31T09:00+14:00"]),
        # seconds change nothing of it
        ("5 30 3 * * *", ATHENS, "2026-03-28T12:00", ["2026-03-29T04:00+03:00", "2026-03-30T03:30:05+03:00"]),
    ],
)
def test_changes_of_the_clocks(text: str, where: str, begin: str, due: list[str]) -> None:
    schedule = CronSchedule(parse(text), zone(where))
    moment = datetime.fromisoformat(begin).replace(tzinfo=UTC)
    for expected in due:
        found = schedule.next_after(moment)
        assert found is not None
        assert found.tzinfo is UTC
        assert found.astimezone(zone(where)).isoformat() == datetime.fromisoformat(expected).isoformat()
        moment = found


@pytest.mark.parametrize(
    ("text", "slot", "remark"),
    [
        ("30 3 * * *", "2026-03-29T01:00", "the clocks go forward: there is no 03:30 on this day in Europe/Athens"),
        ("30 3 * * *", "2026-10-25T00:30", "this is the first 03:30 of the day in Europe/Athens, the only one"),
        ("30 * * * *", "2026-10-25T00:30", "this is the first 03:30 of the day"),
        ("30 * * * *", "2026-10-25T01:30", "this is the second 03:30 of the day"),
        ("0 4 * * *", "2026-03-29T01:00", ""),
        ("30 4 * * *", "2026-03-29T01:30", ""),
        ("30 3 * * *", "2026-06-01T00:30", ""),
    ],
)
def test_people_are_told_of_them(text: str, slot: str, remark: str) -> None:
    found = CronSchedule(parse(text), zone(ATHENS)).remark(datetime.fromisoformat(slot).replace(tzinfo=UTC))
    assert remark in found
    assert bool(remark) == bool(found)


def test_utc_needs_no_remark() -> None:
    assert CronSchedule(parse("30 3 * * *"), UTC).remark(datetime(2026, 3, 29, 1, tzinfo=UTC)) == ""


# All zones

NAMES = sorted(zoneinfo.available_timezones() - {"localtime", "posixrules"})
"""Those that are the same on every machine."""


def offset(where: tzinfo, moment: datetime) -> timedelta | None:
    return moment.astimezone(where).utcoffset()


@cache
def all_changes() -> dict[str, list[datetime]]:
    """The first moments of another offset, from 2000 to 2040; of zones that were always the same, one."""
    days = [datetime(2000, 1, 1, tzinfo=UTC) + number * DAY for number in range(40 * 365)]
    found: dict[str, list[datetime]] = {}
    kinds: set[tuple[timedelta | None, ...]] = set()
    for name in NAMES:
        offsets = [offset(zone(name), day) for day in days]
        if tuple(offsets) not in kinds:
            kinds.add(tuple(offsets))
            pairs = zip(days, days[1:], offsets, offsets[1:], strict=False)
            found[name] = [change_between(zone(name), *days) for *days, early, late in pairs if early != late]
    return found


def change_between(where: tzinfo, early: datetime, late: datetime) -> datetime:
    while late - early > timedelta(seconds=1):
        middle = early + (late - early) // 2
        early, late = (middle, late) if offset(where, middle) == offset(where, early) else (early, middle)
    return late.replace(microsecond=0)


@pytest.mark.slow
def test_every_change_of_every_zone_is_found() -> None:
    for name, moments in all_changes().items():
        found = [change.moment for year in range(2000, 2040) for change in changes(zone(name), year)]
        assert found[: len(moments)] == moments, name
        assert len(found) - len(moments) <= 1  # in the last days, which are not looked at


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["*/15 * * * *", "0,15,30,45 0-5,22-23 * * *", "30 2 * * *", "15 */2 * * *", "0 0 * * *", "45 23 * * SUN"]
)
def test_the_rule_holds_at_every_change_of_every_zone(text: str) -> None:
    step = timedelta(minutes=15)
    tested = 0
    for name, moments in all_changes().items():
        schedule = CronSchedule(parse(text), zone(name))
        for moment in moments:
            if moment.timestamp() % 900 or abs((offset(zone(name), moment) or DAY).total_seconds()) % 900:
                continue  # clocks that were not a whole quarter of an hour from UTC; the next test has them
            begin, end = moment - 5 * HOUR, moment + 5 * HOUR
            assert slots(schedule, begin, end) == list(due_times(text, zone(name), begin, end, step)), (name, moment)
            tested += 1
    assert tested > 5_000


@settings(max_examples=150, deadline=None)
@given(text=EXPRESSIONS, data=st.data())
def test_the_rule_holds_for_any_expression(text: str, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(NAMES))
    year = data.draw(st.integers(1980, 2040))
    found = changes(zone(name), year)
    assume(found)
    moment = data.draw(st.sampled_from(found)).moment + data.draw(st.integers(-300, 300)) * MINUTE
    try:
        schedule = CronSchedule(parse(text), zone(name))
    except ValueError:
        assume(False)
    begin, end = moment - 3 * HOUR, moment + 6 * HOUR
    assert slots(schedule, begin, end) == list(due_times(text, zone(name), begin, end))


def slots(schedule: CronSchedule, begin: datetime, end: datetime) -> list[datetime]:
    found = []
    moment = schedule.next_after(begin)
    while moment is not None and moment <= end:
        found.append(moment)
        moment = schedule.next_after(moment)
    return found
