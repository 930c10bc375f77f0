"""`runner logs`."""

from __future__ import annotations

import click

from runner.cli import console
from runner.cli.completion import complete_function
from runner.cli.groups import ProjectCommand, json_option
from runner.cli.project import Project, pass_project


@click.command("logs", cls=ProjectCommand)
@click.argument("function", shell_complete=complete_function)
@click.option("-n", "--limit", type=click.IntRange(1), default=100, show_default=True, help="The newest lines to show.")
@json_option
@pass_project
def logs(project: Project, function: str, limit: int, as_json: bool) -> None:
    """Show what a function has logged.

    Lines of all versions, oldest first, also of a function that was deleted. With --json: function,
    level (info, error, stderr), message, timestamp.

    \b
    Examples:
      runner logs clean
      runner logs clean -n 20 --json
    """
    with project.open() as runner:
        entries = runner.registry.get_logs(runner.config.namespace, function, limit)
    for entry in entries:
        moment = console.moment(entry.timestamp)
        if as_json:
            facts = {"level": entry.level.value, "message": entry.message, "timestamp": moment}
            console.show_json({"function": function, **facts})
        else:
            level = click.style(f"{entry.level.value:6}", fg="red" if entry.level.value == "error" else None)
            console.show(f"{click.style(moment, dim=True)}  {level}  {console.printable(entry.message)}")
    if not entries:
        project.say(f"{function} has logged nothing")
