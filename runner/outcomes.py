"""How the end of an attempt becomes an outcome for the queue. Pure: time and chance are arguments."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from runner.errors import EngineUnavailable, NotAvailable, RunnerError, StoreError, WorkerLost
from runner.models import InvocationResult, LogEntry
from runner.retry import delay_seconds
from runner.runs import Claim, Dead, Failed, Failure, Lost, Outcome, Released, Retry, Succeeded, storable

ENGINE_TRIES = 1000
"""So often a run waits for an engine that is not there: with the delays of retries more than three days."""
_MOST = 2**63 - 1


def sound(result: InvocationResult) -> InvocationResult:
    """The result of an executor, which is foreign code, as any store can keep it: a text or number that
    it would refuse would be offered to it for ever."""
    _, _, logs, duration_ms, peak, *_ = result
    if logs:
        logs = tuple(LogEntry(level, storable(message), _finite(moment)) for level, message, moment in logs)
    elif 0 <= peak <= _MOST and 0 <= duration_ms < math.inf:
        return result
    return result._replace(logs=logs, duration_ms=_finite(duration_ms), memory_peak_bytes=min(max(0, peak), _MOST))


def _finite(number: float) -> float:
    return number if 0 <= number < math.inf else 0.0


def outcome_of(
    claim: Claim,
    result: InvocationResult,
    *,
    retry_delay_seconds: float,
    now: datetime,
    chance: float,
    waits_for_engine: bool = True,
) -> Outcome:
    """What the result of an attempt means for its run; `chance` is uniform in [0, 1).

    A lost worker is nobody's failure; what is the caller's fault fails at once and has no dead letter.
    Without its engine a run waits, for that to come back or for another daemon that has it: the guest has
    not begun. With `waits_for_engine` False that is a failure. What else the machine lacks (a secret, a full
    disk) uses up the retries as a guest's failure does and then leaves a dead letter, to be redriven.
    """
    error, run_id, token = result.error, claim.run_id, claim.token
    measured = (result.duration_ms, result.memory_peak_bytes, result.logs)
    recording = result.recording
    if error is None:
        return Succeeded(run_id, token, result.output or b"", *measured, result.reuse, recording=recording)
    failure = Failure.of(error)
    if isinstance(error, WorkerLost):
        return Lost(run_id, token, failure, *measured, recording=recording)
    waits = claim.attempt - claim.failures
    if isinstance(error, EngineUnavailable) and waits_for_engine and waits <= ENGINE_TRIES:
        wait = delay_seconds(attempts=waits, retry_delay_seconds=retry_delay_seconds, chance=chance)
        return Released(run_id, token, failure.message, run_at=now + timedelta(seconds=wait))
    attempts = claim.failures + 1
    if not error.retryable and not _may_change(error):
        return Failed(run_id, token, failure, *measured, recording=recording)
    if attempts > claim.retry_count:
        return Dead(run_id, token, failure, *measured, recording=recording)
    wait = delay_seconds(attempts=attempts, retry_delay_seconds=retry_delay_seconds, chance=chance)
    return Retry(run_id, token, now + timedelta(seconds=wait), failure, *measured, recording=recording)


def _may_change(error: RunnerError) -> bool:
    """Whether it is the machine's fault: the same run may work once somebody has seen to it."""
    return isinstance(error, NotAvailable | StoreError)
