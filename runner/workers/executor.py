"""The executor that every engine in worker processes shares: check, compile, cache, run.

An engine's plugin names its engine module, the imports it answers and the features it has been
found to run correctly; all else is here.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from runner import wasm as wasm_modules
from runner.contracts import FunctionExecutor, Host
from runner.errors import InputTooLarge, InvalidInput, UnsupportedFeature
from runner.models import Abi, Function, InvocationContext, InvocationResult
from runner.workers.answers import Answers
from runner.workers.artifacts import ArtifactCache
from runner.workers.compiler import compile_module
from runner.workers.frames import FrameRun
from runner.workers.launch import EngineSpec
from runner.workers.pool import Pool
from runner.workers.processes import Module
from runner.workers.protocol import PROGRESS, encode_facts, encode_shared
from runner.workers.recording import Recorded
from runner.workers.running import Running
from runner.workers.settings import WorkerSettings

TABLE_LIMIT = 100_000
"""The most elements a table may have: an uncapped `table.grow` aborts the process."""
MODULES_KEPT = 256
MEBIBYTE = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineTraits:
    """What an engine's plugin declares about it."""

    signatures: Mapping[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]]
    """Every import it answers: (module, name) to parameters and results."""
    features: frozenset[str]
    """The Wasm features it has been found to run correctly; a module with another is refused."""
    other: str | None = None
    """The executor to name when a module is refused."""


class WorkerExecutor(FunctionExecutor):
    """Runs functions in the worker processes of one engine."""

    def __init__(self, spec: EngineSpec, traits: EngineTraits, settings: WorkerSettings, host: Host) -> None:
        self._spec, self._traits, self._settings, self._host = spec, traits, settings, host
        self._cache = ArtifactCache(host.state_dir / "artifacts", f"{spec.name}-{spec.version}")
        self._modules: OrderedDict[tuple[str, int], Module] = OrderedDict()
        self._last_facts: tuple[Function, dict[str, str], dict[str, str], bytes] | None = None
        self._lock = threading.Lock()
        self._running = Running()
        self._log_bytes = settings.log_limit_kb * 1024 * 8
        """The most that the log lines of one invocation may have as JSON: escapes are longer than bytes."""
        self._compiling: dict[tuple[str, int], threading.Lock] = {}
        allowed = frozenset(filter(None, os.environ.get("RUNNER_ALLOW_MISSING_WALLS", "").split(",")))
        self._pool = Pool(
            spec,
            size=settings.workers or len(os.sched_getaffinity(0)),
            allow_missing_walls=allowed | frozenset(settings.allow_missing_walls),
        )
        self._pool.start()

    def execute_many(
        self, function: Function, inputs: Iterable[bytes], context: InvocationContext
    ) -> Iterator[InvocationResult]:
        """See FunctionExecutor. An input over input_limit_mb is a result with InputTooLarge."""
        run = self._frame_run(function, context)
        self._running.add(run)
        try:
            module = self._module_of(function)
        finally:
            self._running.remove(run)
        return self._guarded(run, module, inputs)

    def invoke(self, function: Function, input: bytes, context: InvocationContext) -> InvocationResult:
        """See FunctionExecutor."""
        run = self._frame_run(function, context)
        self._running.add(run)
        try:
            module = self._module_of(function)
            refused = self._refuse(input)
            return InvocationResult(None, refused) if refused else run.run_one(module, input)
        finally:
            self._running.remove(run)

    def stop(self, request_id: str) -> bool:
        """See FunctionExecutor. The workers that run it are killed."""
        return self._running.stop(request_id)

    def _frame_run(self, function: Function, context: InvocationContext) -> FrameRun:
        return FrameRun(
            self._pool,
            context.request_id,
            self._facts(function, context),
            function.timeout_seconds,
            Answers(self._host, context, log_bytes=self._log_bytes),
            result_limit_bytes=self._settings.output_limit_mb * MEBIBYTE + self._log_bytes,
            recording_limit_bytes=context.record.limit_bytes if context.record is not None else 0,
        )

    def _refuse(self, input: bytes) -> InputTooLarge | None:
        limit = self._settings.input_limit_mb * MEBIBYTE
        return InputTooLarge(len(input), limit) if len(input) > limit else None

    def _module_of(self, function: Function) -> Module:
        return self._module(function.wasm_cid, function.memory_limit_mb, self._host.get_wasm_bytes)

    def _guarded(self, run: FrameRun, module: Module, inputs: Iterable[bytes]) -> Iterator[InvocationResult]:
        source = iter(inputs)
        refused: InputTooLarge | None = None

        def small_enough() -> Iterator[bytes]:
            nonlocal refused
            for data in source:
                refused = self._refuse(data)
                if refused is not None:
                    return
                yield data

        self._running.add(run)
        try:
            # The stream is cut at an input that is too large and goes on behind it, in order.
            while True:
                yield from run.run(module, small_enough())
                if refused is None:
                    return
                yield InvocationResult(None, refused)
                refused = None
        finally:
            self._running.remove(run)

    def precompile(self, wasm_cid: str, wasm: bytes, *, memory_limit_mb: int = 64) -> None:
        """See FunctionExecutor."""
        self._module(wasm_cid, memory_limit_mb, lambda _: wasm)

    def invalidate(self, wasm_cid: str) -> None:
        """See FunctionExecutor."""
        with self._lock:
            for key in [key for key in self._modules if key[0] == wasm_cid]:
                del self._modules[key]
        self._cache.remove(wasm_cid)

    def walls(self) -> Mapping[str, str]:
        """See FunctionExecutor."""
        return self._pool.walls()

    def workers(self) -> Sequence[str]:
        """See FunctionExecutor."""
        return self._pool.states()

    def close(self) -> None:
        """See FunctionExecutor."""
        self._pool.close()

    def _facts(self, function: Function, context: InvocationContext) -> bytes:
        own: dict[str, object] = {"request_id": context.request_id, "caller_wallet": context.caller_wallet}
        if context.run_id is not None and self._host.on_logs is not None:
            own["live_logs"] = True
        self._add_world(own, function, context)
        env_vars, secrets = dict(context.env_vars), dict(context.secrets)
        last = self._last_facts
        if last is not None and last[0] is function and last[1:3] == (env_vars, secrets):
            return encode_facts(last[3], own)
        shared = encode_shared(
            {
                "name": function.name,
                "env_vars": env_vars,
                "secrets": secrets,
                "timeout_seconds": function.timeout_seconds,
                "memory_limit_mb": function.memory_limit_mb,
                "output_limit_bytes": self._settings.output_limit_mb * MEBIBYTE,
                "log_limit_bytes": self._settings.log_limit_kb * 1024,
                "host_calls": [*sorted(self._host.host_calls), *([PROGRESS] if self._host.on_progress else [])],
            }
        )
        self._last_facts = (function, env_vars, secrets, shared)
        return encode_facts(shared, own)

    def _add_world(self, own: dict[str, object], function: Function, context: InvocationContext) -> None:
        """What `runner.workers.recording.world_of` makes the guest's world of."""
        replay, record = context.replay, context.record
        if replay is not None:
            try:
                Recorded.parse(replay.recording)
            except ValueError as why:
                raise InvalidInput(f"the recording of {function.name} cannot be read: {why}") from None
            own["replay"] = {"recording": replay.recording.decode(), "absent": replay.absent_secrets}
        elif function.pure:
            own["pure"] = True
        elif record is not None:
            own["record"] = {
                "keep_all": record.keep_all,
                "limit_bytes": record.limit_bytes,
                "engine": f"{self._spec.name} {self._spec.version}",
            }

    def _module(self, wasm_cid: str, memory_limit_mb: int, get_wasm: Callable[[str], bytes]) -> Module:
        key = (wasm_cid, memory_limit_mb)
        with self._lock:
            module = self._modules.get(key)
            if module is not None:
                self._modules.move_to_end(key)
                return module
            compiling = self._compiling.setdefault(key, threading.Lock())
        try:
            with compiling:  # a second thread that wants the same module waits for the first
                with self._lock:
                    module = self._modules.get(key)
                if module is None:
                    module = self._cached(wasm_cid, memory_limit_mb) or self._compiled(
                        wasm_cid, get_wasm(wasm_cid), memory_limit_mb
                    )
                with self._lock:
                    self._modules[key] = module
                    while len(self._modules) > MODULES_KEPT:
                        self._modules.popitem(last=False)
        finally:
            with self._lock:
                self._compiling.pop(key, None)
        return module

    def _cached(self, wasm_cid: str, memory_limit_mb: int) -> Module | None:
        kept = self._cache.get(wasm_cid, f"{memory_limit_mb}mb")
        if kept is None:
            return None
        abi, _, artifact = kept.partition(b"\n")
        return Module(f"{wasm_cid}-{memory_limit_mb}", artifact, Abi(abi.decode()))

    def _compiled(self, wasm_cid: str, wasm: bytes, memory_limit_mb: int) -> Module:
        info = wasm_modules.inspect(wasm)
        unverified = sorted(info.features - self._traits.features)
        if unverified:
            raise UnsupportedFeature(", ".join(unverified), executor=self._spec.name, other=self._traits.other)
        abi = wasm_modules.entry_point(info)
        wasm_modules.check_imports(info, self._traits.signatures)
        capped = wasm_modules.cap(wasm, info, memory_limit_mb=memory_limit_mb, table_limit=TABLE_LIMIT)
        artifact = compile_module(self._spec, capped, timeout_seconds=self._settings.compile_timeout_seconds)
        self._cache.put(wasm_cid, f"{memory_limit_mb}mb", abi.value.encode() + b"\n" + artifact)
        return Module(f"{wasm_cid}-{memory_limit_mb}", artifact, abi)
