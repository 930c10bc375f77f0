"""`runner doctor`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from runner.cli import console
from runner.cli.groups import ProjectCommand, json_option
from runner.cli.project import Project, pass_project
from runner.errors import NotAvailable

if TYPE_CHECKING:
    from runner.doctor import Check


@click.command("doctor", cls=ProjectCommand)
@json_option
@pass_project
def doctor(project: Project, as_json: bool) -> int:
    """Tell what works on this machine and what does not.

    Starts every engine that is here, counts the walls around its sandbox and runs a small function;
    looks at plugins, toolchains, jobs.yaml, registry and state folder. Nothing of the project is
    changed. With --json one object a check: part, name, ok, needed, detail, remedy. Exit status 3
    when something is missing that jobs cannot run without.

    \b
    Examples:
      runner doctor
      runner doctor --json | jq 'select(.ok | not)'
    """
    from runner.doctor import examine

    missing = 0
    for check in examine(project.load_plugins(), project.file, project.state_dir):
        missing += check.needed and not check.ok
        if as_json:
            console.show_json(asdict(check))
        else:
            console.show(_line(check))
    if missing:
        verb = "does" if missing == 1 else "do"
        project.say(f"{console.counted(missing, 'thing')} that jobs need {verb} not work")
        return NotAvailable.exit_status
    return 0


def _line(check: Check) -> str:
    if check.part == "wall":
        mark = click.style("on  ", fg="green") if check.ok else click.style("off ", fg="red")
    elif check.ok:
        mark = click.style("ok  ", fg="green")
    else:
        mark = click.style("FAIL", fg="red", bold=True) if check.needed else click.style("no  ", fg="yellow")
    what = "; ".join(filter(None, (check.detail, check.remedy)))
    return f"{mark}  {check.part:9}  {check.name:22}  {console.printable(what)}".rstrip()
