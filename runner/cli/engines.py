"""`runner engines`."""

from __future__ import annotations

import click

from runner.cli import console
from runner.cli.groups import Group, json_option
from runner.cli.project import Project, pass_project
from runner.errors import EngineUnavailable, UsageError


@click.group("engines", cls=Group)
def engines() -> None:
    """The engines that run functions.

    `executor:` in jobs.yaml names one; `auto`, the default, takes the best that works here.
    """


@engines.command("list")
@json_option
@pass_project
def list_engines(project: Project, as_json: bool) -> None:
    """List every engine: what is here, and why something is not.

    With --json: name, available, version, summary, reason, remedy, installable. `runner doctor` goes
    further and starts them.
    """
    rows = []
    for provider in project.plugins().catalogue.executors.values():
        found = provider.available()
        if as_json:
            facts = {"version": found.version, "summary": provider.summary}
            why = {"reason": found.reason, "remedy": found.remedy, "installable": provider.install is not None}
            console.show_json({"name": provider.name, "available": found.ok, **facts, **why})
        else:
            status = click.style("available", fg="green") if found.ok else click.style("missing", fg="yellow")
            why_not = "; ".join(filter(None, (found.reason, found.remedy)))
            what = provider.summary if found.ok else why_not
            rows.append((provider.name, status, found.version if found.ok else "", console.printable(what)))
    if rows:
        console.show_table(("name", "status", "version", ""), rows)


@engines.command("install")
@click.argument("name")
@pass_project
def install(project: Project, name: str) -> None:
    """Bring what an engine needs and does not find here.

    May take minutes and the network. Done already, it does nothing.

    \b
    Example:
      runner engines install wasmer
    """
    provider = project.plugins().catalogue.get("executors", name)
    if provider.install is not None:
        provider.install(project.say)
    elif not (found := provider.available()).ok:
        raise EngineUnavailable(name, found.reason, remedy=found.remedy or None)
    else:
        raise UsageError(f"engine {name!r} is here and has nothing to install")
