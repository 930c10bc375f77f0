"""`runner plugins`, `engines` and `doctor`: what is on this machine."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests.cli_project import EXECUTOR, CliProject, Orphans


@pytest.fixture
def project(tmp_path: Path) -> CliProject:
    return CliProject(tmp_path)


def install(project: CliProject, name: str, code: str) -> None:
    """A package of another author, as an installer leaves it."""
    project.write(f"site/{name}.py", code)
    project.write(f"site/{name}-1.2.dist-info/METADATA", f"Metadata-Version: 2.1\nName: runner-{name}\nVersion: 1.2\n")
    project.write(f"site/{name}-1.2.dist-info/entry_points.txt", f"[runner]\n{name} = {name}\n")
    if str(project.folder / "site") not in project.environment["PYTHONPATH"]:
        project.environment["PYTHONPATH"] += os.pathsep + str(project.folder / "site")


BROKEN = "raise RuntimeError('no \\x1b[31mlicence')\n"
INSTALLABLE = """
import pathlib
from runner.contracts import Availability, Provider
from runner.hookspecs import hookimpl

HERE = pathlib.Path("engine")

def available():
    return Availability(ok=HERE.exists(), version="7", reason="it is not here", remedy="`runner engines install toy`")

def install(notify):
    notify("fetching it")
    HERE.touch()

@hookimpl
def runner_executors():
    return [Provider(name="toy", summary="A toy", create=lambda s, h: None, available=available, install=install)]
"""


# plugins


def test_plugins_in_json(project: CliProject) -> None:
    install(project, "broken", BROKEN)
    rows = {row["name"]: row for row in project.ok("plugins", "list", "--json").rows}
    assert list(rows)[-1] == "broken"
    assert rows["sqlite"] == {
        **{"name": "sqlite", "distribution": "runner", "version": "0.1.0", "status": "loaded"},
        **{"hooks": ["runner_registries"], "provides": {"registries": ["sqlite"]}, "error": None},
    }
    assert (rows["broken"]["status"], rows["broken"]["version"]) == ("failed", "1.2")
    assert "RuntimeError: no" in rows["broken"]["error"]


def test_plugins_as_a_table(project: CliProject) -> None:
    install(project, "broken", BROKEN)
    text = project.ok("plugins", "list").text
    assert text.splitlines()[0].split() == ["name", "version", "status", "provides"]
    assert re.search(r"^sqlite +0\.1\.0 +loaded +registries sqlite$", text, re.MULTILINE)
    assert re.search(r"^broken +1\.2 +failed +.*RuntimeError: no \\x1b\[31mlicence$", text, re.MULTILINE)


def test_a_broken_plugin_is_told_of_and_disturbs_nothing(project: CliProject) -> None:
    install(project, "broken", BROKEN)
    project.declare("{a: {run: echo, input: text}}")
    done = project.ok("run", "--quiet")
    assert done.out == b"text"
    assert done.err.startswith("plugin broken (runner-broken 1.2) is disabled: ")
    assert project.ok("--no-plugins", "run", "--quiet").err == ""


def test_show_a_plugin(project: CliProject) -> None:
    install(project, "broken", BROKEN)
    text = project.ok("plugins", "show", "sqlite").text
    keys = project.ok("plugins", "show", "apscheduler").text
    assert "\ncron: Due by a cron expression, in a time zone\n  schedule: a string; required\n" in keys
    assert "\n  catchup: one of 'none', 'last', 'all'; last unless given\n      What becomes of" in keys
    assert re.search(r"^package +runner 0\.1\.0$", text, re.MULTILINE)
    assert re.search(r"^registries +sqlite$", text, re.MULTILINE)
    done = project.run("plugins", "show", "broken")
    assert done.status == 3
    assert re.search(r"^error +.*RuntimeError: no", done.text, re.MULTILINE)
    missing = project.run("plugins", "show", "sqlit")
    assert (missing.status, missing.out) == (3, b"")
    assert "no plugin 'sqlit' is installed; did you mean 'sqlite'?" in missing.err


# engines


def test_engines_in_json(project: CliProject) -> None:
    rows = {row["name"]: row for row in project.ok("engines", "list", "--json").rows}
    assert {"wasmer", "wasmtime"} <= set(rows)
    assert list(rows["wasmtime"]) == ["name", "available", "version", "summary", "reason", "remedy", "installable"]
    assert rows[EXECUTOR]["available"]
    assert rows[EXECUTOR]["reason"] == ""
    assert rows["wasmer"]["installable"]
    if not rows["wasmer"]["available"]:
        assert "runner engines install wasmer" in rows["wasmer"]["remedy"]


def test_what_is_missing_can_be_installed(project: CliProject) -> None:
    install(project, "toy", INSTALLABLE)
    missing = r"^toy +missing +it is not here; `runner engines install toy`$"
    assert re.search(missing, project.ok("engines", "list").text, re.MULTILINE)
    assert project.ok("engines", "install", "toy").err == "fetching it\n"
    assert re.search(r"^toy +available +7 +A toy$", project.ok("engines", "list").text, re.MULTILINE)


def test_an_engine_that_installs_nothing_or_is_unknown(project: CliProject) -> None:
    done = project.run("engines", "install", "wasmtime")
    assert done.status == 2
    assert "has nothing to install" in done.err
    unknown = project.run("engines", "install", "wasmtim")
    assert unknown.status == 3
    assert "did you mean 'wasmtime'?" in unknown.err


# doctor


def test_doctor_tries_everything(project: CliProject) -> None:
    orphans = Orphans()
    project.declare("{}")
    done = project.ok("doctor", "--json")
    for row in done.rows:
        assert list(row) == ["part", "name", "ok", "needed", "detail", "remedy"]
    found = {(row["part"], row["name"]): row for row in done.rows}
    engine = found["engine", EXECUTOR]
    assert (engine["ok"], engine["needed"]) == (True, True)
    assert engine["detail"].endswith("compiles and runs a function")
    assert found["python", ".".join(map(str, sys.version_info[:3]))]["detail"] == sys.executable
    assert {name for part, name in found if part == "wall"} >= {f"{EXECUTOR} {wall}" for wall in WALLS}
    assert ("plugin", "sqlite") in found
    assert ("toolchain", ".wat") in found
    assert found["jobs.yaml", "jobs.yaml"]["detail"] == "6 functions, 0 jobs"
    assert not (project.folder / ".runner").exists()
    assert orphans.left() == []


WALLS = ("rlimits", "no_new_privs", "unprivileged", "namespaces", "empty_root", "landlock", "seccomp")


def test_doctor_as_text(project: CliProject) -> None:
    text = project.ok("doctor").text
    assert re.search(rf"^ok    engine     {EXECUTOR} ", text, re.MULTILINE)
    assert re.search(rf"^(on |off)   wall       {EXECUTOR} seccomp", text, re.MULTILINE)
    assert re.search(r"^ok    engine     auto +takes wasm", text, re.MULTILINE)
    assert "there is no jobs.yaml here" in text


def test_doctor_names_what_jobs_need_and_do_not_have(project: CliProject) -> None:
    install(project, "toy", INSTALLABLE)
    project.declare("{}", echo=", executor: toy")
    done = project.run("doctor")
    assert done.status == 3
    assert re.search(r"^FAIL  engine     toy +it is not here; `runner engines install toy`$", done.text, re.MULTILINE)
    assert done.err == "1 thing that jobs need does not work\n"


def test_doctor_and_an_invalid_file(project: CliProject) -> None:
    project.write("jobs.yaml", "version: 7\n")
    done = project.run("doctor")
    assert done.status == 3
    assert re.search(
        r"^FAIL  jobs\.yaml  jobs\.yaml +1 problem; `runner validate` shows them$", done.text, re.MULTILINE
    )


def test_doctor_and_a_state_folder_that_cannot_be(project: CliProject) -> None:
    project.write("file", "")
    done = project.run("--state-dir", "file/state", "doctor")
    assert done.status == 3
    assert re.search(r"^FAIL  state      file/state +file cannot be written: Not a directory", done.text, re.MULTILINE)
