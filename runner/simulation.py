"""What time triggers would do in a span of time: every firing, skip and catch-up, and nothing is run.

A real Timetable decides, over a ledger that is made up here; runs take as long as they are said to take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

from runner.ledger import RecordedSlot, SlotEntry, SlotOutcome
from runner.runs import NewRun, RunStatus
from runner.timetable import Timetable
from runner.triggers import Schedule, Trigger
from runner.when import format_moment

_OUTCOMES = {SlotOutcome.RAN: "fires", SlotOutcome.CAUGHT_UP: "caught_up", SlotOutcome.SKIPPED: "skipped"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """What is taken for granted."""

    begin: datetime
    """The triggers are first seen then; the first slot that counts."""
    end: datetime
    """The first slot that does not count."""
    down: Sequence[tuple[datetime, datetime]] = ()
    """When no daemon is awake: from, and up to but without."""
    durations: Mapping[str, timedelta] = field(default_factory=lambda: MappingProxyType({}))
    """How long runs of a job take."""
    duration: timedelta = timedelta(0)
    """How long runs of the other jobs take."""

    def awake(self, moment: datetime) -> datetime:
        """The first moment from there on at which a daemon is awake."""
        for begin, end in sorted(self.down):
            if begin <= moment < end:
                moment = end
        return moment


@dataclass(kw_only=True, slots=True)
class Firing:
    """What became of one slot."""

    job: str
    trigger: str
    """The trigger's id."""
    slot: datetime
    local: datetime | None
    """The slot in the trigger's time zone; None where that is UTC."""
    outcome: str
    """`fires`, `skipped` or `caught_up`."""
    reason: str


@dataclass(kw_only=True, slots=True)
class _Run:
    run_id: int
    firing: Firing
    earliest: datetime
    begins: datetime
    ends: datetime


def simulate(
    triggers: Iterable[Trigger], schedule_of: Callable[[Trigger], Schedule | None], scenario: Scenario
) -> Iterator[Firing]:
    """Every slot of the scenario, as it comes up: in order, but that those of a downtime come at its end."""
    schedules = {trigger.id: (trigger, schedule) for trigger in triggers if (schedule := schedule_of(trigger))}
    ledger = _Ledger(scenario, schedules)
    timetable = Timetable(lambda trigger: schedules[trigger.id][1], ledger)
    timetable.replace([trigger for trigger, _ in schedules.values()])
    ledger.take()  # that they were first seen is no firing
    while (due := timetable.next_due()) is not None and due < scenario.end:
        timetable.fire(scenario.awake(due))
        firings = ledger.take()
        firings.sort(key=lambda firing: firing.slot)
        yield from (firing for firing in firings if firing.slot < scenario.end)


class _Ledger:
    """An intake and its store for one Timetable, which never asks for the same slot twice."""

    def __init__(self, scenario: Scenario, schedules: Mapping[str, tuple[Trigger, Schedule]]) -> None:
        self._scenario, self._schedules = scenario, schedules
        self._now = scenario.begin
        self._live: dict[str, list[_Run]] = {}
        self._fired: list[tuple[Firing, _Run | None]] = []
        self._last_id = 0

    def take(self) -> list[Firing]:
        """What was fired since this was called last."""
        taken, self._fired = self._fired, []
        for firing, run in taken:
            if run is not None and run.earliest > self._now:
                firing.reason = _joined(firing.reason, f"jitter: begins at {_whole(run.earliest)}")
            if run is not None and run.begins > run.earliest:
                firing.reason = _joined(firing.reason, f"overlap: waits until {_whole(run.begins)}")
        return [firing for firing, _ in taken]

    # SlotIntake

    @property
    def store(self) -> _Ledger:
        """Itself."""
        return self

    def now(self) -> datetime:
        """See Intake. Asked for when triggers are first seen: a slot at the beginning counts."""
        return self._scenario.begin - timedelta.resolution

    def new_run(self, trigger: Trigger, payload: bytes = b"") -> NewRun:
        """See Intake."""
        return NewRun(namespace="", job=trigger.job, payload=payload)

    def tell(self, level: str, message: str, **facts: Any) -> None:
        """See Intake."""

    # SlotStore

    def record_slots(self, entries: Sequence[SlotEntry], *, now: datetime) -> list[RecordedSlot]:
        """See RunStore."""
        self._now = now
        return [self._record(entry) for entry in entries]

    def last_slots(self, triggers: Sequence[str]) -> dict[str, datetime]:  # noqa: ARG002
        """See RunStore."""
        return {}

    def slot(self, trigger: str, slot: datetime) -> RecordedSlot | None:  # noqa: ARG002
        """See RunStore."""
        return None

    def slots(self, trigger: str, *, before: datetime | None = None, limit: int = 100) -> list[RecordedSlot]:  # noqa: ARG002
        """See RunStore."""
        return []

    def live_runs(self, triggers: Sequence[str]) -> dict[str, list[int]]:
        """See RunStore."""
        return {trigger: [run.run_id for run in self._live_of(trigger)] for trigger in triggers}

    def cancel(self, run_id: int, reason: str, *, now: datetime) -> RunStatus:  # noqa: ARG002
        """See RunStore."""
        for runs in self._live.values():
            for run in runs:
                if run.run_id == run_id:
                    runs.remove(run)
                    newest = runs[-1]
                    newest.firing.reason = _joined(newest.firing.reason, f"replaces the run of {_shown(run)}")
                    self._line_up(runs)
                    return RunStatus.CANCELLED
        raise AssertionError(f"run {run_id} is not live")

    # How runs go

    def _record(self, entry: SlotEntry) -> RecordedSlot:
        trigger, schedule = self._schedules[entry.trigger]
        outcome, reason = entry.outcome, entry.reason
        live = self._live_of(entry.trigger)
        if entry.run is not None and entry.run.unique_key is not None and live:
            outcome, reason = SlotOutcome.SKIPPED, f"overlap: the run of {_shown(live[-1])} has not ended"
        firing = Firing(
            job=trigger.job,
            trigger=trigger.id,
            slot=entry.slot,
            local=None if schedule.zone is timezone.utc else entry.slot.astimezone(schedule.zone),
            outcome=_OUTCOMES[outcome],
            reason=reason,
        )
        run = None
        if entry.run is not None and outcome is not SlotOutcome.SKIPPED:
            run = self._enqueue(entry.run, firing, live)
        self._fired.append((firing, run))
        run_id = None if run is None else run.run_id
        return RecordedSlot(entry.trigger, entry.slot, outcome, reason, run_id, self._scenario.begin)

    def _enqueue(self, new: NewRun, firing: Firing, live: list[_Run]) -> _Run:
        self._last_id += 1
        earliest = new.run_at or self._now
        ends = earliest + self._duration(firing.job)
        run = _Run(run_id=self._last_id, firing=firing, earliest=earliest, begins=earliest, ends=ends)
        live.append(run)
        if new.queue == new.trigger:
            self._line_up(live)
        return run

    def _line_up(self, runs: Sequence[_Run]) -> None:
        """Runs of a queue that takes one at a time."""
        free = self._now
        for run in runs:
            if run.begins > self._now or run is runs[-1]:
                run.begins = max(run.earliest, free)
                run.ends = run.begins + self._duration(run.firing.job)
            free = run.ends

    def _live_of(self, trigger: str) -> list[_Run]:
        live = self._live[trigger] = [run for run in self._live.get(trigger, ()) if run.ends > self._now]
        return live

    def _duration(self, job: str) -> timedelta:
        return self._scenario.durations.get(job, self._scenario.duration)


def _whole(moment: datetime) -> str:
    return format_moment(moment.replace(microsecond=0))


def _shown(run: _Run) -> str:
    return format_moment(run.firing.slot)


def _joined(reason: str, more: str) -> str:
    return f"{reason}; {more}" if reason else more
