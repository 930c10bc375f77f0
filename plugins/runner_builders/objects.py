"""Reads the little of WebAssembly files that a builder must know, and trims what a linker adds.

Pure functions over bytes that our own compiler made; checking foreign modules is not done here.
Formats: the core specification (binary modules) and the tool conventions' Linking.md (objects).
"""

from __future__ import annotations

from collections.abc import Iterator

CUSTOM = 0
_SYMBOL_TABLE = 8
_FUNCTION, _DATA, _SECTION = 0, 1, 3
_UNDEFINED, _EXPLICIT_NAME = 0x10, 0x40


class _Reader:
    def __init__(self, data: bytes, position: int = 0) -> None:
        self.data, self.position = data, position

    def more(self) -> bool:
        return self.position < len(self.data)

    def byte(self) -> int:
        self.position += 1
        return self.data[self.position - 1]

    def number(self) -> int:
        """An unsigned LEB128 number."""
        result = shift = 0
        while True:
            byte = self.byte()
            result |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return result

    def take(self, size: int) -> bytes:
        self.position += size
        return self.data[self.position - size : self.position]

    def name(self) -> str:
        return self.take(self.number()).decode()


def sections(wasm: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """The sections in order: id, content, and the whole with its header."""
    reader = _Reader(wasm, 8)
    while reader.more():
        start, kind = reader.position, reader.byte()
        content = reader.take(reader.number())
        yield kind, content, wasm[start : reader.position]


def keep_names_only(wasm: bytes) -> bytes:
    """The module without custom sections, save the names of its functions.

    Debug data and the producers note go: they are large, and they hold folders of the build machine.
    The names stay: a trap's message shows them.
    """
    kept = [whole for kind, content, whole in sections(wasm) if kind != CUSTOM or _Reader(content).name() == "name"]
    return wasm[:8] + b"".join(kept)


def defined_functions(wasm_object: bytes) -> frozenset[str]:
    """The names of the functions that an object file defines, static ones too."""
    for kind, content, _ in sections(wasm_object):
        reader = _Reader(content)
        if kind == CUSTOM and reader.name() == "linking":
            return frozenset(_functions_of(reader))
    return frozenset()


def _functions_of(linking: _Reader) -> Iterator[str]:
    linking.number()  # the format's version
    while linking.more():
        kind = linking.byte()
        content = linking.take(linking.number())
        if kind == _SYMBOL_TABLE:
            table = _Reader(content)
            for _ in range(table.number()):
                name = _next_function(table)
                if name is not None:
                    yield name


def _next_function(table: _Reader) -> str | None:
    """Reads one symbol; its name when it is a function with a body."""
    kind, flags = table.byte(), table.number()
    if kind == _SECTION:
        table.number()
        return None
    if kind == _DATA:
        table.name()
        if not flags & _UNDEFINED:
            table.number(), table.number(), table.number()
        return None
    table.number()
    name = table.name() if not flags & _UNDEFINED or flags & _EXPLICIT_NAME else ""
    return name if kind == _FUNCTION and not flags & _UNDEFINED else None
