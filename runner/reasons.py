"""Why the result of a run was used again, or was not: told from what is kept with runs.

It looks into the store and changes nothing. What is found here is told in words by the command line.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple

from runner.ledger import Run, RunFilter
from runner.recipe import PARTS
from runner.run_store import RunStore
from runner.runs import RunStatus

LOOKED_AT = 100
"""So many earlier runs of the job are compared."""


class Verdict(str, Enum):
    """What became of the chance to use a result again."""

    REUSED = "reused"  # the result is an earlier one
    IMPURE = "impure"  # its function is not pure: its results are never used again
    OFF = "off"  # reuse was turned off
    UNKNOWN = "unknown"  # its executor does not tell what results depend on, or no results are kept here
    FIRST = "first"  # no earlier run of the job is known
    DIFFERS = "differs"  # some part of its key is another
    RUNNING = "running"  # an earlier run with the same key had not ended
    GONE = "gone"  # the result of an earlier run with the same key is not kept any more


class Difference(NamedTuple):
    """A part of a key that is another than before."""

    part: str
    """One of recipe.PARTS."""
    before: str
    now: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ReuseAccount:
    """What is known of the reuse of a run's result."""

    verdict: Verdict
    run_id: int | None = None
    """The run that the result is from, or that was compared: the nearest."""
    made_at: datetime | None = None
    """When a result that was used again had been made."""
    differences: tuple[Difference, ...] = ()


def reuse_account(store: RunStore, run: Run, *, is_pure: bool) -> ReuseAccount | None:
    """Why a run's result was used again or not; None for one that has not succeeded, and where nothing is
    known. `is_pure` tells whether its function is."""
    if run.status is not RunStatus.SUCCEEDED or run.function is None:
        return None
    if not is_pure:
        return ReuseAccount(verdict=Verdict.IMPURE)
    facts = _facts(store.reuse_facts([run.run_id]).get(run.run_id, ""))
    if facts is None:
        return None
    if facts["state"] == "reused":
        made = facts["from"]
        return ReuseAccount(
            verdict=Verdict.REUSED, run_id=made["run_id"], made_at=datetime.fromisoformat(made["made_at"])
        )
    if facts["state"] in ("off", "unknown"):
        return ReuseAccount(verdict=Verdict(facts["state"]))
    return _compared(store, run, facts["parts"])


def _compared(store: RunStore, run: Run, parts: dict[str, str]) -> ReuseAccount:
    """With the earlier run of the job of which the fewest parts differ, the latest of several."""
    like = RunFilter(
        namespace=run.namespace, job=run.job, function=run.function, statuses=frozenset({RunStatus.SUCCEEDED})
    )
    earlier = store.list_runs(like, before=run.run_id, limit=LOOKED_AT)
    known = store.reuse_facts([one.run_id for one in earlier])
    found = [
        (_differences(facts["parts"], parts), one)
        for one in earlier
        if (facts := _facts(known.get(one.run_id, ""))) is not None and facts["state"] in ("new", "reused")
    ]
    if not found:
        return ReuseAccount(verdict=Verdict.FIRST)
    differences, nearest = min(found, key=lambda pair: len(pair[0]))
    if differences:
        return ReuseAccount(verdict=Verdict.DIFFERS, run_id=nearest.run_id, differences=differences)
    begun, ended = run.started_at, nearest.finished_at
    at_once = begun is not None and ended is not None and ended > begun
    return ReuseAccount(verdict=Verdict.RUNNING if at_once else Verdict.GONE, run_id=nearest.run_id)


def _differences(before: dict[str, str], now: dict[str, str]) -> tuple[Difference, ...]:
    return tuple(
        Difference(part, before.get(part, ""), now.get(part, "")) for part in PARTS if before.get(part) != now.get(part)
    )


def _facts(text: str) -> dict[str, Any] | None:
    try:
        facts: dict[str, Any] = json.loads(text)
        is_sound = isinstance(facts["parts"], dict) and isinstance(facts["state"], str)
        return facts if is_sound and ("from" in facts) == (facts["state"] == "reused") else None
    except (ValueError, KeyError, TypeError):  # none, or those of another runner
        return None
