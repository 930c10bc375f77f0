"""A pipeline's run as a tree of its steps, and what changed in it since it was shown last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import click

from runner.cli import console
from runner.cli.colors import COLORS

if TYPE_CHECKING:
    from runner.ownrun import View
    from runner.pipeline_state import StepState

BAR = 20
"""Characters of a bar."""
ASCII = str.maketrans("✓✗●·█░", "+x*-#.")
"""For terminals that can show nothing else, beside that of runner.diagrams.lanes."""
_MARKS = {"succeeded": "✓", "failed": "✗", "cancelled": "✗", "skipped": "·", "running": "●"}


def tree(view: View, now: datetime, *, most: int = 1000) -> list[str]:
    """The lines to show; with fewer than `most` the rows between steps are left out, and then steps that
    have ended or not begun."""
    from runner.diagrams.lanes import rows
    from runner.plan import ON_FAILURE

    shown = {name: step for name, step in view.plan.steps.items() if name != ON_FAILURE or name in view.state.steps}
    needs = {name: [other for other in step.needs if other in shown] for name, step in shown.items()}
    if ON_FAILURE in needs:
        needed = {other for name, others in needs.items() if name != ON_FAILURE for other in others}
        needs[ON_FAILURE] = [name for name in needs if name not in needed and name != ON_FAILURE]
    drawn = rows(needs)
    if len(drawn) + 1 > most:
        drawn = [row for row in drawn if row.name]
    width = max(map(len, shown))
    lines = []
    for row in drawn:
        if not row.name:
            lines.append(f"  {row.lines}".rstrip())
            continue
        state = view.state.steps.get(row.name)
        status = "waiting" if state is None else state.status
        mark = click.style(_MARKS.get(status, "○"), fg=COLORS.get(status))
        lines.append(f"  {row.lines.replace('○', mark)} {row.name:{width}}  {_facts(view, row.name, now)}".rstrip())
    if len(lines) + 1 > most:
        running = [line for line, row in zip(lines, drawn, strict=True) if _is_running(view, row.name)]
        lines = running[: max(most - 2, 1)]
    return [f"{click.style(view.job, bold=True)}  run {view.run_id}  {_count(view)}", *lines]


def news(before: View | None, view: View, now: datetime) -> Iterator[str]:
    """A line for each step that began or ended since."""
    if _waits(view) and not (before is not None and _waits(before)):
        yield f"{view.job}: waits for its turn, as its `concurrency` says"
    known = {} if before is None else before.state.steps
    for name, state in view.state.steps.items():
        old = known.get(name)
        if old is None or old.status != state.status:
            status = (
                "running" if state.status == "running" else " ".join(click.unstyle(_facts(view, name, now)).split())
            )
            yield f"{view.job}.{name}: {status}"


def facts(view: View) -> Iterator[dict[str, object]]:
    """Each step as JSON has it, those that have not begun too."""
    from runner.pipeline_state import StepState

    for name in view.plan.steps:
        state = view.state.steps.get(name) or StepState(status="waiting")
        counts = {"total": state.total, "succeeded": state.succeeded, "failed": state.failed}
        yield {"step": name, "status": state.status, **counts, "message": state.message or None}


def items(view: View) -> Iterator[str]:
    """A line for each step that is in the middle of its items."""
    for name, state in view.state.steps.items():
        if state.status == "running" and state.total:
            yield f"{view.job}.{name}: {_items(state)}"


def _is_running(view: View, name: str) -> bool:
    state = view.state.steps.get(name)
    return state is not None and state.status == "running"


def _waits(view: View) -> bool:
    """Whether it waits until fewer runs of its kind go."""
    return view.state.is_open and view.run.status.value == "pending"


def _count(view: View) -> str:
    if _waits(view):
        return click.style("waits for its turn", fg="yellow")
    ended = sum(state.status != "running" for state in view.state.steps.values())
    return click.style(f"{ended} of {len(view.plan.steps)} steps", dim=True)


def _facts(view: View, name: str, now: datetime) -> str:
    state = view.state.steps.get(name)
    if state is None:
        return ""
    more = list(_more(view, name, state, now))
    status = click.style(state.status, fg=COLORS.get(state.status))
    return "  ".join([status + " " * (9 - len(state.status) if more else 0), *more])


def _more(view: View, name: str, state: StepState, now: datetime) -> Iterator[str]:
    reuse = view.plan.reuse
    if reuse is not None and name in reuse.whole:
        yield f"as in run {reuse.runs[0]}"
    elif state.status != "skipped" and state.began_at:
        ended = datetime.fromisoformat(state.ended_at) if state.ended_at else now
        took = (ended - datetime.fromisoformat(state.began_at)).total_seconds()
        yield console.duration(max(took, 0) * 1e3)
    if name in view.counts:
        yield _records(view.counts[name])
    if state.total is not None:
        yield f"{_bar(state)}{_items(state)}"
    if state.status == "failed" and state.message:
        yield console.printable(state.message.partition("\n")[0])


def _records(counts: Mapping[str, int]) -> str:
    special = {word: counts[f"records_{word}"] for word in ("skipped", "quarantined", "reused")}
    told = [f"{counts['records_in']:,} records", *(f"{count:,} {word}" for word, count in special.items() if count)]
    return ", ".join(told)


def _items(state: StepState) -> str:
    done = state.succeeded + state.failed
    text = f"{done:,} of {state.total:,} items"
    return f"{text}, {state.failed:,} failed" if state.failed else text


def _bar(state: StepState) -> str:
    if state.status != "running" or not state.total:
        return ""
    full = BAR * (state.succeeded + state.failed) // state.total
    return f"{'█' * full}{'░' * (BAR - full)} "
