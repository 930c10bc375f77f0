"""Jobs run one after the other, here and now, as `runner run` does: which, in what order, and what a
failure or Ctrl-C means for those that are left.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from runner.app import Runner
from runner.config import JobConfig
from runner.dispatcher import Attempted
from runner.errors import RunnerError, UsageError
from runner.files import write_whole
from runner.models import Function
from runner.reports import JobReport, Registered

if TYPE_CHECKING:
    from runner.ownrun import PipelineChoices


def choose_jobs(runner: Runner, names: Iterable[str]) -> list[str]:
    """The named jobs, each once and in the order given; without names all that need no event, in the
    order of the file. Raises UsageError for an unknown name, and when there is nothing to run."""
    chosen, jobs, file = list(dict.fromkeys(names)), runner.config.jobs, runner.config.path.name
    for name in chosen:
        if name not in jobs:
            close = difflib.get_close_matches(name, jobs, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(jobs) or 'none'}"
            raise UsageError(f"no job {name!r} in {file}; {hint}")
    if not chosen:
        chosen = runner.jobs_without_event()
    if not chosen:
        why = "every job has a trigger; name those to run anyway" if jobs else "it declares no jobs"
        raise UsageError(f"nothing to run in {file}: {why}")
    return chosen


def register_for(runner: Runner, jobs: Iterable[str], tell: Callable[[str], None]) -> dict[str, Function]:
    """Register the functions of these jobs, tell of each that changed, and give them all by name."""
    names = dict.fromkeys(name for job in jobs for name in runner.config.functions_of(job))
    functions = {}
    for name in names:
        runner.prepare(name)  # engines start while modules are built and registered
    for name in names:
        registered = runner.register(name)
        functions[name] = registered.function
        if registered.changed:
            tell(describe(registered))
    return functions


def describe(registered: Registered) -> str:
    """`clean: version 2 (was 1)`."""
    function, previous = registered.function, registered.previous
    return f"{function.name}: version {function.version}" + (f" (was {previous.version})" if previous else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Which jobs run, with which versions, and whether a failure ends it."""

    jobs: Sequence[str]
    functions: Mapping[str, Function]
    """By the name that jobs.yaml gives them."""
    keep_going: bool = False
    """After a failure, still run the jobs that do not read the output file of one that failed."""
    pipeline: PipelineChoices | None = None
    """What is wanted of those that are pipelines."""


def run_jobs(runner: Runner, plan: Plan, started: Callable[[str], None]) -> Iterator[JobReport]:
    """Run them and yield one report each, in order; `started` is called before each run.

    After a failure the rest is `skipped`, or with keep_going only what would read an output file that
    was not made. Ctrl-C makes the running job `cancelled` and skips the rest; it is not raised.
    """
    missing: dict[Path, str] = {}
    end = ""
    for name in plan.jobs:
        job = runner.config.jobs[name]
        source = job.input.path if job.input is not None else None
        reason = end or (f"job {missing[source]!r} did not make its input" if source in missing else "")
        if reason:
            report = _not_run(plan, job, "skipped", reason)
        else:
            try:
                started(name)
                report = _run(runner, plan, name)
            except KeyboardInterrupt:
                hint = "; the same command goes on with it" if job.steps else ""
                report = _not_run(plan, job, "cancelled", f"interrupted{hint}")
        if report.status == "cancelled":
            end = "interrupted"
        elif report.status == "failed" and not plan.keep_going:
            end = f"job {name!r} failed before it"
        if report.status != "succeeded" and job.output is not None:
            missing[job.output] = name
        yield report


def _run(runner: Runner, plan: Plan, name: str) -> JobReport:
    job = runner.config.jobs[name]
    if job.steps:
        from runner.ownrun import PipelineChoices, run_pipeline  # few commands run pipelines

        return run_pipeline(runner, job, plan.functions, plan.pipeline or PipelineChoices(), runner.tell_once)
    if job.batch is None:
        return _run_single(runner, job, plan.functions[job.functions[0]])
    from runner.batch.jobs import job_report, run_all  # few commands run batches

    reports = run_all(runner, job, plan.functions[job.batch.function], tell=runner.tell_once)
    return job_report(runner.project_dir, reports)


def _run_single(runner: Runner, job: JobConfig, function: Function) -> JobReport:
    """Run a job of a single function once, with its retries. The output file appears whole or not at all."""
    started = time.perf_counter()
    attempted: Attempted | None = None
    error: RunnerError | None = None
    output: bytes | None = None
    try:
        data, context = job.input.read() if job.input else b"", runner.context(function, job.env_vars)
        run = runner.dispatcher.run
        if function.pure:
            run = partial(runner.reuse.attempted, run)
        attempted = run(function, data, context)
        error, output = attempted.result.error, attempted.result.output
        if output is not None and job.output is not None:
            write_whole(job.output, output)
    except RunnerError as raised:
        error = raised
    return JobReport(
        job=job.name,
        status="failed" if error else "succeeded",
        duration_ms=(time.perf_counter() - started) * 1e3,
        attempts=attempted.attempts if attempted else 0,
        function=function.name,
        version=function.version,
        output_bytes=len(output) if output and not error else 0,
        output_path=job.output if not error else None,
        output=output if job.output is None and not error else None,
        memory_peak_bytes=attempted.result.memory_peak_bytes if attempted else 0,
        counts={"records_reused": 1} if attempted and attempted.reused else {},
        error=error,
    )


def _not_run(plan: Plan, job: JobConfig, status: str, reason: str) -> JobReport:
    function = "" if job.steps else job.functions[0]
    version = plan.functions[function].version if function else 0
    return JobReport(
        job=job.name, status=status, duration_ms=0.0, attempts=0, function=function, version=version, reason=reason
    )
