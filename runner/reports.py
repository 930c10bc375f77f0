"""What the Runner tells of what it did: leaves for whoever shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runner.errors import RunnerError
from runner.models import Function


@dataclass(frozen=True, kw_only=True, slots=True)
class Registered:
    """What registering one function of jobs.yaml did."""

    function: Function
    changed: bool
    """Whether a new version was made."""
    previous: Function | None
    """The version that was the newest before, if there was one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobReport:
    """How one run of a job ended."""

    job: str
    status: str
    """`succeeded` or `failed`; of several jobs also `skipped` and `cancelled`."""
    duration_ms: float
    """Wall-clock time from reading the input to the written output."""
    attempts: int
    function: str
    version: int
    output_bytes: int = 0
    output_path: Path | None = None
    output: bytes | None = field(default=None, repr=False)
    """The output itself, for a job that names no output file."""
    memory_peak_bytes: int = 0
    error: RunnerError | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    """Of a batch, or of those together that are steps of a pipeline: their records by what became of them.
    `records_reused` is 1 for a job whose output is that of an earlier run of its pure function, which was not
    run again."""
    reason: str = ""
    """Why there was no whole run, of one that is `skipped` or `cancelled`."""
