"""The timetable: ledger, catch-up, clocks that are wrong, several daemons; over a real SQLite store."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runner_apscheduler.settings import CronSettings, IntervalSettings, TimerSettings
from runner_sqlite.runs import SqliteRunStore

from runner.errors import StoreLocked
from runner.ledger import RunFilter, SlotOutcome
from runner.run_store import RunStore
from runner.runs import Claimant
from runner.testing import MemoryRunStore
from runner.timepolicy import GRACE, SINGLE_ENTRIES, newest_slots
from runner.timetable import FIRST_SEEN, SINCE_EPOCH, own_queues, share
from runner.triggers import Schedule, Trigger
from runner.when import parse_moment
from tests.support import eventually
from tests.timetables import NINE, Desk, at, days, hourly, schedule_of, trigger

SECOND = timedelta(seconds=1)
CATCHUPS: tuple[Literal["none", "last", "all"], ...] = ("none", "last", "all")
HOUR = timedelta(hours=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    store = SqliteRunStore.open(tmp_path / "runner.db", busy_timeout_seconds=0.05)
    yield store
    store.close()


@pytest.fixture
def desk(store: RunStore) -> Desk:
    return Desk(store, at("08:30"))


# On time


def test_every_slot_runs_once_and_is_in_the_ledger(desk: Desk) -> None:
    each = hourly(overlap="allow")
    timetable = desk.timetable(each)
    desk.go(timetable, at("11:59"))
    assert desk.outcomes(each) == [("01 09:00", "ran"), ("01 10:00", "ran"), ("01 11:00", "ran")]
    runs = desk.store.list_runs(RunFilter())[::-1]
    assert [run.slot for run in runs] == [at("09:00"), at("10:00"), at("11:00")]
    assert {(run.trigger, run.queue, run.unique_key) for run in runs} == {(each.id, "default", None)}
    assert timetable.next_due() == at("12:00")


def test_due_times_count_from_when_a_trigger_was_first_seen(desk: Desk) -> None:
    each = hourly()
    desk.timetable(each)
    (first,) = desk.store.slots(each.id)
    assert (first.slot, first.outcome, first.reason) == (at("08:30"), SlotOutcome.SKIPPED, FIRST_SEEN)
    assert desk.outcomes(each) == []


def test_downtime_right_after_the_first_sight_is_noticed(desk: Desk) -> None:
    each = hourly()
    desk.timetable(each)
    desk.moment = at("10:10")
    desk.timetable(each)
    assert desk.outcomes(each) == [("01 09:00", "skipped"), ("01 10:00", "caught_up")]


def test_a_restart_goes_on_where_the_ledger_ends(desk: Desk) -> None:
    each = hourly(overlap="allow")
    desk.go(desk.timetable(each), at("10:30"))
    again = desk.timetable(each)
    assert again.next_due() == at("11:00")
    desk.go(again, at("11:30"))
    assert [outcome for _, outcome in desk.outcomes(each)] == ["ran"] * 3


def test_a_slot_that_is_a_little_late_has_run(desk: Desk) -> None:
    each = hourly(catchup="none")
    timetable = desk.timetable(each)
    desk.sleep(timetable, at("09:00") + GRACE)
    assert desk.outcomes(each) == [("01 09:00", "ran")]
    desk.finish()
    desk.sleep(timetable, at("10:00") + GRACE + SECOND)
    assert desk.outcomes(each)[1:] == [("01 10:00", "skipped")]
    assert desk.ledger(each)[-1].reason == "missed by 31s; catchup is none"


def test_many_slots_of_a_moment_that_was_busy_all_run(desk: Desk) -> None:
    each = trigger(IntervalSettings(every="1s", overlap="allow"))
    timetable = desk.timetable(each)
    desk.sleep(timetable, at("08:30") + timedelta(seconds=20))
    assert [entry.outcome for entry in desk.ledger(each)] == [SlotOutcome.RAN] * 20


def test_a_job_that_cannot_run_holds_up_no_other(desk: Desk) -> None:
    bad, good = hourly("bad"), hourly("good")
    desk.broken.add("bad")
    desk.go(desk.timetable(bad, good), at("09:30"))
    assert desk.outcomes(good) == [("01 09:00", "ran")]
    (entry,) = desk.ledger(bad)
    assert (entry.outcome, entry.reason) == (SlotOutcome.SKIPPED, "cannot run: bad has no module")
    assert ("error", f"{bad.id} cannot run: bad has no module") in desk.told


def test_what_is_disabled_is_in_the_ledger_too(desk: Desk) -> None:
    each = hourly(enabled=False)
    timetable = desk.timetable(each)
    desk.go(timetable, at("10:30"))
    desk.sleep(timetable, at("12:30"))
    assert {(entry.outcome.value, entry.reason) for entry in desk.ledger(each)} == {("skipped", "disabled")}
    assert len(desk.ledger(each)) == 4
    timetable.replace([hourly()])
    desk.go(timetable, at("13:30"))
    assert desk.outcomes(each)[-1] == ("01 13:00", "ran")
    assert desk.told == []


# Catch-up


@pytest.mark.parametrize(
    ("rules", "caught_up", "reasons"),
    [
        ({"catchup": "none"}, [], {"catchup is none": 4}),
        ({}, ["12:00"], {"catchup is last, and the slot of 2027-03-01T12:00:00Z runs": 3}),
        ({"catchup_window": "30m"}, ["12:00"], {"outside the catch-up window of 30m": 3}),
        ({"catchup_window": "1m"}, [], {"outside the catch-up window of 1m": 4}),
        ({"catchup": "all"}, ["09:00", "10:00", "11:00", "12:00"], {}),
        (
            {"catchup": "all", "catchup_window": "2h30m"},
            ["10:00", "11:00", "12:00"],
            {"outside the catch-up window of 2h30m": 1},
        ),
        (
            {"catchup": "all", "catchup_limit": 2},
            ["11:00", "12:00"],
            {"more than 2 were missed, and the newest are caught up": 2},
        ),
        ({"catchup": "all", "overlap": "skip"}, ["09:00"], {"has the unique key 'overlap: shop/clean": 3}),
    ],
)
def test_what_is_missed_is_caught_up(
    desk: Desk, rules: dict[str, Any], caught_up: list[str], reasons: dict[str, int]
) -> None:
    each = hourly(**rules)
    timetable = desk.timetable(each)
    desk.sleep(timetable, at("12:10"))
    entries = desk.ledger(each)
    assert len(entries) == 4
    assert [f"{e.slot:%H:%M}" for e in entries if e.outcome is SlotOutcome.CAUGHT_UP] == caught_up
    assert [slot for slot, _ in desk.runs()] == [f"01 {slot}" for slot in caught_up]
    for text, count in reasons.items():
        assert sum(text in entry.reason for entry in entries) == count
    assert all(entry.reason for entry in entries)
    desk.go(timetable, at("13:00"))
    assert desk.ledger(each)[-1].slot == at("13:00")


def test_the_last_is_not_caught_up_beside_one_that_is_on_time(desk: Desk) -> None:
    each = hourly()
    timetable = desk.timetable(each)
    desk.sleep(timetable, at("11:00") + SECOND)
    assert desk.outcomes(each) == [("01 09:00", "skipped"), ("01 10:00", "skipped"), ("01 11:00", "ran")]
    assert desk.ledger(each)[0].reason == ("missed by 2h1s; catchup is last, and the slot of 2027-03-01T11:00:00Z runs")


def test_people_are_told_once_of_what_was_missed(desk: Desk) -> None:
    triggers = [hourly(f"job{number}") for number in range(3)]
    timetable = desk.timetable(*triggers)
    desk.sleep(timetable, at("11:30"))
    assert desk.told == [("warning", "slots were missed since 2027-03-01T09:00:00Z")]


def test_downtime_of_two_days_with_caps(desk: Desk) -> None:
    each = trigger(IntervalSettings(every="10m", catchup="all", catchup_window="12h", catchup_limit=50))
    timetable = desk.timetable(each)
    desk.sleep(timetable, at("08:30:40", day=3))
    outcomes = [entry.outcome for entry in desk.ledger(each)]
    assert outcomes.count(SlotOutcome.CAUGHT_UP) == 50
    assert len(outcomes) == 2 * 24 * 6
    assert [slot for slot, _ in desk.runs()][::49] == ["03 00:20", "03 08:30"]


def test_downtime_across_a_change_of_the_clocks(store: RunStore) -> None:
    each = trigger(CronSettings(schedule="30 3 * * *", timezone="Europe/Athens", catchup="all", catchup_window="7d"))
    quick = trigger(CronSettings(schedule="0 */2 * * *", timezone="Europe/Athens", catchup="none"))
    desk = Desk(store, datetime.fromisoformat("2027-03-26T12:00:00+00:00"))
    timetable = desk.timetable(each, quick)
    desk.sleep(timetable, datetime.fromisoformat("2027-03-29T12:00:40+00:00"))
    due = [(f"{entry.slot:%d %H:%M}", entry.outcome.value, entry.reason) for entry in desk.ledger(each)]
    assert due == [
        ("27 01:30", "caught_up", "missed by 2d10h30m40s"),
        (
            "28 01:00",
            "caught_up",
            "missed by 1d11h40s; the clocks go forward: there is no 03:30 on this day in Europe/Athens",
        ),
        ("29 00:30", "caught_up", "missed by 11h30m40s"),
    ]
    assert len(desk.ledger(quick)) == 36  # 71 hours have 36 even ones, of which the clocks skip none


def test_downtime_across_an_hour_that_comes_twice(store: RunStore) -> None:
    daily = trigger(CronSettings(schedule="30 3 * * *", timezone="Europe/Athens", catchup="all", catchup_window="7d"))
    each = trigger(CronSettings(schedule="30 * * * *", timezone="Europe/Athens", catchup="all", catchup_window="7d"))
    desk = Desk(store, datetime.fromisoformat("2027-10-30T23:45:00+00:00"))
    timetable = desk.timetable(daily, each)
    desk.sleep(timetable, datetime.fromisoformat("2027-10-31T02:15:00+00:00"))
    assert desk.outcomes(daily) == [("31 00:30", "caught_up")]
    assert desk.outcomes(each) == [("31 00:30", "caught_up"), ("31 01:30", "caught_up")]


# Bounds


def test_a_year_of_seconds_is_summed_up(desk: Desk) -> None:
    each = trigger(IntervalSettings(every="1s"))
    timetable = desk.timetable(each)
    desk.sleep(timetable, at("08:30") + days(365))
    entries = desk.ledger(each)
    assert len(entries) <= SINGLE_ENTRIES + 40
    assert "stands for all before 2028-02-29T08:" in entries[0].reason
    assert entries[0].reason.endswith("more than 1,000")
    assert entries[0].slot == at("08:30:01")
    assert [entry.outcome.value for entry in entries if entry.run_id is not None] == ["ran"]
    assert timetable.next_due() == at("08:30:01") + days(365)


def test_all_that_are_caught_up_are_found_behind_a_year_of_seconds(desk: Desk) -> None:
    each = trigger(IntervalSettings(every="1s", catchup="all", catchup_limit=1000))
    desk.sleep(desk.timetable(each), at("08:30") + days(365))
    entries = [entry for entry in desk.ledger(each) if entry.outcome is SlotOutcome.CAUGHT_UP]
    assert [entry.slot for entry in entries] == [at("08:29:29") + days(365) - n * SECOND for n in range(1000)][::-1]


def test_many_triggers_share_the_entries(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.timetable._MISSED_ENTRIES", 1000)
    triggers = [trigger(IntervalSettings(every="1m", overlap="allow"), f"job{n}") for n in range(50)]
    timetable = desk.timetable(*triggers)
    desk.sleep(timetable, at("08:30:31", day=8))
    assert len(desk.store.list_runs(RunFilter(), limit=1000)) == 50
    assert all(10 <= len(desk.ledger(each)) <= 22 for each in triggers)


class Bursts(Schedule):
    """Every second, but for the first two minutes of a year only."""

    def next_after(self, moment: datetime) -> datetime | None:
        moment = moment.replace(microsecond=0) + SECOND
        start = moment.replace(month=1, day=1, hour=0, minute=0, second=0)
        return moment if moment < start + timedelta(minutes=2) else start.replace(year=start.year + 1)


@pytest.mark.parametrize("most", [1, 2, 7, 50])
def test_the_newest_slots_are_found_where_they_are_not_even(most: int) -> None:
    due, until = datetime.fromisoformat("2000-01-01T00:00:10+00:00"), at("09:00")
    found = newest_slots(Bursts(), due, until, most)
    newest = datetime.fromisoformat("2027-01-01T00:01:59+00:00")
    assert found == [newest - n * SECOND for n in range(len(found))][::-1]
    assert most / 2 <= len(found) <= most


@settings(deadline=None)
@given(every=st.integers(1, 4000), length=st.integers(1, 10**6), most=st.integers(1, 40))
def test_the_newest_slots_of_any_interval(every: int, length: int, most: int) -> None:
    schedule = schedule_of(IntervalSettings(every=f"{every}s"))
    assert schedule is not None
    due = schedule.next_after(NINE)
    assert due is not None
    until = due + length * SECOND
    every_slot = [due + n * every * SECOND for n in range(-(-length // every))]
    found = newest_slots(schedule, due, until, most)
    assert found == every_slot[-len(found) :]
    assert len(found) == len(every_slot) if len(every_slot) <= most else most / 2 <= len(found) <= most


# Clocks


def test_a_step_back_of_an_hour_runs_nothing_twice(desk: Desk) -> None:
    each = trigger(IntervalSettings(every="10m", overlap="allow"))
    timetable = desk.timetable(each)
    desk.go(timetable, at("10:05"))
    before = desk.runs()
    desk.moment = at("09:05")
    timetable.fire(at("09:05"))
    desk.go(timetable, at("10:05"))
    assert desk.runs() == before
    assert ("warning", "the clock went back by 1h; no slot runs a second time") in desk.told
    desk.go(timetable, at("10:10"))
    assert desk.runs() == [*before, ("01 10:10", "pending")]


def test_a_step_back_while_the_daemon_was_down(desk: Desk) -> None:
    each = trigger(IntervalSettings(every="10m", overlap="allow"))
    desk.go(desk.timetable(each), at("10:05"))
    before = desk.runs()
    desk.moment = at("09:05")
    desk.go(desk.timetable(each), at("10:10"))
    assert desk.runs() == [*before, ("01 10:10", "pending")]


def test_a_step_forward_is_downtime(desk: Desk) -> None:
    each = hourly()
    timetable = desk.timetable(each)
    desk.sleep(timetable, at("11:10"))
    assert desk.outcomes(each) == [("01 09:00", "skipped"), ("01 10:00", "skipped"), ("01 11:00", "caught_up")]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_that_was_years_ahead_silences_nothing(desk: Desk, restarted: bool) -> None:
    each = hourly(overlap="allow")
    timetable = desk.timetable(each)
    desk.go(timetable, at("09:30"))
    desk.sleep(timetable, at("09:30") + days(4000))
    desk.moment = at("09:31")
    timetable = desk.timetable(each) if restarted else timetable
    desk.sleep(timetable, at("09:31"))
    desk.go(timetable, at("13:30"))
    ran = [f"{entry.slot:%H:%M}" for entry in desk.ledger(each) if entry.slot < at("23:00") and entry.run_id]
    assert ran == ["09:00", "11:00", "12:00", "13:00"]  # 10:00 stands for what was missed, for ever
    desk.moment = at("16:30")
    desk.timetable(each) if restarted else timetable.fire(at("16:30"))
    today = [f"{entry.slot:%H:%M} {entry.outcome.value}" for entry in desk.ledger(each) if entry.slot < at("23:00")]
    assert today[-3:] == ["14:00 skipped", "15:00 skipped", "16:00 caught_up"]


def test_small_steps_of_a_clock_are_nothing(desk: Desk) -> None:
    each = hourly(overlap="allow")
    timetable = desk.timetable(each)
    desk.go(timetable, at("09:00"))
    timetable.fire(at("08:59:50"))
    assert timetable.next_due() == at("10:00")
    assert desk.told == []


# Timers


def test_a_timer_runs_once(desk: Desk) -> None:
    timer = trigger(TimerSettings(at="2027-03-01T11:00:00+02:00"))
    desk.go(desk.timetable(timer), at("12:00"))
    again = desk.timetable(timer)
    assert again.next_due() is None
    assert desk.runs() == [("01 09:00", "pending")]


def test_a_timer_that_was_past_when_first_seen(desk: Desk) -> None:
    timer = trigger(TimerSettings(at="2027-03-01T07:00:00Z"))
    desk.timetable(timer)
    (entry,) = desk.ledger(timer)
    assert (entry.slot, entry.outcome) == (at("07:00"), SlotOutcome.SKIPPED)
    assert entry.reason == "it was past when first seen at 2027-03-01T08:30:00Z"
    assert len(desk.told) == 1
    desk.timetable(timer)
    assert len(desk.told) == 1
    assert desk.runs() == []


@pytest.mark.parametrize(("back", "outcome"), [("10:00", "caught_up"), ("09:00:10", "ran")])
def test_a_timer_that_was_missed(desk: Desk, back: str, outcome: str) -> None:
    timer = trigger(TimerSettings(at="2027-03-01T09:00:00Z"))
    desk.timetable(timer)
    desk.moment = at(back)
    desk.timetable(timer)
    assert desk.outcomes(timer) == [("01 09:00", outcome)]


def test_a_relative_timer_counts_from_its_first_sight_whoever_sees_it(desk: Desk) -> None:
    timer = trigger(TimerSettings(after="1h"))
    first = desk.timetable(timer)
    assert first.next_due() == at("09:30")
    other = Desk(desk.store, at("08:45"))
    second = other.timetable(timer)
    assert second.next_due() == at("09:30")
    for timetable in (first, second):
        timetable.fire(at("09:30"))
        assert timetable.next_due() is None
    desk.moment = at("10:00")
    assert desk.timetable(timer).next_due() is None
    assert desk.runs() == [("01 09:30", "pending")]
    assert [entry.slot for entry in desk.store.slots(timer.id)] == [at("09:30"), SINCE_EPOCH]


def test_a_relative_timer_survives_steps_of_the_clock(desk: Desk) -> None:
    timer = trigger(TimerSettings(after="1h"))
    timetable = desk.timetable(timer)
    desk.sleep(timetable, at("07:00"))
    assert timetable.next_due() == at("09:30")
    desk.go(timetable, at("09:30"))
    desk.sleep(timetable, at("07:00"))
    assert timetable.next_due() is None


# Several daemons


def test_two_daemons_run_each_slot_once(desk: Desk) -> None:
    triggers = [hourly(f"job{n}", overlap="allow", catchup="all") for n in range(50)]
    desks = [desk, Desk(desk.store, at("08:30:01"))]
    timetables = [one.timetable(*triggers) for one in desks]
    threads = [threading.Thread(target=one.go, args=(timetables[n], at("11:59"))) for n, one in enumerate(desks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    desk.moment = at("14:10")
    threads = [threading.Thread(target=timetable.fire, args=(at("14:10"),)) for timetable in timetables]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in triggers:
        assert [entry.outcome.value for entry in desk.ledger(each)] == ["ran"] * 3 + ["caught_up"] * 3
    assert len(desk.store.list_runs(RunFilter(), limit=1000)) == 50 * 6


@settings(max_examples=60, deadline=None)
@given(
    moves=st.lists(
        st.tuples(
            st.sampled_from(["first", "second", "restart", "both"]),
            st.one_of(st.integers(0, 200), st.integers(-4000, 20_000), st.integers(-100_000, 100_000)),
        ),
        max_size=25,
    ),
    every=st.sampled_from([7, 60, 600]),
    catchup=st.sampled_from(CATCHUPS),
)
def test_no_slot_is_lost_and_none_runs_twice_whatever_clocks_do(
    moves: list[tuple[str, int]], every: int, catchup: Literal["none", "last", "all"]
) -> None:
    store = MemoryRunStore()
    each = trigger(IntervalSettings(every=f"{every}s", overlap="allow", catchup=catchup))
    desk = Desk(store)
    timetables = {"first": desk.timetable(each), "second": desk.timetable(each)}
    latest = NINE
    for who, seconds in moves:
        desk.moment += seconds * SECOND
        latest = max(latest, desk.moment)
        if who == "restart":
            timetables["first"] = desk.timetable(each)
        for name in ("first", "second") if who == "both" else (who,):
            if name != "restart":
                timetables[name].fire(desk.moment)
    desk.moment = latest
    desk.timetable(each)
    entries = desk.ledger(each)
    assert len({entry.slot for entry in entries}) == len(entries)
    runs = [run.slot for run in store.list_runs(RunFilter(), limit=100_000)]
    assert len(set(runs)) == len(runs)
    assert all(entry.reason or entry.outcome is SlotOutcome.RAN for entry in entries)
    schedule = schedule_of(each.settings)
    assert schedule is not None
    due, slot = set(), schedule.next_after(NINE)
    while slot is not None and slot <= latest:
        due.add(slot)
        slot = schedule.next_after(slot)
    for entry in entries:
        if "stands for" in entry.reason:
            until = parse_moment(entry.reason.partition("before ")[2].partition(",")[0])
            due -= {slot for slot in due if entry.slot <= slot < until}
    assert due <= {entry.slot for entry in entries}


# Triggers that come and go


def test_triggers_are_replaced(desk: Desk) -> None:
    stays, goes, comes = hourly("stays"), hourly("goes"), hourly("comes")
    timetable = desk.timetable(stays, goes)
    desk.go(timetable, at("09:30"))
    timetable.replace([comes, stays])
    desk.finish()
    desk.go(timetable, at("10:30"))
    assert [len(desk.ledger(each)) for each in (stays, goes, comes)] == [2, 1, 1]
    timetable.replace([])
    assert timetable.next_due() is None
    timetable.fire(at("12:00"))


def test_other_rules_hold_from_now_on(desk: Desk) -> None:
    timetable = desk.timetable(hourly())
    timetable.replace([hourly(catchup="none")])
    desk.sleep(timetable, at("11:30"))
    assert [outcome for _, outcome in desk.outcomes(hourly())] == ["skipped"] * 3


# When the store refuses


def test_what_the_store_refused_is_due_still(desk: Desk, tmp_path: Path) -> None:
    triggers = [hourly(f"job{number}") for number in range(5)]
    timetable = desk.timetable(*triggers)
    other = sqlite3.connect(tmp_path / "runner.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreLocked):
        timetable.fire(at("09:00"))
    assert timetable.next_due() == at("09:00")
    with pytest.raises(StoreLocked):
        timetable.replace([*triggers, hourly("new")])
    other.execute("ROLLBACK")
    other.close()
    assert timetable.fire(at("09:00:05")) == 5
    assert [desk.outcomes(each) for each in triggers] == [[("01 09:00", "ran")]] * 5
    timetable.replace([*triggers, hourly("new")])
    assert timetable.next_due() == at("09:00")  # the new one counts from 08:30, where the desk's clock stands


# Overlap


def test_skip(desk: Desk) -> None:
    each = hourly()
    timetable = desk.timetable(each)
    desk.go(timetable, at("10:30"))
    assert desk.outcomes(each) == [("01 09:00", "ran"), ("01 10:00", "skipped")]
    assert desk.ledger(each)[-1].reason.startswith("run 1 is live and has the unique key 'overlap: shop/clean/")
    assert desk.finish() == 1
    desk.go(timetable, at("11:30"))
    assert desk.outcomes(each)[-1] == ("01 11:00", "ran")
    assert own_queues([each]) == {}


def test_allow(desk: Desk) -> None:
    each = hourly(overlap="allow", queue="heavy", priority=7)
    desk.go(desk.timetable(each), at("10:30"))
    assert desk.runs() == [("01 09:00", "pending"), ("01 10:00", "pending")]
    assert own_queues([each]) == {}


def test_queue(desk: Desk) -> None:
    each = hourly(overlap="queue")
    desk.go(desk.timetable(each), at("11:30"))
    limits = own_queues([each])
    assert limits == {each.id: 1}
    assert [desk.finish(limits) for _ in range(4)] == [1, 1, 1, 0]
    assert [run.slot for run in desk.store.list_runs(RunFilter())[::-1]] == [at("09:00"), at("10:00"), at("11:00")]


def test_replace_cancels_what_waits_and_asks_what_runs(desk: Desk) -> None:
    each = hourly(overlap="replace")
    timetable = desk.timetable(each)
    desk.go(timetable, at("09:30"))
    (claim,) = desk.store.claim(Claimant(owner="w", namespace="shop", lease_seconds=10**6), 9, now=at("09:30"))
    desk.go(timetable, at("10:30"))
    assert desk.store.cancel_requests("w") == [(claim.run_id, claim.token)]
    desk.go(timetable, at("11:30"))
    assert desk.runs() == [("01 09:00", "running"), ("01 10:00", "cancelled"), ("01 11:00", "pending")]
    assert "replaced by run 3" in str(desk.store.get(2).message)
    assert own_queues([each]) == {each.id: 1}  # so the new one begins when the old one has ended


def test_who_did_not_fire_the_slot_cancels_nothing(desk: Desk) -> None:
    each = hourly(overlap="replace")
    first = desk.timetable(each)
    second = Desk(desk.store, at("08:30")).timetable(each)
    first.fire(at("09:00"))
    first.fire(at("10:00"))
    before = desk.runs()
    second.fire(at("09:00"))
    second.fire(at("10:00"))
    assert desk.runs() == before == [("01 09:00", "cancelled"), ("01 10:00", "pending")]


def test_replacing_is_made_up_for_when_a_daemon_died_over_it(desk: Desk) -> None:
    each = hourly(overlap="queue")
    desk.go(desk.timetable(each), at("10:30"))  # as if it had died before it could cancel the first
    desk.timetable(hourly(overlap="replace"))
    assert desk.runs() == [("01 09:00", "cancelled"), ("01 10:00", "pending")]


def test_jitter_is_the_same_for_the_same_slot_and_within_its_bounds(desk: Desk) -> None:
    triggers = [hourly(f"job{number}", jitter="10m") for number in range(40)]
    desk.go(desk.timetable(*triggers), at("09:30"))
    runs = desk.store.list_runs(RunFilter())
    late = sorted((run.run_at - at("09:00")).total_seconds() for run in runs)
    assert late[0] >= 0
    assert late[-1] < 600
    assert len(set(late)) == 40
    assert late[30] > 300 > late[5]
    assert {run.run_at for run in runs} == {
        at("09:00") + share(each.id, at("09:00")) * timedelta(minutes=10) for each in triggers
    }


def test_what_is_caught_up_is_spread_from_now_on(desk: Desk) -> None:
    each = hourly(jitter="10m")
    desk.sleep(desk.timetable(each), at("11:30"))
    (run,) = desk.store.list_runs(RunFilter())
    assert at("11:30") <= run.run_at < at("11:40")


def test_the_trigger_of_the_documents(desk: Desk) -> None:
    text = (Path(__file__).parent.parent / "docs" / "triggers.md").read_text()
    names: dict[str, Any] = {"__name__": "runner_moon"}
    exec(text.partition("```python runner_moon.py\n")[2].partition("```")[0], names)
    (provider,) = names["runner_triggers"]()
    source = provider.create(None, None)
    each = Trigger(id="shop/howl/full_moon", job="howl", kind="full_moon", settings=provider.settings(), line=1)
    desk.moment = at("12:00", day=22)
    source.start([each], desk)
    desk.moment = at("23:30", day=22)
    eventually(lambda: desk.runs() == [("22 13:45", "pending")])
    source.replace([each])
    source.stop()
    assert source.limits([each]) == {}


@pytest.mark.slow
def test_fifty_thousand_triggers_are_loaded_and_run(desk: Desk) -> None:
    triggers = [trigger(CronSettings(schedule=f"{n % 60} {n // 60 % 24} * * *"), f"job{n}") for n in range(50_000)]
    timetable = desk.timetable(*triggers)
    desk.sleep(timetable, at("08:31"))
    due = [f"job{n}" for n in range(50_000) if (n % 60, n // 60 % 24) == (31, 8)]
    assert sorted(run.job for run in desk.store.list_runs(RunFilter(), limit=1000)) == sorted(due)
