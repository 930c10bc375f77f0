"""When time triggers are due, and what happens then: runs, ledger entries, catch-up, overlap.

A Timetable has no thread and no clock: a trigger source asks it for `next_due`, waits, and calls `fire`.
Whatever its triggers are made of (cron, intervals, sunrise), their slots end in the store's ledger. What
is to become of a slot is decided in `runner.timepolicy`.
"""

from __future__ import annotations

import hashlib
import heapq
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from itertools import count, islice
from typing import Any, Protocol, TypeVar

from runner.errors import RunnerError, StoreError
from runner.ledger import RecordedSlot, SlotEntry, SlotOutcome
from runner.runs import NewRun, RunStatus
from runner.timepolicy import GRACE, SINGLE_ENTRIES, Overlap, Policy, Verdict, judge
from runner.triggers import Schedule, Trigger
from runner.when import format_duration, format_moment

FIRST_SEEN = "first seen; due times count from here"
"""The reason of the entry that a trigger gets before its first slot."""
SINCE_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
"""The slot of that entry for a relative schedule, so that it is one for all daemons; the schedule counts
from when it was recorded."""
CHUNK = 1_000
"""Slots that are recorded in one transaction."""
_MISSED_ENTRIES = 100_000
"""Of all triggers together, about so many missed slots get entries of their own at once."""
_DEFAULT = Policy()
_SMALLEST = timedelta.resolution


class SlotStore(Protocol):
    """What a Timetable needs of a RunStore."""

    def record_slots(self, entries: Sequence[SlotEntry], *, now: datetime) -> list[RecordedSlot]:
        """See RunStore."""

    def last_slots(self, triggers: Sequence[str]) -> dict[str, datetime]:
        """See RunStore."""

    def slot(self, trigger: str, slot: datetime) -> RecordedSlot | None:
        """See RunStore."""

    def slots(self, trigger: str, *, before: datetime | None = None, limit: int = 100) -> list[RecordedSlot]:
        """See RunStore."""

    def live_runs(self, triggers: Sequence[str]) -> dict[str, list[int]]:
        """See RunStore."""

    def cancel(self, run_id: int, reason: str, *, now: datetime) -> RunStatus:
        """See RunStore."""


class SlotIntake(Protocol):
    """What a Timetable needs of an Intake."""

    @property
    def store(self) -> SlotStore:
        """Where the ledger is."""

    def now(self) -> datetime:
        """See Intake."""

    def new_run(self, trigger: Trigger, payload: bytes = b"") -> NewRun:
        """See Intake."""

    def tell(self, level: str, message: str, **facts: Any) -> None:
        """See Intake."""


def policy_of(trigger: Trigger) -> Policy:
    """The attribute `policy` of the trigger's settings, or the default."""
    policy = getattr(trigger.settings, "policy", None)
    return policy if isinstance(policy, Policy) else _DEFAULT


def own_queues(triggers: Iterable[Trigger]) -> dict[str, int]:
    """For TriggerSource.limits: the queues of triggers whose runs go one after another. A queue has the
    name of its trigger."""
    return {trigger.id: 1 for trigger in triggers if policy_of(trigger).overlap in (Overlap.QUEUE, Overlap.REPLACE)}


def share(trigger: str, slot: datetime) -> float:
    """A number from 0 up to 1 for the jitter of a slot, the same wherever and whenever it is asked for."""
    digest = hashlib.sha256(f"{trigger} {format_moment(slot)}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)


class _Entry:
    """A trigger and where its time stands."""

    __slots__ = ("after", "due", "fired", "policy", "schedule", "trigger")

    def __init__(self, trigger: Trigger, schedule: Schedule, after: datetime, *, fired: bool) -> None:
        self.trigger, self.schedule, self.policy = trigger, schedule, policy_of(trigger)
        self.after = after
        """The latest slot that is dealt with; of a relative schedule that was not due yet, what it counts from."""
        self.fired = fired
        """Whether it was due since it was first seen."""
        self.due: datetime | None = None
        self.advance()

    def advance(self) -> None:
        """Find the slot that is due next."""
        done = self.fired and self.schedule.relative
        self.due = None if done else self.schedule.next_after(self.after)

    def judge(self, now: datetime, singles: int) -> list[Verdict]:
        """Verdicts on what is due."""
        if self.due is None or self.due > now:
            return []
        return judge(self.policy, self.schedule, self.due, now, singles=singles)


class Timetable:
    """The due times of many triggers. May be used from several threads.

    They are counted from the latest slot in the ledger, so that nothing is lost while nobody looks, and the
    ledger takes each slot but once, so that several timetables over one store do no harm. The same makes
    a clock that goes back harmless: what is in the ledger has been dealt with, what is not is due.
    """

    def __init__(self, schedule_of: Callable[[Trigger], Schedule | None], intake: SlotIntake) -> None:
        """`schedule_of` makes the schedule of a trigger; triggers without one are left out."""
        self._schedule_of, self._intake = schedule_of, intake
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._heap: list[tuple[datetime, int, _Entry]] = []
        self._numbers = count()
        self._seen: datetime | None = None
        self._replacing: dict[str, int] = {}

    def replace(self, triggers: Sequence[Trigger]) -> None:
        """From now on these are the triggers. Those that were there go on; those that the ledger does not
        know get their first entry there. Raises StoreError, and then nothing has changed here."""
        with self._lock:
            fresh = self._load([trigger for trigger in triggers if trigger.id not in self._entries])
            entries = {entry.trigger.id: entry for entry in fresh}
            for trigger in triggers:
                entry = self._entries.get(trigger.id)
                if entry is not None:
                    entry.trigger, entry.policy = trigger, policy_of(trigger)
                    entries[trigger.id] = entry
            self._entries = entries
            self._arrange()

    def next_due(self) -> datetime | None:
        """When `fire` has something to do; None: never."""
        with self._lock:
            return self._heap[0][0] if self._heap else None

    def fire(self, now: datetime) -> int:
        """Deal with every slot that is due at `now`; how many ledger entries that made.

        Raises StoreError; what was not recorded is due still, so call again a moment later.
        """
        with self._lock:
            self._look_at_clock(now)
            self._cancel_replaced(now)
            made: list[RecordedSlot] = []
            try:
                while due := self._pop(now):
                    self._fire(due, now, made)
            finally:
                self._tell_missed(made, now)
            return len(made)

    # Triggers

    def _load(self, triggers: Sequence[Trigger]) -> list[_Entry]:
        """Entries for triggers, from where the ledger has them."""
        now = self._intake.now()
        last = self._intake.store.last_slots([trigger.id for trigger in triggers])
        entries: list[_Entry] = []
        first_seen: list[_Entry] = []
        for trigger in triggers:
            schedule = self._schedule_of(trigger)
            if schedule is None:
                continue
            slot = last.get(trigger.id)
            if slot is None or (schedule.relative and slot == SINCE_EPOCH):
                first_seen.append(_Entry(trigger, schedule, now, fired=False))
                continue
            after = slot if schedule.relative else self._not_ahead(trigger.id, slot, now)
            entries.append(_Entry(trigger, schedule, after, fired=True))
            if entries[-1].policy.overlap is Overlap.REPLACE:
                entry = self._intake.store.slot(trigger.id, slot)
                if entry is not None and entry.run_id is not None:
                    self._replacing[trigger.id] = entry.run_id
        for chunk in _chunks(first_seen):
            self._begin(chunk, now)
        return entries + first_seen

    def _not_ahead(self, trigger: str, slot: datetime, now: datetime) -> datetime:
        """The latest slot in the ledger that is not later than now. `slot` is the latest of all: what a clock
        that was ahead has left must not silence a trigger until then."""
        if slot <= now:
            return slot
        past = self._intake.store.slots(trigger, before=now + _SMALLEST, limit=1)
        return past[0].slot if past else now

    def _begin(self, entries: Sequence[_Entry], now: datetime) -> None:
        """Record that triggers were first seen, and count relative ones from there."""
        recorded = self._intake.store.record_slots([self._first_slot(entry, now) for entry in entries], now=now)
        for entry, slot in zip(entries, recorded, strict=True):
            if entry.schedule.relative:
                entry.after = slot.recorded_at
                entry.advance()

    def _first_slot(self, entry: _Entry, now: datetime) -> SlotEntry:
        name = entry.trigger.id
        if entry.schedule.relative:
            return SlotEntry.skipped(name, SINCE_EPOCH, FIRST_SEEN)
        past = entry.schedule.next_after(SINCE_EPOCH) if entry.due is None else None
        if past is None:
            return SlotEntry.skipped(name, now, FIRST_SEEN)
        reason = f"it was past when first seen at {format_moment(now)}"
        self._intake.tell("warning", f"{name}: {format_moment(past)} will not run: {reason}", trigger=name)
        return SlotEntry.skipped(name, past, reason)

    def _arrange(self) -> None:
        """Order the entries by what is due."""
        self._heap = [(entry.due, next(self._numbers), entry) for entry in self._entries.values() if entry.due]
        heapq.heapify(self._heap)

    def _look_at_clock(self, now: datetime) -> None:
        """When the clock has gone back, count from there: what the ledger does not have is due again."""
        seen, self._seen = self._seen, now
        if seen is None or now >= seen - GRACE:
            return
        message = f"the clock went back by {format_duration(seen - now)}; no slot runs a second time"
        self._intake.tell("warning", message)
        for entry in self._entries.values():
            if not entry.schedule.relative and entry.after > now:
                entry.after = now
                entry.advance()
        self._arrange()

    # Slots

    def _pop(self, now: datetime) -> list[_Entry]:
        due = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
        return due

    def _fire(self, due: Sequence[_Entry], now: datetime, made: list[RecordedSlot]) -> None:
        try:
            late = [entry for entry in due if entry.due is not None and entry.due < now - GRACE]
            self._look_at_ledger(late, now)
            singles = max(1, min(SINGLE_ENTRIES, _MISSED_ENTRIES // max(len(late), 1)))
            judged = ((entry, verdict) for entry in due for verdict in entry.judge(now, singles))
            for chunk in _chunks(judged):
                made += self._record(chunk, now)
                self._cancel_replaced(now)
        finally:
            for entry in due:  # only now: computing what is next would hold up what is due
                entry.advance()
                if entry.due is not None:
                    heapq.heappush(self._heap, (entry.due, next(self._numbers), entry))

    def _look_at_ledger(self, entries: Sequence[_Entry], now: datetime) -> None:
        """Leave out what another daemon has dealt with meanwhile."""
        last = self._intake.store.last_slots([entry.trigger.id for entry in entries]) if entries else {}
        for entry in entries:
            slot = last.get(entry.trigger.id)
            if slot is not None and not entry.schedule.relative:
                entry.after = max(entry.after, self._not_ahead(entry.trigger.id, slot, now))
                entry.advance()

    def _record(self, chunk: Sequence[tuple[_Entry, Verdict]], now: datetime) -> list[RecordedSlot]:
        """Write slots and enqueue their runs, in one transaction; the entries that are new."""
        slots = [self._slot(entry, verdict, now) for entry, verdict in chunk]
        made = []
        recorded = self._intake.store.record_slots(slots, now=now)
        for (entry, verdict), result in zip(chunk, recorded, strict=True):
            entry.after, entry.fired = verdict.slot, True
            if result.is_new:
                made.append(result)
                if entry.policy.overlap is Overlap.REPLACE and result.run_id is not None:
                    self._replacing[result.trigger] = result.run_id
        return made

    def _slot(self, entry: _Entry, verdict: Verdict, now: datetime) -> SlotEntry:
        slot, outcome, reason = verdict
        trigger = entry.trigger
        if outcome is SlotOutcome.SKIPPED:
            return SlotEntry.skipped(trigger.id, slot, reason)
        try:
            run = self._intake.new_run(trigger)
        except StoreError:
            raise
        except RunnerError as error:
            self._intake.tell("error", f"{trigger.id} cannot run: {error}", trigger=trigger.id)
            return SlotEntry.skipped(trigger.id, slot, f"cannot run: {error}")
        make = SlotEntry.ran if outcome is SlotOutcome.RAN else SlotEntry.caught_up
        begin = slot if outcome is SlotOutcome.RAN else now
        return make(trigger.id, slot, _placed(run, entry.policy, trigger.id, slot, begin), reason)

    def _cancel_replaced(self, now: datetime) -> None:
        """Cancel the runs that newer ones replace. It comes after the newer one is in the ledger, and only
        who put it there does it: of several daemons one, and none for a slot that ran before."""
        if not self._replacing:
            return
        live = self._intake.store.live_runs(list(self._replacing))
        for trigger, newest in list(self._replacing.items()):
            for run_id in live.get(trigger, ()):
                if run_id < newest:
                    self._intake.store.cancel(run_id, f"replaced by run {newest} (overlap: replace)", now=now)
            del self._replacing[trigger]

    def _tell_missed(self, made: Sequence[RecordedSlot], now: datetime) -> None:
        missed = [slot for slot in made if now - slot.slot > GRACE and slot.reason != "disabled"]
        if missed:
            caught_up = sum(slot.outcome is SlotOutcome.CAUGHT_UP for slot in missed)
            message = f"slots were missed since {format_moment(min(slot.slot for slot in missed))}"
            self._intake.tell("warning", message, caught_up=caught_up, skipped=len(missed) - caught_up)


def _placed(run: NewRun, policy: Policy, trigger: str, slot: datetime, begin: datetime) -> NewRun:
    """The run as the policy has it: where it queues, what it must not overlap, when it may begin."""
    if policy.overlap is Overlap.SKIP:
        run = run._replace(unique_key=f"overlap: {trigger}")
    elif policy.overlap is not Overlap.ALLOW:
        run = run._replace(queue=trigger)
    return run._replace(run_at=begin + share(trigger, slot) * policy.jitter) if policy.jitter else run


T = TypeVar("T")


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk
