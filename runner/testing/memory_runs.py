"""The in-memory run store, for tests that need one and no file. It keeps the whole contract but the
last word: what it holds is gone with the object. It is also what a store is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from runner.errors import RunConflict, RunNotFound, UsageError
from runner.ledger import (
    Attempt,
    DeadLetter,
    Depth,
    LogPage,
    RecordedSlot,
    Retention,
    Run,
    RunFilter,
    RunLog,
    SlotEntry,
    SlotOutcome,
    TopicMessage,
    Why,
)
from runner.models import TriggerType
from runner.run_store import Changes
from runner.runs import LIVE, Enqueued, Follower, NewRun, OnConflict, RunStatus, StepEnded
from runner.testing import memory_steps
from runner.testing.memory_road import MemoryRoad
from runner.testing.memory_steps import check
from runner.testing.memory_views import Kept, PipeChanges, passes


class MemoryRunStore(MemoryRoad):
    """A RunStore in dictionaries, behind one lock."""

    def __init__(self) -> None:
        super().__init__()
        self._slots: dict[tuple[str, datetime], RecordedSlot] = {}

    def owners(self) -> list[str]:
        """See RunStore.owners."""
        with self._lock:
            return sorted({kept.owner or "" for kept in self._running()})

    def next_due(self, namespace: str) -> datetime | None:
        """See RunStore.next_due."""
        with self._lock:
            moments = [kept.lease_until for kept in self._running() if kept.lease_until is not None]
            moments += [k.run_at for k in self._live() if k.is_delayed and k.new.namespace == namespace]
            return min(moments, default=None)

    def changes(self, *, besides: str = "") -> Changes:  # noqa: ARG002 - everybody is told everything
        """See RunStore.changes."""
        with self._lock:
            self._waiters.append(PipeChanges(self._waiters.remove))
            return self._waiters[-1]

    def follow(self, followers: Sequence[Follower]) -> None:
        """See RunStore.follow."""
        for follower in followers:
            check(follower.run)
        self._followers = tuple(followers)

    # Runs that wait for others

    def plan(self, run_id: int) -> bytes:
        """See RunStore.plan."""
        with self._lock:
            return self._get(run_id).new.plan

    def state(self, run_id: int) -> bytes:
        """See RunStore.state."""
        with self._lock:
            return self._get(run_id).state

    def steps_ended(self, run_id: int, *, after: int = 0, limit: int = 1000) -> list[StepEnded]:
        """See RunStore.steps_ended."""
        with self._lock:
            return memory_steps.ended(self._runs[run_id], after, limit) if run_id in self._runs else []

    def step_outputs(
        self, run_ids: Sequence[int], step: str, *, after: int = -1, limit: int = 1000
    ) -> list[tuple[int, bytes]]:
        """See RunStore.step_outputs."""
        with self._lock:
            return memory_steps.outputs(self._runs, run_ids, step, after, limit)

    def step_items(self, run_ids: Sequence[int], step: str, *, after: int = -1, limit: int = 1000) -> list[int]:
        """See RunStore.step_items."""
        with self._lock:
            return memory_steps.items(self._runs, run_ids, step, after, limit)

    # What people ask for

    def cancel(self, run_id: int, reason: str, *, now: datetime) -> RunStatus:
        """See RunStore.cancel."""
        with self._change():
            kept = self._get(run_id)
            if kept.status in LIVE:
                self._ask(kept, reason, now)
                self._settle(now)
            return kept.status

    def rerun(self, run_id: int, *, now: datetime) -> Enqueued:
        """See RunStore.rerun."""
        with self._change():
            kept = self._get(run_id)
            if kept.finished_at is None:
                raise UsageError(f"run {run_id} has not ended yet; cancel it first, or wait")
            made = self._again(kept, now)
            if not made.created:
                raise RunConflict(str(kept.new.unique_key), made.run_id)
            return made

    def _again(self, kept: Kept, now: datetime) -> Enqueued:
        copy = kept.new._replace(
            trigger_type=TriggerType.JOB, trigger=None, slot=None, parent_id=kept.run_id, step=None, item=None
        )
        return self._accept(copy._replace(run_at=None), now)

    def _get(self, run_id: int) -> Kept:
        try:
            return self._runs[run_id]
        except KeyError:
            raise RunNotFound(run_id) from None

    def get(self, run_id: int) -> Run:
        """See RunStore.get."""
        with self._lock:
            return self._get(run_id).show()

    def payload(self, run_id: int) -> bytes:
        """See RunStore.payload."""
        with self._lock:
            return self._get(run_id).new.payload

    def result(self, run_id: int) -> bytes | None:
        """See RunStore.result."""
        with self._lock:
            return self._get(run_id).output

    def list_runs(self, filter: RunFilter, *, before: int | None = None, limit: int = 100) -> list[Run]:
        """See RunStore.list_runs."""
        with self._lock:
            found = [kept.show() for kept in reversed(self._runs.values()) if passes(kept, filter)]
        return [run for run in found if before is None or run.run_id < before][: max(limit, 0)]

    def attempts(self, run_id: int) -> list[Attempt]:
        """See RunStore.attempts."""
        with self._lock:
            return self._get(run_id).show_attempts()

    def recording(self, run_id: int, attempt: int) -> bytes | None:
        """See RunStore.recording."""
        with self._lock:
            return self._get(run_id).recordings.get(attempt, (None,))[0]

    def logs(self, run_id: int, *, after: tuple[int, int] = (0, 0), limit: int = 1000) -> list[RunLog]:
        """See RunStore.logs."""
        with self._lock:
            lines = [line for line in self._get(run_id).logs.values() if (line.attempt, line.number) > after]
        return lines[: max(limit, 0)]

    def tail(self, filter: RunFilter, *, after: int | None = None, limit: int = 1000) -> LogPage:
        """See RunStore.tail."""
        limit = max(limit, 0)
        with self._lock:
            of_all = sorted(place for kept in self._runs.values() for place in kept.logs)
            lines = {place: line for k in self._runs.values() if passes(k, filter) for place, line in k.logs.items()}
        found = [place for place in sorted(lines) if place > (after or 0)]
        chosen = found[len(found) - limit if limit < len(found) else 0 :] if after is None else found[:limit]
        if after is None or len(chosen) < limit:
            return LogPage([lines[place] for place in chosen], max([after or 0, *of_all[-1:]]))
        return LogPage([lines[place] for place in chosen], chosen[-1] if chosen else after)

    def why(self, run_id: int, *, now: datetime) -> Why:
        """See RunStore.why."""
        with self._lock:
            kept = self._get(run_id)
            entry = self._slots.get((kept.new.trigger or "", kept.new.slot or now))
            is_due = kept.status is RunStatus.PENDING and kept.run_at <= now and not kept.waits
            others = (k for k in self._live() if k.status is RunStatus.PENDING and k.run_at <= now and not k.waits)
            place = (kept.new.namespace, kept.new.queue)
            return Why(
                run=kept.show(),
                attempts=tuple(kept.show_attempts()),
                slot=entry if entry is not None and entry.run_id == run_id else None,
                dead_letter=self._letters[run_id].show_letter() if run_id in self._letters else None,
                children=tuple(
                    k.run_id for k in self._runs.values() if k.new.parent_id == run_id and k.new.step is None
                ),
                ahead=sum(is_due and (k.new.namespace, k.new.queue) == place and k.order < kept.order for k in others),
                seated=memory_steps.seated(self._runs, kept),
            )

    def reuse_facts(self, run_ids: Sequence[int]) -> dict[int, str]:
        """See RunStore.reuse_facts."""
        with self._lock:
            found = {run_id: self._runs[run_id].reuse for run_id in run_ids if run_id in self._runs}
        return {run_id: facts for run_id, facts in found.items() if facts}

    def depth(self, namespace: str | None = None, *, queues: frozenset[str] | None = None, now: datetime) -> Depth:
        """See RunStore.depth."""

        def is_wanted(new: NewRun) -> bool:
            return namespace in (None, new.namespace) and (queues is None or new.queue in queues)

        with self._lock:
            ours = [kept for kept in self._live() if is_wanted(kept.new)]
            letters = [kept for kept in self._letters.values() if is_wanted(kept.new)]
        pending = [k for k in ours if k.status is RunStatus.PENDING and not (k.waits and k.begun_at)]
        ready = [kept.run_at for kept in pending if kept.run_at <= now and not kept.waits]
        return Depth(
            ready=len(ready),
            waiting=len(pending) - len(ready),
            running=len(ours) - len(pending),
            dead_letters=len(letters),
            oldest_ready_at=min(ready, default=None),
        )

    def counters(self) -> Mapping[str, int]:
        """See RunStore.counters."""
        with self._lock:
            return dict(self._counters)

    # Dead letters and topics

    def dead_letters(
        self, *, namespace: str | None = None, job: str | None = None, before: int | None = None, limit: int = 100
    ) -> list[DeadLetter]:
        """See RunStore.dead_letters."""
        with self._lock:
            found = self._chosen(None, namespace, job)[::-1]
            return [k.show_letter() for k in found if before is None or k.run_id < before][: max(limit, 0)]

    def _chosen(self, ids: Sequence[int] | None, namespace: str | None, job: str | None) -> list[Kept]:
        return [
            kept
            for run_id, kept in sorted(self._letters.items())
            if (ids is None or run_id in ids)
            and namespace in (None, kept.new.namespace)
            and job in (None, kept.new.job)
        ]

    def redrive(
        self,
        ids: Sequence[int] | None = None,
        *,
        namespace: str | None = None,
        job: str | None = None,
        limit: int = 1000,
        now: datetime,
    ) -> list[Enqueued]:
        """See RunStore.redrive."""
        made: list[Enqueued] = []
        with self._change():
            for kept in self._chosen(ids, namespace, job):
                if self._holder(kept.new) is None and len(made) < limit:
                    made.append(self._again(kept, now))
                    del self._letters[kept.run_id]
        return made

    def drop(
        self,
        ids: Sequence[int] | None = None,
        *,
        namespace: str | None = None,
        job: str | None = None,
        limit: int = 1000,
    ) -> int:
        """See RunStore.drop."""
        with self._change():
            chosen = self._chosen(ids, namespace, job)[: max(limit, 0)]
            for kept in chosen:
                del self._letters[kept.run_id]
            return len(chosen)

    def publish(self, topic: str, payloads: Sequence[bytes], *, now: datetime) -> None:
        """See RunStore.publish."""
        with self._change():
            for payload in payloads:
                self._tell(topic, payload, now)

    def read_topic(self, topic: str, *, after: int = 0, limit: int = 100) -> list[TopicMessage]:
        """See RunStore.read_topic."""
        with self._lock:
            found = [m for m in self._messages if m.topic == topic and m.number > after]
        return found[: max(limit, 0)]

    # The ledger of slots

    def record_slots(self, entries: Sequence[SlotEntry], *, now: datetime) -> list[RecordedSlot]:
        """See RunStore.record_slots."""
        with self._change():
            for entry in entries:
                if entry.run is not None:
                    check(entry.run)
            return [self._record(entry, now) for entry in entries]

    def _record(self, entry: SlotEntry, now: datetime) -> RecordedSlot:
        known = self._slots.get((entry.trigger, entry.slot))
        if known is not None:
            return known._replace(is_new=False)
        run_id, outcome, reason = None, entry.outcome, entry.reason
        if entry.run is not None:
            run_id, created = self._accept(entry.run, now)
            if not created and entry.run.on_conflict is OnConflict.REFUSE:
                reason = f"run {run_id} is live and has the unique key {entry.run.unique_key!r}"
                run_id, outcome = None, SlotOutcome.SKIPPED
        made = RecordedSlot(entry.trigger, entry.slot, outcome, reason, run_id, now)
        self._slots[entry.trigger, entry.slot] = made
        return made

    def last_slots(self, triggers: Sequence[str]) -> dict[str, datetime]:
        """See RunStore.last_slots."""
        with self._lock:
            return {trigger: max(found) for trigger in triggers if (found := self._of(trigger))}

    def _of(self, trigger: str) -> list[datetime]:
        return [slot for owner, slot in self._slots if owner == trigger]

    def slot(self, trigger: str, slot: datetime) -> RecordedSlot | None:
        """See RunStore.slot."""
        with self._lock:
            return self._slots.get((trigger, slot))

    def slots(self, trigger: str, *, before: datetime | None = None, limit: int = 100) -> list[RecordedSlot]:
        """See RunStore.slots."""
        with self._lock:
            found = sorted((s for s in self._of(trigger) if before is None or s < before), reverse=True)
            return [self._slots[trigger, slot] for slot in found[: max(limit, 0)]]

    def live_runs(self, triggers: Sequence[str]) -> dict[str, list[int]]:
        """See RunStore.live_runs."""
        found: dict[str, list[int]] = {}
        with self._lock:
            for kept in self._live():
                if kept.new.trigger is not None and kept.new.trigger in triggers:
                    found.setdefault(kept.new.trigger, []).append(kept.run_id)
        return found

    # Care

    def prune(self, retention: Retention, *, now: datetime, limit: int = 500) -> bool:  # noqa: ARG002
        """See RunStore.prune."""
        runs = now - timedelta(days=retention.runs_days)
        failed = now - timedelta(days=retention.failed_days)
        logs = now - timedelta(days=retention.logs_days)
        logged = logs.timestamp()
        with self._change():
            for kept in list(self._runs.values()):
                oldest = failed if kept.status in (RunStatus.FAILED, RunStatus.DEAD) else runs
                kept.logs = {place: line for place, line in kept.logs.items() if line.entry.timestamp >= logged}
                kept.recordings = {
                    number: (data, made) for number, (data, made) in kept.recordings.items() if made >= logs
                }
                if kept.finished_at is not None and kept.finished_at < oldest and kept.run_id != self._newest:
                    del self._runs[kept.run_id]
                    self._letters.pop(kept.run_id, None)
            for (trigger, slot), entry in list(self._slots.items()):
                if entry.recorded_at < runs and slot != max(self._of(trigger)):
                    del self._slots[trigger, slot]
            self._messages = [message for message in self._messages if message.created_at >= runs]
        return False

    def close(self) -> None:
        """See RunStore.close."""
