"""`runner init`."""

from __future__ import annotations

import shlex
from importlib import resources
from pathlib import Path

import click

from runner.cli.groups import ProjectCommand
from runner.cli.project import Project, pass_project
from runner.errors import FileUnavailable, UsageError

STARTER = ("jobs.yaml", "names.txt", "functions/greet.c", "functions/greet.wasm")
"""The files of templates/ that make a project; all or none are written."""


@click.command("init", cls=ProjectCommand)
@click.argument("folder", default=".", type=click.Path(path_type=Path))
@pass_project
def init(project: Project, folder: Path) -> None:
    """Make a starter project that is ready to run.

    Writes a commented jobs.yaml, a function in C with its compiled module, and a file for it to
    read. FOLDER is made if need be; a file that is there already is never overwritten.

    \b
    Example:
      runner init demo && cd demo
      runner run
    """
    taken = [name for name in STARTER if (folder / name).exists()]
    if taken:
        raise UsageError(f"{folder / taken[0]} is there already, and nothing was written; name another folder")
    templates = resources.files("runner.cli") / "templates"
    for name in STARTER:
        _write(folder / name, (templates / name).read_bytes())
        project.say(f"wrote {folder / name}")
    go = "" if folder == Path() else f"cd {shlex.quote(str(folder))} && "
    project.say(f"now: {go}runner run")


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(data)
    except OSError as error:
        raise FileUnavailable(f"cannot write {path}: {error.strerror}") from error
