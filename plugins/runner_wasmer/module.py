"""A loaded module: runs each invocation on a fresh instance, or on one put back to how it began, and
tells how it ended. What a guest may call is in imports.py and in runner.workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import wasmer  # type: ignore[import-untyped]

from runner.errors import BadOutput, Exited, InvalidModule, InvocationError, OutOfMemory, OutputTooLarge, Trapped
from runner.workers.engine import Call
from runner.workers.wasi.abi import U32_MAX
from runner.workers.wasi.memory import ALLOCATORS, PointerFault
from runner.workers.wasi.preview1 import ProcExit, Wasi
from runner_wasmer.artifact import Artifact
from runner_wasmer.guest import Guest, KeptGuests
from runner_wasmer.imports import import_object, is_function
from runner_wasmer.stack import GuestStack
from runner_wasmer.traps import message_of, trapped

_I32, _I64 = wasmer.Type.I32, wasmer.Type.I64
_REACTOR_ALLOCATORS: Final = ("malloc", "alloc")
_MEMORY_TRAPS: Final = frozenset({"unreachable", "out_of_bounds_memory"})
"""How a guest ends that found no memory: it aborts, or uses the null pointer it was given."""
_DISCARDS_LIMIT: Final = 4
"""After so many instances in a row that grew their memory, no more are prepared to be put back."""

Functions = tuple[Callable[..., int], ...]
"""Exported functions, in the order of `LoadedModule.called`."""


class EngineFault(Exception):
    """Wasmer itself failed; nothing in this process can be relied on any more."""


class LoadedModule:
    """What both kinds of modules share, as `runner.workers.engine.Loaded`. One invocation at a time."""

    __slots__ = (
        "__weakref__",
        "_artifact",
        "_called",
        "_discarded",
        "_guest",
        "_imports",
        "_kept",
        "_memory",
        "_module",
        "_stack",
        "_wasi",
    )

    def __init__(
        self, store: Any, module: Any, artifact: Artifact, kept: KeptGuests, stack: GuestStack | None = None
    ) -> None:
        self._artifact, self._kept, self._module, self._stack = artifact, kept, module, stack
        self._wasi = wasi = Wasi()
        self._imports = import_object(store, module, wasi)
        self._guest: Guest | None = None
        self._discarded = 0
        exports = {export.name: export.type for export in module.exports}
        exports_memory = isinstance(exports.get("memory"), wasmer.MemoryType)
        self._memory = artifact.memory or ("memory" if exports_memory else None)
        wasi.allocator = _allocator(exports, ALLOCATORS)
        self._called = self.called(exports)

    def called(self, exports: dict[str, Any]) -> tuple[str, ...]:
        """The names of the exports that `run` is given. Raises InvalidModule when the exports are not
        those of this ABI."""
        raise NotImplementedError

    def run(self, functions: Functions, input: bytes, call: Call) -> bytes:
        """Call the guest; returns its output."""
        raise NotImplementedError

    def stdin(self, input: bytes) -> bytes:
        """What the guest finds on its standard input."""
        raise NotImplementedError

    def output_at_exit(self) -> bytes:
        """The output of a guest that ended with proc_exit(0)."""
        return b""

    def forget(self) -> None:
        """Drop the instance that is kept for the next invocation."""
        self._guest = None

    def invoke(self, input: bytes, call: Call) -> tuple[bytes, int]:
        """See `runner.workers.engine.Loaded`."""
        wasi = self._wasi
        wasi.begin(call, self.stdin(input))
        failure: InvocationError | None = None
        try:
            output = self._run(input, call)
        except ProcExit as ended:
            output = self.output_at_exit()
            failure = Exited(ended.code) if ended.code else None
        except InvocationError as error:
            failure = error
        except RuntimeError as error:
            failure = _trap_of(error, self._artifact.inserted, self._stack)
        except BaseException as error:
            _give_up_on_panic(error)
            raise
        else:
            size = wasi.refresh()
            wasi.end()
            self._recycle()
            return output, size
        size = wasi.refresh()
        wasi.end()
        guest, self._guest = self._guest, None
        if failure is None:
            return output, size
        refused = guest is not None and guest.was_refused_memory
        del guest
        raise _explained(failure, call, size=size, refused=refused)

    def _recycle(self) -> None:
        guest = self._guest
        if guest is not None and guest.restore():
            self._discarded = 0
        else:
            self._guest = None
            self._discarded += 1

    def _run(self, input: bytes, call: Call) -> bytes:
        # A frame of its own: the traceback of what is raised must not keep the instance.
        guest = self._guest
        if guest is None:
            instance = wasmer.Instance(self._module, self._imports)
            reuse = self._discarded < _DISCARDS_LIMIT
            guest = Guest(instance, self._called, self._memory, self._artifact, reuse=reuse)
            self._guest = guest
            if guest.can_be_restored:
                self._kept.add(self)
        self._wasi.attach(guest.exports, guest.memory, guest.view)
        return self.run(guest.functions, input, call)


class CommandModule(LoadedModule):
    """A WASI command: `_start`, input on stdin, output on stdout."""

    __slots__ = ()

    def called(self, exports: dict[str, Any]) -> tuple[str, ...]:
        if not is_function(exports.get("_start"), [], []):
            raise InvalidModule("the module is no command: it exports no function `_start` without parameters")
        return ("_start",)

    def stdin(self, input: bytes) -> bytes:
        return input

    def run(self, functions: Functions, input: bytes, call: Call) -> bytes:  # noqa: ARG002
        functions[0]()
        return bytes(self._wasi.output)

    def output_at_exit(self) -> bytes:
        return bytes(self._wasi.output)


class ReactorModule(LoadedModule):
    """A reactor: `handle(ptr, len) -> i64` over its own allocator. Its stdout goes to the log."""

    __slots__ = ()

    def called(self, exports: dict[str, Any]) -> tuple[str, ...]:
        has_memory = isinstance(exports.get("memory"), wasmer.MemoryType)
        if not has_memory or not is_function(exports.get("handle"), [_I32, _I32], [_I64]):
            raise InvalidModule("the module is no reactor: it must export `memory` and `handle(i32, i32) -> i64`")
        allocator = _allocator(exports, _REACTOR_ALLOCATORS)
        if allocator is None:
            raise InvalidModule("the module is no reactor: it exports neither `malloc` nor `alloc` (i32) -> i32")
        self._wasi.log_output()
        initializes = is_function(exports.get("_initialize"), [], [])
        return (allocator, "handle", *(["_initialize"] if initializes else []))

    def stdin(self, input: bytes) -> bytes:  # noqa: ARG002
        return b""

    def run(self, functions: Functions, input: bytes, call: Call) -> bytes:
        allocate, handle, *initialize = functions
        if initialize:
            initialize[0]()
        wasi, size = self._wasi, len(input)
        pointer = allocate(size or 1)
        if not pointer:
            raise OutOfMemory(call.memory_limit_mb, f"the guest's allocator refused {size:,} bytes of input")
        try:
            wasi.write(pointer, input)
            packed = handle(pointer, size)
            size = packed >> 32 & U32_MAX
            if size > call.output_limit_bytes:
                raise OutputTooLarge(call.output_limit_bytes)
            return wasi.read(packed & U32_MAX, size)
        except PointerFault as fault:
            raise BadOutput(f"the guest's `handle` or allocator gave {fault}") from None


def _allocator(exports: dict[str, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if is_function(exports.get(name), [_I32], [_I32])), None)


def _explained(failure: InvocationError, call: Call, *, size: int, refused: bool) -> InvocationError:
    """The error to raise: out of memory if that is why it failed, with the end of stderr, and without
    the frames that keep the guest's memory alive."""
    if refused and (isinstance(failure, Exited) or getattr(failure, "trap", None) in _MEMORY_TRAPS):
        failure = OutOfMemory(call.memory_limit_mb, str(failure))
    failure.stderr_tail = call.logs.tail
    failure.__traceback__ = failure.__context__ = None
    failure.memory_peak_bytes = size  # type: ignore[attr-defined]
    return failure


def _trap_of(error: RuntimeError, inserted: int | None, stack: GuestStack | None) -> Trapped:
    """The trap that a RuntimeError tells of; raises what it is otherwise."""
    if type(error) is not RuntimeError:
        raise error
    message = message_of(error)
    trap = trapped(message, inserted=inserted, stack=stack)
    if trap is None:
        raise EngineFault(message) from None
    return trap


def _give_up_on_panic(error: BaseException) -> None:
    # A panic of Rust code is a BaseException of its own, found in no importable module.
    if type(error).__name__ == "PanicException":
        raise EngineFault(f"Wasmer panicked: {message_of(error)}") from None
