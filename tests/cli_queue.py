"""The queue as the program's user finds it: runs in every state, made by a test that plays the daemon.
What tests/test_cli_{enqueue,runs,dlq,why,logs}.py share."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from runner_sqlite.runs import SqliteRunStore

from runner.models import LogEntry, LogLevel
from runner.runs import Claim, Claimant, Dead, Failed, Failure, NewRun, Parked, Retry, Succeeded
from tests.cli_project import CliProject

BOOM = Failure("Trapped", "trapped: unreachable in \x1b[31minner", "the last \x1b[2Jwords\n")
RFC_3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def now(seconds: float = 0) -> datetime:
    """So many seconds from now."""
    return datetime.now(timezone.utc) + timedelta(seconds=seconds)


class Queue:
    """The store of a project, open beside the program. Close it."""

    def __init__(self, project: CliProject) -> None:
        (project.folder / ".runner").mkdir(exist_ok=True)
        self.store = SqliteRunStore.open(project.folder / ".runner" / "runner.db")

    def put(self, job: str = "echo", payload: bytes = b"in", *, count: int = 1, ago: float = 0, **facts: Any) -> int:
        """Enqueue runs, so many seconds ago; the number of the first."""
        new = NewRun(
            **{"namespace": "default", "function": job, "function_version": 1, **facts}, job=job, payload=payload
        )
        return self.store.enqueue([new] * count, now=now(-ago))[0].run_id

    def claim(self, owner: str = "host-1", limit: int = 1) -> Claim:
        """Take what is next; the last of it."""
        return self.store.claim(Claimant(owner=owner, namespace="default"), limit, now=now())[-1]

    def succeed(self, output: bytes = b"out", *logs: str, job: str = "echo", **facts: Any) -> int:
        """A run that has succeeded."""
        run_id = self.put(job, **facts)
        claim = self.claim()
        self.store.finish([Succeeded(*claim[:2], output, 12.5, 131_072, lines(*logs))], now=now())
        return run_id

    def fail(self, outcome: type[Dead] | type[Failed] = Dead, *, failure: Failure = BOOM, **facts: Any) -> int:
        """A run that is dead, or failed."""
        run_id = self.put(**facts)
        claim = self.claim()
        self.store.finish([outcome(*claim[:2], failure, 3.5, 65_536, lines("about to fail"))], now=now())
        return run_id

    def retry(self, seconds: float, **facts: Any) -> int:
        """A run that waits for its second attempt."""
        run_id = self.put(**{"retry_count": 2, **facts})
        self.store.finish([Retry(*self.claim()[:2], now(seconds), BOOM, 3.5, 65_536)], now=now())
        return run_id

    def park(self, job: str, *steps: NewRun) -> tuple[int, ...]:
        """A run of a pipeline that waits for its steps, and these."""
        run_id = self.put(job)
        self.store.finish([Parked(*self.claim()[:2], b"", steps)], now=now())
        return (run_id, *(run_id + number for number in range(1, len(steps) + 1)))


def lines(*texts: str) -> list[LogEntry]:
    """Log lines, written now."""
    return [LogEntry(LogLevel.STDERR, text, now().timestamp()) for text in texts]
