"""How far a pipeline's run has come. It is as large as the pipeline has steps, however many items they have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from runner.errors import UsageError
from runner.graph import inverted, reached
from runner.plan import ON_FAILURE, Plan, Reuse

BAD = frozenset({"failed", "cancelled"})
"""What `failure()` looks for."""
ENDED = frozenset({"succeeded", "skipped", *BAD})
"""The statuses that a step keeps; before it is `running`, and before that it is not in the state."""


MESSAGE_CHARACTERS = 500


@dataclass(kw_only=True, slots=True)
class StepState:
    """A step that has begun."""

    status: str = "running"
    began_at: str = ""
    """When the turn was in which it began, in RFC 3339."""
    ended_at: str = ""
    total: int | None = None
    """How many items it has; None for one that is run once."""
    next: int = 0
    """The first item that is not enqueued."""
    live: int = 0
    """Runs of it that have not ended."""
    succeeded: int = 0
    failed: int = 0
    message: str = ""
    """Its first failure; of an item with its number. At most MESSAGE_CHARACTERS."""


@dataclass(kw_only=True, slots=True)
class State:
    """A pipeline's run."""

    steps: dict[str, StepState] = field(default_factory=dict)
    is_open: bool = False
    """Whether it has had its first turn."""
    seat: str | None = None
    """The seat that it has, or waits for."""
    seen: int = 0
    """The number of the latest StepEnded that is counted here."""
    failure: dict[str, str] | None = None
    """The first failure: step, error_class, message."""
    begun_at: str = ""
    """When its first step could begin, in RFC 3339."""

    def stamp(self, now: str) -> None:
        """Note the moment for what began or ended in this turn."""
        for step in self.steps.values():
            step.began_at = step.began_at or now
            if step.status in ENDED:
                step.ended_at = step.ended_at or now

    def dump(self) -> bytes:
        """As JSON; `load` reads it."""
        return json.dumps(asdict(self), separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")


def load(text: bytes) -> State:
    """What `State.dump` wrote; empty is the state of a run that has not begun. Raises ValueError, TypeError
    or KeyError for anything else."""
    if not text:
        return State()
    facts = json.loads(text.decode(errors="surrogatepass"))
    return State(**{**facts, "steps": {name: StepState(**step) for name, step in facts["steps"].items()}})


def sources(plan: Plan, step: str, run_id: int) -> tuple[int, ...]:
    """The runs among whose children those of a step are, where several have one the first counts."""
    reuse = plan.reuse
    if reuse is not None and step in reuse.whole:
        return reuse.runs
    return (run_id, *reuse.runs) if reuse is not None and step in reuse.items else (run_id,)


def taking_over(plan: Plan, earlier: State, runs: tuple[int, ...], *, start: str | None = None) -> Plan:
    """The plan of a run that goes on from an earlier one, which has ended: what succeeded and comes behind
    nothing that is run again is not, and of a step with items only those that did not succeed are.

    With `start` that step and all that comes behind it are run again as a whole, and those before it have
    to have succeeded; of one that ignores failed items those stay failed. `runs` are the earlier run and those
    that it took over from, latest first.
    Raises UsageError.
    """
    graph = {name: step.needs for name, step in plan.steps.items()}
    again = set() if start is None else {start, *reached(inverted(graph), [start])}
    whole: dict[str, int | None] = {}
    failed: dict[str, int] = {}
    items: list[str] = []
    unchanged: set[str] = set()
    for name, step in plan.steps.items():
        before = earlier.steps.get(name)
        if name in again or name == ON_FAILURE or before is None or not unchanged.issuperset(step.needs):
            continue
        if (before.total is None) is not (step.foreach is None) and before.status != "skipped":
            continue
        if before.status == "succeeded" and (not before.failed or start is not None):
            whole[name] = before.total
            if before.failed:
                failed[name] = before.failed
            unchanged.add(name)
        elif before.status == "skipped":
            unchanged.add(name)
        elif before.total is not None and start is None:
            items.append(name)
    needed = [] if start is None else [name for name in plan.steps if name in reached(graph, [start])]
    missing = [name for name in needed if name not in unchanged]
    if missing:
        status = _status(earlier.steps, missing[0])
        raise UsageError(
            f"step {missing[0]!r} comes before {start!r} and {status} in run {runs[0]}; "
            "run all of it, or with --failed what failed"
        )
    return Plan(
        steps=plan.steps,
        params=plan.params,
        seats=plan.seats,
        seat=plan.seat,
        last=plan.last,
        reuse=Reuse(runs=runs, whole=whole, items=tuple(items), failed=failed),
    )


def _status(steps: Mapping[str, Any], name: str) -> str:
    if name not in steps:
        return "was not run"
    status = steps[name].status
    return {"failed": "failed", "running": "was not finished"}.get(status, f"was {status}")
