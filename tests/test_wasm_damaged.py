"""Bytes that are no module, or no whole one: `inspect` raises InvalidModule and nothing else, soon,
and refuses nothing that an engine takes."""

from __future__ import annotations

import gzip
import resource
import sys
import time
from functools import cache
from pathlib import Path

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import InvalidModule
from runner.wasm import cap, inspect
from runner.wasm_binary import encode_unsigned

HEADER = b"\0asm\1\0\0\0"

SEED = """(module
  (type $t (func (param i32 i64) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
  (import "env" "g" (global i32))
  (memory (export "memory") 1 20) (table 2 4 funcref) (table 1 externref) (tag $e (param i32))
  (global (mut i64) (i64.const -9)) (global f64 (f64.const 0.5))
  (elem (i32.const 0) $f $f) (elem declare func $f) (data (i32.const 8) "text") (data "passive")
  (func $begin) (start $begin)
  (func $f (export "f") (type $t) (local f32 f64 v128)
    (block (result i32) (loop (br_if 0 (local.get 0)))
      (br_table 0 0 0 (i32.load8_u offset=70000 (i32.const -99999)) (i32.const 1)))
    (if (then (global.set 1 (i64.add (i64.const -9223372036854775808) (global.get 1)))))
    (local.set 2 (f32.const 1.5)) (local.set 4 (v128.const i64x2 1 2))
    (drop (i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 (local.get 4) (local.get 4)))
    (drop (v128.load8_lane 3 (i32.const 0) (local.get 4)))
    (drop (select (result i32) (i32.extend8_s (local.get 0)) (i32.trunc_sat_f32_s (local.get 2)) (memory.size)))
    (drop (i32.atomic.load (i32.const 0)))
    (memory.init 1 (i32.const 0) (i32.const 0) (i32.const 0))
    (block $b (try_table (catch_all $b) (throw $e (i32.const 1))))
    (return_call_indirect (type $t) (i32.const 0) (i64.const 1) (i32.const 0))))"""


@cache
def seed() -> bytes:
    """A module with an instruction of every form of immediates."""
    return bytes(wasmtime.wat2wasm(SEED))


def section(id: int, body: bytes) -> bytes:
    return bytes([id]) + encode_unsigned(len(body)) + body


def function(code: bytes, count: int = 1) -> bytes:
    """A module of `count` functions with this code, without the closing `end`."""
    body = encode_unsigned(len(code) + 2) + b"\0" + code + b"\x0b"
    number = encode_unsigned(count)
    return HEADER + section(1, b"\1\x60\0\0") + section(3, number + b"\0" * count) + section(10, number + body * count)


# What it looks like


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "byte 0 .*there are no bytes; check that the build wrote its output"),
        (b"(module)", "WebAssembly text, not WebAssembly; compile it first, or name it as `source:`"),
        (b"\n  ;; a comment\n(module)", "WebAssembly text"),
        (b"\x7fELF\2\1\1\0", "an ELF program .*; compile it for the target wasm32-wasi"),
        (gzip.compress(HEADER, mtime=0), "a gzip file, not WebAssembly; unpack it first"),
        (b"PK\x03\x04....", "a zip file"),
        (b"BC\xc0\xde....", "LLVM bitcode"),
        (b"#!/bin/sh\n", "a script"),
        (b"version https://git-lfs.github.com/spec/v1\n", "`git lfs pull`"),
        (b"int main() {}\n", "this is text"),
        (b"\xde\xad\xbe\xef\x00", r"unknown data \(de ad be ef\)"),
        (b"\0as", "less than a magic number"),
        (b"\0asm\1", "byte 5 .*in the middle of its header"),
        (b"\0asm\x0d\0\1\0", "a component, not a core module; build a core module"),
        (b"\0asm\2\0\0\0", "unknown version 02000000"),
    ],
)
def test_what_is_no_core_module_is_called_what_it_is(data: bytes, message: str) -> None:
    with pytest.raises(InvalidModule, match=message):
        inspect(data)


def test_a_program_of_this_machine_is_none() -> None:
    with pytest.raises(InvalidModule, match="program"):
        inspect(Path(sys.executable).read_bytes())


# What it claims

HUGE = b"\xff\xff\xff\xff\x0f"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\1\x05\1", "byte 9 .*the type section claims 5 bytes, 1 are left; the file is truncated"),
        (b"\1" + HUGE, "claims 4,294,967,295 bytes, 0 are left"),
        (b"\1\x85\x80\x80\x80\x80\0", "byte 9 .*an integer of more than 32 bits"),
        (b"\1\xff\xff\xff\xff\x1f", "an integer of more than 32 bits"),
        (b"\1\x80", "in the middle of a value"),
        (section(1, b"\1\x60\0\0\0"), "the type section has 1 bytes too many"),
        (section(1, b"\1\x60\1"), "claims 1 types in 0 bytes"),
        (section(1, b"\1\x42"), "unknown form 0x42"),
        (section(1, b"\1\x60\1\x42\0"), "unknown type 0x42"),
        (section(1, b"\0") * 2, "the type section stands twice or in the wrong place"),
        (section(3, b"\0") + section(2, b"\0"), "the import section stands twice"),
        (section(99, b""), "unknown section 99"),
        (section(2, b"\1\1a\2\xff\xfe\0\0"), "a name in the import section is no UTF-8"),
        (section(2, b"\1\0\0\7"), "unknown kind 7 of an import"),
        (section(3, b"\1\0"), "type 0 is no function type; there are 0 types"),
        (section(1, b"\1\x60\0\0") + section(3, b"\1\0"), "0 bodies for 1 functions"),
        (section(5, b"\1\x10\1"), "unknown flags 0x10"),
        (section(5, b"\1\0\x81\x80\4"), "65,537 pages; the most is 65,536"),
        (section(5, b"\1\1\3\2"), "an initial size of 3 is above its maximum, 2"),
        (section(4, b"\x7f" + b"\x70\0\0" * 127), "more than 100 tables"),
        (section(6, b"\1\x7f\0\x45\x0b"), "instruction 0x45 cannot be a part of a constant"),
        (section(7, b"\1\1f\0\0"), "an export of kind 0 names index 0"),
        (section(5, b"\1\0\1") + section(7, b"\2\1m\2\0\1m\2\0"), "two exports have the same name"),
        (section(8, b"\0"), "the start function 0 does not exist"),
        (section(9, b"\1\x08"), "unknown flags 8 of an element segment"),
        (section(12, b"\1") + section(11, b"\0"), "0 data segments where 1 were announced"),
        (section(0, b"\5abc"), "a custom section ends at byte 14, in the middle of a value"),
    ],
)
def test_what_a_section_claims_is_checked(data: bytes, message: str) -> None:
    with pytest.raises(InvalidModule, match=message):
        inspect(HEADER + data)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (b"\xff", r"byte 23 \(0x17\): unknown instruction 0xff; build for released features"),
        (b"\xfd\xff\x02", "unknown instruction 0xfd 0x17f"),
        (b"\xfc\x80\x80\x04", "unknown instruction 0xfc 0x10000"),
        (b"\x10", "in the middle of a value"),
        (b"\x43\0\0\0", "in the middle of a value"),
        (b"\x10\x80\x80\x80\x80\x80\0", "more than 32 bits"),
        (b"\x41\xff\xff\xff\xff\x0f", "more than 32 bits"),
        (b"\x42" + b"\x80" * 9 + b"\1", "more than 64 bits"),
        (b"\x0e" + HUGE, "claims 4,294,967,295 labels"),
        (b"\x02\x41", "unknown type 0x41"),
    ],
)
def test_what_a_function_does_is_checked(code: bytes, message: str) -> None:
    with pytest.raises(InvalidModule, match=message):
        inspect(function(code))


def test_a_function_without_end_and_one_with_too_many_locals() -> None:
    with pytest.raises(InvalidModule, match="does not close with `end`"):
        inspect(HEADER + section(1, b"\1\x60\0\0") + section(3, b"\1\0") + section(10, b"\1\2\0\1"))
    locals_ = b"\1" + HUGE + b"\x7f\x0b"
    with pytest.raises(InvalidModule, match="more than 50,000 locals"):
        inspect(
            HEADER
            + section(1, b"\1\x60\0\0")
            + section(3, b"\1\0")
            + section(10, b"\1" + encode_unsigned(len(locals_)) + locals_)
        )


@pytest.mark.parametrize("id", [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 13])
def test_a_huge_count_costs_nothing(id: int) -> None:
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(InvalidModule):
        inspect(HEADER + section(id, HUGE + b"\0"))
    assert time.perf_counter() - started < 10  # counting to 2 ** 32 takes minutes
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


# Whatever comes


def inspect_or_refuse(data: bytes) -> bool:
    """Whether it is taken; any exception but InvalidModule is a failure. What is taken can be capped."""
    try:
        module = inspect(data)
        cap(data, module, memory_limit_mb=64)
    except InvalidModule:
        return False
    return True


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data: bytes) -> None:
    assert not inspect_or_refuse(data)
    inspect_or_refuse(HEADER + data)


@given(st.lists(st.tuples(st.integers(0, 13), st.binary(max_size=60)), max_size=8))
def test_random_sections_never_raise_anything_else(sections: list[tuple[int, bytes]]) -> None:
    inspect_or_refuse(HEADER + b"".join(section(id, body) for id, body in sections))


@given(st.binary(max_size=200))
def test_random_code_is_taken_or_refused(code: bytes) -> None:
    inspect_or_refuse(function(code))


def test_every_truncation_is_refused_or_ends_at_a_section() -> None:
    ends = {8, *(s.end for s in inspect(seed()).sections)}
    for size in range(len(seed())):
        if inspect_or_refuse(seed()[:size]):
            assert size in ends


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(seed()) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_what_the_engine_takes_of_damaged_modules_is_taken(changes: list[tuple[int, int]]) -> None:
    data = bytearray(seed())
    for offset, value in changes:
        data[offset] = value
    wasm = bytes(data)
    taken = inspect_or_refuse(wasm)
    try:
        wasmtime.Module.validate(ENGINE, wasm)
    except wasmtime.WasmtimeError:
        return
    module = inspect(wasm)
    if taken:
        wasmtime.Module.validate(ENGINE, cap(wasm, module, memory_limit_mb=64))


def _engine() -> wasmtime.Engine:
    config = wasmtime.Config()
    for feature in ("threads", "tail_call", "exceptions", "function_references", "gc", "multi_memory", "memory64"):
        setattr(config, f"wasm_{feature}", True)
    return wasmtime.Engine(config)


ENGINE = _engine()


def test_the_seed_is_a_valid_module() -> None:
    wasmtime.Module.validate(ENGINE, seed())


# Speed: measured at 0.03 s for plain code and 0.4 to 0.9 s for the worst shapes of one megabyte.


@pytest.mark.parametrize(
    "wasm",
    [
        pytest.param(function(b"\x20\0\x20\1\x6a\x21\2\x28\2\x08\x41\xff\xff\3" * 71_000), id="plain code"),
        pytest.param(function(b"\xfd\x0e" * 500_000), id="SIMD"),
        pytest.param(function(b"\x02\0" * 500_000), id="blocks with type indices"),
        pytest.param(function(b"", 200_000), id="many functions"),
        pytest.param(HEADER + section(1, encode_unsigned(333_000) + b"\x60\0\0" * 333_000), id="many types"),
        pytest.param(HEADER + b"\0\1\0" * 333_000, id="many custom sections"),
    ],
)
def test_a_megabyte_is_read_in_time(wasm: bytes) -> None:
    started = time.process_time()
    inspect(wasm)
    assert time.process_time() - started < 5
