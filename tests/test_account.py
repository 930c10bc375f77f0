"""Why a run is what it is, and what became of a slot."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from runner.account import Account, Cause, account, slot_account, triggers_meant
from runner.errors import RunNotFound, UsageError
from runner.ledger import SlotEntry
from runner.run_store import RunStore
from runner.runs import Claim, Claimant, Failed, Failure, Follower, NewRun, Retry, RunStatus
from runner.testing import MemoryRunStore
from runner.testing.runs_bench import START, at
from runner.triggers import Schedule, Trigger


@pytest.fixture
def store() -> RunStore:
    return MemoryRunStore()


def put(store: RunStore, **facts: Any) -> int:
    return store.enqueue([NewRun(**{"namespace": "shop", "job": "clean", **facts})], now=START)[0].run_id


def told(store: RunStore, run_id: int, *, is_served: bool | None = True, seconds: float = 0, **limits: int) -> Account:
    return account(store, run_id, limits=limits, is_served=is_served, is_dead="dead".__eq__, now=at(seconds))


def waits(found: Account) -> list[tuple[str, datetime | None, int]]:
    return [(one.what.value, one.until, one.count) for one in found.waits_for]


def claim(store: RunStore, owner: str = "one") -> Claim:
    (claimed,) = store.claim(Claimant(owner=owner, namespace="shop"), 1, now=START)
    return claimed


# What it waits for


def test_a_run_waits_for_its_moment(store: RunStore) -> None:
    run_id = put(store, run_at=at(60))
    assert waits(told(store, run_id)) == [("moment", at(60), 0)]
    assert waits(told(store, run_id, seconds=60)) == [("worker", None, 0)]
    assert waits(told(store, run_id, is_served=False)) == [("moment", at(60), 0), ("daemon", None, 0)]


def test_a_run_waits_for_its_next_attempt(store: RunStore) -> None:
    run_id = put(store)
    store.finish([Retry(*claim(store)[:2], at(5), Failure("Trapped", ""))], now=START)
    assert waits(told(store, run_id)) == [("retry", at(5), 0)]


def test_a_run_waits_for_others_of_its_queue(store: RunStore) -> None:
    put(store, priority=1)
    put(store, queue="slow")
    put(store)
    last = put(store)
    assert waits(told(store, last)) == [("queue", None, 2)]
    assert waits(told(store, last, is_served=None)) == [("queue", None, 2)]


def test_a_run_waits_for_room_in_its_queue(store: RunStore) -> None:
    put(store)
    put(store)
    run_id = put(store)
    assert waits(told(store, run_id, default=1)) == [("queue", None, 2)]
    claim(store)
    assert waits(told(store, run_id, default=1)) == [("limit", None, 1), ("queue", None, 1)]
    claim(store)
    assert waits(told(store, run_id, default=3)) == [("worker", None, 0)]


def test_what_runs_or_has_ended_waits_for_nothing(store: RunStore) -> None:
    run_id = put(store)
    claimed = claim(store)
    assert waits(told(store, run_id, is_served=False)) == []
    store.finish([Failed(*claimed[:2], Failure("Trapped", ""))], now=START)
    assert waits(told(store, run_id, is_served=False)) == []


@pytest.mark.parametrize(("owner", "is_gone"), [("one", False), ("dead", True)])
def test_whether_its_daemon_is_gone(store: RunStore, owner: str, is_gone: bool) -> None:
    run_id = put(store)
    assert not told(store, run_id).owner_is_gone
    claimed = claim(store, owner)
    assert told(store, run_id).owner_is_gone is is_gone
    store.finish([Failed(*claimed[:2], Failure("Trapped", ""))], now=START)
    assert not told(store, run_id).owner_is_gone


# What started it


def test_what_started_it(store: RunStore) -> None:
    store.follow([Follower("clean", frozenset({RunStatus.CANCELLED}), NewRun("shop", "after"))])
    asked = put(store)
    assert (told(store, asked).cause, told(store, asked).parent) == (Cause.REQUEST, None)
    store.cancel(asked, "", now=START)
    again = store.rerun(asked, now=START).run_id
    assert (told(store, again).cause, told(store, again).parent) == (Cause.AGAIN, store.get(asked))
    follower = told(store, told(store, asked).why.children[0])
    assert (follower.cause, follower.parent) == (Cause.AFTER, store.get(asked))
    entry = SlotEntry.ran("shop/nightly/cron/x", at(-1), NewRun("shop", "nightly"))
    (recorded,) = store.record_slots([entry], now=START)
    assert recorded.run_id is not None
    assert told(store, recorded.run_id).cause is Cause.TRIGGER


def test_a_parent_that_is_gone(store: RunStore) -> None:
    run_id = put(store, parent_id=99)
    assert (told(store, run_id).cause, told(store, run_id).parent) == (Cause.AGAIN, None)


def test_a_run_that_is_not_there(store: RunStore) -> None:
    with pytest.raises(RunNotFound):
        told(store, 7)


# Slots


class Hourly(Schedule):
    def next_after(self, moment: datetime) -> datetime | None:
        return moment.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)

    def remark(self, slot: datetime) -> str:
        return f"the clocks change at {slot:%H:%M}"


class Once(Hourly):
    relative = True


HOUR = START.replace(minute=0, second=0, microsecond=0)


def test_a_recorded_slot(store: RunStore) -> None:
    (entry,) = store.record_slots([SlotEntry.skipped("t", HOUR, "too late")], now=START)
    found = slot_account(store, "t", HOUR, schedule=lambda _: Hourly())
    assert (found.recorded, found.is_due, found.remark) == (entry, True, "the clocks change at 09:00")
    assert slot_account(store, "t", HOUR, schedule=lambda _: None).recorded == entry


def test_a_moment_that_is_not_in_the_ledger(store: RunStore) -> None:
    store.record_slots([SlotEntry.skipped("t", HOUR, "")], now=START)
    due = slot_account(store, "t", HOUR + timedelta(hours=2), schedule=lambda _: Hourly())
    assert (due.recorded, due.is_due, due.before, due.after) == (None, True, HOUR, HOUR + timedelta(hours=3))
    other = slot_account(store, "t", HOUR + timedelta(minutes=5), schedule=lambda _: Hourly())
    assert (other.is_due, other.remark, other.after) == (False, "", HOUR + timedelta(hours=1))
    for schedule in (None, Once()):
        unknown = slot_account(store, "t", HOUR + timedelta(hours=1), schedule=lambda _, it=schedule: it)  # type: ignore[misc]
        assert (unknown.is_due, unknown.after, unknown.before) == (None, None, HOUR)


TRIGGERS = [
    Trigger(id=f"shop/{job}/{kind}/{key}".rstrip("/"), job=job, kind=kind, settings=None, line=1)
    for job, kind, key in [
        ("nightly", "cron", "15 2 * * * Europe/Athens"),
        ("nightly", "cron", "@daily"),
        ("nightly", "job", ""),
        ("night", "cron", "@daily"),
    ]
]
IDS = [trigger.id for trigger in TRIGGERS]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("nightly", IDS[:3]),
        ("night", IDS[3:]),
        ("nightly/cron", IDS[:2]),
        ("nightly/job", IDS[2:3]),
        ("nightly/cron/@daily", IDS[1:2]),
        (IDS[0], IDS[:1]),
        ("shop/nightly", IDS[:3]),
        ("gone/cron/@daily", ["shop/gone/cron/@daily", "gone/cron/@daily"]),
        ("shop/gone/cron/@daily", ["shop/gone/cron/@daily"]),
    ],
)
def test_which_triggers_are_meant(name: str, found: list[str]) -> None:
    assert triggers_meant(name, TRIGGERS, "shop") == found


@pytest.mark.parametrize("name", ["", "nigh", "nightly/timer"])
def test_no_trigger_is_meant(name: str) -> None:
    with pytest.raises(UsageError, match="jobs with triggers: night, nightly"):
        triggers_meant(name, TRIGGERS, "shop")
