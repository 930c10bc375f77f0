"""`runner why`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from runner.cli import console, runfacts
from runner.cli.colors import colored
from runner.cli.groups import ProjectCommand, json_option
from runner.cli.moments import now
from runner.cli.project import Project, pass_project
from runner.cli.served import is_served
from runner.errors import RunnerError, RunNotFound, UsageError

if TYPE_CHECKING:
    from runner.account import Account, SlotAccount, Waiting
    from runner.app import Runner
    from runner.ledger import Attempt, RecordedSlot, Run
    from runner.reasons import Difference, ReuseAccount
    from runner.triggers import Schedule

Line = tuple[str, str]
"""A label and what stands behind it."""


@click.command("why", cls=ProjectCommand)
@click.argument("subject", metavar="RUN|TRIGGER@SLOT")
@json_option
@pass_project
def why(project: Project, subject: str, as_json: bool) -> int:
    """Tell why a run is what it is, or what became of a slot.

    Of a run: what started it, which version of the function, every attempt with its reason, what it
    waits for, what it caused; and if its result was used again, from which run, or else which part of
    what results are kept by differed from the nearest earlier run.

    Of a slot, a due time of a trigger: whether it ran, was caught up or skipped, and why. TRIGGER is
    the trigger's id as `runner runs show` has it, or a job, or a job and a kind (nightly/cron); SLOT is
    a moment like 2027-01-15T02:15:00Z.

    With --json, of a run one object: run (its facts), cause (trigger, after, again, step, request), attempts,
    waits_for (what: moment, retry, seat, limit, queue, daemon, worker; until, count, runs), owner_is_gone, slot,
    dead_letter, children, reuse (verdict: reused, impure, off, unknown, first, differs, running, gone;
    run_id, made_at, differences: part, before, now; null unless it succeeded). Of a slot one object a
    trigger: trigger, slot, outcome (ran, skipped, caught_up, null when it is not in the ledger), reason,
    run_id, recorded_at. Exit status 1 when the run or the slot is not known.

    \b
    Examples:
      runner why 12
      runner why nightly@2027-01-15T02:15:00Z
    """
    with project.open() as runner:
        if subject.isascii() and subject.isdigit():
            _tell_run(runner, int(subject), as_json)
            return 0
        found = _slots(runner, subject)
        for slot in found:
            _tell_slot(runner, slot, as_json)
    return 0 if any(slot.recorded for slot in found) else 1


# Runs


def _tell_run(runner: Runner, run_id: int, as_json: bool) -> None:
    from runner.account import account
    from runner.control import is_dead

    found = account(
        runner.store,
        run_id,
        limits=runner.config.queues,
        is_served=is_served(runner),
        is_dead=partial(is_dead, runner.state_dir),
        now=now(),
    )
    reuse = _reuse(runner, found.why.run)
    if as_json:
        console.show_json({**_facts(found), "reuse": _reuse_facts(reuse)})
        return
    run = found.why.run
    status = colored(run.status.value)
    console.show(f"run {run.run_id} of {console.printable(run.job)} is {status}")
    runfacts.show_lines([*_lines(found, now()), *_reuse_lines(reuse, now())])
    for line in runfacts.tail_lines(found.why.attempts):
        console.show(line)


def _facts(found: Account) -> dict[str, Any]:
    why = found.why
    return {
        "run": runfacts.run_facts(why.run, runfacts.SHOWN),
        "cause": found.cause.value,
        "attempts": [runfacts.attempt_facts(attempt) for attempt in why.attempts],
        "waits_for": [
            {"what": one.what.value, "until": console.plain(one.until), "count": one.count, "runs": list(one.runs)}
            for one in found.waits_for
        ],
        "owner_is_gone": found.owner_is_gone,
        "slot": None if why.slot is None else runfacts.slot_facts(why.slot),
        "dead_letter": None if why.dead_letter is None else runfacts.letter_facts(why.dead_letter),
        "children": list(why.children),
    }


def _lines(found: Account, at: datetime) -> Iterator[Line]:
    why, run = found.why, found.why.run
    yield "started by", _cause(found)
    if why.slot is not None:
        yield "slot", f"{runfacts.moment(why.slot.slot, at)} {_outcome(why.slot)}"
    key = f", unique key {run.unique_key!r}" if run.unique_key else ""
    yield "enqueued", f"{runfacts.moment(run.created_at, at)}, queue {run.queue}, priority {run.priority}{key}"
    if run.function is not None:
        yield "function", f"{run.function}@{run.function_version}"
    for attempt in why.attempts:
        yield f"attempt {attempt.number}", _attempt(attempt, at)
    if found.waits_for:
        yield "waits for", "\n".join(_waiting(one, run, at) for one in found.waits_for)
    yield from _state(found, at)
    if why.children:
        yield "caused", ", ".join(f"run {child}" for child in why.children)
    if why.dead_letter is not None:
        yield (
            "dead letter",
            f"`runner dlq redrive {run.run_id}` runs it again, `runner dlq drop {run.run_id}` forgets it",
        )


def _cause(found: Account) -> str:
    run, parent = found.why.run, found.parent
    before = (
        f"run {run.parent_id}" if parent is None else f"run {parent.run_id} of {parent.job} ({parent.status.value})"
    )
    if run.step is not None:
        return console.printable(f"{before}, as its step {runfacts.step(run)}")
    if run.trigger is not None:
        after = f", after {before}" if run.parent_id is not None else ""
        return console.printable(f"{run.trigger_type.value} trigger {run.trigger}{after}")
    words = {"again": f"a request to do the work of {before} again", "after": before}
    return console.printable(words.get(found.cause.value, "a request"))


def _outcome(slot: RecordedSlot) -> str:
    words = {"ran": "in time", "caught_up": "caught up later", "skipped": "skipped"}
    return words[slot.outcome.value] + (f": {console.printable(slot.reason)}" if slot.reason else "")


def _attempt(attempt: Attempt, at: datetime) -> str:
    measures = runfacts.measures(attempt)
    ended = f"{colored(attempt.status.value)}{' after ' if measures else ''}{measures}"
    begun = f"{runfacts.moment(attempt.started_at, at)} by {attempt.owner}"
    return "\n".join(filter(None, (ended, console.printable(attempt.message or ""), begun)))


def _waiting(waiting: Waiting, run: Run, at: datetime) -> str:
    until = "" if waiting.until is None else runfacts.moment(waiting.until, at)
    return {
        "moment": f"its moment, {until}",
        "retry": f"its next attempt, {until}",
        "seat": f"the end of {' or '.join(f'run {other}' for other in waiting.runs)}: `concurrency` lets no more run",
        "limit": f"room in queue {run.queue}: of {waiting.count} that may run at once, all do",
        "queue": f"{console.counted(waiting.count, 'run')} before it in queue {run.queue}",
        "daemon": "a daemon: none serves this project here; `runner serve` starts one",
        "worker": "a daemon to take it: it is next",
    }[waiting.what.value]


def _state(found: Account, at: datetime) -> Iterator[Line]:
    why, run = found.why, found.why.run
    if run.status.is_terminal:
        if run.finished_at is not None:
            yield "finished", runfacts.moment(run.finished_at, at)
        told = why.attempts[-1].message if why.attempts else None
        if run.message and run.message != told:
            yield "because", console.printable(run.message)
    elif run.status.value == "running" and run.lease_until is None:
        yield "progress", f"{run.progress}%"
        yield "waits for", f"its steps; `runner runs show {run.run_id}` draws them"
    elif run.owner is not None and run.lease_until is not None:
        yield "progress", f"{run.progress}%" if run.progress else "not reported"
        held = f"until {runfacts.moment(run.lease_until, at)}, unless that is prolonged"
        if found.owner_is_gone or run.lease_until <= at:
            held = "which is gone: the next daemon takes it over"
        yield "held by", f"{run.owner}, {held}"
        if run.cancel_requested:
            yield "cancelled", "its daemon has been asked to end it"


def _reuse(runner: Runner, run: Run) -> ReuseAccount | None:
    """Why its result was used again or not."""
    from runner.reasons import reuse_account

    is_pure = False
    if run.function is not None:
        with suppress(RunnerError):  # a function may be gone for good
            versions = runner.registry.versions(run.namespace, run.function)
            is_pure = any(each.pure for each in versions if each.version == run.function_version)
    return reuse_account(runner.store, run, is_pure=is_pure)


def _reuse_facts(found: ReuseAccount | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "verdict": found.verdict.value,
        "run_id": found.run_id,
        "made_at": console.plain(found.made_at),
        "differences": [one._asdict() for one in found.differences],
    }


def _reuse_lines(found: ReuseAccount | None, at: datetime) -> Iterator[Line]:
    if found is None or found.verdict.value == "impure":
        return  # most functions are not, and need no word about it
    if found.verdict.value == "reused":
        source = "an earlier call" if found.run_id is None else f"run {found.run_id}"
        made = "" if found.made_at is None else f", made {runfacts.moment(found.made_at, at)}"
        yield "result", f"that of {source}{made}: the function is pure and was not run again"
        return
    yield (
        "not reused",
        {
            "off": "reuse was turned off",
            "unknown": "its executor does not tell what results depend on",
            "first": "no earlier run of this job is known",
            "differs": f"nearest is run {found.run_id}, but for\n" + "\n".join(map(_difference, found.differences)),
            "running": f"run {found.run_id} has the same key and had not ended yet",
            "gone": f"the result of run {found.run_id} is not kept: cleared, gone to make room, or too large",
        }[found.verdict.value],
    )


def _difference(one: Difference) -> str:
    return console.printable(f"{one.part}: {one.now}, not {one.before}")


# Slots


def _slots(runner: Runner, subject: str) -> list[SlotAccount]:
    """What is known of the slot, for each trigger that is meant: those in the ledger if any is."""
    from runner.account import slot_account, triggers_meant
    from runner.when import parse_moment

    name, at, moment = subject.rpartition("@")
    if not at:
        raise UsageError(f"{subject!r}: expected a run's number, or TRIGGER@SLOT like nightly@2027-01-15T02:15:00Z")
    try:
        slot = parse_moment(moment)
    except ValueError as error:
        raise UsageError(str(error)) from error
    triggers = {trigger.id: trigger for trigger in runner.triggers()}

    def schedule(trigger_id: str) -> Schedule | None:
        trigger = triggers.get(trigger_id)
        return None if trigger is None else runner.trigger_source(trigger.kind).schedule(trigger.settings)

    meant = triggers_meant(name, list(triggers.values()), runner.config.namespace)
    found = [slot_account(runner.store, trigger_id, slot, schedule=schedule) for trigger_id in meant]
    return [one for one in found if one.recorded is not None] or found


def _tell_slot(runner: Runner, found: SlotAccount, as_json: bool) -> None:
    recorded = found.recorded
    if as_json:
        nothing = {"outcome": None, "reason": _unrecorded(found), "run_id": None, "recorded_at": None}
        place = {"trigger": found.trigger, "slot": console.plain(found.slot)}
        console.show_json({**place, **nothing} if recorded is None else runfacts.slot_facts(recorded))
        return
    at = now()
    console.show(f"slot {runfacts.moment(found.slot, at)} of {console.printable(found.trigger)}")
    if recorded is None:
        runfacts.show_lines([("not recorded", _unrecorded(found))])
        return
    runfacts.show_lines([*_recorded(recorded, at), *([("remark", found.remark)] if found.remark else [])])
    if recorded.run_id is not None:
        console.show()
        with suppress(RunNotFound):  # the slot is kept longer than its run
            _tell_run(runner, recorded.run_id, as_json)


def _recorded(recorded: RecordedSlot, at: datetime) -> Iterator[Line]:
    yield "outcome", colored(recorded.outcome.value)
    if recorded.reason:
        yield "because", console.printable(recorded.reason)
    yield "recorded", runfacts.moment(recorded.recorded_at, at)
    if recorded.run_id is not None:
        yield "run", str(recorded.run_id)


def _unrecorded(found: SlotAccount) -> str:
    """Why a moment of a trigger may not be in the ledger."""
    if found.is_due is None:
        return "the ledger has no such slot, and its due times are not known from jobs.yaml"
    if not found.is_due:
        around = [console.plain(moment) for moment in (found.before, found.after) if moment is not None]
        return f"it is no due time of this trigger; around it: {', '.join(around) or 'none'}"
    if found.slot > now():
        return "it is due and has not come yet"
    return "it was due, and no daemon has come to it yet, or it is older than what the ledger keeps"
