"""The import object of a module: the WASI and host functions it asks for, as Wasmer functions.

Made once a loaded module, over one Wasi object that holds the state of whichever invocation runs. No
function here may hold an instance: that cycle would leak the instance's memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import wasmer  # type: ignore[import-untyped]

from runner.errors import InvalidModule, UnknownImport
from runner.workers.marshal import import_function
from runner.workers.signatures import WASI_MODULE, Signature
from runner.workers.wasi.preview1 import Wasi
from runner_wasmer.signatures import GROW_IMPORT, SIGNATURES

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
        if (wanted.module, wanted.name) == GROW_IMPORT:  # instrument.py's, never a guest's own
            grow_type = wasmer.FunctionType([wasmer.Type.I32, wasmer.Type.I32], [wasmer.Type.I32])
            namespaces.setdefault(wanted.module, {})[wanted.name] = wasmer.Function(store, _grow(wasi), grow_type)
            continue
        signature = SIGNATURES.get((wanted.module, wanted.name))
        if signature is None:
            raise UnknownImport(wanted.module, wanted.name)
        function_type = _function_type(wanted, signature)
        function = import_function(wanted.module, wanted.name, wasi)
        namespaces.setdefault(wanted.module, {})[wanted.name] = wasmer.Function(store, function, function_type)
    wasi.counts_cpu_time = "clock_time_get" in namespaces.get(WASI_MODULE, ())
    imports = wasmer.ImportObject()
    for name, functions in namespaces.items():
        imports.register(name, functions)
    return imports


def _grow(wasi: Wasi) -> Callable[[int, int], int]:
    def grow(old_pages: int, more_pages: int) -> int:
        grown: int = wasi.memory.grow(old_pages, more_pages)
        return grown

    return grow


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
