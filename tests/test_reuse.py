"""Results that are used again, as users see it: the same bytes, only where all is the same, and told of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.batch.counts import Counts
from runner.batch.reusing import BLOCK_RECORDS, KEEP_SECONDS, Memory, Reusing
from runner.errors import InvocationError
from runner.models import Function, InvocationResult
from runner.recipe import Recipe, keys
from runner.results import NewResult
from runner.reuse import Reuse
from runner.testing import MemoryResultCache
from tests.cli_project import EXECUTOR, CliProject
from tests.support import context, function

NOW = 1_800_000_000.0
PURE = replace(function(), pure=True)


class Bench:
    """Results in memory, and what was made because it was not known."""

    def __init__(self) -> None:
        self.cache = MemoryResultCache(max_bytes=1 << 20)
        self.identity: str | None = "engine 1"
        self.enabled = True
        self.made: list[bytes] = []
        self.opened = 0
        self.reuse = Reuse(
            enabled=lambda: self.enabled, open_cache=self.open, identity=lambda _: self.identity, now=lambda: NOW
        )

    def open(self) -> MemoryResultCache:
        self.opened += 1
        return self.cache

    def make(self, inputs: Sequence[bytes]) -> Iterator[InvocationResult]:
        for input in inputs:
            self.made.append(input)
            failed = InvocationError("bad") if b"bad" in input else None
            yield InvocationResult(None if failed else input.upper(), failed, (), 1.5, 100)

    def runs(self, *inputs: bytes, of: Function = PURE, first: int = 1, **env_vars: str) -> list[InvocationResult]:
        run_ids = range(first, first + len(inputs))
        return list(self.reuse.recalled(of, inputs, env_vars, run_ids, self.make))


def state(result: InvocationResult) -> str:
    return str(json.loads(result.reuse)["state"]) if result.reuse else ""


# One project's results


def test_what_is_known_is_not_made_again() -> None:
    bench = Bench()
    assert [state(each) for each in bench.runs(b"a", b"b")] == ["new", "new"]
    again = bench.runs(b"b", b"c", b"a", first=7)
    assert [each.output for each in again] == [b"B", b"C", b"A"]
    assert [state(each) for each in again] == ["reused", "new", "reused"]
    assert bench.made == [b"a", b"b", b"c"]
    assert json.loads(again[0].reuse)["from"]["run_id"] == 2
    assert (again[0].duration_ms, again[0].memory_peak_bytes) == (0.0, 100)


def test_failures_are_never_kept() -> None:
    bench = Bench()
    for _ in range(2):
        good, bad = bench.runs(b"good", b"bad")
        assert (good.output, bad.output, bad.reuse) == (b"GOOD", None, "")
    assert bench.made == [b"good", b"bad", b"bad"]


@pytest.mark.parametrize(
    "change",
    [{"wasm_cid": "other"}, {"memory_limit_mb": 65}, {"timeout_seconds": 31.0}, {"name": "other"}],
    ids=str,
)
def test_another_function_is_another_result(change: dict[str, Any]) -> None:
    bench = Bench()
    bench.runs(b"a", A="1")
    bench.runs(b"a", of=replace(PURE, **change), A="1")
    bench.runs(b"a", of=replace(PURE, version=9, id="other", retry_count=3), A="1")
    assert bench.made == [b"a", b"a"]


def test_another_environment_or_executor_is_another_result() -> None:
    bench = Bench()
    bench.runs(b"a", A="1")
    bench.runs(b"a", A="2")
    bench.identity = "engine 2"
    bench.runs(b"a", A="1")
    assert bench.made == [b"a"] * 3


def test_without_a_whole_key_nothing_is_kept() -> None:
    bench = Bench()
    bench.identity = None
    assert [state(bench.runs(b"a")[0]) for _ in range(2)] == ["unknown", "unknown"]
    bench.identity, bench.enabled = "engine 1", False
    assert [state(bench.runs(b"a")[0]) for _ in range(2)] == ["off", "off"]
    assert bench.made == [b"a"] * 4
    assert (bench.opened, bench.cache.stats().results) == (0, 0)
    assert bench.reuse.recipe(replace(PURE, pure=False), {}) is None


def test_a_backend_may_keep_no_results() -> None:
    made: list[bytes] = []
    reuse = Reuse(enabled=lambda: True, open_cache=lambda: None, identity=lambda _: "engine", now=lambda: NOW)

    def run(_: Function, input: bytes, __: Any) -> InvocationResult:
        made.append(input)
        return InvocationResult(b"out", None)

    for _ in range(2):
        assert reuse.once(run, PURE, b"a", context()).output == b"out"
    assert made == [b"a", b"a"]
    reuse.close()


def test_what_was_made_until_it_was_stopped_is_kept() -> None:
    bench = Bench()
    results = bench.reuse.recalled(PURE, [b"a", b"b", b"c"], {}, [1, 2, 3], bench.make)
    next(results)
    results.close()
    bench.runs(b"a", b"b")
    assert bench.made == [b"a", b"b"]


# Batches


class Batch:
    """A Reusing over a Bench."""

    def __init__(self) -> None:
        self.bench, self.counts, self.seconds = Bench(), Counts(), 0.0
        recipe = Recipe.of(PURE, {}, "engine 1").digest()
        reuse = self.bench.reuse
        self.memory = Memory(
            find=lambda inputs: reuse.find(recipe, inputs), keep=lambda results: reuse.put(PURE, results)
        )
        self.calls = 0

    def execute(self, inputs: Iterator[bytes]) -> Iterator[InvocationResult]:
        self.calls += 1
        yield from self.bench.make(list(inputs))

    def run(self, inputs: Sequence[bytes]) -> Iterator[InvocationResult]:
        yield from Reusing(self.execute, self.counts, self.memory, lambda: self.seconds)(iter(inputs))


def test_a_batch_runs_what_is_missing_and_keeps_the_order() -> None:
    batch = Batch()
    first = [b"%d" % number for number in range(0, 1000, 3)]
    assert [each.output for each in batch.run(first)] == first
    every = [b"%d" % number for number in range(1000)]
    assert [each.output for each in batch.run(every)] == every
    assert sorted(batch.bench.made) == sorted(every)
    assert (batch.counts.records_reused, batch.counts.attempts) == (334, -334)
    assert [each.output for each in batch.run(every)] == every
    assert batch.calls == 2  # nothing was missing: nothing was started


def test_a_batch_of_more_than_a_block() -> None:
    batch = Batch()
    inputs = [b"%d" % number for number in range(2 * BLOCK_RECORDS + 5)]
    assert [each.output for each in batch.run(inputs)] == inputs
    assert batch.calls == 3
    assert list(batch.run([])) == []


def test_a_batch_keeps_what_it_made_also_when_it_is_given_up() -> None:
    batch = Batch()
    results = batch.run([b"a", b"bad", b"c", b"d"])
    assert [next(results).output for _ in range(3)] == [b"A", None, b"C"]
    assert batch.bench.cache.stats().results == 0
    results.close()  # type: ignore[attr-defined]
    assert batch.bench.cache.stats().results == 2
    slow = batch.run([b"e", b"f", b"g"])
    next(slow)
    batch.seconds += 2 * KEEP_SECONDS
    next(slow)
    assert batch.bench.cache.stats().results == 4


# As users see it


@pytest.fixture
def project(tmp_path: Path) -> CliProject:
    cli = CliProject(tmp_path)
    cli.declare("{j: {run: echo, input: text}}", echo=", pure: true")
    return cli


def why(cli: CliProject, run: int) -> dict[str, Any]:
    (row,) = cli.ok("why", str(run), "--json").rows
    found: dict[str, Any] = row["reuse"]
    return found


def serve(cli: CliProject, *runs: tuple[str, ...], options: tuple[str, ...] = ()) -> None:
    for run in runs:
        cli.ok("enqueue", *run)
    cli.ok("serve", "--drain", "-q", *options)


def reused(cli: CliProject, *arguments: str) -> int:
    done = cli.ok("run", "j", "--json", *arguments)
    return int(done.rows[0]["records_reused"])


def test_run_uses_results_again_and_gives_the_same_bytes(project: CliProject) -> None:
    first = project.ok("run", "j")
    again = project.ok("run", "j")
    assert first.out == again.out == b"text"
    assert "reused" in again.err
    assert [reused(project), reused(project, "--no-reuse")] == [1, 0]
    text = (project.folder / "jobs.yaml").read_text()
    project.write("jobs.yaml", f"{text}reuse: {{enabled: false}}\n")
    assert reused(project) == 0
    project.write("jobs.yaml", text)
    assert reused(project) == 1


def test_a_function_that_is_not_pure_is_run_each_time(project: CliProject) -> None:
    project.declare("{j: {run: echo, input: text}}")
    assert [reused(project), reused(project)] == [0, 0]
    assert not (project.folder / ".runner/runner-results.db").exists()


def test_invoke_reuses_when_it_is_asked_to(project: CliProject) -> None:
    for arguments in ((), (), ("--reuse",), ("--reuse",)):
        done = project.ok("invoke", "echo", "--input", "text", "--json", *arguments)
        assert done.rows[0]["output"] == "text"
        known = done.rows[0]["duration_ms"] == 0
    assert known
    (stats,) = project.ok("cache", "stats", "--json").rows
    assert (stats["results"], stats["enabled"], stats["functions"][0]["function"]) == (1, True, "echo")


def test_output_files_are_written_from_known_results(project: CliProject) -> None:
    project.declare("{j: {run: echo, input: text, output: {path: out.txt}}}", echo=", pure: true")
    for _ in range(2):
        project.ok("run", "j")
        assert (project.folder / "out.txt").read_bytes() == b"text"
        (project.folder / "out.txt").unlink()
    serve(project, ("j",))
    assert (project.folder / "out.txt").read_bytes() == b"text"
    assert why(project, 1)["verdict"] == "reused"


def test_why_tells_of_runs_in_the_queue(project: CliProject) -> None:
    serve(project, ("j", "--input", "a"))
    serve(project, ("j", "--input", "a"), ("j", "--input", "b"))
    serve(project, ("j", "--input", "a"), options=("--no-reuse",))
    assert why(project, 1) == {"verdict": "first", "run_id": None, "made_at": None, "differences": []}
    assert (why(project, 2)["verdict"], why(project, 2)["run_id"]) == ("reused", 1)
    assert why(project, 2)["made_at"] is not None
    third = why(project, 3)
    assert (third["verdict"], [each["part"] for each in third["differences"]]) == ("differs", ["input"])
    assert why(project, 4)["verdict"] == "off"
    assert project.ok("cache", "clear", "--function", "echo", "--json").rows == [{"cleared": 2}]
    project.declare("{j: {run: echo, input: text, env_vars: {A: '1'}}}", echo=", pure: true, memory_limit_mb: 32")
    serve(project, ("j", "--input", "a"))
    assert [each["part"] for each in why(project, 5)["differences"]] == ["env_vars", "limits"]
    project.ok("cache", "clear")
    serve(project, ("j", "--input", "a"))
    assert (why(project, 6)["verdict"], why(project, 6)["run_id"]) == ("gone", 5)
    text = project.ok("why", "6").text
    assert "the result of run 5 is not kept" in text
    assert "that of run 1, made" in project.ok("why", "2").text
    project.declare("{j: {run: echo, input: text}}")
    serve(project, ("j", "--input", "a"))
    assert why(project, 7)["verdict"] == "impure"


def test_batches_reuse_records(project: CliProject) -> None:
    batch = "{function: echo, input: {path: in.txt}, output: {path: out.txt}}"
    project.declare(f"{{j: {{batch: {batch}}}}}", echo=", pure: true")
    lines = [f"line {number}\n" for number in range(500)]
    project.write("in.txt", "".join(lines))
    reports = [project.ok("batch", "j", "--json").rows[0] for _ in range(2)]
    assert [(each["records_reused"], each["attempts"]) for each in reports] == [(0, 500), (500, 0)]
    assert (project.folder / "out.txt").read_text() == "".join(lines)
    project.write("in.txt", "new\n" + "".join(lines))
    (report,) = project.ok("batch", "j", "--json").rows
    assert (report["records_reused"], report["attempts"], report["records_in"]) == (500, 1, 501)
    assert (project.folder / "out.txt").read_text() == "new\n" + "".join(lines)
    (report,) = project.ok("batch", "j", "--json", "--no-reuse").rows
    assert (report["records_reused"], report["attempts"]) == (0, 501)


def test_tests_run_what_they_test(project: CliProject) -> None:
    text = (project.folder / "jobs.yaml").read_text()
    case = "{function: echo, input: x, expect: {output: x}}"
    project.write("jobs.yaml", f"{text}tests: {{a: {case}, b: {case}}}\n")
    project.ok("test")
    assert not (project.folder / ".runner/runner-results.db").exists()


def test_a_damaged_file_of_results_is_told_of_and_work_goes_on(project: CliProject) -> None:
    assert reused(project) == 0
    project.write(".runner/runner-results.db", b"no database" * 1000)
    done = project.ok("run", "j")
    assert done.out == b"text"
    assert done.err.count("is made anew") == 1
    assert reused(project) == 1


def test_results_are_of_one_executor(project: CliProject) -> None:
    if EXECUTOR == "wasmtime":
        pytest.skip("one executor is here")
    assert reused(project) == 0
    text = (project.folder / "jobs.yaml").read_text()
    project.write("jobs.yaml", text.replace(f"executor: {EXECUTOR}", "executor: wasmtime"))
    assert [reused(project), reused(project)] == [0, 1]


def test_what_a_key_is_made_of_is_all_that_a_cache_is_asked() -> None:
    """The conformance of Reuse to recipe and results: what is put by hand under a key is found."""
    bench = Bench()
    (key,) = keys(Recipe.of(PURE, {}, "engine 1").digest(), [b"a"])
    bench.cache.put("shop", "clean", [NewResult(key, b"by hand", 0.0, 0)], now=NOW)
    assert bench.runs(b"a")[0].output == b"by hand"
    assert bench.made == []
