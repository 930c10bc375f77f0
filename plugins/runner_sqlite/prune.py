"""Forgetting what is older than it is to be kept, a few rows at a time.

Rows lie in the order in which they were made, so the old ones are found by walking from the oldest, and
a walk ends at the first that is too young. Where rows stay behind (failed runs, the last slot of a
trigger) the place that a walk has come to is kept in `counters`.
"""

from __future__ import annotations

import json
import sqlite3

from runner.ledger import Retention
from runner_sqlite import counters
from runner_sqlite.moments import DAY

_TABLES = (
    *("runs", "outcomes", "attempts", "run_logs", "dead_letters", "recordings", "plans", "pipelines", "steps"),
    "reuse",
)
"""What has rows of a run."""


def prune(connection: sqlite3.Connection, retention: Retention, now: int, limit: int) -> bool:
    """See RunStore.prune."""
    limit = max(limit, 1)
    runs = now - round(retention.runs_days * DAY)
    failed = now - round(retention.failed_days * DAY)
    logs = now - round(retention.logs_days * DAY)
    more = [
        _front(connection, "run_logs", "line_id", "timestamp", logs / 1e6, limit),
        _front(connection, "recordings", "recording_id", "created_at", logs, limit),
        _front(connection, "topic_messages", "number", "created_at", runs, limit),
        _runs(connection, runs, failed, limit),
        _slots(connection, runs, limit),
    ]
    return any(more)


def _front(connection: sqlite3.Connection, table: str, key: str, moment: str, oldest: float, limit: int) -> bool:
    """Delete rows from the front of a table that keeps none behind."""
    gone = connection.execute(
        f"DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} ORDER BY {key} LIMIT ?) AND {moment} < ?",
        (limit, oldest),
    ).rowcount
    return gone == limit


def _runs(connection: sqlite3.Connection, runs: int, failed: int, limit: int) -> bool:
    place = counters.value(connection, "pruned_runs")
    rows = connection.execute(
        "SELECT run_id, created_at, status, finished_at, EXISTS (SELECT 1 FROM steps CROSS JOIN queue "
        "ON queue.run_id = steps.parent_id WHERE steps.run_id = runs.run_id) "
        "FROM runs LEFT JOIN outcomes USING (run_id) WHERE run_id > ? ORDER BY run_id LIMIT ?",
        (place, limit),
    ).fetchall()
    old = [row for row in rows if row[1] < max(runs, failed)]
    # The newest run of all stays: the next gets its number from it.
    (newest,) = connection.execute("SELECT MAX(run_id) FROM runs").fetchone()
    gone = [
        run_id
        for run_id, _, status, finished_at, is_needed in old
        if status is not None and finished_at < (failed if status in ("failed", "dead") else runs)
        if run_id != newest and not is_needed
    ]
    _delete(connection, gone)
    is_through = len(old) < limit
    _move(connection, "pruned_runs", place, 0 if is_through else old[-1][0])
    return not is_through


def _delete(connection: sqlite3.Connection, run_ids: list[int]) -> None:
    if not run_ids:
        return
    for table in _TABLES:
        connection.execute(
            f"DELETE FROM {table} WHERE run_id IN (SELECT value FROM json_each(?))", (json.dumps(run_ids),)
        )


def _slots(connection: sqlite3.Connection, oldest: int, limit: int) -> bool:
    place = counters.value(connection, "pruned_slots")
    rows = connection.execute(
        "SELECT entry_id FROM slots WHERE entry_id > ? AND recorded_at < ? ORDER BY entry_id LIMIT ?",
        (place, oldest, limit),
    ).fetchall()
    connection.execute(
        "DELETE FROM slots WHERE entry_id IN (SELECT value FROM json_each(?)) AND EXISTS "
        "(SELECT 1 FROM slots later WHERE later.trigger = slots.trigger AND later.slot > slots.slot)",
        (json.dumps([entry_id for (entry_id,) in rows]),),
    )
    is_through = len(rows) < limit
    _move(connection, "pruned_slots", place, 0 if is_through else rows[-1][0])
    return not is_through


def _move(connection: sqlite3.Connection, name: str, before: int, after: int) -> None:
    """Nothing is written where nothing changes, so that a walk through little costs no commit."""
    if before != after:
        counters.put(connection, name, after)
