"""`runner functions` and `logs`: what the registry shows and forgets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runner import wasm
from tests.cli_project import CliProject

LISTED = ["namespace", "name", "version", "status", "wasm_cid", "memory_limit_mb", "timeout_seconds", "updated_at"]
RFC_3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture
def project(tmp_path: Path) -> CliProject:
    """With two versions of `env`, one of `log`."""
    project = CliProject(tmp_path)
    project.declare("{}", env=", env_vars: {NAME: one}")
    project.ok("invoke", "env")
    project.declare("{}", env=", env_vars: {NAME: two}, timeout_seconds: 2.5")
    project.ok("invoke", "env")
    project.ok("invoke", "log", "--input", "first\nsecond\x1b[2J\n")
    return project


def test_list_in_json(project: CliProject) -> None:
    env, log = project.ok("functions", "list", "--json").rows
    assert list(env) == list(log) == LISTED
    assert re.fullmatch(RFC_3339, env.pop("updated_at"))
    assert env == {
        **{"namespace": "default", "name": "env", "version": 2, "status": "active"},
        **{"wasm_cid": wasm.content_id((project.folder / "functions/env.wasm").read_bytes())},
        **{"memory_limit_mb": 64, "timeout_seconds": 2.5},
    }
    assert (log["name"], log["version"]) == ("log", 1)


def test_list_as_a_table(project: CliProject) -> None:
    head, env, log = project.ok("functions", "list").text.splitlines()
    assert head.split() == ["name", "version", "status", "memory", "timeout", "updated", "wasm_cid"]
    assert re.fullmatch(rf"env         2  active   64 MB    2\.5 s  {RFC_3339}  bafkrei\w+", env)
    assert re.fullmatch(rf"log         1  active   64 MB     30 s  {RFC_3339}  bafkrei\w+", log)


def test_an_empty_registry_says_what_fills_it(tmp_path: Path) -> None:
    project = CliProject(tmp_path)
    project.declare("{}")
    done = project.ok("functions", "list")
    assert done.out == b""
    assert "no functions in namespace 'default' yet; `runner run` registers those of jobs.yaml" in done.err
    assert project.ok("functions", "list", "--json").out == b""


def test_show(project: CliProject) -> None:
    (now,) = project.ok("functions", "show", "env", "--json").rows
    (old,) = project.ok("functions", "show", "env@1", "--json").rows
    assert set(now) > set(LISTED)
    assert (now["version"], now["env_vars"]) == (2, {"NAME": "two"})
    assert (old["version"], old["env_vars"]) == (1, {"NAME": "one"})
    text = project.ok("functions", "show", "env").text
    assert re.search(r"^env_vars +NAME=two$", text, re.MULTILINE)
    assert re.search(r"^source_cid$", text, re.MULTILINE)


def test_delete_a_version_and_then_all(project: CliProject) -> None:
    assert project.ok("functions", "delete", "env@1").err == "deleted 1 version of env\n"
    assert project.run("invoke", "env@1").status == 1
    assert project.ok("invoke", "env").out == b"two"
    rows = project.ok("functions", "versions", "env", "--json").rows
    assert [(row["version"], row["status"]) for row in rows] == [(2, "active"), (1, "inactive")]
    project.ok("functions", "delete", "env")
    assert [row["name"] for row in project.ok("functions", "list", "--json").rows] == ["log"]
    assert "env: version 3\n" in project.ok("invoke", "env").err  # jobs.yaml still has it


def test_delete_what_is_not_there(project: CliProject) -> None:
    for name in ("nothing", "env@9"):
        done = project.run("functions", "delete", name)
        assert (done.status, done.out) == (1, b"")
        assert f"no function {name!r}" in done.err


# logs


def test_logs(project: CliProject) -> None:
    first, second = project.ok("logs", "log").text.splitlines()
    assert re.fullmatch(rf"{RFC_3339}       -  stderr  first", first)
    assert re.fullmatch(rf"{RFC_3339}       -  stderr  second\\x1b\[2J", second)


def test_logs_in_json(project: CliProject) -> None:
    (row,) = project.ok("logs", "log", "--limit", "1", "--json").rows
    assert re.fullmatch(RFC_3339, row.pop("timestamp"))
    assert row == {"run_id": None, "attempt": None, "level": "stderr", "message": "second\x1b[2J"}


def test_logs_of_a_silent_a_deleted_and_an_unknown_function(project: CliProject) -> None:
    silent = project.ok("logs", "env")
    assert (silent.out, silent.err) == (b"", "env has logged nothing\n")
    project.ok("functions", "delete", "log")
    assert len(project.ok("logs", "log", "--json").rows) == 2
    assert project.run("logs", "nothing").status == 1
