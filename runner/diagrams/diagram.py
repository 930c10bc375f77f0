"""What is drawn of a job: its steps, what each needs, and what is worth telling about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from runner.config import JobConfig, StepConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A step."""

    name: str
    runs: str
    """What it runs: a function's name, or `job NAME`."""
    facts: tuple[str, ...] = ()
    """Short sentences: what it is run for, its condition."""
    is_many: bool = False
    """Whether it is run for each item of a list."""
    is_conditional: bool = False
    """Whether it has a condition of its own."""
    status: str = ""
    """Of a run of it; empty for what is only declared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagram:
    """A job."""

    title: str
    facts: tuple[str, ...]
    """About the whole: what starts it."""
    nodes: Mapping[str, Node]
    """In the order of the file."""
    needs: Mapping[str, tuple[str, ...]]
    """By node, those that it needs; without cycles."""


def diagram_of(job: JobConfig, facts: Iterable[str] = ()) -> Diagram:
    """The diagram of a job; one that is no pipeline has one node of the job's name. `facts` are about
    the whole."""
    if not job.steps:
        runs = job.run or ", ".join(job.functions)
        only = Node(name=job.name, runs=runs, is_many=job.run is None)
        return Diagram(title=job.name, facts=tuple(facts), nodes={job.name: only}, needs={job.name: ()})
    steps = [*job.steps.values(), *([job.on_failure] if job.on_failure else [])]
    last = set(job.steps) - {name for step in job.steps.values() for name in step.needs}
    needs = {
        step.name: tuple(name for name in step.needs if name in last) if step is job.on_failure else step.needs
        for step in steps
    }
    return Diagram(title=job.name, facts=tuple(facts), nodes={step.name: _node(step) for step in steps}, needs=needs)


def _node(step: StepConfig) -> Node:
    return Node(
        name=step.name,
        runs=step.run or f"job {step.job}",
        facts=tuple(_facts(step)),
        is_many=step.foreach is not None,
        is_conditional=step.condition != "success()",
    )


def _facts(step: StepConfig) -> Iterable[str]:
    if isinstance(step.foreach, str):
        yield f"for each of {_bare(step.foreach)}"
    elif step.foreach is not None:
        yield f"for each of {len(step.foreach)} items"
    if step.max_parallel is not None:
        yield f"{step.max_parallel} at once"
    if step.condition != "success()":
        yield f"if {_bare(step.condition)}"
    if step.retry_count:
        yield f"{step.retry_count} retries" if step.retry_count > 1 else "1 retry"


def _bare(text: str) -> str:
    """An expression without its braces."""
    return " ".join(text.replace("${{", "").replace("}}", "").split())
