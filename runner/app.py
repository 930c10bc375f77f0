"""The Runner: the only place where configuration, plugins, registry and executors are put together.

Open one, use it, close it (it is a context manager). It may be used from several threads.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from runner import wasm as wasm_modules
from runner.automatic import AutoExecutor, available_executors
from runner.config import Choice, Config, FunctionConfig
from runner.contracts import Builder, FunctionExecutor, FunctionRegistry, Host
from runner.dispatcher import Dispatcher
from runner.errors import (
    EngineUnavailable,
    FunctionNotFound,
    InvalidModule,
    NotAvailable,
    RunnerError,
    ToolchainUnavailable,
    UsageError,
)
from runner.files import make_state_folder, read_file
from runner.hostcalls import host_calls
from runner.jobskeys import AUTO_EXECUTOR
from runner.loading import load
from runner.models import Function, FunctionDefinition, InvocationContext, InvocationResult, LogEntry
from runner.plugins import Plugins
from runner.purity import check_pure
from runner.reports import Registered

if TYPE_CHECKING:
    from runner.reuse import Reuse
    from runner.run_store import RunStore
    from runner.runs import Enqueued
    from runner.triggers import Trigger, TriggerSource

STATE_FOLDER = ".runner"


def _say(message: str) -> None:
    print(message, file=sys.stderr)


class Runner:
    """A project with its parts."""

    def __init__(
        self,
        config: Config,
        plugins: Plugins,
        *,
        state_dir: Path | None = None,
        cache_dir: Path | None = None,
        notify: Callable[[str], None] = _say,
    ) -> None:
        """`cache_dir` is where executors and builders keep what can be made again; the `state_dir` unless
        told otherwise."""
        self.config = config
        self.plugins = plugins
        self.project_dir = config.path.parent
        self.state_dir = state_dir or self.project_dir / STATE_FOLDER
        self.cache_dir = cache_dir or self.state_dir
        self._told: set[str] = set()
        self._notify = notify
        self._lock = threading.RLock()
        self._executors: list[tuple[str, Any, FunctionExecutor]] = []
        self._registry: FunctionRegistry | None = None
        self._builders: dict[str, Builder] = {}
        self._automatic: AutoExecutor | None = None
        self._sources: dict[str, TriggerSource] = {}
        self._registered: dict[str, tuple[FunctionDefinition, str, str]] = {}
        """What register has done: of which definition and module which function was made."""
        self._reuse: Reuse | None = None
        self.may_reuse = True
        """Whether results of pure functions may be used again, if jobs.yaml says so. May be set at any time."""
        self.on_progress: Callable[[InvocationContext, int], None] = lambda _context, _percent: None
        """See Host.on_progress. May be set at any time."""
        self.on_logs: Callable[[InvocationContext, Sequence[LogEntry]], None] | None = None
        """See Host.on_logs. To be set before anything runs: an executor that has started keeps to it."""
        self.dispatcher = Dispatcher(
            open_registry=lambda: self.registry,
            executor_for=self.executor_for,
            moments=plugins,
            notify=notify,
            record=config.record,
            failed=self.keep_failure,
        )

    @classmethod
    def open(
        cls,
        path: Path,
        plugins: Plugins,
        *,
        state_dir: Path | None = None,
        notify: Callable[[str], None] = _say,
    ) -> Runner:
        """Load a jobs.yaml. Raises ConfigError with all of its problems, FileUnavailable without it."""
        return cls(load(path, plugins.catalogue), plugins, state_dir=state_dir, notify=notify)

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every process and give back every file. May be called twice."""
        with self._lock:
            for _, _, executor in self._executors:
                executor.close()
            self._executors.clear()
            self._automatic = None
            if self._reuse is not None:
                self._reuse.close()
                self._reuse = None
            if self._registry is not None:
                self._registry.close()
                self._registry = None

    def tell_once(self, message: str) -> None:
        """Tell the user a sentence that need not be repeated."""
        if message not in self._told:
            self._told.add(message)
            self._notify(message)

    # Parts

    @property
    def registry(self) -> FunctionRegistry:
        """The registry backend that jobs.yaml names."""
        with self._lock:
            if self._registry is None:
                choice = self.config.registry
                provider = self.plugins.catalogue.get("registries", choice.name)
                make_state_folder(self.state_dir)
                self._registry = provider.create(choice.settings, self._host(_no_modules))
            return self._registry

    def executor(self, name: str, settings: Any = None) -> FunctionExecutor:
        """The executor of that name and settings, started at its first use."""
        with self._lock:
            provider = self.plugins.catalogue.get("executors", name)
            if settings is None and provider.settings is not None:
                settings = provider.settings()
            for known, known_settings, executor in self._executors:
                if known == name and known_settings == settings:
                    return executor
            executor = self._create_executor(name, settings)
            self._executors.append((name, settings, executor))
            return executor

    def _create_executor(self, name: str, settings: Any) -> FunctionExecutor:
        provider = self.plugins.catalogue.get("executors", name)
        available = provider.available()
        if not available.ok:
            raise EngineUnavailable(name, available.reason, remedy=available.remedy or None)
        with contextlib.suppress(RunnerError):  # whoever cannot do without it tells why
            make_state_folder(self.cache_dir)  # before an engine makes it, for everybody to read
        executor: FunctionExecutor = provider.create(
            settings, self._host(lambda cid: self.registry.get_wasm_bytes(cid), self.cache_dir)
        )
        return executor

    def prepare(self, name: str) -> None:
        """Begin to start what will run a function of jobs.yaml, without waiting for it. What stands in its
        way is left for the run to tell."""
        configured = self.config.functions.get(name)
        if configured is None:
            return
        choice = configured.executor
        with contextlib.suppress(NotAvailable):
            automatic = choice.name == AUTO_EXECUTOR
            self.executor(self.automatic_executors()[0] if automatic else choice.name, choice.settings)

    def executor_for(self, function: Function) -> FunctionExecutor:
        """The executor that runs this function; `auto` is resolved here."""
        configured = self.config.functions.get(function.name)
        settings = (
            configured.executor.settings if configured and configured.executor.name == function.executor else None
        )
        if function.executor != AUTO_EXECUTOR:
            return self.executor(function.executor, settings)
        with self._lock:
            if self._automatic is None:
                self._automatic = AutoExecutor(self.automatic_executors(), self.executor, self.tell_once)
            return self._automatic

    def automatic_executors(self) -> list[str]:
        """The available executors that `auto` may take, best first. Raises EngineUnavailable without any."""
        return available_executors(self.plugins.catalogue.executors)

    def _host(self, get_wasm_bytes: Callable[[str], bytes], state_dir: Path | None = None) -> Host:
        return Host(
            project_dir=self.project_dir,
            state_dir=state_dir or self.state_dir,
            get_wasm_bytes=get_wasm_bytes,
            host_calls=host_calls(self, _now),
            on_progress=lambda context, percent: self.on_progress(context, percent),
            on_logs=self.on_logs,
            notify=self.tell_once,
        )

    def make(self, kind: str, choice: Choice) -> Any:
        """A part of a kind of the catalogue, with its settings; whoever asked for it closes it."""
        return self.plugins.catalogue.get(kind, choice.name).create(choice.settings, self._host(_no_modules))

    @property
    def reuse(self) -> Reuse:
        """The results of pure functions, kept to be used again."""
        from runner.reuse import reuse_of  # most projects never need it

        with self._lock:
            self._reuse = self._reuse or reuse_of(self, time.time)
            return self._reuse

    # Registering

    def module_of(self, function: FunctionConfig) -> tuple[bytes, str | None]:
        """The module's bytes, built if it has a source, and the source's content id."""
        if function.wasm is not None:
            return read_file(function.wasm), None
        assert function.source is not None
        source = read_file(function.source)
        return self._builder(function.source).build(function.source), wasm_modules.content_id(source)

    def _builder(self, source: Path) -> Builder:
        providers = self.plugins.catalogue.builders
        for name, provider in providers.items():
            if source.suffix in name.split(","):
                if name not in self._builders:
                    make_state_folder(self.cache_dir)
                    settings = provider.settings() if provider.settings is not None else None
                    self._builders[name] = provider.create(settings, self._host(_no_modules, self.cache_dir))
                return self._builders[name]
        known = ", ".join(suffix for name in providers for suffix in name.split(","))
        raise ToolchainUnavailable(f"no builder takes {source.name}; there are builders for {known or 'nothing'}")

    def register(self, name: str) -> Registered:
        """Register one function of jobs.yaml, if it changed since it was registered last."""
        configured = self.config.functions[name]
        wasm, source_cid = self.module_of(configured)
        try:
            before: Function | None = self.registry.get(self.config.namespace, name)
        except FunctionNotFound:
            before = None
        pure, wasm_cid = configured.definition.pure, wasm_modules.content_id(wasm)
        if before is not None and self._registered.get(name) == (configured.definition, wasm_cid, before.id):
            return Registered(function=before, changed=False, previous=before)
        new = before is None or (before.wasm_cid, before.pure) != (wasm_cid, pure)
        if new and self.plugins.catalogue.takes_wasm(configured.executor.name):
            try:
                module = wasm_modules.inspect(wasm)
                wasm_modules.entry_point(module)  # what can never run is not registered
                if pure:
                    check_pure(module)
            except InvalidModule as error:
                error.args = (f"{self._place(configured)}: {error}",)
                raise
        previous = self.registry.register(configured.definition, wasm, source_cid=source_cid)
        function = self.registry.get(self.config.namespace, name)
        changed = before is None or before.id != function.id
        self._registered[name] = (configured.definition, wasm_cid, function.id)
        return Registered(function=function, changed=changed, previous=previous)

    def _place(self, function: FunctionConfig) -> str:
        """How a message names a function and where it is declared; `runner map` declares one nowhere."""
        line = f"{self.config.path.name}:{function.line}: " if function.line else ""
        file = function.wasm or function.source
        return f"{line}function {function.definition.name!r}{f', {file.name}' if file else ''}"

    # Queue and triggers

    @property
    def store(self) -> RunStore:
        """The durable queue of the registry backend. Raises NotAvailable for one that keeps none."""
        return self.registry.run_store()

    def trigger_source(self, kind: str) -> TriggerSource:
        """The source of one kind of trigger, made at its first use; whoever starts it stops it."""
        with self._lock:
            if kind not in self._sources:
                provider = self.plugins.catalogue.get("triggers", kind)
                self._sources[kind] = provider.create(None, self._host(_no_modules))
            return self._sources[kind]

    def triggers(self) -> list[Trigger]:
        """Every trigger of jobs.yaml. Raises ConfigError for two of one job that mean the same."""
        from runner.admission import triggers_of  # many commands never need a queue

        return triggers_of(self.config, self.trigger_source)

    def enqueue(self, job: str, payloads: Sequence[bytes] = (b"",), **facts: Any) -> list[Enqueued]:
        """Accept a run of the job for each payload, all or none: on return they are on the disk.

        Its functions are registered first if they changed. `facts` are the keyword arguments of
        `admission.new_run`: run_at, queue, priority, unique_key, on_conflict, trigger_type, parent_id.
        Raises UsageError, InputTooLarge, RunConflict, StoreError.
        """
        from runner.admission import check_input, new_run, pin

        configured = self.config.job(job)
        for payload in payloads if configured.params else ():
            check_input(configured, payload or (configured.input.read() if configured.input else b""))
        functions = {name: self.register(name).function for name in self.config.functions_of(job)}
        run = new_run(configured, pin(self.config, configured, functions), **facts)
        return self.store.enqueue([run._replace(payload=payload) for payload in payloads], now=_now())

    # Running

    def jobs_without_event(self) -> list[str]:
        """The jobs that `runner run` runs when none is named: those without triggers."""
        return [name for name, job in self.config.jobs.items() if not job.triggers]

    def context(self, function: Function, env_vars: Mapping[str, str] | None = None) -> InvocationContext:
        """A new context for one invocation; `env_vars` come on top of the function's own."""
        return InvocationContext(
            request_id=uuid.uuid4().hex,
            function_id=function.id,
            function_name=function.name,
            namespace=function.namespace,
            env_vars={**function.env_vars, **(env_vars or {})},
            secrets={
                name: self.config.secrets[name].resolve() for name in function.secrets if name in self.config.secrets
            },
            allow=function.allow,
        )

    def invoke(
        self,
        name: str,
        input: bytes,
        *,
        version: int = 0,
        env_vars: Mapping[str, str] | None = None,
        reuse: bool = False,
    ) -> InvocationResult:
        """One attempt of a function, or with `reuse` what is known of its results. A function of jobs.yaml
        that is not registered yet is, first.

        Raises FunctionNotFound, and whatever stands in the way of any attempt; how the guest ended
        is in the result.
        """
        function = self.function(name, version)
        context, attempt = self.context(function, env_vars), self.dispatcher.attempt
        return self.reuse.once(attempt, function, input, context) if reuse else attempt(function, input, context)

    def keep_failure(
        self, function: Function, input: bytes, context: InvocationContext, result: InvocationResult
    ) -> None:
        """Keep a failed attempt as a file that `runner replay` runs, if `recording:` has it kept, and tell which."""
        from runner import failures  # most invocations go well

        try:
            path = failures.keep(self.state_dir, function, input, context, result, wasm_of=self.registry.get_wasm_bytes)
        except RunnerError as error:
            self.tell_once(f"what {function.name} failed at could not be kept: {error}")
        else:
            if path is not None:
                self.tell_once(f"{function.name}: `runner replay {failures.shown(path)}` runs it again, as it was")

    def function(self, name: str, version: int = 0) -> Function:
        """The function; one of jobs.yaml that was never registered is registered now."""
        try:
            return self.registry.get(self.config.namespace, name, version)
        except FunctionNotFound:
            if version or name not in self.config.functions:
                raise
            return self.register(name).function


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _no_modules(wasm_cid: str) -> bytes:
    raise UsageError(f"module {wasm_cid} was asked for before there is a registry")
