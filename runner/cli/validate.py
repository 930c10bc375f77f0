"""`runner validate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.cli import console
from runner.cli.groups import ProjectCommand, json_option
from runner.cli.project import Project, pass_project
from runner.errors import ConfigError, Problem

if TYPE_CHECKING:
    from runner.config import Config


@click.command("validate", cls=ProjectCommand)
@click.argument("path", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@json_option
@pass_project
def validate(project: Project, path: Path | None, as_json: bool) -> int:
    """Check jobs.yaml and the modules it names.

    Prints every problem with file, line and column, and what was expected there. Nothing is
    started, compiled or changed. With --json one object a problem: file, line, column (from 1),
    where, message; nothing when all is well. Exit status 2 when there is a problem.

    \b
    Examples:
      runner validate
      runner validate ci/jobs.yaml --json
    """
    project.file = path or project.file
    problems = _problems(project)
    for problem in problems:
        if as_json:
            console.show_json({name: getattr(problem, name) for name in ("file", "line", "column", "where", "message")})
        else:
            console.show(console.printable(str(problem)))
    if problems and not as_json:
        console.tell(f"{console.counted(len(problems), 'problem')} in {project.file}")
    return ConfigError.exit_status if problems else 0


def _problems(project: Project) -> tuple[Problem, ...]:
    from runner.loading import load
    from runner.modules import module_problems

    try:
        catalogue = project.plugins().catalogue
        config = load(project.file, catalogue)
    except ConfigError as error:
        return error.problems
    problems = module_problems(config, catalogue, file=str(project.file)) + _trigger_problems(config, project)
    if not problems:
        counts = {"function": len(config.functions), "job": len(config.jobs), "test": len(config.tests)}
        told = [console.counted(count, noun) for noun, count in counts.items() if count or noun != "test"]
        project.say(f"{project.file} is valid: {', '.join(told)}")
    return problems


def _trigger_problems(config: Config, project: Project) -> tuple[Problem, ...]:
    from runner.app import Runner

    try:
        Runner(config, project.plugins()).triggers()
    except ConfigError as error:
        return error.problems
    return ()
