"""The daemon of `runner serve`: lanes, trigger sources, leases, reload, drain.

Its main thread sleeps until there is a signal, a question or a changed jobs.yaml, and never waits for the
store; all that does has threads of its own. What it accepted is in the store: nothing here must survive it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from runner.app import Runner
from runner.carrier import Carrier
from runner.control import Control, forget, is_dead, new_owner, owners
from runner.errors import RunnerError, StoreError
from runner.filewatch import FileWatch
from runner.housekeeping import Housekeeper
from runner.journal import Journal
from runner.lanes import TEND_SECONDS, Lanes, Observer
from runner.ledger import Retention
from runner.models import InvocationContext, LogEntry
from runner.reactor import Reactor
from runner.runs import Claim, Claimant, Outcome, RunStatus
from runner.starting import Starting
from runner.tally import Tally
from runner.tending import Tender

LONGEST_SECONDS = 3600.0
"""One sleep ends after this at the latest."""
LEAVE_SECONDS = 5.0
"""How long a lane whose work was stopped may take to end."""
JOIN_SECONDS = 0.01
"""How long a lane may take to end that has nothing to do."""


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
        self._tally = Tally(journal, now)
        self._state = "starting"
        self._failure: BaseException | None = None
        self._progress: dict[int, tuple[int, int]] = {}
        self._reactor = Reactor()
        self._stops: list[int] = []
        self._reload_wanted = False
        self._leases_left = False
        self._starting = Starting(runner, journal, now)
        self._housekeeper = Housekeeper(
            prune=self._prune,
            load_again=self._load_again,
            tell=lambda message: self.journal.tell("error", message),
            broken=self.broken,
        )

    # Signals: called in a signal handler

    def stop(self, number: int) -> None:
        """Drain; a second call ends at once, a third does not even wait for the store. Raises SystemExit
        for that one, and while there is nothing to drain yet."""
        if self._state == "starting":
            raise SystemExit(0)
        self._stops.append(number)
        if len(self._stops) > 2:
            raise SystemExit(128 + number)
        self._reactor.wake()

    def reload(self) -> None:
        """Load jobs.yaml again."""
        self._reload_wanted = True
        self._reactor.wake()

    # Life

    def run(self) -> int:
        """Serve, once. Returns the exit status: 0 after a drain, 128 and the signal after a second one;
        raises what ended it otherwise."""
        self.runner.on_progress = self._on_progress
        self.runner.on_logs = self._on_logs
        with contextlib.ExitStack() as stack:
            stack.callback(self._reactor.close)
            stack.enter_context(self._reactor.hearing_signals())
            self._starting.prepare()
            self._control = Control(self.runner.state_dir, self.owner, {"status": self.status, "alive": lambda: True})
            stack.callback(lambda: self._control.close(leave=self._leases_left))
            self.bury()
            self._lanes = self._make_lanes()
            self._tender = self._make_tender()
            self._leases_left = True
            self._state = "serving"  # from here on a signal is only noted
            try:
                self._serve(stack)
            except BaseException as error:
                self.broken(error)  # raised below, when everything is put away
            finally:
                self._end()
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

    def _make_tender(self) -> Tender:
        return Tender(
            self.runner.store.changes(besides=self.owner),
            seconds=self._seconds_to_tend,
            tend=self._tend,
            refused=self._tally.refused,
            broken=self.broken,
        )

    def _make_claimant(self) -> Claimant:
        return Claimant(
            owner=self.owner,
            namespace=self.runner.config.namespace,
            lease_seconds=self.settings.lease_seconds,
            queues=self.settings.queues,
            limits=self._starting.limits,
        )

    def _serve(self, stack: contextlib.ExitStack) -> None:
        self._reactor.on(self._control.fileno(), self._control.answer)
        self._watch_file(stack)
        self._starting.start()
        self._lanes.start()
        self._tender.start()
        self._housekeeper.start()
        self.journal.tell("info", "serving", **self._starting.facts(), owner=self.owner)
        while not self._stops and self._failure is None:
            self._turn(LONGEST_SECONDS)

    def _watch_file(self, stack: contextlib.ExitStack) -> None:
        path = self.runner.config.path
        try:
            watch = stack.enter_context(FileWatch(path))
        except OSError as error:
            self.journal.tell("warning", f"{path} cannot be watched ({error}); SIGHUP loads it again")
            return

        def react() -> None:
            self._reload_wanted = watch.changed() or self._reload_wanted

        self._reactor.on(watch.fileno(), react)

    def _turn(self, seconds: float) -> None:
        self._reactor.turn(seconds)
        if self._reload_wanted:
            self._reload_wanted = False
            self._housekeeper.reload()

    # In the tender's thread

    def _seconds_to_tend(self) -> float:
        if self._lanes.holding() or self._progress:
            return TEND_SECONDS
        seconds = self._tally.seconds_to_health()
        return LONGEST_SECONDS if seconds is None else seconds

    def _tend(self) -> None:
        self._lanes.tend()
        if self._progress:
            reports, self._progress = self._progress, {}
            self.runner.store.report_progress(
                [(run_id, token, percent) for run_id, (token, percent) in list(reports.items())]
            )
        if self.settings.drain and not self._stops and self._is_drained():
            self._stops.append(0)
            self._reactor.wake()
        if self._tally.seconds_to_health() == 0:
            self._tally.tell_health(len(self._lanes.busy()), self._lanes.count)

    def _is_drained(self) -> bool:
        if self._lanes.holding():
            return False
        namespace, queues = self.runner.config.namespace, self.settings.queues
        depth = self.runner.store.depth(namespace, queues=queues, now=self.now())
        return not depth.ready and not depth.running

    # The end

    def _end(self) -> None:
        """Let go of everything, in order: nothing new starts, work ends or goes back."""
        self._state = "draining"
        if self._failure is None:
            busy, grace = len(self._lanes.busy()), self.settings.grace_seconds
            self.journal.tell("info", f"stopping: {busy} running, up to {grace:g} s for them")
        self._lanes.leave()
        self._stop_sources()
        self._drain()
        self._lanes.give_back("the daemon stopped")
        self._lanes.join(LEAVE_SECONDS)
        self._housekeeper.stop()
        self._tender.stop()
        self._lanes.close()
        self._leases_left = bool(self._lanes.holding())
        self.journal.tell("info", "stopped", **self._tally.totals())

    def _stop_sources(self) -> None:
        try:
            self._starting.stop()
        except Exception as error:  # a source is foreign code
            self.broken(error)

    def _drain(self) -> None:
        until = time.monotonic() + self.settings.grace_seconds
        while not self._lanes.join(JOIN_SECONDS) and len(self._stops) < 2 and self._failure is None:
            left = until - time.monotonic()
            if left <= 0:
                return
            self._turn(min(left, TEND_SECONDS))

    # What the lanes tell (see Observer)

    def stirred(self) -> None:
        """See Observer."""
        self._tender.wake()

    def left(self) -> None:
        """See Observer."""
        self._reactor.wake()

    def ended(self, claims: Sequence[Claim], outcomes: Sequence[Outcome], statuses: Sequence[RunStatus | None]) -> None:
        """See Observer."""
        self._tally.ended(claims, outcomes, statuses)
        if self.settings.drain:
            self._tender.wake()  # only now is it held no more, and perhaps all drained

    def refused(self, error: StoreError) -> None:
        """See Observer."""
        self._tally.refused(error)

    def broken(self, error: BaseException) -> None:
        """See Observer."""
        self._failure = self._failure or error
        self._reactor.wake()

    # What guests tell

    def _on_progress(self, context: InvocationContext, percent: int) -> None:
        token = self._token_of(context)
        if token is not None and context.run_id is not None:
            self._progress[context.run_id] = (token, percent)
            self._tender.wake()

    def _on_logs(self, context: InvocationContext, entries: Sequence[LogEntry]) -> None:
        token = self._token_of(context)
        if token is not None and context.run_id is not None:
            self.runner.store.add_logs(context.run_id, token, entries)  # lines it refuses come with the result

    def _token_of(self, context: InvocationContext) -> int | None:
        return next((token for run_id, token in self._lanes.holding() if run_id == context.run_id), None)

    # Care

    def bury(self) -> None:
        """Take back what daemons of this machine held that are gone."""
        for owner in sorted({*self.runner.store.owners(), *owners(self.runner.state_dir)}):
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
            **self._depth(),
            **self._tally.totals(),
            **self._starting.facts(),
        }

    def _depth(self) -> dict[str, Any]:
        try:
            depth = self.runner.store.depth(self.runner.config.namespace, now=self.now())
        except StoreError:
            return {}  # that it refuses is told elsewhere
        return {
            "ready": depth.ready,
            "waiting": depth.waiting,
            "dead_letters": depth.dead_letters,
            "oldest_ready_at": depth.oldest_ready_at.isoformat() if depth.oldest_ready_at else None,
        }
