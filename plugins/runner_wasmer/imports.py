"""The import object of a module: the WASI and host functions it asks for, as Wasmer functions.

Made once a loaded module, over one Wasi object that holds the state of whichever invocation runs. No
function here may hold an instance: that cycle would leak the instance's memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import wasmer  # type: ignore[import-untyped]

from runner.errors import InvalidModule, Trapped, UnknownImport
from runner.workers.hostcalls import HOST_FUNCTIONS, HostFunction
from runner_wasmer.memory import PointerFault
from runner_wasmer.signatures import SIGNATURES, WASI_MODULE, Signature
from runner_wasmer.wasi import Wasi

TYPES: Final = {
    "i32": wasmer.Type.I32,
    "i64": wasmer.Type.I64,
    "f32": wasmer.Type.F32,
    "f64": wasmer.Type.F64,
}


def import_object(store: Any, module: Any, wasi: Wasi) -> Any:
    """What to instantiate `module` with. Raises UnknownImport or InvalidModule for an import that no
    function answers as the module wants it."""
    namespaces: dict[str, dict[str, Any]] = {}
    for wanted in module.imports:
        signature = SIGNATURES.get((wanted.module, wanted.name))
        if signature is None:
            raise UnknownImport(wanted.module, wanted.name)
        function_type = _function_type(wanted, signature)
        function = _function(wanted.module, wanted.name, wasi)
        namespaces.setdefault(wanted.module, {})[wanted.name] = wasmer.Function(store, function, function_type)
    wasi.counts_cpu_time = "clock_time_get" in namespaces.get(WASI_MODULE, ())
    imports = wasmer.ImportObject()
    for name, functions in namespaces.items():
        imports.register(name, functions)
    return imports


def _function_type(wanted: Any, signature: Signature) -> Any:
    parameters, results = ([TYPES[name] for name in names] for names in signature)
    if not is_function(wanted.type, parameters, results):
        raise InvalidModule(f"the import {wanted.module}.{wanted.name} has another type than the function it names")
    return wasmer.FunctionType(parameters, results)


def is_function(found: Any, parameters: list[Any], results: list[Any]) -> bool:
    """Whether the type of an import or export is that of a function with these types."""
    return (
        isinstance(found, wasmer.FunctionType)
        and list(found.params) == [int(kind) for kind in parameters]
        and list(found.results) == [int(kind) for kind in results]
    )


def _function(module: str, name: str, wasi: Wasi) -> Callable[..., int | None]:
    if module == WASI_MODULE:
        return wasi.function(name)
    return _host_function(name, HOST_FUNCTIONS[name], wasi)


def _host_function(name: str, function: HostFunction, wasi: Wasi) -> Callable[..., int | None]:
    """The marshalling that hostcalls.py describes. A bad pointer ends the guest: there is no errno."""

    def host_function(*parameters: int) -> int | None:
        call = wasi.call
        if call is None:
            raise RuntimeError(f"{name} was called outside an invocation")
        try:
            arguments = [wasi.read(*parameters[index : index + 2]) for index in range(0, len(parameters), 2)]
        except PointerFault as fault:
            message = f"{name} was given {fault}"
            raise Trapped("out_of_bounds_memory", message, stderr_tail=call.logs.tail) from None
        answer = function.run(call, *arguments)
        if not function.answers:
            return None
        return 0 if answer is None else _packed(wasi.give(answer, call.memory_limit_mb), len(answer))

    return host_function


def _packed(pointer: int, length: int) -> int:
    """`pointer << 32 | length` as the signed i64 that Wasmer takes."""
    value = pointer << 32 | length
    return value - (1 << 64) if value >> 63 else value
