"""What wasmtime says when a guest traps, and the stable names that `Trapped.trap` has for it."""

from __future__ import annotations

from typing import Final

from wasmtime import Frame, Trap, TrapCode, WasmtimeError

from runner.errors import Trapped

MESSAGE_LIMIT: Final = 4096
"""Characters kept of an engine's message."""
NAME_LIMIT: Final = 120
"""Characters kept of one function's name, which is the module's own text."""
FRAME_LIMIT: Final = 64
"""Frames kept of a trap: a stack overflow has thousands."""

KINDS: Final = {
    TrapCode.UNREACHABLE: "unreachable",
    TrapCode.INTEGER_DIVISION_BY_ZERO: "integer_divide_by_zero",
    TrapCode.INTEGER_OVERFLOW: "integer_overflow",
    TrapCode.BAD_CONVERSION_TO_INTEGER: "bad_conversion",
    TrapCode.MEMORY_OUT_OF_BOUNDS: "out_of_bounds_memory",
    TrapCode.TABLE_OUT_OF_BOUNDS: "out_of_bounds_table",
    TrapCode.INDIRECT_CALL_TO_NULL: "indirect_call_to_null",
    TrapCode.BAD_SIGNATURE: "indirect_call_type_mismatch",
    TrapCode.STACK_OVERFLOW: "stack_overflow",
    TrapCode.HEAP_MISALIGNED: "unaligned_atomic",
}
"""Where our name of a trap is not wasmtime's own in lower case; every engine maps to the same names."""


def code_of(trap: Trap) -> TrapCode | None:
    """Why it trapped; None for a trap that host code made, or one that the bindings do not know."""
    try:
        return trap.trap_code
    except ValueError:
        return None


def trapped(code: TrapCode, trap: Trap) -> Trapped:
    """The error for a trap. A function without a name is shown by its index, as `func[3]`."""
    kind = KINDS.get(code, code.name.lower())
    functions = [_function(frame) for frame in trap.frames[:FRAME_LIMIT]]
    return Trapped(kind, kind.replace("_", " "), functions=functions)


def _function(frame: Frame) -> str:
    name = frame.func_name
    if not name:
        return f"func[{frame.func_index}]"
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in name[:NAME_LIMIT])


def reason(error: WasmtimeError) -> str:
    """What an error says in the end, in one line: wasmtime puts the causes below its first line."""
    lines = [line.strip() for line in str(error)[:MESSAGE_LIMIT].splitlines()]
    told = [line for line in lines if line and line != "Caused by:"]
    last = told[-1] if told else "no reason given"
    number, _, rest = last.partition(": ")
    return rest if number.isdigit() else last
