"""`runner invoke`: what the function reads, what is shown, how it ends."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from tests.cli_project import CliProject


@pytest.fixture
def project(tmp_path: Path) -> CliProject:
    project = CliProject(tmp_path)
    project.declare("{}")
    return project


DATA = bytes(range(256)) * 500


# Input


def test_the_text_itself(project: CliProject) -> None:
    assert project.ok("invoke", "echo", "--input", "größer").out == "größer".encode()


def test_stdin(project: CliProject) -> None:
    assert project.ok("invoke", "echo", "-i", "-", input=DATA).out == DATA


@pytest.mark.parametrize("given", ["data.bin", "@data.bin"])
def test_a_file(project: CliProject, given: str) -> None:
    project.write("data.bin", DATA)
    assert project.ok("invoke", "echo", "--input", given).out == DATA


def test_no_input_is_nothing_and_does_not_wait_for_stdin(project: CliProject) -> None:
    assert project.ok("invoke", "echo", input=b"not read").out == b""


def test_a_file_that_is_not_there_is_told(project: CliProject) -> None:
    done = project.run("invoke", "echo", "--input", "@missing.csv")
    assert done.status == 3
    assert "the input missing.csv cannot be read: No such file or directory" in done.err
    taken_as_text = project.ok("invoke", "echo", "--input", "data/missing.csv")
    assert taken_as_text.out == b"data/missing.csv"
    assert "there is no file data/missing.csv; the function gets this text" in taken_as_text.err


@pytest.mark.parametrize("text", ["x" * 5000, '{"path": "a/b.c"}', "1.5", "two words.", "/", "..", "a@b.example"])
def test_text_that_is_no_file(project: CliProject, text: str) -> None:
    done = project.ok("invoke", "echo", "--input", text)
    assert done.out == text.encode()
    assert "there is no file" not in done.err


def test_env(project: CliProject) -> None:
    project.declare("{}", env=", env_vars: {NAME: of the function}")
    assert project.ok("invoke", "env").out == b"of the function"
    assert project.ok("invoke", "env", "-e", "NAME=a=b", "-e", "OTHER=").out == b"a=b"


# What is shown


def test_logs_go_to_stderr(project: CliProject) -> None:
    done = project.ok("invoke", "log", "--input", "one\ntwo \x1b[2J\n")
    assert done.out == b""
    assert "one\ntwo \\x1b[2J\n" in done.err
    assert "one" not in project.ok("invoke", "log", "--input", "one\n", "--quiet").err


def test_a_failure_is_told_once(project: CliProject) -> None:
    done = project.run("invoke", "complain", "--input", "row 7\n")
    assert (done.status, done.out) == (1, b"")
    assert done.err.count("row 7") == 1
    assert "Error: trapped: " in done.err
    quiet = project.run("invoke", "-q", "complain", "--input", "row 7\n")
    assert quiet.err.startswith("Error: trapped: ")
    assert quiet.err.endswith("the end of its standard error:\n  row 7\n")


def test_a_trap_names_the_functions_it_was_in(project: CliProject) -> None:
    assert "unreachable in inner" in project.run("invoke", "trap").err


def test_json_of_a_success(project: CliProject) -> None:
    (row,) = project.ok("invoke", "echo", "--input", "text", "--json").rows
    assert row.pop("duration_ms") > 0
    assert row == {
        **{"function": "echo", "version": 1, "status": "succeeded", "memory_peak_bytes": 2 * 65536},
        **{"output_bytes": 4, "output": "text", "logs": [], "error_class": None, "message": None},
    }


def test_json_of_bytes(project: CliProject) -> None:
    (row,) = project.ok("invoke", "echo", "-i", "-", "--json", input=DATA).rows
    assert base64.b64decode(row["output_base64"]) == DATA
    assert "output" not in row


def test_json_of_a_failure(project: CliProject) -> None:
    done = project.run("invoke", "complain", "--input", "row 7\n", "--json")
    (row,) = done.rows
    assert done.status == 1
    assert (row["status"], row["error_class"], row["output"], row["output_bytes"]) == ("failed", "Trapped", None, 0)
    (entry,) = row["logs"]
    assert (entry["level"], entry["message"]) == ("stderr", "row 7")
    assert entry["timestamp"].endswith("Z")


# Versions


def test_the_function_is_as_jobs_yaml_has_it_now(project: CliProject) -> None:
    project.declare("{}", env=", env_vars: {NAME: one}")
    assert "env: version 1\n" in project.ok("invoke", "env").err
    assert "version" not in project.ok("invoke", "env").err
    project.declare("{}", env=", env_vars: {NAME: two}")
    done = project.ok("invoke", "env")
    assert (done.out, "env: version 2 (was 1)\n" in done.err) == (b"two", True)
    assert project.ok("invoke", "env@1").out == b"one"
    assert project.ok("invoke", "env@2").out == b"two"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ech", "no function 'ech' in namespace 'default'"),
        ("echo@7", "no function 'echo@7' in namespace 'default'"),
    ],
)
def test_an_unknown_function(project: CliProject, name: str, message: str) -> None:
    project.ok("invoke", "echo")
    done = project.run("invoke", name)
    assert done.status == 1
    assert message in done.err
    assert "Traceback" not in done.err
