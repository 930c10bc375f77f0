"""From a job of jobs.yaml to a run for the queue: what is pinned when a run is accepted, and its triggers.

Nothing is started here and no clock is read.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from runner.config import Config, JobConfig
from runner.errors import UsageError
from runner.models import Function, TriggerType
from runner.runs import DEFAULT_QUEUE, NewRun, OnConflict
from runner.triggers import Trigger, TriggerSource

JOB_KIND = TriggerType.JOB.value
"""The kind of trigger whose settings hold for runs that a person or a guest asks for."""
_TYPES = {kind.value: kind for kind in TriggerType}


def triggers_of(config: Config, source_of: Callable[[str], TriggerSource]) -> list[Trigger]:
    """Every trigger of every job. Raises UsageError for two of one job that mean the same."""
    found: dict[str, Trigger] = {}
    for job in config.jobs.values():
        for given in job.triggers:
            key = source_of(given.kind).key(given.settings)
            name = "/".join(filter(None, (config.namespace, job.name, given.kind, key)))
            if name in found:
                raise UsageError(
                    f"{config.path.name}:{given.line} jobs.{job.name}: two {given.kind} triggers of this job mean the "
                    f"same, the other is in line {found[name].line}; take one away"
                )
            found[name] = Trigger(id=name, job=job.name, kind=given.kind, settings=given.settings, line=given.line)
    return list(found.values())


def new_run(
    job: JobConfig,
    function: Function,
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
    """A run of the job with this version of its function. `queue` and `priority` come from the trigger,
    or else from the job's own `job` trigger, unless they are given."""
    settings = trigger.settings if trigger else next((t.settings for t in job.triggers if t.kind == JOB_KIND), None)
    if trigger is not None:
        trigger_type = _TYPES.get(trigger.kind, TriggerType.CRON)
    return NewRun(
        namespace=function.namespace,
        job=job.name,
        function=function.name,
        function_version=function.version,
        payload=payload,
        queue=queue or getattr(settings, "queue", None) or DEFAULT_QUEUE,
        priority=priority if priority is not None else getattr(settings, "priority", 0),
        run_at=run_at,
        unique_key=unique_key,
        on_conflict=on_conflict,
        trigger_type=trigger_type,
        trigger=trigger.id if trigger else None,
        parent_id=parent_id,
        retry_count=function.retry_count,
        dlq_topic=function.dlq_topic,
    )
