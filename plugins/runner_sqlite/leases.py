"""Leasing runs out: claim, renew, take over what ran out, and when the next claim can find more."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from runner.models import TriggerType
from runner.runs import CLAIM_BYTES, Claim, Claimant, Follower, Renewal
from runner_sqlite import counters
from runner_sqlite.moments import SECOND, from_number, or_none
from runner_sqlite.outcomes import Settlement, states

PROMOTE = 20_000
"""How many delayed runs one claim makes ready at most; the next goes on."""

_READY_QUEUES = """
WITH RECURSIVE ready (queue_id) AS (
    SELECT MIN(queue_id) FROM queue WHERE ready = 1
    UNION ALL
    SELECT (SELECT MIN(queue_id) FROM queue WHERE ready = 1 AND queue_id > ready.queue_id) FROM ready
    WHERE ready.queue_id IS NOT NULL
)
SELECT queue_id, name FROM ready CROSS JOIN queues USING (queue_id) WHERE namespace = ?
"""
"""One step in the index for each queue that has something, however much that is."""
_FIRST = (
    "SELECT -priority, run_at, run_id FROM queue WHERE ready = 1 AND queue_id = ? "
    "ORDER BY priority DESC, run_at, run_id LIMIT ?"
)
_FACTS = (
    "SELECT r.run_id, q.attempts, q.failures, r.namespace, r.job, r.function, r.function_version, r.payload, r.queue, "
    "r.retry_count, r.trigger_type, r.trigger, r.slot, r.dlq_topic, r.parent_id, s.step, s.item, s.is_item, p.state "
    "FROM json_each(?) CROSS JOIN runs r ON r.run_id = value CROSS JOIN queue q ON q.run_id = value "
    "LEFT JOIN steps s ON s.run_id = value LEFT JOIN pipelines p ON p.run_id = value"
)
_LEASE = (
    "UPDATE queue SET ready = NULL, token = ?, attempts = attempts + 1, progress = 0 "
    "WHERE run_id IN (SELECT value FROM json_each(?)) AND token IS NULL"
)
_LOST_BEFORE = (
    "SELECT a.run_id, COUNT(*) FROM json_each(?) CROSS JOIN attempts a ON a.run_id = value "
    "LEFT JOIN pipelines p ON p.run_id = value WHERE status = 'lost' AND attempt > COALESCE(tried, 0) GROUP BY a.run_id"
)
_TYPES = {kind.value: kind for kind in TriggerType}


def claim(
    connection: sqlite3.Connection, claimant: Claimant, limit: int, now: int, followers: Sequence[Follower]
) -> list[Claim]:
    """See RunStore.claim."""
    _take_over(connection, now, followers)
    connection.execute(
        "UPDATE queue SET ready = 1 WHERE run_id IN "
        "(SELECT run_id FROM queue WHERE ready = 0 AND run_at <= ? ORDER BY run_at LIMIT ?)",
        (now, PROMOTE),
    )
    chosen = _choose(connection, claimant, limit)
    if not chosen:
        return []
    token = counters.add(connection, "claims")
    claims = _facts(connection, chosen, token)
    taken = json.dumps([claim.run_id for claim in claims])
    connection.execute(_LEASE, (token, taken))
    connection.execute(
        "INSERT INTO leases (token, owner, claimed_at, lease_until) VALUES (?, ?, ?, ?)",
        (token, claimant.owner, now, now + round(claimant.lease_seconds * SECOND)),
    )
    return claims


def renew(connection: sqlite3.Connection, held: Sequence[tuple[int, int]], until: int) -> Renewal:
    """See RunStore.renew."""
    ours = {
        (run_id, token): cancel_reason
        for run_id, token, cancel_reason in connection.execute(
            "SELECT run_id, token, cancel_reason FROM json_each(?) CROSS JOIN queue ON run_id = value "
            "WHERE token IS NOT NULL",
            (json.dumps([run_id for run_id, _ in held]),),
        )
    }
    wanted = {(run_id, token) for run_id, token in held}
    kept = wanted & ours.keys()
    connection.execute(
        "UPDATE leases SET lease_until = MAX(lease_until, ?) WHERE token IN (SELECT value FROM json_each(?))",
        (until, json.dumps(sorted({token for _, token in kept}))),
    )
    return Renewal(frozenset(wanted - kept), frozenset(lease for lease in kept if ours[lease] is not None))


def cancel_requests(connection: sqlite3.Connection, owner: str) -> list[tuple[int, int]]:
    """See RunStore.cancel_requests."""
    return connection.execute(
        "SELECT run_id, token FROM queue INDEXED BY queue_cancelling CROSS JOIN leases USING (token) "
        "WHERE cancel_reason IS NOT NULL AND token IS NOT NULL AND owner = ? ORDER BY run_id",
        (owner,),
    ).fetchall()


def take_back(connection: sqlite3.Connection, owner: str, reason: str, now: int, followers: Sequence[Follower]) -> int:
    """See RunStore.take_back."""
    tokens = connection.execute("SELECT token FROM leases WHERE owner = ?", (owner,)).fetchall()
    return sum(_lose(connection, token, f"{owner} is gone: {reason}", now, followers) for (token,) in tokens)


def owners(connection: sqlite3.Connection) -> list[str]:
    """See RunStore.owners."""
    return [owner for (owner,) in connection.execute("SELECT DISTINCT owner FROM leases ORDER BY owner")]


def next_due(connection: sqlite3.Connection, namespace: str) -> int | None:
    """See RunStore.next_due."""
    return connection.execute(  # type: ignore[no-any-return]
        "SELECT MIN(moment) FROM ("
        "SELECT MIN(lease_until) AS moment FROM leases UNION ALL SELECT * FROM ("
        "SELECT run_at FROM queue WHERE ready = 0 AND "
        "queue_id IN (SELECT queue_id FROM queues WHERE namespace = ?) ORDER BY run_at LIMIT 1))",
        (namespace,),
    ).fetchone()[0]


def _take_over(connection: sqlite3.Connection, now: int, followers: Sequence[Follower]) -> None:
    expired = connection.execute(
        "SELECT token, owner, lease_until FROM leases WHERE lease_until <= ?", (now,)
    ).fetchall()
    for token, owner, lease_until in expired:
        reason = f"the lease of {owner} ran out at {from_number(lease_until).isoformat()}"
        counters.add(connection, "leases_taken_over", _lose(connection, token, reason, now, followers))


def _lose(connection: sqlite3.Connection, token: int, reason: str, now: int, followers: Sequence[Follower]) -> int:
    """End all leases of a claim; how many runs it still had."""
    rows = connection.execute("SELECT run_id FROM queue WHERE token = ? ORDER BY run_id", (token,)).fetchall()
    settlement = Settlement(now)
    run_ids = [run_id for (run_id,) in rows]
    lost_before = dict(connection.execute(_LOST_BEFORE, (json.dumps(run_ids),)))
    for state in states(connection, run_ids).values():
        settlement.abandoned(state, reason, lost_before.get(state.run_id, 0))
    settlement.write(connection, followers)
    connection.execute("DELETE FROM leases WHERE token = ?", (token,))
    return len(rows)


def _choose(connection: sqlite3.Connection, claimant: Claimant, limit: int) -> list[int]:
    """The runs that are next, in order."""
    queues = connection.execute(_READY_QUEUES, (claimant.namespace,)).fetchall()
    running: dict[int, int] = {}
    if claimant.limits:
        running = dict(
            connection.execute("SELECT queue_id, COUNT(*) FROM queue WHERE token IS NOT NULL GROUP BY queue_id")
        )
    first: list[tuple[int, int, int]] = []
    for queue_id, name in queues:
        if claimant.queues is not None and name not in claimant.queues:
            continue
        room = limit
        if name in claimant.limits:
            room = min(limit, claimant.limits[name] - running.get(queue_id, 0))
        if room > 0:
            first += connection.execute(_FIRST, (queue_id, room))
    if len(queues) > 1:
        first.sort()
    return [run_id for _, _, run_id in first[:limit]]


def _facts(connection: sqlite3.Connection, chosen: list[int], token: int) -> list[Claim]:
    """What is needed to run them, as many as CLAIM_BYTES allows."""
    claims: list[Claim] = []
    room = CLAIM_BYTES
    for row in connection.execute(_FACTS, (json.dumps(chosen),)):
        (run_id, attempts, failures, namespace, job, function, version, payload, queue) = row[:9]
        retry_count, trigger_type, trigger, slot, dlq_topic, parent_id, step, item, is_item, state = row[9:]
        room -= len(payload)
        if room < 0 and claims:
            break
        claims.append(
            Claim(
                run_id,
                token,
                attempts + 1,
                failures,
                namespace,
                job,
                function,
                version,
                payload,
                queue,
                retry_count,
                _TYPES[trigger_type],
                trigger,
                or_none(slot),
                dlq_topic,
                parent_id,
                step,
                item if is_item else None,
                state or b"",
            )
        )
    return claims
