"""What a pipeline's run is to do, pinned when it is accepted: steps with the versions that they run.

It is kept as JSON beside the run, so that a file that is loaded again in between changes nothing.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from runner.runs import DEFAULT_QUEUE, NewRun

ON_FAILURE = "on_failure"
"""The name of what a pipeline runs on failure, among those of its steps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What a step runs: a NewRun without what is known only when it begins. Fields as there."""

    job: str
    function: str | None = None
    function_version: int = 0
    queue: str = DEFAULT_QUEUE
    priority: int = 0
    retry_count: int = 0
    dlq_topic: str | None = None
    plan: Mapping[str, Any] | None = None
    """Of another pipeline: its plan, as JSON has it."""

    def new_run(
        self,
        namespace: str,
        payload: bytes,
        *,
        step: str,
        item: int | None,
        parent_id: int,
        held: tuple[str, ...] = (),
    ) -> NewRun:
        """The run of a step, or of one of its items; see Plan.held."""
        return NewRun(
            namespace,
            self.job,
            self.function,
            self.function_version,
            payload,
            self.queue,
            self.priority,
            parent_id=parent_id,
            retry_count=self.retry_count,
            dlq_topic=self.dlq_topic,
            step=step,
            item=item,
            plan=b"" if self.plan is None else _dump({**self.plan, "held": held} if held else self.plan),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class StepPlan:
    """A step; its fields are those of jobs.yaml."""

    name: str
    target: Target
    needs: tuple[str, ...] = ()
    condition: str = "success()"
    sends: Any = None
    foreach: Any = None
    max_parallel: int | None = None
    max_items: int = 0
    on_item_error: str = "stop"
    timeout_seconds: float | None = None
    retry_delay_seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ParamPlan:
    """A parameter."""

    name: str
    type: str
    required: bool = True
    default: Any = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Reuse:
    """What a run takes over from earlier ones."""

    runs: tuple[int, ...]
    """The earlier runs, latest first."""
    whole: Mapping[str, int | None]
    """Steps that are not run again, with how many items they had; None for one without items."""
    items: tuple[str, ...] = ()
    """Steps of which only the items are run that did not succeed."""
    failed: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Of the steps that are not run again: how many of their items had failed, if any."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The whole of it."""

    steps: Mapping[str, StepPlan]
    """In an order in which each comes behind those that it needs."""
    params: Mapping[str, ParamPlan] = field(default_factory=lambda: MappingProxyType({}))
    seats: int | None = None
    """How many runs with the same seat go at once; None: any number."""
    seat: str = ""
    """What those runs have in common; may hold look-ups."""
    held: tuple[str, ...] = ()
    """The seats of the runs that wait for this one."""
    last: str | None = None
    """The step whose output is the run's, if there is one."""
    reuse: Reuse | None = None

    def dump(self) -> bytes:
        """As JSON; `load` reads it."""
        facts = _plain(self)
        facts["steps"], facts["params"] = list(facts["steps"].values()), list(facts.get("params", {}).values())
        return _dump(facts)


def load(text: bytes) -> Plan:
    """What `Plan.dump` wrote. Raises ValueError, TypeError or KeyError for anything else."""
    facts = json.loads(text)
    steps = [
        StepPlan(**{**step, "target": Target(**step["target"]), "needs": tuple(step.get("needs", ()))})
        for step in facts["steps"]
    ]
    params = [ParamPlan(**param) for param in facts["params"]]
    reuse = facts.get("reuse")
    return Plan(
        **{
            **facts,
            "steps": {step.name: step for step in steps},
            "params": {param.name: param for param in params},
            "held": tuple(facts.get("held", ())),
            "reuse": reuse and Reuse(**{**reuse, "runs": tuple(reuse["runs"]), "items": tuple(reuse.get("items", ()))}),
        }
    )


def _plain(value: Any) -> Any:
    """A dataclass as a dict without what is as if left out; what is in it likewise."""
    if dataclasses.is_dataclass(value):
        kept = {spec.name: (getattr(value, spec.name), spec.default) for spec in dataclasses.fields(value)}
        return {name: _plain(item) for name, (item, default) in kept.items() if item != default}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
