"""Lanes in this process that carry out one run of the queue and its steps, without a daemon.

The run is in the store as any other: if this process is killed, whoever claims its queue next goes on with
it, and a daemon that serves the project helps meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from runner.app import Runner
from runner.carrier import Carrier
from runner.control import RUN_PREFIX, Control, forget, is_dead, new_owner, owners, queue_of
from runner.errors import StoreError
from runner.lanes import TEND_SECONDS, Lanes, Observer
from runner.ledger import Run
from runner.reactor import Reactor
from runner.run_store import Changes
from runner.runs import Claim, Claimant, Outcome, RunStatus

LEAVE_SECONDS = 5.0
"""How long a lane whose work was stopped may take to end."""
LOOK_SECONDS = 0.05
"""The run is looked at no more often than this."""
PATIENCE_SECONDS = 10.0
"""A store that takes nothing for so long is not waited for any longer: whoever looks on can do more about it."""
LONGEST_SECONDS = 60.0
"""One sleep ends after this at the latest."""


class OwnLanes(Observer):
    """Lanes of one queue."""

    def __init__(self, runner: Runner, queue: str, now: Callable[[], datetime]) -> None:
        self._runner, self._now = runner, now
        self._owner = f"{RUN_PREFIX}{new_owner()}"
        self._reactor = Reactor()
        self._failure: BaseException | None = None
        self._refused_at: float | None = None
        """Since when the store takes nothing."""
        self._holds = False
        """Whether what it held could not be given back."""
        self._queue = queue

    def carry_out(self, run_id: int, look: Callable[[Run], None]) -> Run:
        """Carry out what is in the queue until this run is terminal, and return it. `look` is given it whenever
        something may have changed. On return and after an interrupt nothing is held any more."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._reactor.close)
            stack.enter_context(self._reactor.hearing_signals())
            control = Control(
                self._runner.state_dir, self._owner, {"alive": lambda: True, "queue": lambda: self._queue}
            )
            stack.callback(lambda: control.close(leave=self._holds))
            changes = stack.enter_context(self._runner.store.changes())
            self._reactor.on(control.fileno(), control.answer)
            self._reactor.on(changes.fileno(), lambda: _take_note(changes))
            bury(self._runner, self._now(), but=self._owner)
            lanes = self._make_lanes()
            stack.callback(self._end, lanes)
            lanes.start()
            return self._until_ended(run_id, lanes, look)

    def _make_lanes(self) -> Lanes:
        claimant = Claimant(owner=self._owner, namespace=self._runner.config.namespace, queues=frozenset({self._queue}))
        return Lanes(
            store=self._runner.store,
            claimant=claimant,
            carrier=Carrier(self._runner, now=self._now, waits_for_engine=False),
            now=self._now,
            count=len(os.sched_getaffinity(0)),
            observer=self,
        )

    def _until_ended(self, run_id: int, lanes: Lanes, look: Callable[[Run], None]) -> Run:
        while True:
            run = self._runner.store.get(run_id)
            look(run)
            if run.status.is_terminal:
                return run
            self._reactor.turn(TEND_SECONDS if lanes.holding() else LONGEST_SECONDS)
            if self._failure is not None:
                raise self._failure
            try:
                lanes.tend()
            except StoreError as error:
                if not error.retryable:
                    raise
            time.sleep(LOOK_SECONDS)  # a busy store changes all the time

    def _end(self, lanes: Lanes) -> None:
        lanes.leave()
        lanes.give_back("whoever ran it was interrupted")
        lanes.join(LEAVE_SECONDS)
        if lanes.holding():
            self._holds = True
            with contextlib.suppress(StoreError):  # then whoever finds the dead socket does it
                self._runner.store.take_back(self._owner, "whoever ran it ended", now=self._now())
                self._holds = False
        lanes.close()

    # What the lanes tell (see Observer)

    def stirred(self) -> None:
        """See Observer."""
        self._refused_at = None
        self._reactor.wake()

    def ended(self, claims: Sequence[Claim], outcomes: Sequence[Outcome], statuses: Sequence[RunStatus | None]) -> None:  # noqa: ARG002
        """See Observer."""
        self._refused_at = None

    def refused(self, error: StoreError) -> None:
        """See Observer."""
        self._runner.tell_once(f"the store takes nothing, and is tried again for {PATIENCE_SECONDS:.0f} s: {error}")
        now = time.monotonic()
        self._refused_at = self._refused_at or now
        if now - self._refused_at > PATIENCE_SECONDS:
            self._runner.tell_once("the store still takes nothing: given up; the same command goes on with the run")
            self.broken(error)

    def broken(self, error: BaseException) -> None:
        """See Observer."""
        self._failure = self._failure or error
        self._reactor.wake()


def is_busy(runner: Runner, queue: str) -> bool:
    """Whether another process of this machine carries out what is in a queue of one run."""
    state_dir = runner.state_dir
    return any(queue_of(state_dir, owner) == queue for owner in owners(state_dir) if owner.startswith(RUN_PREFIX))


def bury(runner: Runner, now: datetime, *, but: str = "") -> None:
    """Take back what processes of this machine held that are gone; `but` is never one of them."""
    store, state_dir = runner.store, runner.state_dir
    for owner in sorted({*store.owners(), *owners(state_dir)} - {but}):
        if is_dead(state_dir, owner):
            store.take_back(owner, "its process is gone", now=now)
            forget(state_dir, owner)


def _take_note(changes: Changes) -> None:
    changes.wait(0)
