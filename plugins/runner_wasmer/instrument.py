"""What is added to a module before it is compiled, so that the engine can tell and undo what it did.

Wasmer shows neither a refused `memory.grow` nor a module's globals. So growing goes through a
function of ours that notes a refusal, and globals are exported under names of ours. Indices are only
ever appended, so nothing of the module is renumbered. Pure: bytes in, bytes out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from runner.errors import InvalidModule
from runner.wasm import Module, inspect
from runner.wasm_binary import Reader, encode_unsigned
from runner.wasm_code import END, step, walk_constant
from runner.wasm_module import Section

PAGE_BYTES: Final = 4096
"""The machine's pages, by which memory is put back."""
NAME_LIMIT_BYTES: Final = 256
"""The longest name a module may give its functions in messages. Wasmer's message of a stack overflow
repeats it for each of some hundred thousand frames."""

_CUSTOM, _TYPE, _FUNCTION, _GLOBAL, _EXPORT, _CODE, _DATA = 0, 1, 3, 6, 7, 10, 11
_RANK: Final = {id: rank for rank, id in enumerate((1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11))}
_PREFIX: Final = "runner:"

_GROW: Final = 0x40
_I32_CONST: Final = 0x41
_BULK: Final = 0xFC << 32  # how wasm_code numbers an instruction with this prefix
_STATEFUL: Final = frozenset(_BULK | number for number in (0x09, 0x0C, 0x0D, 0x0E, 0x0F, 0x11))
"""data.drop, and whatever changes a table or drops its elements: what cannot be undone."""
_MAY_GROW: Final = re.compile(rb"\x40\x00")
_MAY_BE_STATEFUL: Final = re.compile(rb"\xfc[\x09\x0c-\x11\x80-\xff]")

_I32_TO_I32: Final = b"\x60\x01\x7f\x01\x7f"
_I32_GLOBAL: Final = b"\x7f\x01\x41\x00\x0b"
"""A mutable i32 that starts as 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Instrumented:
    """A module ready to be compiled, and what the engine must know of it."""

    wasm: bytes
    refused: str | None = None
    """The export of a global that is not 0 once a `memory.grow` was refused; None: it never grows."""
    globals: tuple[str, ...] = ()
    """The exports of all mutable globals."""
    data: tuple[tuple[int, int], ...] = ()
    """Where the memory does not start as zeros: first byte and one past the last, whole pages of
    PAGE_BYTES, in order and apart from each other."""
    restorable: bool = False
    """Whether memory and globals are all that an invocation can change."""


@dataclass(slots=True)
class _Code:
    """What the function bodies do."""

    section: bytes
    """The section's contents with every `memory.grow` turned into a call."""
    grows: bool = False
    stateful: bool = False


def instrument(wasm: bytes) -> Instrumented:
    """Prepare a module that the engine has found valid. Raises InvalidModule for bytes that are none."""
    module = inspect(wasm)
    bodies = {section.id: wasm[section.body : section.end] for section in module.sections if section.id != _CUSTOM}
    readers = {id: Reader(body, 0, len(body), set(), "a section") for id, body in bodies.items()}
    mutable = _mutable_globals(readers.get(_GLOBAL))
    code = _instrument_code(readers.get(_CODE), _function_count(module, readers))
    data = _data_ranges(readers.get(_DATA))
    plain = all(wanted.kind == "function" for wanted in module.imports)
    if not plain or any(export.name.startswith(_PREFIX) for export in module.exports):
        return Instrumented(wasm=_without_long_names(wasm, module))
    exports = [(f"{_PREFIX}global:{index}", index) for index in mutable]
    refused = None
    if code.grows:
        refused, flag = f"{_PREFIX}refused", _count(bodies.get(_GLOBAL))
        exports.append((refused, flag))
        bodies[_CODE] = _appended(code.section, _sized(_grow_function(flag)))
        bodies[_FUNCTION] = _appended(bodies[_FUNCTION], encode_unsigned(_count(bodies[_TYPE])))
        bodies[_TYPE] = _appended(bodies[_TYPE], _I32_TO_I32)
        bodies[_GLOBAL] = _appended(bodies.get(_GLOBAL, b"\0"), _I32_GLOBAL)
    for name, index in exports:
        entry = _sized(name.encode()) + b"\x03" + encode_unsigned(index)
        bodies[_EXPORT] = _appended(bodies.get(_EXPORT, b"\0"), entry)
    return Instrumented(
        wasm=_assembled(wasm, module, bodies),
        refused=refused,
        globals=tuple(name for name, _ in exports),
        data=data or (),
        restorable=data is not None
        and not code.stateful
        and module.start is None
        and "reference-types" not in module.features,
    )


def _count(body: bytes | None) -> int:
    """How many entries a section has."""
    return Reader(body, 0, len(body), set(), "a section").u32() if body else 0


def _appended(body: bytes, entry: bytes) -> bytes:
    """A section's contents with one entry more."""
    reader = Reader(body, 0, len(body), set(), "a section")
    count = reader.u32()
    return encode_unsigned(count + 1) + body[reader.position :] + entry


def _sized(content: bytes) -> bytes:
    return encode_unsigned(len(content)) + content


def _function_count(module: Module, readers: dict[int, Reader]) -> int:
    imported = sum(wanted.kind == "function" for wanted in module.imports)
    reader = readers.get(_FUNCTION)
    return imported + (_count(reader.data) if reader else 0)


def _mutable_globals(reader: Reader | None) -> list[int]:
    if reader is None:
        return []
    mutable = []
    for index in range(reader.u32()):
        reader.value_type()
        if reader.byte():
            mutable.append(index)
        walk_constant(reader)
    return mutable


def _data_ranges(reader: Reader | None) -> tuple[tuple[int, int], ...] | None:
    """The pages that active segments fill; None when one lies where only the engine will know."""
    pages: set[int] = set()
    for _ in range(reader.u32() if reader else 0):
        assert reader is not None
        flags = reader.u32()
        if flags == 2:
            reader.u32()
        offset = None
        if flags != 1:
            if reader.byte() != _I32_CONST:
                return None
            offset = reader.signed(32) & 0xFFFFFFFF
            if reader.byte() != END:
                return None
        size = reader.u32()
        reader.skip(size)
        if offset is not None and size:
            pages.update(range(offset // PAGE_BYTES, (offset + size - 1) // PAGE_BYTES + 1))
    return tuple(ranges(pages))


def ranges(pages: set[int], *, gap: int = 0) -> Iterator[tuple[int, int]]:
    """The pages as byte ranges; two that are at most `gap` pages apart become one."""
    first = last = -1
    for page in sorted(pages):
        if first >= 0 and page > last + 1 + gap:
            yield first * PAGE_BYTES, (last + 1) * PAGE_BYTES
            first = page
        elif first < 0:
            first = page
        last = page
    if first >= 0:
        yield first * PAGE_BYTES, (last + 1) * PAGE_BYTES


def _instrument_code(reader: Reader | None, helper: int) -> _Code:
    """Walk the bodies that may hold an instruction of interest, which few do."""
    if reader is None:
        return _Code(b"\0")
    data, call = reader.data, b"\x10" + encode_unsigned(helper)
    code = _Code(b"")
    count = reader.u32()
    out = bytearray(encode_unsigned(count))
    for _ in range(count):
        body = reader.part("a function body")
        start, end = body.position, body.end
        if not _MAY_GROW.search(data, start, end) and not _MAY_BE_STATEFUL.search(data, start, end):
            out += encode_unsigned(end - start) + data[start:end]
            continue
        rewritten, done = bytearray(), start
        for opcode, position in _instructions(body):
            if opcode == _GROW:
                rewritten += data[done:position] + call
                done = body.position
            elif opcode in _STATEFUL:
                code.stateful = True
        code.grows = code.grows or done > start
        out += _sized(bytes(rewritten) + data[done:end])
    code.section = bytes(out)
    return code


def _instructions(body: Reader) -> Iterator[tuple[int, int]]:
    """Opcode and position of each instruction of a body; the reader stands behind it meanwhile."""
    for _ in range(body.u32()):
        body.u32()
        body.value_type()
    while body.position < body.end:
        position = body.position
        yield step(body), position


def _grow_function(flag: int) -> bytes:
    """(pages) -> (the old size or -1): grow, and note a refusal in the global `flag`."""
    note = b"\x41\x01\x24" + encode_unsigned(flag)  # i32.const 1, global.set
    return b"\x00\x20\x00\x40\x00\x22\x00\x41\x7f\x46\x04\x40" + note + b"\x0b\x20\x00\x0b"


def _assembled(wasm: bytes, module: Module, bodies: dict[int, bytes]) -> bytes:
    """The module with these sections, new ones in their place, and custom ones where they were."""
    out = bytearray(wasm[:8])
    missing = sorted(bodies.keys() - {section.id for section in module.sections}, key=_RANK.__getitem__)
    for section in module.sections:
        if section.id == _CUSTOM:
            if not _has_long_names(wasm, section):
                out += wasm[section.start : section.end]
            continue
        while missing and _RANK[missing[0]] < _RANK[section.id]:
            id = missing.pop(0)
            out += bytes([id]) + _sized(bodies[id])
        out += bytes([section.id]) + _sized(bodies[section.id])
    for id in missing:
        out += bytes([id]) + _sized(bodies[id])
    return bytes(out)


def _without_long_names(wasm: bytes, module: Module) -> bytes:
    out, done = bytearray(), 0
    for section in module.sections:
        if section.id == _CUSTOM and _has_long_names(wasm, section):
            out += wasm[done : section.start]
            done = section.end
    return bytes(out) + wasm[done:]


def _has_long_names(wasm: bytes, section: Section) -> bool:
    """Whether this is a name section in which the module or a function has a name over the limit,
    or one that cannot be read so far."""
    reader = Reader(wasm, section.body, section.end, set(), "the name section")
    if reader.name() != "name":
        return False
    try:
        return any(size > NAME_LIMIT_BYTES for size in _name_sizes(reader))
    except InvalidModule:
        return True


def _name_sizes(reader: Reader) -> Iterator[int]:
    while reader.position < reader.end:
        subsection = reader.byte()
        part = reader.part("a part of the name section")
        if subsection == 0:
            yield part.u32()
        elif subsection == 1:
            for _ in range(part.u32()):
                part.u32()
                size = part.u32()
                part.skip(size)
                yield size
