"""The daemon of `runner serve`: lanes, trigger sources, leases, reload, drain, in one loop of the main thread.

It sleeps until something happens: a signal, a question, a change of the store, a changed jobs.yaml, or
the next moment of its own. What it accepted is in the store; nothing here must survive it.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from runner.app import Runner
from runner.carrier import Carrier
from runner.control import Control, forget, is_dead, new_owner
from runner.errors import RunnerError, StoreError
from runner.filewatch import FileWatch
from runner.housekeeping import Housekeeper
from runner.journal import Journal
from runner.lanes import TEND_SECONDS, Lanes, Observer
from runner.ledger import Retention
from runner.models import InvocationContext, LogEntry
from runner.runs import Claim, Claimant, Dead, Failed, Lost, Outcome, Retry, RunStatus
from runner.starting import Starting

CHANGE_SECONDS = 0.05
"""Changes of the store are looked at no more often than this."""
HEALTH_SECONDS = 60.0
"""Between two health lines, as long as there is something to tell."""


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True, kw_only=True, slots=True)
class DaemonSettings:
    """What `runner serve` was told."""

    lanes: int | None = None
    """How many runs are carried out at once; None: one a core."""
    grace_seconds: float = 30.0
    """How long running work may go on after SIGTERM."""
    lease_seconds: float = 30.0
    queues: frozenset[str] | None = None
    """The queues it takes from; None: all."""
    drain: bool = False
    """End when nothing is ready or running any more, in place of waiting for more."""


class Daemon(Observer):
    """One daemon of one project. `run` blocks until it is told to end."""

    def __init__(
        self,
        runner: Runner,
        settings: DaemonSettings,
        journal: Journal,
        *,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self.runner, self.settings, self.journal, self.now = runner, settings, journal, now
        self.owner = new_owner()
        self.started_at = now()
        self.counts: Counter[str] = Counter()
        self._state = "starting"
        self._failure: BaseException | None = None
        self._progress: dict[int, tuple[int, int]] = {}
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stops: list[int] = []
        self._told_refusal = ""
        self._next_health = time.monotonic() + HEALTH_SECONDS
        self._last_counts: Counter[str] = Counter()

    # Signals: may be called in a signal handler

    def stop(self, number: int) -> None:
        """Drain; a second call ends at once."""
        self._stops.append(number)
        self._wake()

    def reload(self) -> None:
        """Load jobs.yaml again."""
        self._housekeeper.reload()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b"\0")

    # Life

    def run(self) -> int:
        """Serve. Returns the exit status: 0 after a drain, 128 and the signal after a second one, and
        raises what ended it otherwise."""
        store = self.runner.store
        self._starting = Starting(self.runner, self.journal, self.now)
        self._housekeeper = Housekeeper(
            prune=self._prune, load_again=self._load_again, tell=lambda message: self.journal.tell("error", message)
        )
        self.runner.on_progress = self._on_progress
        self.runner.on_logs = self._on_logs
        self._starting.register(self.runner.config)
        control = Control(self.runner.state_dir, self.owner, {"status": self.status, "alive": lambda: True})
        try:
            with store.changes() as changes, FileWatch(self.runner.config.path) as watch:
                self.bury()
                self._lanes = self._make_lanes()
                try:
                    self._serve(control, changes, watch)
                finally:
                    self._end()
        finally:
            control.close()
        if self._failure is not None:
            raise self._failure
        return 128 + self._stops[1] if len(self._stops) > 1 else 0

    def _make_lanes(self) -> Lanes:
        count = self.settings.lanes or len(os.sched_getaffinity(0))
        return Lanes(
            store=self.runner.store,
            claimant=self._make_claimant(),
            carrier=Carrier(self.runner, now=self.now),
            now=self.now,
            count=count,
            observer=self,
        )

    def _make_claimant(self) -> Claimant:
        return Claimant(
            owner=self.owner,
            namespace=self.runner.config.namespace,
            lease_seconds=self.settings.lease_seconds,
            queues=self.settings.queues,
            limits=self._starting.limits,
        )

    def _serve(self, control: Control, changes: Any, watch: FileWatch) -> None:
        self._starting.start()
        self._lanes.start()
        self._housekeeper.start()
        self._state = "serving"
        self.journal.tell("info", "serving", **self._starting.facts(), owner=self.owner)
        poll = select.poll()
        for source in (control, watch, self._wake_read):
            poll.register(source, select.POLLIN)
        poll.register(changes, select.POLLIN)
        while not self._stops and self._failure is None:
            ready = {descriptor for descriptor, _ in poll.poll(self._seconds_to_sleep() * 1000 + 1)}
            if self._wake_read in ready:
                with contextlib.suppress(OSError):
                    os.read(self._wake_read, 4096)
            if control.fileno() in ready:
                control.answer()
            if watch.fileno() in ready and watch.changed():
                self._housekeeper.reload()
            if changes.fileno() in ready:
                changes.wait(0)
                if self._lanes.busy():
                    time.sleep(CHANGE_SECONDS)  # a busy store changes all the time
            self._tend()

    def _seconds_to_sleep(self) -> float:
        if self._lanes.holding() or self._progress:
            return TEND_SECONDS
        if self.counts != self._last_counts:
            return max(0.0, self._next_health - time.monotonic())
        return 3600.0

    def _tend(self) -> None:
        try:
            self._lanes.tend()
            reports, self._progress = self._progress, {}
            if reports:
                self.runner.store.report_progress(
                    [(run_id, token, percent) for run_id, (token, percent) in reports.items()]
                )
        except StoreError as error:
            self.refused(error)
        if self.settings.drain and not self._stops and self._is_drained():
            self.stop(0)
        if time.monotonic() >= self._next_health and self.counts != self._last_counts:
            self._tell_health()

    def _is_drained(self) -> bool:
        if self._lanes.holding():
            return False
        depth = self.runner.store.depth(self.runner.config.namespace, now=self.now())
        return not depth.ready and not depth.running

    def _end(self) -> None:
        """Let go of everything, in order: nothing new starts, work ends or goes back."""
        self._state = "draining"
        if self._failure is None:
            busy = len(self._lanes.busy())
            self.journal.tell("info", f"stopping: {busy} running, up to {self.settings.grace_seconds:g} s for them")
        self._starting.stop()
        self._lanes.leave()
        until = time.monotonic() + self.settings.grace_seconds
        while len(self._stops) < 2 and self._failure is None and time.monotonic() < until:
            if self._lanes.join(TEND_SECONDS / 2):
                break
            self._tend()
        self._lanes.give_back("the daemon stopped")
        if not self._lanes.join(5.0):
            with contextlib.suppress(StoreError):
                self.runner.store.take_back(self.owner, "the daemon stopped", now=self.now())
        self._housekeeper.stop()
        self._lanes.close()
        self.journal.tell("info", "stopped", **self._totals())

    # What the lanes tell (see Observer)

    def ended(self, claims: Sequence[Claim], outcomes: Sequence[Outcome], statuses: Sequence[RunStatus | None]) -> None:
        """See Observer."""
        for claim, outcome, status in zip(claims, outcomes, statuses, strict=True):
            self.counts["refused" if status is None else status.value] += 1
            if isinstance(outcome, Retry | Failed | Dead | Lost):
                self._tell_failure(claim, outcome, status)
        self.journal.tell("debug", f"{len(outcomes)} runs ended", kind="ended")

    def _tell_failure(self, claim: Claim, outcome: Retry | Failed | Dead | Lost, status: RunStatus | None) -> None:
        what = "is refused: its lease was lost" if status is None else _FATE.get(status, status.value)
        if isinstance(outcome, Retry) and status is RunStatus.PENDING:
            what = f"tries again in {max(0.0, (outcome.run_at - self.now()).total_seconds()):.1f} s"
        self.journal.tell(
            "error" if status in (RunStatus.FAILED, RunStatus.DEAD) else "warning",
            f"run {claim.run_id} of {claim.job} {what}: {outcome.failure.message}",
            run_id=claim.run_id,
            job=claim.job,
            attempt=claim.attempt,
            error_class=outcome.failure.error_class,
            kind="failures",
        )

    def refused(self, error: StoreError) -> None:
        """See Observer."""
        if str(error) != self._told_refusal:
            self._told_refusal = str(error)
            self.journal.tell("error", f"the store refused, trying again: {error}", error_class=error.error_class)

    def broken(self, error: BaseException) -> None:
        """See Observer."""
        self._failure = self._failure or error
        self._wake()

    # What guests tell

    def _on_progress(self, context: InvocationContext, percent: int) -> None:
        token = self._token_of(context)
        if token is not None and context.run_id is not None:
            self._progress[context.run_id] = (token, percent)

    def _on_logs(self, context: InvocationContext, entries: Sequence[LogEntry]) -> None:
        token = self._token_of(context)
        if token is not None and context.run_id is not None:
            with contextlib.suppress(StoreError):  # the invocation matters more than its lines
                self.runner.store.add_logs(context.run_id, token, entries)

    def _token_of(self, context: InvocationContext) -> int | None:
        return next((token for run_id, token in self._lanes.holding() if run_id == context.run_id), None)

    # Care

    def bury(self) -> None:
        """Take back what daemons of this machine held that are gone."""
        for owner in self.runner.store.owners():
            if owner != self.owner and is_dead(self.runner.state_dir, owner):
                count = self.runner.store.take_back(owner, "its process is gone", now=self.now())
                forget(self.runner.state_dir, owner)
                self.journal.tell("warning", f"took back {count} runs of a daemon that is gone", owner=owner)

    def _prune(self) -> bool:
        keys = self.runner.config.retention
        retention = Retention(runs_days=keys.runs_days, failed_days=keys.failed_days, logs_days=keys.logs_days)
        return self.runner.store.prune(retention, now=self.now())

    def _load_again(self) -> None:
        """Take up jobs.yaml as it is now; a bad one changes nothing and is told. Not in the main thread."""
        try:
            if self._starting.load_again():
                self._lanes.claimant = self._make_claimant()
                self.journal.tell("info", "jobs.yaml was loaded again", **self._starting.facts())
        except RunnerError as error:
            self.journal.tell(
                "error", f"jobs.yaml was not taken up, the old one goes on: {error}", error_class=error.error_class
            )

    # What it tells of itself

    def status(self) -> Mapping[str, Any]:
        """Everything `runner status` shows, as JSON values."""
        now = self.now()
        depth = self.runner.store.depth(self.runner.config.namespace, now=now)
        monotonic = time.monotonic()
        return {
            "owner": self.owner,
            "pid": os.getpid(),
            "state": self._state,
            "file": str(self.runner.config.path),
            "namespace": self.runner.config.namespace,
            "started_at": self.started_at.isoformat(),
            "lanes": self._lanes.count,
            "running": [
                {
                    "run_id": busy.run_id,
                    "job": busy.job,
                    "function": busy.function,
                    "runs": busy.runs,
                    "seconds": round(monotonic - busy.since, 3),
                }
                for busy in self._lanes.busy()
            ],
            "ready": depth.ready,
            "waiting": depth.waiting,
            "dead_letters": depth.dead_letters,
            "oldest_ready_at": depth.oldest_ready_at.isoformat() if depth.oldest_ready_at else None,
            **self._totals(),
            **self._starting.facts(),
        }

    def _totals(self) -> dict[str, int]:
        return {status.value: self.counts[status.value] for status in RunStatus if status.is_terminal}

    def _tell_health(self) -> None:
        self._next_health = time.monotonic() + HEALTH_SECONDS
        since = self.counts - self._last_counts
        self._last_counts = Counter(self.counts)
        facts = {name: count for name, count in sorted(since.items()) if count}
        self.journal.tell("info", f"health: {len(self._lanes.busy())} of {self._lanes.count} lanes busy", **facts)


_FATE = {
    RunStatus.PENDING: "runs again",
    RunStatus.DEAD: "is dead",
    RunStatus.FAILED: "failed",
    RunStatus.CANCELLED: "is cancelled",
}
