"""Runs that follow other runs: enqueued in the transaction in which those end."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from runner.runs import Follower, NewRun, RunStatus
from runner_sqlite.enqueue import accept, join


def enqueue_followers(
    connection: sqlite3.Connection, ended: Sequence[tuple[int, str]], followers: Sequence[Follower], now: int
) -> None:
    """Enqueue what follows these runs, each an id and its terminal status. A follower whose unique key
    is live joins: the end of a run cannot be refused."""
    rules: dict[tuple[str, str, str], list[NewRun]] = {}
    for job, statuses, run in followers:
        for status in statuses:
            rules.setdefault((run.namespace, job, status.value), []).append(run)
    statuses_by_id = dict(ended)
    rows = connection.execute(
        "SELECT run_id, namespace, job FROM json_each(?) CROSS JOIN runs ON run_id = value "
        "WHERE NOT EXISTS (SELECT 1 FROM steps WHERE steps.run_id = value)",
        (json.dumps([run_id for run_id, _ in ended]),),
    )
    runs = [
        follower._replace(parent_id=run_id, payload=_payload(run_id, job, RunStatus(statuses_by_id[run_id])))
        for run_id, namespace, job in rows
        for follower in rules.get((namespace, job, statuses_by_id[run_id]), ())
    ]
    if runs:
        accept(connection, runs, now, conflict=join)


def _payload(run_id: int, job: str, status: RunStatus) -> bytes:
    return json.dumps({"run_id": run_id, "job": job, "status": status.value}).encode()
