"""From a job of jobs.yaml to a run for the queue: what is pinned when a run is accepted, and its triggers.

Nothing is started here and no clock is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from runner.config import Config, JobConfig, StepConfig
from runner.errors import ConfigError, LookupFailed, Problem, UsageError
from runner.expressions import Raw
from runner.graph import inverted, layers
from runner.models import Function, TriggerType
from runner.pipeline import parameters
from runner.plan import ParamPlan, Plan, StepPlan, Target
from runner.runs import DEFAULT_QUEUE, NewRun, OnConflict
from runner.triggers import Trigger, TriggerSource

JOB_KIND = TriggerType.JOB.value
"""The kind of trigger whose settings hold for runs that a person or a guest asks for."""
_TYPES = {kind.value: kind for kind in TriggerType}


def triggers_of(config: Config, source_of: Callable[[str], TriggerSource]) -> list[Trigger]:
    """Every trigger of every job. Raises ConfigError for two of one job that mean the same."""
    found: dict[str, Trigger] = {}
    problems: list[Problem] = []
    for job in config.jobs.values():
        for given in job.triggers:
            key = source_of(given.kind).key(given.settings)
            name = "/".join(filter(None, (config.namespace, job.name, given.kind, key)))
            if name in found:
                message = f"two {given.kind} triggers of this job mean the same, the other is in line "
                message += f"{found[name].line}; take one away"
                place = {"line": given.line, "column": given.column}
                problems.append(Problem(file=config.path.name, **place, where=f"jobs.{job.name}", message=message))
            found[name] = Trigger(id=name, job=job.name, kind=given.kind, settings=given.settings, line=given.line)
    if problems:
        raise ConfigError(problems)
    return list(found.values())


class Pin(NamedTuple):
    """What a run of a job is pinned to when it is accepted."""

    namespace: str
    function: Function | None
    """None for a pipeline."""
    plan: bytes = b""
    """Of a pipeline: its steps, pinned likewise."""


def pin(config: Config, job: JobConfig, functions: Mapping[str, Function], *, queue: str | None = None) -> Pin:
    """The job with these versions of its functions, by the names that they have in jobs.yaml: those of
    `config.functions_of`. `queue` takes the place of every queue that its steps would be in."""
    if not job.steps:
        return Pin(config.namespace, functions[job.functions[0]])
    return Pin(config.namespace, None, plan_of(config, job, functions, queue=queue).dump())


def plan_of(config: Config, job: JobConfig, functions: Mapping[str, Function], *, queue: str | None = None) -> Plan:
    """The plan of a pipeline with these versions; see `pin`."""
    order = [name for layer in layers({step.name: step.needs for step in job.steps.values()}) for name in layer]
    steps = [*(job.steps[name] for name in order), *([job.on_failure] if job.on_failure else [])]
    last = [name for name, needing in inverted({name: job.steps[name].needs for name in order}).items() if not needing]
    return Plan(
        steps={step.name: _step_plan(step, _target(config, job, step, functions, queue)) for step in steps},
        params=params_of(job),
        seats=job.concurrency.limit if job.concurrency else None,
        seat=(job.concurrency.key or job.name) if job.concurrency else "",
        last=last[0] if len(last) == 1 else None,
    )


def params_of(job: JobConfig) -> dict[str, ParamPlan]:
    """The parameters of a pipeline."""
    return {
        name: ParamPlan(name=name, type=param.type, required=param.required, default=param.default)
        for name, param in job.params.items()
    }


def check_input(job: JobConfig, data: bytes) -> None:
    """Raise UsageError for an input of a pipeline whose parameters do not fit."""
    try:
        parameters(params_of(job), Raw(data, "the input"))
    except LookupFailed as error:
        raise UsageError(f"job {job.name!r}: {error}") from error


def _step_plan(step: StepConfig, target: Target) -> StepPlan:
    names = ("needs", "condition", "sends", "foreach", "max_parallel", "max_items", "on_item_error", "timeout_seconds")
    facts = {name: getattr(step, name) for name in (*names, "retry_delay_seconds")}
    return StepPlan(name=step.name, target=target, **facts)


def _target(
    config: Config, job: JobConfig, step: StepConfig, functions: Mapping[str, Function], queue: str | None
) -> Target:
    started = job if step.job is None else config.jobs[step.job]
    settings = _settings(started)
    queue_, priority = queue or _queue(settings), _priority(settings)
    if step.run is None and started.steps:
        inner = plan_of(config, started, functions, queue=queue)
        return Target(job=started.name, queue=queue_, priority=priority, plan=json.loads(inner.dump()))
    function = functions[step.run or started.functions[0]]
    return Target(
        job=started.name,
        queue=queue_,
        priority=priority,
        function=function.name,
        function_version=function.version,
        retry_count=function.retry_count if step.retry_count is None else step.retry_count,
        dlq_topic=function.dlq_topic,
    )


def _settings(job: JobConfig) -> Any:
    """The job's own `job` trigger, which holds for runs that a person or another run asks for."""
    return next((trigger.settings for trigger in job.triggers if trigger.kind == JOB_KIND), None)


def _queue(settings: Any) -> str:
    return getattr(settings, "queue", None) or DEFAULT_QUEUE


def _priority(settings: Any) -> int:
    return getattr(settings, "priority", 0)


def new_run(
    job: JobConfig,
    pinned: Pin,
    payload: bytes = b"",
    *,
    trigger: Trigger | None = None,
    trigger_type: TriggerType = TriggerType.JOB,
    parent_id: int | None = None,
    run_at: datetime | None = None,
    queue: str | None = None,
    priority: int | None = None,
    unique_key: str | None = None,
    on_conflict: OnConflict = OnConflict.REFUSE,
) -> NewRun:
    """A run of the job as it is pinned. `queue` and `priority` come from the trigger, or else from the
    job's own `job` trigger, unless they are given."""
    settings = trigger.settings if trigger else _settings(job)
    function = pinned.function
    if trigger is not None:
        trigger_type = _TYPES.get(trigger.kind, TriggerType.CRON)
    return NewRun(
        namespace=pinned.namespace,
        job=job.name,
        function=function.name if function else None,
        function_version=function.version if function else 0,
        payload=payload,
        queue=queue or _queue(settings),
        priority=_priority(settings) if priority is None else priority,
        run_at=run_at,
        unique_key=unique_key,
        on_conflict=on_conflict,
        trigger_type=trigger_type,
        trigger=trigger.id if trigger else None,
        parent_id=parent_id,
        retry_count=function.retry_count if function else 0,
        dlq_topic=function.dlq_topic if function else None,
        plan=pinned.plan,
    )
