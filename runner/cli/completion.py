"""Names that a shell may complete: the jobs, functions and tests of jobs.yaml.

A half-written file and a missing one complete nothing and raise nothing.
"""

from __future__ import annotations

import click

from runner.cli.project import Project
from runner.errors import RunnerError


def complete_job(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The jobs that begin so."""
    return _names(ctx, "jobs", incomplete)


def complete_function(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The functions of jobs.yaml that begin so."""
    return _names(ctx, "functions", incomplete)


def complete_test(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The tests of jobs.yaml that begin so."""
    return _names(ctx, "tests", incomplete)


def _names(ctx: click.Context, key: str, incomplete: str) -> list[str]:
    from runner.yamlnodes import Entries, decode, parse

    try:
        data = ctx.ensure_object(Project).file.read_bytes()
    except OSError:
        return []
    try:
        text = decode(data, _ignore)
        root = parse(text, _ignore) if text is not None else None
    except RunnerError:
        return []
    names = root.get(key) if isinstance(root, Entries) else None
    entries = names.entries if isinstance(names, Entries) else []
    found = [str(name.value) for name, _ in entries]
    return [name for name in found if name.startswith(incomplete) and not name.startswith("x-")]


def _ignore(line: int, column: int, where: str, message: str) -> None:
    """A problem that completion is not the place to tell of."""
