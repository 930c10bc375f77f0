"""Dead letters, topics, and running again what has ended."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime

from runner.errors import RunConflict, RunNotFound, UsageError
from runner.ledger import DeadLetter, TopicMessage
from runner.runs import Enqueued
from runner_sqlite.enqueue import copy
from runner_sqlite.moments import from_number

_LETTER = (
    "SELECT run_id, namespace, job, function, error_class, message, finished_at, attempts "
    "FROM dead_letters CROSS JOIN outcomes USING (run_id) CROSS JOIN runs USING (run_id)"
)


def bury(connection: sqlite3.Connection, run_ids: Sequence[int], now: int) -> None:
    """Keep dead letters of runs whose outcome was just written, and tell their topics."""
    connection.executemany("INSERT INTO dead_letters (run_id) VALUES (?)", ((run_id,) for run_id in run_ids))
    rows = connection.execute(
        "SELECT dlq_topic, run_id, namespace, job, function, function_version, error_class, message, attempts "
        "FROM json_each(?) CROSS JOIN runs ON run_id = value JOIN outcomes USING (run_id) WHERE dlq_topic IS NOT NULL",
        (json.dumps(run_ids),),
    ).fetchall()
    names = ("run_id", "namespace", "job", "function", "function_version", "error_class", "message", "attempts")
    connection.executemany(
        "INSERT INTO topic_messages (topic, created_at, run_id, payload) VALUES (?, ?, ?, ?)",
        [(topic, now, facts[0], _message(dict(zip(names, facts, strict=True)), now)) for topic, *facts in rows],
    )


def _message(facts: dict[str, object], now: int) -> bytes:
    return json.dumps({**facts, "failed_at": from_number(now).isoformat()}, ensure_ascii=False).encode()


def rerun(connection: sqlite3.Connection, run_id: int, now: int) -> Enqueued:
    """See RunStore.rerun."""
    row = connection.execute(
        "SELECT unique_key, status FROM runs LEFT JOIN outcomes USING (run_id) WHERE run_id = ?", (run_id,)
    ).fetchone()
    if row is None:
        raise RunNotFound(run_id)
    unique_key, status = row
    if status is None:
        raise UsageError(f"run {run_id} has not ended yet; cancel it first, or wait")
    made = copy(connection, [run_id], now)[run_id]
    if made < 0:
        raise RunConflict(unique_key, -made)
    return Enqueued(made, True)


def redrive(
    connection: sqlite3.Connection,
    ids: Sequence[int] | None,
    namespace: str | None,
    job: str | None,
    limit: int,
    now: int,
) -> list[Enqueued]:
    """See RunStore.redrive."""
    chosen = _choose(connection, ids, namespace, job, limit, movable=True)
    copies = copy(connection, chosen, now)
    _forget(connection, [source for source, made in copies.items() if made > 0])
    return [Enqueued(made, True) for made in copies.values() if made > 0]


def drop(
    connection: sqlite3.Connection, ids: Sequence[int] | None, namespace: str | None, job: str | None, limit: int
) -> int:
    """See RunStore.drop."""
    chosen = _choose(connection, ids, namespace, job, limit, movable=False)
    _forget(connection, chosen)
    return len(chosen)


def listed(
    connection: sqlite3.Connection, namespace: str | None, job: str | None, before: int | None, limit: int
) -> list[DeadLetter]:
    """See RunStore.dead_letters."""
    rows = connection.execute(
        f"{_LETTER} WHERE (:namespace IS NULL OR namespace = :namespace) AND (:job IS NULL OR job = :job) "
        "AND (:before IS NULL OR run_id < :before) ORDER BY run_id DESC LIMIT :limit",
        {"namespace": namespace, "job": job, "before": before, "limit": max(limit, 0)},
    )
    return [_letter(*row) for row in rows]


def letter(connection: sqlite3.Connection, run_id: int) -> DeadLetter | None:
    """The dead letter of a run, if it has one."""
    row = connection.execute(f"{_LETTER} WHERE run_id = ?", (run_id,)).fetchone()
    return None if row is None else _letter(*row)


def publish(connection: sqlite3.Connection, topic: str, payloads: Sequence[bytes], now: int) -> None:
    """See RunStore.publish."""
    connection.executemany(
        "INSERT INTO topic_messages (topic, created_at, payload) VALUES (?, ?, ?)",
        ((topic, now, payload) for payload in payloads),
    )


def read_topic(connection: sqlite3.Connection, topic: str, after: int, limit: int) -> list[TopicMessage]:
    """See RunStore.read_topic."""
    rows = connection.execute(
        "SELECT number, payload, created_at, run_id FROM topic_messages "
        "WHERE topic = ? AND number > ? ORDER BY number LIMIT ?",
        (topic, after, max(limit, 0)),
    )
    return [
        TopicMessage(number, topic, payload, from_number(created_at), run_id)
        for number, payload, created_at, run_id in rows
    ]


def _letter(
    run_id: int,
    namespace: str,
    job: str,
    function: str | None,
    error_class: str,
    message: str,
    failed_at: int,
    attempts: int,
) -> DeadLetter:
    moment: datetime = from_number(failed_at)
    return DeadLetter(
        dead_letter_id=run_id,
        run_id=run_id,
        namespace=namespace,
        job=job,
        function=function,
        error_class=error_class,
        message=message,
        failed_at=moment,
        attempts=attempts,
    )


def _choose(
    connection: sqlite3.Connection,
    ids: Sequence[int] | None,
    namespace: str | None,
    job: str | None,
    limit: int,
    *,
    movable: bool,
) -> list[int]:
    """The oldest dead letters that are meant; `movable`: without those whose unique key is live."""
    free = (
        "AND (unique_key IS NULL OR NOT EXISTS (SELECT 1 FROM queue WHERE live_key = namespace || '/' || unique_key))"
    )
    source, wanted = "dead_letters", {"namespace": namespace, "job": job, "limit": max(limit, 0)}
    if ids is not None:
        source = "(SELECT DISTINCT value AS run_id FROM json_each(:ids)) CROSS JOIN dead_letters USING (run_id)"
        wanted["ids"] = json.dumps(list(ids))
    rows = connection.execute(
        f"SELECT run_id FROM {source} CROSS JOIN runs USING (run_id) "
        "WHERE (:namespace IS NULL OR namespace = :namespace) AND (:job IS NULL OR job = :job) "
        f"{free if movable else ''} ORDER BY run_id LIMIT :limit",
        wanted,
    )
    return [run_id for (run_id,) in rows]


def _forget(connection: sqlite3.Connection, run_ids: Sequence[int]) -> None:
    connection.execute(
        "DELETE FROM dead_letters WHERE run_id IN (SELECT value FROM json_each(?))", (json.dumps(run_ids),)
    )
