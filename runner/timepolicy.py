"""What becomes of the due times of one time trigger: which run, which are made up for, which are skipped and why.

Pure decisions; `runner.timetable` carries them out, `runner simulate` shows them. A due time is *on time*
up to GRACE after it, and *missed* later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from itertools import islice
from typing import NamedTuple

from runner.ledger import SlotOutcome
from runner.triggers import Schedule
from runner.when import format_duration, format_moment

GRACE = timedelta(seconds=30)
"""How late a slot may be and still run as if nothing had happened: the daemon was busy, or restarted."""
SINGLE_ENTRIES = 1_000
"""How many missed slots of one trigger get ledger entries of their own; those before share one."""
_SECOND = timedelta(seconds=1)


class Catchup(str, Enum):
    """What becomes of slots that were missed."""

    NONE = "none"  # they are skipped
    LAST = "last"  # the newest runs, unless one that is on time does
    ALL = "all"  # every one runs, the oldest first


class Overlap(str, Enum):
    """What becomes of a slot while an earlier run of the same trigger has not ended."""

    SKIP = "skip"  # it is skipped
    QUEUE = "queue"  # it waits for its turn
    REPLACE = "replace"  # the earlier run is cancelled
    ALLOW = "allow"  # it runs beside it


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """The rules of one time trigger."""

    catchup: Catchup = Catchup.LAST
    window: timedelta = timedelta(days=1)
    """How late a slot may be to be caught up."""
    limit: int = 100
    """How many slots Catchup.ALL catches up at once; at most SINGLE_ENTRIES."""
    overlap: Overlap = Overlap.SKIP
    jitter: timedelta = timedelta(0)
    """Runs are spread over this time after their slot."""
    enabled: bool = True
    """False: due slots are recorded, and skipped."""


class Verdict(NamedTuple):
    """What is to become of a due slot."""

    slot: datetime
    outcome: SlotOutcome
    reason: str


def judge(
    policy: Policy, schedule: Schedule, due: datetime, now: datetime, *, singles: int = SINGLE_ENTRIES
) -> list[Verdict]:
    """Verdicts on the slots from `due` on, in order: on `due` alone if it is on time, or else on all that
    were missed. `due` is a slot, and not later than `now`.

    However long the time was and however many slots it had, no more than about `singles` verdicts come
    back, or twice `limit` where all are caught up: the first then stands for all older ones, and says so.
    """
    since = now - GRACE
    if due >= since:
        if policy.enabled:
            return [Verdict(due, SlotOutcome.RAN, schedule.remark(due))]
        return [Verdict(due, SlotOutcome.SKIPPED, "disabled")]
    most = max(singles, 2 * policy.limit if policy.catchup is Catchup.ALL else 1)
    missed = newest_slots(schedule, due, since, most)
    following = schedule.next_after(missed[-1])
    on_time = following if following is not None and following <= now else None
    chosen = _chosen(policy, missed, now, on_time)
    runs = on_time or max(chosen, default=None)

    def verdict(slot: datetime, more: str = "") -> Verdict:
        if slot in chosen:
            remark = schedule.remark(slot)
            return Verdict(slot, SlotOutcome.CAUGHT_UP, _late(slot, now) + (f"; {remark}" if remark else ""))
        return Verdict(slot, SlotOutcome.SKIPPED, _why_skipped(policy, slot, now, runs) + more)

    verdicts = [verdict(slot) for slot in missed]
    if missed[0] != due:
        verdicts.insert(0, verdict(due, f"; stands for all before {format_moment(missed[0])}, more than {most:,}"))
    return verdicts


def newest_slots(schedule: Schedule, due: datetime, until: datetime, most: int) -> list[datetime]:
    """The slots from `due` on and before `until`, in order: all of them if there are no more than `most`,
    or else between half of `most` and `most` of the newest. `due` is a slot before `until`.

    A schedule can only be walked forwards, so a late start is looked for by bisection.
    """
    found = list(islice(_walk(schedule, due, until), most + 1))
    if len(found) <= most:
        return found
    early, late = due - _SECOND, until  # too many slots lie behind the one, too few behind the other
    start = max(early, until - (found[-1] - found[0]) * 0.75)  # what is right if they are evenly spaced
    while True:
        found = list(islice(_walk(schedule, schedule.next_after(start), until), most + 1))
        if len(found) > most:
            early = start
        elif len(found) * 2 >= most:
            return found
        else:
            late = start
        if late - early <= _SECOND:
            return found[:most] or [due]
        start = early + (late - early) / 2


def _walk(schedule: Schedule, slot: datetime | None, until: datetime) -> Iterator[datetime]:
    while slot is not None and slot < until:
        yield slot
        slot = schedule.next_after(slot)


def _chosen(policy: Policy, missed: list[datetime], now: datetime, on_time: datetime | None) -> set[datetime]:
    """The slots to catch up."""
    if not policy.enabled or policy.catchup is Catchup.NONE:
        return set()
    candidates = missed[-policy.limit :] if policy.catchup is Catchup.ALL else missed[-1:]
    if policy.catchup is Catchup.LAST and on_time is not None:
        return set()
    return {slot for slot in candidates if slot >= now - policy.window}


def _why_skipped(policy: Policy, slot: datetime, now: datetime, runs: datetime | None) -> str:
    """`runs` is the newest slot that runs."""
    if not policy.enabled:
        return "disabled"
    late = _late(slot, now)
    if policy.catchup is Catchup.NONE:
        return f"{late}; catchup is none"
    if slot < now - policy.window:
        return f"{late}; outside the catch-up window of {format_duration(policy.window)}"
    if policy.catchup is Catchup.ALL or runs is None:
        return f"{late}; more than {policy.limit} were missed, and the newest are caught up"
    return f"{late}; catchup is last, and the slot of {format_moment(runs)} runs"


def _late(slot: datetime, now: datetime) -> str:
    return f"missed by {format_duration(now - slot)}"
