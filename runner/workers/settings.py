"""The settings that every executor with worker processes has. Light to import."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSettings:
    """Settings of an executor with worker processes, as jobs.yaml gives them."""

    workers: int = field(
        default=0, metadata={"doc": "Worker processes; 0 is one for each core", "minimum": 0, "maximum": 256}
    )
    compile_timeout_seconds: float = field(
        default=60.0, metadata={"doc": "The most wall-clock seconds to compile one module", "minimum": 0.1}
    )
    input_limit_mb: int = field(
        default=256, metadata={"doc": "The largest input of one invocation, in MiB", "minimum": 1, "maximum": 4096}
    )
    output_limit_mb: int = field(
        default=64, metadata={"doc": "The largest output of one invocation, in MiB", "minimum": 1, "maximum": 4096}
    )
    log_limit_kb: int = field(
        default=256, metadata={"doc": "The most that one invocation may log, in KiB", "minimum": 1, "maximum": 65536}
    )
    allow_missing_walls: tuple[str, ...] = field(
        default=(), metadata={"doc": "Walls around the sandbox that may be missing; `runner doctor` lists them"}
    )

    def identity(self, engine: str) -> str:
        """See Provider.identity: an engine, as it calls itself, with the limits that decide about results."""
        return f"{engine}, input {self.input_limit_mb} MiB, output {self.output_limit_mb} MiB"
