"""runner.wasm: content ids, what `inspect` tells, entry points, imports and caps, on real modules."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import InvalidModule, UnknownImport, UsageError
from runner.models import Abi
from runner.wasm import Import, cap, check_imports, content_id, entry_point, inspect
from runner.wasm_binary import Reader, encode_unsigned

REACTOR = """(module
  (memory (export "memory") 1)
  (func (export "malloc") (param i32) (result i32) i32.const 8)
  (func (export "handle") (param i32 i32) (result i64) i64.const 0))"""
KNOWN = {
    ("env", "get_env"): (("i32", "i32"), ("i64",)),
    ("host", "get_env"): (("i32", "i32"), ("i64",)),
    ("wasi_snapshot_preview1", "fd_write"): (("i32", "i32", "i32", "i32"), ("i32",)),
}


def wat(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A C program as a WASI command, with malloc, printf, a table and names."""
    pytest.importorskip("ziglang", reason="the extra `c` is not installed")
    folder = tmp_path_factory.mktemp("c")
    (folder / "up.c").write_text(
        "#include <stdio.h>\n#include <stdlib.h>\n"
        "int main(int n, char **a) { char *p = malloc(99 * n); if (!p) return 1;"
        ' double d = fread(p, 1, 99, stdin); return printf("%s %f\\n", p, d / 3) < 0; }\n'
    )
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "wasm32-wasi", "-O1", "up.c", "-o", "up.wasm"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return Path(folder / "up.wasm").read_bytes()


# Content ids


@pytest.mark.parametrize(
    ("data", "cid"),
    [
        (b"", "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"),
        (b"hello world", "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"),
    ],
)
def test_content_id_is_what_ipfs_prints(data: bytes, cid: str) -> None:
    assert content_id(data) == cid


@given(st.binary())
def test_content_id_holds_codec_hash_and_digest(data: bytes) -> None:
    cid = content_id(data)
    raw = base64.b32decode(cid[1:].upper() + "=" * (-len(cid[1:]) % 8))
    assert (cid[0], raw) == ("b", b"\x01\x55\x12\x20" + hashlib.sha256(data).digest())


# Integers


@given(st.integers(0, 2**64 - 1))
def test_unsigned_integers_survive_a_round_trip(value: int) -> None:
    encoded = encode_unsigned(value)
    for bits, read in ((32, Reader.u32), (64, Reader.u64)):
        reader = Reader(encoded, 0, len(encoded), set(), "a test")
        if value < 2**bits:
            assert (read(reader), reader.position) == (value, len(encoded))
        else:
            with pytest.raises(InvalidModule, match=f"more than {bits} bits"):
                read(reader)


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from([32, 33, 64]))
def test_signed_integers_survive_a_round_trip(value: int, bits: int) -> None:
    encoded, rest = bytearray(), value
    while not -64 <= rest < 64:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest & 0x7F)
    reader = Reader(bytes(encoded), 0, len(encoded), set(), "a test")
    if -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        assert (reader.signed(bits), reader.position) == (value, len(encoded))
    else:
        with pytest.raises(InvalidModule, match=f"more than {bits} bits"):
            reader.signed(bits)


# Inspect


def test_inspect_tells_imports_exports_limits_start_and_names() -> None:
    module = inspect(
        wat("""(module
          (import "env" "get_env" (func $get (param i32 i32) (result i64)))
          (import "env" "wide" (func (param f32 f64 v128 funcref externref)))
          (import "env" "table" (table 2 9 funcref))
          (import "env" "base" (global i32))
          (memory (export "memory") 3 7)
          (table 4 funcref)
          (global (export "g") i32 (i32.const 1))
          (func $begin (export "begin"))
          (func $add (export "add") (param i64 i64) (result i64) local.get 0 local.get 1 i64.add)
          (@custom "note" "hello")
          (start $begin))""")
    )
    assert module.imports == (
        Import("env", "get_env", "function", ("i32", "i32"), ("i64",)),
        Import("env", "wide", "function", ("f32", "f64", "v128", "funcref", "externref")),
        Import("env", "table", "table"),
        Import("env", "base", "global"),
    )
    told = [(e.name, e.kind, e.index, e.params, e.results) for e in module.exports]
    assert told == [
        ("memory", "memory", 0, (), ()),
        ("g", "global", 1, (), ()),
        ("begin", "function", 2, (), ()),
        ("add", "function", 3, ("i64", "i64"), ("i64",)),
    ]
    assert [(m.minimum, m.maximum, m.shared, m.is64, m.imported) for m in module.memories] == [
        (3, 7, False, False, False)
    ]
    assert [(t.minimum, t.maximum, t.imported) for t in module.tables] == [(2, 9, True), (4, None, False)]
    assert module.start == 2
    assert module.function_names == {0: "get", 2: "begin", 3: "add"}
    assert set(module.custom_sections) == {"note", "name"}


def test_inspect_agrees_with_the_engine_on_a_compiled_program(compiled: bytes) -> None:
    module, theirs = inspect(compiled), wasmtime.Module(wasmtime.Engine(), compiled)
    assert [(i.module, i.name) for i in module.imports] == [(i.module, i.name) for i in theirs.imports]
    assert [e.name for e in module.exports] == [e.name for e in theirs.exports]
    for ours, other in zip(module.imports, theirs.imports, strict=True):
        assert isinstance(other.type, wasmtime.FuncType)
        assert ours.params == tuple(str(t) for t in other.type.params)
        assert ours.results == tuple(str(t) for t in other.type.results)
    assert "main" in " ".join(module.function_names.values())
    assert entry_point(module) is Abi.COMMAND


def test_a_damaged_name_section_is_read_as_far_as_it_goes() -> None:
    names = b"\1\x0b\3\0\2ab\1\2\xff\xfe\2\x7fx"  # the third name claims 127 bytes
    custom = b"\4name" + names
    module = inspect(wat("(module)") + b"\0" + encode_unsigned(len(custom)) + custom)
    assert module.function_names == {0: "ab", 1: "\ufffd\ufffd"}


# Entry points


@pytest.mark.parametrize(
    ("text", "abi"),
    [
        ('(module (func (export "_start")))', Abi.COMMAND),
        (REACTOR, Abi.REACTOR),
        (REACTOR.replace("malloc", "alloc"), Abi.REACTOR),
        (REACTOR[:-1] + '(func (export "_start")))', Abi.COMMAND),
        (REACTOR[:-1] + '(func (export "_start") (param i32)))', Abi.REACTOR),
    ],
)
def test_the_exports_tell_how_a_module_is_called(text: str, abi: Abi) -> None:
    assert entry_point(inspect(wat(text))) is abi


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(module)", "no entry point: it exports nothing; export `_start`"),
        ('(module (func (export "main")))', "it exports `main`; export `_start`"),
        ('(module (@custom "linking" ""))', "an object file that was never linked"),
        ('(module (func (export "_start") (param i32)))', r"`_start` is \(i32\) -> \(\); .* \(\) -> \(\)"),
        ('(module (memory (export "_start") 1))', "`_start` is a memory; it must be a function"),
        (
            REACTOR.replace("(param i32 i32)", "(param i32)"),
            r"`handle` is \(i32\) -> \(i64\); .*\(i32, i32\) -> \(i64\)",
        ),
        (REACTOR.replace('(export "memory")', ""), "export its memory as `memory`; it does not"),
        (REACTOR.replace("malloc", "calloc"), r"an allocator: `malloc` or `alloc`, \(i32\) -> \(i32\)"),
        (REACTOR.replace("(param i32) (result", "(param i64) (result"), r"`malloc` is \(i64\) -> \(i32\)"),
    ],
)
def test_a_missing_entry_point_is_explained(text: str, message: str) -> None:
    with pytest.raises(InvalidModule, match=message):
        entry_point(inspect(wat(text)))


# Imports


def test_known_imports_pass(compiled: bytes) -> None:
    module = inspect(compiled)
    check_imports(module, {(i.module, i.name): (i.params, i.results) for i in module.imports})


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ('"env" "get_evn" (func)', UnknownImport, r"env\.get_evn; did you mean 'env\.get_env'"),
        ('"wasi_unstable" "fd_write" (func)', UnknownImport, r"did you mean 'wasi_snapshot_preview1\.fd_write'"),
        ('"a" "zzz" (func)', UnknownImport, r"a\.zzz; docs/functions\.md"),
        (
            '"env" "get_env" (func (param i32))',
            InvalidModule,
            r"as \(i32\) -> \(\); the host .* \(i32, i32\) -> \(i64\)",
        ),
        ('"env" "memory" (memory 1)', InvalidModule, r"the memory env\.memory; .*define the memory in the module"),
        ('"env" "t" (table 1 funcref)', InvalidModule, r"the table env\.t"),
        ('"env" "g" (global i32)', InvalidModule, r"the global env\.g"),
        ('"env" "e" (tag)', InvalidModule, r"the tag env\.e"),
        (r'"env" "a\1b[31m" (func)', UnknownImport, r"a\\x1b\[31m"),
    ],
)
def test_an_import_that_nobody_answers_is_named(what: str, error: type[InvalidModule], message: str) -> None:
    with pytest.raises(error, match=message):
        check_imports(inspect(wat(f"(module (import {what}))")), KNOWN)


@pytest.mark.parametrize("name", ["get_env" * 30_000, "\x1b" * 100_000])
def test_an_endless_import_name_costs_neither_time_nor_a_page_of_message(name: str) -> None:
    text = name.replace("\x1b", r"\1b")
    module = inspect(wat(f'(module (import "env" "{text}" (func)))'))
    with pytest.raises(UnknownImport) as caught:
        check_imports(module, KNOWN)
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


# Caps


def capped(wasm: bytes, memory_limit_mb: int = 1, table_limit: int = 100) -> bytes:
    return cap(wasm, inspect(wasm), memory_limit_mb=memory_limit_mb, table_limit=table_limit)


GROWS = """(module
  (memory (export "memory") 2 %s)
  (table $a 3 %s funcref)
  (table $b 5 externref)
  (func (export "memory_grow") (param i32) (result i32) local.get 0 memory.grow)
  (func (export "table_grow") (param i32) (result i32) ref.null func local.get 0 table.grow $a)
  (func (export "other_grow") (param i32) (result i32) ref.null extern local.get 0 table.grow $b)
  (data (i32.const 0) "unchanged"))"""


@pytest.mark.parametrize("maxima", [("", ""), ("17", "101"), ("65536", "4294967295")])
def test_growing_past_the_cap_fails_in_the_engine(maxima: tuple[str, str]) -> None:
    store = wasmtime.Store()
    wasm = capped(wat(GROWS % maxima))
    wasmtime.Module.validate(store.engine, wasm)
    exports = wasmtime.Instance(store, wasmtime.Module(store.engine, wasm), []).exports(store)
    for name, initial, most in (("memory_grow", 2, 16), ("table_grow", 3, 100), ("other_grow", 5, 100)):
        grow = exports[name]
        assert isinstance(grow, wasmtime.Func)
        assert grow(store, most - initial + 1) == -1
        assert grow(store, most - initial) == initial
        assert grow(store, 1) == -1


def test_a_maximum_that_is_low_enough_stays() -> None:
    wasm = wat(GROWS.replace("$b 5", "$b 5 6") % ("16", "100"))
    assert capped(wasm) == wasm


def test_only_the_limits_change(compiled: bytes) -> None:
    result = capped(compiled, memory_limit_mb=32, table_limit=5000)
    before, after = inspect(compiled), inspect(result)
    assert after.memories[0].maximum == 512
    assert capped(result, memory_limit_mb=32, table_limit=5000) == result
    wasmtime.Module.validate(wasmtime.Engine(), result)
    for old, new in zip(before.sections, after.sections, strict=True):
        same = compiled[old.start : old.end] == result[new.start : new.end]
        assert same or old.id == 5


def test_a_padded_size_of_another_section_survives() -> None:
    wasm = wat("(module)") + b"\5\x83\x80\x00\1\0\1" + b"\0\x82\x80\0\1x"
    result = capped(wasm)
    assert result == wat("(module)") + b"\5\4\1\1\1\x10" + b"\0\x82\x80\0\1x"


def test_a_module_without_memory_or_table_is_left_alone() -> None:
    wasm = wat('(module (func (export "_start")))')
    assert capped(wasm) == wasm


def test_a_limit_beyond_four_gigabytes_is_four_gigabytes() -> None:
    assert inspect(capped(wat("(module (memory 1))"), memory_limit_mb=10**6)).memories[0].maximum == 65_536


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(memory 17)", r"17 pages \(2 MB\), more than memory_limit_mb allows \(1 MB\): raise memory_limit_mb to 2"),
        ("(memory 65536)", "raise memory_limit_mb to 4096"),
        ("(memory 1 2 shared)", "a shared memory, which cannot be limited: build without threads"),
        ("(memory i64 1)", "a 64-bit memory, which cannot be limited: build for wasm32"),
        ("(memory 1 (pagesize 1))", "a custom-page-size memory"),
        ("(memory 1) (memory 1)", "2 memories; it may have one"),
        ('(import "env" "memory" (memory 1))', "imports a memory; define it"),
        ('(import "env" "t" (table 1 funcref))', "imports a table; define it"),
        ("(table i64 1 funcref)", "a 64-bit table"),
        ("(table 101 funcref)", "101 elements, more than the limit of 100"),
    ],
)
def test_what_cannot_be_limited_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidModule, match=message):
        capped(wat(f"(module {text})"))


@pytest.mark.parametrize("limits", [{"memory_limit_mb": 0}, {"memory_limit_mb": -1}, {"table_limit": 0}])
def test_a_limit_below_one_is_wrong_use(limits: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        capped(wat("(module)"), **limits)
