"""The bytes of a WebAssembly module: integers, names, vectors and types, read with every bound checked.

Follows the core specification, chapter 5 (https://webassembly.github.io/spec/core/binary/). What the
sections and instructions mean lives in wasm_sections.py and wasm_code.py; users call wasm.py.
"""

from __future__ import annotations

from runner.errors import InvalidModule
from runner.wasm_module import Limits

REBUILD = "the file is damaged or was not written by a WebAssembly compiler: build or copy it again"
"""The remedy for bytes that make no sense."""

_SHOWN_CHARACTERS = 80

NUMBER_TYPES = {0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64"}
VECTOR_TYPE = 0x7B
NULLABLE_REFERENCE, REFERENCE, SHARED = 0x63, 0x64, 0x65

# Heap types by their one-byte code: the name that `(ref null ...)` shortens to, and its feature.
_HEAP_TYPES = {
    0x70: ("funcref", "reference-types"),
    0x6F: ("externref", "reference-types"),
    0x6E: ("anyref", "gc"),
    0x6D: ("eqref", "gc"),
    0x6C: ("i31ref", "gc"),
    0x6B: ("structref", "gc"),
    0x6A: ("arrayref", "gc"),
    0x73: ("nullfuncref", "gc"),
    0x72: ("nullexternref", "gc"),
    0x71: ("nullref", "gc"),
    0x69: ("exnref", "exceptions"),
    0x74: ("nullexnref", "exceptions"),
    0x68: ("contref", "stack-switching"),
    0x75: ("nullcontref", "stack-switching"),
}


def shown(name: str) -> str:
    """A name from a module, fit to print: shortened, and without control characters."""
    short = name if len(name) <= _SHOWN_CHARACTERS else name[:_SHOWN_CHARACTERS] + "..."
    return short if short.isprintable() else short.encode("unicode_escape").decode()


def invalid(message: str, offset: int, remedy: str = REBUILD) -> InvalidModule:
    """The error for what stands at `offset`, counted in bytes from the start of the module."""
    return InvalidModule(f"invalid module, byte {offset} (0x{offset:x}): {message}; {remedy}")


def encode_unsigned(value: int) -> bytes:
    """`value` >= 0 as unsigned LEB128, in as few bytes as possible."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Reader:
    """Reads a part of a module, from `position` up to `end`. What the values use of features later
    than WebAssembly 1.0 is added to `features`. Every method raises InvalidModule for bytes that
    are not what they should be, before it allocates anything for them."""

    __slots__ = ("data", "end", "features", "position", "what")

    def __init__(self, data: bytes, position: int, end: int, features: set[str], what: str) -> None:
        self.data, self.position, self.end, self.features, self.what = data, position, end, features, what

    def truncated(self, offset: int) -> InvalidModule:
        """The error for a value that would pass the end of this part."""
        return invalid(f"{self.what} ends at byte {self.end}, in the middle of a value", offset)

    def byte(self) -> int:
        """The next byte."""
        position = self.position
        if position >= self.end:
            raise self.truncated(position)
        self.position = position + 1
        return self.data[position]

    def skip(self, size: int) -> int:
        """Pass over `size` bytes; returns where they start."""
        start = self.position
        if size > self.end - start:
            raise self.truncated(start)
        self.position = start + size
        return start

    def part(self, what: str) -> Reader:
        """A reader of the next part, whose size in bytes stands before it; passes over it."""
        offset = self.position
        size = self.u32()
        if size > self.end - self.position:
            rest = self.end - self.position
            raise invalid(
                f"{what} claims {size:,} bytes, {rest:,} are left", offset, "the file is truncated or damaged"
            )
        start = self.skip(size)
        return Reader(self.data, start, start + size, self.features, what)

    def _leb(self, bits: int) -> tuple[int, int]:
        """The raw value and the number of bytes of a LEB128 of at most `bits` bits."""
        data, start, end = self.data, self.position, self.end
        position, value, shift = start, 0, 0
        while True:
            if position >= end:
                raise self.truncated(start)
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                self.position = position
                return value, shift
            if shift >= bits:
                raise invalid(f"an integer of more than {bits} bits", start)

    def _unsigned(self, bits: int) -> int:
        start = self.position
        value, _ = self._leb(bits)
        if value >> bits:
            raise invalid(f"an integer of more than {bits} bits", start)
        return value

    def u32(self) -> int:
        """An unsigned integer of 32 bits."""
        position = self.position
        if position < self.end and (byte := self.data[position]) < 0x80:
            self.position = position + 1
            return byte
        return self._unsigned(32)

    def u64(self) -> int:
        """An unsigned integer of 64 bits."""
        return self._unsigned(64)

    def signed(self, bits: int) -> int:
        """A signed integer of `bits` bits (32, 33 or 64)."""
        start = self.position
        value, shift = self._leb(bits)
        if value >> (shift - 1):
            value -= 1 << shift
        if not -(1 << (bits - 1)) <= value < 1 << (bits - 1):
            raise invalid(f"an integer of more than {bits} bits", start)
        return value

    def count(self, what: str) -> int:
        """The number of entries of a vector. Each takes at least one byte, so a number that the rest
        of this part cannot hold is refused at once."""
        offset = self.position
        count = self.u32()
        if count > self.end - self.position:
            rest = self.end - self.position
            raise invalid(f"{self.what} claims {count:,} {what} in {rest:,} bytes", offset)
        return count

    def name(self) -> str:
        """A name in UTF-8."""
        size = self.u32()
        start = self.skip(size)
        try:
            return self.data[start : start + size].decode()
        except UnicodeDecodeError:
            raise invalid(f"a name in {self.what} is no UTF-8", start) from None

    def finish(self) -> None:
        """Check that nothing is left."""
        if self.position != self.end:
            raise invalid(f"{self.what} has {self.end - self.position:,} bytes too many", self.position)

    def heap_type(self) -> str:
        """A heap type: an abstract one as the name of its nullable reference, else a type index."""
        start = self.position
        if start < self.end and self.data[start] == SHARED:
            self.features.add("shared-everything-threads")
            self.position += 1
        value = self.signed(33)
        if value >= 0:
            self.features.add("function-references")
            return str(value)
        entry = _HEAP_TYPES.get(value & 0x7F) if value >= -64 else None
        if entry is None:
            raise invalid(f"unknown heap type {value}", start)
        self.features.add(entry[1])
        return entry[0]

    def reference_type(self) -> str:
        """A reference type, by the name the text format gives it."""
        code = self.byte()
        if code in (NULLABLE_REFERENCE, REFERENCE):
            self.features.add("function-references")
            null = "null " if code == NULLABLE_REFERENCE else ""
            return f"(ref {null}{self.heap_type()})"
        entry = _HEAP_TYPES.get(code)
        if entry is None:
            raise invalid(f"unknown type 0x{code:02x}", self.position - 1)
        self.features.add(entry[1])
        return entry[0]

    def value_type(self) -> str:
        """The type of a parameter, a result, a local or a global."""
        if self.position < self.end:
            code = self.data[self.position]
            if code in NUMBER_TYPES:
                self.position += 1
                return NUMBER_TYPES[code]
            if code == VECTOR_TYPE:
                self.position += 1
                self.features.add("simd")
                return "v128"
        return self.reference_type()

    def value_types(self) -> tuple[str, ...]:
        """A vector of value types."""
        return tuple([self.value_type() for _ in range(self.count("types"))])

    def element_type(self) -> str:
        """The reference type of a table's or segment's elements: `funcref` is WebAssembly 1.0 here."""
        if self.position < self.end and self.data[self.position] == 0x70:
            self.position += 1
            return "funcref"
        return self.reference_type()

    def limits(self, *, imported: bool) -> Limits:
        """The limits of a memory or table."""
        start = self.position
        flags = self.byte()
        if flags > 0x0F:
            raise invalid(f"unknown flags 0x{flags:02x} of a memory or table", start)
        for bit, feature in ((2, "threads"), (4, "memory64"), (8, "custom-page-sizes")):
            if flags & bit:
                self.features.add(feature)
        read = self.u64 if flags & 4 else self.u32
        minimum = read()
        maximum = read() if flags & 1 else None
        if maximum is not None and minimum > maximum:
            raise invalid(f"an initial size of {minimum:,} is above its maximum, {maximum:,}", start)
        span = (start, self.position)
        if flags & 8:
            self.u32()
        shared, is64, custom = bool(flags & 2), bool(flags & 4), bool(flags & 8)
        return Limits(minimum, maximum, shared, is64, custom, imported, span)
