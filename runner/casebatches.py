"""Tests over records: batches whose output, quarantine and state stand in a folder that is thrown away."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from runner.app import Runner
from runner.batch.plan import plan_of
from runner.batch.quarantine import Quarantined, read_quarantine
from runner.batch.report import BatchReport
from runner.batch.running import BatchRun, Choices, Parts
from runner.batchkeys import Action, BatchKeys, OnErrorKeys, on_error_of
from runner.catalogue import format_of_path
from runner.config import CaseConfig, Choice, JobConfig
from runner.contracts import FunctionExecutor
from runner.errors import InvalidInput, InvocationError, TooManyFailures, UsageError
from runner.models import Function, InvocationContext, InvocationResult, LogEntry
from runner.partial import ENDING as PARTIAL_ENDING
from runner.schema import model_of
from runner.verdicts import SHOWN_FAILURES, TAIL_LINES, Outcome, logged

FALLBACK = "output.jsonl"
"""Its format takes what is made of records."""


def job_of(runner: Runner, case: CaseConfig, folder: Path) -> JobConfig:
    """The batch that a case runs: that of its job with everything it writes put into the folder, or one
    made up for its function. Raises UsageError."""
    if case.function is not None:
        assert case.records is not None
        keys = BatchKeys(function=case.function, input=case.records, output=_sink_for(runner, case.records, folder))
        return JobConfig(
            name=case.name,
            run=None,
            description=None,
            input=None,
            output=None,
            env_vars=case.env_vars,
            triggers=(),
            line=case.line,
            batch=replace(keys, on_error=_kept(OnErrorKeys(action="skip"), folder)),
        )
    job = runner.config.job(case.job or "")
    assert job.batch is not None
    output: Choice = job.batch.output
    keys = replace(
        job.batch,
        input=case.records or job.batch.input,
        output=replace(output, settings=replace(output.settings, path=str(_output(folder)))),
        on_error=_kept(on_error_of(job.batch), folder),
        partitions=None,
    )
    return replace(job, batch=keys, env_vars=MappingProxyType({**job.env_vars, **case.env_vars}))


def _output(folder: Path) -> Path:
    return folder / "output"


def _quarantine(folder: Path) -> Path:
    return folder / "rejected"


def _kept(on_error: OnErrorKeys, folder: Path) -> OnErrorKeys:
    """Records that would be left out are kept as well, to be told of."""
    action: Action = "fail" if on_error.action == "fail" else "quarantine"
    return replace(on_error, action=action, path=str(_quarantine(folder)))


def _sink_for(runner: Runner, source: Choice, folder: Path) -> Choice:
    """Lines; but the records' own format where reading and writing have settings in common, such as a header."""
    sinks = runner.plugins.catalogue.sinks
    output = {"path": str(_output(folder))}
    own = sinks.get(source.name)
    if own is not None and own.settings is not None:
        keys = {key.attribute: key for key in model_of(own.settings).keys.values()}
        common = {name: getattr(source.settings, name) for name in keys if hasattr(source.settings, name)}
        if len(common) > 1 and all(name == "path" or not key.required for name, key in keys.items()):
            return Choice(name=own.name, settings=own.settings(**{**common, **output}))
    name = format_of_path(FALLBACK, sinks)
    made = None if name is None else sinks[name].settings
    if name is None or made is None:
        raise UsageError("no installed plugin writes lines; plugin runner_files does")
    return Choice(name=name, settings=made(**output))


def run(
    runner: Runner,
    job: JobConfig,
    function: Function,
    context: InvocationContext,
    executor: FunctionExecutor,
    folder: Path,
) -> Outcome:
    """What comes of a job of `job_of`. Raises what is nobody's fault but the machine's."""
    logs: list[LogEntry] = []

    def execute(inputs: Iterator[bytes]) -> Iterator[InvocationResult]:
        return executor.execute_many(function, inputs, context)

    def keep_logs(entries: Sequence[LogEntry]) -> None:
        logs.extend(entries)
        del logs[:-TAIL_LINES]

    plan = replace(plan_of(runner, job, function), context=context, state=folder / "state")
    parts = Parts(execute=execute, keep_logs=keep_logs, tell=lambda _: None)
    return _outcome(BatchRun(plan, parts, Choices(restart=True)).run(), _failed(folder), logs, folder)


def _outcome(report: BatchReport, failed: Sequence[Quarantined], logs: Sequence[LogEntry], folder: Path) -> Outcome:
    counts, error = report.counts, report.error
    facts: dict[str, Any] = {
        "counts": {"records_in": counts.records_in, "records_out": counts.records_out, "failed": counts.failed},
        "failures": [f"{one.place}: {one.error_class}: {one.message}" for one in failed],
        "stderr": next((one.stderr_tail for one in failed if one.stderr_tail), logged(logs)),
        "duration_ms": report.duration_ms,
    }
    if error is None:
        output = _output(folder)  # may be a folder as well
        return Outcome(output=output.read_bytes() if output.is_file() else None, **facts)
    if not isinstance(error, InvalidInput | InvocationError):
        raise error
    if getattr(error, "stderr_tail", ""):
        del facts["stderr"]
    outcome = Outcome.of_error(error, **facts)
    if isinstance(error, TooManyFailures):  # its message names a file that is gone by then
        return replace(outcome, message=f"{error.failed:,} of {error.records:,} records failed, and {error.limit}")
    return outcome


def _failed(folder: Path) -> list[Quarantined]:
    """The first records that failed, of a run that was ended by them as well."""
    whole = _quarantine(folder)
    files = [file for file in (whole, whole.with_name(whole.name + PARTIAL_ENDING)) if file.exists()]
    return [record for file in files for _, record in itertools.islice(read_quarantine(file, ""), SHOWN_FAILURES)]
