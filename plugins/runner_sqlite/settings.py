"""What jobs.yaml may say about the registry `sqlite`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from runner.contracts import Host

FILE_NAME = "runner.db"
"""The file in the state folder that is used unless told otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SqliteSettings:
    """Settings of the registry `sqlite`; all have defaults."""

    path: Path | None = field(
        default=None,
        metadata={"doc": "The database file, from the folder of jobs.yaml; runner.db in the state folder if not given"},
    )
    busy_timeout_seconds: float = field(
        default=10.0,
        metadata={"doc": "How long to wait for another process that is writing before the store counts as locked"},
    )
    log_lines: int = field(
        default=10_000,
        metadata={"doc": "How many log lines are kept for each function; older ones are dropped"},
    )

    def file(self, host: Host) -> Path:
        """Where the database file is for this host."""
        return host.project_dir / self.path if self.path else host.state_dir / FILE_NAME
