"""The sections of a WebAssembly core module, read into a `Module`: what it imports, exports and uses.

Everything an engine would allocate for is bounded by the file's own size here. Types and nesting of
instructions are left to the engine's validation. Follows the core specification, section 5.5.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from runner.errors import InvalidModule
from runner.wasm_binary import Reader, invalid
from runner.wasm_code import walk_body, walk_constant
from runner.wasm_module import KINDS, Export, Import, Limits, Module, Section

HEADER_BYTES = 8
"""Magic number and version."""

_MAX_PAGES = 65_536
_FUNCTION_NAMES = 1  # the subsection of the name section
# What engines take at the most (JavaScript embedding, implementation limits).
_MAX_TABLES = 100  # and as many memories
_MAX_LOCALS = 50_000

_FUNCTION, _STRUCT, _ARRAY, _CONTINUATION = 0x60, 0x5F, 0x5E, 0x5D
_SUB, _SUB_FINAL, _GROUP = 0x50, 0x4F, 0x4E


_Signature = tuple[tuple[str, ...], tuple[str, ...]]


class _Loader:
    """Collects a module while its sections are read one by one."""

    def __init__(self, data: bytes, features: set[str]) -> None:
        self.data, self.features = data, features
        self.types: list[_Signature | None] = []  # None: a type that is no function
        self.functions: list[int] = []  # the type of each, imported ones first
        self.tags: list[int] = []
        self.globals: list[bool] = []  # whether it is mutable
        self.defined = self.bodies = 0
        self.imports: list[Import] = []
        self.exports: list[Export] = []
        self.memories: list[Limits] = []
        self.tables: list[Limits] = []
        self.start: int | None = None
        self.names: dict[int, str] = {}
        self.custom: list[str] = []
        self.data_segments: int | None = None

    # Types

    def read_types(self, reader: Reader) -> None:
        for _ in range(reader.count("types")):
            if reader.position < reader.end and reader.data[reader.position] == _GROUP:
                self.features.add("gc")
                reader.byte()
                for _ in range(reader.count("types")):
                    self._read_type(reader)
            else:
                self._read_type(reader)

    def _read_type(self, reader: Reader) -> None:
        form = reader.byte()
        if form in (_SUB, _SUB_FINAL):
            self.features.add("gc")
            for _ in range(reader.count("supertypes")):
                reader.u32()
            form = reader.byte()
        if form == 0x65:
            self.features.add("shared-everything-threads")
            form = reader.byte()
        if form == _FUNCTION:
            params, results = reader.value_types(), reader.value_types()
            if len(results) > 1:
                self.features.add("multi-value")
            self.types.append((params, results))
            return
        if form in (_STRUCT, _ARRAY):
            self.features.add("gc")
            for _ in range(reader.count("fields") if form == _STRUCT else 1):
                self._read_field(reader)
        elif form == _CONTINUATION:
            self.features.add("stack-switching")
            reader.signed(33)
        else:
            raise invalid(f"unknown form 0x{form:02x} of a type", reader.position - 1)
        self.types.append(None)

    def _read_field(self, reader: Reader) -> None:
        if reader.position < reader.end and reader.data[reader.position] in (0x78, 0x77):  # i8, i16
            reader.byte()
        else:
            reader.value_type()
        reader.byte()

    def _signature(self, reader: Reader) -> int:
        """A type index that is known to be a function's."""
        offset = reader.position
        index = reader.u32()
        if index >= len(self.types) or self.types[index] is None:
            raise invalid(f"type {index} is no function type; there are {len(self.types):,} types", offset)
        return index

    def _type(self, index: int) -> _Signature:
        return self.types[index] or ((), ())

    # What has an index

    def read_imports(self, reader: Reader) -> None:
        for _ in range(reader.count("imports")):
            module, name, offset = reader.name(), reader.name(), reader.position
            code = reader.byte()
            if code >= len(KINDS):
                raise invalid(f"unknown kind {code} of an import", offset)
            params, results = self._import(reader, code)
            self.imports.append(Import(module, name, KINDS[code], params, results))

    def _import(self, reader: Reader, code: int) -> _Signature:
        if code == 0:
            self.functions.append(self._signature(reader))
            return self._type(self.functions[-1])
        if code == 1:
            self._table(reader, imported=True)
        elif code == 2:
            self._memory(reader, imported=True)
        elif code == 3:
            if self._global(reader):
                self.features.add("mutable-globals")
        else:
            self._tag(reader)
            return self._type(self.tags[-1])
        return (), ()

    def read_functions(self, reader: Reader) -> None:
        self.defined = reader.count("functions")
        for _ in range(self.defined):
            self.functions.append(self._signature(reader))

    def read_tables(self, reader: Reader) -> None:
        for _ in range(reader.count("tables")):
            if reader.position < reader.end and reader.data[reader.position] == 0x40:
                self.features.add("function-references")
                reader.skip(2)
                self._table(reader, imported=False)
                walk_constant(reader)
            else:
                self._table(reader, imported=False)

    def _table(self, reader: Reader, *, imported: bool) -> None:
        reader.element_type()
        self._add(self.tables, reader.limits(imported=imported), "tables", "reference-types")

    def _add(self, space: list[Limits], limits: Limits, what: str, several: str) -> None:
        space.append(limits)
        if len(space) > 1:
            self.features.add(several)
        if len(space) > _MAX_TABLES:
            raise invalid(f"more than {_MAX_TABLES} {what}", limits.span[0], "no engine takes that many")

    def read_memories(self, reader: Reader) -> None:
        for _ in range(reader.count("memories")):
            self._memory(reader, imported=False)

    def _memory(self, reader: Reader, *, imported: bool) -> None:
        limits = reader.limits(imported=imported)
        most = max(limits.minimum, limits.maximum or 0)
        if most > _MAX_PAGES and not limits.is64 and not limits.custom_page_size:
            raise invalid(f"a memory of {most:,} pages; the most is {_MAX_PAGES:,}", limits.span[0])
        self._add(self.memories, limits, "memories", "multi-memory")

    def read_tags(self, reader: Reader) -> None:
        for _ in range(reader.count("tags")):
            self._tag(reader)

    def _tag(self, reader: Reader) -> None:
        self.features.add("exceptions")
        if reader.byte() != 0:
            raise invalid("unknown attribute of a tag", reader.position - 1)
        self.tags.append(self._signature(reader))

    def read_globals(self, reader: Reader) -> None:
        for _ in range(reader.count("globals")):
            self._global(reader)
            walk_constant(reader)

    def _global(self, reader: Reader) -> bool:
        reader.value_type()
        flags = reader.byte()
        if flags > 3:
            raise invalid(f"unknown mutability {flags} of a global", reader.position - 1)
        if flags & 2:
            self.features.add("shared-everything-threads")
        self.globals.append(bool(flags & 1))
        return self.globals[-1]

    def read_exports(self, reader: Reader) -> None:
        spaces = (self.functions, self.tables, self.memories, self.globals, self.tags)
        seen: set[str] = set()
        for _ in range(reader.count("exports")):
            offset = reader.position
            name, code, index = reader.name(), reader.byte(), reader.u32()
            if code >= len(KINDS) or index >= len(spaces[code]):
                raise invalid(f"an export of kind {code} names index {index}, which does not exist", offset)
            if name in seen:
                raise invalid("two exports have the same name", offset)
            seen.add(name)
            signed = self.functions if code == 0 else self.tags if code == 4 else None
            params, results = self._type(signed[index]) if signed is not None else ((), ())
            if code == 3 and self.globals[index]:
                self.features.add("mutable-globals")
            self.exports.append(Export(name, KINDS[code], index, params, results))

    def read_start(self, reader: Reader) -> None:
        offset = reader.position
        self.start = reader.u32()
        if self.start >= len(self.functions):
            raise invalid(f"the start function {self.start} does not exist", offset)

    # Contents

    def read_elements(self, reader: Reader) -> None:
        for _ in range(reader.count("element segments")):
            offset = reader.position
            flags = reader.u32()
            if flags > 7:
                raise invalid(f"unknown flags {flags} of an element segment", offset)
            if flags:
                self.features.add("bulk-memory")
            if not flags & 1:
                if flags & 2 and reader.u32():
                    self.features.add("reference-types")
                walk_constant(reader)
            elif flags & 2:
                self.features.add("reference-types")
            self._read_elements(reader, flags)

    def _read_elements(self, reader: Reader, flags: int) -> None:
        expressions = bool(flags & 4)
        if flags & 3 and expressions:
            reader.element_type()
        elif flags & 3 and reader.byte() != 0:
            raise invalid("unknown kind of elements in a segment", reader.position - 1)
        for _ in range(reader.count("elements")):
            if expressions:
                walk_constant(reader)
            else:
                reader.u32()

    def read_data_count(self, reader: Reader) -> None:
        self.features.add("bulk-memory")
        self.data_segments = reader.u32()

    def read_code(self, reader: Reader) -> None:
        offset = reader.position
        self.bodies = reader.count("function bodies")
        if self.bodies != self.defined:
            raise invalid(f"{self.bodies:,} bodies for {self.defined:,} functions", offset)
        for _ in range(self.bodies):
            body = reader.part("a function body")
            self._read_locals(body)
            walk_body(body)

    def _read_locals(self, reader: Reader) -> None:
        offset, total = reader.position, 0
        for _ in range(reader.count("locals")):
            total += reader.u32()
            if total > _MAX_LOCALS:
                raise invalid(f"a function with more than {_MAX_LOCALS:,} locals", offset)
            reader.value_type()

    def read_data(self, reader: Reader) -> None:
        offset = reader.position
        count = reader.count("data segments")
        if self.data_segments not in (None, count):
            raise invalid(f"{count:,} data segments where {self.data_segments:,} were announced", offset)
        for _ in range(count):
            flags = reader.u32()
            if flags > 2:
                raise invalid(f"unknown flags {flags} of a data segment", reader.position - 1)
            if flags:
                self.features.add("bulk-memory")
            if flags == 2 and reader.u32():
                self.features.add("multi-memory")
            if flags != 1:
                walk_constant(reader)
            reader.skip(reader.u32())

    # The module as a whole

    def read_custom(self, reader: Reader) -> None:
        name = reader.name()
        self.custom.append(name)
        if name == "name":
            # A name section helps to read a trap; a damaged one must not stand in a module's way.
            with suppress(InvalidModule):
                self._read_names(reader)

    def _read_names(self, reader: Reader) -> None:
        while reader.position < reader.end:
            subsection = reader.byte()
            part = reader.part("a part of the name section")
            if subsection != _FUNCTION_NAMES:
                continue
            for _ in range(part.count("names")):
                index = part.u32()
                size = part.u32()
                at = part.skip(size)
                self.names[index] = self.data[at : at + size].decode("utf-8", "replace")

    def module(self, sections: list[Section]) -> Module:
        """What was collected."""
        return Module(
            imports=tuple(self.imports),
            exports=tuple(self.exports),
            features=frozenset(self.features),
            memories=tuple(self.memories),
            tables=tuple(self.tables),
            start=self.start,
            function_names=self.names,
            custom_sections=tuple(self.custom),
            sections=tuple(sections),
        )


_CUSTOM = 0
# The sections by id, in the order in which they must stand; custom ones may stand anywhere.
_SECTIONS: dict[int, tuple[str, Callable[[_Loader, Reader], None]]] = {
    1: ("the type section", _Loader.read_types),
    2: ("the import section", _Loader.read_imports),
    3: ("the function section", _Loader.read_functions),
    4: ("the table section", _Loader.read_tables),
    5: ("the memory section", _Loader.read_memories),
    13: ("the tag section", _Loader.read_tags),
    6: ("the global section", _Loader.read_globals),
    7: ("the export section", _Loader.read_exports),
    8: ("the start section", _Loader.read_start),
    9: ("the element section", _Loader.read_elements),
    12: ("the data count section", _Loader.read_data_count),
    10: ("the code section", _Loader.read_code),
    11: ("the data section", _Loader.read_data),
}
_RANK = {id: rank for rank, id in enumerate(_SECTIONS)}


def read_module(wasm: bytes) -> Module:
    """Read a core module whose magic number and version have been checked. Raises InvalidModule."""
    features: set[str] = set()
    loader = _Loader(wasm, features)
    reader = Reader(wasm, HEADER_BYTES, len(wasm), features, "the module")
    sections: list[Section] = []
    last = -1
    while reader.position < reader.end:
        start = reader.position
        id = reader.byte()
        if id == _CUSTOM:
            part = reader.part("a custom section")
            sections.append(Section(id, start, part.position, part.end))
            loader.read_custom(part)
            continue
        if id not in _SECTIONS:
            raise invalid(f"unknown section {id}", start)
        what, read = _SECTIONS[id]
        if _RANK[id] <= last:
            raise invalid(f"{what} stands twice or in the wrong place", start)
        last = _RANK[id]
        part = reader.part(what)
        sections.append(Section(id, start, part.position, part.end))
        read(loader, part)
        part.finish()
    if loader.bodies != loader.defined:
        raise invalid(f"{loader.bodies:,} bodies for {loader.defined:,} functions", len(wasm))
    return loader.module(sections)
