"""The simulation says what the daemon does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runner_apscheduler.settings import CronSettings, IntervalSettings, TimerSettings

from runner.runs import Claim, Claimant, Succeeded
from runner.simulation import Firing, Scenario, simulate
from runner.testing import MemoryRunStore
from runner.timetable import own_queues
from runner.triggers import Trigger
from tests.timetables import Desk, at, hourly, schedule_of, trigger

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
OVERLAPS: tuple[Literal["skip", "queue", "replace", "allow"], ...] = ("skip", "queue", "replace", "allow")


def simulated(triggers: Sequence[Trigger], **facts: Any) -> list[Firing]:
    scenario = Scenario(**{"begin": at("09:00"), "end": at("15:00"), **facts})
    return list(simulate(triggers, lambda each: schedule_of(each.settings), scenario))


def rows(firings: Sequence[Firing]) -> list[tuple[str, str, str]]:
    return [(f"{firing.slot:%H:%M}", firing.outcome, firing.reason) for firing in firings]


def test_both_ends() -> None:
    firings = simulated([hourly()])
    assert [row[:2] for row in rows(firings)] == [(f"{hour:02}:00", "fires") for hour in range(9, 15)]
    assert {(firing.job, firing.trigger, firing.local) for firing in firings} == {
        ("clean", "shop/clean/interval/1h", None)
    }


@pytest.mark.parametrize(
    ("rules", "minutes", "expected"),
    [
        (
            {},
            90,
            [
                ("09:00", "fires", ""),
                ("10:00", "skipped", "overlap: the run of 2027-03-01T09:00:00Z has not ended"),
                ("11:00", "fires", ""),
            ],
        ),
        ({"overlap": "allow"}, 90, [("09:00", "fires", ""), ("10:00", "fires", ""), ("11:00", "fires", "")]),
        (
            {"overlap": "queue"},
            90,
            [
                ("09:00", "fires", ""),
                ("10:00", "fires", "overlap: waits until 2027-03-01T10:30:00Z"),
                ("11:00", "fires", "overlap: waits until 2027-03-01T12:00:00Z"),
            ],
        ),
        (
            {"overlap": "replace"},
            90,
            [
                ("09:00", "fires", ""),
                ("10:00", "fires", "replaces the run of 2027-03-01T09:00:00Z"),
                ("11:00", "fires", "replaces the run of 2027-03-01T10:00:00Z"),
            ],
        ),
        ({"enabled": False}, 0, [(f"{hour}:00", "skipped", "disabled") for hour in ("09", "10", "11")]),
        ({}, 60, [("09:00", "fires", ""), ("10:00", "fires", ""), ("11:00", "fires", "")]),
    ],
)
def test_overlap(rules: dict[str, Any], minutes: int, expected: list[tuple[str, str, str]]) -> None:
    firings = simulated([hourly(**rules)], duration=minutes * MINUTE, end=at("12:00"))
    assert rows(firings) == expected


def test_downtime() -> None:
    down = [(at("13:30"), at("14:10")), (at("09:30"), at("12:10"))]
    assert rows(simulated([hourly()], down=down)) == [
        ("09:00", "fires", ""),
        ("10:00", "skipped", "missed by 2h10m; catchup is last, and the slot of 2027-03-01T12:00:00Z runs"),
        ("11:00", "skipped", "missed by 1h10m; catchup is last, and the slot of 2027-03-01T12:00:00Z runs"),
        ("12:00", "caught_up", "missed by 10m"),
        ("13:00", "fires", ""),
        ("14:00", "caught_up", "missed by 10m"),
    ]


def test_downtime_that_ends_after_the_end() -> None:
    firings = simulated([hourly()], down=[(at("13:30"), at("18:30"))])
    assert rows(firings)[-1][:2] == ("14:00", "skipped")


def test_durations_are_those_of_jobs() -> None:
    firings = simulated(
        [hourly("quick"), hourly("slow")], durations={"slow": 2 * HOUR}, duration=MINUTE, end=at("11:00")
    )
    outcomes = [(firing.job, firing.outcome) for firing in firings]
    assert sorted(outcomes) == [("quick", "fires"), ("quick", "fires"), ("slow", "fires"), ("slow", "skipped")]


def test_timers() -> None:
    after, past = trigger(TimerSettings(after="90m")), trigger(TimerSettings(at="2027-03-01T08:00:00Z"))
    assert rows(simulated([after, past])) == [("10:30", "fires", "")]


def test_a_change_of_the_clocks_is_shown_in_local_time() -> None:
    each = trigger(CronSettings(schedule="30 3 * * *", timezone="Europe/Athens"))
    begin = datetime.fromisoformat("2027-03-28T00:00:00+00:00")
    (firing,) = simulated([each], begin=begin, end=begin + 6 * HOUR)
    assert firing.local is not None
    assert firing.local.isoformat() == "2027-03-28T04:00:00+03:00"
    assert firing.reason == "the clocks go forward: there is no 03:30 on this day in Europe/Athens"


def test_jitter() -> None:
    (firing,) = simulated([hourly(jitter="10m", overlap="allow")], end=at("10:00"))
    assert firing.slot == at("09:00")
    assert firing.reason.startswith("jitter: begins at 2027-03-01T09:0")


class Worker:
    """Carries out the runs of a desk's store, each of which takes its time."""

    def __init__(self, desk: Desk, limits: dict[str, int], takes: timedelta) -> None:
        self._desk, self._limits, self._takes = desk, limits, takes
        self._claims: list[tuple[datetime, Claim]] = []

    def work(self, until: datetime) -> None:
        """End what has been running long enough, begin what may, and so on."""
        store = self._desk.store
        claimant = Claimant(owner="w", namespace="shop", limits=self._limits, lease_seconds=10**7)
        while True:
            ends = min((end for end, _ in self._claims), default=until)
            if ends >= until:
                break
            done = [claim for end, claim in self._claims if end == ends]
            self._claims = [pair for pair in self._claims if pair[0] != ends]
            store.finish([Succeeded(claim.run_id, claim.token, b"") for claim in done], now=ends)
            self._claims += [(ends + self._takes, claim) for claim in store.claim(claimant, 99, now=ends)]
        cancelled = {run_id for run_id, _ in store.cancel_requests("w")}
        stopped = [claim for _, claim in self._claims if claim.run_id in cancelled]
        store.finish([Succeeded(claim.run_id, claim.token, b"") for claim in stopped], now=until)
        self._claims = [pair for pair in self._claims if pair[1].run_id not in cancelled]
        self._claims += [(until + self._takes, claim) for claim in store.claim(claimant, 99, now=until)]


@settings(max_examples=80, deadline=None)
@given(
    every=st.integers(1, 90),
    overlap=st.sampled_from(OVERLAPS),
    catchup=st.sampled_from(("none", "last", "all")),
    limit=st.integers(1, 5),
    window=st.integers(0, 400),
    takes=st.integers(1, 200),
    down=st.lists(st.tuples(st.integers(1, 500), st.integers(1, 300)), max_size=3),
)
def test_it_is_what_a_daemon_does(
    every: int,
    overlap: Literal["skip", "queue", "replace", "allow"],
    catchup: Any,
    limit: int,
    window: int,
    takes: int,
    down: list[tuple[int, int]],
) -> None:
    keys = {"catchup": catchup, "catchup_limit": limit, "catchup_window": f"{window}m", "overlap": overlap}
    each = trigger(IntervalSettings(every=f"{every}m", start="2027-03-01T00:00:30Z", **keys))
    spans = [(at("09:00") + begin * MINUTE, at("09:00") + (begin + length) * MINUTE) for begin, length in down]
    takes_time = takes * MINUTE + timedelta(seconds=7)  # ends are never slots
    scenario = Scenario(begin=at("09:00"), end=at("15:00"), down=spans, duration=takes_time)
    expected = [
        (firing.slot, {"fires": "ran"}.get(firing.outcome, firing.outcome))
        for firing in simulate([each], lambda one: schedule_of(one.settings), scenario)
    ]

    desk = Desk(MemoryRunStore(), at("09:00"))
    timetable = desk.timetable(each)
    worker = Worker(desk, own_queues([each]), takes_time)
    while (due := timetable.next_due()) is not None and due < scenario.end:
        desk.moment = scenario.awake(due)
        worker.work(desk.moment)
        timetable.fire(desk.moment)
        worker.work(desk.moment)
    found = [(entry.slot, entry.outcome.value) for entry in desk.ledger(each) if entry.slot < scenario.end]
    assert sorted(expected) == found


def test_a_huge_span_is_shown_as_it_comes() -> None:
    each = trigger(IntervalSettings(every="1s", overlap="allow"))
    scenario = Scenario(begin=at("09:00"), end=at("09:00") + timedelta(days=36_500))
    firings = simulate([each], lambda one: schedule_of(one.settings), scenario)
    assert [next(firings).slot for _ in range(3)] == [at("09:00") + timedelta(seconds=n) for n in range(3)]
