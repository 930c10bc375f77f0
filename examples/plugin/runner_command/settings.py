"""What jobs.yaml can say of the executor: `executor: {command: {path: /usr/bin}}`. Light to import."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandSettings:
    """Settings of executor `command`. The loader checks them, and `runner schema` documents them."""

    path: str = field(
        default="/usr/local/bin:/usr/bin:/bin", metadata={"doc": "Where commands find other commands: their PATH"}
    )
    output_limit_mb: int = field(
        default=64, metadata={"doc": "The largest output of one invocation, in MiB", "minimum": 1, "maximum": 4096}
    )
    log_limit_kb: int = field(
        default=256, metadata={"doc": "The most that one invocation may log, in KiB", "minimum": 1, "maximum": 65536}
    )
