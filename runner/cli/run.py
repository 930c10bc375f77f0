"""`runner run`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.cli import console
from runner.cli.completion import complete_job
from runner.cli.given import read_given
from runner.cli.groups import ProjectCommand, json_option, no_reuse_option
from runner.cli.params import param_option, read_params
from runner.cli.project import Project, pass_project
from runner.errors import UsageError

if TYPE_CHECKING:
    from runner.cli.progress import Progress
    from runner.config import JobConfig
    from runner.ownrun import PipelineChoices, View
    from runner.reports import JobReport

INTERRUPTED = 130


@click.command("run", cls=ProjectCommand)
@click.argument("jobs", nargs=-1, metavar="[JOB]...", shell_complete=complete_job)
@click.option("-k", "--keep-going", is_flag=True, help="After a failure, run the jobs that do not depend on it.")
@param_option
@click.option("-i", "--input", "given", metavar="FILE|-|TEXT", help="What a pipeline gets, in place of its own input.")
@click.option("--from", "start", metavar="STEP", help="Begin a pipeline with this step; see below.")
@click.option("--failed", is_flag=True, help="Run only what did not succeed in a pipeline's latest run.")
@click.option("--restart", is_flag=True, help="Begin a pipeline again that was left unfinished.")
@no_reuse_option
@json_option
@pass_project
def run(project: Project, /, jobs: Sequence[str], keep_going: bool, as_json: bool, **wanted: Any) -> int:
    """Run jobs, once and here.

    Runs the named jobs in the order given, or else all that have no trigger, in the order of
    jobs.yaml. Functions that changed are registered first, as a new version.

    A job's output goes to its output file, which appears whole or not at all. A job without one
    writes its output to stdout, untouched; all else goes to stderr.

    After a failure no further job starts. With --keep-going those still run that do not read the
    output file of a job that failed.

    A pipeline is a run in the store, with its steps as runs of their own. One that was interrupted or
    killed is gone on with by the same command, or else by a daemon; --restart begins again. With --from
    STEP that step and all that comes behind it are run, with what those before it gave in the latest
    run; with --failed, whatever did not succeed in that, down to single items. These options, --param
    and --input are for one pipeline at a time.

    With --json one object a job on stdout, and no output of jobs: job, status (succeeded, failed,
    skipped, cancelled), duration_ms, attempts, function, version, output_bytes, output_path,
    memory_peak_bytes, records_reused (1 if the result of a pure function was known; --no-reuse runs it
    all the same), error_class, message; of batches, also as steps, records_in, records_out,
    records_skipped, records_quarantined, and records_reused of them all. Exit status 0 when all
    succeeded, 1 when a job failed; 3 or 4 when all that failed did so for want of something or because
    of the store.

    \b
    Examples:
      runner run
      runner run clean report --keep-going
      runner run report > report.md
      runner run nightly --param day=monday
      runner run nightly --from merge
    """
    project.start_ahead()
    from runner.cli.liveline import is_live
    from runner.cli.progress import Progress
    from runner.foreground import Plan, choose_jobs, register_for, run_jobs

    progress: Progress | None = None

    def say(message: str) -> None:
        (progress.say if progress else project.say)(message)

    reports: list[JobReport] = []
    with project.open(notify=say) as runner:
        chosen = choose_jobs(runner, jobs)
        progress = Progress(len(chosen), live=is_live(), quiet=project.quiet)
        pipeline = _pipeline(project, [runner.config.jobs[name] for name in chosen], progress.watch, **wanted)
        functions = register_for(runner, chosen, say)
        plan = Plan(jobs=chosen, functions=functions, keep_going=keep_going, pipeline=pipeline)
        with progress:
            for report in run_jobs(runner, plan, progress.started):
                reports.append(report)
                progress.ended(report)
                _hand_over(report, as_json, progress)
    if not project.quiet:
        _close(reports)
    return _exit_status(reports)


def _pipeline(
    project: Project,
    jobs: Sequence[JobConfig],
    watch: Callable[[View], None],
    params: Sequence[str],
    given: str | None,
    start: str | None,
    failed: bool,
    restart: bool,
) -> PipelineChoices | None:
    """What the options say of the one pipeline that they are for; None when there is none. Raises UsageError."""
    if any((params, given is not None, start, failed, restart)) and (len(jobs) != 1 or not jobs[0].steps):
        message = "--param, --input, --from, --failed and --restart are for one pipeline; name it, and no other job"
        raise UsageError(message)
    if start and failed:
        raise UsageError("--from and --failed exclude each other")
    if params and given is not None:
        raise UsageError("--param and --input exclude each other: parameters are the keys of the input")
    if not any(job.steps for job in jobs):
        return None
    from runner.ownrun import PipelineChoices  # not for plain jobs

    data = read_params(jobs[0], params) if params else None if given is None else read_given(project, given)
    return PipelineChoices(input=data, start=start, failed=failed, restart=restart, watch=watch)


def _hand_over(report: JobReport, as_json: bool, progress: Progress) -> None:
    """The report or the output on stdout."""
    if as_json:
        console.show_json(_facts(report))
    elif report.output is not None:
        progress.pause()
        console.write(report.output)
        if sys.stdout.isatty() and report.output and not report.output.endswith(b"\n"):
            console.tell()  # what follows on the terminal begins on a line of its own


def _facts(report: JobReport) -> dict[str, object]:
    error = report.error
    return {
        "job": report.job,
        "status": report.status,
        "duration_ms": round(report.duration_ms, 3),
        "attempts": report.attempts,
        **{"records_reused": 0, **report.counts},
        "function": report.function or None,
        "version": report.version or None,
        "output_bytes": report.output_bytes,
        "output_path": str(report.output_path) if report.output_path else None,
        "memory_peak_bytes": report.memory_peak_bytes,
        "error_class": error.error_class if error else None,
        "message": str(error) if error else report.reason or None,
    }


def _close(reports: Sequence[JobReport]) -> None:
    """The closing table, on stderr."""
    headers = ("job", "status", "time", "attempts", "output", "")
    console.tell()
    for line in console.table(headers, list(_rows(reports)), right=("time", "attempts", "output")):
        console.tell(line)


def _rows(reports: Sequence[JobReport]) -> Iterator[tuple[str, ...]]:
    from runner.cli.colors import colored

    for report in reports:
        job, status = report.job, colored(report.status)
        if report.reason:
            yield job, status, "", "", "", report.reason
            continue
        nothing = report.error is not None or (not report.function and not report.output_bytes)
        size = "" if nothing else console.size(report.output_bytes)
        what = report.error.error_class if report.error else _shown(report.output_path)
        attempts = "reused" if report.counts.get("records_reused") and not report.attempts else str(report.attempts)
        yield job, status, console.duration(report.duration_ms), attempts, size, what


def _shown(path: Path | None) -> str:
    """A path as the user would write it: relative to where they are, if it is below."""
    if path is None:
        return ""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _exit_status(reports: Sequence[JobReport]) -> int:
    if any(report.status == "cancelled" for report in reports):
        console.tell("interrupted")
        return INTERRUPTED
    statuses = [report.error.exit_status for report in reports if report.error is not None]
    return 1 if 1 in statuses else max(statuses, default=0)
