"""Features of modules: each is found wherever it is used, and the instruction tables of
runner.wasm_code agree with the parser of wasmtime."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import InvalidModule
from runner.wasm import inspect
from runner.wasm_binary import encode_unsigned

HEADER = b"\0asm\1\0\0\0"
PREFIXES = (0xFB, 0xFC, 0xFD, 0xFE)


def wat(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


SWITCHED = (
    *("threads", "tail_call", "simd", "relaxed_simd", "multi_value", "multi_memory", "memory64", "exceptions"),
    *("function_references", "gc", "wide_arithmetic", "custom_page_sizes", "stack_switching"),
)


def make_engine(*, with_features: bool) -> wasmtime.Engine:
    config = wasmtime.Config()
    for feature in SWITCHED:
        setattr(config, f"wasm_{feature}", with_features)
    return wasmtime.Engine(config)


@pytest.fixture(scope="module")
def engine() -> wasmtime.Engine:
    """An engine with every feature on that it knows."""
    return make_engine(with_features=True)


@pytest.fixture(scope="module")
def plain_engine() -> wasmtime.Engine:
    """An engine with every feature off that can be switched off."""
    return make_engine(with_features=False)


MVP = """(module
  (type $t (func (param i32) (result i32)))
  (import "env" "g" (global $g i32))
  (memory (export "memory") 1 9)
  (table 2 funcref)
  (global $mine (mut i64) (i64.const -9))
  (elem (i32.const 0) $f)
  (data (i32.const 8) "text")
  (func $f (export "f") (type $t) (local f32 f64)
    (block (result i32) (loop (br_if 0 (local.get 0)))
      (br_table 0 0 0 (i32.load8_u offset=2147418111 (i32.const -2147483648)) (i32.const 1)))
    (if (then (global.set $mine (i64.add (i64.const -9223372036854775808) (global.get $mine)))))
    (local.set 1 (f32.const 1.5)) (local.set 2 (f64.const 0x1.8p+9))
    (drop (memory.grow (memory.size)))
    (call_indirect (type $t) (call $f (global.get $g)) (i32.const 0))))"""


def test_the_first_version_of_webassembly_uses_no_feature() -> None:
    assert inspect(wat(MVP)).features == frozenset()


@pytest.mark.parametrize(
    ("feature", "text"),
    [
        ("simd", "(func (drop (v128.const i64x2 1 2)))"),
        ("simd", "(func (param v128))"),
        ("simd", "(func (local v128))"),
        ("simd", "(func (block (result v128) unreachable) drop)"),
        ("simd", "(memory 1) (func (drop (v128.load8_lane 3 (i32.const 0) (v128.const i64x2 1 2))))"),
        ("relaxed-simd", "(func (param v128) (drop (i8x16.relaxed_swizzle (local.get 0) (local.get 0))))"),
        ("threads", "(memory 1) (func (drop (i32.atomic.load (i32.const 0))))"),
        ("threads", "(func atomic.fence)"),
        ("threads", "(memory 1 1 shared)"),
        ("threads", '(import "env" "memory" (memory 1 1 shared))'),
        ("multi-memory", "(memory 1) (memory 1)"),
        ("multi-memory", "(memory 1) (memory $b 1) (func (drop (i32.load $b (i32.const 0))))"),
        ("memory64", "(memory i64 1)"),
        ("memory64", "(table i64 1 funcref)"),
        ("memory64", "(memory i64 1) (func (drop (i32.load offset=4294967296 (i64.const 0))))"),
        ("custom-page-sizes", "(memory 1 (pagesize 1))"),
        ("bulk-memory", "(memory 1) (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0)))"),
        ("bulk-memory", '(memory 1) (data "passive")'),
        ("bulk-memory", "(func $f) (elem func $f)"),
        ("reference-types", "(func (param externref))"),
        ("reference-types", "(table 1 externref)"),
        ("reference-types", "(table 1 funcref) (table 1 funcref)"),
        ("reference-types", "(table 1 funcref) (func (drop (table.get (i32.const 0))))"),
        ("reference-types", "(func (drop (ref.null func)))"),
        ("reference-types", "(func (drop (select (result i32) (i32.const 0) (i32.const 0) (i32.const 0))))"),
        ("reference-types", "(global funcref (ref.null func))"),
        ("multi-value", "(func (result i32 i32) unreachable)"),
        ("multi-value", "(func (i32.const 0) (block (param i32) drop))"),
        ("sign-extension", "(func (drop (i32.extend8_s (i32.const 0))))"),
        ("saturating-float-to-int", "(func (drop (i32.trunc_sat_f32_s (f32.const 0))))"),
        ("mutable-globals", '(import "env" "g" (global (mut i32)))'),
        ("mutable-globals", '(global (export "g") (mut i32) (i32.const 0))'),
        ("tail-call", "(func $f return_call $f)"),
        ("tail-call", "(table 1 funcref) (func (return_call_indirect (i32.const 0)))"),
        ("exceptions", "(tag)"),
        ("exceptions", '(import "env" "e" (tag))'),
        ("exceptions", "(tag $e (param i32)) (func (throw $e (i32.const 1)))"),
        ("exceptions", "(tag $e) (func (block $b (try_table (catch $e $b) (catch_all $b))))"),
        ("exceptions", "(func (param exnref))"),
        ("gc", "(type (struct (field i32) (field (mut i8))))"),
        ("gc", "(type (array (mut i16)))"),
        ("gc", "(rec (type (func)) (type (func)))"),
        ("gc", "(type (sub (func)))"),
        ("gc", "(func (drop (ref.i31 (i32.const 1))))"),
        (
            "gc",
            "(func (param anyref) (block (result i31ref) (br_on_cast 0 anyref i31ref (local.get 0)) unreachable) drop)",
        ),
        ("function-references", "(type $t (func)) (func (param (ref null $t)) (call_ref $t (local.get 0)))"),
        ("function-references", "(func $f) (elem declare func $f) (table 1 (ref func) (ref.func $f))"),
        ("large-memory-offsets", "(memory 1) (func (drop (i32.load8_u offset=0x7fff0000 (i32.const 0))))"),
        ("large-memory-offsets", "(memory 1) (func (i64.store offset=0xffffffff (i32.const 0) (i64.const 1)))"),
        ("extended-const", "(global i32 (i32.add (i32.const 1) (i32.const 2)))"),
        ("extended-const", '(memory 1) (data (i32.mul (i32.const 1) (i32.const 2)) "x")'),
        ("wide-arithmetic", "(func (param i64) (drop (drop (i64.mul_wide_s (local.get 0) (local.get 0)))))"),
        ("stack-switching", "(type $f (func)) (type $c (cont $f))"),
    ],
)
def test_a_feature_is_found(engine: wasmtime.Engine, feature: str, text: str) -> None:
    wasm = wat(f"(module {text})")
    if feature != "stack-switching":  # not on every platform of wasmtime
        wasmtime.Module.validate(engine, wasm)
    assert feature in inspect(wasm).features


def test_a_feature_in_the_last_instruction_of_a_long_function_is_found() -> None:
    text = "(func (param i32)" + "(drop (i32.add (local.get 0) (i32.const 300)))" * 9_000 + "%s)"
    assert inspect(wat(f"(module {text % ''})")).features == frozenset()
    late = inspect(wat(f"(module {text % '(drop (i32.extend16_s (local.get 0)))'})"))
    assert late.features == {"sign-extension"}


def test_the_bytes_of_an_instruction_in_a_constant_are_no_instruction() -> None:
    hidden = (
        "(drop (i64.const 0x00fd00fd0cfdc0c0)) (drop (f64.const nan:0x0fdc0fefc0612)) (drop (i32.const 0xfefdfcfb))"
    )
    assert inspect(wat(f"(module (func {hidden}))")).features == frozenset()


def function(code: bytes) -> bytes:
    """A module whose only function has this code, and one of everything an index can name."""
    surroundings = """(module (type (func)) (type (struct)) (func) (table 1 funcref) (memory 1) (tag)
        (global (mut i32) (i32.const 0)) (data "x") (elem func 0))"""
    body = encode_unsigned(len(code) + 1) + b"\0" + code
    section = b"\1" + body
    wasm = wat(surroundings)
    sections = [(s.id, wasm[s.start : s.end]) for s in inspect(wasm).sections]
    ours = b"\x0a" + encode_unsigned(len(section)) + section
    return HEADER + b"".join(ours if id == 10 else old for id, old in sections)


def instructions() -> Iterator[bytes]:
    for opcode in range(256):
        if opcode not in PREFIXES:
            yield bytes([opcode])
    for prefix in PREFIXES:
        for number in range(0x140):
            yield bytes([prefix]) + encode_unsigned(number)


def verdict(engine: wasmtime.Engine, wasm: bytes) -> str:
    """What wasmtime says of the module; empty when it is valid."""
    try:
        wasmtime.Module.validate(engine, wasm)
    except wasmtime.WasmtimeError as error:
        return str(error)
    return ""


def refusal(wasm: bytes) -> str:
    """What we say of it; empty when it is fine."""
    try:
        inspect(wasm)
    except InvalidModule as error:
        return str(error)
    return ""


def test_the_same_instructions_are_known_as_in_wasmtime(engine: wasmtime.Engine) -> None:
    for instruction in instructions():
        wasm = function(instruction + b"\0" * 40 + b"\x0b")
        theirs = verdict(engine, wasm)
        # Two proposals that are no part of any release of WebAssembly are refused like unknown ones.
        unreleased = ("custom descriptors", "shared-everything-threads")
        unknown = any(words in theirs for words in ("illegal opcode", "subopcode", *unreleased))
        assert ("unknown instruction" in refusal(wasm)) == unknown, (instruction.hex(), theirs)


def test_every_instruction_is_as_long_as_in_wasmtime(engine: wasmtime.Engine) -> None:
    measured = 0
    for instruction in instructions():
        # After `unreachable` every type fits; a zero is an immediate, or one more `unreachable`.
        modules = [function(b"\0" + instruction + b"\0" * zeros + b"\x0b") for zeros in range(20)]
        verdicts = [verdict(engine, wasm) for wasm in modules]
        theirs = [zeros for zeros, said in enumerate(verdicts) if not said or "values remaining" in said]
        if theirs:
            measured += 1
            assert not refusal(modules[theirs[0]]), instruction.hex()
            assert all(refusal(wasm) for wasm in modules[: theirs[0]]), instruction.hex()
    assert measured > 480


@settings(max_examples=600, deadline=None)
@given(st.lists(st.tuples(st.integers(8, len(wat(MVP)) - 1), st.integers(0, 255)), min_size=1, max_size=3))
def test_what_an_engine_without_features_refuses_is_seen_as_a_feature(
    engine: wasmtime.Engine, plain_engine: wasmtime.Engine, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(wat(MVP))
    for offset, value in changes:
        data[offset] = value
    if not verdict(engine, bytes(data)) and verdict(plain_engine, bytes(data)):
        assert inspect(bytes(data)).features
