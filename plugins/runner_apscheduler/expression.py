"""Cron expressions: what crontab(5) allows, and when it matches on a clock that is never changed.

All times here are naive wall-clock times; what the changes of real clocks do is in `cron.py`. The arithmetic
is our own: cronsim, the library that comes nearest, reads `5-5/2` as `5-59/2`, refuses `0 0 30 2 1`, and is
several times slower.
"""

from __future__ import annotations

import difflib
import re
from bisect import bisect_left
from calendar import monthrange
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple

MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_TERM = re.compile(r"(?P<low>\*|\w+)(?:-(?P<high>\w+))?(?:/(?P<step>\w+))?", re.ASCII)
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)
_SOME_TIME = datetime(2000, 1, 1)
_YEARS = 50
"""A day that does not come in so many years never comes: 29 February is a Sunday at least every 40."""


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    """Names of values, from `low` on."""

    def value(self, text: str, term: str) -> int:
        """The number that a value means."""
        if text in self.names:
            return self.low + self.names.index(text)
        if not text.isdecimal() or not self.low <= int(text[:9]) <= self.high:
            names = f" or {self.names[0]} to {self.names[-1]}" if self.names else ""
            raise ValueError(f"{self.name}: {term!r}: expected {self.low} to {self.high}{names}, got {text!r}")
        return int(text)

    def values(self, term: str) -> range:
        """What stands between two commas. Raises ValueError."""
        match = _TERM.fullmatch(term)
        if match is None:
            raise ValueError(f"{self.name}: {term!r} is not *, a value or a range like 1-5, with a step like 1-5/2")
        low, high, step = match.groups()
        if low == "*":
            if high is not None:
                raise ValueError(f"{self.name}: {term!r}: * is a whole range already")
            return range(self.low, self.high + 1, self._step(step, term))
        first, last = self.value(low, term), self.value(high or low, term)
        if last < first:
            sunday = f"; at the end of a range Sunday is 7: {low}-7" if (self.names, high) == (_DAYS, "SUN") else ""
            raise ValueError(f"{self.name}: {term!r} ends before it begins{sunday}")
        if step and high is None:
            raise ValueError(f"{self.name}: {term!r}: a step follows * or a range; write {low}-{self.high}/{step}")
        return range(first, last + 1, self._step(step, term))

    def _step(self, text: str | None, term: str) -> int:
        most = self.high - self.low + 1
        if text is None:
            return 1
        if not text.isdecimal() or not 1 <= int(text[:9]) <= most:
            raise ValueError(f"{self.name}: {term!r}: expected a step from 1 to {most}, got {text!r}")
        return int(text)


_SECONDS, _MINUTES, _HOURS = _Field("second", 0, 59), _Field("minute", 0, 59), _Field("hour", 0, 23)
_DAY_OF_MONTH, _MONTH = _Field("day of month", 1, 31), _Field("month", 1, 12, _MONTHS)
_DAY_OF_WEEK = _Field("day of week", 0, 7, _DAYS)


class _Days(NamedTuple):
    """The days that a day-of-month or day-of-week field names."""

    values: frozenset[int]
    """Days of the month, or of the week with Sunday as 0."""
    special: frozenset[str]
    """`L` and `LW`; or of the week `5L` (the last Friday) and `5#2` (the second)."""

    def has_day_of_month(self, day: date) -> bool:
        """Whether a field for the day of the month matches."""
        if day.day in self.values or not self.special:
            return day.day in self.values
        weekday, last = monthrange(day.year, day.month)
        past_friday = (weekday + last - 1) % 7 - 4
        return ("L" in self.special and day.day == last) or (
            "LW" in self.special and day.day == last - max(past_friday, 0)
        )

    def has_day_of_week(self, day: date) -> bool:
        """Whether a field for the day of the week matches."""
        weekday = day.isoweekday() % 7
        if weekday in self.values or not self.special:
            return weekday in self.values
        is_last = day.day + 7 > monthrange(day.year, day.month)[1]
        return f"{weekday}#{(day.day + 6) // 7}" in self.special or (is_last and f"{weekday}L" in self.special)


class Expression(NamedTuple):
    """A valid cron expression. Times of day are sorted."""

    text: str
    """As it stands for itself: names in capitals, macros and spaces resolved."""
    at_set_times: bool
    """Whether neither its minutes nor its hours begin with `*`: it means moments of a day, not a rhythm."""
    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: _Days
    months: frozenset[int]
    weekdays: _Days
    needs_both: bool
    """Whether day of month and day of week must match both: if one begins with `*`, as crontab(5) has it."""

    def after(self, wall: datetime) -> datetime | None:
        """The earliest time later than `wall` (whole seconds) that it matches; None when there is none."""
        try:
            wall += _SECOND
            day = wall.date()
            found = self._time_from(wall.time()) if self._has(day) else None
            if found is None:
                found = time(self.hours[0], self.minutes[0], self.seconds[0])
                day = self._day_from(day + _DAY)
            return datetime.combine(day, found)
        except OverflowError:  # there is no such day, or the end of what a datetime can hold
            return None

    def _time_from(self, earliest: time) -> time | None:
        """The earliest time of day from there on."""
        hours, minutes, seconds = self.hours, self.minutes, self.seconds
        hour = bisect_left(hours, earliest.hour)
        if hour < len(hours) and hours[hour] == earliest.hour:
            minute = bisect_left(minutes, earliest.minute)
            if minute < len(minutes) and minutes[minute] == earliest.minute:
                second = bisect_left(seconds, earliest.second)
                if second < len(seconds):
                    return time(hours[hour], minutes[minute], seconds[second])
                minute += 1
            if minute < len(minutes):
                return time(hours[hour], minutes[minute], seconds[0])
            hour += 1
        return time(hours[hour], minutes[0], seconds[0]) if hour < len(hours) else None

    def _day_from(self, day: date) -> date:
        """The earliest day from there on. Raises OverflowError without one."""
        last_year = day.year + _YEARS
        while not self._has(day):
            if day.month in self.months:
                day += _DAY
            else:
                day = (day.replace(day=28) + 4 * _DAY).replace(day=1)
            if day.year > last_year:
                raise OverflowError
        return day

    def _has(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        if self.needs_both:
            return self.days.has_day_of_month(day) and self.weekdays.has_day_of_week(day)
        return self.days.has_day_of_month(day) or self.weekdays.has_day_of_week(day)


@lru_cache(maxsize=100_000)
def parse(text: str) -> Expression:
    """The expression. Raises ValueError, which names the field, the value and the remedy."""
    fields = MACROS.get(text.strip(), text).upper().split()
    if fields and fields[0].startswith("@"):
        raise ValueError(_about_macro(text.strip()))
    if len(fields) not in (5, 6):
        raise ValueError(
            f"{text!r} has {len(fields)} fields; expected 5 (minute, hour, day of month, month, day of week), "
            "or 6 with seconds in front"
        )
    minute, hour, day, month, week = fields[-5:]
    expression = Expression(
        text=" ".join(fields),
        at_set_times=not minute.startswith("*") and not hour.startswith("*"),
        seconds=_times(_SECONDS, fields[0] if len(fields) == 6 else "0"),
        minutes=_times(_MINUTES, minute),
        hours=_times(_HOURS, hour),
        days=_days(_DAY_OF_MONTH, "LW?", day),
        months=frozenset(_times(_MONTH, month)),
        weekdays=_days(_DAY_OF_WEEK, "(?P<day>[0-7]|" + "|".join(_DAYS) + ")(?P<which>L|#[1-5])", week),
        needs_both=day.startswith("*") or week.startswith("*"),
    )
    if expression.after(_SOME_TIME) is None:
        raise ValueError(f"{text!r} is never due: there is no such day")
    return expression


def _about_macro(text: str) -> str:
    if text == "@reboot":
        return "@reboot is no time; a job that runs when the daemon starts is no schedule"
    near = difflib.get_close_matches(text[:20], MACROS, 1)
    return f"{text!r} is unknown; " + (f"did you mean {near[0]!r}?" if near else f"there are {', '.join(MACROS)}")


@lru_cache(maxsize=10_000)  # many expressions have few fields
def _times(field: _Field, text: str) -> tuple[int, ...]:
    return tuple(sorted({value for term in text.split(",") for value in field.values(term)}))


@lru_cache(maxsize=10_000)
def _days(field: _Field, specials: str, text: str) -> _Days:
    values: set[int] = set()
    special: set[str] = set()
    for term in text.split(","):
        match = re.fullmatch(specials, term)
        if match is None:
            values.update(field.values(term))
        elif "day" in match.groupdict():
            special.add(f"{field.value(match['day'], term) % 7}{match['which']}")
        else:
            special.add(term)
    if field is _DAY_OF_WEEK:
        values = {value % 7 for value in values}
    return _Days(frozenset(values), frozenset(special))
