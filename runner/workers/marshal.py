"""What a guest's import calls, as a Python function over integers, the same for every engine.

Engines turn these into functions of their own kind; what a host function means is in hostcalls.py.
"""

from __future__ import annotations

from collections.abc import Callable

from runner.errors import Trapped
from runner.workers.hostcalls import BYTES, HOST_FUNCTIONS, HostFunction
from runner.workers.signatures import WASI_MODULE
from runner.workers.wasi.memory import PointerFault
from runner.workers.wasi.preview1 import Wasi


def import_function(module: str, name: str, wasi: Wasi) -> Callable[..., int | None]:
    """The function behind an import of `signatures.SIGNATURES`, serving whichever invocation `wasi`
    serves. It takes and returns signed integers and holds no instance."""
    if module == WASI_MODULE:
        return wasi.function(name)
    return _host_function(name, HOST_FUNCTIONS[name], wasi)


def _host_function(name: str, function: HostFunction, wasi: Wasi) -> Callable[..., int | None]:
    """The marshalling that hostcalls.py describes. A bad pointer ends the guest: there is no errno."""
    places, place = [], 0
    for kind in function.parameters:
        places.append((place, kind == BYTES))
        place += 2 if kind == BYTES else 1

    def host_function(*parameters: int) -> int | None:
        call = wasi.call
        if call is None:
            raise RuntimeError(f"{name} was called outside an invocation")
        try:
            arguments = [
                wasi.read(parameters[at], parameters[at + 1]) if is_bytes else parameters[at] for at, is_bytes in places
            ]
        except PointerFault as fault:
            message = f"{name} was given {fault}"
            raise Trapped("out_of_bounds_memory", message, stderr_tail=call.logs.tail) from None
        if function.acts:
            wasi.check_allocator()
        answer = function.run(call, *arguments)
        if not function.answers:
            return None
        return 0 if answer is None else _packed(wasi.give(answer, call.memory_limit_mb), len(answer))

    return host_function


def _packed(pointer: int, length: int) -> int:
    """`pointer << 32 | length` as a signed i64."""
    value = pointer << 32 | length
    return value - (1 << 64) if value >> 63 else value
