"""Runs that wait for others: their tables, parking and waking them, what their children have left.

A run that was parked has a row in `pipelines`, each of its children one in `steps`. In `queue` it is kept
out of every index with ready = 2 while it waits. Nothing here walks through all children of a run, but
reading their outputs.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from runner.errors import RunNotFound
from runner.runs import CLAIM_BYTES, Parked, RunStatus, StepEnded
from runner_sqlite.enqueue import accept

STATEMENTS = (
    "CREATE TABLE plans (run_id INTEGER PRIMARY KEY, plan BLOB NOT NULL)",
    # started_at: NULL until it has a seat, if it wants one. ended: how many children have. wake_at: how many
    # have to, for it to be claimed again; NULL unless it waits for that. sits: NULL without a seat's name.
    """
    CREATE TABLE pipelines (
        run_id INTEGER PRIMARY KEY,
        started_at INTEGER,
        ended INTEGER NOT NULL DEFAULT 0,
        wake_at INTEGER,
        seat TEXT,
        seats INTEGER,
        sits INTEGER,
        state BLOB NOT NULL
    )
    """,
    "CREATE INDEX pipelines_seat ON pipelines (seat, sits) WHERE seat IS NOT NULL",
    # item: 0 for a step without any, and is_item tells. ended: its StepEnded.number, NULL while it is live.
    """
    CREATE TABLE steps (
        run_id INTEGER PRIMARY KEY,
        parent_id INTEGER NOT NULL,
        step TEXT NOT NULL,
        item INTEGER NOT NULL,
        is_item INTEGER NOT NULL,
        ended INTEGER,
        UNIQUE (parent_id, step, item)
    )
    """,
    "CREATE INDEX steps_ended ON steps (parent_id, ended)",
)
"""Applied in this order, once."""

_OF_ENDED = (
    "SELECT value, s.parent_id, p.run_id FROM json_each(?) LEFT JOIN steps s ON s.run_id = value "
    "LEFT JOIN pipelines p ON p.run_id = value WHERE s.run_id IS NOT NULL OR p.run_id IS NOT NULL"
)
_PARK = (
    "INSERT INTO pipelines (run_id, started_at, seat, seats, sits, state) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (run_id) DO UPDATE SET started_at = COALESCE(started_at, excluded.started_at), "
    "seat = COALESCE(seat, excluded.seat), seats = COALESCE(seats, excluded.seats), "
    "sits = COALESCE(sits, excluded.sits), state = excluded.state RETURNING ended, sits"
)
_BACK = (
    "UPDATE queue SET token = NULL, ready = ?, attempts = attempts - 1, lost_in_a_row = 0, "
    "progress = MAX(0, MIN(100, ?)) WHERE run_id = ? AND token = ?"
)
_ENDED = (
    "SELECT s.ended, s.run_id, s.step, s.item, s.is_item, o.status, o.error_class, o.message "
    "FROM steps s CROSS JOIN outcomes o USING (run_id) WHERE s.parent_id = ? AND s.ended > ? ORDER BY s.ended LIMIT ?"
)
_ITEMS = (
    "FROM steps s CROSS JOIN outcomes o USING (run_id) "
    "WHERE s.parent_id = ? AND s.step = ? AND s.item > ? AND o.status = 'succeeded' ORDER BY s.item LIMIT ?"
)


def park(connection: sqlite3.Connection, outcome: Parked, claimed_at: int | None, now: int) -> None:
    """Write a Parked outcome of a run whose lease is ours."""
    run_id, token, state, children, seen, wake_after, progress, seat = outcome
    name = None if seat is None else _seat(connection, run_id, seat[0])
    facts = (name, None, None) if seat is None else (name, seat[1], 0)
    (ended, sits) = connection.execute(_PARK, (run_id, claimed_at if seat is None else None, *facts, state)).fetchone()
    if children:
        accept(connection, [child._replace(parent_id=run_id) for child in children], now)
    stands = seat is not None and not sits
    wake_at = seen + wake_after
    is_awake = not stands and (ended >= wake_at or (ended > seen and _has_failed(connection, run_id, seen)))
    connection.execute(
        "UPDATE pipelines SET wake_at = ?, "
        "tried = (SELECT attempts - 1 FROM queue q WHERE q.run_id = pipelines.run_id) WHERE run_id = ?",
        (None if stands or is_awake else wake_at, run_id),
    )
    connection.execute(_BACK, (1 if is_awake else 2, progress, run_id, token))
    if name is not None and stands:
        _fill_seats(connection, name)


def keep_states(connection: sqlite3.Connection, states: Sequence[tuple[int, int | None, bytes]]) -> None:
    """Write what runs leave that have ended, each with the moment of its latest claim."""
    connection.executemany(
        "INSERT INTO pipelines (run_id, started_at, state) VALUES (?, ?, ?) "
        "ON CONFLICT (run_id) DO UPDATE SET state = excluded.state",
        states,
    )


def settle(connection: sqlite3.Connection, ended: Sequence[tuple[int, str]]) -> list[int]:
    """Tell the parents of these runs, which have just ended with these statuses, and wake those that wait
    for it. The children of those that were parents themselves, which are to be cancelled."""
    rows = connection.execute(_OF_ENDED, (json.dumps([run_id for run_id, _ in ended]),)).fetchall()
    if not rows:
        return []
    statuses = dict(ended)
    by_parent: dict[int, list[int]] = {}
    for run_id, parent_id, _ in rows:
        if parent_id is not None:
            by_parent.setdefault(parent_id, []).append(run_id)
    for parent_id, run_ids in by_parent.items():
        _tell(connection, parent_id, run_ids, has_failed=any(statuses[run_id] != "succeeded" for run_id in run_ids))
    parents = [run_id for run_id, _, is_parent in rows if is_parent is not None]
    for run_id in parents:
        _stand_up(connection, run_id)
    return [child for run_id in parents for child in _live(connection, run_id)]


def plan(connection: sqlite3.Connection, run_id: int) -> bytes:
    """See RunStore.plan."""
    return _kept(connection, "SELECT plan FROM runs LEFT JOIN plans USING (run_id) WHERE run_id = ?", run_id)


def state(connection: sqlite3.Connection, run_id: int) -> bytes:
    """See RunStore.state."""
    return _kept(connection, "SELECT state FROM runs LEFT JOIN pipelines USING (run_id) WHERE run_id = ?", run_id)


def steps_ended(connection: sqlite3.Connection, run_id: int, after: int, limit: int) -> list[StepEnded]:
    """See RunStore.steps_ended."""
    rows = connection.execute(_ENDED, (run_id, after, max(limit, 0)))
    return [
        StepEnded(
            *(number, child, step, item if is_item else None, RunStatus(status)),
            error_class=None if status == "cancelled" else error_class,
            message=message,
        )
        for number, child, step, item, is_item, status, error_class, message in rows
    ]


def step_items(connection: sqlite3.Connection, run_ids: Sequence[int], step: str, after: int, limit: int) -> list[int]:
    """See RunStore.step_items."""
    return [item for item, _, _ in _found(connection, run_ids, step, after, limit)]


def step_outputs(
    connection: sqlite3.Connection, run_ids: Sequence[int], step: str, after: int, limit: int
) -> list[tuple[int, bytes]]:
    """See RunStore.step_outputs."""
    found: list[tuple[int, bytes]] = []
    room = CLAIM_BYTES
    for item, run_id, size in _found(connection, run_ids, step, after, limit):
        room -= size
        if room < 0 and found:
            break
        (output,) = connection.execute("SELECT result FROM outcomes WHERE run_id = ?", (run_id,)).fetchone()
        found.append((item, output))
    return found


def _found(
    connection: sqlite3.Connection, run_ids: Sequence[int], step: str, after: int, limit: int
) -> list[tuple[int, int, int]]:
    """Items that succeeded, with the child of the first of these runs that has one and its output's size."""
    found: dict[int, tuple[int, int, int]] = {}
    for parent_id in run_ids:
        rows = connection.execute(
            f"SELECT s.item, s.run_id, o.result_size {_ITEMS}", (parent_id, step, after, max(limit, 0))
        )
        for row in rows:
            found.setdefault(row[0], row)
    return sorted(found.values())[: max(limit, 0)]


def _kept(connection: sqlite3.Connection, query: str, run_id: int) -> bytes:
    row = connection.execute(query, (run_id,)).fetchone()
    if row is None:
        raise RunNotFound(run_id)
    return row[0] or b""


def _live(connection: sqlite3.Connection, parent_id: int) -> list[int]:
    rows = connection.execute("SELECT run_id FROM steps WHERE parent_id = ? AND ended IS NULL", (parent_id,))
    return [run_id for (run_id,) in rows]


def _tell(connection: sqlite3.Connection, parent_id: int, run_ids: list[int], *, has_failed: bool) -> None:
    row = connection.execute("SELECT ended, wake_at FROM pipelines WHERE run_id = ?", (parent_id,)).fetchone()
    if row is None:
        return
    ended, wake_at = row
    connection.executemany(
        "UPDATE steps SET ended = ? WHERE run_id = ?",
        [(number, run_id) for number, run_id in enumerate(run_ids, ended + 1)],
    )
    ended += len(run_ids)
    is_awake = wake_at is not None and (has_failed or ended >= wake_at)
    connection.execute(
        "UPDATE pipelines SET ended = ?, wake_at = ? WHERE run_id = ?",
        (ended, None if is_awake else wake_at, parent_id),
    )
    if is_awake:
        connection.execute("UPDATE queue SET ready = 1 WHERE run_id = ? AND ready = 2", (parent_id,))


def _has_failed(connection: sqlite3.Connection, run_id: int, seen: int) -> bool:
    row = connection.execute(
        "SELECT 1 FROM steps s CROSS JOIN outcomes o USING (run_id) "
        "WHERE s.parent_id = ? AND s.ended > ? AND o.status <> 'succeeded' LIMIT 1",
        (run_id, seen),
    ).fetchone()
    return row is not None


def _seat(connection: sqlite3.Connection, run_id: int, name: str) -> str:
    """A namespace has no slash, so this is as unique as the pair."""
    (namespace,) = connection.execute("SELECT namespace FROM runs WHERE run_id = ?", (run_id,)).fetchone()
    return f"{namespace}/{name}"


def seated(connection: sqlite3.Connection, run_id: int) -> tuple[int, ...]:
    """The runs that have the seats for one of which this run waits; none if it does not."""
    rows = connection.execute(
        "SELECT other.run_id FROM pipelines one CROSS JOIN pipelines other ON other.seat = one.seat AND other.sits = 1 "
        "WHERE one.run_id = ? AND one.sits = 0 ORDER BY other.run_id",
        (run_id,),
    )
    return tuple(other for (other,) in rows)


def _stand_up(connection: sqlite3.Connection, run_id: int) -> None:
    (seat,) = connection.execute("SELECT seat FROM pipelines WHERE run_id = ?", (run_id,)).fetchone()
    if seat is not None:
        connection.execute("UPDATE pipelines SET seat = NULL WHERE run_id = ?", (run_id,))
        _fill_seats(connection, seat)


def _fill_seats(connection: sqlite3.Connection, seat: str) -> None:
    (taken,) = connection.execute("SELECT COUNT(*) FROM pipelines WHERE seat = ? AND sits = 1", (seat,)).fetchone()
    waiting = connection.execute(
        "SELECT run_id, seats FROM pipelines WHERE seat = ? AND sits = 0 ORDER BY run_id", (seat,)
    )
    for run_id, seats in waiting.fetchall():
        if taken >= seats:
            return
        taken += 1
        connection.execute("UPDATE pipelines SET sits = 1 WHERE run_id = ?", (run_id,))
        connection.execute("UPDATE queue SET ready = 1 WHERE run_id = ? AND ready = 2", (run_id,))
