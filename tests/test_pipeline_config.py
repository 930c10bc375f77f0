"""Pipelines in jobs.yaml: what valid steps become, and every way in which they are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from runner.config import Config
from runner.errors import ConfigError
from runner.loading import load
from runner.stepkeys import MAX_ITEMS, ConcurrencyKeys
from tests.jobs_yaml_cases import CATALOGUE

HEAD = """\
version: 1
functions: {f: {wasm: f.wasm}, g: {wasm: f.wasm}}
jobs:
  plain: {run: f}
"""

WHOLE = (
    HEAD
    + """\
  nightly:
    input: {json: {day: monday}}
    output: {path: out/merged.json}
    params:
      day: string
      limit: {type: integer, default: 10, description: How many}
      tags: {type: json, default: null}
    concurrency: {limit: 2, key: "nightly-${{ params.day }}"}
    steps:
      shards: {run: f, with: {day: "${{ params.day }}", run: "${{ run.id }}"}}
      enrich:
        run: g
        needs: [shards]
        foreach: "${{ steps.shards.output.files }}"
        max_parallel: 8
        max_items: 50
        on_item_error: ignore
        with: {file: "${{ item.name }}", n: "${{ index }}", all: "${{ input.day }}"}
        retry_count: 3
        retry_delay_seconds: 0.5
        timeout_seconds: 2
      merge: {job: plain, needs: [enrich], with: "${{ steps.enrich.outputs }}", if: "${{ params.limit }} > 3"}
      tell: {run: f, needs: [merge, shards], if: failure(), with: "${{ failure.message }}", description: Tells}
    on_failure: {run: g, with: "${{ failure.step }} of ${{ steps.shards.status }}"}
"""
)


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Config]:
    (tmp_path / "f.wasm").touch()
    monkeypatch.chdir(tmp_path)

    def load_text(text: str) -> Config:
        Path("jobs.yaml").write_text(text, encoding="utf-8")
        return load("jobs.yaml", CATALOGUE)

    return load_text


@pytest.fixture
def problems(loaded: Callable[[str], Config]) -> Callable[[str], list[str]]:
    def problems_of(text: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            loaded(text)
        return [str(problem) for problem in caught.value.problems]

    return problems_of


def test_steps(loaded: Callable[[str], Config]) -> None:
    job = loaded(WHOLE).jobs["nightly"]
    assert (job.run or "", list(job.steps)) == ("", ["shards", "enrich", "merge", "tell"])
    shards, enrich, merge, tell = job.steps.values()
    assert (shards.run, shards.job, shards.needs, shards.foreach, shards.condition) == (
        "f",
        None,
        (),
        None,
        "success()",
    )
    assert shards.sends == {"day": "${{ params.day }}", "run": "${{ run.id }}"}
    assert (shards.max_items, shards.on_item_error, shards.retry_count, shards.line) == (MAX_ITEMS, "stop", None, 14)
    assert (enrich.needs, enrich.foreach, enrich.line) == (("shards",), "${{ steps.shards.output.files }}", 15)
    assert (enrich.max_parallel, enrich.max_items, enrich.on_item_error) == (8, 50, "ignore")
    assert (enrich.retry_count, enrich.retry_delay_seconds, enrich.timeout_seconds) == (3, 0.5, 2)
    assert (merge.run, merge.job, merge.condition) == (None, "plain", "${{ params.limit }} > 3")
    assert (tell.needs, tell.condition, tell.description) == (("merge", "shards"), "failure()", "Tells")
    assert job.functions == ("f", "g")


def test_what_belongs_to_the_whole(loaded: Callable[[str], Config]) -> None:
    config = loaded(WHOLE)
    job = config.jobs["nightly"]
    day, limit, tags = job.params.values()
    assert (day.type, day.required, day.default) == ("string", True, None)
    assert (limit.type, limit.required, limit.default, limit.description) == ("integer", False, 10, "How many")
    assert (tags.required, tags.default) == (False, None)
    assert job.concurrency == ConcurrencyKeys(limit=2, key="nightly-${{ params.day }}")
    assert job.on_failure is not None
    assert (job.on_failure.name, job.on_failure.run, job.on_failure.line) == ("on_failure", "g", 28)
    assert job.on_failure.needs == tuple(job.steps)
    plain = config.jobs["plain"]
    assert (dict(plain.steps), dict(plain.params), plain.concurrency, plain.on_failure) == ({}, {}, None, None)


@pytest.mark.parametrize(
    "steps",
    [
        "{a: {run: f, foreach: [1, two, {three: 3}]}}",
        "{a: {run: f, foreach: ['${{ input.x }}']}}",
        "{a: {run: f, foreach: '${{ input }}', with: '${{ item }}'}}",
        "{b: {run: f, needs: [a], with: '${{ steps.a.text }}'}, a: {run: f}}",
        "{a: {run: f}, b: {run: f, needs: [a]}, c: {run: f, needs: [b], with: '${{ steps.a.output }}'}}",
        "{a: {run: f}, b: {run: f, needs: [a], if: \"${{ steps.a.status }} in ['failed', 'skipped']\"}}",
        "{a: {run: f, with: 'costs $${{5}}'}}",
        "{a: {run: f, with: []}}",
        "{a: {job: plain}, b: {job: plain}}",
        "{on_failure: {run: f}}",
    ],
)
def test_fine(loaded: Callable[[str], Config], steps: str) -> None:
    assert loaded(f"{HEAD}  p: {{steps: {steps}}}\n").jobs["p"].steps


def test_a_number_is_a_limit(loaded: Callable[[str], Config]) -> None:
    job = loaded(f"{HEAD}  p: {{steps: {{a: {{run: f}}}}, concurrency: 3}}\n").jobs["p"]
    assert job.concurrency == ConcurrencyKeys(limit=3)


STEPS = {
    "{}": "steps: a pipeline has at least one step",
    "[]": "steps: expected a mapping, got a list",
    "null": "steps: expected a mapping, got nothing",
    "{1a: {run: f}}": "steps['1a']: expected a name",
    "{a: f}": "steps.a: expected a mapping, got 'f'",
    "{a: {}}": "steps.a: one of 'run' or 'job' is required",
    "{a: {run: f, job: plain}}": "steps.a.job: 'job' stands beside 'run'; exactly one of",
    "{a: {run: ff}}": "steps.a.run: no function 'ff' is declared; did you mean 'f'?",
    "{a: {run: plain}}": "no function 'plain' is declared; there is a job of that name: write `job: plain`",
    "{a: {job: plane}}": "steps.a.job: no job 'plane' is declared; did you mean 'plain'?",
    "{a: {job: f}}": "no job 'f' is declared; there is a function of that name: write `run: f`",
    "{a: {job: p}}": "steps.a.job: a cycle: 'p' starts 'p'",
    "{a: {job: plain, retry_count: 1}}": "retry_count: 'retry_count' goes with `run`; a job that is started has its",
    "{a: {run: f, depends_on: []}}": "unknown key 'depends_on'; did you mean 'needs'?",
    "{a: {run: f, with: null}}": "steps.a.with: expected a value, got nothing; leave the key out if nothing is meant",
    # needs
    "{a: {run: f, needs: b}}": "steps.a.needs: expected a list, got 'b'",
    "{a: {run: f, needs: [b]}}": "steps.a.needs[0]: no step 'b' in this pipeline",
    "{first: {run: f}, a: {run: f, needs: [frist]}}": "no step 'frist' in this pipeline; did you mean 'first'?",
    "{b: {run: f}, a: {run: f, needs: [b, b]}}": "steps.a.needs[1]: 'b' stands here twice",
    "{a: {run: f, needs: [a]}}": "steps.a.needs: a cycle: 'a' needs 'a'",
    "{a: {run: f, needs: [b]}, b: {run: f, needs: [a], with: '${{ steps.a.output }}'}}": "'a' needs 'b'",
    # foreach
    "{a: {run: f, foreach: 3}}": "foreach: expected a list, or a text that is one look-up such as ${{ steps.NAME.out",
    "{a: {run: f, foreach: {a: b}}}": "foreach: expected a list, or a text that is one look-up",
    "{a: {run: f, foreach: files}}": "foreach: expected a list, or a text that is one look-up",
    "{a: {run: f, foreach: 'x${{ input }}'}}": "foreach: expected a list, or a text that is one look-up",
    "{a: {run: f, foreach: '${{ input'}}": "steps.a.foreach: `${{` without `}}`",
    "{a: {run: f, foreach: ['${{ item }}']}}": "steps.a.foreach[0]: `${{ item }}`: there is no 'item' without a",
    "{a: {run: f, foreach: '${{ params.day }}'}}": "params.day is of type string, and a list is needed; declare it as",
    "{a: {run: f, foreach: [1], max_parallel: 0}}": "max_parallel: expected an integer from 1 to 1000000, got 0",
    "{a: {run: f, foreach: [1], on_item_error: skip}}": "expected one of 'stop', 'continue', 'ignore', got 'skip'",
    "{a: {run: f, max_parallel: 2}}": "max_parallel: 'max_parallel' goes with a `foreach`, and there is none",
    "{a: {run: f, on_item_error: stop}}": "'on_item_error' goes with a `foreach`, and there is none",
    # look-ups
    "{a: {run: f, with: '${{ parms.day }}'}}": "with: `${{ parms.day }}`: there is no 'parms' here; did you mean",
    "{a: {run: f, with: {x: ['${{ params.dya }}']}}}": "steps.a.with.x[0]: `${{ params.dya }}`: params has no 'dya'",
    "{a: {run: f, with: '${{ item }}'}}": "there is no 'item' without a `foreach`",
    "{a: {run: f, with: '${{ run.idd }}'}}": "run has no 'idd'; did you mean 'id'?",
    "{a: {run: f, with: '${{ run }}'}}": "'run' alone says nothing; it has id, job,",
    "{a: {run: f, with: '${{ steps }}'}}": "which step? Write steps.NAME.output",
    "{a: {run: f, with: '${{ steps.b.output }}'}}": "no step 'b' in this pipeline",
    "{a: {run: f, with: '${{ steps.a.output }}'}}": "a step cannot look itself up",
    "{a: {run: f}, b: {run: f, with: '${{ steps.a.output }}'}}": "may not have ended by then; add 'a' to `needs`",
    "{a: {run: f}, b: {run: f, needs: [a], with: '${{ steps.a }}'}}": "steps.a has status, output, text",
    "{a: {run: f}, b: {run: f, needs: [a], with: '${{ steps.a.outptu.x }}'}}": "did you mean 'output'?",
    "{a: {run: f}, b: {run: f, needs: [a], with: '${{ steps.a.outputs }}'}}": "'a' has no `foreach`, so it has one",
    "{a: {run: f, foreach: [1]}, b: {run: f, needs: [a], with: '${{ steps.a.output }}'}}": "so it has many outputs",
    "{a: {run: f, with: '${{ a b }}'}}": "steps.a.with: `${{ a b }}` is no look-up: expected a path",
    "{a: {run: f, with: {'${{ run.id }}': 1}}}": "steps.a.with: a look-up cannot stand in a key",
    "{a: {run: f, with: '${{ failure.step }}'}}": "there is no 'failure' here",
    # if
    "{a: {run: f, if: true}}": "steps.a.if: expected a string, got true; put it in quotes",
    "{a: {run: f, if: sucess()}}": "steps.a.if: no function sucess(); did you mean success()?",
    "{a: {run: f, if: '${{ params.limit > 3 }}'}}": "a comparison has its braces around the look-ups only",
    "{a: {run: f, if: '${{ params.limti }} > 3'}}": "steps.a.if: `${{ params.limti }}`: params has no 'limti'",
    "{a: {run: f, foreach: [1], if: '${{ item }} > 3'}}": "there is no 'item' without a `foreach`, nor in `if`",
}


@pytest.mark.parametrize("steps", STEPS)
def test_refused_steps(problems: Callable[[str], list[str]], steps: str) -> None:
    found = problems(f"{HEAD}  p:\n    params: {{day: string, limit: integer}}\n    steps: {steps}\n")
    assert len(found) == 1, found
    assert found[0].startswith(("jobs.yaml:7:", "jobs.yaml:5:"))
    assert STEPS[steps] in found[0]


JOBS = {
    "{run: f, params: {a: string}}": "p.params: 'params' belongs to a pipeline, which has `steps`",
    "{run: f, concurrency: 1}": "'concurrency' belongs to a pipeline",
    "{run: f, on_failure: {run: f}}": "'on_failure' belongs to a pipeline",
    "{steps: {a: {run: f}}, run: f}": "exactly one of 'run', 'steps' and 'batch' is allowed",
    "{steps: {a: {run: f}, b: {run: f}}, output: {path: x}}": "p.output: the steps 'a' and 'b' are all last",
    "{steps: {a: {run: f}}, params: {a: text}}": "params.a: expected one of 'string', 'integer', 'number', 'boolean'",
    "{steps: {a: {run: f}}, params: {a: {default: 3}}}": "params.a: 'type' is required",
    "{steps: {a: {run: f}}, params: {a: {type: integer, default: 3.5}}}": "default: expected a default of type integer",
    "{steps: {a: {run: f}}, params: {a: {type: integer, default: true}}}": "a default of type integer, got true",
    "{steps: {a: {run: f}}, params: {a: {type: string, default: null}}}": "a default of type string, got nothing",
    "{steps: {a: {run: f}}, concurrency: 0}": "p.concurrency: expected an integer >= 1",
    "{steps: {a: {run: f}}, concurrency: {key: a}}": "p.concurrency: 'limit' is required",
    "{steps: {a: {run: f}}, concurrency: {limit: 1, key: '${{ steps.a.output }}'}}": "concurrency.key: `${{ steps.a",
    "{steps: {a: {run: f}}, concurrency: {limit: 1, key: '${{'}}": "concurrency.key: `${{` without",
    "{steps: {a: {run: f}}, on_failure: {run: ff}}": "p.on_failure.run: no function 'ff'",
    "{steps: {a: {run: f}}, on_failure: {run: f, needs: [a]}}": "on_failure.needs: unknown key 'needs'",
    "{steps: {a: {run: f}}, on_failure: {run: f, with: '${{ failure.stpe }}'}}": "failure has no 'stpe'; did you mean",
    "{steps: {a: {run: f}}, on_failure: {job: p}}": "p.on_failure.job: a cycle: 'p' starts 'p'",
    "{steps: {on_failure: {run: f}}, on_failure: {run: f}}": "'on_failure' is the name of what runs on failure",
}


@pytest.mark.parametrize("job", JOBS)
def test_refused_jobs(problems: Callable[[str], list[str]], job: str) -> None:
    found = problems(f"{HEAD}  p: {job}\n")
    assert len(found) == 1, found
    assert found[0].startswith("jobs.yaml:5:")
    assert JOBS[job] in found[0]


def test_jobs_that_start_each_other(problems: Callable[[str], list[str]]) -> None:
    text = HEAD + "".join(f"  p{n}: {{steps: {{s: {{job: p{(n + 1) % 3}}}}}}}\n" for n in range(3))
    (found,) = problems(text)
    assert "a cycle: 'p" in found
    assert found.count("starts") == 3


STUCK = {
    "the same key": ("{limit: 1, key: same}", "{limit: 3, key: same}", "key 'same' while it waits for 'inner'"),
    "a job's name": ("{limit: 1, key: inner}", "1", "key 'inner' while it waits for 'inner'"),
}


@pytest.mark.parametrize("case", STUCK)
def test_runs_that_would_wait_for_each_other(problems: Callable[[str], list[str]], case: str) -> None:
    outer, inner, told = STUCK[case]
    text = f"""{HEAD}  outer: {{concurrency: {outer}, steps: {{s: {{job: between}}}}}}
  between: {{steps: {{s: {{job: inner}}}}}}
  inner: {{concurrency: {inner}, steps: {{s: {{run: f}}}}}}
"""
    (found,) = problems(text)
    assert found.startswith("jobs.yaml:5:")
    assert "outer.concurrency: runs would wait for each other for ever: 'outer' has the " + told in found


def test_keys_taken_in_two_orders(problems: Callable[[str], list[str]], loaded: Callable[[str], Config]) -> None:
    jobs = {"a": ("one", "b"), "b": ("two", None), "c": ("two", "d"), "d": ("one", None)}
    lines = [
        f"  {name}: {{concurrency: {{limit: 1, key: {key}}}, steps: {{s: {{{f'job: {job}' if job else 'run: f'}}}}}}}\n"
        for name, (key, job) in jobs.items()
    ]
    (found,) = problems(HEAD + "".join(lines))
    assert "'a' has the key 'one' while it waits for 'b'" in found
    assert "'c' has the key 'two' while it waits for 'd', which has the key" in found
    loaded(HEAD + "".join(lines[:2]))
    loaded((HEAD + "".join(lines)).replace("key: one", "key: 'one-${{ run.id }}'"))


def test_a_long_pipeline(loaded: Callable[[str], Config], problems: Callable[[str], list[str]]) -> None:
    steps = ["      s0: {run: f}"]
    steps += [
        f"      s{n}: {{run: f, needs: [s{n - 1}], with: '${{{{ steps.s{n - 1}.output }}}}'}}" for n in range(1, 3000)
    ]
    text = HEAD + "  p:\n    steps:\n" + "\n".join(steps) + "\n"
    assert len(loaded(text).jobs["p"].steps) == 3000
    found = problems(text.replace("s0: {run: f}", "s0: {run: f, needs: [s2999]}"))
    assert len(found) == 1
