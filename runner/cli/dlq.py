"""`runner dlq`: work that used up its attempts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from runner.cli import console, runfacts
from runner.cli.completion import complete_job
from runner.cli.groups import Group, json_option
from runner.cli.many import Many, confirm
from runner.cli.moments import now
from runner.cli.project import Project, pass_project
from runner.cli.served import tell_if_unserved
from runner.errors import InvalidInput, UsageError

if TYPE_CHECKING:
    from runner.app import Runner

_letter_arguments = click.argument("ids", metavar="[ID]...", nargs=-1, type=click.IntRange(1))
_job_option = click.option("--job", shell_complete=complete_job, help="All of this job.")
_all_option = click.option("--all", "all_of_them", is_flag=True, help="All there are.")
_yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask, even on a terminal.")


@click.group("dlq", cls=Group)
def dlq() -> None:
    """Dead letters: runs that used up their attempts.

    A dead letter stays until it is redriven, which runs its work again, or dropped, or until it is
    older than `retention.failed_days` of jobs.yaml. Its number is that of its run.
    """


@dlq.command("list")
@_job_option
@click.option("-n", "--limit", type=click.IntRange(1), default=50, show_default=True, help="How many to show.")
@click.option("--before", type=click.IntRange(1), metavar="ID", help="Older than this one: to turn the page.")
@json_option
@pass_project
def list_letters(project: Project, job: str | None, limit: int, before: int | None, as_json: bool) -> None:
    """List dead letters, the newest first.

    With --json: dead_letter_id, run_id, job, function, error_class, message, failed_at, attempts.

    \b
    Examples:
      runner dlq list --job clean
      runner dlq list --json | jq -r .message | sort | uniq -c
    """
    with project.open() as runner:
        found = runner.store.dead_letters(namespace=runner.config.namespace, job=job, before=before, limit=limit)
        if not found and job is not None:
            runner.config.job(job)
    rows = []
    for letter in found:
        if as_json:
            console.show_json(runfacts.letter_facts(letter))
        else:
            failed = console.relative(letter.failed_at, now())
            what = (str(letter.dead_letter_id), letter.job, letter.function or "", str(letter.attempts), failed)
            rows.append((*what, runfacts.short(letter.message)))
    if rows:
        headers = ("id", "job", "function", "attempts", "failed", "why")
        console.show_table(headers, rows, right=("id", "attempts", "failed"))
    if not found:
        project.say("no dead letters")
    elif len(found) == limit and not as_json:
        project.say(f"older ones: --before {found[-1].dead_letter_id}")


@dlq.command("show")
@click.argument("dead_letter_id", metavar="ID", type=click.IntRange(1))
@json_option
@pass_project
def show(project: Project, dead_letter_id: int, as_json: bool) -> None:
    """Show a dead letter: what was tried, and how each attempt failed.

    `runner runs show ID --input` writes what it could not digest. With --json: the keys of `dlq list`
    and attempt_list, with the end of each attempt's standard error.
    """
    from runner import bulk

    with project.open() as runner:
        letter = bulk.dead_letter(runner.store, dead_letter_id, now())
        run, attempts = runner.store.get(letter.run_id), runner.store.attempts(letter.run_id)
    if as_json:
        tried = [runfacts.attempt_facts(attempt) for attempt in attempts]
        console.show_json({**runfacts.letter_facts(letter), "attempt_list": tried})
        return
    runfacts.show_run(run, attempts, now())
    for line in runfacts.tail_lines(attempts):
        console.show(line)


@dlq.command("redrive")
@_letter_arguments
@_job_option
@_all_option
@_yes_option
@json_option
@pass_project
def redrive(
    project: Project, ids: tuple[int, ...], job: str | None, all_of_them: bool, yes: bool, as_json: bool
) -> int:
    """Run dead letters again, each as a new run with the same input and version.

    By numbers, or all of a job, or --all; in steps, each of which is kept. The letter is gone with the
    new run on the disk. One whose unique key a live run has stays.

    Prints the numbers of the new runs. With --json one object a run: run_id, parent_id (the letter's
    run). Exit status 1 when one stayed or is not there.

    \b
    Examples:
      runner dlq redrive 12 13
      runner dlq redrive --job clean
    """
    from runner import bulk

    with project.open() as runner:
        chosen, missing = _choose(runner, ids, job, all_of_them)
        confirm(f"run {len(chosen):,} dead letters again?", 1 if ids else len(chosen), yes=yes)
        with Many(project, len(chosen), "redriven", is_bulk=not ids) as many:
            for made in bulk.redrive(runner.store, chosen, now):
                many.done += len(made)
                for run_id, _ in made:
                    many.show_again(run_id, runner.store.get(run_id).parent_id if as_json else None)
        stayed = len(chosen) - many.done
        if stayed:
            console.tell(f"{console.counted(stayed, 'dead letter')} stayed: a live run has the same unique key")
        if many.done:
            many.tell_total(f"redriven {console.counted(many.done, 'dead letter')}")
            tell_if_unserved(project, runner)
        elif not chosen and not missing:
            project.say("no dead letters")
    return 1 if stayed or missing else 0


@dlq.command("drop")
@_letter_arguments
@_job_option
@_all_option
@_yes_option
@json_option
@pass_project
def drop(project: Project, ids: tuple[int, ...], job: str | None, all_of_them: bool, yes: bool, as_json: bool) -> int:
    """Forget dead letters. Their runs stay, as dead, for as long as they are kept.

    By numbers, or all of a job, or --all. With --json one object: dropped, how many. Exit status 1 when
    one is not there.

    \b
    Examples:
      runner dlq drop 12
      runner dlq drop --all --yes
    """
    from runner import bulk

    with project.open() as runner:
        chosen, missing = _choose(runner, ids, job, all_of_them)
        confirm(f"forget {len(chosen):,} dead letters?", 1 if ids else len(chosen), yes=yes)
        with Many(project, len(chosen), "dropped", is_bulk=not ids) as many:
            for count in bulk.drop(runner.store, chosen):
                many.done += count
    if as_json:
        console.show_json({"dropped": many.done})
    else:
        project.say(f"dropped {console.counted(many.done, 'dead letter')}")
    return 1 if missing else 0


def _choose(runner: Runner, ids: Sequence[int], job: str | None, all_of_them: bool) -> tuple[Sequence[int], int]:
    """The dead letters that are meant and there, and how many of those named are not, which is told."""
    from runner import bulk

    if (bool(ids), job is not None, all_of_them).count(True) != 1:
        raise UsageError("say which: numbers, or --job, or --all")
    if not ids:
        found = bulk.letters(runner.store, namespace=runner.config.namespace, job=job)
        if job is not None and not found:
            runner.config.job(job)
        return found, 0
    there = []
    for number in dict.fromkeys(ids):
        try:
            there.append(bulk.dead_letter(runner.store, number, now()).dead_letter_id)
        except InvalidInput as error:
            console.tell_error(error)
    return there, len(set(ids)) - len(there)
