"""The example plugin, as its author would see it: built, installed beside the wheel, used from a jobs.yaml."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.installed import ROOT, Environment, build, call, copy, wheel

PLUGIN = ROOT / "examples" / "plugin"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("plugin")
    copy(PLUGIN, folder / "tree")
    return Environment.make(folder / "venv", wheel(), build(folder / "tree"), "pytest")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The plugin's own jobs.yaml and script, without the rest."""
    for name in ("jobs.yaml", "shout.sh"):
        shutil.copy2(PLUGIN / name, tmp_path)
    return tmp_path


def test_it_is_listed_with_what_it_registers(environment: Environment, project: Path) -> None:
    printed = environment.run("runner", "plugins", "list", "--json", cwd=project).stdout
    (plugin,) = [entry for entry in map(json.loads, printed.splitlines()) if entry["name"] == "command"]
    assert plugin["distribution"] == "runner-command"
    assert plugin["version"] == "0.1.0"
    assert plugin["status"] == "loaded"
    assert plugin["hooks"] == ["runner_executors"]
    assert plugin["provides"] == {"executors": ["command"]}
    assert "runner_executors" in environment.run("runner", "plugins", "show", "command", cwd=project).stdout


def test_it_runs_from_a_jobs_yaml(environment: Environment, project: Path) -> None:
    environment.run("runner", "validate", cwd=project)
    environment.run("runner", "run", cwd=project)
    assert (project / "out" / "shout.txt").read_text() == "dear all: HELLO FROM A LOCAL COMMAND"
    assert "shouting for shout" in environment.run("runner", "logs", "shout", cwd=project).stdout
    again = environment.run("runner", "invoke", "shout", "--input", "once more", cwd=project)
    assert again.stdout == "dear all: ONCE MORE"


def test_scripts_have_versions(environment: Environment, project: Path) -> None:
    environment.run("runner", "run", cwd=project)
    (project / "shout.sh").write_text("#!/bin/sh\ncat >/dev/null; echo new\n")
    environment.run("runner", "run", cwd=project)
    assert (project / "out" / "shout.txt").read_text() == "new\n"
    old = environment.run("runner", "invoke", "shout@1", "--input", "x", cwd=project)
    assert old.stdout == "dear all: X"


def test_a_failure_is_told_like_any_other(environment: Environment, project: Path) -> None:
    (project / "shout.sh").write_text("#!/bin/sh\necho no luck >&2; exit 7\n")
    failed = environment.run("runner", "run", "--json", cwd=project, status=1)
    (job,) = [json.loads(line) for line in failed.stdout.splitlines()]
    assert (job["status"], job["error_class"]) == ("failed", "Exited")
    (project / "shout.sh").write_bytes(b"\0asm\1\0\0\0")
    refused = environment.run("runner", "run", cwd=project, status=1)
    assert "executor 'command' runs scripts" in refused.stderr


def test_its_settings_are_checked_and_in_the_schema(environment: Environment, project: Path) -> None:
    text = (project / "jobs.yaml").read_text()
    (project / "jobs.yaml").write_text(text.replace("executor: command", "executor: {command: {output_limit: 3}}"))
    failed = environment.run("runner", "validate", cwd=project, status=2)
    assert "did you mean 'output_limit_mb'?" in failed.stdout
    schema = json.loads(environment.run("runner", "schema", cwd=project).stdout)
    assert "The largest output of one invocation" in json.dumps(schema)


def test_without_it_the_error_names_what_is_missing(environment: Environment, project: Path) -> None:
    failed = environment.run("runner", "--no-plugins", "validate", cwd=project, status=2)
    assert "no installed plugin provides executor 'command'" in failed.stdout
    command = [str(environment.folder / "bin" / "runner"), "validate"]
    chosen = call(["/usr/bin/env", "RUNNER_PLUGINS=", *command], cwd=project, status=2)
    assert "no installed plugin provides executor 'command'" in chosen.stdout
    call(["/usr/bin/env", "RUNNER_PLUGINS=command", *command], cwd=project)


def test_its_own_tests_pass(environment: Environment, tmp_path: Path) -> None:
    copy(PLUGIN, tmp_path / "plugin")
    shutil.rmtree(tmp_path / "plugin" / "runner_command")  # the installed one is meant
    assert os.access(PLUGIN / "shout.sh", os.X_OK)
    environment.run("pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path / "plugin")
