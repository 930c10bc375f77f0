"""The plugin runner_apscheduler: what jobs.yaml may say, and real clocks over a real store."""

from __future__ import annotations

import logging
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from runner_apscheduler.clock import LONGEST_SLEEP, _Alarm
from runner_apscheduler.settings import IntervalSettings, JobSettings, TimerSettings
from runner_apscheduler.sources import CronSource, IntervalSource, JobSource, TimerSource
from runner_sqlite.runs import SqliteRunStore

from runner.config import Config
from runner.errors import ConfigError
from runner.keytypes import Name
from runner.kinds import TextKind
from runner.ledger import RunFilter
from runner.loading import load
from runner.plugins import load as load_plugins
from runner.run_store import RunStore
from runner.runs import Claimant, Failed, Failure, NewRun, Succeeded
from runner.schema import kind_of
from runner.testing import MemoryRunStore
from runner.timekeys import duration_key, queue_key
from runner.timepolicy import GRACE, Catchup, Overlap
from runner.triggers import Schedule, Trigger
from runner.when import parse_duration
from tests.support import eventually
from tests.timetables import Desk, trigger

CATALOGUE = load_plugins(no_plugins=True).catalogue
FILE = """version: 1
functions: {{f: {{wasm: f.wasm}}}}
jobs:
  nightly: {{run: f}}
  other: {{run: f, triggers: [{triggers}]}}
"""
Load = Callable[[str], Config]


class WallDesk(Desk):
    """A Desk with the real time."""

    def now(self) -> datetime:
        return datetime.now(timezone.utc)


@pytest.fixture
def loaded(tmp_path: Path) -> Load:
    def load_triggers(triggers: str) -> Config:
        (tmp_path / "f.wasm").write_bytes(b"")
        (tmp_path / "jobs.yaml").write_text(FILE.format(triggers=triggers))
        return load(tmp_path / "jobs.yaml", CATALOGUE)

    return load_triggers


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    store = SqliteRunStore.open(tmp_path / "runner.db", busy_timeout_seconds=0.05)
    yield store
    store.close()


@pytest.fixture
def _no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def only(config: Config) -> Any:
    (found,) = config.jobs["other"].triggers
    return found.settings


# jobs.yaml


def test_what_is_left_out_is_the_default(loaded: Load) -> None:
    cron = only(loaded('{cron: {schedule: "15 2 * * *"}}'))
    assert (cron.timezone, cron.queue, cron.priority) == ("UTC", None, 0)
    assert cron.policy.catchup is Catchup.LAST
    assert cron.policy.window == timedelta(days=1)
    assert cron.policy.overlap is Overlap.SKIP
    assert only(loaded("{interval: {every: 10m}}")).policy == cron.policy
    assert only(loaded("{timer: {after: 10m}}")).policy.overlap is Overlap.ALLOW
    assert only(loaded("{job: {}}")) == only(loaded("{job: }")) == JobSettings()


def test_catching_up_all_queues_unless_told_otherwise(loaded: Load) -> None:
    assert only(loaded("{interval: {every: 1h, catchup: all}}")).policy.overlap is Overlap.QUEUE
    assert only(loaded("{interval: {every: 1h, catchup: all, overlap: skip}}")).policy.overlap is Overlap.SKIP


@pytest.mark.parametrize(
    ("triggers", "message"),
    [
        ("{cron: {}}", "'schedule' is required"),
        ("{cron: {schedule: 5}}", "cron.schedule: expected a string, got 5"),
        ('{cron: {schedule: "61 * * * *"}}', "refused: schedule: minute: '61': expected 0 to 59"),
        ('{cron: {schedule: "@reboot"}}', "@reboot is no time"),
        ('{cron: {cron: "* * * * *"}}', "unknown key 'cron'; did you mean 'schedule'?"),
        ('{cron: {schedule: "@daily", timezone: Europe/Atens}}', "there is no 'Europe/Atens'; did you mean"),
        ('{cron: {schedule: "@daily", timezone: Athens}}', "did you mean 'Europe/Athens'?"),
        ('{cron: {schedule: "@daily", timezone: "../../etc/passwd"}}', "expected an IANA name"),
        ('{cron: {schedule: "@daily", timezone: ""}}', "expected an IANA name"),
        ('{cron: {schedule: "@daily", timezone: right/Europe/Athens}}', "there is no 'right/Europe/Athens'"),
        ('{cron: {schedule: "@daily", timezone: localtime}}', "there is no 'localtime'"),
        ('{cron: {schedule: "@daily", timezone: new york}}', "did you mean 'America/New_York'?"),
        ('{cron: {schedule: "@daily", overlap: forbid}}', "expected one of 'skip', 'queue', 'replace', 'allow'"),
        ('{cron: {schedule: "@daily", catchup: lst}}', "did you mean 'last'?"),
        ('{cron: {schedule: "@daily", catchup_window: 5}}', "expected a duration like 90s"),
        ('{cron: {schedule: "@daily", catchup_window: 5y}}', "expected a duration like 90s"),
        ('{cron: {schedule: "@daily", catchup_window: ""}}', "expected a duration like 90s"),
        ('{cron: {schedule: "@daily", catchup_window: 99999d}}', "catchup_window: 99999d is not from 0s to 3660d"),
        ('{cron: {schedule: "@daily", jitter: 25h}}', "jitter: 25h is not from 0s to 1d"),
        ('{cron: {schedule: "@daily", catchup_limit: 0}}', "expected an integer from 1 to 1000"),
        ('{cron: {schedule: "@daily", overlap: queue, queue: heavy}}', "leave out `queue: heavy`, or write overlap:"),
        ('{cron: {schedule: "@daily", catchup: all, queue: x}}', "overlap: queue (which `catchup: all` means)"),
        ("{interval: {every: 10}}", "expected a duration like 90s"),
        ("{interval: {every: 0s}}", "every: 0s is not from 1s to 3660d"),
        ("{interval: {every: 1.5s}}", "every: 1.5s is not whole seconds"),
        ("{interval: {minutes: 5}}", "unknown key 'minutes'; did you mean 'every'?"),
        ('{interval: {every: 1h, start: "2027-01-15T09:00:00"}}', "start: '2027-01-15T09:00:00' has no time zone"),
        ("{timer: {}}", "one of 'at' or 'after' is required"),
        ('{timer: {at: "2027-01-15T09:00:00Z", after: 1h}}', "'after' stands beside 'at'"),
        ('{timer: {at: "2027-01-15T09:00:00"}}', "has no time zone; add Z for UTC, or an offset"),
        ('{timer: {at: "2027-01-15"}}', "expected a moment with its offset, like 2027-01-15T09:00:00Z"),
        ('{timer: {at: "2027-02-30T09:00:00Z"}}', "is no moment"),
        ("{timer: {after: 1h, overlap: skip}}", "unknown key 'overlap'"),
        ("{job: {after: nihgtly}}", "no job 'nihgtly' is declared; did you mean 'nightly'?"),
        ("{job: {after: [nightly, 5]}}", "job.after[1]: expected a string, got 5"),
        ("{job: {after: {}}}", "expected a string, got a mapping"),
        ("{job: {after: nightly, status: [success]}}", "did you mean 'succeeded'?"),
        ("{job: {after: nightly, status: []}}", "status: an empty list follows nothing"),
        ("{job: {priority: 9999999}}", "expected an integer from -1000000 to 1000000"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(loaded: Load, triggers: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(triggers)
    problem = next(problem for problem in caught.value.problems if message in str(problem))
    assert problem.line == 5
    assert problem.where.startswith("jobs.other.triggers[0]")


@pytest.mark.parametrize(
    ("triggers", "key"),
    [
        ('{cron: {schedule: " 15  2 * * mon ", timezone: Europe/Athens}}', "15 2 * * MON Europe/Athens"),
        ('{cron: {schedule: "@daily"}}', "0 0 * * * UTC"),
        ("{interval: {every: 90m}}", "1h30m"),
        ('{interval: {every: 1h, start: "2027-01-15T09:00:00+02:00"}}', "1h from 2027-01-15T07:00:00Z"),
        ('{timer: {at: "2027-01-15 09:00+02:00"}}', "at 2027-01-15T07:00:00Z"),
        ("{timer: {after: 60m}}", "after 1h"),
        ("{job: {queue: heavy}}", ""),
        ("{job: {after: nightly}}", "after nightly succeeded"),
        ("{job: {after: [nightly, other, nightly], status: [failed, dead]}}", "after nightly,other failed,dead"),
    ],
)
def test_what_means_the_same_has_the_same_key(loaded: Load, triggers: str, key: str) -> None:
    (found,) = loaded(triggers).jobs["other"].triggers
    sources = {"cron": CronSource(), "interval": IntervalSource(), "timer": TimerSource(), "job": JobSource()}
    assert sources[found.kind].key(found.settings) == key


@pytest.mark.parametrize(
    ("settings", "after", "due"),
    [
        (IntervalSettings(every="10m"), "2027-01-15T09:00:00", "2027-01-15T09:10:00"),
        (IntervalSettings(every="10m"), "2027-01-15T09:09:59.999999", "2027-01-15T09:10:00"),
        (IntervalSettings(every="1w"), "2027-01-15T09:00:00", "2027-01-21T00:00:00"),
        (IntervalSettings(every="7m", start="2027-01-15T09:00:00Z"), "2020-01-01T00:00:00", "2027-01-15T09:00:00"),
        (IntervalSettings(every="7m", start="2027-01-15T09:00:00Z"), "2027-01-15T09:00:00", "2027-01-15T09:07:00"),
        (IntervalSettings(every="3660d"), "9999-01-01T00:00:00", None),
        (TimerSettings(at="2027-01-15T09:00:00Z"), "2027-01-15T08:59:59", "2027-01-15T09:00:00"),
        (TimerSettings(at="2027-01-15T09:00:00Z"), "2027-01-15T09:00:00", None),
        (TimerSettings(after="90s"), "2027-01-15T09:00:00", "2027-01-15T09:01:30"),
    ],
)
def test_due_times(settings: Any, after: str, due: str | None) -> None:
    source = IntervalSource() if isinstance(settings, IntervalSettings) else TimerSource()
    found = source.schedule(settings).next_after(datetime.fromisoformat(f"{after}+00:00"))
    assert found == (None if due is None else datetime.fromisoformat(f"{due}+00:00"))


@given(text=st.text("0123456789.wdhms ", max_size=12))
def test_the_pattern_of_durations_is_what_is_read(text: str) -> None:
    if re.fullmatch(duration_key("")["pattern"], text):
        assume(len(text) < 11)  # or it may be longer than time lasts
        assert parse_duration(text) >= timedelta(0)
    else:
        with suppress(ValueError):
            parse_duration(text)
            assert text != text.strip()


def test_a_queue_may_have_the_names_that_jobs_yaml_gives() -> None:
    ours, names = queue_key(""), kind_of(Name)
    assert isinstance(names, TextKind)
    assert (ours["pattern"], ours["expected"]) == (names.rule.pattern, names.rule.expected)


# The clock


@pytest.mark.usefixtures("_no_thread_is_left")
def test_two_daemons_fire_each_slot_once(store: RunStore) -> None:
    each = trigger(IntervalSettings(every="1s", overlap="allow"))
    sources = [IntervalSource(), IntervalSource()]
    desk = WallDesk(store)
    for source in sources:
        source.start([each], desk)
    eventually(lambda: len(store.list_runs(RunFilter())) >= 3, seconds=20)
    for source in sources:
        source.stop()
        source.stop()
    slots = [run.slot for run in store.list_runs(RunFilter())[::-1]]
    assert slots[0] is not None
    assert slots == [slots[0] + timedelta(seconds=number) for number in range(len(slots))]
    assert desk.told == []


@pytest.mark.usefixtures("_no_thread_is_left")
def test_what_is_replaced_wakes_the_clock(store: RunStore) -> None:
    source, desk = TimerSource(), WallDesk(store)
    source.start([trigger(TimerSettings(after="300d"))], desk)
    source.replace([trigger(TimerSettings(after="1s"))])
    eventually(lambda: store.list_runs(RunFilter()), seconds=20)
    source.stop()


@pytest.mark.usefixtures("_no_thread_is_left")
def test_what_was_missed_is_made_up_for_before_start_returns(store: RunStore) -> None:
    each = trigger(IntervalSettings(every="1h"))
    Desk(store, datetime.now(timezone.utc) - timedelta(hours=3)).timetable(each)
    source = IntervalSource()
    source.start([each], WallDesk(store))
    assert len(store.list_runs(RunFilter())) == 1
    source.stop()


@pytest.mark.usefixtures("_no_thread_is_left")
def test_a_store_that_refuses_is_told_and_tried_again(store: RunStore, tmp_path: Path) -> None:
    source, desk = IntervalSource(), WallDesk(store)
    source.start([trigger(IntervalSettings(every="1s", overlap="allow"))], desk)
    other = sqlite3.connect(tmp_path / "runner.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    eventually(lambda: desk.told, seconds=20)
    level, message = desk.told[0]
    assert level == "error"
    assert message.startswith("due times wait: ")
    before = len(store.list_runs(RunFilter()))
    other.execute("ROLLBACK")
    other.close()
    eventually(lambda: len(store.list_runs(RunFilter())) > before, seconds=20)
    source.stop()


class Broken(Schedule):
    """A schedule of somebody's plugin, with a bug."""

    def __init__(self) -> None:
        self.asked = 0

    def next_after(self, moment: datetime) -> datetime | None:
        self.asked += 1
        if self.asked > 1:
            raise ZeroDivisionError("a bug")
        return moment + timedelta(seconds=0.1)


@pytest.mark.usefixtures("_no_thread_is_left")
def test_a_bug_is_told_and_ends_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Broken()
    monkeypatch.setattr(IntervalSource, "schedule", lambda *_: broken)
    source, desk = IntervalSource(), WallDesk(MemoryRunStore())
    source.start([trigger(IntervalSettings(every="1s"))], desk)
    eventually(lambda: desk.told, seconds=20)
    assert "ZeroDivisionError('a bug')" in desk.told[0][1]
    source.stop()


def test_a_source_that_never_started_can_be_stopped() -> None:
    source = CronSource()
    source.replace([])
    source.stop()


def test_the_clock_is_looked_at_often_enough_to_notice_that_it_was_set() -> None:
    now = datetime(2027, 1, 15, 9, tzinfo=timezone.utc)
    assert LONGEST_SLEEP < GRACE  # or a slot after a sleep would count as missed

    def alarm(due: datetime | None) -> datetime:
        return _Alarm(lambda: due).get_next_fire_time(now, now)

    assert alarm(None) == alarm(now + timedelta(days=1)) == now + LONGEST_SLEEP
    assert now < alarm(now) == alarm(now - timedelta(days=1)) < now + timedelta(seconds=0.1)
    assert alarm(now + timedelta(seconds=1)) == now + timedelta(seconds=1)


def test_apscheduler_writes_nothing_to_stderr() -> None:
    code = "import runner_apscheduler.clock, logging; logging.getLogger('apscheduler.executors.default').error('no')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stderr == b""
    assert logging.getLogger("apscheduler").handlers


def test_start_up_reads_neither_apscheduler_nor_what_checks_expressions() -> None:
    code = "import runner_apscheduler, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    heavy = {"apscheduler", "runner.timepolicy", "runner.ledger", "runner_apscheduler.expression", "zoneinfo"}
    assert heavy & set(done.stdout.split()) == set()


# After other jobs


def job_trigger(job: str, **settings: Any) -> Trigger:
    made = JobSettings(**settings)
    return Trigger(id=f"shop/{job}/job/{JobSource().key(made)}", job=job, kind="job", settings=made, line=1)


def test_a_job_runs_after_another(store: RunStore) -> None:
    desk = WallDesk(store)
    source = JobSource()
    tells, mourns = (
        job_trigger("tell", after=("nightly",)),
        job_trigger("mourn", after=("nightly",), status=("failed",)),
    )
    source.start([tells, mourns, job_trigger("plain", queue="heavy")], desk)
    now = desk.now()
    for outcome in ("fine", "bad"):
        store.enqueue([NewRun("shop", "nightly", "clean", 1)], now=now)
        (claim,) = store.claim(Claimant(owner="w", namespace="shop"), 1, now=now)
        ends: Any = Succeeded(*claim[:2], b"") if outcome == "fine" else Failed(*claim[:2], Failure("Trapped", ""))
        store.finish([ends], now=now)
        (follower,) = store.claim(Claimant(owner="w", namespace="shop"), 9, now=now)
        assert follower.job == ("tell" if outcome == "fine" else "mourn")
        assert follower.trigger == (tells if outcome == "fine" else mourns).id
        assert b'"job": "nightly"' in follower.payload
    source.replace([])
    source.stop()
    assert desk.told == []


def test_jobs_that_start_each_other_are_told_of() -> None:
    desk = WallDesk(MemoryRunStore())
    source = JobSource()
    source.start([job_trigger("a", after=("b",)), job_trigger("b", after=("a",))], desk)
    ((level, message),) = desk.told
    assert level == "warning"
    assert message in (
        "jobs start each other without end: a after b after a",
        "jobs start each other without end: b after a after b",
    )
