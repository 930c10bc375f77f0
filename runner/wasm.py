"""What can be told and changed of a WebAssembly module without an engine: its content id, imports,
exports and features, how it is called, and the maxima of its memory and tables.

Pure: bytes in, values out. Whether a module's code is valid is the engine's judgement; here it is
read so far that nothing in it is unknown.
"""

from __future__ import annotations

import hashlib
from base64 import b32encode
from collections.abc import Iterable, Mapping, Sequence

from runner.errors import InvalidModule, UnknownImport, UsageError
from runner.models import Abi
from runner.wasm_binary import REBUILD, encode_unsigned, invalid, shown
from runner.wasm_module import Export, Import, Limits, Module, Section
from runner.wasm_sections import HEADER_BYTES, read_module

__all__ = [
    "Export",
    "Import",
    "Limits",
    "Module",
    "cap",
    "check_imports",
    "content_id",
    "entry_point",
    "inspect",
]

Signature = tuple[tuple[str, ...], tuple[str, ...]]
"""Parameters and results of a function."""

PAGES_PER_MB = 16
"""A page of linear memory has 64 KiB."""

_MAX_PAGES = 65_536
_TABLE_SECTION, _MEMORY_SECTION = 4, 5

# multibase prefix "b" (base32 lower, no padding), then: CID version 1, codec raw, multihash sha2-256
# of 32 bytes. https://github.com/multiformats/cid
_CID_PREFIX = b"\x01\x55\x12\x20"

_MAGIC, _CORE, _COMPONENT = b"\0asm", b"\1\0\0\0", b"\x0d\0\1\0"
_TO_WASM = "compile it for the target wasm32-wasi"
_LOOKS_LIKE = (
    (b"\x7fELF", "an ELF program of this machine", _TO_WASM),
    (b"MZ", "a Windows program", _TO_WASM),
    (b"\xcf\xfa\xed\xfe", "a macOS program", _TO_WASM),
    (b"\xca\xfe\xba\xbe", "a macOS program or Java class", _TO_WASM),
    (b"BC\xc0\xde", "LLVM bitcode", "link it to a module first"),
    (b"!<arch>", "a static library", "link it to a module first"),
    (b"\x1f\x8b", "a gzip file", "unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "unpack it first"),
    (b"BZh", "a bzip2 file", "unpack it first"),
    (b"PK\x03\x04", "a zip file", "unpack it first"),
    (b"version https://git-lfs", "a Git LFS pointer", "fetch the file itself with `git lfs pull`"),
    (b"#!", "a script", _TO_WASM),
)
_FROM_WAT = "compile it first, or name it as `source:` with the ending .wat"


def content_id(data: bytes) -> str:
    """The CIDv1 (raw codec, sha2-256, base32) of the bytes: what `ipfs add --cid-version=1
    --raw-leaves` prints for a file of one block."""
    digest = hashlib.sha256(data).digest()
    return "b" + b32encode(_CID_PREFIX + digest).decode().rstrip("=").lower()


def inspect(wasm: bytes) -> Module:
    """Read a core module through to its last instruction.

    Raises InvalidModule, with offset and remedy, for bytes that are none. Takes time and memory in
    proportion to `len(wasm)`, whatever the bytes claim.
    """
    _check_header(wasm)
    return read_module(wasm)


def _check_header(wasm: bytes) -> None:
    if not wasm:
        raise invalid("there are no bytes", 0, "check that the build wrote its output")
    if wasm[:4] != _MAGIC:
        what, remedy = _guess(wasm)
        raise invalid(f"this is {what}, not WebAssembly", 0, remedy)
    version = wasm[4:HEADER_BYTES]
    if version == _COMPONENT:
        remedy = "build a core module, for example for the target wasm32-wasip1"
        raise invalid("this is a component, not a core module", 4, remedy)
    if version != _CORE:
        if len(wasm) < HEADER_BYTES:
            raise invalid("the file ends in the middle of its header", len(wasm))
        raise invalid(f"unknown version {version.hex()} of the binary format", 4)


def _guess(wasm: bytes) -> tuple[str, str]:
    """What bytes without the magic number look like, and what to do about it."""
    for start, what, remedy in _LOOKS_LIKE:
        if wasm.startswith(start):
            return what, remedy
    if _MAGIC.startswith(wasm[:4]):
        return "less than a magic number", REBUILD
    text = wasm[:256].lstrip()
    if text.startswith((b"(module", b"(component", b"(;", b";;")):
        return "WebAssembly text", _FROM_WAT
    if text.isascii() and b"\0" not in text:
        return "text", _TO_WASM
    return f"unknown data ({wasm[:4].hex(' ')})", REBUILD


def entry_point(module: Module) -> Abi:
    """How the module is called.

    A WASI command exports `_start`, () -> (). A reactor exports `handle`, (i32, i32) -> i64, the
    memory `memory` and an allocator, `malloc` or else `alloc`, i32 -> i32. A module with both is a command:
    WASI lets nobody call a command's other exports outside of `_start`
    (https://github.com/WebAssembly/WASI/blob/main/legacy/application-abi.md).

    Raises InvalidModule, which names what is missing and what was found in its place.
    """
    exports = {export.name: export for export in module.exports}
    start, handle = exports.get("_start"), exports.get("handle")
    if start is not None and _signed(start) == ((), ()):
        return Abi.COMMAND
    if start is None and handle is None:
        raise InvalidModule(_no_entry_point(module))
    if handle is None:
        raise InvalidModule(_wanted(start, "_start", ((), ())))
    _check_reactor(exports)
    return Abi.REACTOR


def _check_reactor(exports: Mapping[str, Export]) -> None:
    handle = exports["handle"]
    if _signed(handle) != (("i32", "i32"), ("i64",)):
        raise InvalidModule(_wanted(handle, "handle", (("i32", "i32"), ("i64",))))
    memory = exports.get("memory")
    if memory is None or memory.kind != "memory":
        found = "it does not" if memory is None else f"its `memory` is a {memory.kind}"
        raise InvalidModule(f"a module with `handle` must export its memory as `memory`; {found}")
    allocator = exports.get("malloc", exports.get("alloc"))
    if allocator is None:
        raise InvalidModule("a module with `handle` must export an allocator: `malloc` or `alloc`, (i32) -> (i32)")
    if _signed(allocator) != (("i32",), ("i32",)):
        raise InvalidModule(_wanted(allocator, allocator.name, (("i32",), ("i32",))))


def _no_entry_point(module: Module) -> str:
    names = [f"`{shown(export.name)}`" for export in module.exports]
    listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"
    kind = (
        "it is an object file that was never linked" if "linking" in module.custom_sections else f"it exports {listed}"
    )
    return (
        f"the module has no entry point: {kind}; export `_start`, () -> (), as a WASI command does, or "
        "`handle`, (i32, i32) -> (i64), with `memory` and `malloc`"
    )


def _signed(export: Export) -> Signature | None:
    """The signature of an exported function; None when it is none."""
    return (export.params, export.results) if export.kind == "function" else None


def _arrow(signature: Signature) -> str:
    params, results = (", ".join(types[:20]) + (", ..." if len(types) > 20 else "") for types in signature)
    return f"({params}) -> ({results})"


def _wanted(found: Export | None, name: str, signature: Signature) -> str:
    """What is wrong with an export that should be a function of this signature."""
    has = "is missing" if found is None else f"is a {found.kind}"
    if found is not None and (actual := _signed(found)) is not None:
        has = f"is {_arrow(actual)}"
    return f"the export `{name}` {has}; it must be a function {_arrow(signature)}"


_TELLING = frozenset({"get_request_id", "enqueue_background", "schedule_once", "report_progress"})


def needs_identity(module: Module) -> bool:
    """Whether the module imports a host function that tells one run from another."""
    return any(wanted.name in _TELLING and wanted.module in ("env", "host") for wanted in module.imports)


def check_imports(module: Module, known: Mapping[tuple[str, str], Signature]) -> None:
    """Check that every import is a function in `known`, by module and name, with that signature.

    Raises UnknownImport for one that is not known, with the nearest name as its suggestion, and
    InvalidModule for one of another signature or kind.
    """
    for wanted in module.imports:
        name = f"{shown(wanted.module)}.{shown(wanted.name)}"
        if wanted.kind != "function":
            raise InvalidModule(
                f"the module imports the {wanted.kind} {name}; only functions can be imported: "
                f"define the {wanted.kind} in the module itself"
            )
        signature = known.get((wanted.module, wanted.name))
        if signature is None:
            nearest = _nearest(wanted, known)
            raise UnknownImport(shown(wanted.module), shown(wanted.name), suggestion=nearest)
        if (wanted.params, wanted.results) != signature:
            raise InvalidModule(
                f"the module imports {name} as {_arrow((wanted.params, wanted.results))}; "
                f"the host function is {_arrow(signature)}: declare it like that"
            )


def _nearest(wanted: Import, known: Iterable[tuple[str, str]]) -> str | None:
    import difflib  # only for an error

    names = [f"{module}.{name}" for module, name in known]
    same_name = [f"{module}.{name}" for module, name in known if name == wanted.name]
    if same_name:
        return same_name[0]
    asked = f"{wanted.module}.{wanted.name}"
    if len(asked) > 200:  # comparing takes quadratic time
        return None
    return next(iter(difflib.get_close_matches(asked, names, 1)), None)


def cap(wasm: bytes, module: Module, *, memory_limit_mb: int, table_limit: int = 100_000) -> bytes:
    """The module with the maximum of its memory lowered to `memory_limit_mb` MiB and the maxima of
    its tables to `table_limit` elements, so that growing past them fails inside the guest.

    `module` is what `inspect` found in these very bytes. A maximum that is low enough stays; every
    other byte stays too. Doing it again changes nothing.

    Raises InvalidModule for what cannot be held: an initial size above the limit, a memory that is
    imported, shared, 64-bit, of another page size or not the only one, a table that is imported or
    64-bit. Raises UsageError for a limit below 1.
    """
    if memory_limit_mb < 1 or table_limit < 1:
        raise UsageError(f"limits must be at least 1, got memory_limit_mb={memory_limit_mb}, table_limit={table_limit}")
    pages = min(memory_limit_mb * PAGES_PER_MB, _MAX_PAGES)
    _check_memories(module.memories, pages, memory_limit_mb)
    _check_tables(module.tables, table_limit)
    capped = {_TABLE_SECTION: (module.tables, table_limit), _MEMORY_SECTION: (module.memories, pages)}
    out, done = bytearray(), 0
    for section in module.sections:
        if section.id in capped:
            body = _lowered(wasm, section, *capped[section.id])
            if body != wasm[section.body : section.end]:
                out += wasm[done : section.start + 1] + encode_unsigned(len(body)) + body
                done = section.end
    return bytes(out) + wasm[done:]


def _lowered(wasm: bytes, section: Section, all_limits: Sequence[Limits], most: int) -> bytes:
    """The contents of a table or memory section with no maximum above `most`."""
    out, done = bytearray(), section.body
    for limits in all_limits:
        if limits.maximum is None or limits.maximum > most:
            start, end = limits.span
            out += wasm[done:start] + b"\1" + encode_unsigned(limits.minimum) + encode_unsigned(most)
            done = end
    return bytes(out) + wasm[done : section.end]


def _check_memories(memories: Sequence[Limits], pages: int, memory_limit_mb: int) -> None:
    if len(memories) > 1:
        raise InvalidModule(f"the module has {len(memories)} memories; it may have one: build it without multi-memory")
    for memory in memories:
        _check_kind("memory", memory)
        if memory.minimum > pages:
            needed = -(-memory.minimum // PAGES_PER_MB)
            raise InvalidModule(
                f"the module's memory starts with {memory.minimum:,} pages ({needed:,} MB), more than "
                f"memory_limit_mb allows ({memory_limit_mb:,} MB): raise memory_limit_mb to {needed} or more"
            )


def _check_tables(tables: Sequence[Limits], table_limit: int) -> None:
    for table in tables:
        _check_kind("table", table)
        if table.minimum > table_limit:
            raise InvalidModule(
                f"a table of the module starts with {table.minimum:,} elements, more than the limit of "
                f"{table_limit:,}: split the module"
            )


def _check_kind(what: str, limits: Limits) -> None:
    """Refuse a memory or table whose size no rewritten maximum would hold."""
    if limits.imported:
        raise InvalidModule(f"the module imports a {what}; define it in the module itself, so that it can be limited")
    for unfit, word, remedy in (
        (limits.shared, "shared", "build without threads"),
        (limits.is64, "64-bit", "build for wasm32"),
        (limits.custom_page_size, "custom-page-size", "build with pages of 64 KiB"),
    ):
        if unfit:
            raise InvalidModule(f"the module has a {word} {what}, which cannot be limited: {remedy}")
