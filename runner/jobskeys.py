"""The keys of jobs.yaml, declared once: the loader, the JSON Schema and the reference are made from this.

What a key's value means together with others, and what plugins provide, is in runner.loading. The
docstrings and `doc` texts here are what docs/jobs-yaml.md shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from runner.keytypes import Name, Named, Value, Variable
from runner.keytypes import documented as _doc
from runner.schema import Custom, Partial
from runner.stepkeys import Concurrency, Params, StepKeys, TaskKeys

DEFAULT_REGISTRY = "sqlite"
AUTO_EXECUTOR = "auto"

ExistingFile = Annotated[Any, Custom("file", "a file")]
Executor = Annotated[Any, Custom("executor", "an executor's name, or a mapping from it to its settings")]
Registry = Annotated[Any, Custom("registry", "a registry's name, or a mapping from it to its settings")]
Trigger = Annotated[Any, Custom("trigger", "a mapping with one key: the kind of trigger")]
Batch = Annotated[Any, Custom("batch", "a mapping")]
Test = Annotated[Any, Custom("test", "a mapping")]


@dataclass(frozen=True, kw_only=True)
class AllowKeys:
    """What a function is granted. A host function that needs a grant, called without it, ends the
    invocation with an error that names the grant. A change makes a new version of the function."""

    enqueue: tuple[Name, ...] = field(
        default=(),
        metadata=_doc(
            "Jobs that it may enqueue with `enqueue_background` and `schedule_once`.",
            called=("jobs", "enqueue_background", "schedule_once", "schedule"),
            example="[resize, notify]",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class DefaultsKeys:
    """Settings of every function that does not say otherwise. `env_vars` are merged name by name; any
    other setting of a function takes the place of the default."""

    executor: Executor = field(
        default=AUTO_EXECUTOR,
        metadata=_doc(
            "What runs it: the name of an executor plugin, or the name with its settings. `auto` takes the best that "
            "works on this machine. A bare name takes the settings that `defaults` has for it.",
            called=("engine", "runtime"),
            example="{wasmtime: {}}",
        ),
    )
    memory_limit_mb: int = field(
        default=64,
        metadata=_doc(
            "The most linear memory the function may have, in MiB.",
            minimum=1,
            maximum=4096,
            called=("memory", "memory_mb", "memory_limit"),
        ),
    )
    timeout_seconds: float = field(
        default=30.0,
        metadata=_doc(
            "Wall-clock seconds after which one attempt is stopped.", above=0, maximum=86400, called=("timeout",)
        ),
    )
    retry_count: int = field(
        default=0,
        metadata=_doc("Attempts after the first.", minimum=0, maximum=100, called=("retries", "retry", "max_retries")),
    )
    retry_delay_seconds: float = field(
        default=5.0,
        metadata=_doc(
            "Base of the delay before a retry, which doubles with each one up to five minutes.",
            minimum=0,
            maximum=86400,
            called=("retry_delay", "backoff"),
        ),
    )
    dlq_topic: Value | None = field(
        default=None,
        metadata=_doc("The topic that is told of work that used up its retries.", called=("dlq", "dead_letter_topic")),
    )
    is_public: bool = field(
        default=False, metadata=_doc("Whether an HTTP trigger may call it without authentication.", called=("public",))
    )
    env_vars: Mapping[Variable, Value] = field(
        default_factory=dict,
        metadata=_doc(
            "The function's environment. Values are strings: put numbers in quotes.",
            called=("env", "environment", "vars"),
            example="{REGION: eu}",
        ),
    )
    secrets: tuple[Name, ...] = field(
        default=(),
        metadata=_doc(
            "Names of the declared `secrets` that the function may ask for.", called=("secret",), example="[API_KEY]"
        ),
    )
    allow: AllowKeys = field(
        default_factory=AllowKeys,
        metadata=_doc(
            "What the function is granted. Left out: nothing.",
            called=("grants", "permissions", "rights"),
            example="{enqueue: [notify]}",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class FunctionKeys(DefaultsKeys):
    """A function: a WebAssembly module with its limits and rights. Exactly one of `wasm` and `source`
    says where the module comes from. Every other setting can also stand in `defaults`."""

    __one_of__: ClassVar[tuple[str, ...]] = ("wasm", "source")

    wasm: ExistingFile = field(
        default=None,
        metadata=_doc(
            "A compiled module, relative to the folder of jobs.yaml.",
            called=("module", "path", "file"),
            example="functions/clean.wasm",
        ),
    )
    source: ExistingFile = field(
        default=None,
        metadata=_doc(
            "A source file that a builder plugin compiles, chosen by the file's ending.",
            called=("src",),
            example="functions/clean.c",
        ),
    )
    description: str | None = field(default=None, metadata=_doc("What it does, for listings."))
    pure: bool = field(
        default=False,
        metadata=_doc(
            "Whether the output depends on nothing but the input and `env_vars`. It is held to that: it sees a fixed "
            "clock and seeded random bytes, and may have neither `secrets` nor `allow`. Its results are used again.",
            called=("deterministic", "cacheable", "cache"),
            example="true",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class SecretKeys:
    """Where a secret's value comes from; the value itself never stands in jobs.yaml. It is looked up
    when a function that is granted the secret runs."""

    __one_of__: ClassVar[tuple[str, ...]] = ("env", "file")

    env: Variable | None = field(
        default=None,
        metadata=_doc(
            "The environment variable that holds it.",
            hidden=True,
            example="PAYMENTS_KEY",
            called=("variable", "environment", "env_var"),
        ),
    )
    file: Path | None = field(
        default=None,
        metadata=_doc(
            "The file that holds it, relative to the folder of jobs.yaml; one line break at its end is not part of it.",
            hidden=True,
            called=("path",),
            example="/run/secrets/payments",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class InputKeys:
    """What a job sends to its function: exactly one of `path` and `json`. A plain string in place of
    the mapping is sent as it is, in UTF-8."""

    __one_of__: ClassVar[tuple[str, ...]] = ("path", "json")

    path: Path | None = field(
        default=None,
        metadata=_doc(
            "A file whose bytes are sent, relative to the folder of jobs.yaml. It is looked for when the job runs.",
            called=("file",),
            example="data/in.csv",
        ),
    )
    json: Any = field(
        default=None, metadata=_doc("Any value; it is sent as compact JSON.", example="{limit: 10, tags: [a, b]}")
    )


@dataclass(frozen=True, kw_only=True)
class OutputKeys:
    """Where a job's output goes."""

    path: Path = field(
        metadata=_doc(
            "The file that is written, as a whole or not at all, relative to the folder of jobs.yaml.",
            called=("file",),
            example="build/report.md",
        )
    )


@dataclass(frozen=True, kw_only=True)
class JobKeys:
    """A job: when and how a function runs. Exactly one of `run`, `steps` and `batch` says what runs."""

    __one_of__: ClassVar[tuple[str, ...]] = ("run", "steps", "batch")

    run: Name | None = field(
        default=None, metadata=_doc("The function that runs.", called=("function", "fn", "call"), example="clean")
    )
    steps: Mapping[Named, Annotated[StepKeys, Partial()]] | None = field(
        default=None,
        metadata=_doc(
            "A pipeline: its steps by name. Each begins when those that it needs have ended.",
            called=("pipeline", "tasks"),
            example="{count: {run: count}, tell: {run: tell, needs: [count]}}",
        ),
    )
    batch: Batch = field(
        default=None,
        metadata=_doc(
            "A function over many records.",
            example='{function: clean, input: {path: "data/*.jsonl"}, output: {path: out.jsonl}}',
        ),
    )
    description: str | None = field(default=None, metadata=_doc("What it is for, for listings."))
    input: str | InputKeys | None = field(
        default=None,
        metadata=_doc(
            "What the function gets. Left out: the event's payload, or nothing.", called=("payload", "stdin", "with")
        ),
    )
    output: OutputKeys | None = field(
        default=None, metadata=_doc("Where the output goes. Left out: to whoever asked.", called=("stdout",))
    )
    env_vars: Mapping[Variable, Value] = field(
        default_factory=dict,
        metadata=_doc(
            "The environment of this job's invocations, over that of its function.",
            called=("env", "environment", "vars"),
            example='{LIMIT: "10"}',
        ),
    )
    params: Mapping[Named, Params] = field(
        default_factory=dict,
        metadata=_doc(
            "Parameters of a pipeline by name. Their values are the keys of its input, which is a JSON object then; "
            "`runner run NAME --param KEY=VALUE` gives them.",
            called=("parameters", "args", "inputs", "arguments"),
            example="{day: string, limit: {type: integer, default: 10}}",
        ),
    )
    concurrency: Concurrency | None = field(
        default=None,
        metadata=_doc(
            "How many runs of a pipeline may go at once; the others wait, oldest first.", minimum=1, example="1"
        ),
    )
    on_failure: Annotated[TaskKeys, Partial()] | None = field(
        default=None,
        metadata=_doc(
            "What is run at the end of a pipeline of which a step has failed. The run fails all the same.",
            called=("on_error", "onfailure"),
            example="{run: tell, with: '${{ failure.message }}'}",
        ),
    )
    triggers: tuple[Trigger, ...] = field(
        default=(),
        metadata=_doc(
            "What starts it: a list of mappings with one key each, the kind of trigger. "
            "`runner run NAME` starts it whatever they say.",
            called=("on", "trigger", "schedule", "when", "cron"),
            example='[{cron: {schedule: "15 2 * * *"}}]',
        ),
    )


@dataclass(frozen=True, kw_only=True)
class QueueKeys:
    """A queue of runs. One that is not declared has no limit."""

    concurrency: int = field(
        metadata=_doc(
            "How many of its runs may be running at once, over all daemons of the store.",
            minimum=1,
            maximum=1_000_000,
            called=("limit", "workers", "max_parallel"),
            example="1",
        )
    )


@dataclass(frozen=True, kw_only=True)
class RetentionKeys:
    """How many days finished things are kept, counted from when they finished."""

    runs_days: float = field(
        default=30, metadata=_doc("Succeeded and cancelled runs, slots, and messages of topics.", above=0)
    )
    failed_days: float = field(default=90, metadata=_doc("Failed and dead runs, with their dead letters.", above=0))
    logs_days: float = field(default=14, metadata=_doc("Log lines of any run.", above=0))


@dataclass(frozen=True, kw_only=True)
class ReuseKeys:
    """The results of `pure` functions, which are kept to be used again."""

    enabled: bool = field(
        default=True, metadata=_doc("Whether they are. Turned off, they are neither looked for nor kept.")
    )
    max_mb: int = field(
        default=1024,
        metadata=_doc(
            "The most disk that they may take, in MiB; then those that were not used for longest go. A daemon takes "
            "up a change when it is started again.",
            minimum=1,
            maximum=1 << 20,
            called=("max_size", "size", "limit", "size_mb"),
        ),
    )


@dataclass(frozen=True, kw_only=True)
class RecordingKeys:
    """What is recorded of queued runs, so that `runner replay` can run them again with the same clock, random
    bytes and host answers."""

    keep: Literal["failures", "all", "none"] = field(
        default="failures", metadata=_doc("Of which attempts: those that failed, all, or none.")
    )
    max_kb: int = field(
        default=1024,
        metadata=_doc("The most that is kept of one attempt; beyond it a recording is cut.", minimum=1, maximum=65536),
    )


@dataclass(frozen=True, kw_only=True)
class FileKeys:
    """The file as a whole."""

    version: Literal[1] = field(metadata=_doc("The version of this format.", example="1"))
    namespace: Name = field(
        default="default", metadata=_doc("Where the functions' names live in the registry.", example="shop")
    )
    registry: Registry = field(
        default=DEFAULT_REGISTRY,
        metadata=_doc(
            "Where functions, runs and logs are kept: the name of a registry plugin, or the name with its settings.",
            called=("store", "database"),
        ),
    )
    defaults: Annotated[DefaultsKeys, Partial()] = field(
        default_factory=DefaultsKeys, metadata=_doc("Settings of every function that does not say otherwise.")
    )
    secrets: Mapping[Named, Annotated[Any, Custom("secret", "a mapping")]] = field(
        default_factory=dict, metadata=_doc("Secrets by name: where each one's value comes from.")
    )
    queues: Mapping[Named, QueueKeys] = field(
        default_factory=dict,
        metadata=_doc("Limits of queues by name.", called=("queue",), example="{heavy: {concurrency: 1}}"),
    )
    retention: RetentionKeys = field(
        default_factory=RetentionKeys, metadata=_doc("How long what is finished is kept.", example="{runs_days: 7}")
    )
    reuse: ReuseKeys = field(
        default_factory=ReuseKeys,
        metadata=_doc(
            "How results of pure functions are used again.", called=("cache", "results"), example="{max_mb: 256}"
        ),
    )
    recording: RecordingKeys = field(
        default_factory=RecordingKeys,
        metadata=_doc("What is recorded, for `runner replay`.", called=("record", "replay"), example="{keep: all}"),
    )
    functions: Mapping[Named, Annotated[FunctionKeys, Partial()]] = field(
        default_factory=dict, metadata=_doc("Functions by name.", called=("function",))
    )
    jobs: Mapping[Named, Annotated[JobKeys, Partial()]] = field(
        default_factory=dict, metadata=_doc("Jobs by name. They run in the order of the file.", called=("job", "tasks"))
    )
    tests: Mapping[Named, Test] = field(
        default_factory=dict,
        metadata=_doc(
            "Tests by name, which `runner test` runs.",
            called=("test",),
            example="{greets: {function: greet, input: Ada, expect: {output: Hello}}}",
        ),
    )
