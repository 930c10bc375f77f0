"""The frozen configuration: a whole jobs.yaml, valid, as everything else sees it.

How it is made from the file is in runner.loading. Nothing is started or changed by having one.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from runner.batchkeys import BatchKeys
from runner.errors import FileUnavailable, NotAvailable, UsageError
from runner.jobskeys import InputKeys, RecordingKeys, RetentionKeys, ReuseKeys
from runner.models import FunctionDefinition, Recording
from runner.stepkeys import MAX_ITEMS, ConcurrencyKeys, ItemError, ParamType


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A provider's name and its settings: an instance of the provider's class, None if it has none."""

    name: str
    settings: Any = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TriggerConfig:
    """What starts a job: a kind that a plugin provides, and its settings."""

    kind: str
    settings: Any
    """An instance of the provider's settings class; None if it has none."""
    line: int
    """Where it stands in jobs.yaml."""
    column: int = 1
    """Likewise; both count from 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SecretReference:
    """Where a secret's value comes from: exactly one of `env` and `file` is not None."""

    name: str
    env: str | None = None
    """An environment variable."""
    file: Path | None = None
    """A file, absolute."""
    place: str
    """Where it is declared, `jobs.yaml:9`."""

    def resolve(self) -> str:
        """The value, looked up now. One line break at a file's end is not part of it.
        Raises NotAvailable, which names the secret and where its value should be."""
        if self.env is not None:
            value = os.environ.get(self.env)
            if value is None:
                raise NotAvailable(f"{self}: the environment variable {self.env} is not set")
            return value
        assert self.file is not None
        try:
            text = self.file.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise NotAvailable(f"{self}: the file {self.file} cannot be read: {reason}") from error
        return text.removesuffix("\n").removesuffix("\r")

    def __str__(self) -> str:
        return f"secret {self.name!r} ({self.place})"


@dataclass(frozen=True, kw_only=True, slots=True)
class FunctionConfig:
    """A function as jobs.yaml declares it: exactly one of `wasm` and `source` is not None."""

    definition: FunctionDefinition
    wasm: Path | None
    """The module, absolute."""
    source: Path | None
    """The file that a builder compiles, absolute."""
    executor: Choice
    """Its name is the definition's `executor`."""
    description: str | None
    line: int
    """Where it stands in jobs.yaml."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobInput:
    """What a job sends: exactly one of `data` and `path` is not None."""

    data: bytes | None = None
    path: Path | None = None
    """A file, absolute."""

    @classmethod
    def of(cls, keys: str | InputKeys, folder: Path) -> JobInput:
        """What the keys mean in a jobs.yaml of this folder."""
        if isinstance(keys, str):
            return cls(data=keys.encode())
        if keys.path is not None:
            return cls(path=folder / keys.path)
        return cls(data=json.dumps(keys.json, separators=(",", ":"), ensure_ascii=False).encode())

    def read(self) -> bytes:
        """The bytes. Raises FileUnavailable."""
        if self.path is None:
            return self.data or b""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise FileUnavailable(f"the input {self.path} cannot be read: {error.strerror}") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class StepConfig:
    """A step of a pipeline as jobs.yaml declares it, or what it runs on failure: exactly one of `run` and
    `job` is not None."""

    name: str
    run: str | None
    """The name of a function of the same file."""
    job: str | None
    """The name of a job of the same file."""
    needs: tuple[str, ...] = ()
    """Steps that end before it begins."""
    sends: Any = None
    """Its `with`, with the look-ups as they were written; None: the item, or else the pipeline's input."""
    condition: str = "success()"
    """Its `if`."""
    foreach: Any = None
    """A list, or a text that is one look-up; None: it is run once."""
    max_parallel: int | None = None
    max_items: int = MAX_ITEMS
    on_item_error: ItemError = "stop"
    retry_count: int | None = None
    """None, here and below: the function's own."""
    retry_delay_seconds: float | None = None
    timeout_seconds: float | None = None
    description: str | None = None
    line: int
    """Where it stands in jobs.yaml."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ParamConfig:
    """A parameter of a pipeline."""

    name: str
    type: ParamType
    default: Any = None
    required: bool
    """Whether a value has to be given."""
    description: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class JobConfig:
    """A job as jobs.yaml declares it."""

    name: str
    run: str | None
    """The name of a function of the same file; None for a job that runs something else."""
    description: str | None
    input: JobInput | None
    """None: the event's payload, or nothing."""
    output: Path | None
    """The file that takes the output, absolute; None leaves it to whoever started the job."""
    env_vars: Mapping[str, str]
    """The environment of its invocations, over that of the function."""
    triggers: tuple[TriggerConfig, ...]
    line: int
    """Where it stands in jobs.yaml."""
    steps: Mapping[str, StepConfig] = field(default_factory=lambda: MappingProxyType({}))
    """Those of a pipeline, by name; empty for a job that is something else."""
    params: Mapping[str, ParamConfig] = field(default_factory=lambda: MappingProxyType({}))
    """Those of a pipeline, by name."""
    concurrency: ConcurrencyKeys | None = None
    """How many runs of a pipeline may go at once; None: any number."""
    on_failure: StepConfig | None = None
    """What a pipeline runs at its end if a step failed."""
    batch: BatchKeys | None = None
    """A function over many records; its input and output are each a Choice."""

    @property
    def functions(self) -> tuple[str, ...]:
        """The names of the functions that it runs, each once; those of jobs that its steps start are
        theirs."""
        steps = (step.run for step in (*self.steps.values(), self.on_failure) if step is not None)
        names = (self.run, self.batch.function if self.batch else None, *steps)
        return tuple(dict.fromkeys(name for name in names if name is not None))


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectedOutput:
    """What the output of a case has to be."""

    form: Literal["text", "path", "json", "contains", "matches"]
    value: Any
    """For `path` a Path, absolute; for `json` a JSON value; else a string."""
    line: int
    """Where it stands in jobs.yaml."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Expectation:
    """What has to come of a case. None and empty: nothing is said about it."""

    output: ExpectedOutput | None = None
    succeeds: bool
    """Whether it has to succeed; else it has to fail."""
    error: str | None = None
    """The name of an error's class, or of one that it derives from."""
    message: str | None = None
    exit_code: int | None = None
    trap: str | None = None
    counts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Numbers of records by what they count: `records_in`, `records_out`, `failed`."""
    steps: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Statuses of a pipeline's steps, by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mock:
    """What a step comes to without being run: exactly one of `output`, `outputs` and `error` is not None."""

    output: JobInput | None = None
    """Of a step with `foreach`, that of each item."""
    outputs: tuple[JobInput, ...] | None = None
    """Item by item."""
    error: str | None = None
    """The name of an error's class."""
    message: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseConfig:
    """A test as jobs.yaml declares it: exactly one of `function` and `job` is not None."""

    name: str
    function: str | None
    job: str | None
    description: str | None
    input: JobInput | None
    """None: the job's own, or nothing."""
    records: Choice | None
    """A source of records; None: no records, or those of the batch itself."""
    env_vars: Mapping[str, str]
    secrets: Mapping[str, str] = field(repr=False)
    """Made-up values by name."""
    params: Mapping[str, Any]
    mocks: Mapping[str, Mock]
    """By step."""
    expect: Expectation
    line: int
    """Where it stands in jobs.yaml."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """A whole jobs.yaml, valid. Mappings are in the order of the file and cannot be changed."""

    path: Path
    """The file, absolute."""
    namespace: str
    registry: Choice
    secrets: Mapping[str, SecretReference]
    functions: Mapping[str, FunctionConfig]
    jobs: Mapping[str, JobConfig]
    queues: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """By queue, how many of its runs may be running at once."""
    retention: RetentionKeys = field(default_factory=RetentionKeys)
    reuse: ReuseKeys = field(default_factory=ReuseKeys)
    recording: RecordingKeys = field(default_factory=RecordingKeys)
    tests: Mapping[str, CaseConfig] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def folder(self) -> Path:
        """The folder of jobs.yaml, from which its relative paths are meant."""
        return self.path.parent

    @property
    def record(self) -> Recording | None:
        """What executors are to record of queued runs."""
        keys = self.recording
        return None if keys.keep == "none" else Recording(keep_all=keys.keep == "all", limit_bytes=keys.max_kb * 1024)

    def functions_of(self, name: str) -> tuple[str, ...]:
        """The functions that a job runs, by itself and by the jobs that its steps start; each once."""
        job = self.jobs[name]
        steps = (step for step in (*job.steps.values(), job.on_failure) if step is not None)
        started = (function for step in steps if step.job is not None for function in self.functions_of(step.job))
        return tuple(dict.fromkeys((*job.functions, *started)))

    def job(self, name: str) -> JobConfig:
        """The job. Raises UsageError with the nearest name, or all of them."""
        job = self.jobs.get(name)
        if job is None:
            near = difflib.get_close_matches(name, self.jobs, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(self.jobs) or 'none'}"
            raise UsageError(f"no job {name!r} in {self.path.name}; {hint}")
        return job
