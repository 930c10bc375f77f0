"""What benchmarks/chaos.py counts when all is over: what the tables of the store say, held against what was
acknowledged, what was executed, and who was killed when."""

from __future__ import annotations

import contextlib
import sqlite3
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos_guests import TRACE_JOB, TRIGGER

SECOND = 1_000_000
"""The tables count in microseconds."""
GIVEN_UP = ("its worker was lost 3 times in a row", "it was lost 10 times")
"""What a run may die of here that would have gone well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What was counted."""

    never: Mapping[str, int]
    """What must be 0."""
    seen: Mapping[str, float]
    """What happened."""
    examples: Sequence[str]
    """Runs that ended otherwise than they must, and how."""


class Audit:
    """Reads a store that nobody writes to any more."""

    def __init__(
        self, database: Path, acknowledged: Mapping[int, tuple[str, bytes]], kills: Sequence[tuple[str, float]]
    ) -> None:
        self._acknowledged, self._kills = acknowledged, kills
        with contextlib.closing(sqlite3.connect(database)) as self._connection:
            self._runs = self._mapping("SELECT run_id, job, payload FROM runs")
            self._outcomes = self._mapping(
                "SELECT run_id, status, attempts, started_at, COALESCE(message, ''), result FROM outcomes"
            )
            self._attempts = self._mapping(
                "SELECT run_id || '.' || attempt, status, started_at, finished_at, message FROM attempts"
            )
            self._executed = Counter(
                payload.decode() for (payload,) in self._rows(f"SELECT payload FROM runs WHERE job = '{TRACE_JOB}'")
            )
            self._slots = self._rows(f"SELECT slot, outcome, run_id FROM slots WHERE trigger = '{TRIGGER}'")
            self._left = self._rows(
                f"SELECT run_id, token FROM queue JOIN runs USING (run_id) WHERE job <> '{TRACE_JOB}'"
            )
            self._leases = self._rows("SELECT token FROM leases")
            self._counters = dict(self._rows("SELECT name, value FROM counters"))
            self._dead_letters = {run_id for (run_id,) in self._rows("SELECT run_id FROM dead_letters")}
            self._damage = [row for row in self._rows("PRAGMA integrity_check") if row != ("ok",)]

    def _rows(self, statement: str) -> list[tuple]:  # type: ignore[type-arg]
        return self._connection.execute(statement).fetchall()

    def _mapping(self, statement: str) -> dict:  # type: ignore[type-arg]
        return {row[0]: row[1:] for row in self._rows(statement)}

    def figures(self) -> Figures:
        """Everything."""
        late, unexecuted = self._results()
        duplicates, twice, uncaused = self._duplicates()
        never = {
            "acknowledged and lost": len(self._acknowledged) - sum(map(self._is_kept, self._acknowledged)),
            "ended otherwise than they must": sum(map(self._ended_wrong, self._acknowledged)),
            "late results accepted": late,
            "results without an execution": unexecuted,
            "runs left running without a worker": sum(token is not None for _, token in self._left) + len(self._leases),
            "runs left waiting": len(self._left),
            "duplicates without a recorded cause": uncaused,
            "attempts executed twice": twice,
            "attempts without a record": self._unrecorded(),
            "slots without an entry": self._missing_slots(),
            "slots whose run is missing": sum(
                run_id is not None and run_id not in self._outcomes for *_, run_id in self._slots
            ),
            "dead without a letter": sum(
                row[0] == "dead" and run_id not in self._dead_letters for run_id, row in self._outcomes.items()
            ),
            "damaged pages": len(self._damage),
        }
        seen = {**self._seen(), "duplicates with a recorded cause": duplicates}
        wrong = filter(self._ended_wrong, self._acknowledged)
        examples = [f"run {run_id}: {self._acknowledged[run_id][0]}: {self._outcomes.get(run_id)}" for run_id in wrong]
        return Figures(never=never, seen=seen, examples=examples[:10])

    def _is_kept(self, run_id: int) -> bool:
        return self._runs.get(run_id) == self._acknowledged[run_id] and run_id in self._outcomes

    def _ended_wrong(self, run_id: int) -> bool:
        status, _, _, message, _ = self._outcomes.get(run_id, ("", 0, 0, "", None))
        wanted = "dead" if self._acknowledged[run_id][0] == "bad" else "succeeded"
        return status != wanted and not (status == "dead" and message.startswith(GIVEN_UP))

    def _results(self) -> tuple[int, int]:
        """Late results that were accepted, and results of executions that left no trace."""
        late = unexecuted = 0
        for run_id, (status, attempts, _, _, result) in self._outcomes.items():
            if status == "succeeded":
                name = f"{run_id}.{attempts}"
                late += name in self._attempts
                if self._runs[run_id][0] == "traced":
                    late += result.decode() != name
                    unexecuted += name not in self._executed
        return late, unexecuted

    def _duplicates(self) -> tuple[int, int, int]:
        """Executions beyond the one that counted: how many, how many of them of one attempt, and how many
        whose attempt has no cause on record."""
        duplicates = twice = uncaused = 0
        for name, count in self._executed.items():
            run_id, attempt = map(int, name.split("."))
            twice += count - 1
            if attempt != self._outcomes.get(run_id, ("", 0))[1]:
                duplicates += 1
                uncaused += name not in self._attempts
        return duplicates, twice, uncaused

    def _unrecorded(self) -> int:
        """Attempts that were counted and are nowhere."""
        missing = 0
        for run_id, (status, attempts, *_) in self._outcomes.items():
            failed = attempts - (status == "succeeded")
            missing += sum(f"{run_id}.{number}" not in self._attempts for number in range(1, failed + 1))
        return missing

    def _missing_slots(self) -> int:
        seconds = sorted(slot // SECOND for slot, *_ in self._slots)
        return seconds[-1] - seconds[0] + 1 - len(seconds) if seconds else 1

    def _seen(self) -> dict[str, float]:
        told = Counter(victim for victim, _ in self._kills)
        outcomes = Counter(outcome for _, outcome, _ in self._slots)
        reasons = Counter(
            f"attempts {status}" + (f" ({_reason(message)})" if status == "lost" else "")
            for status, _, _, message in self._attempts.values()
        )
        waits = sorted(self._waits_ms())
        return {
            **{f"killed: {victim}" if victim != "suspended" else victim: count for victim, count in told.items()},
            "runs acknowledged": len(self._acknowledged),
            "runs ended": len(self._outcomes),
            "executions traced": self._executed.total(),
            "runs given up after three lost workers": sum(
                row[3].startswith(GIVEN_UP) for row in self._outcomes.values()
            ),
            **dict(sorted(reasons.items())),
            "late results refused": self._counters.get("late_results_refused", 0),
            "leases taken over": self._counters.get("leases_taken_over", 0),
            **{f"slots {outcome}": count for outcome, count in sorted(outcomes.items())},
            "killed workers whose run ran again": len(waits),
            "from kill to running again, p50 ms": statistics.median(waits) if waits else 0,
            "from kill to running again, p99 ms": waits[int(len(waits) * 0.99)] if waits else 0,
        }

    def _waits_ms(self) -> list[float]:
        """From the kill of a worker to the next attempt of the run that it took with it."""
        waits = []
        moments = [moment for victim, moment in self._kills if victim == "worker"]
        for name, (status, _, finished_at, message) in self._attempts.items():
            if status == "lost" and "SIGKILL" in message:
                run_id, attempt = map(int, name.split("."))
                again = self._started_at(run_id, attempt + 1)
                killed = max((moment for moment in moments if moment * SECOND <= finished_at), default=0)
                if again and finished_at / SECOND - killed < 1:
                    waits.append((again / SECOND - killed) * 1e3)
        return waits

    def _started_at(self, run_id: int, attempt: int) -> int:
        recorded = self._attempts.get(f"{run_id}.{attempt}")
        if recorded is not None:
            return int(recorded[1])
        _, attempts, started_at, *_ = self._outcomes[run_id]
        return int(started_at) if attempts == attempt else 0


def _reason(message: str) -> str:
    for words in ("is gone", "ran out", "SIGKILL"):
        if words in message:
            return {"is gone": "daemon gone", "ran out": "lease ran out", "SIGKILL": "worker killed"}[words]
    return "other"
