"""What guests ask the app for: jobs enqueued and scheduled, in the foreground, with grants and without."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from runner import wasm
from runner.app import Runner
from runner.errors import (
    BadOutput,
    GrantMissing,
    HostCallFailed,
    HostCallRefused,
    InputTooLarge,
    RunConflict,
    RunnerError,
    StoreError,
    StoreFull,
    UsageError,
)
from runner.hostcalls import host_calls, moment
from runner.ledger import RunFilter
from runner.models import InvocationContext, Rights, TriggerType
from runner.plugins import load
from runner.runs import MAX_PAYLOAD_BYTES, Enqueued, RunStatus
from runner.testing import guests
from runner.workers.hostcalls import HOST_FUNCTIONS
from tests.support import ENGINE_NAMES

NOW = datetime(2026, 11, 25, 12, tzinfo=timezone.utc)
JOBS = """
version: 1
namespace: shop
defaults: {executor: %s}
functions:
  ask: {wasm: ask.wasm, allow: {enqueue: [notify, heavy]}}
  greedy: {wasm: ask.wasm}
  echo: {wasm: echo.wasm, retry_count: 2}
jobs:
  notify: {run: echo}
  heavy: {run: echo, triggers: [{job: {queue: heavy, priority: 3}}]}
  other: {run: echo}
"""


# What a call means


class Accepts:
    """Accepts whatever it is given, and remembers it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, list[bytes], dict[str, Any]]] = []

    def enqueue(self, job: str, payloads: Sequence[bytes], **facts: Any) -> list[Enqueued]:
        self.seen.append((job, list(payloads), facts))
        return [Enqueued(len(self.seen) + 40, True)]


def facts(**settings: Any) -> InvocationContext:
    given: dict[str, Any] = {"allow": Rights(enqueue=("notify",)), **settings}
    return InvocationContext(request_id="r", function_id="f", function_name="ask", namespace="shop", **given)


def test_enqueue_background_is_a_run_of_the_job() -> None:
    accepts = Accepts()
    calls = host_calls(accepts, lambda: NOW)
    assert calls["enqueue_background"](facts(run_id=7), [b"notify", b"\0\xff"]) == b"41"
    assert calls["enqueue_background"](facts(), [b"notify", b""]) == b"42"
    assert accepts.seen == [
        ("notify", [b"\0\xff"], {"trigger_type": TriggerType.JOB, "parent_id": 7}),
        ("notify", [b""], {"trigger_type": TriggerType.JOB, "parent_id": None}),
    ]


def test_schedule_once_is_a_run_for_later() -> None:
    accepts = Accepts()
    assert host_calls(accepts, lambda: NOW)["schedule_once"](facts(run_id=7), [b"notify", b"90s", b"x"]) == b"41"
    later = NOW + timedelta(seconds=90)
    assert accepts.seen == [("notify", [b"x"], {"trigger_type": TriggerType.TIMER, "parent_id": 7, "run_at": later})]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("enqueue_background", [b"other", b""]), ("schedule_once", [b"other", b"nonsense", b""])],
)
@pytest.mark.parametrize("allow", [Rights(), Rights(enqueue=("notify",))])
def test_without_a_grant_nothing_is_accepted(name: str, arguments: list[bytes], allow: Rights) -> None:
    accepts = Accepts()
    with pytest.raises(GrantMissing, match=r"add `allow: \{enqueue: \[other\]\}`") as caught:
        host_calls(accepts, lambda: NOW)[name](facts(allow=allow), arguments)
    assert caught.value.host_function == name
    assert accepts.seen == []


def test_a_name_that_is_none_is_shown_in_part() -> None:
    with pytest.raises(GrantMissing) as caught:
        host_calls(Accepts(), lambda: NOW)["enqueue_background"](facts(), [b"\xff" * 100_000, b""])
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "when"),
    [
        (b"0s", NOW),
        (b"90s", NOW + timedelta(seconds=90)),
        (b"10m", NOW + timedelta(minutes=10)),
        (b"1h30m", NOW + timedelta(minutes=90)),
        (b"2026-11-25T14:30:00+02:00", NOW + timedelta(minutes=30)),
        (b"2027-01-15T09:00:00Z", datetime(2027, 1, 15, 9, tzinfo=timezone.utc)),
        (b"1970-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=timezone.utc)),
    ],
)
def test_when_it_is_to_run(text: bytes, when: datetime) -> None:
    assert moment(text, NOW) == when


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "expected a duration like 90s.*or a moment like"),
        (b"10 minutes", "'10 minutes': expected a duration"),
        (b"tomorrow", "expected a duration"),
        (b"-5m", "expected a duration"),
        (b"\xff\xfe", "expected a duration"),
        (b"2027-01-15T09:00:00", "has no time zone"),
        (b"2027-13-15T09:00:00Z", "is no moment"),
        (b"999999999w", "longer than time lasts|later than time lasts"),
        (b"99999999d", "later than time lasts"),
        (b"9" * 100_000, "expected a duration"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_moment_that_is_none(text: bytes, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        moment(text, NOW)
    assert len(str(caught.value)) < 400


def test_a_module_is_run_alone_if_it_can_tell_runs_apart() -> None:
    telling = {"get_request_id", "enqueue_background", "schedule_once", "report_progress"}
    alike = {"get_env", "get_secret", "get_caller_wallet", "log_info", "log_error"}
    assert set(HOST_FUNCTIONS) == telling | alike
    for name in HOST_FUNCTIONS:
        for module in ("env", "host", "other"):
            info = wasm.inspect(guests.compiled(guests.importing(module, name)))
            assert wasm.needs_identity(info) == (name in telling and module != "other")


# With guests, through the Runner


@pytest.fixture(params=ENGINE_NAMES)
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runner]:
    """A project whose functions ask for jobs, on each real engine."""
    (tmp_path / "jobs.yaml").write_text(JOBS % request.param)
    (tmp_path / "ask.wasm").write_bytes(guests.compiled(guests.ENQUEUE))
    (tmp_path / "echo.wasm").write_bytes(guests.compiled(guests.ECHO))
    with closing(Runner.open(tmp_path / "jobs.yaml", load(no_plugins=True), notify=lambda _: None)) as runner:
        yield runner


def error_of(runner: Runner, input: bytes, function: str = "ask") -> RunnerError:
    error = runner.invoke(function, input).error
    assert error is not None
    return error


def test_a_run_that_a_guest_enqueued_waits_in_the_store(runner: Runner) -> None:
    run_id = int(runner.invoke("ask", guests.enqueue(b"notify", b"pay\0load")).unwrap())
    run = runner.store.get(run_id)
    assert (run.job, run.function, run.status) == ("notify", "echo", RunStatus.PENDING)
    assert (run.trigger_type, run.trigger, run.parent_id) == (TriggerType.JOB, None, None)
    assert (run.queue, run.priority, run.retry_count) == ("default", 0, 2)
    assert runner.store.payload(run_id) == b"pay\0load"


def test_a_jobs_own_queue_and_priority_hold(runner: Runner) -> None:
    run = runner.store.get(int(runner.invoke("ask", guests.enqueue(b"heavy")).unwrap()))
    assert (run.queue, run.priority) == ("heavy", 3)


def test_a_run_that_a_guest_scheduled_is_due_later(runner: Runner) -> None:
    before = datetime.now(timezone.utc)
    run = runner.store.get(int(runner.invoke("ask", guests.enqueue(b"notify", when=b"1h30m")).unwrap()))
    assert run.trigger_type is TriggerType.TIMER
    assert timedelta(minutes=90) <= run.run_at - before < timedelta(minutes=91)
    run = runner.store.get(int(runner.invoke("ask", guests.enqueue(b"notify", when=b"2027-01-15T09:00:00Z")).unwrap()))
    assert run.run_at == datetime(2027, 1, 15, 9, tzinfo=timezone.utc)


def test_a_guest_of_a_run_is_the_parent(runner: Runner) -> None:
    (parent,) = runner.enqueue("notify")
    function = runner.function("ask")
    context = replace(runner.context(function), run_id=parent.run_id)
    result = runner.dispatcher.attempt(function, guests.enqueue(b"notify"), context)
    assert runner.store.get(int(result.unwrap())).parent_id == parent.run_id


def test_a_guest_without_the_grant_enqueues_nothing(runner: Runner) -> None:
    for function, job in (("greedy", b"notify"), ("ask", b"other"), ("ask", b"no such job"), ("ask", b"")):
        error = error_of(runner, guests.enqueue(job), function)
        assert isinstance(error, GrantMissing)
        assert "`allow: {enqueue: [" in str(error)
    assert runner.store.list_runs(RunFilter()) == []


def test_a_grant_for_a_job_that_is_gone(runner: Runner) -> None:
    function = runner.function("ask")
    context = replace(runner.context(function), allow=Rights(enqueue=("notfy",)))
    error = runner.dispatcher.attempt(function, guests.enqueue(b"notfy"), context).error
    assert isinstance(error, HostCallRefused)
    assert "enqueue_background was refused: no job 'notfy' in jobs.yaml; did you mean 'notify'?" in str(error)
    assert (error.cause, error.retryable) == ("UsageError", False)


def test_a_moment_that_is_none_is_refused(runner: Runner) -> None:
    error = error_of(runner, guests.enqueue(b"notify", when=b"10 minutes"))
    assert isinstance(error, HostCallRefused)
    assert "schedule_once was refused: '10 minutes': expected a duration like 90s" in str(error)
    assert runner.store.list_runs(RunFilter()) == []


def test_a_payload_that_is_too_large_is_refused(runner: Runner) -> None:
    error = error_of(runner, guests.enqueue(b"notify", bytes(MAX_PAYLOAD_BYTES + 1)))
    assert isinstance(error, HostCallRefused)
    assert error.cause == "InputTooLarge"
    assert "16,777,216" in str(error)
    assert runner.invoke("ask", guests.enqueue(b"notify", bytes(MAX_PAYLOAD_BYTES))).unwrap()


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (StoreFull("the disk is full"), HostCallFailed),
        (StoreError("the store is of a newer runner"), HostCallFailed),
        (RunConflict("key", 3), HostCallRefused),
        (InputTooLarge(2, 1), HostCallRefused),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_stands_in_the_way_reaches_the_guests_end(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, cause: RunnerError, kind: type[RunnerError]
) -> None:
    def refuse(*_: object, **__: object) -> list[Enqueued]:
        raise cause

    monkeypatch.setattr(runner, "enqueue", refuse)
    error = error_of(runner, guests.enqueue(b"notify"))
    assert type(error) is kind
    assert str(cause) in str(error)
    assert error.retryable is cause.retryable


def test_nobody_needs_to_listen_to_progress(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "ask.wasm").write_bytes(guests.compiled(guests.PROGRESS))
    assert runner.invoke("ask", b"\x05\x32").unwrap() == b"\x05\x32"
    heard: list[tuple[str, int]] = []
    runner.on_progress = lambda context, percent: heard.append((context.function_name, percent))
    runner.invoke("ask", b"\x05\x64")
    assert heard == [("ask", 5), ("ask", 100)]


# In C

C_GUEST = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IMPORT(name) __attribute__((import_module("env"), import_name(name)))

IMPORT("enqueue_background")
long long enqueue_background(const char *job, int job_size, const char *payload, int payload_size);
IMPORT("schedule_once")
long long schedule_once(const char *job, int job_size, const char *when, int when_size, const char *payload, int size);
IMPORT("report_progress") void report_progress(int percent);

%s

int main(void) {
  long long answer = enqueue_background("notify", 6, "from C", 6);
  report_progress(50);
  long long later = schedule_once("notify", 6, "1h", 2, "", 0);
  report_progress(100);
  printf("%%.*s %%.*s", (int)answer, (char *)(int)(answer >> 32), (int)later, (char *)(int)(later >> 32));
  return 0;
}
"""
C_JOBS = """
version: 1
functions:
  ask: {source: ask.c, executor: %s, allow: {enqueue: [notify]}}
  echo: {wasm: echo.wasm}
jobs:
  notify: {run: echo}
"""
ALLOCATOR = '__attribute__((export_name("orama_alloc"))) void *orama_alloc(int size) { return malloc(size); }'


@pytest.fixture(params=ENGINE_NAMES)
def c_project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], Runner]]:
    """Opens a project with a C program that has this in it."""
    opened: list[Runner] = []

    def open_with(allocator: str) -> Runner:
        (tmp_path / "ask.c").write_text(C_GUEST % allocator)
        (tmp_path / "jobs.yaml").write_text(C_JOBS % request.param)
        (tmp_path / "echo.wasm").write_bytes(guests.compiled(guests.ECHO))
        opened.append(Runner.open(tmp_path / "jobs.yaml", load(no_plugins=True), notify=lambda _: None))
        return opened[-1]

    yield open_with
    for runner in opened:
        runner.close()


@pytest.mark.slow
def test_a_c_program_enqueues(c_project: Callable[[str], Runner]) -> None:
    runner = c_project(ALLOCATOR)
    heard: list[int] = []
    runner.on_progress = lambda _, percent: heard.append(percent)
    first, second = map(int, runner.invoke("ask", b"").unwrap().split())
    assert runner.store.payload(first) == b"from C"
    assert runner.store.get(second).trigger_type is TriggerType.TIMER
    assert heard == [50, 100]


@pytest.mark.slow
def test_a_c_program_without_an_allocator_enqueues_nothing(c_project: Callable[[str], Runner]) -> None:
    runner = c_project("")
    error = runner.invoke("ask", b"").error
    assert isinstance(error, BadOutput)
    assert "export one of orama_alloc, malloc" in str(error)
    assert runner.store.list_runs(RunFilter()) == []
