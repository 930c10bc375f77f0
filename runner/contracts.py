"""The contracts that plugins fulfil. They speak in models and bytes, never in a vendor's types.

`runner.testing` holds a conformance suite for each: subclass it, and your backend is held to the
same promises as ours. Everything here may be called from several threads at once unless it says
otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from runner.errors import NotAvailable
from runner.models import Function, FunctionDefinition, InvocationContext, InvocationResult, LogEntry

if TYPE_CHECKING:
    from runner.results import ResultCache
    from runner.run_store import RunStore  # many commands never need a queue

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Availability:
    """Whether a provider can work on this machine. `reason` and `remedy` speak when it cannot."""

    ok: bool
    version: str = ""
    """What would run: the engine's or tool's own version."""
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """What the runner hands to a provider when it creates its part."""

    project_dir: Path
    """The folder of jobs.yaml; relative paths in settings are meant from here."""
    state_dir: Path
    """A folder for what must last, writable by this user only (`.runner` unless told otherwise)."""
    get_wasm_bytes: Callable[[str], bytes]
    """The registry's look-up of a module by its wasm_cid."""
    host_calls: Mapping[str, Callable[[InvocationContext, Sequence[bytes]], bytes]] = field(default_factory=dict)
    """Host functions that are answered by the app and not in the worker, by name. They are called in the
    thread that waits for the invocation. The RunnerError that one raises ends the guest's invocation: an
    InvocationError as it is, any other as HostCallFailed if it is retryable, else as HostCallRefused."""
    on_progress: Callable[[InvocationContext, int], None] | None = None
    """Told what a guest reports of its progress, in percent from 0 to 100: not oftener than ten times a
    second, except that 100 comes at once. A RunnerError that it raises is nobody's. None: nobody wants to
    know."""
    on_logs: Callable[[InvocationContext, Sequence[LogEntry]], None] | None = None
    """Told of the log lines of an invocation that is still running, if its context has a run_id: not oftener
    than ten times a second. Lines that were taken here are not in the result again; by raising a
    RunnerError they are left to it. None: all lines come with the result."""
    notify: Callable[[str], None] = lambda _: None
    """Tells the user one sentence, once (on stderr, for the command line)."""


def always_available() -> Availability:
    """The `available` of a provider that needs nothing but its own package."""
    return Availability(ok=True)


@dataclass(frozen=True, kw_only=True)  # without slots: with them `Provider[Builder](...)` raises TypeError
class Provider(Generic[T]):
    """A named factory that a plugin adds to a catalogue. The name is what jobs.yaml says."""

    name: str
    """What users write; unique in its catalogue."""
    summary: str
    """One line for listings."""
    create: Callable[[Any, Host], T]
    """Makes the part from its settings (an instance of `settings`, or None) and the host. May import
    heavy packages and raise NotAvailable; is called at most once for a Runner."""
    settings: type[Any] | None = None
    """A frozen dataclass whose fields are the keys allowed in jobs.yaml, checked and documented by
    the loader; a field's `metadata={"doc": ...}` is its description. None: no settings."""
    suffixes: tuple[str, ...] = ()
    """For sources and sinks: endings of a `path` (`.jsonl`) for which it is taken when no format is named."""
    available: Callable[[], Availability] = always_available
    """Whether it can work here. Must not raise and must not take long."""
    takes_wasm: bool = True
    """For executors: whether the modules it runs are WebAssembly. False: what `wasm:` names may be any
    file; it is kept, versioned and verified all the same, and only the executor judges it."""
    identity: Callable[[Any], str] | None = None
    """For executors that hold pure functions to being pure: everything about it and about these settings that
    a result may depend on, in one line. None: their results are not used again."""
    install: Callable[[Callable[[str], None]], None] | None = None
    """Brings what `available` misses, unless it is here already. Takes a function that tells the user
    how it goes; may need the network and minutes; raises NotAvailable. None: nothing to install."""


class FunctionRegistry(ABC):
    """Keeps functions, every version of them, their modules and their logs."""

    @abstractmethod
    def register(
        self, definition: FunctionDefinition, wasm: bytes, *, source_cid: str | None = None
    ) -> Function | None:
        """Make `definition` with these module bytes the newest version.

        Atomic: after a failure nothing has changed. The same bytes and settings as the newest
        active version change nothing, make no new version and return that version itself.

        Returns the *previous* newest active version when there was one, None when the name is new
        (or all its versions were deleted; versions still count on).
        A `definition.version` other than 0 must be the next one, else UsageError.
        """

    @abstractmethod
    def get(self, namespace: str, name: str, version: int = 0) -> Function:
        """The function; `version=0` is the newest active. Raises FunctionNotFound, with the nearest
        name as its suggestion, when there is none or it was deleted."""

    @abstractmethod
    def list(self, namespace: str) -> Sequence[Function]:
        """The newest active version of every function, by name."""

    @abstractmethod
    def versions(self, namespace: str, name: str) -> Sequence[Function]:
        """Every version, deleted ones too, newest first. Raises FunctionNotFound for an unknown name."""

    @abstractmethod
    def delete(self, namespace: str, name: str, version: int = 0) -> int:
        """Mark a version (0: all) inactive and return how many changed. Modules and history stay.
        Raises FunctionNotFound when there is nothing active to delete."""

    @abstractmethod
    def get_wasm_bytes(self, wasm_cid: str) -> bytes:
        """The module's bytes, verified against the content id.
        Raises StoreDamaged when they do not match, InvalidInput when the id is unknown."""

    @abstractmethod
    def add_logs(self, function: Function, request_id: str, entries: Sequence[LogEntry]) -> None:
        """Keep log lines of one invocation, in order."""

    @abstractmethod
    def get_logs(self, namespace: str, name: str, limit: int = 100) -> Sequence[LogEntry]:
        """The newest `limit` lines of all versions, oldest first. Raises FunctionNotFound for an
        unknown name; a deleted function's logs can still be read."""

    def run_store(self) -> RunStore:
        """The durable queue that this backend keeps beside its functions, the same object each time;
        `close` closes it too. Raises NotAvailable for a backend without one."""
        raise NotAvailable(f"the registry backend {type(self).__name__} keeps no runs; name another in `registry:`")

    def result_cache(self, *, max_bytes: int, tell: Callable[[str], None]) -> ResultCache | None:  # noqa: ARG002
        """A new cache of the results of pure functions that may take so many bytes, which the caller closes.
        It `tell`s a sentence when something is wrong with it. None for a backend that keeps no results."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Give back files and connections. May be called twice."""


class FunctionExecutor(ABC):
    """Runs functions, each invocation in a sandbox with fresh state."""

    @abstractmethod
    def execute_many(
        self, function: Function, inputs: Iterable[bytes], context: InvocationContext
    ) -> Iterator[InvocationResult]:
        """Run one invocation for each input and yield one result for each, in order.

        Inputs are taken as they are needed, so `inputs` may be endless; memory stays bounded. An
        invocation that fails is a result with its error and does not disturb the others. What stands
        in the way of all of them (a module that is refused, an engine that cannot start) is raised.
        Closing the iterator early stops what is running.
        """

    def execute(self, function: Function, input: bytes, context: InvocationContext) -> bytes:
        """Run one invocation and return its output; raises the error that ended it."""
        return self.invoke(function, input, context).unwrap()

    def invoke(self, function: Function, input: bytes, context: InvocationContext) -> InvocationResult:
        """Run one invocation and return its result with logs and measures."""
        results = self.execute_many(function, (input,), context)
        return next(iter(results))

    @abstractmethod
    def stop(self, request_id: str) -> bool:
        """End what runs under contexts with this request_id, at once and from any thread: an `invoke`
        (from its call on, a compilation or a wait for a free worker included) or all that is left of an
        `execute_many` (from the first result that is asked for).

        What was running or had not begun ends as Stopped, one result for each input as always; what had
        ended stays as it was. Others are not disturbed. Returns False if nothing ran under it; True is no
        promise that it was in time: the result tells.
        """

    @abstractmethod
    def precompile(self, wasm_cid: str, wasm: bytes, *, memory_limit_mb: int = 64) -> None:
        """Check and compile the module now, so that the first invocation need not.
        Raises InvalidModule when it can never run here. Doing it again costs next to nothing."""

    @abstractmethod
    def invalidate(self, wasm_cid: str) -> None:
        """Forget everything compiled from this module, in memory and on disk."""

    def walls(self) -> Mapping[str, str]:
        """Every wall between a guest and the machine, in the order in which they rise: '' for one that
        stands, else why it cannot here. Empty for an executor that has nothing to tell. Raises
        EngineUnavailable when the engine does not start."""
        return {}

    def workers(self) -> Sequence[str]:
        """What each worker is at, in a word or two for people (`idle`, `busy`, `busy 12 s`), always in the
        same order. Asked for now and then, from any thread; empty for an executor that has none to tell of."""
        return ()

    @abstractmethod
    def close(self) -> None:
        """End every process it started and wait for them. May be called twice."""


class Builder(ABC):
    """Compiles one kind of source file to a WebAssembly module."""

    @property
    @abstractmethod
    def suffixes(self) -> tuple[str, ...]:
        """The file name endings it takes, with the dot (`.c`)."""

    @property
    @abstractmethod
    def version(self) -> str:
        """The compiler and its version; a part of the build cache's key."""

    @abstractmethod
    def build(self, source: Path) -> bytes:
        """The module's bytes; the same source and compiler give the same bytes on every machine.
        Raises BuildError with the compiler's diagnostics, ToolchainUnavailable without a compiler."""
