"""The tables of the queue, as one step of the schema.

A run is spread over tables so that next to nothing is ever rewritten: `runs` holds what never changes
and is only appended to, `queue` one small row for each live run, `outcomes` is appended to when a run
ends. A run is pending while its row in `queue` has no token, running while it has one, and else what its
row in `outcomes` says. `attempts` holds those that did not succeed; a success is in `outcomes` alone.
Moments are microseconds since the epoch. Large values are last, where reading the others never comes by.
Conditions say OR where IN would be shorter: for IN, SQLite builds a table for each row that is inserted.
"""

from __future__ import annotations

STATEMENTS = (
    """
    CREATE TABLE runs (
        run_id INTEGER PRIMARY KEY,
        namespace TEXT NOT NULL,
        job TEXT NOT NULL,
        function TEXT,
        function_version INTEGER NOT NULL,
        queue TEXT NOT NULL,
        priority INTEGER NOT NULL,
        run_at INTEGER NOT NULL,
        unique_key TEXT,
        trigger_type TEXT NOT NULL,
        trigger TEXT,
        slot INTEGER,
        parent_id INTEGER,
        retry_count INTEGER NOT NULL,
        dlq_topic TEXT,
        created_at INTEGER NOT NULL,
        payload_size INTEGER NOT NULL,
        payload BLOB NOT NULL
    )
    """,
    "CREATE INDEX runs_job ON runs (job)",
    "CREATE INDEX runs_parent ON runs (parent_id) WHERE parent_id IS NOT NULL",
    """
    CREATE TABLE queues (
        queue_id INTEGER PRIMARY KEY,
        namespace TEXT NOT NULL,
        name TEXT NOT NULL,
        UNIQUE (namespace, name)
    )
    """,
    # ready: 1 pending and due, 0 pending until run_at, NULL running. live_key is namespace/unique_key.
    """
    CREATE TABLE queue (
        run_id INTEGER PRIMARY KEY,
        queue_id INTEGER NOT NULL,
        priority INTEGER NOT NULL,
        run_at INTEGER NOT NULL,
        ready INTEGER,
        token INTEGER,
        attempts INTEGER NOT NULL DEFAULT 0,
        failures INTEGER NOT NULL DEFAULT 0,
        lost_in_a_row INTEGER NOT NULL DEFAULT 0,
        progress INTEGER NOT NULL DEFAULT 0,
        cancel_reason TEXT,
        live_key TEXT,
        trigger TEXT,
        CHECK ((ready IS NULL) = (token IS NOT NULL))
    )
    """,
    "CREATE INDEX queue_ready ON queue (queue_id, priority DESC, run_at) WHERE ready = 1",
    "CREATE INDEX queue_waiting ON queue (run_at) WHERE ready = 0",
    "CREATE INDEX queue_running ON queue (token, queue_id) WHERE token IS NOT NULL",
    "CREATE INDEX queue_cancelling ON queue (token) WHERE cancel_reason IS NOT NULL AND token IS NOT NULL",
    "CREATE UNIQUE INDEX queue_key ON queue (live_key) WHERE live_key IS NOT NULL",
    "CREATE INDEX queue_trigger ON queue (trigger) WHERE trigger IS NOT NULL",
    # One row for each claim, while a run of it is running.
    """
    CREATE TABLE leases (
        token INTEGER PRIMARY KEY,
        owner TEXT NOT NULL,
        claimed_at INTEGER NOT NULL,
        lease_until INTEGER NOT NULL
    )
    """,
    """
    CREATE TABLE outcomes (
        run_id INTEGER PRIMARY KEY,
        status TEXT NOT NULL
            CHECK (status = 'succeeded' OR status = 'failed' OR status = 'cancelled' OR status = 'dead'),
        finished_at INTEGER NOT NULL,
        started_at INTEGER,
        owner TEXT,
        attempts INTEGER NOT NULL,
        failures INTEGER NOT NULL,
        lost_in_a_row INTEGER NOT NULL,
        progress INTEGER NOT NULL,
        duration_ms REAL NOT NULL,
        memory_peak_bytes INTEGER NOT NULL,
        error_class TEXT,
        message TEXT,
        result_size INTEGER,
        result BLOB
    )
    """,
    "CREATE INDEX outcomes_bad ON outcomes (status) WHERE status <> 'succeeded'",
    """
    CREATE TRIGGER outcomes_are_final BEFORE UPDATE ON outcomes
    BEGIN SELECT RAISE(ABORT, 'a terminal run never changes'); END
    """,
    """
    CREATE TABLE attempts (
        run_id INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        status TEXT NOT NULL,
        owner TEXT NOT NULL,
        started_at INTEGER NOT NULL,
        finished_at INTEGER NOT NULL,
        duration_ms REAL NOT NULL,
        memory_peak_bytes INTEGER NOT NULL,
        error_class TEXT,
        message TEXT NOT NULL,
        stderr_tail TEXT NOT NULL,
        PRIMARY KEY (run_id, attempt)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE run_logs (
        line_id INTEGER PRIMARY KEY AUTOINCREMENT,
        run_id INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        number INTEGER NOT NULL,
        level TEXT NOT NULL,
        timestamp REAL NOT NULL,
        message TEXT NOT NULL,
        UNIQUE (run_id, attempt, number)
    )
    """,
    "CREATE TABLE dead_letters (run_id INTEGER PRIMARY KEY)",
    """
    CREATE TABLE topic_messages (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        topic TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        run_id INTEGER,
        payload BLOB NOT NULL
    )
    """,
    "CREATE INDEX topic_messages_topic ON topic_messages (topic)",
    """
    CREATE TABLE slots (
        entry_id INTEGER PRIMARY KEY,
        trigger TEXT NOT NULL,
        slot INTEGER NOT NULL,
        outcome TEXT NOT NULL CHECK (outcome = 'ran' OR outcome = 'caught_up' OR outcome = 'skipped'),
        reason TEXT NOT NULL,
        run_id INTEGER,
        recorded_at INTEGER NOT NULL,
        UNIQUE (trigger, slot)
    )
    """,
    "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
)
"""Applied in this order, once."""
