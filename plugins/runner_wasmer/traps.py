"""What Wasmer says when a guest traps, and the stable names that `Trapped.trap` has for it."""

from __future__ import annotations

import re
from typing import Final

from runner.errors import Trapped
from runner_wasmer.stack import GuestStack

MESSAGE_LIMIT: Final = 4096
"""Characters kept of an engine's message: that of a stack overflow names every frame, megabytes."""
NAME_LIMIT: Final = 120
"""Characters kept of one function's name, which is the module's own text."""

_PREFIX: Final = "RuntimeError: "
_OUT_OF_BOUNDS, _OVERFLOW = "out_of_bounds_memory", "stack_overflow"
# Wasmer's words for each of its trap codes (wasmer-vm 2.1, `TrapCode::message`).
KINDS: Final = {
    "unreachable": "unreachable",
    "integer divide by zero": "integer_divide_by_zero",
    "integer overflow": "integer_overflow",
    "invalid conversion to integer": "bad_conversion",
    "out of bounds memory access": "out_of_bounds_memory",
    "undefined element: out of bounds table access": "out_of_bounds_table",
    "out of bounds table access": "out_of_bounds_table",
    "out of bounds": "out_of_bounds_table",
    "uninitialized element": "indirect_call_to_null",
    "indirect call type mismatch": "indirect_call_type_mismatch",
    "call stack exhausted": "stack_overflow",
    "misaligned heap": "unaligned_atomic",
    "unaligned atomic access": "unaligned_atomic",
}
"""Wasmer's message to our name of the trap; every engine maps to the same names."""

_FRAME: Final = re.compile(r"^ {4}at (.+) \(.*\[(\d+)\]:0x[0-9a-f]+\)$", re.MULTILINE)


def message_of(error: BaseException) -> str:
    """What an error of Wasmer's says, as far as it is kept."""
    return str(error.args[0])[:MESSAGE_LIMIT] if error.args else ""


def trapped(message: str, *, inserted: int | None = None, stack: GuestStack | None = None) -> Trapped | None:
    """The error for a message of Wasmer's; None when it tells of no trap.

    `stack` tells a fault at the stack's end, which Wasmer may take for one in the memory.
    A function without a name is shown by its index, as `func[3]`: the index it had before instrument.py
    inserted the function `inserted`.
    """
    text = message[:MESSAGE_LIMIT].removeprefix(_PREFIX)
    reason, _, frames = text.partition("\n")
    kind = KINDS.get(reason)
    if kind is None:
        return None
    if kind == _OUT_OF_BOUNDS and stack is not None and stack.overflowed():
        kind, reason = _OVERFLOW, "call stack exhausted"
    functions = [_function(name, int(index), inserted) for name, index in _FRAME.findall(frames)]
    return Trapped(kind, reason, functions=functions)


def _function(name: str, index: int, inserted: int | None) -> str:
    if name == "<unnamed>":
        return f"func[{index - 1 if inserted is not None and index > inserted else index}]"
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in name[:NAME_LIMIT])
