"""The wasmtime engine: compiles with Cranelift in a compile process, runs in the workers.

WASI is the layer of runner.workers.wasi and not wasmtime's own: that one starts threads (the tokio
runtime) at a guest's first read or write. A worker may start none behind its last wall, and in a
process forked after they were started a guest's first read never returns.
"""

from __future__ import annotations

from typing import Final

from wasmtime import Config, FuncType, MemoryType, Module, Trap, TrapCode, WasmtimeError
from wasmtime import Engine as Runtime

from runner.errors import (
    BadOutput,
    Exited,
    InvalidModule,
    InvocationError,
    OutOfMemory,
    OutputTooLarge,
    TimedOut,
    Trapped,
    UnknownImport,
)
from runner.models import Abi
from runner.workers.engine import Call, Engine, Loaded
from runner.workers.marshal import import_function
from runner.workers.wasi.abi import U32_MAX
from runner.workers.wasi.memory import ALLOCATORS, PointerFault
from runner.workers.wasi.preview1 import ProcExit, Wasi
from runner_wasmtime.native import Guest, Import, Limits, Program, use_one_slot
from runner_wasmtime.signatures import SIGNATURES
from runner_wasmtime.traps import code_of, reason, trapped
from runner_wasmtime.watchdog import Watchdog

PAGE_BYTES: Final = 1 << 16
STACK_BYTES: Final = 1 << 20
"""A guest's stack; deeper recursion traps."""
MEBIBYTE: Final = 1 << 20
LIMITS: Final = Limits(
    tables=64, table_elements=100_000, memory_bytes=1 << 32, keep_bytes=256 << 10, instance_bytes=16 * MEBIBYTE
)

_MAGIC: Final = b"\0asm\x01\0\0\0"
_REACTOR_ALLOCATORS: Final = ("malloc", "alloc")
_MEMORY_TRAPS: Final = frozenset({"unreachable", "out_of_bounds_memory"})
"""How a guest ends that found no memory: it aborts, or uses the null pointer it was given."""

Exports = dict[str, object]
"""The types of a module's exports, by name."""


class EngineFault(Exception):
    """Wasmtime itself failed; nothing in this process can be relied on any more."""


class WasmtimeEngine:
    """Wasmtime with Cranelift, as `runner.workers.engine.Engine`."""

    def __init__(self) -> None:
        self._runtime: Runtime | None = None
        self._watchdog: Watchdog | None = None

    def prepare_compile(self) -> None:
        """Make the compiler. Its threads start with the first module."""
        self._runtime = Runtime(_config(parallel=True))

    def compile(self, wasm: bytes) -> bytes:
        """The serialized native code."""
        if wasm[: len(_MAGIC)] != _MAGIC:  # wasmtime-py would take other bytes for WebAssembly text
            raise InvalidModule(
                f"these {len(wasm):,} bytes are no WebAssembly module: they do not begin with its magic"
            )
        try:
            return bytes(Module(self.runtime, wasm).serialize())
        except WasmtimeError as error:
            raise InvalidModule(f"the module is invalid: {reason(error)}") from None

    def warm_up(self) -> None:
        """Make the runtime, which starts no thread and opens nothing."""
        self._runtime = Runtime(_config())

    def start(self) -> None:
        """Start the thread that stops a guest at its deadline."""
        self._watchdog = Watchdog(self.runtime.increment_epoch)
        self._watchdog.start()

    def stop(self) -> None:
        """End that thread. Workers need not; a process that goes on does."""
        if self._watchdog is not None:
            self._watchdog.stop()
            self._watchdog = None

    def load(self, artifact: bytes, abi: Abi) -> Loaded:
        """The module of a compiled artifact. Starts the thread if `start` was not called."""
        if self._watchdog is None:
            self.start()
        assert self._watchdog is not None
        module = Module.deserialize(self.runtime, artifact)
        return (CommandModule if abi is Abi.COMMAND else ReactorModule)(self.runtime, module, self._watchdog)

    @property
    def runtime(self) -> Runtime:
        """Wasmtime's own engine object, made when first needed."""
        if self._runtime is None:
            self.warm_up()
        assert self._runtime is not None
        return self._runtime


def engine() -> Engine:
    """The factory that `runner.workers.engine.import_engine` calls."""
    return WasmtimeEngine()


def _config(*, parallel: bool = False) -> Config:
    """The same for compiling and running, but for threads: wasmtime refuses an artifact otherwise."""
    config = Config()
    config.epoch_interruption = True
    config.max_wasm_stack = STACK_BYTES
    config.wasm_relaxed_simd_deterministic = True
    config.memory_may_move = False
    # An image of the initial memory would be a file in memory, and a worker may not make files grow.
    config.memory_init_cow = False
    config.parallel_compilation = parallel
    use_one_slot(config, LIMITS)
    return config


def _imports(module: Module, wasi: Wasi) -> list[Import]:
    """The functions a module asks for. Raises UnknownImport or InvalidModule for an import that none
    answers as the module wants it."""
    found: list[Import] = []
    for wanted in module.imports:
        name = wanted.name or ""
        signature = SIGNATURES.get((wanted.module, name))
        if signature is None:
            raise UnknownImport(wanted.module, name)
        if not _is_function(wanted.type, *signature):
            raise InvalidModule(f"the import {wanted.module}.{name} has another type than the function it names")
        found.append((wanted.module, name, signature, import_function(wanted.module, name, wasi)))
    wasi.counts_cpu_time = any(name == "clock_time_get" for _, name, _, _ in found)
    return found


def _is_function(found: object, parameters: tuple[str, ...], results: tuple[str, ...]) -> bool:
    return (
        isinstance(found, FuncType)
        and tuple(map(str, found.params)) == parameters
        and tuple(map(str, found.results)) == results
    )


class _Module:
    """What both kinds of modules share: instantiate, run, tell how it ended. One invocation at a time."""

    __slots__ = ("_has_memory", "_maximum_bytes", "_program", "_wasi", "_watchdog")

    def __init__(self, runtime: Runtime, module: Module, watchdog: Watchdog) -> None:
        self._watchdog = watchdog
        self._wasi = Wasi()
        self._program = Program(runtime, module, _imports(module, self._wasi))
        exports: Exports = {export.name: export.type for export in module.exports}
        memory = exports.get("memory")
        self._has_memory = isinstance(memory, MemoryType)
        maximum = memory.limits.max if isinstance(memory, MemoryType) else None
        self._maximum_bytes: float = float("inf") if maximum is None else maximum * PAGE_BYTES
        self._wasi.allocator = _allocator(exports, ALLOCATORS)
        self.check(exports)

    def check(self, exports: Exports) -> None:
        """Raise InvalidModule when the exports are not those of this ABI."""
        raise NotImplementedError

    def run(self, guest: Guest, input: bytes, call: Call) -> bytes:
        """Call the guest; returns its output."""
        raise NotImplementedError

    def stdin(self, input: bytes) -> bytes:
        """What the guest finds on its standard input."""
        raise NotImplementedError

    def output_at_exit(self) -> bytes:
        """The output of a guest that ended with proc_exit(0)."""
        return b""

    def invoke(self, input: bytes, call: Call) -> tuple[bytes, int]:
        """See `runner.workers.engine.Loaded`."""
        wasi, watchdog = self._wasi, self._watchdog
        wasi.begin(call, self.stdin(input))
        guest = Guest(self._program, memory_bytes=call.memory_limit_mb * MEBIBYTE, limits=LIMITS)
        watchdog.arm(call.timeout_seconds)
        size = 0
        failure: InvocationError | None = None
        try:
            output = self._instantiate_and_run(guest, input, call)
        except ProcExit as ended:
            if ended.code:
                failure = Exited(ended.code)
            else:
                output = self.output_at_exit()
        except InvocationError as error:
            failure = error
        except Trap as trap:
            failure = _failure(trap, call)
        finally:
            watchdog.disarm()
            size = wasi.refresh()
            wasi.end()
            guest.close()
        if failure is not None:
            raise self._explained(failure, size, call)
        return output, size

    def _instantiate_and_run(self, guest: Guest, input: bytes, call: Call) -> bytes:
        try:
            guest.instantiate()
        except WasmtimeError as error:
            raise OutOfMemory(call.memory_limit_mb, reason(error)) from None
        if self._has_memory:
            guest.open_memory()
        self._wasi.attach(guest, guest if self._has_memory else None)
        return self.run(guest, input, call)

    def _explained(self, failure: InvocationError, size: int, call: Call) -> InvocationError:
        """The error to raise: out of memory if that is why it failed, with the end of stderr, and
        without the frames that keep what the guest used alive."""
        maximum = min(self._maximum_bytes, call.memory_limit_mb * MEBIBYTE)
        at_limit = size > maximum - PAGE_BYTES
        if at_limit and (isinstance(failure, Exited) or getattr(failure, "trap", None) in _MEMORY_TRAPS):
            failure = OutOfMemory(call.memory_limit_mb, str(failure))
        failure.stderr_tail = call.logs.tail
        failure.__traceback__ = failure.__context__ = None
        failure.memory_peak_bytes = size  # type: ignore[attr-defined]
        return failure


class CommandModule(_Module):
    """A WASI command: `_start`, input on stdin, output on stdout."""

    __slots__ = ()

    def check(self, exports: Exports) -> None:
        if not _is_function(exports.get("_start"), (), ()):
            raise InvalidModule("the module is no command: it exports no function `_start` without parameters")

    def stdin(self, input: bytes) -> bytes:
        return input

    def run(self, guest: Guest, input: bytes, call: Call) -> bytes:  # noqa: ARG002
        guest.call(b"_start")
        return bytes(self._wasi.output)

    def output_at_exit(self) -> bytes:
        return bytes(self._wasi.output)


class ReactorModule(_Module):
    """A reactor: `handle(ptr, len) -> i64` over its own allocator. Its stdout goes to the log."""

    __slots__ = ("_allocate", "_initializes")

    def check(self, exports: Exports) -> None:
        if not self._has_memory or not _is_function(exports.get("handle"), ("i32", "i32"), ("i64",)):
            raise InvalidModule("the module is no reactor: it must export `memory` and `handle(i32, i32) -> i64`")
        allocator = _allocator(exports, _REACTOR_ALLOCATORS)
        if allocator is None:
            raise InvalidModule("the module is no reactor: it exports neither `malloc` nor `alloc` (i32) -> i32")
        self._allocate = allocator.encode()
        self._initializes = _is_function(exports.get("_initialize"), (), ())
        self._wasi.log_output()

    def stdin(self, input: bytes) -> bytes:  # noqa: ARG002
        return b""

    def run(self, guest: Guest, input: bytes, call: Call) -> bytes:
        wasi = self._wasi
        if self._initializes:
            guest.call(b"_initialize")
        size = len(input)
        pointer = guest.call(self._allocate, size or 1) & U32_MAX
        if not pointer:
            raise OutOfMemory(call.memory_limit_mb, f"the guest's allocator refused {size:,} bytes of input")
        try:
            wasi.write(pointer, input)
            packed = guest.call(b"handle", pointer, size)
            size = packed >> 32 & U32_MAX
            if size > call.output_limit_bytes:
                raise OutputTooLarge(call.output_limit_bytes)
            return wasi.read(packed & U32_MAX, size)
        except PointerFault as fault:
            raise BadOutput(f"the guest's `handle` or allocator gave {fault}") from None


def _allocator(exports: Exports, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if _is_function(exports.get(name), ("i32",), ("i32",))), None)


def _failure(trap: Trap, call: Call) -> TimedOut | Trapped:
    code = code_of(trap)
    if code is None:
        raise EngineFault(trap.message[:500]) from None
    return TimedOut(call.timeout_seconds) if code is TrapCode.INTERRUPT else trapped(code, trap)
