"""From a claim to the outcome of its attempt: what goes to the workers together and what alone, and that
whatever an executor does is an outcome and never the end of a lane."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from runner import plugins
from runner.app import Runner
from runner.carrier import QUICK_MS, SAMPLES, Carrier
from runner.contracts import FunctionExecutor
from runner.errors import EngineUnavailable, Exited, Stopped, WorkerLost
from runner.models import Function, InvocationContext, InvocationResult, LogEntry, LogLevel
from runner.runs import Cancelled, Claim, Dead, Failed, Lost, Outcome, Released, Retry, Succeeded
from runner.testing.runs_bench import START
from tests.daemon_project import DaemonProject
from tests.test_outcomes import claim

QUICK = InvocationResult(b"out", None, duration_ms=0.1)
Answer = Callable[[bytes, InvocationContext], InvocationResult]


class Recorder(FunctionExecutor):
    """An executor that answers as it is told to, and keeps how it was asked."""

    def __init__(self) -> None:
        self.answer: Answer = lambda _data, _context: QUICK
        self.calls: list[list[bytes]] = []
        self.contexts: list[InvocationContext] = []
        self.stopped: list[str] = []

    def execute_many(
        self, _function: Function, inputs: Iterable[bytes], context: InvocationContext
    ) -> Iterator[InvocationResult]:
        self.calls.append(list(inputs))
        self.contexts.append(context)
        for data in self.calls[-1]:
            yield self.answer(data, context)

    def invoke(self, function: Function, input: bytes, context: InvocationContext) -> InvocationResult:
        return next(self.execute_many(function, [input], context))

    def stop(self, request_id: str) -> bool:
        self.stopped.append(request_id)
        return True

    def precompile(self, wasm_cid: str, wasm: bytes, *, memory_limit_mb: int = 64) -> None:
        pass

    def invalidate(self, wasm_cid: str) -> None:
        pass

    def close(self) -> None:
        pass


class Watched:
    """A Watch that stops what it is told to."""

    def __init__(self) -> None:
        self.verdicts: dict[int, Outcome] = {}
        self.is_leaving = False
        self.begun: list[list[int]] = []
        self.stops: list[Callable[[], Any]] = []

    def begin(self, claims: Sequence[Claim], stop: Callable[[], Any]) -> None:
        if any(each.run_id in self.verdicts for each in claims):
            raise Stopped(begun=False)
        self.begun.append([each.run_id for each in claims])
        self.stops.append(stop)

    def verdict(self, claim: Claim) -> Outcome | None:
        return self.verdicts.get(claim.run_id)

    def leaving(self) -> bool:
        return self.is_leaving


class Bench:
    """A Carrier of a real project over a Recorder."""

    def __init__(self, project: DaemonProject, monkeypatch: pytest.MonkeyPatch) -> None:
        self.project = project
        self.executor, self.watch = Recorder(), Watched()
        monkeypatch.setattr(Runner, "executor_for", lambda _self, _function: self.executor)
        self.runner = Runner.open(project.folder / "jobs.yaml", plugins.load())
        self.carrier = Carrier(self.runner, now=lambda: START, chance=lambda: 0.5)

    def register(self) -> None:
        for name in self.runner.config.functions:
            self.runner.register(name)

    def carry_out(self, *payloads: bytes, **facts: Any) -> list[Any]:
        """The outcomes of claims with these payloads, run ids from 1."""
        claims = [
            claim()._replace(run_id=number, payload=payload, **facts) for number, payload in enumerate(payloads, 1)
        ]
        return list(self.carrier.carry_out(claims, self.watch))

    def warm_up(self) -> None:
        """Let the function be known as quick."""
        for _ in range(SAMPLES):
            self.carry_out(b"warm")
        self.executor.calls.clear()
        self.executor.contexts.clear()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with closing(DaemonProject(tmp_path)) as project:
        project.jobs()
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        made = Bench(project, monkeypatch)
        made.register()
        yield made
        made.runner.close()


def change(bench: Bench, jobs: str = "{work: {run: guest}}", **functions: str) -> None:
    """Another jobs.yaml for the same Runner."""
    from runner.loading import load

    bench.project.jobs(jobs, **functions)
    bench.runner.config = load(bench.runner.config.path, bench.runner.plugins.catalogue)
    bench.register()


# Together or alone


def test_a_quick_function_shares_frames(bench: Bench) -> None:
    bench.carry_out(*[b"x"] * (SAMPLES + 2))
    assert [len(call) for call in bench.executor.calls] == [1] * (SAMPLES + 2)
    bench.executor.calls.clear()
    outcomes = bench.carry_out(b"1", b"2", b"3")
    assert bench.executor.calls == [[b"1", b"2", b"3"]]
    assert bench.watch.begun[-1] == [1, 2, 3]
    assert outcomes == [Succeeded(number, 9, b"out", 0.1, 0, ()) for number in (1, 2, 3)]
    assert bench.executor.contexts[-1].run_id is None


def test_alone_a_run_has_its_own_context(bench: Bench) -> None:
    bench.carry_out(b"x", attempt=4)
    (context,) = bench.executor.contexts
    assert (context.request_id, context.run_id, context.trigger_type.value) == ("1.4", 1, "job")
    bench.watch.stops[0]()
    assert bench.executor.stopped == ["1.4"]


def test_a_function_that_was_slow_once_goes_alone_again(bench: Bench) -> None:
    bench.warm_up()
    bench.executor.answer = lambda _data, _context: QUICK._replace(duration_ms=QUICK_MS + 1)
    bench.carry_out(b"1", b"2")
    bench.carry_out(b"1", b"2")
    assert bench.executor.calls == [[b"1", b"2"], [b"1"], [b"2"]]


@pytest.mark.parametrize(
    "job",
    [
        "{work: {run: guest, output: {path: out.txt}}}",
        '{work: {run: guest, input: "text"}}',
    ],
)
def test_what_has_a_file_or_no_payload_goes_alone(bench: Bench, job: str) -> None:
    bench.warm_up()
    change(bench, job)
    bench.carry_out(b"", b"")
    assert len(bench.executor.calls) == 2


def test_what_plugins_listen_to_goes_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.warm_up()
    monkeypatch.setattr(type(bench.runner.dispatcher), "has_moments", True)
    bench.carry_out(b"1", b"2")
    assert len(bench.executor.calls) == 2


def test_what_is_no_webassembly_goes_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.warm_up()
    monkeypatch.setattr(bench.runner.registry, "get_wasm_bytes", lambda _cid: b"#!/bin/sh")
    assert [type(outcome) for outcome in bench.carry_out(b"1", b"2")] == [Succeeded, Succeeded]
    assert len(bench.executor.calls) == 2


def test_kinds_do_not_mix(bench: Bench) -> None:
    bench.warm_up()
    other = claim()._replace(run_id=5, job="other", payload=b"other")
    mine = [claim()._replace(run_id=number, payload=b"mine") for number in (1, 2)]
    outcomes = list(bench.carrier.carry_out([mine[0], other, mine[1]], bench.watch))
    assert sorted(outcome.run_id for outcome in outcomes) == [1, 2, 5]
    assert sorted(bench.executor.calls) == [[b"mine", b"mine"], [b"other"]]


# Failures


def test_failures_become_outcomes(bench: Bench) -> None:
    errors = {b"exit": Exited(3), b"lost": WorkerLost("it was killed")}
    bench.executor.answer = lambda data, _context: InvocationResult(None, errors[data])
    for _ in range(2):  # alone, then together
        assert [type(outcome) for outcome in bench.carry_out(b"exit", b"lost")] == [Dead, Lost]
        bench.executor.answer, answer = (lambda _data, _context: QUICK), bench.executor.answer
        bench.warm_up()
        bench.executor.answer = answer
    assert [type(outcome) for outcome in bench.carry_out(b"exit", retry_count=1)] == [Retry]


@pytest.mark.parametrize(
    ("error", "kind"), [(ValueError("a bug"), Dead), (EngineUnavailable("puppet", "it is gone"), Released)]
)
def test_what_an_executor_raises_is_an_outcome(bench: Bench, error: Exception, kind: type[Outcome]) -> None:
    def answer(_data: bytes, _context: InvocationContext) -> InvocationResult:
        raise error

    bench.executor.answer = answer
    (alone,) = bench.carry_out(b"x")
    assert type(alone) is kind
    assert str(error) in str(alone)
    bench.executor.answer = lambda _data, _context: QUICK
    bench.warm_up()
    bench.executor.answer = lambda data, context: QUICK if data == b"fine" else answer(data, context)
    outcomes = bench.carry_out(b"fine", b"x", b"y")
    assert [type(outcome) for outcome in outcomes] == [Succeeded, kind, kind]
    assert str(error) in str(outcomes[2])


def test_an_executor_that_tells_too_few_results(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.warm_up()
    monkeypatch.setattr(bench.executor, "execute_many", lambda *_: iter([QUICK]))
    outcomes = bench.carry_out(b"1", b"2", b"3")
    assert [type(outcome) for outcome in outcomes] == [Succeeded, Dead, Dead]
    assert outcomes[2].failure.message == "its executor told no result"


def test_a_function_that_is_not_there(bench: Bench) -> None:
    outcomes = bench.carry_out(b"1", b"2", function="gone", retry_count=9)
    assert [type(outcome) for outcome in outcomes] == [Failed, Failed]
    assert outcomes[0].failure.error_class == "FunctionNotFound"


def test_a_job_that_left_the_file_still_runs(bench: Bench) -> None:
    change(bench, "{other: {run: guest}}")
    assert [type(outcome) for outcome in bench.carry_out(b"x")] == [Succeeded]


def test_an_input_that_is_missing_and_an_output_that_cannot_be(bench: Bench) -> None:
    change(bench, "{work: {run: guest, input: {path: none.txt}}}")
    (outcome,) = bench.carry_out(b"", retry_count=1)
    assert (type(outcome), outcome.failure.error_class) == (Retry, "FileUnavailable")
    assert bench.executor.calls == []
    bench.project.write("file", b"")
    change(bench, "{work: {run: guest, output: {path: file/out.txt}}}")
    (outcome,) = bench.carry_out(b"x")
    assert (type(outcome), outcome.failure.error_class) == (Dead, "FileUnavailable")


def test_an_output_is_in_its_file_and_not_kept_twice(bench: Bench) -> None:
    change(bench, "{work: {run: guest, output: {path: out.txt}}}")
    (outcome,) = bench.carry_out(b"x")
    assert outcome.output == b""
    assert (bench.project.folder / "out.txt").read_bytes() == b"out"


# Ended from outside


def stopped(begun: bool) -> Answer:
    line = LogEntry(LogLevel.INFO, "a line", 5.0)
    return lambda _data, _context: InvocationResult(None, Stopped(begun=begun), (line,), 7.0)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("begun", [False, True])
def test_what_was_stopped_goes_back_or_ends_as_asked(bench: Bench, together: bool, begun: bool) -> None:
    if together:
        bench.warm_up()
    bench.executor.answer = stopped(begun)
    one, other = bench.carry_out(b"1", b"2")
    assert one == Released(1, 9, "it was stopped to let others pass", started=begun)
    assert other == one._replace(run_id=2)


def test_what_was_cancelled_keeps_its_lines(bench: Bench) -> None:
    def answer(data: bytes, context: InvocationContext) -> InvocationResult:
        bench.watch.verdicts[1] = Cancelled(1, 9, "enough")
        return stopped(True)(data, context)

    bench.executor.answer = answer
    (outcome,) = bench.carry_out(b"x")
    assert (outcome.reason, outcome.duration_ms, [line.message for line in outcome.logs]) == ("enough", 7.0, ["a line"])


@pytest.mark.parametrize("verdict", [Cancelled(2, 9, "enough"), Released(2, 9, "the daemon stopped")])
def test_what_must_not_begin_does_not(bench: Bench, verdict: Outcome) -> None:
    bench.watch.verdicts[2] = verdict
    outcomes = bench.carry_out(b"1", b"2", b"3")
    assert bench.executor.calls == [[b"1"], [b"3"]]
    wanted = verdict._replace(started=False) if isinstance(verdict, Released) else verdict
    assert outcomes[1] == wanted


def test_together_nothing_begins_that_must_not(bench: Bench) -> None:
    bench.warm_up()
    bench.watch.verdicts[2] = Cancelled(2, 9, "enough")
    outcomes = bench.carry_out(b"1", b"2", b"3")
    assert bench.executor.calls == []
    assert [type(outcome) for outcome in outcomes] == [Released, Cancelled, Released]
    assert not outcomes[0].started


def test_leaving_nothing_begins(bench: Bench) -> None:
    bench.watch.is_leaving = True
    (outcome,) = bench.carry_out(b"x")
    assert (type(outcome), outcome.started) == (Released, False)
    assert bench.executor.calls == []


def test_a_slot_that_is_caught_up_late_is_of_the_day_before_it(bench: Bench) -> None:
    ends = "input: {path: 'in-{partition}.txt', format: lines}, output: {path: 'out-{partition}.txt', format: lines}"
    change(bench, f"{{work: {{batch: {{function: guest, {ends}, partitions: {{by: day}}}}}}}}")
    bench.project.write("in-2026-03-08.txt", "a\n")
    slot = datetime(2026, 3, 9, 2, tzinfo=timezone.utc)
    (outcome,) = bench.carry_out(b"", slot=slot, trigger="work/cron/0 2 * * *")
    assert isinstance(outcome, Succeeded), outcome
    assert (bench.project.folder / "out-2026-03-08.txt").read_bytes() == b"out\n"
