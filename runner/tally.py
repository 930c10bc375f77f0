"""What a daemon counts and tells of the runs that end in it: a line for each failure, a health line for all."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime

from runner.errors import StoreError
from runner.journal import Journal
from runner.runs import Claim, Dead, Failed, Lost, Outcome, Released, Retry, RunStatus

HEALTH_SECONDS = 60.0
"""Between two health lines, as long as there is something to tell; and between two that say the same."""
_REFUSED = "refused"
_FATE = {
    RunStatus.PENDING: "runs again",
    RunStatus.DEAD: "is dead",
    RunStatus.FAILED: "failed",
    RunStatus.CANCELLED: "is cancelled",
}


class Tally:
    """Counts since the start. Safe for several threads."""

    def __init__(self, journal: Journal, now: Callable[[], datetime]) -> None:
        self._journal, self._now = journal, now
        self._lock = threading.Lock()
        self._counts = Counter({status.value: 0 for status in RunStatus} | {_REFUSED: 0})
        self._told_counts = Counter(self._counts)
        self._told_refusal = ("", 0.0)
        self._next_health = time.monotonic() + HEALTH_SECONDS

    def ended(self, claims: Sequence[Claim], outcomes: Sequence[Outcome], statuses: Sequence[RunStatus | None]) -> None:
        """Outcomes were recorded, with these statuses; None: refused."""
        with self._lock:
            self._counts.update(_REFUSED if status is None else status.value for status in statuses)
            was_refused, self._told_refusal = bool(self._told_refusal[0]), ("", 0.0)
        if was_refused:
            self._journal.tell("info", "the store works again")
        for claim, outcome, status in zip(claims, outcomes, statuses, strict=True):
            if isinstance(outcome, Retry | Failed | Dead | Lost):
                self._tell_failure(claim, outcome, status)
            elif isinstance(outcome, Released) and outcome.run_at is not None:
                seconds = max(0.0, (outcome.run_at - self._now()).total_seconds())
                told = f"run {claim.run_id} of {claim.job} waits, and tries again in {seconds:.1f} s: {outcome.reason}"
                self._journal.tell("warning", told, run_id=claim.run_id, job=claim.job, kind="failures")
        self._journal.tell("debug", f"{len(outcomes)} runs ended", kind="ended")

    def _tell_failure(self, claim: Claim, outcome: Retry | Failed | Dead | Lost, status: RunStatus | None) -> None:
        what = "is refused: its lease was lost" if status is None else _FATE.get(status, status.value)
        if isinstance(outcome, Retry) and status is RunStatus.PENDING:
            what = f"tries again in {max(0.0, (outcome.run_at - self._now()).total_seconds()):.1f} s"
        self._journal.tell(
            "error" if status in (RunStatus.FAILED, RunStatus.DEAD) else "warning",
            f"run {claim.run_id} of {claim.job} {what}: {outcome.failure.message}",
            run_id=claim.run_id,
            job=claim.job,
            attempt=claim.attempt,
            error_class=outcome.failure.error_class,
            kind="failures",
        )

    def refused(self, error: StoreError) -> None:
        """The store took nothing: told once in a while, as long as it lasts."""
        message, moment = str(error), time.monotonic()
        with self._lock:
            if self._told_refusal[0] == message and moment - self._told_refusal[1] < HEALTH_SECONDS:
                return
            self._told_refusal = (message, moment)
        self._journal.tell("error", f"the store refused, trying again: {message}", error_class=error.error_class)

    def totals(self) -> dict[str, int]:
        """How many have ended, by terminal status."""
        return {status.value: self._counts[status.value] for status in RunStatus if status.is_terminal}

    def seconds_to_health(self) -> float | None:
        """Until a health line is due; None as long as there is nothing to tell."""
        with self._lock:
            return None if self._counts == self._told_counts else max(0.0, self._next_health - time.monotonic())

    def tell_health(self, busy: int, lanes: int) -> None:
        """Tell what was counted since the last health line."""
        self._next_health = time.monotonic() + HEALTH_SECONDS
        with self._lock:
            since = self._counts - self._told_counts
            self._told_counts = Counter(self._counts)
        facts = {name: count for name, count in sorted(since.items()) if count}
        self._journal.tell("info", f"health: {busy} of {lanes} lanes busy", **facts)
