"""Batch jobs of a Runner: a plan carried out on its executors, with its registry and its plugins' hooks."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from runner.app import Runner
from runner.automatic import AutoExecutor
from runner.batch.backfill import chosen_partitions
from runner.batch.counts import Counts
from runner.batch.engine import Execute, closed_early
from runner.batch.merging import MergeRun
from runner.batch.partitions import Partition
from runner.batch.plan import Plan, plan_of
from runner.batch.report import BatchReport, View
from runner.batch.reusing import Memory, Reusing
from runner.batch.running import BatchRun, Choices, Parts
from runner.config import JobConfig
from runner.contracts import FunctionExecutor
from runner.errors import InvocationError, StoreError
from runner.jobskeys import AUTO_EXECUTOR
from runner.models import Function, InvocationContext, InvocationResult, LogEntry, Recording
from runner.recordings import with_kept
from runner.reports import JobReport

NO_CHOICES = Choices()


def run_batch(
    runner: Runner,
    job: JobConfig,
    function: Function,
    *,
    partition: Partition | None = None,
    state: str = "",
    context: InvocationContext | None = None,
    choices: Choices = NO_CHOICES,
    only_failed: bool = False,
    tell: Callable[[str], None],
    watch: Callable[[View], None] = lambda _: None,
) -> BatchReport:
    """Run a batch job, or one partition of it, with this version of its function, here and now.

    With `only_failed` its quarantined records alone run again, and their output goes where it belongs. How
    it ended is in the report; `state` and `context` are as in plan_of. Raises UsageError and NotAvailable
    for what cannot even be planned.
    """
    plan = plan_of(runner, job, function, partition, state=state, context=context)
    kind = MergeRun if only_failed else BatchRun
    hooks = runner.plugins
    if hooks.before_invocation is not None:
        hooks.before_invocation(function, plan.context)
    report = kind(plan, _parts(runner, plan, tell, watch), choices).run()
    if hooks.after_invocation is not None:
        output = b"" if report.error is None else None
        result = InvocationResult(output, report.error, (), report.duration_ms)
        hooks.after_invocation(function, plan.context, result)
    return report


def _parts(runner: Runner, plan: Plan, tell: Callable[[str], None], watch: Callable[[View], None]) -> Parts:
    function, context = plan.function, replace(plan.context, record=_record(runner, plan))
    executor: list[FunctionExecutor] = []

    def execute(inputs: Iterator[bytes]) -> Iterator[InvocationResult]:
        if not executor:  # started when there is something to run
            executor.append(executor_with(runner, function, plan.keys.workers))
        results = executor[0].execute_many(function, inputs, context)
        return results if plan.quarantine is None else _kept(results, function, context)

    def keep_logs(entries: Sequence[LogEntry]) -> None:
        try:
            runner.registry.add_logs(function, context.request_id, entries)
        except StoreError as error:
            runner.tell_once(f"log lines of {function.name} could not be kept: {error}")

    return Parts(
        execute=execute,
        reuse=_reuse(runner, plan),
        keep_logs=keep_logs,
        ended_by=lambda input, result: runner.keep_failure(function, input, context, result),
        tell=tell,
        watch=watch,
        workers=lambda: executor[0].workers() if executor else (),
    )


def _record(runner: Runner, plan: Plan) -> Recording | None:
    """What to record of records: those that fail, and are not skipped."""
    record = runner.config.record
    return None if record is None or plan.on_error.action == "skip" else replace(record, keep_all=False)


def _kept(
    results: Iterator[InvocationResult], function: Function, context: InvocationContext
) -> Iterator[InvocationResult]:
    with closed_early(results):
        for result in results:
            yield result if result.error is None else with_kept(result, function, context)


def _reuse(runner: Runner, plan: Plan) -> Callable[[Execute, Counts], Execute]:
    """Known results go before what makes them where a record is an input by itself, of a pure function."""
    function, reuse = plan.function, runner.reuse
    recipe = reuse.recipe(function, plan.context.env_vars) if plan.keys.isolation == "record" else None
    if recipe is None:
        return lambda execute, _: execute
    memory = Memory(find=partial(reuse.find, recipe.digest()), keep=partial(reuse.put, function))
    return lambda execute, counts: Reusing(execute, counts, memory, time.monotonic)


def run_all(
    runner: Runner,
    job: JobConfig,
    function: Function,
    *,
    tell: Callable[[str], None],
    watch: Callable[[View], None] = lambda _: None,
    context: InvocationContext | None = None,
    partition: str | None = None,
    now: datetime | None = None,
) -> list[BatchReport]:
    """Run a batch job as its triggers do: as a whole, or its partitions one after the other, of which one that
    fails does not keep the others from running; of a job with a partition for each day that of the day before
    `now`, in UTC, or the named one."""
    reports: list[BatchReport] = []
    for chosen in chosen_partitions(runner, job, partition, now):
        report = run_batch(runner, job, function, partition=chosen, context=context, tell=tell, watch=watch)
        reports.append(report)
        if report.status == "cancelled":
            break
    return reports


def _verdict(reports: Sequence[BatchReport]) -> BatchReport:
    """The report that stands for all: the last if it was cancelled, or the first that failed, or the last."""
    failed = [report for report in reports if report.status == "failed"]
    return failed[0] if failed and reports[-1].status != "cancelled" else reports[-1]


def job_report(project: Path, reports: Sequence[BatchReport]) -> JobReport:
    """How they ended as one run of a job, for `runner run`."""
    last = _verdict(reports)
    names = ("records_in", "records_out", "records_skipped", "records_quarantined", "records_reused")
    return JobReport(
        job=last.job,
        status=last.status,
        duration_ms=sum(report.duration_ms for report in reports),
        attempts=sum(report.counts.attempts for report in reports),
        function=last.function,
        version=last.version,
        output_bytes=sum(report.counts.bytes_out for report in reports),
        output_path=project / last.output,
        error=last.error,
        counts={name: sum(getattr(report.counts, name) for report in reports) for name in names},
        reason="interrupted" if last.status == "cancelled" else "",
    )


def as_result(reports: Sequence[BatchReport]) -> InvocationResult:
    """How they ended as one invocation, for the queue: its output are the reports as JSON lines."""
    last = _verdict(reports)
    duration_ms = sum(report.duration_ms for report in reports)
    if last.status != "succeeded":
        error = last.error or InvocationError("interrupted; it goes on from its last checkpoint")
        return InvocationResult(None, error, (), duration_ms)
    lines = [json.dumps(report.facts(), ensure_ascii=False) for report in reports]
    return InvocationResult("\n".join([*lines, ""]).encode(), None, (), duration_ms)


def executor_with(runner: Runner, function: Function, workers: int) -> FunctionExecutor:
    """The executor that runs this function, with so many workers; 0: as many as it has."""
    if not workers:
        return runner.executor_for(function)
    if function.executor == AUTO_EXECUTOR:
        names = runner.automatic_executors()
        return AutoExecutor(names, lambda name: runner.executor(name, _sized(runner, name, workers)), runner.tell_once)
    return runner.executor(function.executor, _sized(runner, function.executor, workers, function.name))


def _sized(runner: Runner, executor: str, workers: int, function: str = "") -> Any:
    """The executor's settings with that number of workers; None where they know of no workers, or where
    it is the number that they mean anyway: no second pool is started then."""
    configured = runner.config.functions.get(function)
    provider = runner.plugins.catalogue.get("executors", executor)
    settings: Any = configured.executor.settings if configured and configured.executor.name == executor else None
    if settings is None and provider.settings is not None:
        settings = provider.settings()
    has = getattr(settings, "workers", None)
    means = len(os.sched_getaffinity(0)) if has == 0 else has
    return settings if means in (None, workers) else replace(settings, workers=workers)
