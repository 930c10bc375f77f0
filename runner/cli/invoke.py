"""`runner invoke`."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from runner.cli import console
from runner.cli.completion import complete_function
from runner.cli.given import read_given
from runner.cli.groups import ProjectCommand, json_option
from runner.cli.names import FunctionName, FunctionNameType
from runner.cli.project import Project, pass_project

if TYPE_CHECKING:
    from runner.app import Runner
    from runner.models import Function, InvocationResult


def _env_vars(_: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for name, equals, _rest in pairs:
        if not name or not equals:
            raise click.BadParameter(f"{name!r}: expected NAME=VALUE", param=param)
    return {name: value for name, _, value in pairs}


env_option = click.option(
    "-e",
    "--env",
    "env_vars",
    metavar="NAME=VALUE",
    multiple=True,
    callback=_env_vars,
    help="A variable on top of the function's env_vars; may be given several times.",
)
"""`--env`, for commands that call one function."""


@click.command("invoke", cls=ProjectCommand)
@click.argument("function", metavar="FUNCTION[@VERSION]", type=FunctionNameType(), shell_complete=complete_function)
@click.option(
    "-i",
    "--input",
    "given",
    metavar="FILE|-|TEXT",
    help="What the function reads: a file, - for stdin, or the text itself. Nothing without it.",
)
@env_option
@click.option("--reuse", is_flag=True, help="Take the known result of a pure function, and keep a new one.")
@json_option
@pass_project
def invoke(
    project: Project, function: FunctionName, given: str | None, env_vars: dict[str, str], reuse: bool, as_json: bool
) -> int:
    """Call one function.

    Its output goes to stdout as the bytes it is, its log lines to stderr. One attempt is made,
    whatever its retry_count. Without a version the function is taken as jobs.yaml has it now, and
    registered if it changed.

    --input takes the name of a file that exists, or the text itself; @FILE means the file and
    nothing else, - is stdin.

    With --json one object: function, version, status (succeeded, failed), duration_ms,
    memory_peak_bytes, output_bytes, output (or output_base64 if it is not UTF-8), logs (level,
    message, timestamp), error_class, message. Exit status 1 when the function failed.

    \b
    Examples:
      runner invoke greet --input Ada
      runner invoke greet@1 --input names.txt --env GREETING=Hi
      gunzip < day.csv.gz | runner invoke clean --input - > clean.csv
    """
    project.start_ahead()
    data = read_given(project, given)
    with project.open() as runner:
        runner.prepare(function.name)  # the engine starts while the registry is opened
        found = current_function(runner, function, project.say)
        result = runner.invoke(found.name, data, version=found.version, env_vars=env_vars, reuse=reuse)
    if as_json:
        console.show_json(_facts(found, result))
    else:
        _show(project, result)
    return 0 if result.error is None else result.error.exit_status


def current_function(runner: Runner, wanted: FunctionName, say: Callable[[str], None]) -> Function:
    """The function as jobs.yaml has it now, registered if it changed; or the version that is wanted."""
    from runner.foreground import describe

    if wanted.version or wanted.name not in runner.config.functions:
        return runner.function(wanted.name, wanted.version)
    registered = runner.register(wanted.name)
    if registered.changed:
        say(describe(registered))
    return registered.function


def _show(project: Project, result: InvocationResult) -> None:
    if not project.quiet:
        for entry in result.logs:
            console.tell(console.printable(entry.message))
    if result.output is not None:
        console.write(result.output)
    if result.error is not None:
        # its log has just been shown: the tail would say the same again
        console.tell_error(result.error, tail=project.quiet or not result.logs)


def _facts(function: Function, result: InvocationResult) -> dict[str, Any]:
    error, output = result.error, result.output
    return {
        "function": function.name,
        "version": function.version,
        "status": "failed" if error else "succeeded",
        "duration_ms": round(result.duration_ms, 3),
        "memory_peak_bytes": result.memory_peak_bytes,
        "output_bytes": len(output or b""),
        **_output(output),
        "logs": [
            {"level": entry.level.value, "message": entry.message, "timestamp": console.moment(entry.timestamp)}
            for entry in result.logs
        ],
        "error_class": error.error_class if error else None,
        "message": str(error) if error else None,
    }


def _output(output: bytes | None) -> dict[str, str | None]:
    if output is None:
        return {"output": None}
    try:
        return {"output": output.decode()}
    except UnicodeDecodeError:
        return {"output_base64": base64.b64encode(output).decode()}
