"""The ledger of slots: what became of every due time of every trigger."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from runner.ledger import RecordedSlot, SlotEntry, SlotOutcome
from runner.runs import OnConflict
from runner_sqlite.enqueue import accept, join
from runner_sqlite.moments import from_number, to_number

_INSERT = "INSERT INTO slots (trigger, slot, outcome, reason, run_id, recorded_at) VALUES (?, ?, ?, ?, ?, ?)"
_SELECT = "SELECT trigger, slot, outcome, reason, run_id, recorded_at FROM slots"


def record(connection: sqlite3.Connection, entries: Sequence[SlotEntry], now: int) -> list[RecordedSlot]:
    """See RunStore.record_slots."""
    keys = [(entry.trigger, to_number(entry.slot)) for entry in entries]
    known = _known(connection, keys)
    fresh: dict[tuple[str, int], SlotEntry] = {}
    for key, entry in zip(keys, entries, strict=True):
        if key not in known:
            fresh.setdefault(key, entry)
    with_runs = [(key, entry.run) for key, entry in fresh.items() if entry.run is not None]
    enqueued = accept(connection, [run for _, run in with_runs], now, conflict=join)
    results = {key: result for (key, _), result in zip(with_runs, enqueued, strict=True)}
    made: dict[tuple[str, int], RecordedSlot] = {}
    for key, entry in fresh.items():
        outcome, reason, run_id = entry.outcome, entry.reason, None
        if entry.run is not None:
            run_id, created = results[key]
            if not created and entry.run.on_conflict is OnConflict.REFUSE:
                outcome = SlotOutcome.SKIPPED
                reason = f"run {run_id} is live and has the unique key {entry.run.unique_key!r}"
                run_id = None
        made[key] = RecordedSlot(entry.trigger, from_number(key[1]), outcome, reason, run_id, from_number(now))
    connection.executemany(
        _INSERT, [(*key, entry.outcome.value, entry.reason, entry.run_id, now) for key, entry in made.items()]
    )
    # The first entry of a slot is the one that is new; another of the same call finds it there.
    return [made.pop(key) if key in made else _reread(connection, key) for key in keys]


def one(connection: sqlite3.Connection, trigger: str, slot: int) -> RecordedSlot | None:
    """See RunStore.slot."""
    row = connection.execute(f"{_SELECT} WHERE trigger = ? AND slot = ?", (trigger, slot)).fetchone()
    return None if row is None else _entry(row)


def of_run(connection: sqlite3.Connection, run_id: int, trigger: str | None, slot: int | None) -> RecordedSlot | None:
    """The entry that a run was enqueued for."""
    if trigger is None or slot is None:
        return None
    entry = one(connection, trigger, slot)
    return entry if entry is not None and entry.run_id == run_id else None


def last(connection: sqlite3.Connection, triggers: Sequence[str]) -> list[tuple[str, int]]:
    """See RunStore.last_slots."""
    return connection.execute(
        "SELECT value, moment FROM (SELECT value, "
        "(SELECT MAX(slot) FROM slots WHERE trigger = value) AS moment FROM json_each(?)) WHERE moment IS NOT NULL",
        (json.dumps(triggers),),
    ).fetchall()


def of_trigger(connection: sqlite3.Connection, trigger: str, before: int | None, limit: int) -> list[RecordedSlot]:
    """See RunStore.slots."""
    rows = connection.execute(
        f"{_SELECT} WHERE trigger = :trigger AND (:before IS NULL OR slot < :before) ORDER BY slot DESC LIMIT :limit",
        {"trigger": trigger, "before": before, "limit": max(limit, 0)},
    )
    return [_entry(row) for row in rows]


def live_runs(connection: sqlite3.Connection, triggers: Sequence[str]) -> dict[str, list[int]]:
    """See RunStore.live_runs."""
    found: dict[str, list[int]] = {}
    rows = connection.execute(
        "SELECT trigger, run_id FROM json_each(?) CROSS JOIN queue ON trigger = value ORDER BY run_id",
        (json.dumps(list(set(triggers))),),
    )
    for trigger, run_id in rows:
        found.setdefault(trigger, []).append(run_id)
    return found


def _known(connection: sqlite3.Connection, keys: Sequence[tuple[str, int]]) -> set[tuple[str, int]]:
    return set(
        connection.execute(
            "SELECT s.trigger, s.slot FROM json_each(?) j CROSS JOIN slots s "
            "ON s.trigger = json_extract(j.value, '$[0]') AND s.slot = json_extract(j.value, '$[1]')",
            (json.dumps(keys),),
        )
    )


def _reread(connection: sqlite3.Connection, key: tuple[str, int]) -> RecordedSlot:
    entry = one(connection, *key)
    assert entry is not None
    return entry._replace(is_new=False)


def _entry(row: tuple[Any, ...]) -> RecordedSlot:
    trigger, slot, outcome, reason, run_id, recorded_at = row
    return RecordedSlot(trigger, from_number(slot), SlotOutcome(outcome), reason, run_id, from_number(recorded_at))
