"""`runner runs`: what the queue holds and held, and what can be done about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from runner.cli import console, runfacts, steptree
from runner.cli.completion import complete_job
from runner.cli.groups import Group, json_option
from runner.cli.many import Many, confirm
from runner.cli.moments import MomentType, now
from runner.cli.names import NameType
from runner.cli.project import Project, pass_project
from runner.cli.served import tell_if_unserved
from runner.errors import InvalidInput, UsageError

if TYPE_CHECKING:
    from runner.app import Runner
    from runner.bulk import Done
    from runner.ledger import Run, RunFilter
    from runner.ownrun import View

STATUSES = ("pending", "running", "succeeded", "failed", "cancelled", "dead")
_LIVE, _BAD = ("pending", "running"), ("failed", "dead")

_run_arguments = click.argument("run_ids", metavar="[RUN]...", nargs=-1, type=click.IntRange(1))
_job_option = click.option("--job", shell_complete=complete_job, help="All of this job, in place of numbers.")
_status_option = click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice(STATUSES),
    help="In this status; may be given several times.",
)
_queue_option = click.option("--queue", type=NameType(), help="In this queue.")
_since_option = click.option(
    "--since", type=MomentType(or_ago=True), metavar="WHEN", help="Enqueued since this moment, or this long ago."
)
_yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask, even on a terminal.")


@click.group("runs", cls=Group)
def runs() -> None:
    """The runs in the queue, and those that have ended.

    A run is pending until a daemon takes it, running, and then succeeded, failed (no other attempt
    could end otherwise), dead (its attempts are used up; a dead letter tells of it) or cancelled.
    """


@runs.command("list")
@click.argument("job", required=False, shell_complete=complete_job)
@_status_option
@_queue_option
@click.option("--trigger", metavar="TRIGGER", help="Started by this trigger: its id, a job, or a job and a kind.")
@click.option("--parent", type=click.IntRange(1), metavar="RUN", help="Caused by this run; its steps, of a pipeline.")
@click.option("--steps", is_flag=True, help="Also runs that are steps of pipelines.")
@_since_option
@click.option("-n", "--limit", type=click.IntRange(1), default=50, show_default=True, help="How many to show.")
@click.option("--before", type=click.IntRange(1), metavar="RUN", help="Older than this one: to turn the page.")
@json_option
@pass_project
def list_runs(
    project: Project, /, job: str | None, limit: int, before: int | None, as_json: bool, **wanted: Any
) -> None:
    """List runs, the newest first.

    WHEN is a moment like 2027-01-15T09:00:00Z or a length of time like 2h, back from now.

    With --json: run_id, job, step and item (null of what is no step), status (pending, running,
    succeeded, failed, cancelled, dead), trigger_type, slot, attempts, created_at, started_at,
    finished_at, error_class.

    \b
    Examples:
      runner runs list
      runner runs list clean --status failed --status dead --since 1d
      runner runs list --json | jq -r 'select(.status == "dead").run_id'
    """
    with project.open() as runner:
        filter = _filter(runner, job, **wanted)
        found = runner.store.list_runs(filter, before=before, limit=limit)
        if not found and job is not None:
            runner.config.job(job)  # one that was there before may have runs; one that never was has none
    _list(found, as_json)
    if not found:
        project.say("no such runs")
    elif len(found) == limit and not as_json:
        project.say(f"older ones: --before {found[-1].run_id}")


def _filter(
    runner: Runner,
    job: str | None,
    statuses: Sequence[str] = (),
    queue: str | None = None,
    trigger: str | None = None,
    parent: int | None = None,
    steps: bool = False,
    since: datetime | None = None,
) -> RunFilter:
    from runner.ledger import RunFilter
    from runner.runs import RunStatus

    return RunFilter(
        namespace=runner.config.namespace,
        job=job,
        statuses=frozenset(map(RunStatus, statuses)) or None,
        queue=queue,
        trigger=None if trigger is None else _trigger(runner, trigger),
        parent_id=parent,
        created_from=since,
        is_step=None if steps or parent is not None else False,
    )


def _trigger(runner: Runner, name: str) -> str:
    from runner.account import triggers_meant

    first, *others = triggers_meant(name, runner.triggers(), runner.config.namespace)
    if others and name not in others:
        raise UsageError(f"{name!r} is more than one trigger: {', '.join([first, *others])}; name one")
    return name if others else first


def _list(found: Sequence[Run], as_json: bool) -> None:
    if as_json:
        for run in found:
            console.show_json(runfacts.run_facts(run))
    elif found:
        moment = now()
        rows = [runfacts.run_row(run, moment) for run in found]
        console.show_table(runfacts.HEADERS, rows, right=runfacts.RIGHT)


@runs.command("show")
@click.argument("run_id", metavar="RUN", type=click.IntRange(1))
@click.option(
    "--output", "part", flag_value="output", help="Write its output to stdout, as the bytes it is, and no more."
)
@click.option("--input", "part", flag_value="input", help="The same with its input.")
@json_option
@pass_project
def show(project: Project, run_id: int, part: str | None, as_json: bool) -> None:
    """Show a run with its attempts, or what it read or wrote.

    --input is what was put into the queue: nothing, for a run that reads its job's own input.

    With --json: the keys of `runs list`, all others of a run, and attempt_list; of a pipeline also
    steps (step, status, total, succeeded, failed, message).

    \b
    Examples:
      runner runs show 12
      runner runs show 12 --output > result.json
    """
    with project.open() as runner:
        run = runner.store.get(run_id)
        if part is not None:
            console.write(_part(runner, run, part))
            return
        attempts = runner.store.attempts(run_id)
        view = None if run.function is not None else _view_of(runner, run)
    if as_json:
        tried = [runfacts.attempt_facts(attempt) for attempt in attempts]
        steps = {} if view is None else {"steps": list(steptree.facts(view))}
        console.show_json({**runfacts.run_facts(run, runfacts.SHOWN), "attempt_list": tried, **steps})
        return
    runfacts.show_run(run, attempts, now())
    if view is not None:
        console.show()
        for line in steptree.tree(view, now()):
            console.show(line)


def _view_of(runner: Runner, run: Run) -> View | None:
    from runner.ownrun import view_of  # few runs are pipelines

    return view_of(runner, run)


def _part(runner: Runner, run: Run, part: str) -> bytes:
    if part == "input":
        return runner.store.payload(run.run_id)
    output = runner.store.result(run.run_id)
    if output is None:
        raise InvalidInput(f"run {run.run_id} is {run.status.value} and has no output")
    return output


@runs.command("cancel")
@_run_arguments
@_job_option
@_status_option
@_queue_option
@_since_option
@click.option("--reason", default="cancelled by a person", show_default=True, help="Why, for `runner why`.")
@_yes_option
@json_option
@pass_project
def cancel(project: Project, /, run_ids: tuple[int, ...], reason: str, yes: bool, as_json: bool, **wanted: Any) -> int:
    """Cancel runs: those with these numbers, or all of a job, a queue, a status.

    One that waits is cancelled at once. One that runs is ended by its daemon, a moment later. One that
    has ended stays as it is.

    With --json one object a run: run_id, status (running: it is going to be ended). Exit status 1 when
    there is no such run.

    \b
    Examples:
      runner runs cancel 12 13
      runner runs cancel --job clean --status pending --yes
    """
    from runner import bulk

    with project.open() as runner:
        chosen = _choose(runner, run_ids, wanted, _LIVE)
        confirm(f"cancel {len(chosen):,} runs?", 1 if run_ids else len(chosen), yes=yes)
        counts: Counter[str] = Counter()
        with Many(project, len(chosen), "cancelled", is_bulk=not run_ids) as many:
            for done in bulk.each(chosen, bulk.cancel(runner.store, reason, now)):
                if done.error is not None:
                    many.fail(done.error)
                elif done.status is not None:
                    many.done += 1
                    counts[done.status.value] += 1
                    if as_json:
                        console.show_json({"run_id": done.run_id, "status": done.status.value})
    if counts or not many.failed:
        project.say(_cancelled(counts))
    return 1 if many.failed else 0


def _cancelled(counts: Counter[str]) -> str:
    words = {
        "cancelled": "cancelled",
        "running": "asked to end",
        "succeeded": "had succeeded",
        "failed": "had failed",
        "dead": "had died",
    }
    told = [f"{console.counted(counts[status], 'run')} {text}" for status, text in words.items() if counts[status]]
    return ", ".join(told) or "no such runs"


@runs.command("retry")
@_run_arguments
@_job_option
@_status_option
@_queue_option
@_since_option
@click.option("--failed", is_flag=True, help="Of pipelines: only what failed, as jobs.yaml has it now.")
@_yes_option
@json_option
@pass_project
def retry(project: Project, /, run_ids: tuple[int, ...], failed: bool, yes: bool, as_json: bool, **wanted: Any) -> int:
    """Run again what has ended: the same input and the same version, as a new run.

    By numbers, or all of a job, a queue, a status: those that failed or died, unless --status says
    otherwise. The dead letter of one that died is settled by it.

    With --failed the new run of a pipeline takes over what succeeded, down to single items, and runs
    the rest with steps and functions as they are now.

    Prints the numbers of the new runs. With --json one object a run: run_id, parent_id (the run that it
    repeats). Exit status 1 when a run is not there or its unique key is taken.

    \b
    Examples:
      runner runs retry 12
      runner runs retry --job clean --status dead --since 2h
      runner runs retry 12 --failed
    """
    from runner import bulk

    with project.open() as runner:
        chosen = _choose(runner, run_ids, wanted, _BAD)
        confirm(f"run {len(chosen):,} runs again?", 1 if run_ids else len(chosen), yes=yes)
        with Many(project, len(chosen), "enqueued again", is_bulk=not run_ids) as many:
            for done in bulk.each(chosen, _failed_only(runner) if failed else bulk.retry(runner.store, now)):
                if done.error is not None:
                    many.fail(done.error)
                elif done.enqueued is not None:
                    many.done += 1
                    many.show_again(done.enqueued.run_id, done.run_id if as_json else None)
        if many.done:
            many.tell_total(f"enqueued {console.counted(many.done, 'run')} again")
            tell_if_unserved(project, runner)
        elif not many.failed:
            project.say("no such runs")
    return 1 if many.failed else 0


def _failed_only(runner: Runner) -> Callable[[int], Done]:
    from runner.bulk import Done
    from runner.ownrun import retrying

    retry = retrying(runner, now)
    return lambda run_id: Done(run_id, enqueued=retry(run_id))


def _choose(runner: Runner, run_ids: Sequence[int], wanted: dict[str, Any], statuses: Sequence[str]) -> Sequence[int]:
    """The numbers of the runs that are meant; those in `statuses` if none was named."""
    from runner import bulk

    if bool(run_ids) == any(wanted.values()):
        raise UsageError("name runs by their numbers, or choose them with --job, --status, --queue or --since")
    if run_ids:
        return run_ids
    found = bulk.chosen(runner.store, _filter(runner, **{**wanted, "statuses": wanted["statuses"] or statuses}))
    if wanted["job"] is not None and not found:
        runner.config.job(wanted["job"])
    return found
