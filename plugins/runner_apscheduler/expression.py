"""Cron expressions: what crontab(5) allows, checked field by field, and matched against wall-clock time.

The arithmetic is that of cronsim, on naive times only: what a wall clock does when it is changed is
decided in `cron.py`.
"""

from __future__ import annotations

import copy
import difflib
import re
from datetime import datetime
from functools import cache, lru_cache
from typing import NamedTuple

from cronsim import CronSim, CronSimError

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
_SOME_TIME = datetime(2000, 1, 1)


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    """Names of values, from `low` on."""
    also: str = ""
    """A pattern of what else may stand there."""

    def value(self, text: str, term: str) -> int:
        """The number that a value means."""
        if text in self.names:
            return self.low + self.names.index(text)
        if not text.isdecimal() or not self.low <= int(text[:9]) <= self.high:
            names = f" or {self.names[0]} to {self.names[-1]}" if self.names else ""
            raise ValueError(f"{self.name}: {term!r}: expected {self.low} to {self.high}{names}, got {text!r}")
        return int(text)

    def check(self, term: str) -> None:
        """Raise ValueError for what may not stand between two commas."""
        if self.also and re.fullmatch(self.also, term):
            return
        match = _TERM.fullmatch(term)
        if match is None:
            raise ValueError(f"{self.name}: {term!r} is not *, a value or a range like 1-5, with a step like 1-5/2")
        low, high, step = match.groups()
        if low != "*":
            first, last = self.value(low, term), self.value(high or low, term)
            if last < first:
                sunday = f"; at the end of a range Sunday is 7: {low}-7" if (self.names, high) == (_DAYS, "SUN") else ""
                raise ValueError(f"{self.name}: {term!r} ends before it begins{sunday}")
            if step and high is None:
                raise ValueError(f"{self.name}: {term!r}: a step follows * or a range; write {low}-{self.high}/{step}")
        elif high is not None:
            raise ValueError(f"{self.name}: {term!r}: * is a whole range already")
        if step and not (step.isdecimal() and 1 <= int(step[:9]) <= self.high - self.low + 1):
            raise ValueError(
                f"{self.name}: {term!r}: expected a step from 1 to {self.high - self.low + 1}, got {step!r}"
            )


_FIELDS = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31, also="LW?"),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 7, _DAYS, also="[0-7]L|([0-7]|" + "|".join(_DAYS) + ")#[1-5]"),
)


class Expression(NamedTuple):
    """A valid cron expression."""

    text: str
    """As it stands for itself: names in capitals, macros and spaces resolved."""
    at_set_times: bool
    """Whether neither its minutes nor its hours begin with `*`: it means moments of a day, not a rhythm."""
    matcher: CronSim

    def after(self, wall: datetime) -> datetime | None:
        """The earliest naive time later than `wall` that it matches; None when there is none in 50 years."""
        matcher = copy.copy(self.matcher)  # its sets are not changed by matching
        matcher.dt = wall
        try:
            return next(matcher, None)
        except OverflowError:  # the end of what a datetime can hold
            return None


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
    for field, written in zip(_FIELDS[-len(fields) :], fields, strict=True):
        for term in written.split(","):
            field.check(term)
    minute, hour = fields[-5:-3]
    at_set_times = not minute.startswith("*") and not hour.startswith("*")
    expression = Expression(" ".join(fields), at_set_times, _matcher(text, fields))
    if expression.after(_SOME_TIME) is None:
        raise ValueError(f"{text!r} is never due: there is no such day")
    return expression


def _about_macro(text: str) -> str:
    if text == "@reboot":
        return "@reboot is no time; a job that runs when the daemon starts is no schedule"
    near = difflib.get_close_matches(text[:20], MACROS, 1)
    return f"{text!r} is unknown; " + (f"did you mean {near[0]!r}?" if near else f"there are {', '.join(MACROS)}")


def _matcher(text: str, fields: list[str]) -> CronSim:
    try:
        matcher = CronSim(" ".join(fields), _SOME_TIME)
    except CronSimError as error:
        day, week = fields[-3], fields[-1]
        if "*" in (day[0], week[0]):
            raise ValueError(f"{text!r} is never due: there is no such day") from error
        # cronsim refuses a day that no month has, also where the day of the week alone would match.
        matcher = CronSim(" ".join([*fields[:-3], "*", fields[-2], week]), _SOME_TIME)
    for name in ("seconds", "minutes", "hours", "days", "months", "weekdays"):
        setattr(matcher, name, _shared(frozenset(getattr(matcher, name))))
    matcher.parts = []
    return matcher


@cache
def _shared(values: frozenset[object]) -> frozenset[object]:
    """One set for all that are equal: sets are most of what an expression weighs."""
    return values
