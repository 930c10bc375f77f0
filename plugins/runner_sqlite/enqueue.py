"""Accepting runs: rows in `runs` and `queue`, unique keys, copies of runs that have ended."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from runner.errors import InputTooLarge, RunConflict, UsageError
from runner.runs import MAX_PAYLOAD_BYTES, Enqueued, NewRun, OnConflict
from runner_sqlite.moments import to_number

Conflict = Callable[[NewRun, int], None]
"""Called with a run and the live run that has its unique key (0: one of the same call); returns if that
is to be joined."""

_INSERT_RUN = (
    "INSERT INTO runs (run_id, namespace, job, function, function_version, queue, priority, run_at, unique_key, "
    "trigger_type, trigger, slot, parent_id, retry_count, dlq_topic, created_at, payload_size, payload) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_COPY_RUN = (
    "INSERT INTO runs (run_id, namespace, job, function, function_version, queue, priority, run_at, unique_key, "
    "trigger_type, parent_id, retry_count, dlq_topic, created_at, payload_size, payload) "
    "SELECT ?, namespace, job, function, function_version, queue, priority, ?, unique_key, "
    "'job', run_id, retry_count, dlq_topic, ?, payload_size, payload FROM runs WHERE run_id = ?"
)
_INSERT_LIVE = (
    "INSERT INTO queue (run_id, queue_id, priority, run_at, ready, live_key, trigger) "
    "SELECT run_id, queue_id, priority, run_at, run_at <= ?, namespace || '/' || unique_key, trigger "
    "FROM runs CROSS JOIN queues USING (namespace) WHERE name = queue AND run_id >= ?"
)
"""In one statement for all that were just inserted: it costs half of binding values row by row."""


def refuse(run: NewRun, live: int) -> None:
    """The conflict of RunStore.enqueue: refused unless the run asks to join."""
    if run.on_conflict is not OnConflict.JOIN:
        raise RunConflict(str(run.unique_key), live)


def join(run: NewRun, live: int) -> None:
    """The conflict of who cannot be refused: always joined."""


def check(runs: Iterable[NewRun], *, are_steps: bool = False) -> None:
    """Raise for a run that cannot be accepted, before a transaction is begun."""
    for run in runs:
        if (run.step is not None) is not are_steps:
            raise UsageError("a step is enqueued by parking the run that it belongs to, and nothing else is")
        if run.run_at is not None:
            to_number(run.run_at)
        if run.slot is not None:
            to_number(run.slot)
        if len(run.payload) > MAX_PAYLOAD_BYTES:
            raise InputTooLarge(len(run.payload), MAX_PAYLOAD_BYTES)
        if run.function is not None and run.function_version < 1:
            raise UsageError(f"a run of {run.function!r} must pin its version, got {run.function_version}")


def accept(
    connection: sqlite3.Connection, runs: Sequence[NewRun], now: int, conflict: Conflict = refuse
) -> list[Enqueued]:
    """Enqueue checked runs; see RunStore.enqueue. A conflict is raised before anything is written."""
    results = _resolve(connection, runs, conflict)
    if all(result.created for result in results):
        fresh = runs
    else:
        fresh = [run for run, result in zip(runs, results, strict=True) if result.created]
    first = newest(connection) + 1
    _know_queues(connection, {(run.namespace, run.queue) for run in fresh})
    connection.executemany(_INSERT_RUN, [_row(run_id, run, now) for run_id, run in enumerate(fresh, first)])
    connection.execute(_INSERT_LIVE, (now, first))
    _keep_more(connection, first, fresh)
    return results


def newest(connection: sqlite3.Connection) -> int:
    """The id of the newest run, which is never pruned, so that no id is used twice; 0 without any."""
    return int(connection.execute("SELECT COALESCE(MAX(run_id), 0) FROM runs").fetchone()[0])


def copy(connection: sqlite3.Connection, sources: Sequence[int], now: int) -> dict[int, int]:
    """Enqueue these runs again as new ones, due at once. For each, the id of the new run, or minus the
    id of the live one that has its unique key, of which nothing is copied then."""
    facts = connection.execute(
        "SELECT run_id, namespace, unique_key FROM json_each(?) CROSS JOIN runs ON run_id = value",
        (json.dumps(sources),),
    ).fetchall()
    run_id = last = newest(connection)
    copies: dict[int, int] = {}
    keys: dict[str, int] = {}
    for source, namespace, unique_key in facts:
        key = None if unique_key is None else _live_key(namespace, unique_key)
        holder = None if key is None else keys.get(key) or _holder(connection, key)
        if holder is not None:
            copies[source] = -holder
            continue
        run_id += 1
        copies[source] = run_id
        if key is not None:
            keys[key] = run_id
        connection.execute(_COPY_RUN, (run_id, now, now, source))
        connection.execute("INSERT INTO plans SELECT ?, plan FROM plans WHERE run_id = ?", (run_id, source))
    connection.execute(_INSERT_LIVE, (now, last + 1))
    return copies


def _resolve(connection: sqlite3.Connection, runs: Sequence[NewRun], conflict: Conflict) -> list[Enqueued]:
    """The id that each run gets, or that of the live one it joins."""
    run_id = newest(connection)
    if all(run.unique_key is None for run in runs):
        return [Enqueued(number, True) for number in range(run_id + 1, run_id + 1 + len(runs))]
    keys: dict[str, int] = {}
    results = []
    for run in runs:
        key = None if run.unique_key is None else _live_key(run.namespace, run.unique_key)
        holder = None if key is None else keys.get(key) or _holder(connection, key)
        if holder is not None:
            conflict(run, 0 if key in keys else holder)
            results.append(Enqueued(holder, False))
            continue
        run_id += 1
        if key is not None:
            keys[key] = run_id
        results.append(Enqueued(run_id, True))
    return results


def _keep_more(connection: sqlite3.Connection, first: int, runs: Sequence[NewRun]) -> None:
    """What few runs have: a plan, or a place as a step. The first of them was just enqueued as `first`."""
    plans = [(run_id, run.plan) for run_id, run in enumerate(runs, first) if run.plan]
    if plans:
        connection.executemany("INSERT INTO plans (run_id, plan) VALUES (?, ?)", plans)
    steps = [
        (run_id, run.parent_id, run.step, run.item or 0, run.item is not None)
        for run_id, run in enumerate(runs, first)
        if run.step is not None
    ]
    if steps:
        connection.executemany(
            "INSERT INTO steps (run_id, parent_id, step, item, is_item) VALUES (?, ?, ?, ?, ?)", steps
        )


def _row(run_id: int, run: NewRun, now: int) -> tuple[Any, ...]:
    return (
        run_id,
        run.namespace,
        run.job,
        run.function,
        run.function_version,
        run.queue,
        run.priority,
        now if run.run_at is None else to_number(run.run_at),
        run.unique_key,
        run.trigger_type.value,
        run.trigger,
        None if run.slot is None else to_number(run.slot),
        run.parent_id,
        run.retry_count,
        run.dlq_topic,
        now,
        len(run.payload),
        run.payload,
    )


def _live_key(namespace: str, unique_key: str) -> str:
    """A namespace has no slash, so this is as unique as the pair."""
    return f"{namespace}/{unique_key}"


def _holder(connection: sqlite3.Connection, key: str) -> int | None:
    row = connection.execute("SELECT run_id FROM queue WHERE live_key = ?", (key,)).fetchone()
    return None if row is None else int(row[0])


def _know_queues(connection: sqlite3.Connection, places: set[tuple[str, str]]) -> None:
    """See to it that each (namespace, queue) has its number."""
    for place in places:
        if connection.execute("SELECT 1 FROM queues WHERE namespace = ? AND name = ?", place).fetchone() is None:
            connection.execute("INSERT INTO queues (namespace, name) VALUES (?, ?)", place)
