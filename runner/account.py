"""Why a run is what it is: what started it, what it waits for; and what became of the slots of triggers.

It looks into the store and changes nothing. What is found out here is told in words by the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from runner.errors import RunNotFound, UsageError
from runner.ledger import RecordedSlot, Run, RunFilter, Why
from runner.run_store import RunStore
from runner.runs import RunStatus
from runner.triggers import Schedule, Trigger


class Cause(str, Enum):
    """What started a run."""

    TRIGGER = "trigger"
    AFTER = "after"  # another run ended, or its guest asked for this one
    AGAIN = "again"  # the same work once more: rerun or redriven
    STEP = "step"  # the pipeline whose step it is
    REQUEST = "request"  # a person, a program, an API


class Obstacle(str, Enum):
    """What a pending run waits for."""

    MOMENT = "moment"  # the one for which it was enqueued
    RETRY = "retry"  # the delay before its next attempt
    SEAT = "seat"  # others of its `concurrency` to end
    LIMIT = "limit"  # as many of its queue are running as may
    QUEUE = "queue"  # others that are before it
    DAEMON = "daemon"  # nobody is there to take it
    WORKER = "worker"  # a daemon is there and has not come to it yet


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """One thing that a pending run waits for."""

    what: Obstacle
    until: datetime | None = None
    """When it ends by itself, if that is known."""
    count: int = 0
    """How many are before it, or how many of its queue may be running."""
    runs: tuple[int, ...] = ()
    """Those whose end it waits for, one of which is enough."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """Why a run is what it is."""

    why: Why
    cause: Cause
    parent: Run | None
    """The run that caused it, if there was one and it is still kept."""
    waits_for: tuple[Waiting, ...]
    """Empty unless it is pending."""
    owner_is_gone: bool
    """Whether it is running and its daemon is known to be dead: another will take it over."""


def account(
    store: RunStore,
    run_id: int,
    *,
    limits: Mapping[str, int],
    is_served: bool | None,
    is_dead: Callable[[str], bool],
    now: datetime,
) -> Account:
    """Why a run is what it is. `limits` are those of queues; `is_served` tells whether a daemon is there,
    None that nobody knows; `is_dead` whether an owner is known to be dead. Raises RunNotFound."""
    why = store.why(run_id, now=now)
    run = why.run
    parent = None if run.parent_id is None else _run(store, run.parent_id)
    limit, running = limits.get(run.queue), 0
    if limit is not None:
        busy = RunFilter(namespace=run.namespace, queue=run.queue, statuses=frozenset({RunStatus.RUNNING}))
        running = len(store.list_runs(busy, limit=limit))
    return Account(
        why=why,
        cause=cause_of(run, parent),
        parent=parent,
        waits_for=tuple(_waits(why, limit if limit == running else None, is_served, now)),
        owner_is_gone=run.status is RunStatus.RUNNING and run.owner is not None and is_dead(run.owner),
    )


def cause_of(run: Run, parent: Run | None) -> Cause:
    """What started a run whose parent is this one, if it is still kept."""
    if run.step is not None:
        return Cause.STEP
    if run.trigger is not None:
        return Cause.TRIGGER
    if run.parent_id is None:
        return Cause.REQUEST
    is_same = parent is None or (parent.job, parent.function) == (run.job, run.function)
    return Cause.AGAIN if is_same else Cause.AFTER


def _waits(why: Why, full_limit: int | None, is_served: bool | None, now: datetime) -> Iterable[Waiting]:
    run = why.run
    if run.status is not RunStatus.PENDING:
        return
    if why.seated:
        yield Waiting(what=Obstacle.SEAT, count=len(why.seated), runs=why.seated)
    elif run.run_at > now:
        yield Waiting(what=Obstacle.RETRY if run.attempts else Obstacle.MOMENT, until=run.run_at)
    if full_limit is not None:
        yield Waiting(what=Obstacle.LIMIT, count=full_limit)
    if why.ahead:
        yield Waiting(what=Obstacle.QUEUE, count=why.ahead)
    if is_served is False:
        yield Waiting(what=Obstacle.DAEMON)
    elif run.run_at <= now and full_limit is None and not why.ahead and not why.seated:
        yield Waiting(what=Obstacle.WORKER)


def _run(store: RunStore, run_id: int) -> Run | None:
    try:
        return store.get(run_id)
    except RunNotFound:
        return None


# Slots


@dataclass(frozen=True, kw_only=True, slots=True)
class SlotAccount:
    """What is known of one moment of one trigger."""

    trigger: str
    slot: datetime
    recorded: RecordedSlot | None
    """The ledger's entry; None without one."""
    is_due: bool | None
    """Whether the moment is a due time of the trigger. None: nobody knows, because jobs.yaml has no such
    trigger, or it is none of time."""
    remark: str
    """What is to be known about a due time; mostly empty."""
    before: datetime | None
    """The latest slot before it that is in the ledger."""
    after: datetime | None
    """The due time that follows, if that is known."""


def triggers_meant(name: str, triggers: Sequence[Trigger], namespace: str) -> list[str]:
    """The ids of the triggers that somebody means by `name`: an id, with or without the namespace, or the
    beginning of some up to a slash: a job, a job and a kind. One that jobs.yaml does not have is taken for
    an id if it looks like one: the trigger may have been there before. Raises UsageError."""
    full = name if name.startswith(f"{namespace}/") else f"{namespace}/{name}"
    found = [trigger.id for trigger in triggers if f"{trigger.id}/".startswith(f"{full}/")]
    if found or name.count("/") >= 2:
        return found or list(dict.fromkeys([full, name]))
    known = ", ".join(sorted({trigger.job for trigger in triggers})) or "none"
    raise UsageError(f"no trigger {name!r} in jobs.yaml; jobs with triggers: {known}")


def slot_account(
    store: RunStore, trigger: str, slot: datetime, *, schedule: Callable[[str], Schedule | None]
) -> SlotAccount:
    """What became of a moment of a trigger. `schedule` gives the due times of a trigger by its id."""
    times = schedule(trigger)
    if times is not None and times.relative:
        times = None  # it depends on when it was first seen
    before = store.slots(trigger, before=slot, limit=1)
    is_due = None if times is None else times.next_after(slot - timedelta(microseconds=1)) == slot
    return SlotAccount(
        trigger=trigger,
        slot=slot,
        recorded=store.slot(trigger, slot),
        is_due=is_due,
        remark=times.remark(slot) if times is not None and is_due else "",
        before=before[0].slot if before else None,
        after=None if times is None else times.next_after(slot),
    )
