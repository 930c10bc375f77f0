"""Tests in jobs.yaml: what valid ones become, and every way in which they are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from runner.cases import ERRORS
from runner.config import Choice, Config, ExpectedOutput, JobInput, Mock
from runner.errors import ConfigError
from runner.loading import load
from tests.jobs_yaml_cases import CATALOGUE

HEAD = """\
version: 1
secrets: {KEY: {env: KEY}}
functions: {f: {wasm: f.wasm, secrets: [KEY]}, both: {wasm: f.wasm}}
jobs:
  plain: {run: f}
  rows: {batch: {function: f, input: {path: a.jsonl}, output: {path: b.jsonl}}}
  days: {batch: {function: f, input: &in {path: "{partition}.jsonl"}, output: *in, partitions: {by: day}}}
  stdin: {batch: {function: f, input: {format: jsonl, path: "-"}, output: {path: b.jsonl}}}
  table: {batch: {function: f, input: {path: a.jsonl}, output: {format: table}}}
  both: {run: f}
  pipe:
    params: {day: string, limit: {type: integer, default: 1}}
    on_failure: {run: f}
    steps:
      list: {run: f}
      each: {run: f, needs: [list], foreach: "${{ steps.list.output }}"}
tests:
"""


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Config]:
    (tmp_path / "f.wasm").touch()
    monkeypatch.chdir(tmp_path)

    def load_tests(text: str) -> Config:
        Path("jobs.yaml").write_text(HEAD + text, encoding="utf-8")
        return load("jobs.yaml", CATALOGUE)

    return load_tests


def test_a_function(loaded: Callable[[str], Config]) -> None:
    config = loaded(
        "  a:\n    function: f\n    description: Keeps\n    input: {json: {b: ü}}\n    env_vars: {X: '1'}\n"
        "    secrets: {KEY: made-up}\n    expect: {output: {path: t/out.csv}, status: succeeded}\n"
    )
    case = config.tests["a"]
    assert (case.function, case.job, case.description, case.line) == ("f", None, "Keeps", 18)
    assert case.input == JobInput(data='{"b":"ü"}'.encode())
    assert (dict(case.env_vars), dict(case.secrets)) == ({"X": "1"}, {"KEY": "made-up"})
    assert case.expect.output == ExpectedOutput(form="path", value=config.folder / "t/out.csv", line=24)
    assert case.expect.succeeds
    assert "made-up" not in repr(case)


@pytest.mark.parametrize(
    ("written", "form", "value"),
    [
        ('"a\\n"', "text", "a\n"),
        ("{json: null}", "json", None),
        ("{json: [1, {a: 2.5}]}", "json", [1, {"a": 2.5}]),
        ("{contains: a}", "contains", "a"),
        ("{matches: '^a$'}", "matches", "^a$"),
    ],
)
def test_an_output(loaded: Callable[[str], Config], written: str, form: str, value: object) -> None:
    output = loaded(f"  a: {{function: f, expect: {{output: {written}}}}}").tests["a"].expect.output
    assert output is not None
    assert (output.form, output.value, output.line) == (form, value, 18)


@pytest.mark.parametrize(
    ("expect", "error"),
    [
        ("status: failed", None),
        ("message: no", None),
        ("error: InvocationError", "InvocationError"),
        ("exit_code: 3", "Exited"),
        ("exit_code: 3, error: Exited", "Exited"),
        ("trap: unreachable, message: no", "Trapped"),
    ],
)
def test_a_failure(loaded: Callable[[str], Config], expect: str, error: str | None) -> None:
    expectation = loaded(f"  a: {{function: f, expect: {{{expect}}}}}").tests["a"].expect
    assert (expectation.succeeds, expectation.error) == (False, error)


def test_records(loaded: Callable[[str], Config]) -> None:
    tests = loaded(
        "  a: {function: f, records: {path: r.jsonl}, expect: {records_in: 5, failed: 0}}\n"
        "  b: {job: rows, expect: {records_out: 3, error: RecordFailed}}\n"
        "  c: {job: days, records: {path: r.jsonl}, expect: {status: succeeded}}\n"
    ).tests
    assert isinstance(tests["a"].records, Choice)
    assert tests["a"].records.name == "jsonl"
    assert dict(tests["a"].expect.counts) == {"records_in": 5, "failed": 0}
    assert tests["b"].records is None
    assert (tests["b"].expect.succeeds, tests["b"].expect.error) == (False, "RecordFailed")
    assert tests["c"].expect.succeeds


def test_a_pipeline(loaded: Callable[[str], Config]) -> None:
    case = loaded(
        "  a:\n    job: pipe\n    params: {day: monday, limit: 3}\n"
        "    mocks: {list: {output: {json: [1]}}, each: {outputs: [a, {path: b.txt}]},\n"
        "            on_failure: {error: Trapped, message: boom}}\n"
        "    expect: {status: failed, steps: {list: succeeded, each: skipped}}\n"
    ).tests["a"]
    assert dict(case.params) == {"day": "monday", "limit": 3}
    assert case.mocks["list"] == Mock(output=JobInput(data=b"[1]"))
    assert case.mocks["each"] == Mock(outputs=(JobInput(data=b"a"), JobInput(path=Path("b.txt").absolute())))
    assert case.mocks["on_failure"] == Mock(error="Trapped", message="boom")
    assert dict(case.expect.steps) == {"list": "succeeded", "each": "skipped"}


REFUSED = {
    "{expect: {output: a}}": ": one of 'function' or 'job' is required",
    "{function: f}": ": 'expect' is required: a mapping",
    "{function: f, job: plain, expect: {output: a}}": ".job: 'job' stands beside 'function'",
    "{function: g, expect: {output: a}}": ".function: no function 'g' is declared; known: both, f",
    "{function: plain, expect: {output: a}}": ".function: no function 'plain' is declared; there is a job of that "
    "name: write `job: plain`",
    "{job: plan, expect: {output: a}}": ".job: no job 'plan' is declared; did you mean 'plain'?",
    "{job: f, expect: {output: a}}": ".job: no job 'f' is declared; there is a function of that name: write "
    "`function: f`",
    "{function: f, secrets: {KEX: a}, expect: {output: a}}": ".secrets.KEX: no secret 'KEX' is declared; did you mean",
    "{function: f, params: {a: 1}, expect: {output: a}}": ".params: 'params' goes with a pipeline",
    "{job: plain, mocks: {}, expect: {output: a}}": ".mocks: 'mocks' goes with a pipeline",
    "{job: plain, records: {path: r.jsonl}, expect: {output: a}}": ".records: 'records' goes with a function or",
    "{job: pipe, records: {path: r.jsonl}, expect: {output: a}}": ".records: 'records' goes with a function or a batch",
    "{function: f, input: a, records: {path: r.jsonl}, expect: {failed: 1}}": ".input: 'input' cannot stand beside",
    "{function: f, records: {path: r.xyz}, expect: {failed: 1}}": ".records.path: the ending of this path tells no",
    "{job: rows, input: a, expect: {failed: 1}}": ".input: a batch takes 'records'",
    "{job: days, expect: {failed: 1}}": ".job: 'days' has partitions; say with 'records'",
    "{job: stdin, expect: {failed: 1}}": ".job: 'stdin' reads standard input; say with 'records'",
    "{job: table, expect: {failed: 1}}": ".job: the output of 'table' has no `path`",
    # expectations
    "{function: f, expect: {}}": ".expect: expected at least one of output, status, error",
    "{function: f, expect: a}": ".expect: expected a mapping, got 'a'",
    "{function: f, expect: {outptu: a}}": ".expect.outptu: unknown key 'outptu'; did you mean 'output'?",
    "{function: f, expect: {output: 3}}": ".expect.output: expected a string or a mapping, got 3",
    "{function: f, expect: {output: {}}}": ".expect.output: one of 'path', 'json', 'contains' or 'matches' is required",
    "{function: f, expect: {output: {path: a, json: b}}}": ".expect.output.json: 'json' stands beside 'path'",
    "{function: f, expect: {output: {matches: '('}}}": ".expect.output.matches: not a regular expression: missing )",
    "{function: f, expect: {error: Traped}}": ".expect.error: there is no error 'Traped'; did you mean 'Trapped'?",
    "{function: f, expect: {error: timeout}}": ".expect.error: there is no error 'timeout'; did you mean 'TimedOut'?",
    "{function: f, expect: {error: 3}}": ".expect.error: expected a string, got 3",
    "{function: f, expect: {error: StoreFull}}": ".expect.error: there is no error 'StoreFull'",
    "{function: f, expect: {error: Trapped, output: a}}": ".expect.output: what fails has no output: leave out this or "
    "'error'",
    "{function: f, expect: {status: failed, output: a}}": ".expect.output: what fails has no output: leave out this or "
    "'status'",
    "{function: f, expect: {status: succeeded, message: a}}": ".expect.status: 'succeeded' cannot stand beside",
    "{function: f, expect: {status: dead}}": ".expect.status: expected one of 'succeeded', 'failed', got 'dead'",
    "{function: f, expect: {exit_code: 0}}": ".expect.exit_code: expected an integer from 1",
    "{function: f, expect: {exit_code: 1, error: Trapped}}": ".expect.error: 'exit_code' goes with Exited",
    "{function: f, expect: {trap: a, error: Exited}}": ".expect.error: 'trap' goes with Trapped",
    "{function: f, expect: {failed: 1}}": ".expect.failed: 'failed' goes with 'records' or with a batch",
    "{function: f, expect: {steps: {a: failed}}}": ".expect.steps: 'steps' goes with a pipeline",
    "{function: f, records: {path: r.jsonl}, expect: {error: Exited}}": ".expect.error: 'error' cannot be told of many "
    "records; those that fail are counted in 'failed'",
    # pipelines
    "{job: pipe, params: {dya: a}, expect: {status: failed}}": ".params.dya: job 'pipe' has no parameter 'dya'; did",
    "{job: pipe, params: {day: 3}, expect: {status: failed}}": ".params.day: expected a value of type string, got 3",
    "{job: pipe, params: {day: a}, input: a, expect: {status: failed}}": ".input: 'input' cannot stand beside 'params'",
    "{job: pipe, mocks: {lits: {output: a}}, expect: {status: failed}}": ".mocks.lits: job 'pipe' has no step 'lits'; "
    "did you mean 'list'?",
    "{job: pipe, mocks: {list: {}}, expect: {status: failed}}": ".mocks.list: one of 'output', 'outputs' or 'error'",
    "{job: pipe, mocks: {list: {outputs: [a]}}, expect: {status: failed}}": ".mocks.list.outputs: step 'list' has no",
    "{job: pipe, mocks: {list: {error: Trap}}, expect: {status: failed}}": ".mocks.list.error: there is no error",
    "{job: pipe, mocks: {list: {output: a, message: b}}, expect: {status: failed}}": ".mocks.list.message: 'message'",
    "{job: pipe, expect: {steps: {lits: failed}}}": ".expect.steps.lits: job 'pipe' has no step 'lits'; did you mean",
    "{job: pipe, expect: {steps: {list: faild}}}": ".expect.steps.list: expected one of 'succeeded', 'failed',",
    "{job: pipe, expect: {trap: unreachable}}": ".expect.trap: 'trap' is known of functions only",
}
"""A test, and how its one problem begins behind its name."""


@pytest.mark.parametrize(("case", "problem"), REFUSED.items())
def test_refused(loaded: Callable[[str], Config], case: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(f"  t: {case}")
    (told,) = caught.value.problems
    assert f"{told.where}: {told.message}".startswith(f"tests.t{problem}")
    assert told.line == 18


def test_a_job_that_is_broken_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "f.wasm").touch()
    jobs = "jobs: {j: {batch: {function: f, input: {path: a.jsonl}}}, k: {steps: {a: {run: g}}}}"
    tests = "tests: {t: {job: j, expect: {failed: 1}}, u: {job: k, expect: {status: failed}}}"
    (tmp_path / "jobs.yaml").write_text(f"version: 1\nfunctions: {{f: {{wasm: f.wasm}}}}\n{jobs}\n{tests}\n")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "jobs.yaml", CATALOGUE)
    assert [one.where for one in caught.value.problems] == ["jobs.j.batch", "jobs.k.steps.a.run"]


def test_what_can_be_expected_is_what_a_guest_or_its_input_can_cause() -> None:
    assert {"InvocationError", "Trapped", "Exited", "TimedOut", "OutOfMemory", "InvalidModule", "RecordFailed"} <= {
        *ERRORS
    }
    assert not {"StoreError", "ConfigError", "EngineUnavailable"} & {*ERRORS}
