"""`runner logs`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from runner.cli import console
from runner.cli.completion import complete_function, complete_job
from runner.cli.groups import ProjectCommand, json_option
from runner.cli.project import Project, pass_project
from runner.errors import NotAvailable, UsageError

if TYPE_CHECKING:
    from runner.app import Runner
    from runner.ledger import RunFilter, RunLog
    from runner.models import LogEntry


@click.command("logs", cls=ProjectCommand)
@click.argument("function", required=False, shell_complete=complete_function)
@click.option("--job", shell_complete=complete_job, help="Of the runs of this job.")
@click.option("--run", "run_id", metavar="RUN", type=click.IntRange(1), help="Of this run, all its attempts.")
@click.option("-f", "--follow", is_flag=True, help="Go on as more is logged; with --run until it has ended.")
@click.option("-n", "--limit", type=click.IntRange(0), default=100, show_default=True, help="The newest lines to show.")
@json_option
@pass_project
def logs(
    project: Project, function: str | None, job: str | None, run_id: int | None, follow: bool, limit: int, as_json: bool
) -> None:
    """Show what functions have logged.

    Lines of all runs, or those of a function, a job or a run; oldest first. Of a function, those of
    calls without a run (`runner run`, `runner invoke`) too, of all versions, also if it was deleted.

    With --json: run_id and attempt (null for a call without a run), level (info, error, stderr),
    message, timestamp. --follow ends by Ctrl-C, with status 130; it shows lines of runs only.

    \b
    Examples:
      runner logs clean -n 20 --json
      runner logs --run 12
      runner logs --job nightly --follow
    """
    if [function, job, run_id].count(None) < 2:
        raise UsageError("of a function, of a --job or of a --run: give one of them")
    with project.open() as runner:
        if run_id is not None:
            lines = _of_run(runner, run_id, limit, follow)
        elif function is not None:
            lines = _of_function(runner, function, limit, follow)
        else:
            lines = _of_runs(runner, _filter(runner, job=job), limit, follow)
            _check(runner, job)
        if not _show(lines, as_json):
            subject = f"job {job}" if job else f"run {run_id}" if run_id else function
            project.say(f"{subject} has logged nothing" if subject else "no run has logged anything")


def _check(runner: Runner, job: str | None) -> None:
    """Raise UsageError for a job that is not in jobs.yaml and never ran."""
    if job is not None and not runner.store.list_runs(_filter(runner, job=job), limit=1):
        runner.config.job(job)


Line = tuple["int | None", "int | None", "LogEntry"]
"""A run, an attempt, and what was logged."""


def _show(lines: Iterable[Line], as_json: bool) -> bool:
    """Show them as they come; whether there were any."""
    shown = False
    for run_id, attempt, entry in lines:
        shown = True
        moment = console.moment(entry.timestamp)
        if as_json:
            facts = {"level": entry.level.value, "message": entry.message, "timestamp": moment}
            console.show_json({"run_id": run_id, "attempt": attempt, **facts})
            continue
        level = click.style(f"{entry.level.value:6}", fg="red" if entry.level.value == "error" else None)
        place = "-" if run_id is None else f"{run_id}.{attempt}"
        console.show(f"{click.style(f'{moment}  {place:>6}', dim=True)}  {level}  {console.printable(entry.message)}")
    return shown


def _filter(runner: Runner, **wanted: str | None) -> RunFilter:
    from runner.ledger import RunFilter

    return RunFilter(namespace=runner.config.namespace, **wanted)  # type: ignore[arg-type]  # names of text fields


def _line(found: RunLog) -> Line:
    return found.run_id, found.attempt, found.entry


def _of_run(runner: Runner, run_id: int, limit: int, follow: bool) -> Iterator[Line]:
    from runner import watching

    newest = watching.newest_of(runner.store, run_id, max(limit, 1))
    if limit:
        yield from map(_line, newest)
    if follow:
        after = (newest[-1].attempt, newest[-1].number) if newest else (0, 0)
        yield from map(_line, watching.follow_run(runner.store, run_id, after=after))


def _of_runs(runner: Runner, filter: RunFilter, limit: int, follow: bool) -> Iterator[Line]:
    from runner import watching

    page = runner.store.tail(filter, limit=limit)
    yield from map(_line, page.lines)
    if follow:
        yield from map(_line, watching.follow(runner.store, filter, after=page.after))


def _of_function(runner: Runner, function: str, limit: int, follow: bool) -> Iterator[Line]:
    """Those of calls without a run, which the registry keeps, among those of runs."""
    alone = runner.registry.get_logs(runner.config.namespace, function, limit)
    lines: list[Line] = [(None, None, entry) for entry in alone]
    try:
        store = runner.store
    except NotAvailable:  # a registry that keeps no runs
        yield from lines
        return
    filter = _filter(runner, function=function)
    page = store.tail(filter, limit=limit)
    lines += map(_line, page.lines)
    lines.sort(key=lambda line: line[2].timestamp)
    yield from lines[max(len(lines) - limit, 0) :]
    if follow:
        from runner import watching

        yield from map(_line, watching.follow(store, filter, after=page.after))
