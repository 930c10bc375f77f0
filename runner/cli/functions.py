"""`runner functions`: what the registry holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from runner.cli import console
from runner.cli.completion import complete_function
from runner.cli.groups import Group, json_option
from runner.cli.names import FunctionName, FunctionNameType
from runner.cli.project import Project, pass_project

if TYPE_CHECKING:
    from runner.models import Function

LISTED = (
    "namespace",
    "name",
    "version",
    "status",
    "wasm_cid",
    "memory_limit_mb",
    "timeout_seconds",
    "updated_at",
)
SHOWN = (
    *LISTED,
    "id",
    "source_cid",
    "executor",
    "is_public",
    "retry_count",
    "retry_delay_seconds",
    "dlq_topic",
    "env_vars",
    "secrets",
    "allow",
    "pure",
    "created_at",
    "created_by",
)
_name_argument = click.argument("function", type=FunctionNameType(), shell_complete=complete_function)


@click.group("functions", cls=Group)
def functions() -> None:
    """The functions in the registry.

    `runner run` puts the functions of jobs.yaml there. Every version is kept and can be called as
    NAME@VERSION until it is deleted.
    """


@functions.command("list")
@json_option
@pass_project
def list_functions(project: Project, as_json: bool) -> None:
    """List the newest version of every function.

    With --json: namespace, name, version, status, wasm_cid, memory_limit_mb, timeout_seconds, updated_at.
    """
    with project.open() as runner:
        namespace, found = runner.config.namespace, runner.registry.list(runner.config.namespace)
    _list(found, as_json)
    if not found:
        project.say(f"no functions in namespace {namespace!r} yet; `runner run` registers those of {project.file}")


@functions.command("versions")
@_name_argument
@json_option
@pass_project
def versions(project: Project, function: FunctionName, as_json: bool) -> None:
    """List every version of a function, newest first.

    Deleted ones are listed too, as `inactive`. With --json: the same keys as `functions list`.
    """
    with project.open() as runner:
        _list(runner.registry.versions(runner.config.namespace, function.without_version()), as_json)


@functions.command("show")
@_name_argument
@json_option
@pass_project
def show(project: Project, function: FunctionName, as_json: bool) -> None:
    """Show one version of a function with all its settings.

    \b
    Examples:
      runner functions show clean
      runner functions show clean@2 --json
    """
    with project.open() as runner:
        found = runner.registry.get(runner.config.namespace, function.name, function.version)
    if as_json:
        console.show_json({name: console.plain(getattr(found, name)) for name in SHOWN})
        return
    width = max(map(len, SHOWN))
    for name in SHOWN:
        console.show(f"{name:{width}}  {_text(getattr(found, name))}".rstrip())


@functions.command("delete")
@_name_argument
@pass_project
def delete(project: Project, function: FunctionName) -> None:
    """Delete a function, or one version of it.

    It can no longer be called; its history, logs and module stay. `runner run` registers a function
    of jobs.yaml again, as a new version.

    \b
    Examples:
      runner functions delete clean@1
      runner functions delete clean        # all versions
    """
    with project.open() as runner:
        count = runner.registry.delete(runner.config.namespace, function.name, function.version)
    project.say(f"deleted {console.counted(count, 'version')} of {function.name}")


def _list(found: Iterable[Function], as_json: bool) -> None:
    rows = []
    for function in found:
        if as_json:
            console.show_json({name: console.plain(getattr(function, name)) for name in LISTED})
        else:
            limits = (f"{function.memory_limit_mb} MB", f"{function.timeout_seconds:g} s")
            updated = console.moment(function.updated_at.timestamp())
            status = function.status.value
            rows.append((function.name, str(function.version), status, *limits, updated, function.wasm_cid))
    if rows:
        headers = ("name", "version", "status", "memory", "timeout", "updated", "wasm_cid")
        console.show_table(headers, rows, right=("version", "memory", "timeout"))


def _text(value: object) -> str:
    plain = console.plain(value)
    if isinstance(plain, dict):
        return ", ".join(f"{name}={_text(item)}" for name, item in plain.items() if item != [])
    if isinstance(plain, list):
        return ", ".join(map(str, plain))
    return "" if plain is None else str(plain)
