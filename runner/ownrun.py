"""A pipeline run here and now, as `runner run` does: by way of the store, so that it can be gone on with.

A run that was left unfinished, because its process was killed or interrupted, is gone on with by the next
one of the same job and input.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone

from runner import pipeline_state, plan
from runner.admission import Pin, check_input, new_run, plan_of
from runner.app import Runner
from runner.config import JobConfig
from runner.errors import RunFailed, RunnerError, UsageError
from runner.ledger import Run, RunFilter
from runner.models import Function
from runner.ownlanes import OwnLanes, bury, is_busy
from runner.pipeline_state import State, taking_over
from runner.plan import Plan
from runner.reports import JobReport
from runner.runs import TERMINAL, Enqueued, OnConflict, RunStatus
from runner.watching import ended, exit_status

_COUNTS = ("records_in", "records_out", "records_skipped", "records_quarantined", "records_reused")


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What there is to show of a pipeline that runs."""

    run_id: int
    job: str
    plan: Plan
    state: State
    run: Run
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Of steps that are batches and have succeeded: the records, by what became of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineChoices:
    """What the user wants of a pipeline."""

    input: bytes | None = None
    """In place of the job's own."""
    start: str | None = None
    """Begin with this step, and take what those before it gave in the latest run."""
    failed: bool = False
    """Run only what did not succeed in the latest run."""
    restart: bool = False
    """Begin again, even if there is a run that could be gone on with."""
    watch: Callable[[View], None] = lambda _: None
    """Told of every change."""


def run_pipeline(
    runner: Runner,
    job: JobConfig,
    functions: Mapping[str, Function],
    choices: PipelineChoices,
    tell: Callable[[str], None],
) -> JobReport:
    """Run it to its end, or go on with a run that was left unfinished. Never raises for how it ended: the
    report holds the error. Raises UsageError for choices that cannot be met."""
    started = time.perf_counter()
    run_id = _accept(runner, job, functions, choices, tell)
    store = runner.store
    made = plan.load(store.plan(run_id))
    lanes = OwnLanes(runner, store.get(run_id).queue, _now)
    counts: dict[str, Mapping[str, int]] = {}
    run = lanes.carry_out(run_id, lambda run: choices.watch(_view(runner, run, made, counts)))
    output = store.result(run_id)
    error: RunnerError | None = None
    if run.status is not RunStatus.SUCCEEDED:
        error = RunFailed(run.error_class or "Cancelled", run.message or run.status.value, exit_status([run]))
    size = job.output.stat().st_size if job.output is not None and error is None else len(output or b"")
    return JobReport(
        job=job.name,
        status="succeeded" if error is None else "failed",
        duration_ms=(time.perf_counter() - started) * 1e3,
        attempts=run.attempts,
        function="",
        version=0,
        output_bytes=size,
        output_path=job.output if error is None else None,
        output=output if job.output is None else None,
        counts={name: sum(known[name] for known in counts.values()) for name in _COUNTS} if counts else {},
        error=error,
    )


def view_of(runner: Runner, run: Run) -> View | None:
    """What there is to show of a run; None for one that is no pipeline's, or whose plan cannot be read."""
    text = b"" if run.function is not None else runner.store.plan(run.run_id)
    return _view(runner, run, plan.load(text), {}) if text else None


def _view(runner: Runner, run: Run, made: Plan, counts: dict[str, Mapping[str, int]]) -> View:
    """`counts` is what is known of batches already, and is added to."""
    state = pipeline_state.load(runner.store.state(run.run_id))
    for name, step in state.steps.items():
        if step.status == "succeeded" and step.total is None and name not in counts and _is_batch(runner, made, name):
            runs = pipeline_state.sources(made, name, run.run_id)
            for _, output in runner.store.step_outputs(runs, name, limit=1):
                with contextlib.suppress(ValueError, LookupError, TypeError):  # of a job that was no batch then
                    counts[name] = _counts(output)
    return View(run_id=run.run_id, job=run.job, plan=made, state=state, run=run, counts=counts)


def _is_batch(runner: Runner, made: Plan, step: str) -> bool:
    job = runner.config.jobs.get(made.steps[step].target.job)
    return job is not None and job.batch is not None


def _counts(output: bytes) -> Mapping[str, int]:
    """The records of a batch by its output, which are its reports as JSON lines."""
    reports = [json.loads(line) for line in output.splitlines()]
    return {name: sum(report[name] for report in reports) for name in _COUNTS}


def retrying(runner: Runner, now: Callable[[], datetime]) -> Callable[[int], Enqueued]:
    """The act of going on from a pipeline's run that has ended: with a new run of the steps and functions as
    they are now, but without what succeeded there. It raises RunNotFound and UsageError."""
    pins: dict[str, Mapping[str, Function]] = {}

    def retry(run_id: int) -> Enqueued:
        store = runner.store
        run = store.get(run_id)
        if run.function is not None or not store.plan(run_id):
            raise UsageError(f"run {run_id} of {run.job} is no pipeline's, and can only be run again as a whole")
        if not run.status.is_terminal:
            raise UsageError(f"run {run_id} has not ended yet; cancel it first, or wait")
        job = runner.config.job(run.job)
        if job.name not in pins:
            pins[job.name] = {name: runner.register(name).function for name in runner.config.functions_of(job.name)}
        made = _going_on(runner, plan_of(runner.config, job, pins[job.name]), run, None)
        pinned = Pin(runner.config.namespace, None, made.dump())
        return store.enqueue([new_run(job, pinned, store.payload(run_id), parent_id=run_id)], now=now())[0]

    return retry


def _accept(
    runner: Runner,
    job: JobConfig,
    functions: Mapping[str, Function],
    choices: PipelineChoices,
    tell: Callable[[str], None],
) -> int:
    """Enqueue a run, or find the one to go on with; its id."""
    before = _latest(runner, job) if choices.start is not None or choices.failed else None
    data = _input(runner, job, choices, before, tell)
    check_input(job, data)
    meant = hashlib.sha256(repr((data, choices.start, choices.failed)).encode()).hexdigest()[:16]
    key = f"run/{job.name}/{meant}"  # of the run, and of the queue that nobody else puts anything into
    made = plan_of(runner.config, job, functions, queue=key)
    if before is not None:
        made = _going_on(runner, made, before, choices.start)
    pinned = Pin(runner.config.namespace, None, made.dump())
    run = new_run(job, pinned, data, queue=key, unique_key=key, on_conflict=OnConflict.JOIN)
    run_id, created = runner.store.enqueue([run], now=_now())[0]
    if created:
        return run_id
    is_running = is_busy(runner, key)
    if choices.restart and is_running:
        raise UsageError(f"run {run_id} of {job.name} is running in another process; stop that one, then begin again")
    if choices.restart:
        bury(runner, _now())
        runner.store.cancel(run_id, "begun again", now=_now())
        next(ended(runner.store, [run_id]))
        return _accept(runner, job, functions, choices, tell)
    if is_running:
        tell(f"run {run_id} of {job.name} is running in another process already; both work on it and end with it")
        return run_id
    tell(f"goes on with run {run_id} of {job.name}, which was not finished; --restart begins again")
    return run_id


def _input(
    runner: Runner, job: JobConfig, choices: PipelineChoices, before: Run | None, tell: Callable[[str], None]
) -> bytes:
    """What the run is given: as it was chosen, as in the run before, or the job's own."""
    earlier = None if before is None else runner.store.payload(before.run_id)
    if before is not None and choices.input is not None and choices.input != earlier:
        tell(f"run {before.run_id}, whose results are taken over, had another input: they are as they were")
    if choices.input is not None:
        return choices.input
    return earlier or (b"" if job.input is None else job.input.read())


def _latest(runner: Runner, job: JobConfig) -> Run:
    """The latest run of the job that has ended. Raises UsageError without any."""
    filter = RunFilter(namespace=runner.config.namespace, job=job.name, statuses=TERMINAL, is_step=False)
    latest = next((run for run in runner.store.list_runs(filter) if runner.store.plan(run.run_id)), None)
    if latest is None:
        raise UsageError(f"job {job.name!r} has no run yet that has ended, and could be gone on from")
    return latest


def _going_on(runner: Runner, made: Plan, run: Run, start: str | None) -> Plan:
    """The plan with what is taken over from a run; see `taking_over`."""
    if start is None and run.status is RunStatus.SUCCEEDED:
        raise UsageError(f"run {run.run_id} of {run.job} succeeded; nothing in it has failed")
    if start is not None and (start not in made.steps or start == plan.ON_FAILURE):
        raise UsageError(f"no step {start!r} in job {run.job!r}; there are {', '.join(made.steps)}")
    before = plan.load(runner.store.plan(run.run_id))
    runs = (run.run_id, *(before.reuse.runs if before.reuse is not None else ()))
    return taking_over(made, pipeline_state.load(runner.store.state(run.run_id)), runs, start=start)


def _now() -> datetime:
    return datetime.now(timezone.utc)
