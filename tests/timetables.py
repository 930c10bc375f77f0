"""Time triggers over a real store with a clock that is set by hand. What tests/test_timetable*.py share."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from runner_apscheduler.settings import CronSettings, IntervalSettings, TimerSettings
from runner_apscheduler.sources import CronSource, IntervalSource, TimerSource

from runner.errors import UsageError
from runner.ledger import RecordedSlot, RunFilter
from runner.run_store import RunStore
from runner.runs import Claimant, Follower, NewRun, Succeeded
from runner.timetable import FIRST_SEEN, Timetable
from runner.triggers import Intake, Schedule, Trigger, TriggerSource

UTC = timezone.utc
SOURCES: dict[type[Any], tuple[str, TriggerSource]] = {
    CronSettings: ("cron", CronSource()),
    IntervalSettings: ("interval", IntervalSource()),
    TimerSettings: ("timer", TimerSource()),
}
NINE = datetime(2027, 3, 1, 9, tzinfo=UTC)


def at(clock: str, day: int = 1) -> datetime:
    """A time of a day in March 2027, UTC."""
    return datetime.fromisoformat(f"2027-03-{day:02}T{clock}+00:00")


def trigger(settings: Any, job: str = "clean") -> Trigger:
    """A trigger as admission makes it."""
    kind, source = SOURCES[type(settings)]
    return Trigger(id=f"shop/{job}/{kind}/{source.key(settings)}", job=job, kind=kind, settings=settings, line=1)


def hourly(job: str = "clean", **rules: Any) -> Trigger:
    """A trigger that is due at every full hour."""
    return trigger(IntervalSettings(every="1h", **rules), job)


def schedule_of(settings: Any) -> Schedule | None:
    """As a source makes it."""
    return SOURCES[type(settings)][1].schedule(settings)


class Desk(Intake):
    """An Intake whose clock stands where a test puts it."""

    def __init__(self, store: RunStore, moment: datetime = NINE) -> None:
        self.store, self.moment = store, moment
        self.told: list[tuple[str, str]] = []
        self.broken: set[str] = set()

    def now(self) -> datetime:
        return self.moment

    def new_run(self, trigger: Trigger, payload: bytes = b"") -> NewRun:
        if trigger.job in self.broken:
            raise UsageError(f"{trigger.job} has no module")
        run = NewRun(namespace="shop", job=trigger.job, function="clean", function_version=1, payload=payload)
        return run._replace(trigger=trigger.id)

    def follow(self, followers: Sequence[Follower]) -> None:
        self.store.follow(followers)

    def tell(self, level: str, message: str, **facts: Any) -> None:  # noqa: ARG002
        self.told.append((level, message))

    # Short ways

    def timetable(self, *triggers: Trigger) -> Timetable:
        """One that begins now, as a daemon does that starts."""
        timetable = Timetable(lambda trigger: schedule_of(trigger.settings), self)
        timetable.replace(triggers)
        timetable.fire(self.moment)
        return timetable

    def go(self, timetable: Timetable, until: datetime) -> None:
        """Let time pass with the daemon awake: it fires when something is due."""
        while (due := timetable.next_due()) is not None and due <= until:
            self.moment = max(due, self.moment)
            timetable.fire(self.moment)
        self.moment = until
        timetable.fire(until)

    def sleep(self, timetable: Timetable, until: datetime) -> None:
        """Let time pass with nobody awake, and wake up."""
        self.moment = until
        timetable.fire(until)

    def ledger(self, trigger: Trigger) -> list[RecordedSlot]:
        """Its entries in order, without that of its first sight."""
        return [entry for entry in self.store.slots(trigger.id, limit=100_000)[::-1] if entry.reason != FIRST_SEEN]

    def outcomes(self, trigger: Trigger) -> list[tuple[str, str]]:
        """Its slots as day and time, with what became of them."""
        return [(f"{entry.slot:%d %H:%M}", entry.outcome.value) for entry in self.ledger(trigger)]

    def runs(self) -> list[tuple[str, str]]:
        """Every run by its slot and status, in order."""
        return [(f"{run.slot:%d %H:%M}", run.status.value) for run in self.store.list_runs(RunFilter())[::-1]]

    def finish(self, limits: dict[str, int] | None = None) -> int:
        """Carry out everything that may run now; how many runs that were."""
        claims = self.store.claim(
            Claimant(owner="w", namespace="shop", limits=limits or {}, lease_seconds=10**7), 10_000, now=self.moment
        )
        self.store.finish([Succeeded(claim.run_id, claim.token, b"") for claim in claims], now=self.moment)
        return len(claims)


def days(count: float) -> timedelta:
    """So many days."""
    return timedelta(days=count)
