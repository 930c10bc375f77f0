"""`runner init`, `validate` and `schema`: the first minutes of a new project."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import runner_builders

from runner.cli.init import STARTER
from runner.contracts import Host
from tests.cli_project import CliProject

TEMPLATES = Path(__file__).parent.parent / "runner" / "cli" / "templates"


@pytest.fixture
def project(tmp_path: Path) -> CliProject:
    return CliProject(tmp_path)


# init


def test_a_starter_is_ready_to_run(project: CliProject) -> None:
    assert "now: cd demo && runner run" in project.ok("init", "demo").err
    project.folder /= "demo"
    assert project.ok("validate").err == "jobs.yaml is valid: 1 function, 2 jobs, 2 tests\n"
    assert "2 passed in" in project.ok("test").text
    assert project.ok("run").text == "Hello, Ada!\nHello, Grace!\n"
    assert (project.folder / "out/letters.txt").read_text().splitlines()[-1] == "Dear, Margaret!"
    assert project.ok("invoke", "greet", "--input", "Ada").err.endswith("greeted 1\n")


def test_its_files_are_those_of_the_templates(project: CliProject) -> None:
    project.ok("init")
    found = {path.relative_to(TEMPLATES).as_posix() for path in TEMPLATES.rglob("*") if path.is_file()}
    assert found == set(STARTER)
    for name in STARTER:
        assert (project.folder / name).read_bytes() == (TEMPLATES / name).read_bytes()


def test_the_commented_source_can_take_its_place(project: CliProject) -> None:
    project.ok("init")
    jobs = project.folder / "jobs.yaml"
    text = jobs.read_text().replace("    wasm: functions/greet.wasm\n", "").replace("# source:", "source:")
    assert text.count("source:") == 1
    jobs.write_text(text)
    project.ok("validate")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_module_is_what_the_source_builds(tmp_path: Path) -> None:
    pytest.importorskip("ziglang")
    provider = next(one for one in runner_builders.runner_builders() if ".c" in one.name.split(","))
    host = Host(project_dir=TEMPLATES, state_dir=tmp_path, get_wasm_bytes=lambda _: b"")
    builder = provider.create(provider.settings() if provider.settings else None, host)
    assert builder.build(TEMPLATES / "functions/greet.c") == (TEMPLATES / "functions/greet.wasm").read_bytes()


@pytest.mark.parametrize("taken", STARTER)
def test_nothing_is_overwritten(project: CliProject, taken: str) -> None:
    project.write(taken, "mine")
    done = project.run("init")
    assert done.status == 2
    assert f"{taken} is there already, and nothing was written" in done.err
    files = [path.relative_to(project.folder).as_posix() for path in project.folder.rglob("*") if path.is_file()]
    assert files == [taken]
    assert (project.folder / taken).read_text() == "mine"


def test_a_folder_that_cannot_be_made(project: CliProject) -> None:
    project.write("file", "")
    done = project.run("init", "file/demo")
    assert done.status == 3
    assert "cannot write file/demo/jobs.yaml" in done.err


# validate


BROKEN = """version: 1
functions:
  f: {wasm: f.wasm, timeout: 3}
  g: {wasm: g.wasm, memory_limit_mb: many}
jobs:
  j: {run: h}
"""


def test_every_problem_is_told_with_its_place(project: CliProject) -> None:
    project.write("f.wasm", b"")
    project.write("jobs.yaml", BROKEN)
    done = project.run("validate")
    assert done.status == 2
    places = [line.split(" ")[0] for line in done.text.splitlines()]
    assert places == ["jobs.yaml:3:21", "jobs.yaml:4:13", "jobs.yaml:4:38", "jobs.yaml:6:12"]
    assert "unknown key 'timeout'; did you mean 'timeout_seconds'?" in done.text
    assert done.err == "4 problems in jobs.yaml\n"


def test_problems_as_json(project: CliProject) -> None:
    project.write("sub/jobs.yaml", "version: 2\n")
    done = project.run("validate", "--json", "sub/jobs.yaml")
    (row,) = done.rows
    assert done.status == 2
    assert list(row) == ["file", "line", "column", "where", "message"]
    assert (row["file"], row["line"], row["column"], row["where"]) == ("sub/jobs.yaml", 1, 10, "version")
    assert project.run("validate", "-f", "sub/jobs.yaml", "--json").rows == [row]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (b"", "there are no bytes"),
        (b"\0asm\1\0\0\0", "entry point"),
        (random.Random(1).randbytes(64) + b"x", "not WebAssembly"),
        (b"#!/bin/sh\n", "a script, not WebAssembly"),
    ],
)
def test_modules_are_looked_into(project: CliProject, module: bytes, message: str) -> None:
    project.declare("{}")
    project.write("functions/trap.wasm", module)
    done = project.run("validate")
    assert done.status == 2
    assert "functions.trap.wasm: trap.wasm: " in done.text
    assert message in done.text
    assert len(done.text.splitlines()) == 1
    assert not (project.folder / ".runner").exists()


def test_memory_over_the_limit_is_seen(project: CliProject) -> None:
    project.ok("init")
    jobs = project.folder / "jobs.yaml"
    jobs.write_text(jobs.read_text().replace("memory_limit_mb: 16", "memory_limit_mb: 1"))
    assert "more than memory_limit_mb allows (1 MB)" in project.run("validate").text


def test_a_valid_file_prints_no_json(project: CliProject) -> None:
    project.declare("{a: {run: echo}}")
    assert project.ok("validate", "--json").out == b""


# schema


def test_the_schema_has_the_plugins_settings(project: CliProject) -> None:
    schema = json.loads(project.ok("schema").out)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert {"version", "functions", "jobs"} <= set(schema["properties"])
    assert "compile_timeout_seconds" in json.dumps(schema)
