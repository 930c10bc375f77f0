"""`runner backfill`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click

from runner.cli import console
from runner.cli.batch import check_choices, exit_status, restart_option, resume_option, shown
from runner.cli.completion import complete_job
from runner.cli.groups import ProjectCommand, json_option
from runner.cli.project import Project, pass_project

if TYPE_CHECKING:
    from runner.app import Runner
    from runner.batch.backfill import Only, PartitionState
    from runner.batch.report import BatchReport
    from runner.cli.batchprogress import BatchProgress
    from runner.config import JobConfig


@click.command("backfill", cls=ProjectCommand)
@click.argument("name", metavar="JOB", shell_complete=complete_job)
@click.option("--from", "first", metavar="DAY", help="The first day, of partitions by day.")
@click.option("--to", "last", metavar="DAY", help="The last day; yesterday without it.")
@click.option(
    "--only",
    type=click.Choice(["missing", "failed", "all"]),
    default="missing",
    show_default=True,
    help="Which partitions to run.",
)
@click.option("--list", "only_list", is_flag=True, help="Run nothing: list the partitions and the state of each.")
@restart_option
@resume_option
@json_option
@pass_project
def backfill(project: Project, /, name: str, only_list: bool, as_json: bool, **given: Any) -> int:
    """Run the partitions of a batch job that are missing.

    The state of each is listed in the end, or with --list at once. A partition is `missing` if it never
    ran to its end or its output is gone, `interrupted`, or as its last run has left it: succeeded,
    failed, cancelled. --only missing runs the missing, interrupted and cancelled ones, --only failed
    those that failed, --only all every one again. A failed one does not keep the others from running.

    With --json one object a partition: job, partition, status, finished_at, records_in, records_out,
    records_failed, message. Exit status 1 if one of those that ran failed.

    \b
    Examples:
      runner backfill clean_orders --from 2026-11-01 --to 2026-11-24
      runner backfill clean_orders --from 2026-11-01 --list
      runner backfill by_region --only failed
    """
    check_choices(given["restart"], given["resume"])
    if not only_list:
        project.start_ahead()
    from runner.batch.backfill import partitions_of, state_of

    reports: list[BatchReport] = []
    with shown(project, as_json) as progress, project.open(notify=progress.say) as runner:
        job = runner.config.job(name)
        partitions = partitions_of(runner, job, first=given["first"], last=given["last"])
        states = [state_of(runner, job, partition) for partition in partitions]
        if not only_list:
            reports = _run(runner, job, states, given, progress)
            states = [state_of(runner, job, partition) for partition in partitions]
    _show(job.name, states, as_json)
    return exit_status(reports)


def _run(
    runner: Runner, job: JobConfig, states: list[PartitionState], given: dict[str, Any], progress: BatchProgress
) -> list[BatchReport]:
    from runner.batch.backfill import is_wanted
    from runner.batch.jobs import run_batch
    from runner.batch.running import Choices
    from runner.foreground import register_for

    only = cast("Only", given["only"])
    wanted = [state.partition for state in states if is_wanted(state, only)]
    progress.say(f"{job.name}: {len(wanted):,} of {console.counted(len(states), 'partition')} to run")
    if not wanted:
        return []
    function = register_for(runner, [job.name], progress.say)[job.functions[0]]
    reports = []
    for partition in wanted:
        report = run_batch(
            runner,
            job,
            function,
            partition=partition,
            choices=Choices(restart=given["restart"] or only == "all", resume=given["resume"]),
            tell=progress.say,
            watch=progress.watch,
        )
        progress.ended(report, as_result=False)
        reports.append(report)
        if report.status == "cancelled":
            break
    return reports


def _show(job: str, states: list[PartitionState], as_json: bool) -> None:
    if as_json:
        for state in states:
            console.show_json(
                {
                    "job": job,
                    "partition": state.partition.name,
                    "status": state.status,
                    "finished_at": state.finished_at,
                    "records_in": state.records_in,
                    "records_out": state.records_out,
                    "records_failed": state.records_failed,
                    "message": state.message,
                }
            )
        return
    from runner.cli.colors import colored

    rows = [
        (
            state.partition.name,
            colored(state.status),
            *("" if count is None else f"{count:,}" for count in (state.records_in, state.records_out)),
            f"{state.records_failed:,}" if state.records_failed else "",
            (state.finished_at or "")[:19].replace("T", " "),
            console.printable((state.message or "").partition("\n")[0]),
        )
        for state in states
    ]
    console.show_table(
        ("partition", "status", "in", "out", "failed", "finished (UTC)", ""), rows, right=("in", "out", "failed")
    )
