"""The Wasmer engine: compiles with LLVM in a compile process, runs headless in the workers.

Imported only by processes that run_wasmer's executor starts: importing it imports wasmer, which
exists for CPython 3.10 alone. How a guest ended is decided here; what it may call is in imports.py.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final, NoReturn

import wasmer  # type: ignore[import-untyped]
from wasmer import engine as wasmer_engines

from runner.errors import (
    BadOutput,
    EngineUnavailable,
    Exited,
    InvalidModule,
    InvocationError,
    OutOfMemory,
    OutputTooLarge,
    Trapped,
)
from runner.workers.engine import Abi, Call, Engine, Loaded
from runner.workers.wasi.abi import U32_MAX
from runner.workers.wasi.memory import ALLOCATORS, PointerFault
from runner.workers.wasi.preview1 import ProcExit, Wasi
from runner_wasmer.imports import import_object, is_function
from runner_wasmer.llvm import LIBRARY
from runner_wasmer.traps import MESSAGE_LIMIT, trapped

PAGE_BYTES: Final = 1 << 16
_MAGIC: Final = b"\0asm\x01\0\0\0"
_I32, _I64 = wasmer.Type.I32, wasmer.Type.I64
_REACTOR_ALLOCATORS: Final = ("malloc", "alloc")
_MEMORY_TRAPS: Final = frozenset({"unreachable", "out_of_bounds_memory"})
"""How a guest ends that found no memory: it aborts, or uses the null pointer it was given."""


class EngineFault(Exception):
    """Wasmer itself failed; nothing in this process can be relied on any more."""


class WasmerEngine:
    """Wasmer 2.1 with LLVM, as `runner.workers.engine.Engine`."""

    def __init__(self) -> None:
        self._compiler: Any = None

    def prepare_compile(self) -> None:
        """Import LLVM and compile the empty module, which starts its threads."""
        self._compiler = _llvm()
        self.compile(_MAGIC)

    def compile(self, wasm: bytes) -> bytes:
        """The serialized native code. The process must have been started with `llvm.environment`."""
        if wasm[: len(_MAGIC)] != _MAGIC:  # Wasmer would take anything else for WebAssembly text
            raise InvalidModule(
                f"these {len(wasm):,} bytes are no WebAssembly module: they do not begin with its magic"
            )
        store = wasmer.Store(wasmer_engines.JIT(self._compiler or _llvm()))
        try:
            return bytes(wasmer.Module(store, wasm).serialize())
        except RuntimeError as error:
            raise InvalidModule(f"the module is invalid: {_message(error)}") from None

    def warm_up(self) -> None:
        """Make a store once, so that everything it imports and opens is there."""
        wasmer.Store(wasmer_engines.JIT())

    def start(self) -> None:
        """Nothing: the headless engine has no threads."""

    def load(self, artifact: bytes, abi: Abi) -> Loaded:
        """The module of a compiled artifact, with a store of its own so that dropping it frees it."""
        store = wasmer.Store(wasmer_engines.JIT())
        module = wasmer.Module.deserialize(store, artifact)
        return (CommandModule if abi is Abi.COMMAND else ReactorModule)(store, module)


def engine() -> Engine:
    """The factory that `runner.workers.engine.import_engine` calls."""
    return WasmerEngine()


def _llvm() -> Any:
    try:
        ctypes.CDLL(LIBRARY)  # by this very name: the loader then takes it for the compiler's
        import wasmer_compiler_llvm  # type: ignore[import-untyped]
    except (ImportError, OSError) as error:
        raise EngineUnavailable(
            "wasmer", f"its LLVM compiler does not load: {error}", remedy="`runner doctor` shows what is missing"
        ) from error
    return wasmer_compiler_llvm.Compiler


class _Module:
    """What both kinds of modules share: instantiate, run, tell how it ended."""

    __slots__ = ("_has_memory", "_imports", "_maximum_bytes", "_module", "_store", "_wasi")

    def __init__(self, store: Any, module: Any) -> None:
        self._store = store
        self._module = module
        self._wasi = Wasi()
        self._imports = import_object(store, module, self._wasi)
        exports = {export.name: export.type for export in module.exports}
        memory = exports.get("memory")
        self._has_memory = isinstance(memory, wasmer.MemoryType)
        maximum = getattr(memory, "maximum", None)
        self._maximum_bytes: int | None = None if maximum is None else maximum * PAGE_BYTES
        self._wasi.allocator = next(
            (name for name in ALLOCATORS if is_function(exports.get(name), [_I32], [_I32])), None
        )
        self.check(exports)

    def check(self, exports: dict[str, Any]) -> None:
        """Raise InvalidModule when the exports are not those of this ABI."""
        raise NotImplementedError

    def run(self, exports: Any, input: bytes, call: Call) -> bytes:
        """Call the guest; returns its output."""
        raise NotImplementedError

    def stdin(self, input: bytes) -> bytes:
        """What the guest finds on its standard input."""
        raise NotImplementedError

    def invoke(self, input: bytes, call: Call) -> tuple[bytes, int]:
        """See `runner.workers.engine.Loaded`."""
        wasi = self._wasi
        wasi.begin(call, self.stdin(input))
        try:
            return self._instantiate_and_run(input, call), wasi.refresh()
        except ProcExit as ended:
            if ended.code == 0:
                return self.output_at_exit(), wasi.refresh()
            failure: InvocationError = Exited(ended.code)
        except InvocationError as error:
            failure = error
        except RuntimeError as error:
            failure = _trap_of(error)
        except BaseException as error:
            _give_up_on_panic(error)
            raise
        finally:
            size = wasi.refresh()
            wasi.end()
        raise self._explained(failure, size, call)

    def _instantiate_and_run(self, input: bytes, call: Call) -> bytes:
        # A frame of its own: the traceback of what is raised must not keep the instance.
        instance = wasmer.Instance(self._module, self._imports)
        exports = instance.exports
        self._wasi.attach(exports, exports.memory if self._has_memory else None)
        return self.run(exports, input, call)

    def output_at_exit(self) -> bytes:
        """The output of a guest that ended with proc_exit(0)."""
        return b""

    def _explained(self, failure: InvocationError, size: int, call: Call) -> InvocationError:
        """The error to raise: out of memory if that is why it failed, with the end of stderr, and
        without the frames that keep the guest's memory alive."""
        maximum = self._maximum_bytes
        at_limit = maximum is not None and size > maximum - PAGE_BYTES
        if at_limit and (isinstance(failure, Exited) or getattr(failure, "trap", None) in _MEMORY_TRAPS):
            failure = OutOfMemory(call.memory_limit_mb, str(failure))
        failure.stderr_tail = call.logs.tail
        failure.__traceback__ = failure.__context__ = None
        failure.memory_peak_bytes = size  # type: ignore[attr-defined]
        return failure


class CommandModule(_Module):
    """A WASI command: `_start`, input on stdin, output on stdout."""

    __slots__ = ()

    def check(self, exports: dict[str, Any]) -> None:
        if not is_function(exports.get("_start"), [], []):
            raise InvalidModule("the module is no command: it exports no function `_start` without parameters")

    def stdin(self, input: bytes) -> bytes:
        return input

    def run(self, exports: Any, input: bytes, call: Call) -> bytes:  # noqa: ARG002
        exports._start()
        return bytes(self._wasi.output)

    def output_at_exit(self) -> bytes:
        return bytes(self._wasi.output)


class ReactorModule(_Module):
    """A reactor: `handle(ptr, len) -> i64` over its own allocator. Its stdout goes to the log."""

    __slots__ = ("_allocator", "_initializes")

    def check(self, exports: dict[str, Any]) -> None:
        if not self._has_memory or not is_function(exports.get("handle"), [_I32, _I32], [_I64]):
            raise InvalidModule("the module is no reactor: it must export `memory` and `handle(i32, i32) -> i64`")
        found = [name for name in _REACTOR_ALLOCATORS if is_function(exports.get(name), [_I32], [_I32])]
        if not found:
            raise InvalidModule("the module is no reactor: it exports neither `malloc` nor `alloc` (i32) -> i32")
        self._allocator = found[0]
        self._initializes = is_function(exports.get("_initialize"), [], [])
        self._wasi.log_output()

    def stdin(self, input: bytes) -> bytes:  # noqa: ARG002
        return b""

    def run(self, exports: Any, input: bytes, call: Call) -> bytes:
        wasi = self._wasi
        if self._initializes:
            exports._initialize()
        size = len(input)
        pointer = getattr(exports, self._allocator)(size or 1)
        if not pointer:
            raise OutOfMemory(call.memory_limit_mb, f"the guest's allocator refused {size:,} bytes of input")
        try:
            wasi.write(pointer, input)
            packed = exports.handle(pointer, size)
            size = packed >> 32 & U32_MAX
            if size > call.output_limit_bytes:
                raise OutputTooLarge(call.output_limit_bytes)
            return wasi.read(packed & U32_MAX, size)
        except PointerFault as fault:
            raise BadOutput(f"the guest's `handle` or allocator gave {fault}") from None


def _message(error: RuntimeError) -> str:
    return str(error.args[0])[:MESSAGE_LIMIT] if error.args else ""


def _trap_of(error: RuntimeError) -> Trapped:
    """The trap that a RuntimeError tells of; raises what it is otherwise."""
    if type(error) is RuntimeError:
        message = _message(error)
        trap = trapped(message)
        if trap is not None:
            return trap
        raise EngineFault(message) from None
    raise error


def _give_up_on_panic(error: BaseException) -> None:
    # A panic of Rust code is a BaseException of its own, found in no importable module.
    if type(error).__name__ == "PanicException":
        _raise_fault(f"Wasmer panicked: {str(error)[:MESSAGE_LIMIT]}")


def _raise_fault(message: str) -> NoReturn:
    raise EngineFault(message) from None
