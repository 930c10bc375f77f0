"""`runner simulate`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli_project import CliProject

JOBS = """
  nightly: {run: echo, triggers: [{cron: {schedule: "30 3 * * *", timezone: Europe/Athens}}]}
  hourly: {run: echo, triggers: [{cron: {schedule: "@hourly"}}, {job: {queue: heavy}}]}
  idle: {run: echo}
"""
SPRING = ("--from", "2027-03-27T12:00Z", "--to", "2027-03-29")


@pytest.fixture
def project(tmp_path: Path) -> CliProject:
    project = CliProject(tmp_path)
    project.declare(JOBS)
    return project


def test_json_is_one_object_a_slot(project: CliProject) -> None:
    assert project.ok("simulate", "nightly", *SPRING, "--json").rows == [
        {
            "job": "nightly",
            "trigger": "default/nightly/cron/30 3 * * * Europe/Athens",
            "slot": "2027-03-28T01:00:00.000Z",
            "local": "2027-03-28T04:00:00+03:00",
            "outcome": "fires",
            "reason": "the clocks go forward: there is no 03:30 on this day in Europe/Athens",
        }
    ]


def test_a_table_for_people(project: CliProject) -> None:
    done = project.ok("simulate", "nightly", *SPRING)
    header, row = done.text.splitlines()
    assert header.split() == ["slot", "local", "job", "trigger", "outcome", "reason"]
    assert row.startswith(
        "2027-03-28T01:00:00Z  2027-03-28 04:00:00+03:00  nightly  cron 30 3 * * * Europe/Athens  fires"
    )
    assert done.err == "1 fire, 0 skipped, 0 caught up\n"


def test_local_time_is_left_out_where_all_is_utc(project: CliProject) -> None:
    done = project.ok("simulate", "hourly", "--from", "2027-01-01", "--to", "+2h")
    assert [line.split() for line in done.text.splitlines()] == [
        ["slot", "job", "trigger", "outcome", "reason"],
        ["2027-01-01T00:00:00Z", "hourly", "cron", "0", "*", "*", "*", "*", "UTC", "fires"],
        ["2027-01-01T01:00:00Z", "hourly", "cron", "0", "*", "*", "*", "*", "UTC", "fires"],
    ]


def test_skips_overlaps_and_catch_up(project: CliProject) -> None:
    span = ("--from", "2027-01-01", "--to", "+6h", "--down", "+1h30m..+4h10m", "--duration", "5m")
    rows = project.ok("simulate", "hourly", *span, "--duration", "hourly=80m", "--json").rows
    assert [(row["slot"][11:16], row["outcome"]) for row in rows] == [
        ("00:00", "fires"),
        ("01:00", "skipped"),
        ("02:00", "skipped"),
        ("03:00", "skipped"),
        ("04:00", "caught_up"),
        ("05:00", "skipped"),
    ]
    assert rows[1]["reason"] == "overlap: the run of 2027-01-01T00:00:00Z has not ended"
    assert rows[2]["reason"].startswith("missed by 2h10m; catchup is last")


def test_the_next_day_unless_told_otherwise(project: CliProject) -> None:
    assert len(project.ok("simulate", "hourly", "--json").rows) in (24, 25)
    assert len(project.ok("simulate", "--json").rows) in (24, 25, 26)


def test_it_runs_and_writes_nothing(project: CliProject) -> None:
    before = sorted(project.folder.rglob("*"))
    project.ok("simulate")
    assert sorted(project.folder.rglob("*")) == before


def test_a_long_span_is_cut_and_can_be_gone_on_with(project: CliProject) -> None:
    done = project.ok("simulate", "hourly", "--from", "2027-01-01", "--to", "2028-01-01", "-n", "5")
    assert len(done.text.splitlines()) == 6
    assert done.err == ("stopped after 5 rows; go on with --from 2027-01-01T05:00:00.000Z, or --limit 0 for all\n")
    done = project.ok(
        "simulate", "hourly", "--from", "2027-01-01T05:00:00.000Z", "--to", "2028-01-01", "-n", "0", "--json"
    )
    assert len(done.rows) == 365 * 24 - 5
    assert done.rows[0]["slot"] == "2027-01-01T05:00:00.000Z"


def test_nothing_to_show(project: CliProject) -> None:
    done = project.ok("simulate", "idle")
    assert (done.text, done.err) == ("", "no time triggers here; docs/triggers.md tells how a job gets one\n")
    done = project.ok("simulate", "nightly", "--from", "2027-03-01", "--to", "+1h")
    assert (done.text, done.err) == ("", "nothing is due in this time\n")
    assert project.ok("simulate", "idle", "-q").err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nihgtly"], "no job 'nihgtly' in jobs.yaml; did you mean 'nightly'?"),
        (["--from", "tomorrow"], "--from: 'tomorrow': expected a moment like"),
        (["--from", "2027-01-01T00:00:00"], "has no time zone; add Z for UTC"),
        (["--from", ""], "--from: '': expected a moment like"),
        (["--to", "+5"], "--to: '5': expected a duration like"),
        (["--from", "2027-01-02", "--to", "2027-01-01"], "--to 2027-01-01 is not after --from 2027-01-02"),
        (["--from", "-9999w"], "--from -9999w is beyond what can be simulated: the years 1900 to 9000"),
        (["--from", "0001-01-01"], "is beyond what can be simulated"),
        (["--to", "+999999w"], "is beyond what can be simulated"),
        (["--down", "+1h"], "--down +1h: expected two moments and dots between them"),
        (["--down", "+2h..+1h"], "--down +2h..+1h ends before it begins"),
        (["--duration", "nihgtly=1h"], "did you mean 'nightly'?"),
        (["--duration", "nightly="], "--duration: '': expected a duration like"),
        (["--limit", "-1"], "-1 is not in the range"),
    ],
)
def test_wrong_usage(project: CliProject, arguments: list[str], message: str) -> None:
    done = project.run("simulate", *arguments)
    assert done.status == 2
    assert message in done.err
    assert done.out == b""


def test_two_triggers_that_mean_the_same(project: CliProject) -> None:
    project.declare('{j: {run: echo, triggers: [{cron: {schedule: "@daily"}}, {cron: {schedule: "0 0 * * *"}}]}}')
    for command in ("simulate", "validate"):
        done = project.run(command)
        assert done.status == 2
        told = done.err + done.out.decode()
        assert "jobs.j: two cron triggers of this job mean the same, the other is in line " in told


def test_a_bare_value_is_told_how_to_be_written(project: CliProject) -> None:
    project.declare('{j: {run: echo, triggers: [{cron: "15 2 * * *"}, {interval: 5m}]}}')
    done = project.run("validate")
    assert done.status == 2
    told = done.out.decode()
    assert "expected a mapping, got '15 2 * * *'; write `cron: {schedule: \"15 2 * * *\"}`" in told
    assert "expected a mapping, got '5m'; write `interval: {every: \"5m\"}`" in told
