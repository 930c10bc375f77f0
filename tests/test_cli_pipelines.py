"""`runner run` of pipelines: what is shown, parameters, going on after a kill or Ctrl-C, daemons that help."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from runner_sqlite.runs import SqliteRunStore

from runner.ledger import Run, RunFilter
from runner.runs import RunStatus
from tests.daemon_project import DaemonProject
from tests.disks import fill, small_disk
from tests.support import eventually, steps

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path) -> Iterator[DaemonProject]:
    project = DaemonProject(tmp_path)
    yield project
    project.close()


def program(*all_steps: Any) -> str:
    """The `with` of a puppet that does this."""
    return f"'{steps(*all_steps).decode()}'"


def runs(project: DaemonProject, **facts: Any) -> list[Run]:
    """The runs of the store, oldest first."""
    return project.store.list_runs(RunFilter(**facts), limit=100_000)[::-1]


def latest(project: DaemonProject) -> Run:
    return runs(project, is_step=False)[-1]


WHOLE = f"""
  p:
    params: {{day: {{type: string, default: monday}}}}
    steps:
      list: {{run: guest, with: {program(["say", "[1,2,3]"])}}}
      each: {{run: guest, needs: [list], foreach: "${{{{ steps.list.output }}}}", with: [[say, "${{{{ item }}}}"]]}}
      all: {{run: guest, needs: [each], with: [[say, "${{{{ params.day }}}} ${{{{ steps.each.outputs[2] }}}}"]]}}
"""


# What is shown


def test_a_pipeline_in_a_log(project: DaemonProject) -> None:
    project.jobs(WHOLE)
    done = project.ok("run", "p")
    assert done.out == b"monday 3"
    assert re.search(r"^p: running$", done.err, re.MULTILINE)
    assert re.search(r"^p\.list: succeeded [\d.]+ m?s$", done.err, re.MULTILINE)
    assert re.search(r"^p\.each: succeeded [\d.]+ m?s 3 of 3 items$", done.err, re.MULTILINE)
    assert re.search(r"^p: succeeded in [\d.]+ m?s, 8 B$", done.err, re.MULTILINE)
    (row,) = project.ok("run", "p", "--json").rows
    assert (row["job"], row["status"], row["function"], row["version"]) == ("p", "succeeded", None, None)
    assert (row["output_bytes"], row["error_class"]) == (8, None)


def test_a_pipeline_on_a_terminal(project: DaemonProject) -> None:
    slow = program(["sleep", 0.6], ["say", "1"])
    project.jobs(f"{{p: {{steps: {{a: {{run: guest, with: {slow}}}, b: {{run: guest, needs: [a], with: {slow}}}}}}}}}")
    shown = project.on_terminal("run", "p", PYTHONIOENCODING="utf-8")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert re.search(r"p  run 1  0 of 2 steps\r?\n  ● a  running +[\d.]+ m?s\r?\n  │\r?\n  ○ b", plain)
    assert re.search(r"p  run 1  1 of 2 steps\r?\n  ✓ a  succeeded  [\d.]+ m?s\r?\n  │\r?\n  ● b  running", plain)
    last = plain[plain.rindex("p  run 1") :]
    assert re.match(r"p  run 1  2 of 2 steps\r?\n  ✓ a  succeeded", last)
    assert last.count("✓") == 2


def test_an_old_terminal(project: DaemonProject) -> None:
    slow = program(["sleep", 0.5], ["say", "1"])
    project.jobs(f"{{p: {{steps: {{a: {{run: guest, with: {slow}}}}}}}}}")
    shown = project.on_terminal("run", "p", PYTHONIOENCODING="ascii", NO_COLOR="1")
    assert re.search(r"  \* a  running", shown)
    assert shown.isascii()


def test_a_pipeline_that_fails(project: DaemonProject) -> None:
    bad = program(["fail", "Exited", 3])
    project.jobs(f"""
  p:
    steps:
      a: {{run: guest, with: {bad}}}
      b: {{run: guest, needs: [a]}}
      c: {{run: guest, needs: [b], if: always(), with: [[say, c]]}}
    on_failure: {{run: guest, with: [[say, "${{{{ failure.step }}}}"]]}}
    output: {{path: out}}
""")
    done = project.run("run", "p", "--json")
    assert done.status == 1
    (row,) = done.rows
    assert (row["status"], row["error_class"], row["output_path"]) == ("failed", "Exited", None)
    assert row["message"].startswith("step 'a' failed: ")
    assert "p.b: skipped" in done.err
    assert "p.on_failure: succeeded" in done.err
    assert not (project.folder / "out").exists()
    assert project.store.result(runs(project, is_step=True)[-1].run_id) == b"a"


def test_what_is_said_of_a_machine_without_its_engine(project: DaemonProject) -> None:
    project.jobs("{p: {steps: {a: {run: guest}}}}", guest=", executor: absent")
    plugin = project.folder / "site/puppet_plugin.py"
    only, rest = "@hookimpl\ndef runner_executors():\n    return [", "]\n"
    before, _, after = plugin.read_text().partition(only)
    provider, _, after = after.partition(rest)
    absent = (
        'Provider(name="absent", summary="", create=create, available=lambda: Availability(ok=False, reason="gone"))'
    )
    importing = "from runner.contracts import Availability\n"
    plugin.write_text(f"{importing}{before}{only}{provider}, {absent}{rest}{after}")
    done = project.run("run", "p")
    assert done.status == 3
    assert "gone" in done.err


# Parameters and inputs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("p", "--param", "dya=x"), "job 'p' has no parameter 'dya'; did you mean 'day'?"),
        (("p", "--param", "day"), "--param 'day': write NAME=VALUE"),
        (("p", "--param", "n=x"), "the parameter 'n' has to be an integer, got 'x'"),
        (("p", "--param", "n=1", "-p", "n=2"), "the parameter 'n' is given twice"),
        (("p", "--param", "on=yes"), "the parameter 'on' has to be true or false, got 'yes'"),
        (("p", "--param", "any=[1"), "the parameter 'any' has to be a JSON value"),
        (("p",), "job 'p': the parameter 'n' has no value; give one, of type integer"),
        (("p", "--input", '{"n": "1"}'), "job 'p': the parameter 'n' is a string and has to be of type integer"),
        (("p", "--input", "{}", "-p", "n=1"), "--param and --input exclude each other"),
        (("plain", "-p", "n=1"), "are for one pipeline; name it, and no other job"),
        (("p", "q", "--restart"), "are for one pipeline; name it, and no other job"),
        (("q", "-p", "n=1"), "job 'q' has no parameter 'n'; it has none"),
        (("q", "--from", "b"), "job 'q' has no run yet that has ended"),
        (("q", "--failed"), "job 'q' has no run yet that has ended"),
        (("q", "--failed", "--from", "a"), "--from and --failed exclude each other"),
    ],
)
def test_options_that_cannot_be_met(project: DaemonProject, arguments: tuple[str, ...], message: str) -> None:
    project.jobs("""
  plain: {run: guest}
  q: {steps: {a: {run: guest}}}
  p:
    steps: {a: {run: guest}}
    params:
      day: {type: string, default: x}
      n: integer
      on: {type: boolean, default: true}
      any: {type: json, default: 1}
""")
    done = project.run("run", *arguments)
    assert (done.status, done.out) == (2, b"")
    assert message in done.err
    assert not project.database.exists() or not runs(project)


def test_parameters_by_type(project: DaemonProject) -> None:
    params = "{s: string, i: integer, n: number, b: boolean, j: json}"
    sends = "[[say, '${{ input.s }}|${{ params.i }}|${{ params.n }}|${{ params.b }}|${{ params.j.x[0] }}']]"
    project.jobs(
        f'{{p: {{steps: {{a: {{run: guest, with: "{sends}"}}}}, params: {params}}}}}'.replace('"[', "[").replace(
            ']"', "]"
        )
    )
    given = ("s=a=b ü", "i=-3", "n=2.5", "b=false", 'j={"x": ["y"]}')
    assert project.ok("run", "p", *(part for pair in given for part in ("-p", pair))).text == "a=b ü|-3|2.5|false|y"
    data = '{"s": "", "i": 1, "n": 2, "b": true, "j": {"x": [0]}}'
    assert project.ok("run", "p", "-i", "-", input=data.encode()).text == "|1|2|true|0"


def test_parameters_are_checked_before_a_run_is_accepted(project: DaemonProject) -> None:
    project.jobs("{p: {steps: {a: {run: guest}}, params: {n: integer}}}")
    for given, message in (("{}", "'n' has no value"), ("[1", "the input is no JSON"), ('{"n": "1"}', "is a string")):
        done = project.run("enqueue", "p", "--input", given)
        assert done.status == 2
        assert message in done.err
    assert not runs(project)
    assert project.ok("enqueue", "p", "--input", '{"n": 1}').text == "1\n"


def test_one_at_a_time(project: DaemonProject) -> None:
    wait = program(["sleep", 4], ["say", "1"])
    project.jobs(f"{{p: {{concurrency: 1, steps: {{a: {{run: guest, with: {wait}}}}}}}}}")
    with project.start("run", "p") as first:
        eventually(lambda: runs(project, is_step=True))
        second = project.ok("run", "p", "--input", "other")
        first.communicate(timeout=60)
    assert "p: waits for its turn, as its `concurrency` says" in second.err
    one, two = runs(project, is_step=True)
    assert one.finished_at is not None
    assert two.started_at is not None
    assert two.started_at >= one.finished_at


def test_showing_a_run(project: DaemonProject) -> None:
    project.jobs(WHOLE)
    project.ok("run", "p")
    shown = project.ok("runs", "show", "1").text
    assert re.search(
        r"^p  run 1  3 of 3 steps\n  ✓ list  succeeded  [\d.]+ m?s\n  │\n  ✓ each  succeeded", shown, re.MULTILINE
    )
    (row,) = project.ok("runs", "show", "1", "--json").rows
    assert [(step["step"], step["status"], step["total"]) for step in row["steps"]] == [
        ("list", "succeeded", None),
        ("each", "succeeded", 3),
        ("all", "succeeded", None),
    ]
    assert "steps" not in project.ok("runs", "show", "2", "--json").rows[0]


# Going on


LONG = f"""
  p:
    steps:
      list: {{run: guest, with: {program(["say", json.dumps(list(range(60)))])}}}
      each:
        run: guest
        needs: [list]
        foreach: "${{{{ steps.list.output }}}}"
        max_parallel: 6
        with: [[sleep, 0.05], [say, "${{{{ item }}}}"]]
      all: {{run: guest, needs: [each], with: [[say, "${{{{ steps.each.outputs[59] }}}}"]]}}
"""


def interrupted(project: DaemonProject, number: int, items: int, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """`runner run p`, ended by a signal once so many items have succeeded."""
    process = project.start("run", "p", *arguments)

    def come_so_far() -> bool:
        done = runs(project, statuses=frozenset({RunStatus.SUCCEEDED}), is_step=True)
        return len(done) > items or process.poll() is not None

    eventually(come_so_far, seconds=60)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess((), process.returncode, out, err)


def check_each_item_succeeded_once(project: DaemonProject, run_id: int) -> None:
    found = [run for run in runs(project, parent_id=run_id) if run.step == "each"]
    assert sorted(run.item for run in found if run.item is not None) == list(range(60))
    assert {run.status for run in found} == {RunStatus.SUCCEEDED}


def test_a_killed_pipeline_is_gone_on_with(project: DaemonProject) -> None:
    project.jobs(LONG)
    for items in (10, 30):
        assert interrupted(project, signal.SIGKILL, items).returncode == -signal.SIGKILL
    before = {run.run_id: run for run in runs(project, statuses=frozenset({RunStatus.SUCCEEDED}))}
    done = project.ok("run", "p")
    assert done.out == b"59"
    assert "goes on with run 1 of p, which was not finished; --restart begins again" in done.err
    assert latest(project).run_id == 1
    check_each_item_succeeded_once(project, 1)
    assert {run_id: project.store.get(run_id) for run_id in before} == before
    assert not list((project.folder / ".runner/daemons").iterdir())


def test_ctrl_c_keeps_what_is_done(project: DaemonProject) -> None:
    project.jobs(LONG)
    done = interrupted(project, signal.SIGINT, 10)
    assert done.returncode == 130
    assert b"interrupted; the same command goes on with it" in done.stderr
    assert project.store.owners() == []
    assert latest(project).status is RunStatus.RUNNING
    done_again = project.ok("run", "p")
    assert "goes on with run 1 of p" in done_again.err
    check_each_item_succeeded_once(project, 1)
    assert all(run.failures == 0 for run in runs(project))


def test_beginning_again(project: DaemonProject) -> None:
    project.jobs(LONG)
    interrupted(project, signal.SIGKILL, 5)
    assert project.ok("run", "p", "--restart").out == b"59"
    first = project.store.get(1)
    assert (first.status, first.message) == (RunStatus.CANCELLED, "begun again")
    assert not [run for run in runs(project) if not run.status.is_terminal]
    check_each_item_succeeded_once(project, latest(project).run_id)


def test_other_parameters_are_another_run(project: DaemonProject) -> None:
    project.jobs(LONG.replace("steps:\n      list", "params: {x: {type: integer, default: 1}}\n    steps:\n      list"))
    interrupted(project, signal.SIGKILL, 3)
    done = project.ok("run", "p", "-p", "x=2")
    assert "goes on" not in done.err
    assert project.store.get(1).status is RunStatus.RUNNING


def test_a_daemon_goes_on_with_it(project: DaemonProject) -> None:
    project.jobs(LONG)
    interrupted(project, signal.SIGKILL, 10)
    with project.serving() as daemon:
        (run,) = project.ended(1)
        daemon.stop()
    assert run.status is RunStatus.SUCCEEDED
    check_each_item_succeeded_once(project, 1)


def test_a_daemon_that_is_killed_again_and_again(project: DaemonProject) -> None:
    project.jobs(LONG)
    project.ok("enqueue", "p")
    chance = random.Random(7)
    for _ in range(4):
        with project.serving("--lease", "5") as daemon:
            time.sleep(chance.uniform(0.1, 0.8))
            daemon.kill_anyway()
    with project.serving() as daemon:
        (run,) = project.ended(1, seconds=60)
        daemon.stop()
    assert (run.status, project.store.result(1)) == (RunStatus.SUCCEEDED, b"59")
    check_each_item_succeeded_once(project, 1)


def test_two_at_once_are_one(project: DaemonProject) -> None:
    project.jobs(LONG)
    with project.start("run", "p") as first, project.start("run", "p") as second:
        ends = [process.communicate(timeout=60) for process in (first, second)]
    assert [out for out, _ in ends] == [b"59", b"59"]
    told = (b"goes on with run 1", b"run 1 of p is running in another process already")
    assert sum(text in err for _, err in ends for text in told) == 1
    assert len(runs(project, is_step=False)) == 1
    check_each_item_succeeded_once(project, 1)


def test_one_that_runs_is_not_begun_again_by_another(project: DaemonProject) -> None:
    project.jobs(LONG)
    first = project.start("run", "p")
    eventually(lambda: len(runs(project, statuses=frozenset({RunStatus.SUCCEEDED}), is_step=True)) > 1, seconds=60)
    done = project.run("run", "p", "--restart")
    assert (done.status, "run 1 of p is running in another process; stop that one" in done.err) == (2, True), done.err
    helping = project.ok("run", "p")
    assert (helping.out, "run 1 of p is running in another process already" in helping.err) == (b"59", True)
    assert first.communicate(timeout=60)[0] == b"59"
    assert [run.status for run in runs(project, is_step=False)] == [RunStatus.SUCCEEDED]
    check_each_item_succeeded_once(project, 1)


def test_ending_it_by_sigterm_is_told(project: DaemonProject) -> None:
    project.jobs(LONG)
    done = interrupted(project, signal.SIGTERM, 5)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (143, b"terminated")
    assert project.store.owners() == []
    assert "goes on with run 1 of p" in project.ok("run", "p").err


def test_a_full_disk_ends_it_and_nothing_is_lost(project: DaemonProject, tmp_path: Path) -> None:
    project.jobs(LONG)
    with small_disk(tmp_path / "disk", "16m") as disk:
        options = ("--state-dir", str(disk))
        process = project.start("run", "p", *options)
        with closing(SqliteRunStore.open(disk / "runner.db")) as store:
            eventually(lambda: len(store.list_runs(RunFilter(is_step=True), limit=100)) > 5, seconds=30)
            fill(disk / "filler")
            err = process.communicate(timeout=60)[1].decode()
            assert process.returncode == 4, err
            assert "the store takes nothing, and is tried again for 10 s: no room is left for the store" in err
            assert "given up; the same command goes on with the run" in err
            assert f"Error: no room is left for the store {disk / 'runner.db'}; make room on the disk of {disk}" in err
            (disk / "filler").unlink()
            done = project.ok("run", "p", *options)
            assert (done.out, "goes on with run 1 of p" in done.err) == (b"59", True)
            each = [run for run in store.list_runs(RunFilter(parent_id=1), limit=100) if run.step == "each"]
            assert [run.status for run in each] == [RunStatus.SUCCEEDED] * 60


def test_from_a_step(project: DaemonProject) -> None:
    project.jobs(WHOLE)
    project.ok("run", "p")
    done = project.ok("run", "p", "--from", "all", "-p", "day=friday")
    assert done.out == b"friday 3"
    assert "p.list: succeeded as in run 1" in done.err
    assert "run 1, whose results are taken over, had another input: they are as they were" in done.err
    again = project.ok("run", "p", "--from", "all")
    assert (again.out, "had another input" in again.err) == (b"friday 3", False)
    assert [run.step for run in runs(project, parent_id=latest(project).run_id)] == ["all"]
    done = project.run("run", "p", "--from", "al")
    assert (done.status, done.out) == (2, b"")
    assert "no step 'al' in job 'p'; there are list, each, all" in done.err


FLAKY = f"""
  p:
    steps:
      list: {{run: guest, with: {program(["say", "[1,2,3]"])}}}
      each:
        {{run: guest, needs: [list], foreach: "${{{{ steps.list.output }}}}", with: PROGRAM, on_item_error: continue}}
      all: {{run: guest, needs: [each], with: [[say, done]]}}
"""


def flaky(project: DaemonProject, name: str) -> None:
    project.jobs(FLAKY.replace("PROGRAM", "[[fail, Exited, 3]]" if name == "bad" else "[[say, '1']]"))


def test_only_what_failed(project: DaemonProject) -> None:
    flaky(project, "bad")
    assert project.run("run", "p").status == 1
    flaky(project, "good")
    done = project.ok("run", "p", "--failed")
    assert done.out == b"done"
    second = latest(project)
    assert [run.step for run in runs(project, parent_id=second.run_id)] == ["each", "each", "each", "all"]
    done = project.run("run", "p", "--failed")
    assert done.status == 2
    assert f"run {second.run_id} of p succeeded; nothing in it has failed" in done.err


def test_retrying_from_the_queue(project: DaemonProject) -> None:
    flaky(project, "bad")
    project.run("run", "p")
    flaky(project, "good")
    made = int(project.ok("runs", "retry", "1", "--failed").text)
    with project.serving("--drain") as daemon:
        project.ended(made)
        daemon.wait()
    assert project.store.get(made).status is RunStatus.SUCCEEDED
    assert project.store.get(made).parent_id == 1
    done = project.run("runs", "retry", "2", "99", "--failed")
    assert done.status == 1
    assert "run 2 of p is no pipeline's" in done.err
    assert "no run 99" in done.err


# In a daemon


def test_what_was_pinned_goes_on_when_the_file_changes(project: DaemonProject) -> None:
    project.jobs(LONG)
    with project.serving() as daemon:
        project.ok("enqueue", "p")
        eventually(lambda: len(runs(project)) > 10)
        project.jobs("{p: {steps: {other: {run: guest, with: [[say, other]]}}}}")
        daemon.told("loaded again")
        project.ok("enqueue", "p")
        first, second = project.ended(*(run.run_id for run in runs(project, is_step=False)))
        daemon.stop()
    assert (project.store.result(first.run_id), project.store.result(second.run_id)) == (b"59", b"other")
    check_each_item_succeeded_once(project, first.run_id)


def test_the_limits_of_a_step(project: DaemonProject) -> None:
    project.jobs(
        f"{{p: {{steps: {{a: {{run: guest, with: {program(['hang'])}, timeout_seconds: 0.3, retry_count: 1, "
        "retry_delay_seconds: 0.1}}}}"
    )
    done = project.run("run", "p", "--json")
    assert (done.status, done.rows[0]["error_class"]) == (1, "TimedOut")
    (child,) = runs(project, is_step=True)
    assert [attempt.error_class for attempt in project.store.attempts(child.run_id)] == ["TimedOut", "TimedOut"]


def test_cancelling_a_pipeline(project: DaemonProject) -> None:
    project.jobs("{p: {steps: {a: {run: guest, foreach: [1, 2, 3, 4, 5, 6, 7, 8], with: [[sleep, 1000]]}}}}")
    with project.serving() as daemon:
        project.ok("enqueue", "p")
        eventually(lambda: len(runs(project, statuses=frozenset({RunStatus.RUNNING}), is_step=True)) >= 2)
        project.ok("runs", "cancel", "1")
        found = project.ended(*(run.run_id for run in runs(project)))
        daemon.stop()
    assert {run.status for run in found} == {RunStatus.CANCELLED}


def test_a_step_may_be_a_batch(project: DaemonProject) -> None:
    project.write("in.jsonl", "".join(f"{json.dumps([['say', number]])}\n" for number in range(5)))
    project.jobs(
        "\n  b: {batch: {function: guest, input: {path: in.jsonl}, output: {path: out.jsonl}}}\n"
        "  p: {steps: {a: {job: b}, z: {run: guest, needs: [a], with: [[say, done]]}}}"
    )
    done = project.ok("run", "p")
    assert done.out == b"done"
    assert re.search(r"p\.a: succeeded .* 5 records$", done.err, re.MULTILINE)
    assert (project.folder / "out.jsonl").read_text().split() == ["0", "1", "2", "3", "4"]
    (row,) = project.ok("run", "p", "--json").rows
    assert [row[f"records_{name}"] for name in ("in", "out", "quarantined", "reused")] == [5, 5, 0, 0]


def test_a_huge_output(project: DaemonProject) -> None:
    big = program(["bytes", 9_000_000])
    project.jobs(
        f"{{p: {{steps: {{a: {{run: guest, with: {big}}}, b: {{run: guest, needs: [a], if: always(), "
        "with: ['${{ steps.a.text }}', '${{ steps.a.text }}']}}}}"
    )
    done = project.run("run", "p", "--json")
    assert done.status == 1
    assert "steps.b.with has 18,000," in done.rows[0]["message"]
    assert "let steps leave what is large in files" in done.rows[0]["message"]
