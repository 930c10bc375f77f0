"""`runner batch`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from runner.cli import console
from runner.cli.completion import complete_job
from runner.cli.groups import ProjectCommand, json_option, no_reuse_option
from runner.cli.project import Project, pass_project

if TYPE_CHECKING:
    from runner.batch.report import BatchReport
    from runner.cli.batchprogress import BatchProgress

INTERRUPTED = 130

restart_option = click.option("--restart", is_flag=True, help="Begin again, whatever an interrupted run has done.")
resume_option = click.option(
    "--resume", is_flag=True, help="Go on where an interrupted run was, even if something has changed since."
)
only_option = click.option(
    "--only", type=click.Choice(["failed"]), help="Run the quarantined records again, and merge their output."
)


@click.command("batch", cls=ProjectCommand)
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...", shell_complete=complete_job)
@restart_option
@resume_option
@only_option
@click.option("--partition", metavar="NAME", help="Run only this partition of the job.")
@no_reuse_option
@json_option
@pass_project
def batch(project: Project, /, jobs: Sequence[str], as_json: bool, **given: Any) -> int:
    """Run batch jobs: a function over many records.

    The output appears as a whole when the job has succeeded. A run that was interrupted goes on where
    its last checkpoint is, and gives the same bytes as one that was not. If its input, function or
    settings have changed since, that is told, and --restart or --resume decides.

    --only failed runs the records again that the last run has quarantined. What they give is merged into
    the output, where it would stand had they not failed; those that fail again stay in the quarantine.

    A job with partitions runs all of them, also when one fails, or with one for each day that of
    yesterday (in UTC); --partition names another. `runner backfill` runs many and lists them. Behind a
    job that failed the next is not begun.

    With --json one object a job on stdout: job, partition, status (succeeded, failed, cancelled),
    duration_ms, attempts, function, version, records_in, records_out, records_skipped,
    records_quarantined, records_reused, records_per_second, bytes_in, bytes_out, output, quarantine,
    slowest (duration_ms, record), error_class, message; and events on stderr, one object a line: event
    (progress, message), for progress job, done, records_in, records_per_second, records_failed,
    records_waiting, seconds_left, workers.

    \b
    Examples:
      runner batch clean_orders
      runner batch clean_orders --only failed
      runner batch clean_orders --restart --json
    """
    check_choices(given["restart"], given["resume"])
    project.start_ahead()
    from runner.batch.backfill import chosen_partitions
    from runner.batch.jobs import run_batch
    from runner.batch.running import Choices
    from runner.foreground import register_for

    choices = Choices(restart=given["restart"], resume=given["resume"])
    reports: list[BatchReport] = []
    with shown(project, as_json) as progress, project.open(notify=progress.say) as runner:
        chosen = [runner.config.job(name) for name in dict.fromkeys(jobs)]
        functions = register_for(runner, [job.name for job in chosen], progress.say)
        parts = [(job, part) for job in chosen for part in chosen_partitions(runner, job, given["partition"])]
        for done, (job, partition) in enumerate(parts):
            bad = [report for report in reports if report.status != "succeeded"]
            if bad and (bad[-1].status == "cancelled" or bad[-1].job != job.name):
                left = {other.name: None for other, _ in parts[done:]}
                progress.say(f"not begun: {', '.join(left)}")
                break
            report = run_batch(
                runner,
                job,
                functions[job.functions[0]],
                partition=partition,
                choices=choices,
                only_failed=given["only"] is not None,
                tell=progress.say,
                watch=progress.watch,
            )
            reports.append(report)
            progress.ended(report)
    return exit_status(reports)


def check_choices(restart: bool, resume: bool) -> None:
    """Raises UsageError for choices that exclude each other."""
    if restart and resume:
        raise click.UsageError("--restart begins again and --resume goes on: give one of them")


def shown(project: Project, as_json: bool) -> BatchProgress:
    """What tells of batches as the user wants it."""
    from runner.cli.batchprogress import BatchProgress
    from runner.cli.liveline import is_live

    return BatchProgress(live=is_live(), quiet=project.quiet, as_json=as_json)


def exit_status(reports: Sequence[BatchReport]) -> int:
    """What the command exits with after these."""
    if any(report.status == "cancelled" for report in reports):
        console.tell("interrupted; the same command goes on from the last checkpoint")
        return INTERRUPTED
    statuses = [report.error.exit_status for report in reports if report.error is not None]
    return 1 if 1 in statuses else max(statuses, default=0)
