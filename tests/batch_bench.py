"""A batch without processes: real files and sinks, a Python function in place of a guest, time that is given.

What tests/test_batch_*.py share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import runner_files

from runner.batch.merging import MergeRun
from runner.batch.plan import Plan
from runner.batch.report import BatchReport, View
from runner.batch.running import BatchRun, Choices, Parts
from runner.batchkeys import BatchKeys, CheckpointKeys, ChunkKeys, OnErrorKeys, on_error_of
from runner.config import Choice
from runner.contracts import Host, Provider
from runner.errors import RunnerError, Trapped
from runner.models import InvocationResult, LogEntry
from runner.records import Sink, Source
from tests.support import context, function, host

Guest = Callable[[bytes], bytes]
"""Output for input; raises the error that ends the invocation."""


def picky(data: bytes) -> bytes:
    """Upper-cases; traps where there is an exclamation mark."""
    if b"!" in data:
        raise Trapped("unreachable", "unreachable", stderr_tail="no marks, please\n")
    return data.upper()


def provider(kind: str, name: str) -> Provider[Any]:
    """A provider of runner_files."""
    return next(each for each in getattr(runner_files, f"runner_{kind}")() if each.name == name)


def made(kind: str, name: str, folder: Path, **settings: Any) -> Any:
    """A source or sink of runner_files."""
    found = provider(kind, name)
    assert found.settings is not None
    given: Host = replace(host(folder), project_dir=folder)
    return found.create(found.settings(**settings), given)


@dataclass
class Bench:
    """One batch in a folder."""

    folder: Path
    guest: Guest = picky
    retry_count: int = 0
    version: int = 1
    slept: list[float] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    logs: list[LogEntry] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    now: float = 0.0

    def write(self, name: str, data: bytes | str) -> Path:
        """A file of the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def read(self, name: str) -> bytes:
        """A file of the folder."""
        return (self.folder / name).read_bytes()

    def run(
        self,
        source: str = "in.txt",
        sink: str = "out.txt",
        *,
        form: str = "lines",
        sink_form: str = "",
        choices: Choices = Choices(),  # noqa: B008
        only_failed: bool = False,
        source_settings: dict[str, Any] | None = None,
        sink_settings: dict[str, Any] | None = None,
        **keys: Any,
    ) -> BatchReport:
        """Run it once."""
        ends = (
            made("sources", form, self.folder, path=source, **(source_settings or {})),
            made("sinks", sink_form or form, self.folder, path=sink, **(sink_settings or {})),
        )
        plan = self.plan(*ends, form, sink, keys)
        parts = Parts(
            execute=self.execute,
            keep_logs=self.logs.extend,
            tell=self.told.append,
            watch=self.views.append,
            clock=lambda: self.now,
            wall_clock=lambda: 1_800_000_000 + self.now,
            sleep=self.sleep,
            chance=lambda: 0.5,
        )
        return (MergeRun if only_failed else BatchRun)(plan, parts, choices).run()

    def plan(self, source: Source, sink: Sink, form: str, target: str, keys: dict[str, Any]) -> Plan:
        """What `run` runs."""
        every = keys.pop("every", 5000)
        batch = BatchKeys(
            function="f",
            input=Choice(name=form),
            output=Choice(name=form),
            checkpoint=CheckpointKeys(every=every),
            chunk=ChunkKeys(kb=keys.pop("kb", 1), records=keys.pop("records", 1_000_000)),
            **keys,
        )
        on_error: OnErrorKeys = on_error_of(batch)
        return Plan(
            job="b",
            partition=None,
            function=function(version=self.version, retry_count=self.retry_count, retry_delay_seconds=4),
            context=context(),
            keys=batch,
            on_error=on_error,
            source=source,
            sink=sink,
            project=self.folder,
            quarantine=f"{target}.rejected.jsonl" if on_error.action == "quarantine" else None,
            state=self.folder / ".runner/batches/b/_",
            settings={"isolation": batch.isolation},
        )

    def execute(self, inputs: Iterator[bytes]) -> Iterator[InvocationResult]:
        """Two inputs ahead of the results, as workers are."""
        waiting: list[bytes] = []
        for data in inputs:
            waiting.append(data)
            if len(waiting) > 2:
                yield self._result(waiting.pop(0))
        for data in waiting:
            yield self._result(data)

    def sleep(self, seconds: float) -> None:
        """The clock goes on by that."""
        self.slept.append(seconds)
        self.now += seconds

    def _result(self, data: bytes) -> InvocationResult:
        self.sent.append(data)
        try:
            return InvocationResult(self.guest(data), None)
        except RunnerError as error:
            return InvocationResult(None, error)
