"""Runs of the in-memory store that wait for others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from runner.errors import InputTooLarge, UsageError
from runner.runs import CLAIM_BYTES, MAX_PAYLOAD_BYTES, NewRun, Outcome, Parked, RunStatus, StepEnded
from runner.testing.memory_views import Kept


def check(run: NewRun, *, is_step: bool = False) -> None:
    """Raise for a run that cannot be accepted."""
    if (run.step is not None) is not is_step:
        raise UsageError("a step is enqueued by parking the run that it belongs to, and nothing else is")
    if len(run.payload) > MAX_PAYLOAD_BYTES:
        raise InputTooLarge(len(run.payload), MAX_PAYLOAD_BYTES)
    if run.function is not None and run.function_version < 1:
        raise UsageError(f"a run of {run.function!r} must pin its version, got {run.function_version}")


def check_steps(outcomes: Sequence[Outcome]) -> None:
    """Raise for a child that cannot be accepted."""
    for outcome in outcomes:
        if isinstance(outcome, Parked):
            for child in outcome.children:
                check(child, is_step=True)


def park(kept: Kept, outcome: Parked, begun_at: datetime | None) -> bool:
    """Let a run wait that was claimed; whether it asks for a seat that it does not have."""
    kept.state, kept.progress, kept.lost_in_a_row = outcome.state, max(0, min(100, outcome.progress)), 0
    kept.status, kept.lease_until = RunStatus.PENDING, None
    kept.forget_attempt()
    kept.tried_before = len(kept.tried)
    stands = outcome.seat is not None and not kept.sits
    if outcome.seat is None:
        kept.begun_at = kept.begun_at or begun_at
    elif kept.seat is None:
        kept.seat = outcome.seat
    wake_at = outcome.seen + outcome.wake_after
    unseen = kept.ended[outcome.seen :]
    awake = not stands and (len(kept.ended) >= wake_at or any(k.status is not RunStatus.SUCCEEDED for k in unseen))
    kept.waits, kept.wake_at = not awake, None if stands or awake else wake_at
    return stands


def tell(parent: Kept, children: Sequence[Kept]) -> None:
    """Count children that have ended, and wake the parent if it waits for that."""
    parent.ended += children
    failed = any(child.status is not RunStatus.SUCCEEDED for child in children)
    if parent.wake_at is not None and (failed or len(parent.ended) >= parent.wake_at):
        parent.waits, parent.wake_at = False, None


def seated(runs: Mapping[int, Kept], one: Kept) -> tuple[int, ...]:
    """The runs that have the seats for one of which this run waits; none if it does not."""
    if one.seat is None or one.sits:
        return ()
    place = one.new.namespace, one.seat[0]
    return tuple(k.run_id for k in runs.values() if k.sits and k.seat and (k.new.namespace, k.seat[0]) == place)


def fill_seats(runs: Mapping[int, Kept], namespace: str, name: str) -> None:
    """Let those sit down who wait for a seat of this name and get one."""
    those = [k for k in runs.values() if k.seat and (k.new.namespace, k.seat[0]) == (namespace, name)]
    taken = sum(kept.sits for kept in those)
    for kept in those:
        if kept.sits or kept.seat is None:
            continue
        if taken >= kept.seat[1]:
            return
        taken += 1
        kept.sits, kept.waits = True, False


def ended(parent: Kept, after: int, limit: int) -> list[StepEnded]:
    """See RunStore.steps_ended."""
    found = [
        StepEnded(
            *(number, kept.run_id, kept.new.step or "", kept.new.item, kept.status),
            error_class=None if kept.status is RunStatus.CANCELLED else kept.error_class,
            message=kept.message,
        )
        for number, kept in enumerate(parent.ended, 1)
        if number > after
    ]
    return found[: max(limit, 0)]


def outputs(
    runs: Mapping[int, Kept], run_ids: Sequence[int], step: str, after: int, limit: int
) -> list[tuple[int, bytes]]:
    """See RunStore.step_outputs."""
    chosen: list[tuple[int, bytes]] = []
    room = CLAIM_BYTES
    for item, kept in _succeeded(runs, run_ids, step, after):
        output = kept.output or b""
        room -= len(output)
        if len(chosen) >= limit or (room < 0 and chosen):
            break
        chosen.append((item, output))
    return chosen


def items(runs: Mapping[int, Kept], run_ids: Sequence[int], step: str, after: int, limit: int) -> list[int]:
    """See RunStore.step_items."""
    return [item for item, _ in _succeeded(runs, run_ids, step, after)][: max(limit, 0)]


def _succeeded(runs: Mapping[int, Kept], run_ids: Sequence[int], step: str, after: int) -> list[tuple[int, Kept]]:
    found: dict[int, Kept] = {}
    for parent_id in run_ids:
        for kept in runs.values():
            if (kept.new.parent_id, kept.new.step, kept.status) == (parent_id, step, RunStatus.SUCCEEDED):
                found.setdefault(kept.new.item or 0, kept)
    return [(item, found[item]) for item in sorted(found) if item > after]
