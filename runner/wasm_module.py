"""The facts of a WebAssembly module that `runner.wasm.inspect` finds. Values only, no reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

KINDS = ("function", "table", "memory", "global", "tag")
"""What can be imported and exported, by its code in the binary."""


@dataclass(frozen=True, slots=True)
class Import:
    """Something the module takes from its host.

    `kind` is one of KINDS. `params` and `results` are a function's or tag's value types: `i32`,
    `i64`, `f32`, `f64`, `v128`, `funcref`, `externref`, or what the text format writes for others
    (`anyref`, `(ref null 3)`); empty for the other kinds.
    """

    module: str
    name: str
    kind: str
    params: tuple[str, ...] = ()
    results: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Export:
    """Something the module offers. `index` counts within its kind, imported ones first; `kind`,
    `params` and `results` are those of Import."""

    name: str
    kind: str
    index: int
    params: tuple[str, ...] = ()
    results: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a memory, in pages of 64 KiB, or of a table, in elements."""

    minimum: int
    """The initial size."""
    maximum: int | None
    """None: as much as the engine gives."""
    shared: bool
    """Whether threads may share it."""
    is64: bool
    """Whether its addresses have 64 bits."""
    custom_page_size: bool
    """Whether a page has another size than 64 KiB."""
    imported: bool
    span: tuple[int, int]
    """Where flags, minimum and maximum stand in the file: first byte, one past the last."""


@dataclass(frozen=True, slots=True)
class Section:
    """One section: its id, where that id stands in the file, and the start and end of its contents."""

    id: int
    start: int
    body: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Module:
    """What can be told of a module without an engine. Tuples are in the order of the file."""

    imports: tuple[Import, ...]
    exports: tuple[Export, ...]
    features: frozenset[str]
    """Features later than WebAssembly 1.0 that a type, a section or an instruction uses."""
    memories: tuple[Limits, ...]
    """Imported ones first."""
    tables: tuple[Limits, ...]
    """Imported ones first."""
    start: int | None
    """The index of the function that runs at instantiation, if there is one."""
    function_names: Mapping[int, str] = field(hash=False)
    """By function index, from the name section; of a damaged one, what could be read."""
    custom_sections: tuple[str, ...]
    """Their names."""
    sections: tuple[Section, ...]
    """All of them, custom ones too."""
