"""`runner test` over pipelines: steps that really run, steps that are mocked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli_project import CliProject, Done

JOBS = """{
  fixed: {run: echo, input: fixed, output: {path: fixed.txt}},
  batch: {batch: {function: echo, input: {path: in.txt}, output: {path: out.txt}}},
  night: {
    params: {names: json, word: {type: string, default: Hi}},
    input: {json: {names: [Ada, Grace]}},
    output: {path: night.json},
    on_failure: {run: echo, with: "${{ failure.step }}"},
    steps: {
      list: {run: echo, with: {names: "${{ params.names }}"}},
      each: {run: echo, needs: [list], foreach: "${{ steps.list.output.names }}",
             with: {name: "${{ item }}", place: "${{ index }}"}},
      join: {run: echo, needs: [each], with: {all: "${{ steps.each.outputs }}", word: "${{ params.word }}"}}}},
  careful: {
    steps: {
      charge: {run: trap},
      log: {run: log, needs: [charge], with: charged},
      refund: {run: echo, needs: [charge], if: failure(), with: "no ${{ run.job }}"},
      last: {run: echo, needs: [log, refund], if: always(), with: "${{ steps.charge.status }}"}}},
  outer: {steps: {a: {job: night}, b: {job: fixed, needs: [a]}, c: {run: echo, needs: [b],
          with: {a: "${{ steps.a.text }}", b: "${{ steps.b.text }}"}}}},
  uses_batch: {steps: {rows: {job: batch}, after: {run: echo, needs: [rows], with: "${{ steps.rows.text }}"}}},
  named: {env_vars: {NAME: job}, steps: {a: {run: env}}},
  slow: {steps: {a: {run: loop, timeout_seconds: 0.3}}},
  waits: {concurrency: 1, steps: {a: {run: echo, with: done}}}}
"""
NIGHT = '{json: {all: [{name: Ada, place: 0}, {name: Grace, place: 1}], word: "Hi"}}'


@pytest.fixture
def project(tmp_path: Path) -> CliProject:
    return CliProject(tmp_path)


def run(project: CliProject, tests: str) -> Done:
    project.declare(JOBS, trap=", retry_count: 3, retry_delay_seconds: 3600")
    project.write("in.txt", "a\n")
    jobs = (project.folder / "jobs.yaml").read_text()
    project.write("jobs.yaml", f"{jobs}tests:\n{tests}")
    return project.run("test", "--json")


@pytest.mark.parametrize(
    "case",
    [
        f"{{job: night, expect: {{output: {NIGHT}, steps: {{each: succeeded, on_failure: skipped}}}}}}",
        "{job: night, params: {names: [], word: Bye}, expect: {output: {json: {all: [], word: Bye}}}}",
        "{job: night, input: '{\"names\": [1]}', expect: {output: {json: {all: [{name: 1, place: 0}], word: Hi}}}}",
        "{job: night, input: nonsense, expect: {error: LookupFailed, message: input is no JSON}}",
        # mocks
        "{job: night, mocks: {each: {output: {json: 7}}}, expect: {output: {json: {all: [7, 7], word: Hi}}}}",
        "{job: night, mocks: {each: {outputs: ['1', {json: [2]}]}},"
        " expect: {output: {json: {all: [1, [2]], word: Hi}}}}",
        "{job: night, mocks: {list: {output: {path: names.json}}}, expect: {output: {contains: Linus}}}",
        "{job: night, mocks: {join: {output: mocked}}, expect: {output: mocked}}",
        "{job: night, mocks: {each: {error: Exited, message: oh no}},"
        " expect: {error: Exited, message: 'step ''each'' failed for 2 of 2 items: item 0: oh no',"
        " steps: {list: succeeded, each: failed, join: skipped, on_failure: succeeded}}}",
        # failures
        "{job: careful, expect: {error: Trapped, message: unreachable,"
        " steps: {charge: failed, log: skipped, refund: succeeded, last: succeeded}}}",
        "{job: careful, mocks: {charge: {output: ''}}, expect: {output: succeeded,"
        " steps: {log: succeeded, refund: skipped}}}",
        "{job: careful, mocks: {charge: {error: Trapped}, refund: {error: Exited}}, expect: {error: Trapped}}",
        "{job: slow, expect: {error: TimedOut, message: 0.3 s}}",
        # jobs that steps start
        "{job: outer, expect: {output: {json: {a: '', b: ''}}}}",
        "{job: outer, mocks: {a: {output: {json: 1}}, b: {output: text}}, expect: {output: {json: {a: '1', b: text}}}}",
        "{job: uses_batch, mocks: {rows: {output: 3 rows}}, expect: {output: 3 rows}}",
        # the rest of the job
        "{job: named, expect: {output: job}}",
        "{job: named, env_vars: {NAME: test}, expect: {output: test}}",
        "{job: waits, expect: {output: done}}",
    ],
)
def test_passes(project: CliProject, case: str) -> None:
    project.write("names.json", '{"names": ["Linus"]}')
    done = run(project, f"  t: {case}\n")
    assert done.status == 0, done.text
    assert not {"fixed.txt", "night.json", "out.txt"} & {path.name for path in project.folder.iterdir()}


@pytest.mark.parametrize(
    ("case", "status", "message"),
    [
        (
            "{job: night, expect: {steps: {join: skipped}}}",
            "failed",
            "step join: expected skipped, got succeeded",
        ),
        (
            "{job: night, params: {names: 3}, expect: {output: ''}}",
            "failed",
            "expected it to succeed, and it failed: LookupFailed: step 'each' failed: steps.each.foreach is a number",
        ),
        (
            "{job: night, params: {word: a}, expect: {output: ''}}",
            "failed",
            "expected it to succeed, and it failed: LookupFailed: the parameter 'names' has no value",
        ),
        (
            "{job: night, mocks: {each: {outputs: ['1']}}, expect: {output: ''}}",
            "error",
            "step 'each' has more items than the 1 outputs of its mock",
        ),
        (
            "{job: uses_batch, expect: {output: ''}}",
            "error",
            "step 'rows' starts the batch 'batch', of which a test writes nothing where other steps would look for it; "
            "mock it: mocks: {rows: {output: ...}}",
        ),
        (
            "{job: night, mocks: {list: {output: {path: nowhere}}}, expect: {output: ''}}",
            "error",
            "the input /",
        ),
    ],
)
def test_goes_wrong(project: CliProject, case: str, status: str, message: str) -> None:
    (row,) = run(project, f"  t: {case}\n").rows
    assert (row["status"], row["message"][: len(message)]) == (status, message)


def test_steps_tell_what_they_logged(project: CliProject) -> None:
    tests = "  t: {job: careful, mocks: {charge: {output: ''}}, expect: {output: other}}\n"
    (row,) = run(project, tests).rows
    assert row["stderr_tail"] == "log: charged"


def test_what_is_mocked_need_not_even_compile(project: CliProject) -> None:
    project.declare("{pipe: {steps: {a: {run: broken}, b: {run: echo, needs: [a], with: '${{ steps.a.output.n }}'}}}}")
    project.write("functions/broken.wat", "(nonsense)")
    text = (project.folder / "jobs.yaml").read_text()
    text = text.replace("functions:\n", "functions:\n  broken: {source: functions/broken.wat}\n", 1)
    tests = "tests:\n  a: {job: pipe, mocks: {a: {output: {json: {n: 5}}}}, expect: {output: '5'}}\n"
    project.write("jobs.yaml", f"{text}{tests}  b: {{job: pipe, expect: {{output: '5'}}}}\n")
    rows = project.run("test", "--json").rows
    assert [(row["status"], row["error_class"]) for row in rows] == [("passed", None), ("error", "BuildError")]


def test_many_items(project: CliProject) -> None:
    """More than one turn enqueues, and in order."""
    project.declare(
        "{many: {input: {path: in.json}, steps: {each: {run: echo, foreach: '${{ input }}'}}}}",
    )
    numbers = "[" + ",".join(map(str, range(5000))) + "]"
    project.write("in.json", numbers)
    text = (project.folder / "jobs.yaml").read_text()
    project.write("jobs.yaml", f"{text}tests:\n  t: {{job: many, expect: {{output: {{path: in.json}}}}}}\n")
    done = project.run("test")
    assert done.status == 0, done.text
