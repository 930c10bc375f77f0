"""The function contract: the values that plugins and the core exchange.

Frozen, keyword-only, standard library only. Field names are the same here, in jobs.yaml, in JSON
and in table columns. No behaviour lives here beyond checking that a value can exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from runner.errors import RunnerError

EMPTY: Mapping[str, str] = MappingProxyType({})


class TriggerType(str, Enum):
    """What started an invocation."""

    HTTP = "http"  # a request
    WEBSOCKET = "websocket"  # a message of a connected client
    CRON = "cron"  # a slot of a cron schedule or an interval
    DATABASE = "database"  # a changed row
    PUBSUB = "pubsub"  # a message of a topic
    TIMER = "timer"  # a moment that was asked for once
    JOB = "job"  # the queue, the command line or another job


class Abi(str, Enum):
    """How a module is called; read from its exports."""

    COMMAND = "command"  # a WASI preview 1 command: `_start`, stdin, stdout
    REACTOR = "reactor"  # `handle(ptr, len) -> i64` over an exported memory and allocator


class FunctionStatus(str, Enum):
    """Whether a version of a function may be run."""

    ACTIVE = "active"  # runs
    INACTIVE = "inactive"  # deleted; kept for its history
    ERROR = "error"  # registered, but its module was refused


def _check_aware(name: str, moment: datetime) -> None:
    if moment.tzinfo is None:
        raise ValueError(f"{name} must carry a time zone, got the naive {moment!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rights:
    """What a function may ask of its host beyond its own limits: the grants under `allow:`. Empty grants
    nothing."""

    enqueue: tuple[str, ...] = ()
    """Names of the jobs it may enqueue."""


NO_RIGHTS = Rights()
"""What a function has that is granted nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FunctionDefinition:
    """What a function is to be: its limits and rights, before it is registered."""

    name: str
    """Unique in its namespace: a letter, then letters, digits, `_` or `-`; at most 64."""
    namespace: str
    """Where the name is looked up; the jobs.yaml's `namespace`."""
    version: int = 0
    """The version wanted; 0 lets the registry count on from the newest."""
    memory_limit_mb: int = 64
    """The most linear memory the guest may have, in MiB."""
    timeout_seconds: float = 30
    """Wall-clock seconds of one attempt."""
    is_public: bool = False
    """Whether an HTTP trigger may call it without authentication."""
    retry_count: int = 0
    """Attempts after the first."""
    retry_delay_seconds: float = 5
    """Base of the exponential delay between attempts."""
    dlq_topic: str | None = None
    """The topic told of work that used up its retries."""
    env_vars: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    """The guest's environment."""
    executor: str = "auto"
    """The executor that runs it; `auto` lets the runner choose."""
    secrets: tuple[str, ...] = ()
    """Names of the secrets it may ask for."""
    allow: Rights = NO_RIGHTS
    """What it is granted."""
    pure: bool = False
    """Whether its output depends on its input and env_vars alone: it sees a fixed clock and seeded random
    bytes, may ask its host for nothing, and its results are used again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Function:
    """One registered version of a function."""

    id: str
    """Opaque; unique over all versions and namespaces."""
    name: str
    namespace: str
    version: int
    """Counts from 1."""
    wasm_cid: str
    """CIDv1 (raw, sha2-256, base32) of the module's bytes."""
    source_cid: str | None = None
    """CIDv1 of the source file a builder compiled, if one did."""
    memory_limit_mb: int = 64
    timeout_seconds: float = 30
    is_public: bool = False
    retry_count: int = 0
    retry_delay_seconds: float = 5
    dlq_topic: str | None = None
    status: FunctionStatus = FunctionStatus.ACTIVE
    created_at: datetime
    """When this version was registered."""
    updated_at: datetime
    """When this version's row last changed."""
    created_by: str | None = None
    """Who registered it, as far as known."""
    env_vars: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    executor: str = "auto"
    secrets: tuple[str, ...] = ()
    allow: Rights = NO_RIGHTS
    pure: bool = False

    def __post_init__(self) -> None:
        _check_aware("created_at", self.created_at)
        _check_aware("updated_at", self.updated_at)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """Asks an executor to record what the world tells guests."""

    keep_all: bool
    """Whether of every invocation, or of those that fail."""
    limit_bytes: int
    """The most that the recording of one invocation may have; a longer one is cut."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """Asks an executor to tell a guest what was recorded."""

    recording: bytes
    """As an InvocationResult had it. An executor with other recordings raises InvalidInput."""
    absent_secrets: tuple[str, ...] = ()
    """Secrets that it was granted and whose values are not here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InvocationContext:
    """The facts of one invocation. Never shared between two that run at once with other facts."""

    request_id: str
    """Unique; the guest reads it with get_request_id and every log line carries it."""
    function_id: str
    function_name: str
    namespace: str
    caller_wallet: str | None = None
    """Who called, if an authenticated trigger knows."""
    trigger_type: TriggerType = TriggerType.JOB
    ws_client_id: str | None = None
    """The websocket client whose message this is."""
    env_vars: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    """What the guest sees as its environment."""
    secrets: Mapping[str, str] = field(default_factory=lambda: EMPTY, repr=False)
    """Values of the secrets granted, by name. Never logged."""
    allow: Rights = NO_RIGHTS
    """What the function's version is granted."""
    run_id: int | None = None
    """The run of the durable queue that this is an attempt of; None for several at once, and in the foreground."""
    record: Recording | None = None
    """What to record of what the world tells the guest; None: nothing."""
    replay: Replay | None = None
    """What the world tells instead of the truth; None: the truth."""


class LogLevel(str, Enum):
    """How a log line was written."""

    INFO = "info"  # log_info
    ERROR = "error"  # log_error
    STDERR = "stderr"  # a line on standard error


class LogEntry(NamedTuple):
    """One line that a guest logged. `timestamp` is seconds since the epoch, UTC."""

    level: LogLevel
    message: str
    timestamp: float


class InvocationResult(NamedTuple):
    """How one invocation ended: exactly one of `output` and `error` is not None.

    A named tuple and not a dataclass: a batch makes a hundred thousand of them in a second.
    """

    output: bytes | None
    error: RunnerError | None
    logs: tuple[LogEntry, ...] = ()
    duration_ms: float = 0.0
    """Time in the guest, instantiation included, waiting not."""
    memory_peak_bytes: int = 0
    """The linear memory's size at the end; it never shrinks, so this is its peak."""
    recording: bytes | None = None
    """What the world told it, if that was to be recorded and its executor can."""
    reuse: str = ""
    """What is to be known later of its reuse, as runner.reuse writes it; executors leave it empty."""

    def unwrap(self) -> bytes:
        """The output; raises the error if there is one."""
        if self.error is not None:
            raise self.error
        assert self.output is not None
        return self.output
