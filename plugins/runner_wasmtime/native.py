"""Instances and calls over wasmtime's C API, as the bindings generated from its headers name it.

The classes of wasmtime-py make a Python object for every type and value that passes, which takes
twice as long as all the rest; so the road of an invocation is here, and only here, without them.
What a guest may call and how it ended is decided elsewhere.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NoReturn

from wasmtime import Config, Engine, FuncType, InstancePre, Linker, Module, Trap, ValType, WasmtimeError
from wasmtime import _ffi as ffi

from runner.workers.signatures import Signature

_TYPES: Final = {"i32": ValType.i32, "i64": ValType.i64, "f32": ValType.f32, "f64": ValType.f64}
_NO_FINALIZER: Final = ctypes.cast(0, ctypes.CFUNCTYPE(None, ctypes.c_void_p))
_HOST_TRAP: Final = b"host function"
_WRITABLE: Final = 0x200  # PyBUF_WRITE

_view_of = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)(
    ("PyMemoryView_FromMemory", ctypes.pythonapi)
)

# The same function as in the bindings, giving the address as an integer.
_memory_data = ffi.dll["wasmtime_memory_data"]
_memory_data.restype = ctypes.c_void_p
_memory_data.argtypes = [ctypes.c_void_p, ctypes.c_void_p]

Import = tuple[str, str, Signature, Callable[..., int | None]]
"""Module, name, types and the function to call."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What the one instance of a process may have at most, whatever its function's limits are."""

    tables: int
    table_elements: int
    """Elements of each table."""
    memory_bytes: int
    keep_bytes: int
    """How much of a memory is cleared by overwriting after an instance; the rest goes back to the system."""
    instance_bytes: int
    """What wasmtime itself keeps of an instance: its globals, its functions' addresses."""


def use_one_slot(config: Config, limits: Limits) -> None:
    """Reserve the addresses of one instance once, instead of mapping and unmapping for each: that is
    half the time of a small invocation. Wasmtime clears the slot before the next instance sees it."""
    pool = ffi.wasmtime_pooling_allocation_config_new()
    for name, value in (
        ("total_core_instances", 1),
        ("total_component_instances", 0),
        ("total_memories", 1),
        ("total_tables", limits.tables),
        ("total_stacks", 0),
        ("total_gc_heaps", 0),
        ("max_memories_per_module", 1),
        ("max_tables_per_module", limits.tables),
        ("max_memory_size", limits.memory_bytes),
        ("max_core_instance_size", limits.instance_bytes),
        ("table_elements", limits.table_elements),
        ("linear_memory_keep_resident", limits.keep_bytes),
        ("table_keep_resident", limits.keep_bytes),
    ):
        getattr(ffi, f"wasmtime_pooling_allocation_config_{name}_set")(pool, value)
    ffi.wasmtime_pooling_allocation_strategy_set(config.ptr(), pool)
    ffi.wasmtime_pooling_allocation_config_delete(pool)


class Program:
    """A module with its imports linked, ready to be instantiated; one instance at a time.

    `raised` is the exception with which an import ended the guest.
    """

    def __init__(self, engine: Engine, module: Module, imports: Iterable[Import]) -> None:
        self.engine = engine  # kept alive for the pointer
        self.engine_pointer = engine.ptr()
        self.raised: BaseException | None = None
        self._callbacks: list[Any] = []  # wasmtime holds their addresses, not them
        self._linker = Linker(engine)
        for module_name, name, signature, function in imports:
            self._define(module_name.encode(), name.encode(), signature, function)
        self._prepared: InstancePre = self._linker.instantiate_pre(module)
        self.prepared = self._prepared.ptr()

    def _define(self, module: bytes, name: bytes, signature: Signature, function: Callable[..., int | None]) -> None:
        parameters, results = signature
        kind = FuncType([_TYPES[name]() for name in parameters], [_TYPES[name]() for name in results])
        callback = ffi.wasmtime_func_unchecked_callback_t(self._callback(function, signature))
        self._callbacks.append(callback)
        names = (module, len(module), name, len(name))
        error = ffi.wasmtime_linker_define_func_unchecked(
            self._linker.ptr(), *names, kind.ptr(), callback, None, _NO_FINALIZER
        )
        if error:
            raise WasmtimeError._from_ptr(error)

    def _callback(self, function: Callable[..., int | None], signature: Signature) -> Callable[..., int]:
        fields = tuple(enumerate(signature[0]))
        result = signature[1][0] if signature[1] else ""

        def callback(_data: Any, _caller: Any, values: Any, _count: int) -> int:
            # An exception that left this function would be lost, and the guest would run on.
            try:
                answer = function(*[getattr(values[index], field) for index, field in fields])
                if result:
                    setattr(values[0], result, answer)
            except BaseException as error:
                self.raised = error
                return _address(ffi.wasmtime_trap_new(_HOST_TRAP, len(_HOST_TRAP)))
            return 0

        return callback


class Guest:
    """One instance in a store of its own. Must be closed; a view of its memory must be gone by then.

    An export is called as a method of that name, with i32 arguments. It returns an i64; of an i32
    the upper half is undefined. Traps are raised as wasmtime's Trap, and what an import raised as
    itself.
    """

    __slots__ = ("_address", "_context", "_instance", "_memory", "_program", "_store")

    def __init__(self, program: Program, *, memory_bytes: int, limits: Limits) -> None:
        self._program = program
        self._store = store = ffi.wasmtime_store_new(program.engine_pointer, None, _NO_FINALIZER)
        self._context = ffi.wasmtime_store_context(store)
        ffi.wasmtime_store_limiter(store, memory_bytes, limits.table_elements, 1, limits.tables, 1)
        ffi.wasmtime_context_set_epoch_deadline(self._context, 1)
        self._instance = ctypes.byref(ffi.wasmtime_instance_t())
        self._memory: Any = None
        self._address = 0

    def instantiate(self) -> None:
        """Make the instance, which runs the module's start function. Raises like a call, and
        WasmtimeError when a limit refuses it."""
        trap = ctypes.POINTER(ffi.wasm_trap_t)()
        error = ffi.wasmtime_instance_pre_instantiate(
            self._program.prepared, self._context, self._instance, ctypes.byref(trap)
        )
        if error or trap:
            self._fail(error, trap)

    def open_memory(self) -> None:
        """Make `buffer` and `data_size` those of the export `memory`, which must be one."""
        memory = ffi.wasmtime_memory_t.from_buffer_copy(self._export(b"memory").of.memory)
        self._memory = ctypes.byref(memory)
        self._address = _memory_data(self._context, self._memory) or 0

    @property
    def data_size(self) -> int:
        """The memory's size in bytes."""
        size: int = ffi.wasmtime_memory_data_size(self._context, self._memory)
        return size

    @property
    def buffer(self) -> memoryview:
        """The memory, writable. Growing does not move it: the engine's `memory_may_move` is off."""
        view: memoryview = _view_of(self._address, self.data_size, _WRITABLE)
        return view

    def __getattr__(self, name: str) -> Callable[..., int]:
        return partial(self.call, name.encode())

    def call(self, name: bytes, *arguments: int) -> int:
        """Call an exported function, which must exist with these parameters."""
        function = self._export(name).of.func
        values = (ffi.wasmtime_val_raw_t * 2)()
        for index, argument in enumerate(arguments):
            values[index].i32 = argument
        trap = ctypes.POINTER(ffi.wasm_trap_t)()
        error = ffi.wasmtime_func_call_unchecked(
            self._context, ctypes.byref(function), values, len(values), ctypes.byref(trap)
        )
        if error or trap:
            self._fail(error, trap)
        answer: int = values[0].i64
        return answer

    def _export(self, name: bytes) -> Any:
        found = ffi.wasmtime_extern_t()
        if not ffi.wasmtime_instance_export_get(self._context, self._instance, name, len(name), ctypes.byref(found)):
            raise LookupError(f"the module exports no {name.decode()}")
        return found

    def _fail(self, error: Any, trap: Any) -> NoReturn:
        raised, self._program.raised = self._program.raised, None
        # Made even if they are not raised: they own what the pointers point to.
        failure = WasmtimeError._from_ptr(error) if error else Trap._from_ptr(trap)
        if raised is not None:
            raise raised
        raise failure

    def close(self) -> None:
        """Free the instance and its memory."""
        ffi.wasmtime_store_delete(self._store)


def _address(pointer: Any) -> int:
    return ctypes.cast(pointer, ctypes.c_void_p).value or 0
