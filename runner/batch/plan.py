"""From a job of jobs.yaml to what one run of its batch needs: source, sink, files, identity."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from runner.app import Runner
from runner.batch.identity import Identity, digests
from runner.batch.partitions import Partition
from runner.batchkeys import BatchKeys, OnErrorKeys, on_error_of
from runner.config import Choice, JobConfig
from runner.errors import UsageError
from runner.models import Function, InvocationContext
from runner.records import Limits, Sink, Source

STATE_FOLDER = "batches"
WHOLE = "_"
"""The folder of the state of a batch without partitions; no partition's name is quoted to this."""
BLOCK_RECORDS, BLOCK_BYTES = 512, 1 << 16
"""A block of records that run one by one: what is lost of it when the run is killed, at the most."""
QUARANTINE_ENDING = ".rejected.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One run of a batch, or of one of its partitions, before it starts."""

    job: str
    """Its name in jobs.yaml, or that of the function of a batch without a job."""
    partition: str | None
    function: Function
    context: InvocationContext
    keys: BatchKeys
    on_error: OnErrorKeys
    source: Source
    sink: Sink
    project: Path
    """From where paths are meant."""
    quarantine: str | None
    """The file of quarantined records, as the user would write it; None without quarantine."""
    state: Path
    """The folder that keeps how far it is."""
    settings: Mapping[str, str]
    """Every setting that the output depends on, for the identity."""

    @property
    def title(self) -> str:
        """How messages name it."""
        return self.job if self.partition is None else f"{self.job} {self.partition}"

    @property
    def limits(self) -> Limits:
        """How much is read at once."""
        keys = self.keys
        record_bytes = keys.max_record_mb << 20
        if keys.isolation == "chunk":
            return Limits(
                block_bytes=min(keys.chunk.kb << 10, record_bytes),
                block_records=min(keys.chunk.records, keys.checkpoint.every),
                record_bytes=record_bytes,
            )
        most = min(keys.checkpoint.every, BLOCK_RECORDS)
        return Limits(block_bytes=BLOCK_BYTES, block_records=most, record_bytes=record_bytes)

    def identity(self) -> Identity:
        """What the output depends on, as it is now. Raises FileUnavailable when there is nothing to read."""
        function = self.function
        return Identity(
            function=f"{function.name} version {function.version} ({function.wasm_cid})",
            settings=self.settings,
            environment=digests(self.context.env_vars),
            inputs=self.source.parts(),
        )

    def check_paths(self, inputs: Mapping[str, str]) -> None:
        """Raises UsageError when something would be written that is also read, or written twice."""
        outputs = {_absolute(self.project, self.sink.target): "output"}
        if self.quarantine is not None:
            path = _absolute(self.project, self.quarantine)
            if path in outputs:
                raise UsageError(f"{self.quarantine} is the output and the quarantine as well; give one another path")
            outputs[path] = "quarantine"
        for name in inputs:
            role = outputs.get(_absolute(self.project, name))
            if role is not None:
                raise UsageError(f"{name} is the {role} and among the input as well; give it another path")


def _absolute(folder: Path, name: str) -> str:
    return os.path.normpath(folder / name)


def plan_of(
    runner: Runner,
    job: JobConfig,
    function: Function,
    partition: Partition | None = None,
    *,
    state: str = "",
    context: InvocationContext | None = None,
) -> Plan:
    """The plan of a batch job with this version of its function. `state` names the folder of its state; the
    job does otherwise. Raises UsageError, NotAvailable."""
    keys = job.batch
    if keys is None:
        raise UsageError(f"job {job.name!r} is no batch; `runner run {job.name}` runs it")
    if partition is not None:
        keys = partition.applied(keys)
    on_error = on_error_of(keys)
    sink: Sink = runner.make("sinks", keys.output)
    name = None if partition is None else partition.name
    return Plan(
        job=job.name,
        partition=name,
        function=function,
        context=context or runner.context(function, job.env_vars),
        keys=keys,
        on_error=on_error,
        source=runner.make("sources", keys.input),
        sink=sink,
        project=runner.project_dir,
        quarantine=_quarantine(job.name, on_error, keys.output),
        state=state_folder(runner, state or job.name, name),
        settings=_settings(keys, on_error),
    )


def state_folder(runner: Runner, job: str, partition: str | None) -> Path:
    """Where the state of a batch, or of one of its partitions, is kept."""
    return runner.state_dir / STATE_FOLDER / job / (WHOLE if partition is None else f"p-{quote(partition, safe='')}")


def _quarantine(job: str, on_error: OnErrorKeys, output: Choice) -> str | None:
    if on_error.action != "quarantine":
        return None
    if on_error.path is not None:
        return on_error.path
    path = getattr(output.settings, "path", None)
    if path in (None, "-"):
        raise UsageError(f"{job}: say where quarantined records go: on_error: {{action: quarantine, path: FILE}}")
    return f"{path}{QUARANTINE_ENDING}"


def _settings(keys: BatchKeys, on_error: OnErrorKeys) -> dict[str, str]:
    return {
        **_named("input", keys.input),
        **_named("output", keys.output),
        "isolation": keys.isolation,
        "order": keys.order,
        "max_record_mb": str(keys.max_record_mb),
        "chunk.kb": str(keys.chunk.kb),
        "chunk.records": str(keys.chunk.records),
        "checkpoint.every": str(keys.checkpoint.every),
        "on_error.action": on_error.action,
        "on_error.path": str(on_error.path),
    }


def _named(key: str, choice: Choice) -> dict[str, str]:
    fields: Any = dataclasses.fields(choice.settings) if choice.settings is not None else ()
    return {
        f"{key}.format": choice.name,
        **{f"{key}.{spec.name}": str(getattr(choice.settings, spec.name)) for spec in fields},
    }
