"""The one exception tree. Every error that `runner` raises on purpose is in this file.

    RunnerError
    ├── UsageError                 wrong use of the library or command line          exit 2
    │   └── CheckpointOutdated     what a batch was at is not what it was; the user must decide
    ├── ConfigError                jobs.yaml is invalid; holds every located problem  exit 2
    ├── InvalidInput               the caller's fault, never retried                  exit 1
    │   ├── FunctionNotFound
    │   ├── InvalidModule          bytes that are no module we can run
    │   │   ├── UnsupportedFeature a Wasm feature this executor refuses
    │   │   ├── UnknownImport      an import no host function answers
    │   │   └── CompileTimedOut    the compiler passed its deadline
    │   ├── InputTooLarge
    │   ├── LookupFailed           a `${{ }}` of jobs.yaml that finds nothing
    │   ├── RunNotFound
    │   ├── RunConflict            a live run has the same unique key
    │   ├── InvalidRecord          a record of a batch is not what its source's format has
    │   ├── OutputRefused          what a function made of a record cannot stand in the sink
    │   ├── RecordFailed           the record that ended a batch
    │   └── TooManyFailures        a batch passed its error budget
    ├── RunFailed                  a run that was carried out by way of the store     exit 1
    ├── BuildError                 a source file does not compile                     exit 1
    ├── NotAvailable               something needed is not here                       exit 3
    │   ├── EngineUnavailable
    │   ├── PluginUnavailable
    │   ├── ToolchainUnavailable
    │   └── FileUnavailable
    │       └── SourceChanged      a file changed while a batch read it
    ├── StoreError                 the store refused                                  exit 4
    │   ├── StoreDamaged
    │   ├── StoreLocked
    │   ├── StoreFull
    │   ├── StoreGone              its file was deleted or replaced under us
    │   └── StoreReadOnly
    └── InvocationError            how a guest ended                                  exit 1
        ├── Trapped
        ├── Exited
        ├── TimedOut
        ├── OutOfMemory
        ├── OutputTooLarge
        ├── BadOutput              the guest returned a pointer outside its memory
        ├── GrantMissing           the guest called a host function without a right to it
        ├── HostCallRefused        the guest called a host function with what can never work
        ├── HostCallFailed         a host function could not do its work this time
        ├── ReplayDiverged         in a replay, it asked the world something else than was recorded
        ├── Stopped                it was stopped on request
        └── WorkerLost             the process that ran it died

Facts are attributes; the message names the thing, the value and the remedy. What lives here is
exceptions only: the standard library is the only import.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class RunnerError(Exception):
    """The root of all errors raised on purpose.

    `exit_status` is what the command line exits with; `retryable` tells whether another attempt
    may end differently. Both belong to the class, not to the instance.
    """

    exit_status: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    @property
    def error_class(self) -> str:
        """The class's name, as tables, JSON and logs show it."""
        return type(self).__name__


class UsageError(RunnerError):
    """The library or the command line was used wrongly."""

    exit_status = 2


class CheckpointOutdated(UsageError):
    """A batch has a checkpoint, but of something else: input, function or settings changed since. `changes`
    says what, one sentence each."""

    def __init__(self, job: str, changes: Sequence[str]) -> None:
        self.job, self.changes = job, tuple(changes)
        told = "".join(f"\n  {change}" for change in self.changes)
        super().__init__(
            f"{job} was interrupted and has changed since:{told}\n"
            "--restart begins again, --resume goes on from where it was with what is there now"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One located problem of a configuration file.

    `line` and `column` count from 1; both are 0 when the problem belongs to the file as a whole.
    `where` is the dotted path of the value (`functions.clean.retry_count`), empty for the root.
    """

    file: str
    line: int
    column: int
    where: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place} {self.where}: {self.message}" if self.where else f"{place}: {self.message}"


class ConfigError(RunnerError):
    """jobs.yaml is invalid. `problems` holds every problem found, in the order of the file."""

    exit_status = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class InvalidInput(RunnerError):
    """What the caller gave cannot work, however often it is tried."""


class FunctionNotFound(InvalidInput):
    """No function of that name (and version) is registered, or it was deleted."""

    def __init__(self, name: str, *, namespace: str, version: int = 0, suggestion: str | None = None) -> None:
        self.name, self.namespace, self.version, self.suggestion = name, namespace, version, suggestion
        wanted = f"{name}@{version}" if version else name
        hint = f"; did you mean {suggestion!r}?" if suggestion else "; `runner functions list` shows what is registered"
        super().__init__(f"no function {wanted!r} in namespace {namespace!r}{hint}")


class InvalidModule(InvalidInput):
    """The bytes are no WebAssembly module that can be run; the message says what is wrong where."""


class UnsupportedFeature(InvalidModule):
    """The module uses a feature that this executor refuses. `other` names one that may run it."""

    def __init__(self, feature: str, *, executor: str, other: str | None = None) -> None:
        self.feature, self.executor, self.other = feature, executor, other
        remedy = f"; set `executor: {other}` for this function" if other else ""
        super().__init__(f"the module uses {feature}, which executor {executor!r} does not run correctly{remedy}")


class UnknownImport(InvalidModule):
    """The module imports something that no host function answers."""

    def __init__(self, module: str, name: str, *, suggestion: str | None = None) -> None:
        self.module, self.name, self.suggestion = module, name, suggestion
        hint = f"; did you mean {suggestion!r}?" if suggestion else "; docs/functions.md lists the host functions"
        super().__init__(f"unknown import {module}.{name}{hint}")


class CompileTimedOut(InvalidModule):
    """The compiler did not finish within its deadline."""

    def __init__(self, timeout_seconds: float, *, size_bytes: int) -> None:
        self.timeout_seconds, self.size_bytes = timeout_seconds, size_bytes
        super().__init__(
            f"compiling the module ({size_bytes:,} bytes) took longer than {timeout_seconds:g} s; "
            "make the module smaller or raise the executor's compile_timeout_seconds"
        )


class InputTooLarge(InvalidInput):
    """The input is larger than an invocation accepts."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        self.size_bytes, self.limit_bytes = size_bytes, limit_bytes
        super().__init__(f"the input has {size_bytes:,} bytes; an invocation takes at most {limit_bytes:,}")


class LookupFailed(InvalidInput):
    """A `${{ }}` of a pipeline finds nothing, or not what its place needs; the message says which and why."""


class RunNotFound(InvalidInput):
    """The store has no such run: it never had, or it was pruned."""

    def __init__(self, run_id: int) -> None:
        self.run_id = run_id
        super().__init__(f"no run {run_id}; `runner runs list` shows those that are kept")


class RunConflict(InvalidInput):
    """A run with the same unique key is live. `run_id` names it; 0: it is one of those that were to be
    enqueued together, of which none was."""

    def __init__(self, unique_key: str, run_id: int) -> None:
        self.unique_key, self.run_id = unique_key, run_id
        holder = f"run {run_id} is live and has" if run_id else "another run of the same call has"
        super().__init__(
            f"{holder} the unique key {unique_key!r}; wait for it, cancel it, or join it with on_conflict=join"
        )


class InvalidRecord(InvalidInput):
    """A record is not what its source's format says: no UTF-8, too long, a wrong number of columns."""


class OutputRefused(InvalidInput):
    """What a function made of a record cannot stand in the sink. `index` counts in what was to be written
    together; `written` is how many records or lines those before it were."""

    def __init__(self, index: int, reason: str, *, written: int = 0) -> None:
        self.index, self.reason, self.written = index, reason, written
        super().__init__(reason)


class RecordFailed(InvalidInput):
    """A record failed, and its batch with it. `place` says where it stands, `cause` how it ended."""

    def __init__(self, place: str, cause: RunnerError) -> None:
        self.place, self.cause = place, cause
        self.stderr_tail = getattr(cause, "stderr_tail", "")
        super().__init__(f"{place}: {cause}")


class TooManyFailures(InvalidInput):
    """More records of a batch failed than its on_error allows; `where` says where they are kept."""

    def __init__(self, failed: int, records: int, limit: str, where: str) -> None:
        self.failed, self.records, self.limit = failed, records, limit
        super().__init__(f"{failed:,} of {records:,} records failed, and {limit}{where}")


class RunFailed(RunnerError):
    """A run that was carried out by way of the store failed. Its `error_class` and `exit_status` are those of
    the error that it failed with."""

    def __init__(self, error_class: str, message: str, exit_status: int = 1) -> None:
        self._error_class = error_class
        self.exit_status = exit_status  # type: ignore[misc]
        super().__init__(message)

    @property
    def error_class(self) -> str:
        """See RunnerError."""
        return self._error_class


class BuildError(RunnerError):
    """A source file does not compile. `diagnostics` is what the compiler printed, with file and line."""

    def __init__(self, source: str, diagnostics: str) -> None:
        self.source, self.diagnostics = source, diagnostics
        super().__init__(f"{source} does not compile:\n{diagnostics.rstrip()}")


class NotAvailable(RunnerError):
    """Something needed is not on this machine; the message says how to get it."""

    exit_status = 3


class EngineUnavailable(NotAvailable):
    """An executor's engine cannot start here. `remedy` is a command or an action."""

    def __init__(self, engine: str, reason: str, *, remedy: str | None = None) -> None:
        self.engine, self.reason, self.remedy = engine, reason, remedy
        super().__init__(f"engine {engine!r} is not available: {reason}" + (f"; {remedy}" if remedy else ""))


class PluginUnavailable(NotAvailable):
    """A name in jobs.yaml belongs to a plugin that is missing or failed to load."""


class ToolchainUnavailable(NotAvailable):
    """A builder's compiler is not installed; the message names the extra that brings it."""


class FileUnavailable(NotAvailable):
    """A file cannot be read or written: missing, a folder, or forbidden."""


class SourceChanged(FileUnavailable):
    """What a batch reads is not any more what it was when the batch began."""


class StoreError(RunnerError):
    """The store refused. Nothing that was acknowledged is lost by it."""

    exit_status = 4
    retryable = True


class StoreDamaged(StoreError):
    """The store's file, or a stored blob, is not what was written."""

    retryable = False


class StoreLocked(StoreError):
    """Another process holds the store longer than we wait."""


class StoreFull(StoreError):
    """No room is left where the store lives."""


class StoreGone(StoreError):
    """The store's file was deleted or replaced while it was open: whoever has it open must start again."""

    retryable = False


class StoreReadOnly(StoreError):
    """The store's folder or file may not be written."""

    retryable = False


class InvocationError(RunnerError):
    """How a guest ended, when it did not end well. `stderr_tail` is the last of what it logged."""

    retryable = True

    def __init__(self, message: str, *, stderr_tail: str = "") -> None:
        self.stderr_tail = stderr_tail
        super().__init__(message)


class Trapped(InvocationError):
    """The guest trapped. `trap` is the kind (`unreachable`, `integer_divide_by_zero`, ...);
    `functions` the guest's frames, innermost first, as far as the module names them."""

    def __init__(self, trap: str, message: str, *, functions: Sequence[str] = (), stderr_tail: str = "") -> None:
        self.trap, self.detail, self.functions = trap, message, tuple(functions)
        place = f" in {' < '.join(self.functions[:8])}" if self.functions else ""
        super().__init__(f"trapped: {message}{place}", stderr_tail=stderr_tail)


class Exited(InvocationError):
    """The guest called proc_exit with a code other than 0."""

    def __init__(self, code: int, *, stderr_tail: str = "") -> None:
        self.code = code
        super().__init__(f"exited with code {code}", stderr_tail=stderr_tail)


class TimedOut(InvocationError):
    """The guest ran past its function's timeout_seconds and was stopped."""

    def __init__(self, timeout_seconds: float, *, stderr_tail: str = "") -> None:
        self.timeout_seconds = timeout_seconds
        super().__init__(
            f"timed out after {timeout_seconds:g} s; raise timeout_seconds if it needs longer",
            stderr_tail=stderr_tail,
        )


class OutOfMemory(InvocationError):
    """The guest ended after it was refused memory beyond its function's memory_limit_mb."""

    def __init__(self, memory_limit_mb: int, message: str, *, stderr_tail: str = "") -> None:
        self.memory_limit_mb, self.detail = memory_limit_mb, message
        super().__init__(
            f"out of memory at {memory_limit_mb} MB ({message}); raise memory_limit_mb if it needs more",
            stderr_tail=stderr_tail,
        )


class OutputTooLarge(InvocationError):
    """The guest wrote more output than an invocation may."""

    retryable = False

    def __init__(self, limit_bytes: int, *, stderr_tail: str = "") -> None:
        self.limit_bytes = limit_bytes
        super().__init__(
            f"the output is larger than {limit_bytes:,} bytes; the executor's output_limit_mb allows more",
            stderr_tail=stderr_tail,
        )


class BadOutput(InvocationError):
    """`handle` returned a pointer and length outside the guest's memory, or its allocator did."""

    retryable = False

    def __init__(self, detail: str, *, stderr_tail: str = "") -> None:
        self.detail = detail
        super().__init__(detail, stderr_tail=stderr_tail)


class GrantMissing(InvocationError):
    """The guest called a host function that its function was not granted in jobs.yaml."""

    retryable = False

    def __init__(self, host_function: str, wanted: str, *, stderr_tail: str = "") -> None:
        self.host_function, self.wanted = host_function, wanted
        super().__init__(
            f"{host_function} was called without a grant; add {wanted} to the function in jobs.yaml",
            stderr_tail=stderr_tail,
        )


class HostCallRefused(InvocationError):
    """A host function that the app answers cannot do what the guest asked for, however often it is tried.
    `cause` names the class of the error that was in its way, `reason` is its message."""

    retryable = False

    def __init__(self, host_function: str, cause: str, reason: str, *, stderr_tail: str = "") -> None:
        self.host_function, self.cause, self.reason = host_function, cause, reason
        super().__init__(f"{host_function} was refused: {reason}", stderr_tail=stderr_tail)


class HostCallFailed(InvocationError):
    """A host function that the app answers could not do its work this time. `cause` and `reason` are as in
    HostCallRefused."""

    def __init__(self, host_function: str, cause: str, reason: str, *, stderr_tail: str = "") -> None:
        self.host_function, self.cause, self.reason = host_function, cause, reason
        super().__init__(f"{host_function} failed: {reason}", stderr_tail=stderr_tail)


class ReplayDiverged(InvocationError):
    """A guest that is replayed asked the world something else than its recording has. `number` counts its
    calls from 1; `detail` tells both."""

    retryable = False

    def __init__(self, number: int, detail: str, *, stderr_tail: str = "") -> None:
        self.number, self.detail = number, detail
        super().__init__(f"the replay diverged at call {number} to the world: {detail}", stderr_tail=stderr_tail)


class Stopped(InvocationError):
    """It was stopped on request, which is neither success nor the guest's fault. `begun` tells whether the
    guest had begun."""

    retryable = False

    def __init__(self, *, begun: bool = True, stderr_tail: str = "") -> None:
        self.begun = begun
        super().__init__("stopped on request" + ("" if begun else " before it began"), stderr_tail=stderr_tail)


class WorkerLost(InvocationError):
    """The worker process died in the middle of the invocation, for a reason outside the guest's view."""

    def __init__(self, reason: str, *, stderr_tail: str = "") -> None:
        self.reason = reason
        super().__init__(f"the worker was lost: {reason}", stderr_tail=stderr_tail)
