"""What the suites of a run store have in common: a fixture, a clock that stands still, short ways to say
what a test is about."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar

import pytest

from runner.run_store import RunStore
from runner.runs import Claim, Claimant, Dead, Enqueued, Failure, NewRun, Parked, Succeeded

START = datetime(2027, 3, 14, 9, 26, 53, 589793, tzinfo=timezone.utc)
BOOM = Failure("Trapped", "trapped: boom", "the last words\n")


def at(seconds: float = 0) -> datetime:
    """So many seconds after the start of the test."""
    return START + timedelta(seconds=seconds)


def new(job: str = "clean", payload: bytes = b"in", **settings: Any) -> NewRun:
    """A NewRun with defaults for whatever a test does not care about."""
    return NewRun(
        **{"namespace": "shop", "function": "clean", "function_version": 1, **settings}, job=job, payload=payload
    )


def claimant(owner: str = "one", **settings: Any) -> Claimant:
    """A Claimant with a lease of 30 seconds."""
    return Claimant(**{"owner": owner, "namespace": "shop", "lease_seconds": 30, **settings})


def succeeded(claim: Claim, output: bytes = b"out", **settings: Any) -> Succeeded:
    """The claim ended well."""
    return Succeeded(claim.run_id, claim.token, output, **settings)


def step(name: str, item: int | None = None, **settings: Any) -> NewRun:
    """A NewRun that is a step."""
    return new("nightly", step=name, item=item, **settings)


def parked(claim: Claim, *children: NewRun, **settings: Any) -> Parked:
    """The claim waits for children."""
    return Parked(claim.run_id, claim.token, **{"state": b"state", **settings}, children=children)


class Bench:
    """The fixture and the short ways. A subclass says how a store is made."""

    durable: ClassVar[bool] = True
    """Whether what was accepted is still there for the next store made from the same folder."""

    def make_store(self, folder: Path) -> RunStore:
        """An open store that keeps what it keeps in `folder`, an existing folder of this test. The same
        folder means the same content, within a test also for a second store at once."""
        raise NotImplementedError("a subclass of RunStoreContract implements make_store(folder)")

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[RunStore]:
        """A fresh, empty store, closed after the test."""
        store = self.make_store(tmp_path)
        yield store
        store.close()

    @staticmethod
    def enqueue(store: RunStore, *runs: NewRun, seconds: float = 0) -> list[int]:
        """Accept runs; their ids."""
        return [enqueued.run_id for enqueued in store.enqueue(runs, now=at(seconds))]

    @staticmethod
    def claim(store: RunStore, limit: int = 100, *, seconds: float = 0, **settings: Any) -> list[Claim]:
        """Claim as `one`, or as the owner in `settings`."""
        return store.claim(claimant(**settings), limit, now=at(seconds))

    def claim_one(self, store: RunStore, *, seconds: float = 0, **settings: Any) -> Claim:
        """Claim the only run there is to claim."""
        (claim,) = self.claim(store, seconds=seconds, **settings)
        return claim

    def die(self, store: RunStore, run: NewRun, *, seconds: float = 0) -> int:
        """Enqueue a run and let it die; its id."""
        (run_id,) = self.enqueue(store, run, seconds=seconds)
        (claim,) = [claim for claim in self.claim(store, seconds=seconds) if claim.run_id == run_id]
        assert [status.value for status in store.finish([Dead(*claim[:2], BOOM)], now=at(seconds)) if status] == [
            "dead"
        ]
        return run_id


def ids(enqueued: list[Enqueued]) -> list[int]:
    """The ids of runs that were enqueued."""
    return [run_id for run_id, _ in enqueued]
