"""Lanes: threads that claim runs, have them carried out, and record how they ended.

As many as there are workers. A lane holds what it claimed until its outcomes are on the disk; those are
recorded together with the next claim, in one commit. Whoever owns the lanes calls `tend` now and then.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from runner.carrier import Carrier
from runner.doorbell import Doorbell
from runner.errors import Stopped, StoreError
from runner.run_store import RunStore
from runner.runs import (
    CLAIM_BYTES,
    MAX_PAYLOAD_BYTES,
    Cancelled,
    Claim,
    Claimant,
    Outcome,
    Released,
    RunStatus,
)

CLAIM_SECONDS = 0.05
"""A claim takes as many runs as have taken this long together so far."""
CLAIM_RUNS = 512
"""And never more than these."""
FULL_BYTES = CLAIM_BYTES - MAX_PAYLOAD_BYTES
"""A claim with a larger payload may have left out what would not fit."""
TEND_SECONDS = 0.25
"""How often `tend` wants to be called while a lane is busy."""
HOLD_UP_SECONDS = 1.0
"""Runs that were sent to the workers together are stopped when none of them has ended for so long."""
AGAIN_SECONDS = 1.0
"""After the store refused, it is tried again so much later."""

Key = tuple[int, int]
"""A run and its fencing token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Busy:
    """What a lane is at."""

    run_id: int
    job: str
    function: str | None
    runs: int
    """How many it holds."""
    since: float
    """Seconds of the monotonic clock."""


class Observer:
    """What the owner of lanes is told; all in a lane's thread, or where `tend` is called. Does nothing by
    itself."""

    def stirred(self) -> None:
        """A lane has begun to hold runs, so that `tend` is wanted."""

    def left(self) -> None:
        """A lane has ended."""

    def ended(self, claims: Sequence[Claim], outcomes: Sequence[Outcome], statuses: Sequence[RunStatus | None]) -> None:
        """Outcomes were recorded, and their runs are held no more; the status that each has now, None for
        one that was refused."""

    def refused(self, error: StoreError) -> None:
        """The store took nothing; it is tried again."""

    def broken(self, error: BaseException) -> None:
        """It will never take anything again, or a lane has an error of its own: the lanes end."""


class Lane:
    """One thread and what it holds."""

    def __init__(self, lanes: Lanes, name: str) -> None:
        self._lanes = lanes
        self._lock = threading.Lock()
        self._held: dict[Key, Claim] = {}
        """All that is claimed and not on the disk again, in whatever state below."""
        self._waiting: dict[Key, Claim] = {}
        """What has not begun."""
        self._given_back: dict[Key, Outcome] = {}
        """What will not begin here any more."""
        self._done: list[Outcome] = []
        self._verdicts: dict[Key, Outcome] = {}
        self._current: tuple[Sequence[Claim], Callable[[], Any], float] | None = None
        self._recorded = self._moved = 0.0
        self._limit = 1
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    # Watch

    def begin(self, claims: Sequence[Claim], stop: Callable[[], Any]) -> None:
        """See Watch."""
        with self._lock:
            if any(self.verdict(claim) is not None for claim in claims):
                raise Stopped(begun=False)
            for claim in claims:
                self._waiting.pop((claim.run_id, claim.token), None)
            self._moved = time.monotonic()
            self._current = (claims, stop, self._moved)

    def verdict(self, claim: Claim) -> Outcome | None:
        """See Watch."""
        key = claim.run_id, claim.token
        return self._verdicts.get(key) or self._given_back.get(key)

    def leaving(self) -> bool:
        """See Watch."""
        return self._lanes.leaving

    # For the owner

    def busy(self) -> Busy | None:
        """What it is at; None while it waits."""
        with self._lock:
            if self._current is None or not self._held:
                return None
            claims, _, since = self._current
            first = claims[0]
            return Busy(run_id=first.run_id, job=first.job, function=first.function, runs=len(self._held), since=since)

    def held(self) -> list[Key]:
        """Everything whose outcome is not on the disk yet."""
        with self._lock:
            return list(self._held)

    def end(self, verdicts: Iterable[Outcome]) -> None:
        """Have these end in this way, if they are held here: at once those that run."""
        with self._lock:
            for verdict in verdicts:
                if (verdict.run_id, verdict.token) in self._held:
                    self._verdicts[verdict.run_id, verdict.token] = verdict
            self._stop_marked()

    def flush(self) -> None:
        """Record outcomes that have waited for the rest of their claim, give back what waits behind a
        run that takes its time, and stop again what was to be stopped and had not begun."""
        late = time.monotonic() - TEND_SECONDS
        with self._lock:
            self._stop_marked()
            if self._current is None:
                return
            claims, stop, since = self._current
            if since < late:
                self._give_back_rest()
            if len(claims) > 1 and self._moved < time.monotonic() - HOLD_UP_SECONDS:
                stop()  # one of them takes its time, and its results come in order
            if not self._done or self._recorded > late:
                return
            done, self._done, self._recorded = self._done, [], time.monotonic()
        try:
            statuses = self._lanes.store.finish(done, now=self._lanes.now())
        except BaseException as error:
            with self._lock:
                self._done[:0] = done
            if isinstance(error, StoreError):
                return  # the lane itself tries again, and tells
            raise
        self._told(done, statuses)

    def _give_back_rest(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for key in waiting:
            outcome = Released(*key, "it waited behind a long run", started=False)
            self._given_back[key] = outcome
            self._done.append(outcome)

    def _stop_marked(self) -> None:
        if self._current is not None and self._verdicts:
            claims, stop, _ = self._current
            if any((claim.run_id, claim.token) in self._verdicts for claim in claims):
                stop()

    # The thread

    def _run(self) -> None:
        try:
            while True:
                claims = self._exchange()
                if claims:
                    self._carry_out(claims)
                elif not self._lanes.leaving:
                    if not self._done:
                        self._lanes.doorbell.wait()
                elif not self._done or not self._lanes.patient:
                    return
        except BaseException as error:
            self._lanes.observer.broken(error)
        finally:
            self._lanes.observer.left()

    def _exchange(self) -> list[Claim]:
        """Record what ended, and claim. After a refusal of the store nothing is claimed and what ended
        is kept. When leaving, only outcomes are recorded."""
        with self._lock:
            done, self._done, self._recorded = self._done, [], time.monotonic()
        lanes = self._lanes
        try:
            claims: list[Claim] = []
            if lanes.leaving:
                statuses = lanes.store.finish(done, now=lanes.now()) if done else []
            else:
                lanes.renew_if_late()
                statuses, claims = lanes.store.finish_and_claim(done, lanes.claimant, self._limit, now=lanes.now())
        except StoreError as error:
            with self._lock:
                self._done[:0] = done
            if not error.retryable:
                raise
            lanes.observer.refused(error)
            lanes.pause(AGAIN_SECONDS)
            return []
        if claims:
            self._hold(claims)
        self._told(done, statuses)
        if len(claims) == self._limit or sum(len(claim.payload) for claim in claims) > FULL_BYTES:
            lanes.doorbell.ring()  # there may be more: another lane takes it
        return claims

    def _hold(self, claims: Sequence[Claim]) -> None:
        self._lanes.hold()
        with self._lock:
            self._waiting = {(claim.run_id, claim.token): claim for claim in claims}
            self._held.update(self._waiting)
        self._lanes.observer.stirred()

    def _told(self, done: Sequence[Outcome], statuses: Sequence[RunStatus | None]) -> None:
        if not done:
            return
        with self._lock:
            keys = [(outcome.run_id, outcome.token) for outcome in done]
            claims = [self._held.pop(key) for key in keys]
            for key in keys:
                self._verdicts.pop(key, None)
        self._lanes.observer.ended(claims, done, statuses)

    def _carry_out(self, claims: Sequence[Claim]) -> None:
        begun = time.monotonic()
        for outcome in self._lanes.carrier.carry_out(claims, self):
            with self._lock:
                self._moved = time.monotonic()
                key = outcome.run_id, outcome.token
                self._waiting.pop(key, None)  # a pipeline's turn, or what could not be run, ends without having begun
                if key not in self._given_back:
                    self._done.append(outcome)
        with self._lock:
            self._current = None
            self._waiting.clear()
            self._given_back.clear()
        self._adapt(time.monotonic() - begun, len(claims))

    def _adapt(self, seconds: float, runs: int) -> None:
        """Claim as many as fit into CLAIM_SECONDS, and never many more than before."""
        fitting = int(CLAIM_SECONDS * runs / max(seconds, 1e-6))
        self._limit = max(1, min(CLAIM_RUNS, self._limit * 4, fitting))


@dataclass(kw_only=True)
class Lanes:
    """The lanes of one claimant. `start`, `tend` every TEND_SECONDS while `busy`, `leave`, `join`."""

    store: RunStore
    claimant: Claimant
    carrier: Carrier
    now: Callable[[], datetime]
    count: int
    observer: Observer = field(default_factory=Observer)
    leaving: bool = False
    """Nothing is claimed any more."""
    patient: bool = True
    """Whether to go on trying to record outcomes while leaving."""

    def __post_init__(self) -> None:
        self.doorbell = Doorbell(self.store.changes(besides=self.claimant.owner), self._seconds_until_due)
        self._left = threading.Event()
        self._renewed = time.monotonic()
        self.lanes = [Lane(self, f"lane {number + 1}") for number in range(self.count)]

    def start(self) -> None:
        """Begin to claim."""
        for lane in self.lanes:
            lane.thread.start()

    def busy(self) -> list[Busy]:
        """What every lane that is not waiting is at."""
        return [busy for busy in (lane.busy() for lane in self.lanes) if busy is not None]

    def holding(self) -> list[Key]:
        """Every run that is claimed and not recorded yet."""
        return [key for lane in self.lanes for key in lane.held()]

    def tend(self) -> None:
        """Renew leases when it is time, stop what is no longer ours or is to be cancelled, and record what
        has waited too long. May raise StoreError; call again later."""
        if not self.holding():
            self._renewed = time.monotonic()
            return
        if time.monotonic() - self._renewed >= self.claimant.lease_seconds / 3:
            self._renew()
        else:
            self.cancel(self.store.cancel_requests(self.claimant.owner))
        for lane in self.lanes:
            lane.flush()

    def hold(self) -> None:
        """A lane has claimed something."""
        if not self.holding():
            self._renewed = time.monotonic()

    def renew_if_late(self) -> None:
        """Renew leases that are about to run out, if nobody tended for so long (a machine that slept): the
        next claim would take them over. May raise StoreError."""
        if time.monotonic() - self._renewed >= self.claimant.lease_seconds * 2 / 3 and self.holding():
            self._renew()

    def _renew(self) -> None:
        until = self.now() + timedelta(seconds=self.claimant.lease_seconds)
        renewal = self.store.renew(self.holding(), until=until)
        self._renewed = time.monotonic()
        self._end([Released(*key, "its lease was lost to another") for key in renewal.lost])
        self.cancel(list(renewal.cancel))

    def cancel(self, keys: Sequence[Key]) -> None:
        """Have these end as cancelled."""
        self._end([Cancelled(*key, "cancelled while it ran") for key in keys])

    def _end(self, verdicts: Sequence[Outcome]) -> None:
        if verdicts:
            for lane in self.lanes:
                lane.end(verdicts)

    def leave(self) -> None:
        """Claim nothing any more: lanes end after what they are at."""
        self.leaving = True
        self.doorbell.open()

    def give_back(self, reason: str) -> None:
        """Stop everything that is held; it goes back to the queue."""
        self.patient = False
        self._left.set()
        self._end([Released(*key, reason) for key in self.holding()])

    def join(self, timeout_seconds: float) -> bool:
        """Wait for the lanes to end; whether all have, or never began."""
        until = time.monotonic() + timeout_seconds
        for lane in self.lanes:
            if lane.thread.is_alive():
                lane.thread.join(max(0.0, until - time.monotonic()))
        return not any(lane.thread.is_alive() for lane in self.lanes)

    def close(self) -> None:
        """Give back the descriptors, after all lanes have ended."""
        self.doorbell.close()

    def pause(self, seconds: float) -> None:
        """Sleep, unless there is no time left for it."""
        self._left.wait(seconds)

    def _seconds_until_due(self) -> float | None:
        with contextlib.suppress(StoreError):
            due = self.store.next_due(self.claimant.namespace)
            return None if due is None else (due - self.now()).total_seconds()
        return AGAIN_SECONDS
