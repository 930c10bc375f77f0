"""The instructions of a WebAssembly module: which feature each belongs to and how long it is.

Whole function bodies are walked, so that a feature is found wherever it is used. Types and nesting
are not checked: that is the engine's validation. Follows the core specification, section 5.4, and
the proposals named in the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from runner.wasm_binary import NUMBER_TYPES, REBUILD, Reader, invalid

# (first opcode, last opcode, feature or "" for WebAssembly 1.0, immediates).
# Immediates: u an index, s i32, S i64, 1 4 8 v that many bytes (v: 16), m memory argument, M memory
# index, i table index of call_indirect, b block type, h heap type, l labels of br_table, t types of
# select, c catch clauses, k labels of resume.
_ONE_BYTE = (
    (0x00, 0x01, "", ""),  # unreachable, nop
    (0x02, 0x04, "", "b"),  # block, loop, if
    (0x05, 0x05, "", ""),  # else
    (0x06, 0x06, "exceptions", "b"),  # try
    (0x07, 0x09, "exceptions", "u"),  # catch, throw, rethrow
    (0x0A, 0x0A, "exceptions", ""),  # throw_ref
    (0x0B, 0x0B, "", ""),  # end
    (0x0C, 0x0D, "", "u"),  # br, br_if
    (0x0E, 0x0E, "", "l"),  # br_table
    (0x0F, 0x0F, "", ""),  # return
    (0x10, 0x10, "", "u"),  # call
    (0x11, 0x11, "", "ui"),  # call_indirect
    (0x12, 0x12, "tail-call", "u"),  # return_call
    (0x13, 0x13, "tail-call", "uu"),  # return_call_indirect
    (0x14, 0x15, "function-references", "u"),  # call_ref, return_call_ref
    (0x18, 0x18, "exceptions", "u"),  # delegate
    (0x19, 0x19, "exceptions", ""),  # catch_all
    (0x1A, 0x1B, "", ""),  # drop, select
    (0x1C, 0x1C, "reference-types", "t"),  # select with types
    (0x1F, 0x1F, "exceptions", "bc"),  # try_table
    (0x20, 0x24, "", "u"),  # locals and globals
    (0x25, 0x26, "reference-types", "u"),  # table.get, table.set
    (0x28, 0x3E, "", "m"),  # loads and stores
    (0x3F, 0x40, "", "M"),  # memory.size, memory.grow
    (0x41, 0x41, "", "s"),
    (0x42, 0x42, "", "S"),
    (0x43, 0x43, "", "4"),
    (0x44, 0x44, "", "8"),
    (0x45, 0xBF, "", ""),  # numbers
    (0xC0, 0xC4, "sign-extension", ""),
    (0xD0, 0xD0, "reference-types", "h"),  # ref.null
    (0xD1, 0xD1, "reference-types", ""),  # ref.is_null
    (0xD2, 0xD2, "reference-types", "u"),  # ref.func
    (0xD3, 0xD3, "gc", ""),  # ref.eq
    (0xD4, 0xD4, "function-references", ""),  # ref.as_non_null
    (0xD5, 0xD6, "function-references", "u"),  # br_on_null, br_on_non_null
    (0xE0, 0xE0, "stack-switching", "u"),  # cont.new
    (0xE1, 0xE1, "stack-switching", "uu"),  # cont.bind
    (0xE2, 0xE2, "stack-switching", "u"),  # suspend
    (0xE3, 0xE3, "stack-switching", "uk"),  # resume
    (0xE4, 0xE4, "stack-switching", "uuk"),  # resume_throw
    (0xE5, 0xE5, "stack-switching", "uk"),  # resume_throw_ref
    (0xE6, 0xE6, "stack-switching", "uu"),  # switch
)
_PREFIXED = {
    0xFB: (
        (0x00, 0x01, "gc", "u"),  # struct.new, struct.new_default
        (0x02, 0x05, "gc", "uu"),  # struct.get, struct.set
        (0x06, 0x07, "gc", "u"),  # array.new, array.new_default
        (0x08, 0x0A, "gc", "uu"),  # array.new_fixed, array.new_data, array.new_elem
        (0x0B, 0x0E, "gc", "u"),  # array.get, array.set
        (0x0F, 0x0F, "gc", ""),  # array.len
        (0x10, 0x10, "gc", "u"),  # array.fill
        (0x11, 0x13, "gc", "uu"),  # array.copy, array.init
        (0x14, 0x17, "gc", "h"),  # ref.test, ref.cast
        (0x18, 0x19, "gc", "1uhh"),  # br_on_cast
        (0x1A, 0x1E, "gc", ""),  # conversions, i31
    ),
    0xFC: (
        (0x00, 0x07, "saturating-float-to-int", ""),
        (0x08, 0x08, "bulk-memory", "uM"),  # memory.init
        (0x09, 0x09, "bulk-memory", "u"),  # data.drop
        (0x0A, 0x0A, "bulk-memory", "MM"),  # memory.copy
        (0x0B, 0x0B, "bulk-memory", "M"),  # memory.fill
        (0x0C, 0x0C, "bulk-memory", "uu"),  # table.init
        (0x0D, 0x0D, "bulk-memory", "u"),  # elem.drop
        (0x0E, 0x0E, "bulk-memory", "uu"),  # table.copy
        (0x0F, 0x11, "reference-types", "u"),  # table.grow, table.size, table.fill
        (0x12, 0x12, "memory-control", "M"),  # memory.discard
        (0x13, 0x16, "wide-arithmetic", ""),
    ),
    0xFD: (
        (0x00, 0x0B, "simd", "m"),  # loads and stores
        (0x0C, 0x0D, "simd", "v"),  # v128.const, i8x16.shuffle
        (0x0E, 0x14, "simd", ""),  # swizzle, splats
        (0x15, 0x22, "simd", "1"),  # lanes
        (0x23, 0x53, "simd", ""),
        (0x54, 0x5B, "simd", "m1"),  # load and store a lane
        (0x5C, 0x5D, "simd", "m"),  # load and fill with zero
        (0x5E, 0xFF, "simd", ""),
        (0x100, 0x12F, "relaxed-simd", ""),
    ),
    0xFE: (
        (0x00, 0x02, "threads", "m"),  # notify, wait
        (0x03, 0x03, "threads", "1"),  # fence
        (0x10, 0x4E, "threads", "m"),  # atomic loads, stores, changes
    ),
}
_PREFIX = 32  # an opcode with a prefix is prefix << 32 | number, so that no number reaches the prefix

END, GLOBAL_GET = 0x0B, 0x23
_EXTENDED_CONSTANT = frozenset((0x6A, 0x6B, 0x6C, 0x7C, 0x7D, 0x7E))
_GC_CONSTANT = frozenset(0xFB << _PREFIX | sub for sub in (0x00, 0x01, 0x06, 0x07, 0x08, 0x1A, 0x1B, 0x1C))
_CONSTANT = frozenset((GLOBAL_GET, 0x41, 0x42, 0x43, 0x44, 0xD0, 0xD2, 0xFD << _PREFIX | 0x0C)) | _GC_CONSTANT

# Numbers that the SIMD proposal left free between its instructions.
_UNASSIGNED = frozenset(
    0xFD << _PREFIX | sub
    for sub in (
        *(0x9A, 0xA2, 0xA5, 0xA6, 0xAF, 0xB0, 0xB2, 0xB3, 0xB4, 0xBB, 0xC2, 0xC5, 0xC6),
        *(0xCF, 0xD0, 0xD2, 0xD3, 0xD4, 0xE2, 0xEE, *range(0x114, 0x130)),
    )
)


def _opcodes() -> dict[int, tuple[str, str]]:
    """Feature and immediates by opcode; see _PREFIX."""
    rows = [*_ONE_BYTE]
    for prefix, numbered in _PREFIXED.items():
        base = prefix << _PREFIX
        rows += [(base | first, base | last, feature, immediates) for first, last, feature, immediates in numbered]
    return {
        opcode: (feature, immediates)
        for first, last, feature, immediates in rows
        for opcode in range(first, last + 1)
        if opcode not in _UNASSIGNED
    }


_OPCODES = _opcodes()

# How the immediates of plain instructions look, in their usual form. What looks otherwise (another
# memory or table, a block with a type index, an overlong integer) is left to `step`.
_U32 = rb"(?:[\x80-\xff]{0,3}[\x00-\x7f]|[\x80-\xff]{4}[\x00-\x0f])"
_USUAL_FORM = {
    "": b"",
    "u": _U32,
    "s": rb"(?:[\x80-\xff]{0,3}[\x00-\x7f]|[\x80-\xff]{4}[\x00-\x07\x78-\x7f])",
    "S": rb"(?:[\x80-\xff]{0,8}[\x00-\x7f]|[\x80-\xff]{9}[\x00\x7f])",
    "4": b".{4}",
    "8": b".{8}",
    "m": rb"[\x00-\x3f](?:[\x80-\xff]{0,3}[\x00-\x7f]|[\x80-\xff]{4}[\x00-\x03])",  # an offset below 1 GiB
    "M": rb"\x00",
    "ui": _U32 + rb"\x00",
    "b": rb"[\x40\x7c-\x7f]",
}


def plain_instructions(but: frozenset[int] = frozenset()) -> Callable[[bytes, int, int], re.Match[bytes] | None]:
    """Matches up to 10,000 instructions of WebAssembly 1.0 in their usual form, except those of the
    opcodes in `but`: a regular expression walks them some ten times faster than a loop in Python. Its
    alternatives start with different bytes and nothing follows them, so it never goes back over what
    it has matched."""
    by_form: dict[str, bytes] = {}
    for opcode, (feature, immediates) in _OPCODES.items():
        if not feature and immediates in _USUAL_FORM and opcode not in but:
            by_form[immediates] = by_form.get(immediates, b"") + b"\\x%02x" % opcode
    order = sorted(by_form, key=lambda form: form != "u")  # the most frequent first
    forms = (b"[" + by_form[form] + (b"]" if form else b"]+") + _USUAL_FORM[form] for form in order)
    return re.compile(b"(?:" + b"|".join(forms) + b"){0,10000}", re.DOTALL).match


_match_plain = plain_instructions()


def walk_body(reader: Reader) -> None:
    """Walk the instructions of a function body, from the reader's position to its end."""
    data, position = reader.data, reader.position
    last = reader.end - 1
    if position > last or data[last] != END:
        raise invalid(f"{reader.what} does not close with `end`", reader.end)
    reader.end = last  # no other instruction may reach into the closing one
    while True:
        match = _match_plain(data, position, last)
        if match is not None:  # it always is: no instruction at all is a match too
            position = match.end()
        reader.position = position
        if position == last:
            reader.end = reader.position = last + 1
            return
        step(reader)
        position = reader.position


def walk_constant(reader: Reader) -> None:
    """Walk a constant expression, its `end` included."""
    while True:
        start = reader.position
        opcode = step(reader)
        if opcode == END:
            return
        if opcode in _EXTENDED_CONSTANT:
            reader.features.add("extended-const")
        elif opcode not in _CONSTANT:
            raise invalid(f"instruction 0x{opcode:02x} cannot be a part of a constant", start)


def step(reader: Reader) -> int:
    """Walk one instruction; returns its opcode (see _PREFIX)."""
    start = reader.position
    opcode = reader.byte()
    if opcode in _PREFIXED:
        opcode = opcode << _PREFIX | reader.u32()
    entry = _OPCODES.get(opcode)
    if entry is None:
        name = f"0x{opcode:02x}" if opcode < 0x100 else f"0x{opcode >> _PREFIX:02x} 0x{opcode & 0xFFFFFFFF:02x}"
        raise invalid(f"unknown instruction {name}", start, "build for released features of WebAssembly")
    feature, immediates = entry
    if feature:
        reader.features.add(feature)
    for immediate in immediates:
        _READ[immediate](reader)
    return opcode


def _memory_argument(reader: Reader) -> None:
    if reader.u32() & 0x40:
        reader.features.add("multi-memory")
        reader.u32()
    start = reader.position
    offset = reader.u64()
    if offset >> 32 or reader.position - start > 5:
        reader.features.add("memory64")
    elif offset >= LARGE_OFFSET:
        reader.features.add("large-memory-offsets")


def _memory_index(reader: Reader) -> None:
    start = reader.position
    if reader.u32() or reader.position - start > 1:
        reader.features.add("multi-memory")


def _table_index(reader: Reader) -> None:
    start = reader.position
    if reader.u32() or reader.position - start > 1:
        reader.features.add("reference-types")


def _block_type(reader: Reader) -> None:
    if reader.position >= reader.end:
        raise reader.truncated(reader.position)
    code = reader.data[reader.position]
    if code == 0x40 or code in NUMBER_TYPES:
        reader.position += 1
    elif code & 0xC0 == 0x40:  # a negative number in one byte: a value type
        reader.value_type()
    else:
        start = reader.position
        if reader.signed(33) < 0:
            raise invalid("unknown block type", start, REBUILD)
        reader.features.add("multi-value")


def _labels(reader: Reader) -> None:
    for _ in range(reader.count("labels") + 1):
        reader.u32()


def _catches(reader: Reader) -> None:
    for _ in range(reader.count("catch clauses")):
        if reader.byte() < 2:  # catch and catch_ref name a tag, the other two catch all
            reader.u32()
        reader.u32()


def _resume_labels(reader: Reader) -> None:
    for _ in range(reader.count("handlers")):
        if reader.byte() == 0:  # on a tag to a label; else a switch
            reader.u32()
        reader.u32()


LARGE_OFFSET = 0x7FFF0000
"""A memory argument's offset from which on the module has the feature `large-memory-offsets`. It is
plain WebAssembly 1.0, but an engine that relies on 2 GiB of unmapped addresses behind a memory, and
checks nothing, lets such an access pass beyond them."""

_READ: dict[str, Callable[[Reader], object]] = {
    "u": Reader.u32,
    "s": lambda reader: reader.signed(32),
    "S": lambda reader: reader.signed(64),
    "1": Reader.byte,
    "4": lambda reader: reader.skip(4),
    "8": lambda reader: reader.skip(8),
    "v": lambda reader: reader.skip(16),
    "m": _memory_argument,
    "M": _memory_index,
    "i": _table_index,
    "b": _block_type,
    "h": Reader.heap_type,
    "l": _labels,
    "t": Reader.value_types,
    "c": _catches,
    "k": _resume_labels,
}
