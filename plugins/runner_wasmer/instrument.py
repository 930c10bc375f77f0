"""What is changed in a module before it is compiled, so that the engine can tell and undo what it did.

Wasmer shows neither a refused `memory.grow` nor a module's globals, and a memory never shrinks. So
growing calls a host function of ours, the memory's size becomes a global, and mutable globals are
exported under names of ours. Pure: bytes in, bytes out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from runner.errors import UnsupportedFeature
from runner.wasm import Module, inspect
from runner.wasm_binary import Reader, encode_unsigned
from runner.wasm_code import END, plain_instructions, step, walk_constant
from runner_wasmer import sections
from runner_wasmer.features import VERIFIED
from runner_wasmer.pages import PAGE_BYTES, ranges
from runner_wasmer.sections import CODE, DATA, ELEMENT, EXPORT, FUNCTION, GLOBAL, IMPORT, TYPE, NotRewritable
from runner_wasmer.signatures import GROW_IMPORT

_PREFIX: Final = "runner:"
_CALL, _SIZE, _GROW, _I32_CONST = 0x10, 0x3F, 0x40, 0x41
_BULK: Final = 0xFC << 32  # how wasm_code numbers an instruction with this prefix
_STATEFUL: Final = frozenset(_BULK | number for number in (0x09, 0x0C, 0x0D, 0x0E))
"""data.drop, table.init, elem.drop, table.copy: what cannot be undone."""
_INIT, _COPY, _FILL = (_BULK | number for number in (0x08, 0x0A, 0x0B))
"""memory.init, memory.copy, memory.fill: Wasmer's own code does these, and checks them against the
size that it knows. So the module checks before it, in functions of ours; but for the rare first."""
_match_plain = plain_instructions(but=frozenset({_CALL, _SIZE, _GROW}))

_GROW_TYPE: Final = b"\x60\x01\x7f\x01\x7f"
_HOST_TYPE: Final = b"\x60\x02\x7f\x7f\x01\x7f"
_BULK_TYPE: Final = b"\x60\x03\x7f\x7f\x7f\x00"


@dataclass(frozen=True, kw_only=True, slots=True)
class Instrumented:
    """A module ready to be compiled, and what the engine must know of it."""

    wasm: bytes
    inserted: int | None = None
    """The index of the function import that was inserted; those behind it moved by one. None: the
    module is as it was, but for long names."""
    memory: str | None = None
    """The export of its memory, under a name of ours; None: it has none, or it is as it was."""
    globals: tuple[str, ...] = ()
    """The exports of all mutable globals."""
    data: tuple[tuple[int, int], ...] = ()
    """Where the memory does not start as zeros: first byte and one past the last, whole pages of
    PAGE_BYTES, in order and apart from each other."""
    restorable: bool = False
    """Whether memory and globals are all that an invocation can change."""
    shrinkable: bool = False
    """Whether that holds too when the memory grew: nothing but the module's own code reaches it."""


def instrument(wasm: bytes) -> Instrumented:
    """Prepare a module that the engine has found valid. Raises InvalidModule for bytes that are none,
    UnsupportedFeature for features that Wasmer does not run correctly or safely."""
    module = inspect(wasm)
    unverified = sorted(module.features - VERIFIED)
    if unverified:
        raise UnsupportedFeature(", ".join(unverified), executor="wasmer", other="wasmtime")
    try:
        return _instrumented(wasm, module)
    except NotRewritable:
        return Instrumented(wasm=sections.without_long_names(wasm, module))


def _instrumented(wasm: bytes, module: Module) -> Instrumented:
    # A start function runs before anything can serve its growing.
    if module.start is not None:
        raise NotRewritable
    if any(wanted.kind != "function" or wanted.module == GROW_IMPORT[0] for wanted in module.imports):
        raise NotRewritable
    if any(export.name.startswith(_PREFIX) for export in module.exports):
        raise NotRewritable
    bodies = sections.bodies_of(wasm, module)
    code = _Code(bodies, imported=len(module.imports))
    exported = [(f"{_PREFIX}global:{index}", index) for index in _mutable_globals(bodies.get(GLOBAL, b"\0"))]
    memory = f"{_PREFIX}memory" if module.memories else None
    custom = sections.name_section(module, lambda index: index)
    if code.grows:
        exported.append((f"{_PREFIX}pages", sections.count_of(bodies.get(GLOBAL, b"\0"))))
        _add_growing(bodies, code, module.memories[0].minimum)
        custom = sections.name_section(module, code.renumber)
    entries = [sections.sized(name.encode()) + b"\x03" + encode_unsigned(index) for name, index in exported]
    if memory is not None:
        entries.append(sections.sized(memory.encode()) + b"\x02\x00")
    bodies[EXPORT] = sections.appended(bodies.get(EXPORT, b"\0"), *entries)
    data = _data_ranges(bodies.get(DATA, b"\0"))
    restorable = data is not None and not code.stateful
    return Instrumented(
        wasm=sections.assembled(wasm, bodies, custom),
        inserted=code.imported if code.grows else None,
        memory=memory,
        globals=tuple(name for name, _ in exported),
        data=data or (),
        restorable=restorable,
        shrinkable=restorable and not code.initializes,
    )


def _add_growing(bodies: dict[int, bytes], code: _Code, minimum: int) -> None:
    """Insert the host function behind the other imports, append the functions that the code calls now
    and the global that holds the size, and renumber the rest."""
    types, pages = sections.count_of(bodies[TYPE]), sections.count_of(bodies.get(GLOBAL, b"\0"))
    name, field = (sections.sized(text.encode()) for text in GROW_IMPORT)
    entry = name + field + b"\0" + encode_unsigned(types + 1)
    start = b"\x7f\x01\x41" + _signed(minimum) + b"\x0b"
    functions = [(types, _grow_function(code.imported, pages))]
    if code.copies:
        functions += [(types + 2, _bulk_function(_COPY, pages)), (types + 2, _bulk_function(_FILL, pages))]
    bodies[TYPE] = sections.appended(bodies[TYPE], _GROW_TYPE, _HOST_TYPE, _BULK_TYPE)
    bodies[IMPORT] = sections.appended(bodies.get(IMPORT, b"\0"), entry)
    bodies[FUNCTION] = sections.appended(bodies[FUNCTION], *(encode_unsigned(kind) for kind, _ in functions))
    bodies[GLOBAL] = sections.appended(bodies.get(GLOBAL, b"\0"), start)
    bodies[CODE] = sections.appended(code.section(), *(sections.sized(body) for _, body in functions))
    if EXPORT in bodies:
        bodies[EXPORT] = sections.renumbered_exports(bodies[EXPORT], code.renumber)
    if ELEMENT in bodies:
        bodies[ELEMENT] = sections.renumbered_elements(bodies[ELEMENT], code.renumber)


def _grow_function(host: int, pages: int) -> bytes:
    """(pages more) -> (the old size or -1): what `memory.grow` does, by way of the host function."""
    size, set_size = b"\x23" + encode_unsigned(pages), b"\x24" + encode_unsigned(pages)
    body = b"\x01\x01\x7f"  # one local, the answer
    body += size + b"\x20\x00\x10" + encode_unsigned(host) + b"\x22\x01"
    body += b"\x41\x7f\x47\x04\x40\x20\x01\x20\x00\x6a" + set_size + b"\x0b"  # not -1: size = old + more
    return body + b"\x20\x01\x0b"


def _bulk_function(opcode: int, pages: int) -> bytes:
    """(address, address or byte, length): memory.copy or memory.fill, after a check of the addresses
    against the size that the guest knows."""
    checked = (0, 1) if opcode == _COPY else (0,)
    immediates = b"\x0a\x00\x00" if opcode == _COPY else b"\x0b\x00"
    checks = b"".join(_check(local, pages) for local in checked)
    return b"\x00" + checks + b"\x20\x00\x20\x01\x20\x02\xfc" + immediates + b"\x0b"


def _check(local: int, pages: int) -> bytes:
    """Trap, as out of bounds, if `local` + the length (local 2) is beyond the memory's end."""
    end = b"\x20" + bytes([local]) + b"\xad\x20\x02\xad\x7c"  # as i64
    size = b"\x23" + encode_unsigned(pages) + b"\xad\x42\x10\x86"  # << 16
    load_past_any_end = b"\x41\x7f\x28\x00\x00\x1a"  # four bytes at 0xffffffff
    return end + size + b"\x56\x04\x40" + load_past_any_end + b"\x0b"


def _signed(value: int) -> bytes:
    """A number >= 0 as signed LEB128."""
    plain = encode_unsigned(value)
    return plain if plain[-1] < 0x40 else plain[:-1] + bytes([plain[-1] | 0x80, 0])


class _Code:
    """What the function bodies do, and how they read when growing is a call."""

    def __init__(self, bodies: dict[int, bytes], *, imported: int) -> None:
        self.imported = imported
        self.grows = self.stateful = self.copies = self.initializes = False
        defined = sections.count_of(bodies.get(FUNCTION, b"\0"))
        added = imported + 1 + defined
        self._calls = {opcode: b"\x10" + encode_unsigned(added + n) for n, opcode in enumerate((_GROW, _COPY, _FILL))}
        self._size = b"\x23" + encode_unsigned(sections.count_of(bodies.get(GLOBAL, b"\0")))
        reader = sections.reader_of(bodies.get(CODE, b"\0"))
        self._bodies = [self._body(reader.part("a function body")) for _ in range(reader.u32())]

    def renumber(self, index: int) -> int:
        """A function's index with the host function before those that the module defines."""
        return index + 1 if index >= self.imported else index

    def section(self) -> bytes:
        """The rewritten section's contents."""
        return encode_unsigned(len(self._bodies)) + b"".join(map(sections.sized, self._bodies))

    def _body(self, reader: Reader) -> bytes:
        data, start, end = reader.data, reader.position, reader.end
        for _ in range(reader.u32()):
            reader.u32()
            reader.value_type()
        position = reader.position
        out = bytearray(data[start:position])
        while position < end:
            match = _match_plain(data, position, end)
            if match is not None and match.end() > position:
                out += data[position : match.end()]
                position = match.end()
                continue
            reader.position = position
            out += self._instruction(reader)
            position = reader.position
        return bytes(out)

    def _instruction(self, reader: Reader) -> bytes:
        """One instruction that is not plain, as it is to be."""
        start = reader.position
        opcode = step(reader)
        if opcode == _CALL:
            reader.position = start + 1
            return b"\x10" + encode_unsigned(self.renumber(reader.u32()))
        if opcode == _SIZE:
            return self._size
        self.grows = self.grows or opcode == _GROW
        self.copies = self.copies or opcode in (_COPY, _FILL)
        self.initializes = self.initializes or opcode == _INIT
        self.stateful = self.stateful or opcode in _STATEFUL
        if opcode in self._calls:
            return self._calls[opcode]
        return reader.data[start : reader.position]


def _mutable_globals(body: bytes) -> Iterator[int]:
    reader = sections.reader_of(body)
    for index in range(reader.u32()):
        reader.value_type()
        if reader.byte():
            yield index
        walk_constant(reader)


def _data_ranges(body: bytes) -> tuple[tuple[int, int], ...] | None:
    """The pages that active segments fill; None when one lies where only the engine will know."""
    reader, pages = sections.reader_of(body), set[int]()
    for _ in range(reader.u32()):
        active = reader.u32() != 1  # a memory index would be a feature that is not known
        offset = 0
        if active:
            if reader.byte() != _I32_CONST:
                return None
            offset = reader.signed(32) & 0xFFFFFFFF
            if reader.byte() != END:
                return None
        size = reader.u32()
        reader.skip(size)
        if active and size:
            pages.update(range(offset // PAGE_BYTES, (offset + size - 1) // PAGE_BYTES + 1))
    return tuple(ranges(pages))
