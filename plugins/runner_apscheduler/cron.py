"""Due times of cron expressions in a time zone, whatever its clocks do.

Between two changes of the clocks a wall clock runs evenly, so a match is looked for in wall-clock time
and, if the clocks change before it, looked for again from there. What a change does is cron's rule
(Debian's crontab(5)): set times that the clocks jump over are due when they have jumped, and those that
come twice are due the first time; a rhythm (`*` or `*/n` in minutes or hours) goes by the clock on the
wall. Changes of three hours and more are no daylight saving, and everything goes by the wall.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import NamedTuple

from runner.triggers import Schedule
from runner_apscheduler.expression import Expression

_SECOND = timedelta(seconds=1)
_PROBE = timedelta(days=2)
"""No two changes of any zone were ever closer."""
_DAYLIGHT_SAVING = timedelta(hours=3)


class Change(NamedTuple):
    """A change of the clocks."""

    moment: datetime
    """In UTC: the first moment at which they show the new time."""
    before: datetime
    """What they would have shown then, naive."""
    after: datetime
    """What they show."""


class CronSchedule(Schedule):
    """A cron expression in a zone."""

    def __init__(self, expression: Expression, zone: tzinfo) -> None:
        self._expression = expression
        self.zone = zone

    def next_after(self, moment: datetime) -> datetime | None:
        """See Schedule."""
        try:
            return self._next_after(moment)
        except OverflowError:  # the end of what a datetime can hold
            return None

    def _next_after(self, moment: datetime) -> datetime | None:
        moment = moment.astimezone(timezone.utc).replace(microsecond=0)
        wall = _wall(moment, self.zone)
        last = first_change(self.zone, moment - _DAYLIGHT_SAVING, moment)
        if last is not None and self._is_kept(last):
            wall = max(wall, last.before - _SECOND)  # what comes twice has been due
        while True:
            match = self._expression.after(wall)
            if match is None:
                return None
            due = moment + (match - _wall(moment, self.zone))
            change = first_change(self.zone, moment, due)
            if change is None:
                return due
            if not self._is_kept(change):
                wall = change.after - _SECOND
            elif match < change.after:
                return change.moment
            moment = change.moment

    def _is_kept(self, change: Change) -> bool:
        """Whether times that a change jumps over or repeats are due, once."""
        return self._expression.at_set_times and abs(change.after - change.before) < _DAYLIGHT_SAVING

    def remark(self, slot: datetime) -> str:
        """See Schedule."""
        change = first_change(self.zone, slot - _DAYLIGHT_SAVING, slot + _DAYLIGHT_SAVING)
        if change is None:
            return ""
        wall = _wall(slot, self.zone)
        if change.after <= wall < change.before:
            which = "first" if slot < change.moment else "second"
            only = ", the only one that counts" if self._is_kept(change) else ""
            return f"the clocks go back: this is the {which} {_time(wall)} of the day in {self.zone}{only}"
        skipped = self._expression.after(change.before - _SECOND)
        if slot == change.moment and self._is_kept(change) and skipped is not None and skipped < change.after:
            return f"the clocks go forward: there is no {_time(skipped)} on this day in {self.zone}"
        return ""


def first_change(zone: tzinfo, after: datetime, until: datetime) -> Change | None:
    """The first change of a zone's clocks later than `after` and not later than `until`."""
    if isinstance(zone, timezone):
        return None
    for year in range(after.year, until.year + 1):
        for change in changes(zone, year):
            if after < change.moment <= until:
                return change
    return None


@lru_cache(maxsize=10_000)
def changes(zone: tzinfo, year: int) -> tuple[Change, ...]:
    """The changes of a zone's clocks in a year (of UTC), in order."""
    return tuple(_changes(zone, year))


def _changes(zone: tzinfo, year: int) -> Iterator[Change]:
    # The second before the year, so that a change in its first is found.
    early = datetime(year, 1, 1, tzinfo=timezone.utc) - _SECOND
    last = early + timedelta(days=calendar.isleap(year) + 365)
    while early < last:
        late = min(early + _PROBE, last)
        if _offset(early, zone) != _offset(late, zone):
            moment = _bisected(zone, early, late)
            before = _wall(moment - _SECOND, zone) + _SECOND
            yield Change(moment, before, _wall(moment, zone))
        early = late


def _bisected(zone: tzinfo, early: datetime, late: datetime) -> datetime:
    """The first second of another offset than that of `early`."""
    offset = _offset(early, zone)
    while late - early > _SECOND:
        middle = early + (late - early) // _SECOND // 2 * _SECOND
        early, late = (middle, late) if _offset(middle, zone) == offset else (early, middle)
    return late


def _offset(moment: datetime, zone: tzinfo) -> timedelta | None:
    return moment.astimezone(zone).utcoffset()


def _wall(moment: datetime, zone: tzinfo) -> datetime:
    """What clocks of a zone show, naive."""
    return moment.astimezone(zone).replace(tzinfo=None)


def _time(wall: datetime) -> str:
    return wall.time().isoformat("seconds" if wall.second else "minutes")
