"""The program as a whole: help, options, errors as messages and statuses, streams, completion."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import click
import pytest

import runner
from runner.cli.groups import Group
from runner.cli.main import COMMANDS, root
from tests.cli_project import CliProject

ROOT = Path(__file__).parent.parent


@pytest.fixture
def project(tmp_path: Path) -> CliProject:
    return CliProject(tmp_path)


def commands(group: Group, path: str = "runner") -> list[tuple[str, click.Command]]:
    context = click.Context(group, info_name=path)
    found: list[tuple[str, click.Command]] = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found.append((f"{path} {name}", command))
        if isinstance(command, Group):
            found += commands(command, f"{path} {name}")
    return found


# Help


@pytest.mark.parametrize("name", COMMANDS)
def test_the_listing_says_what_the_command_says(name: str) -> None:
    command = root.get_command(click.Context(root), name)
    assert command is not None
    assert command.name == name
    assert command.get_short_help_str(limit=200) == COMMANDS[name].help


def test_help_lists_every_command(project: CliProject) -> None:
    done = project.ok("--help")
    for name, lazy in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(lazy.help)}$", done.text, re.MULTILINE)
    assert done.text == project.ok("-h").text


def test_every_command_and_option_is_explained() -> None:
    for path, command in commands(root):
        assert command.help, path
        for param in command.params:
            if isinstance(param, click.Option):
                assert param.help, f"{path} {param.opts}"


def test_every_listing_has_json() -> None:
    without = {"init", "schema", "delete", "install"}  # they list nothing, or are JSON already
    for path, command in commands(root):
        has_json = any("--json" in param.opts for param in command.params)
        assert has_json == (path.split()[-1] not in without and not isinstance(command, Group)), path


def test_version_is_that_of_the_package(project: CliProject) -> None:
    (version,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert runner.__version__ == version
    assert project.ok("--version").text == f"runner {version}\n"


# Usage errors: status 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rum"], "no command 'rum'; did you mean 'run'?"),
        (["function", "list"], "did you mean 'functions'?"),
        (["functions", "lst"], "no command 'lst'; did you mean 'list'?"),
        (["xyzzy"], "there are init, validate, run,"),
        (["--quite", "run"], "--quiet"),
        (["run", "--jsn"], "--json"),
        (["invoke"], "FUNCTION[@VERSION]"),
        (["invoke", "echo@first"], "expected NAME or NAME@VERSION"),
        (["invoke", "echo@0"], "with a version from 1"),
        (["invoke", "echo@" + "9" * 5000], "expected NAME or NAME@VERSION"),
        (["invoke", "echo", "--env", "X"], "expected NAME=VALUE"),
        (["logs", "echo", "-n", "-1"], "-1 is not in the range"),
        (["run", "ech"], "no job 'ech' in jobs.yaml; did you mean 'echo'?"),
        (["functions", "versions", "echo@2"], "leave out @2"),
    ],
)
def test_wrong_usage(project: CliProject, arguments: list[str], message: str) -> None:
    project.declare("{echo: {run: echo}}")
    done = project.run(*arguments)
    assert done.status == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert done.out == b""


def test_an_invalid_file_is_told_whole(project: CliProject) -> None:
    project.write("jobs.yaml", "version: 1\nfunctions:\n  f: {wasm: no.wasm}\njobs:\n  j: {run: g}\n")
    done = project.run("run")
    assert done.status == 2
    assert "jobs.yaml:3:13 functions.f.wasm: 'no.wasm' does not exist" in done.err
    assert "jobs.yaml:5:12 jobs.j.run: no function 'g' is declared" in done.err
    assert "Error: 2 problems in jobs.yaml" in done.err


# Something is missing: status 3; the store refuses: status 4


def test_no_jobs_yaml(project: CliProject) -> None:
    done = project.run("run")
    assert done.status == 3
    assert "there is no jobs.yaml; `runner init` makes one" in done.err


def test_a_damaged_store(project: CliProject) -> None:
    project.declare("{echo: {run: echo}}")
    project.ok("run")
    (database,) = (project.folder / ".runner").glob("*.db")
    database.write_bytes(b"this is no database " * 1000)
    for extra in (".db-wal", ".db-shm"):
        database.with_suffix(extra).unlink(missing_ok=True)
    done = project.run("functions", "list")
    assert done.status == 4
    assert str(database) in done.err
    assert "Traceback" not in done.err


# What nobody foresaw


def test_a_bug_is_not_hidden(project: CliProject) -> None:
    project.declare("{echo: {run: echo}}")
    project.write("evil.py", BROKEN_EXECUTOR)
    project.write("evil-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: evil\nVersion: 1\n")
    project.write("evil-1.dist-info/entry_points.txt", "[runner]\nevil = evil\n")
    project.environment["PYTHONPATH"] += os.pathsep + str(project.folder)
    jobs = project.folder / "jobs.yaml"
    jobs.write_text(re.sub("executor: [a-z]+", "executor: evil", jobs.read_text()))
    done = project.run("run")
    assert done.status == 70
    assert "ZeroDivisionError" in done.err
    assert "evil.py" in done.err
    assert "This is a bug in runner, or in a plugin" in done.err
    assert project.ok("--no-plugins", "plugins", "list").text.count("evil") == 0


BROKEN_EXECUTOR = """
from runner.contracts import Provider
from runner.hookspecs import hookimpl

@hookimpl
def runner_executors():
    return [Provider(name="evil", summary="fails", create=lambda settings, host: 1 / 0)]
"""


def test_ctrl_c_while_something_is_imported(project: CliProject) -> None:
    project.declare("{echo: {run: echo}}")
    project.write("slow.py", 'exec("raise KeyboardInterrupt")\n')
    project.write("slow-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: slow\nVersion: 1\n")
    project.write("slow-1.dist-info/entry_points.txt", "[runner]\nslow = slow\n")
    project.environment["PYTHONPATH"] += os.pathsep + str(project.folder)
    done = project.run("run")
    assert (done.status, done.err) == (130, "interrupted\n")


# Options


@pytest.mark.parametrize("behind", [True, False])
def test_global_options_stand_before_or_behind(project: CliProject, behind: bool, tmp_path: Path) -> None:
    project.declare("{echo: {run: echo}}")
    (project.folder / "jobs.yaml").rename(project.folder / "other.yaml")
    options = ["--file", "other.yaml", "--state-dir", str(tmp_path / "elsewhere"), "--quiet"]
    arguments = ["run", *options] if behind else [*options, "run"]
    assert project.ok(*arguments).err == ""
    assert (tmp_path / "elsewhere").is_dir()
    assert not (project.folder / ".runner").exists()


def test_options_from_the_environment_give_way(project: CliProject, tmp_path: Path) -> None:
    project.declare("{echo: {run: echo}}")
    project.environment |= {"RUNNER_FILE": "missing.yaml", "RUNNER_STATE_DIR": str(tmp_path / "elsewhere")}
    assert "missing.yaml" in project.run("run").err
    project.ok("run", "--file", "jobs.yaml")
    assert (tmp_path / "elsewhere").is_dir()


# Streams


def test_a_reader_that_goes_away_ends_it_quietly(project: CliProject) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = project.run("schema", stdout=writer)
    os.close(writer)
    assert (done.status, done.err) == (128 + signal.SIGPIPE, "")


def test_nobody_reads_anything(project: CliProject) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    project.declare("{echo: {run: echo, input: text}}")
    done = project.run("run", stdout=writer, stderr=writer)
    os.close(writer)
    assert done.status == 128 + signal.SIGPIPE


@pytest.mark.parametrize("arguments", [["schema"], ["--help"], ["--version"], ["run"]])
def test_a_full_disk_under_stdout(project: CliProject, arguments: list[str]) -> None:
    project.declare("{echo: {run: echo, input: text}}")
    with open("/dev/full", "wb") as full:
        done = project.run(*arguments, stdout=full)
    assert done.status == 3
    assert "standard output cannot be written: No space left on device" in done.err
    assert "Traceback" not in done.err


def test_a_locale_without_these_letters(project: CliProject) -> None:
    project.environment["PYTHONIOENCODING"] = "latin-1"
    project.declare("{}")
    project.ok("invoke", "log", "--input", "ελλάδα")
    assert r"\u03b5\u03bb" in project.ok("logs", "log").text
    assert '"message": "ελλάδα"' in project.ok("logs", "log", "--json").text  # JSON is UTF-8, whatever the locale


# Colours


COLOUR = "\x1b["


def test_colours_on_a_terminal_only(project: CliProject) -> None:
    assert COLOUR in project.on_terminal("plugins", "list")
    assert COLOUR in project.on_terminal("run")  # an error
    assert COLOUR not in project.ok("plugins", "list").text
    assert COLOUR not in project.run("run").err


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--no-color", "plugins", "list"], {}),
        (["plugins", "list", "--no-color"], {}),
        (["plugins", "list"], {"NO_COLOR": "1"}),
        (["--no-color", "run"], {}),
        (["run", "--no-color"], {}),
        (["run"], {"NO_COLOR": "1"}),
    ],
)
def test_no_colours_when_unwanted(project: CliProject, arguments: list[str], environment: dict[str, str]) -> None:
    project.environment |= environment
    shown = project.on_terminal(*arguments)
    assert "sqlite" in shown or "there is no jobs.yaml" in shown
    assert COLOUR not in shown


# Completion


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("runner ru", ["run", "runs"]),
        ("runner functions ", ["list", "versions", "show", "delete"]),
        ("runner run ", ["nightly", "hourly"]),
        ("runner run hourly n", ["nightly"]),
        ("runner enqueue n", ["nightly"]),
        ("runner dlq redrive --job h", ["hourly"]),
        ("runner invoke e", ["echo", "env"]),
        ("runner --file other.yaml run ", ["elsewhere"]),
    ],
)
def test_completion(project: CliProject, words: str, expected: list[str]) -> None:
    project.declare("{nightly: {run: echo}, hourly: {run: echo}, x-ignored: {}}")
    project.write("other.yaml", "jobs: {elsewhere: {}, half: ")
    if "other" in words:
        project.write("other.yaml", "jobs: {elsewhere: {}}")
    assert completed(project, words) == expected


def test_completion_of_a_broken_file_is_silent(project: CliProject) -> None:
    project.write("jobs.yaml", "jobs: {a: [\n\x00")
    assert completed(project, "runner run ") == []


def completed(project: CliProject, words: str) -> list[str]:
    project.environment |= {
        "_RUNNER_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    return [line.split(",")[1] for line in project.ok().text.split()]


def test_the_completion_script_is_printed(project: CliProject) -> None:
    project.environment["_RUNNER_COMPLETE"] = "zsh_source"
    assert "#compdef runner" in project.ok().text
