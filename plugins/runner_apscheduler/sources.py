"""The trigger sources of `cron`, `interval`, `timer` and `job`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from runner.graph import find_cycle
from runner.runs import Follower, RunStatus
from runner.timetable import Timetable, own_queues
from runner.triggers import Intake, Schedule, Trigger, TriggerSource
from runner.when import format_duration, format_moment, parse_duration
from runner_apscheduler.cron import CronSchedule
from runner_apscheduler.expression import parse
from runner_apscheduler.settings import (
    EPOCH,
    CronSettings,
    IntervalSettings,
    JobSettings,
    TimerSettings,
    moment,
    zone,
)


class TimeSource(TriggerSource):
    """A source over a timetable, with APScheduler as its clock."""

    def __init__(self) -> None:
        self._intake: Intake | None = None
        self._timetable: Timetable | None = None
        self._clock: Any = None

    @abstractmethod
    def schedule(self, settings: Any) -> Schedule:
        """See TriggerSource."""

    def limits(self, triggers: Sequence[Trigger]) -> Mapping[str, int]:
        """See TriggerSource."""
        return own_queues(triggers)

    def start(self, triggers: Sequence[Trigger], intake: Intake) -> None:
        """See TriggerSource. Raises StoreError."""
        from runner_apscheduler.clock import Clock

        self._timetable = Timetable(lambda trigger: self.schedule(trigger.settings), intake)
        self._timetable.replace(triggers)
        self._timetable.fire(intake.now())
        self._clock = Clock(self._timetable, intake)
        self._clock.start()

    def replace(self, triggers: Sequence[Trigger]) -> None:
        """See TriggerSource. Raises StoreError."""
        if self._timetable is not None:
            self._timetable.replace(triggers)
            self._clock.look_again()

    def stop(self) -> None:
        """See TriggerSource."""
        if self._clock is not None:
            self._clock.stop()


class CronSource(TimeSource):
    """Runs by cron expressions."""

    def key(self, settings: CronSettings) -> str:
        """See TriggerSource."""
        return f"{parse(settings.schedule).text} {settings.timezone}"

    def schedule(self, settings: CronSettings) -> Schedule:
        """See TriggerSource."""
        return CronSchedule(parse(settings.schedule), zone(settings.timezone))


class IntervalSource(TimeSource):
    """Runs every so often."""

    def key(self, settings: IntervalSettings) -> str:
        """See TriggerSource."""
        every = format_duration(parse_duration(settings.every))
        return every if settings.start is None else f"{every} from {format_moment(moment('start', settings.start))}"

    def schedule(self, settings: IntervalSettings) -> Schedule:
        """See TriggerSource."""
        start = EPOCH if settings.start is None else moment("start", settings.start)
        return EverySchedule(start, parse_duration(settings.every))


class TimerSource(TimeSource):
    """Runs once."""

    def key(self, settings: TimerSettings) -> str:
        """See TriggerSource."""
        if settings.at is not None:
            return f"at {format_moment(moment('at', settings.at))}"
        return f"after {format_duration(parse_duration(settings.after or ''))}"

    def schedule(self, settings: TimerSettings) -> Schedule:
        """See TriggerSource."""
        if settings.at is not None:
            return AtSchedule(moment("at", settings.at))
        return AfterSchedule(parse_duration(settings.after or ""))


class EverySchedule(Schedule):
    """Due at a start, and every so often from there."""

    def __init__(self, start: datetime, every: timedelta) -> None:
        self._start, self._every = start, every

    def next_after(self, moment: datetime) -> datetime | None:
        """See Schedule."""
        try:
            return self._start + max(0, (moment - self._start) // self._every + 1) * self._every
        except OverflowError:
            return None


class AtSchedule(Schedule):
    """Due at one moment."""

    def __init__(self, at: datetime) -> None:
        self._at = at

    def next_after(self, moment: datetime) -> datetime | None:
        """See Schedule."""
        return self._at if self._at > moment else None


class AfterSchedule(Schedule):
    """Due once, so long after it was first seen."""

    relative = True

    def __init__(self, after: timedelta) -> None:
        self._after = after

    def next_after(self, moment: datetime) -> datetime | None:
        """See Schedule."""
        return moment + self._after


class JobSource(TriggerSource):
    """Runs jobs after others. What people and guests enqueue needs no source; they look at the settings."""

    def __init__(self) -> None:
        self._intake: Intake | None = None

    def key(self, settings: JobSettings) -> str:
        """See TriggerSource."""
        return f"after {','.join(settings.after)} {','.join(settings.status)}" if settings.after else ""

    def start(self, triggers: Sequence[Trigger], intake: Intake) -> None:
        """See TriggerSource."""
        self._intake = intake
        self.replace(triggers)

    def replace(self, triggers: Sequence[Trigger]) -> None:
        """See TriggerSource."""
        assert self._intake is not None
        self._intake.follow(
            [
                Follower(job, frozenset(map(RunStatus, trigger.settings.status)), self._intake.new_run(trigger))
                for trigger in triggers
                for job in trigger.settings.after
            ]
        )
        cycle = find_cycle(_needs(triggers))
        if cycle:
            path = " after ".join(cycle)
            self._intake.tell("warning", f"jobs start each other without end: {path}", jobs=cycle)

    def stop(self) -> None:
        """See TriggerSource. What ends while the daemon stops is followed still: nobody would do it later."""


def _needs(triggers: Sequence[Trigger]) -> dict[str, set[str]]:
    needs: dict[str, set[str]] = {}
    for trigger in triggers:
        needs.setdefault(trigger.job, set()).update(trigger.settings.after)
        for job in trigger.settings.after:
            needs.setdefault(job, set())
    return needs
