"""Changing a WebAssembly module section by section: entries appended, one function import inserted.

Pure: bytes in, bytes out, over a module that an engine has found valid. What is added and why is in
instrument.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from runner.errors import InvalidModule
from runner.wasm_binary import Reader, encode_unsigned
from runner.wasm_code import walk_constant
from runner.wasm_module import Module, Section

CUSTOM, TYPE, IMPORT, FUNCTION, GLOBAL, EXPORT, ELEMENT, CODE, DATA = 0, 1, 2, 3, 6, 7, 9, 10, 11
NAME_LIMIT_BYTES: Final = 256
"""The longest name a module may give its functions in messages. Wasmer's message of a stack overflow
repeats it for each of some ten thousand frames."""

_ORDER: Final = (1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11)
_FUNCTION_KIND: Final = 0
_FUNCTION_NAMES: Final = 1

Renumber = Callable[[int], int]
"""A function's new index, from its old one."""


class NotRewritable(Exception):
    """The module has something in it that is not known how to renumber."""


def reader_of(body: bytes) -> Reader:
    """A reader of a section's contents."""
    return Reader(body, 0, len(body), set(), "a section")


def bodies_of(wasm: bytes, module: Module) -> dict[int, bytes]:
    """The contents of all sections but custom ones, by id."""
    return {section.id: wasm[section.body : section.end] for section in module.sections if section.id != CUSTOM}


def assembled(wasm: bytes, bodies: dict[int, bytes], custom: bytes = b"") -> bytes:
    """The module with these sections; `custom` is appended as it is."""
    parts = [bytes([id]) + sized(bodies[id]) for id in _ORDER if id in bodies]
    return wasm[:8] + b"".join(parts) + custom


def sized(content: bytes) -> bytes:
    """The bytes with their number before them."""
    return encode_unsigned(len(content)) + content


def count_of(body: bytes) -> int:
    """How many entries a section has."""
    return reader_of(body).u32()


def appended(body: bytes, *entries: bytes) -> bytes:
    """A section's contents with more entries at the end."""
    reader = reader_of(body)
    count = reader.u32()
    return encode_unsigned(count + len(entries)) + body[reader.position :] + b"".join(entries)


def renumbered_exports(body: bytes, renumber: Renumber) -> bytes:
    """The export section with functions under their new indices."""
    reader = reader_of(body)
    count = reader.u32()
    out = bytearray(encode_unsigned(count))
    for _ in range(count):
        start = reader.position
        reader.name()
        kind = reader.byte()
        out += body[start : reader.position]
        index = reader.u32()
        out += encode_unsigned(renumber(index) if kind == _FUNCTION_KIND else index)
    return bytes(out)


def renumbered_elements(body: bytes, renumber: Renumber) -> bytes:
    """The element section with functions under their new indices. Raises NotRewritable for segments
    of expressions."""
    reader = reader_of(body)
    count = reader.u32()
    out = bytearray(encode_unsigned(count))
    for _ in range(count):
        start = reader.position
        flags = reader.u32()
        if flags > 3:
            raise NotRewritable
        if not flags & 1:
            if flags & 2:
                reader.u32()
            walk_constant(reader)
        if flags:
            reader.byte()
        size = reader.u32()
        out += body[start : reader.position]
        for _ in range(size):
            out += encode_unsigned(renumber(reader.u32()))
    return bytes(out)


def name_section(module: Module, renumber: Renumber) -> bytes:
    """A name section of its own for the functions' new indices; nothing if there are no names, or one
    over the limit."""
    names = {renumber(index): name.encode() for index, name in sorted(module.function_names.items())}
    if not names or any(len(name) > NAME_LIMIT_BYTES for name in names.values()):
        return b""
    entries = [encode_unsigned(index) + sized(name) for index, name in names.items()]
    part = bytes([_FUNCTION_NAMES]) + sized(encode_unsigned(len(entries)) + b"".join(entries))
    return bytes([CUSTOM]) + sized(sized(b"name") + part)


def without_long_names(wasm: bytes, module: Module) -> bytes:
    """The module without a name section that has a name over the limit or cannot be read so far."""
    out, done = bytearray(), 0
    for section in module.sections:
        if section.id == CUSTOM and _has_long_names(wasm, section):
            out += wasm[done : section.start]
            done = section.end
    return bytes(out) + wasm[done:]


def _has_long_names(wasm: bytes, section: Section) -> bool:
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
        elif subsection == _FUNCTION_NAMES:
            for _ in range(part.u32()):
                part.u32()
                size = part.u32()
                part.skip(size)
                yield size
