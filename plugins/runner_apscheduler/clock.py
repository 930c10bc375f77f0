"""APScheduler as the clock: it wakes when a Timetable has something due, and nothing more.

One job in one scheduler, whose trigger asks the timetable when to come next. Which slots are due, what was
missed and what overlaps is the timetable's business, so APScheduler's own misfires and instances are off.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from apscheduler.events import EVENT_JOB_ERROR, JobExecutionEvent
from apscheduler.executors.debug import DebugExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from runner.errors import RunnerError
from runner.timetable import Timetable
from runner.triggers import Intake

LONGEST_SLEEP = timedelta(seconds=10)
"""It looks at the clock at least so often: a clock that was set and a machine that slept tell nobody."""
_SOON = timedelta(milliseconds=1)
_AFTER_FAILURE = timedelta(seconds=1)
_JOB = "timetable"

logging.getLogger("apscheduler").addHandler(logging.NullHandler())  # or its warnings would go to stderr


class _Alarm(BaseTrigger):  # type: ignore[misc]  # apscheduler has no types
    """An APScheduler trigger: the next moment to look at the timetable."""

    def __init__(self, next_due: Callable[[], datetime | None]) -> None:
        self._next_due = next_due

    def get_next_fire_time(self, _previous: datetime | None, now: datetime) -> datetime:
        """See BaseTrigger. Always later than `now`, or APScheduler would ask again and again."""
        due = self._next_due()
        latest = now + LONGEST_SLEEP
        return latest if due is None else min(max(due, now + _SOON), latest)


class Clock:
    """A thread that fires a timetable."""

    def __init__(self, timetable: Timetable, intake: Intake) -> None:
        self._timetable, self._intake = timetable, intake
        self._not_before: datetime | None = None
        self._scheduler = BackgroundScheduler(timezone=timezone.utc, executors={"default": DebugExecutor()})
        self._scheduler.add_listener(self._failed, EVENT_JOB_ERROR)
        settings: dict[str, Any] = {"misfire_grace_time": None, "coalesce": True}
        self._scheduler.add_job(self._tick, _Alarm(self._next), id=_JOB, **settings)

    def start(self) -> None:
        """Begin; a thread runs until `stop`."""
        self._scheduler.start()

    def look_again(self) -> None:
        """The timetable has changed."""
        self._scheduler.reschedule_job(_JOB, trigger=_Alarm(self._next))

    def stop(self) -> None:
        """On return the thread has ended. May be called twice."""
        if self._scheduler.running:
            self._scheduler.shutdown()

    def _next(self) -> datetime | None:
        due = self._timetable.next_due()
        return due if due is None or self._not_before is None else max(due, self._not_before)

    def _tick(self) -> None:
        self._not_before = None
        if self._timetable.fire(self._intake.now()):
            # APScheduler would sleep from when it looked at the clock before this, and so too long.
            self._scheduler.wakeup()

    def _failed(self, event: JobExecutionEvent) -> None:
        """What `fire` could not do is due still; try again a moment later."""
        self._not_before = self._intake.now() + _AFTER_FAILURE
        if isinstance(event.exception, RunnerError):
            self._intake.tell("error", f"due times wait: {event.exception}", error_class=event.exception.error_class)
        else:
            self._intake.tell("error", f"due times wait, for a bug: {event.exception!r}\n{event.traceback}")
