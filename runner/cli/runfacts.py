"""How runs, attempts and slots are shown: as JSON, as rows of tables, as lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from runner.cli import console
from runner.cli.colors import colored
from runner.ledger import Attempt, Run
from runner.runs import RunStatus

if TYPE_CHECKING:
    from runner.ledger import DeadLetter, RecordedSlot

LISTED = (
    *("run_id", "job", "step", "item", "status", "trigger_type", "slot", "attempts"),
    *("created_at", "started_at", "finished_at", "error_class"),
)
SHOWN = (*LISTED, *(field.name for field in fields(Run) if field.name not in LISTED))
HEADERS = ("run", "job", "status", "started by", "attempts", "created", "took", "")
RIGHT = ("run", "attempts", "created", "took")
_SHORT = 60


def run_facts(run: Run, names: Iterable[str] = LISTED) -> dict[str, Any]:
    """A run as JSON has it."""
    return {name: _rounded(console.plain(getattr(run, name))) for name in names}


def attempt_facts(attempt: Attempt) -> dict[str, Any]:
    """An attempt as JSON has it."""
    names = (field.name for field in fields(Attempt))
    renamed = {"number": "attempt"}
    return {renamed.get(name, name): _rounded(console.plain(getattr(attempt, name))) for name in names}


def letter_facts(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter as JSON has it."""
    names = ("dead_letter_id", "run_id", "job", "function", "error_class", "message", "failed_at", "attempts")
    return {name: console.plain(getattr(letter, name)) for name in names}


def slot_facts(slot: RecordedSlot) -> dict[str, Any]:
    """An entry of the ledger as JSON has it."""
    names = ("trigger", "slot", "outcome", "reason", "run_id", "recorded_at")
    return {name: console.plain(getattr(slot, name)) for name in names}


def run_row(run: Run, now: datetime) -> tuple[str, ...]:
    """A run as a row under HEADERS."""
    created = console.relative(run.created_at, now)
    attempts = str(run.attempts)
    name = f"{run.job}/{step(run)}" if run.step else run.job
    return (
        str(run.run_id),
        name,
        colored(run.status.value),
        cause(run),
        attempts,
        created,
        took(run, now),
        note(run, now),
    )


def cause(run: Run) -> str:
    """What started a run, in a word or two."""
    if run.trigger is not None:
        return run.trigger_type.value
    return "request" if run.parent_id is None else f"run {run.parent_id}"


def step(run: Run) -> str:
    """Which step of its pipeline a run is: `enrich`, `enrich[3]`; empty for one that is none."""
    return (run.step or "") + ("" if run.item is None else f"[{run.item}]")


def took(run: Run, now: datetime) -> str:
    """How long its latest attempt took, or has taken."""
    if run.status is RunStatus.RUNNING and run.started_at is not None:
        return console.duration(max((now - run.started_at).total_seconds(), 0) * 1e3)
    return console.duration(run.duration_ms) if run.duration_ms else ""


def note(run: Run, now: datetime) -> str:
    """What is worth knowing besides."""
    if run.status is RunStatus.RUNNING:
        return "to be cancelled" if run.cancel_requested else f"{run.progress}%" if run.progress else ""
    if run.status is RunStatus.PENDING and run.run_at > now:
        return f"{'again ' if run.attempts else ''}{console.relative(run.run_at, now)}"
    return short(run.message or "") if run.status is not RunStatus.SUCCEEDED else ""


def short(text: str) -> str:
    """The beginning of a text, fit for a table."""
    line = console.printable(" ".join(text.split()))
    return line if len(line) <= _SHORT else line[: _SHORT - 1] + "…"


def moment(at: datetime, now: datetime) -> str:
    """A moment exactly, and how far away it is."""
    return f"{console.moment(at.timestamp())} {click.style(f'({console.relative(at, now)})', dim=True)}"


def show_run(run: Run, attempts: Sequence[Attempt], now: datetime) -> None:
    """A run with its attempts, on stdout."""
    show_lines([("run", str(run.run_id)), *_run_lines(run, now)])
    if attempts:
        console.show()
        headers = ("attempt", "status", "started", "took", "memory", "owner", "")
        rows = [_attempt_row(attempt, now) for attempt in attempts]
        console.show_table(headers, rows, right=("attempt", "started", "took", "memory"))


def _run_lines(run: Run, now: datetime) -> Iterator[tuple[str, str]]:
    yield "job", run.job
    if run.step is not None:
        yield "step", f"{step(run)} of run {run.parent_id}"
    yield "status", " ".join((colored(run.status.value), "" if run.status.is_terminal else note(run, now))).rstrip()
    yield "function", f"{run.function}@{run.function_version}" if run.function else ""
    yield "started by", " ".join(filter(None, (cause(run), console.printable(run.trigger or ""))))
    if run.slot is not None:
        yield "slot", moment(run.slot, now)
    yield "queue", f"{run.queue}, priority {run.priority}" + (f", key {run.unique_key!r}" if run.unique_key else "")
    yield "enqueued", moment(run.created_at, now)
    if run.status is RunStatus.PENDING and run.run_at > run.created_at:
        yield "not before", moment(run.run_at, now)
    if run.started_at is not None:
        yield "started", moment(run.started_at, now)
    if run.finished_at is not None:
        yield "finished", moment(run.finished_at, now)
    yield "attempts", f"{run.attempts}, failed {run.failures} of {run.retry_count + 1} allowed"
    output = "" if run.result_size is None else f", output {console.size(run.result_size)}"
    yield "sizes", f"input {console.size(run.payload_size)}{output}"
    if run.status not in (RunStatus.SUCCEEDED, RunStatus.RUNNING) and run.message:
        yield "message", console.printable(run.message)


def _attempt_row(attempt: Attempt, now: datetime) -> tuple[str, ...]:
    memory = console.size(attempt.memory_peak_bytes) if attempt.memory_peak_bytes else ""
    took = console.duration(attempt.duration_ms) if attempt.duration_ms else ""
    started = console.relative(attempt.started_at, now)
    owner, reason = console.printable(attempt.owner), short(attempt.message or "")
    return str(attempt.number), colored(attempt.status.value), started, took, memory, owner, reason


def measures(attempt: Attempt) -> str:
    """What was measured of an attempt: `12 ms, 131.1 kB of memory`."""
    parts = [console.duration(attempt.duration_ms)] if attempt.duration_ms else []
    if attempt.memory_peak_bytes:
        parts.append(f"{console.size(attempt.memory_peak_bytes)} of memory")
    if attempt.output_size is not None:
        parts.append(f"{console.size(attempt.output_size)} of output")
    return ", ".join(parts)


def tail_lines(attempts: Sequence[Attempt]) -> Iterator[str]:
    """The end of what the latest attempt that said something wrote to its standard error."""
    latest = next((attempt for attempt in reversed(attempts) if attempt.stderr_tail.strip()), None)
    if latest is not None:
        yield f"the end of the standard error of attempt {latest.number}:"
        for line in console.printable(latest.stderr_tail).rstrip("\n").split("\n"):
            yield f"  {line}"


def show_lines(facts: Iterable[tuple[str, str]], width: int = 14) -> None:
    """Labelled lines on stdout; text with line breaks goes on below its beginning."""
    for label, text in facts:
        first, *others = text.split("\n")
        console.show(f"{click.style(f'{label:{width}}', bold=True)}{first}".rstrip())
        for line in others:
            console.show(f"{'':{width}}{line}")


def _rounded(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value
