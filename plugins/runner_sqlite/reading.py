"""Looking at runs: one, a page of them, their attempts and logs, why they are what they are, how many wait."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from runner.errors import RunNotFound
from runner.ledger import Attempt, AttemptStatus, Depth, LogPage, Run, RunFilter, RunLog, Why
from runner.models import LogEntry, LogLevel, TriggerType
from runner.runs import LIVE, RunStatus
from runner_sqlite import dead_letters, pipelines, slots
from runner_sqlite.moments import from_number, or_none, to_number

_BEGUN = "(SELECT started_at FROM pipelines p WHERE p.run_id = r.run_id)"
"""When a run began that waits for others: it is running as long as it is live."""
_STATUS = (
    "CASE WHEN o.status IS NOT NULL THEN o.status "
    f"WHEN q.token IS NOT NULL OR {_BEGUN} IS NOT NULL THEN 'running' ELSE 'pending' END"
)
_COLUMNS = {
    **{
        name: f"r.{name}"
        for name in ("run_id", "namespace", "job", "function", "function_version", "queue", "priority", "unique_key")
    },
    **{name: f"r.{name}" for name in ("trigger_type", "trigger", "slot", "parent_id", "retry_count", "dlq_topic")},
    **{name: f"r.{name}" for name in ("payload_size", "created_at")},
    **{name: f"COALESCE(o.{name}, q.{name})" for name in ("attempts", "failures", "lost_in_a_row", "progress")},
    **{name: f"COALESCE(o.{name}, a.{name})" for name in ("error_class", "message")},
    **{name: f"COALESCE(o.{name}, a.{name}, 0)" for name in ("duration_ms", "memory_peak_bytes")},
    "status": _STATUS,
    "run_at": "COALESCE(q.run_at, r.run_at)",
    "result_size": "o.result_size",
    "started_at": f"COALESCE({_BEGUN}, o.started_at, l.claimed_at, a.started_at)",
    "finished_at": "o.finished_at",
    "owner": "COALESCE(o.owner, l.owner, a.owner)",
    "lease_until": "l.lease_until",
    "cancel_requested": "q.cancel_reason IS NOT NULL",
    "step": "(SELECT step FROM steps s WHERE s.run_id = r.run_id)",
    "item": "(SELECT item FROM steps s WHERE s.run_id = r.run_id AND is_item)",
}
"""Where each field of a Run comes from."""
_MOMENTS = ("run_at", "slot", "created_at", "started_at", "finished_at", "lease_until")
_JOINS = (
    "LEFT JOIN leases l ON l.token = q.token LEFT JOIN attempts a "
    "ON a.run_id = r.run_id AND a.attempt = COALESCE(o.attempts, q.attempts - (q.token IS NOT NULL))"
)
_SELECT = f"SELECT {', '.join(_COLUMNS.values())} FROM"
_ALL = f"{_SELECT} runs r LEFT JOIN outcomes o USING (run_id) LEFT JOIN queue q USING (run_id) {_JOINS}"
_LIVE = f"{_SELECT} queue q CROSS JOIN runs r USING (run_id) LEFT JOIN outcomes o ON o.run_id = q.run_id {_JOINS}"
_ENDED = f"{_SELECT} outcomes o CROSS JOIN runs r USING (run_id) LEFT JOIN queue q ON q.run_id = o.run_id {_JOINS}"


def run(connection: sqlite3.Connection, run_id: int) -> Run:
    """See RunStore.get."""
    row = connection.execute(f"{_ALL} WHERE r.run_id = ?", (run_id,)).fetchone()
    if row is None:
        raise RunNotFound(run_id)
    return _run(row)


def value(connection: sqlite3.Connection, run_id: int, column: str) -> bytes | None:
    """The `payload` or the `result` of a run. Raises RunNotFound."""
    row = connection.execute(
        f"SELECT {column} FROM runs LEFT JOIN outcomes USING (run_id) WHERE run_id = ?", (run_id,)
    ).fetchone()
    if row is None:
        raise RunNotFound(run_id)
    return row[0]  # type: ignore[no-any-return]


def page(connection: sqlite3.Connection, filter: RunFilter, before: int | None, limit: int) -> list[Run]:
    """See RunStore.list_runs."""
    statuses = filter.statuses
    source, first = _ALL, "r"
    if statuses is not None and statuses <= LIVE:
        source, first = _LIVE, "q"
    elif statuses is not None and not statuses & LIVE:
        source, first = _ENDED, "o"
    where, values = _where(_conditions(filter, before, first))
    rows = connection.execute(f"{source} {where} ORDER BY {first}.run_id DESC LIMIT ?", (*values, max(limit, 0)))
    return [_run(row) for row in rows]


def attempts(connection: sqlite3.Connection, run_id: int) -> list[Attempt]:
    """See RunStore.attempts."""
    whole = run(connection, run_id)
    rows = connection.execute(
        "SELECT attempt, status, owner, started_at, finished_at, error_class, message, stderr_tail, duration_ms, "
        "memory_peak_bytes FROM attempts WHERE run_id = ? ORDER BY attempt",
        (run_id,),
    )
    found = [
        Attempt(
            run_id=run_id,
            number=number,
            status=AttemptStatus(status),
            owner=owner,
            started_at=from_number(started_at),
            finished_at=from_number(finished_at),
            function_version=whole.function_version,
            error_class=error_class,
            message=message,
            stderr_tail=stderr_tail,
            duration_ms=duration_ms,
            memory_peak_bytes=memory_peak_bytes,
        )
        for (number, status, owner, started_at, finished_at, error_class, message, *rest) in rows
        for stderr_tail, duration_ms, memory_peak_bytes in [rest]
    ]
    return [*found, *_latest(whole)]


def logs(connection: sqlite3.Connection, run_id: int, after: tuple[int, int], limit: int) -> list[RunLog]:
    """See RunStore.logs."""
    if connection.execute("SELECT 1 FROM runs WHERE run_id = ?", (run_id,)).fetchone() is None:
        raise RunNotFound(run_id)
    rows = connection.execute(
        "SELECT attempt, number, level, message, timestamp FROM run_logs "
        "WHERE run_id = ? AND (attempt, number) > (?, ?) ORDER BY attempt, number LIMIT ?",
        (run_id, *after, max(limit, 0)),
    )
    return [
        RunLog(run_id, attempt, number, LogEntry(LogLevel(level), message, timestamp))
        for attempt, number, level, message, timestamp in rows
    ]


def tail(connection: sqlite3.Connection, filter: RunFilter, after: int | None, limit: int) -> LogPage:
    """See RunStore.tail."""
    where, values = _where([*_conditions(filter, None, "r"), ("l.line_id > ?", (after or 0,))])
    rows = connection.execute(
        "SELECT l.line_id, l.run_id, l.attempt, l.number, l.level, l.message, l.timestamp "
        "FROM run_logs l CROSS JOIN runs r USING (run_id) LEFT JOIN outcomes o USING (run_id) "
        f"LEFT JOIN queue q USING (run_id) {where} ORDER BY l.line_id {'DESC' if after is None else ''} LIMIT ?",
        (*values, max(limit, 0)),
    ).fetchall()
    lines = [
        RunLog(run_id, attempt, number, LogEntry(LogLevel(level), message, timestamp))
        for _, run_id, attempt, number, level, message, timestamp in rows
    ]
    if after is None:
        lines.reverse()
    elif len(rows) == limit:
        return LogPage(lines, rows[-1][0] if rows else after)
    (newest,) = connection.execute("SELECT COALESCE(MAX(line_id), 0) FROM run_logs").fetchone()
    return LogPage(lines, max(newest, after or 0))


def why(connection: sqlite3.Connection, run_id: int, now: int) -> Why:
    """See RunStore.why."""
    whole = run(connection, run_id)
    children = connection.execute(
        "SELECT run_id FROM runs r WHERE parent_id = ? "
        "AND NOT EXISTS (SELECT 1 FROM steps s WHERE s.run_id = r.run_id) ORDER BY run_id",
        (run_id,),
    ).fetchall()
    slot = None if whole.slot is None else to_number(whole.slot)
    return Why(
        run=whole,
        attempts=tuple(attempts(connection, run_id)),
        slot=slots.of_run(connection, run_id, whole.trigger, slot),
        dead_letter=dead_letters.letter(connection, run_id),
        children=tuple(child for (child,) in children),
        ahead=_ahead(connection, run_id, now),
        seated=pipelines.seated(connection, run_id),
    )


def reuse_facts(connection: sqlite3.Connection, run_ids: Sequence[int]) -> dict[int, str]:
    """See RunStore.reuse_facts."""
    rows = connection.execute(
        "SELECT run_id, facts FROM json_each(?) CROSS JOIN reuse ON run_id = value", (json.dumps(list(run_ids)),)
    )
    return dict(rows.fetchall())


def depth(connection: sqlite3.Connection, namespace: str | None, queues: frozenset[str] | None, now: int) -> Depth:
    """See RunStore.depth."""
    wanted = {"namespace": namespace, "queues": None if queues is None else json.dumps(sorted(queues)), "now": now}
    among = (
        "(:namespace IS NULL OR namespace = :namespace) AND "
        "(:queues IS NULL OR {} IN (SELECT value FROM json_each(:queues)))"
    )
    # ready = 2 waits for other runs, and is running if it has begun.
    begun = "EXISTS (SELECT 1 FROM pipelines p WHERE p.run_id = queue.run_id AND p.started_at IS NOT NULL)"
    ready, waiting, running, oldest = connection.execute(
        "SELECT COALESCE(SUM(ready < 2 AND run_at <= :now), 0), "
        f"COALESCE(SUM((ready < 2 AND run_at > :now) OR (ready = 2 AND NOT {begun})), 0), "
        f"COUNT(token) + COALESCE(SUM(ready = 2 AND {begun}), 0), "
        "MIN(CASE WHEN ready < 2 AND run_at <= :now THEN run_at END) "
        f"FROM queue WHERE queue_id IN (SELECT queue_id FROM queues WHERE {among.format('name')})",
        wanted,
    ).fetchone()
    (letters,) = connection.execute(
        f"SELECT COUNT(*) FROM dead_letters CROSS JOIN runs USING (run_id) WHERE {among.format('queue')}",
        wanted,
    ).fetchone()
    return Depth(ready=ready, waiting=waiting, running=running, dead_letters=letters, oldest_ready_at=or_none(oldest))


def _where(conditions: Iterable[tuple[str, Sequence[Any]]]) -> tuple[str, list[Any]]:
    """A WHERE that asks for all of these, and its values."""
    given = list(conditions)
    where = f"WHERE {' AND '.join(condition for condition, _ in given)}" if given else ""
    return where, [value for _, wanted in given for value in wanted]


def _conditions(filter: RunFilter, before: int | None, first: str) -> Iterator[tuple[str, Sequence[Any]]]:
    for name in ("namespace", "job", "function", "trigger", "queue", "parent_id"):
        wanted = getattr(filter, name)
        if wanted is not None:
            yield f"r.{name} = ?", (wanted,)
    if filter.statuses is not None:
        marks = ", ".join("?" * len(filter.statuses))
        if first == "o" and RunStatus.SUCCEEDED not in filter.statuses:
            yield "o.status <> 'succeeded'", ()  # says to SQLite that the index of these will do
        status = "o.status" if first == "o" else _STATUS
        yield f"{status} IN ({marks})", sorted(status.value for status in filter.statuses)
    if filter.is_step is not None:
        yield f"{'' if filter.is_step else 'NOT '}EXISTS (SELECT 1 FROM steps s WHERE s.run_id = r.run_id)", ()
    if filter.created_from is not None:
        yield "r.created_at >= ?", (to_number(filter.created_from),)
    if filter.created_before is not None:
        yield "r.created_at < ?", (to_number(filter.created_before),)
    if before is not None:
        yield f"{first}.run_id < ?", (before,)


def _run(row: Sequence[Any]) -> Run:
    facts = dict(zip(_COLUMNS, row, strict=True))
    for name in _MOMENTS:
        facts[name] = or_none(facts[name])
    facts["status"] = RunStatus(facts["status"])
    facts["trigger_type"] = TriggerType(facts["trigger_type"])
    facts["cancel_requested"] = bool(facts["cancel_requested"])
    return Run(**facts)


def _latest(run: Run) -> Iterator[Attempt]:
    """The attempt that is in no table of attempts: it runs, or has succeeded."""
    if run.status is not RunStatus.SUCCEEDED and run.lease_until is None:
        return
    assert run.started_at is not None
    yield Attempt(
        run_id=run.run_id,
        number=run.attempts,
        status=AttemptStatus(run.status.value),
        owner=run.owner or "",
        started_at=run.started_at,
        finished_at=run.finished_at,
        function_version=run.function_version,
        duration_ms=run.duration_ms if run.finished_at else 0.0,
        memory_peak_bytes=run.memory_peak_bytes if run.finished_at else 0,
        output_size=run.result_size,
    )


def _ahead(connection: sqlite3.Connection, run_id: int, now: int) -> int:
    row = connection.execute(
        "SELECT queue_id, priority, run_at FROM queue WHERE run_id = ? AND ready < 2 AND run_at <= ?", (run_id, now)
    ).fetchone()
    if row is None:
        return 0
    queue_id, priority, run_at = row
    (ahead,) = connection.execute(
        "SELECT COUNT(*) FROM queue WHERE ready = 1 AND queue_id = ? "
        "AND (priority > ? OR (priority = ? AND (run_at, run_id) < (?, ?)))",
        (queue_id, priority, priority, run_at, run_id),
    ).fetchone()
    return int(ahead)
