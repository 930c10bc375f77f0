"""What is added to a module before it is compiled, shown by running the result on another engine."""

from __future__ import annotations

import itertools
import random
import struct
from typing import Any

import pytest
import wasmtime
from runner_wasmer.artifact import Artifact
from runner_wasmer.instrument import Instrumented, instrument
from runner_wasmer.pages import PAGE_BYTES, ranges
from runner_wasmer.sections import NAME_LIMIT_BYTES
from wasmtime import Engine, FuncType, Linker, Memory, Module, Store, ValType, wat2wasm

from runner.errors import UnsupportedFeature
from runner.wasm import inspect

GROW = '(func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))'
EVERYTHING = """(module
  (type $t (func (param i32) (result i32)))
  (import "env" "host" (func $host (type $t)))
  (memory (export "memory") 1 3)
  (table 4 4 funcref) (elem (i32.const 0) $double $grow) (elem (i32.const 2) func $host $double)
  (global $a (mut i32) (i32.const 7)) (global $fixed i32 (i32.const 1)) (global $b (mut f64) (f64.const 2.5))
  (func $double (type $t) (i32.mul (local.get 0) (i32.const 2)))
  (func $grow (type $t) (local i64 f32)
    (block (result i32) (drop (i32.const 0x4000)) (block) (memory.grow (local.get 0))))
  (func (export "through_table") (param i32 i32) (result i32)
    (call_indirect (type $t) (local.get 1) (local.get 0)))
  (func (export "twice") (param i32) (result i32)
    (i32.add (memory.grow (local.get 0)) (i32.mul (i32.const 100) (memory.grow (local.get 0)))))
  (func (export "call") (param i32) (result i32) (call $double (call $host (call $double (local.get 0)))))
  (func (export "size") (result i32) (memory.size))
  (func (export "change") (global.set $a (i32.const 9)) (global.set $b (f64.const nan)))
  (data (i32.const 8190) "abcd"))"""


class Running:
    """A module on wasmtime, instrumented or as it was, with a host that grows its memory for it."""

    def __init__(self, wasm: bytes, memory: str | None = None) -> None:
        self.refused = False
        self.store = Store(Engine())
        linker = Linker(self.store.engine)
        i32 = ValType.i32
        linker.define_func("runner", "grow", FuncType([i32(), i32()], [i32()]), self._grow)
        linker.define_func("env", "host", FuncType([i32()], [i32()]), lambda value: value + 1000)
        self.exports = linker.instantiate(self.store, Module(self.store.engine, wasm)).exports(self.store)
        self._memory = memory

    def _grow(self, old: int, more: int) -> int:
        assert self._memory is not None
        memory = self.exports[self._memory]
        assert isinstance(memory, Memory)
        assert memory.size(self.store) == old
        try:
            return memory.grow(self.store, more & 0xFFFFFFFF)
        except Exception:
            self.refused = True
            return -1

    def content(self) -> bytes:
        """All of the memory that is exported as `memory`."""
        memory = self.exports["memory"]
        assert isinstance(memory, Memory)
        return bytes(memory.read(self.store))

    def __call__(self, name: str, *arguments: int) -> Any:
        function: Any = self.exports[name]
        return function(self.store, *arguments)


def both(text: str) -> tuple[Running, Running]:
    """The module as it was, and instrumented."""
    wasm = bytes(wat2wasm(text))
    found = instrument(wasm)
    return Running(wasm), Running(found.wasm, found.memory)


def facts(text: str) -> Instrumented:
    return instrument(bytes(wat2wasm(text)))


def test_growing_works_as_before_and_a_refusal_is_noted() -> None:
    plain, guest = both(f'(module (memory (export "memory") 1 3) {GROW})')
    for pages in (0, 1, 1, 0):
        assert guest("grow", pages) == plain("grow", pages)
    assert not guest.refused
    for pages in (-1, 1, 0):
        assert guest("grow", pages) == plain("grow", pages)
    assert guest.refused


def test_every_place_is_found_and_everything_renumbered() -> None:
    plain, guest = both(EVERYTHING)
    calls: list[tuple[Any, ...]] = [
        ("through_table", 0, 21),
        ("through_table", 1, 1),
        ("through_table", 2, 1),
        ("through_table", 3, 1),
        ("call", 5),
        ("twice", 1),
        ("twice", 1),
        ("size",),
    ]
    for name, *arguments in calls:
        assert guest(name, *arguments) == plain(name, *arguments), name


def test_a_memory_that_is_not_exported_is_for_us() -> None:
    plain, guest = both(f"(module (memory 1 2) {GROW})")
    assert [guest("grow", 1) for _ in range(3)] == [plain("grow", 1) for _ in range(3)] == [1, -1, -1]


@pytest.mark.parametrize("minimum", [0, 63, 64, 127, 128, 8192, 65536])
def test_the_size_is_right_from_the_start(minimum: int) -> None:
    text = f'(module (memory {minimum}) (func (export "size") (result i32) (memory.size)) {GROW})'
    found = instrument(bytes(wat2wasm(text)))
    Module.validate(Engine(), found.wasm)
    if minimum <= 8192:
        assert Running(found.wasm, found.memory)("size") == minimum


def test_mutable_globals_are_exported_and_data_is_told_in_whole_pages() -> None:
    found = facts(EVERYTHING)
    names = {export.name for export in inspect(found.wasm).exports if export.kind == "global"}
    assert names == set(found.globals) == {"runner:global:0", "runner:global:2", "runner:pages"}
    assert found.data == ((PAGE_BYTES, 3 * PAGE_BYTES),)
    assert found.restorable
    assert found.shrinkable
    assert found.inserted == 1


@pytest.mark.parametrize("times", [1, 2])
def test_bulk_instructions_trap_at_the_size_the_guest_knows(times: int) -> None:
    text = f"""(module (memory (export "memory") 1 4) (func (export "fill") (param i32 i32 i32)
        (memory.fill (local.get 0) (local.get 1) (local.get 2)))
      (func (export "copy") (param i32 i32 i32)
        (memory.copy (local.get 0) (local.get 1) (local.get 2))) {GROW})"""
    plain, guest = both(text)
    for subject in (plain, guest):
        subject("grow", times)
    end = 65_536 * (times + 1)
    addresses = [0, 1, end - 8, end - 7, end, end + 1, -1, -8]
    for name in ("fill", "copy"):
        for first, second, size in itertools.product(addresses, addresses, [0, 1, 8, -1]):
            assert outcome(guest, name, first, second, size) == outcome(plain, name, first, second, size)
    assert guest.content() == plain.content()
    assert facts(text).shrinkable


def outcome(guest: Running, name: str, *arguments: int) -> str:
    try:
        guest(name, *arguments)
    except wasmtime.Trap as trap:
        return str(trap.trap_code)
    return "done"


def test_memory_init_forbids_to_shrink() -> None:
    body = "(memory.init 0 (i32.const 0) (i32.const 0) (i32.const 1))"
    found = facts(f'(module (memory 1) (data "x") (func (export "f") {body}) {GROW})')
    assert found.restorable
    assert not found.shrinkable


@pytest.mark.parametrize(
    "text",
    [
        "(module)",
        '(module (func (export "f")))',
        "(module (memory 1) (global (mut i64) (i64.const 1)))",
        '(module (import "env" "f" (func)) (func (export "g") (call 0)))',
        '(module (memory 1) (data "passive") (func (memory.init 0 (i32.const 0) (i32.const 0) (i32.const 1))))',
    ],
)
def test_modules_that_need_little_stay_valid_and_restorable(text: str) -> None:
    found = facts(text)
    Module.validate(Engine(), found.wasm)
    assert found.inserted is None
    assert found.restorable


@pytest.mark.parametrize(
    "text",
    [
        "(module (func $s) (start $s))",
        '(module (memory 1) (data $d "x") (func (data.drop $d)))',
        "(module (table 1 funcref) (elem $e func 0) (func (elem.drop $e)))",
        "(module (table 1 funcref) (elem $e func 0) (func (table.init $e (i32.const 0) (i32.const 0) (i32.const 1))))",
        "(module (table 2 funcref) (func (table.copy (i32.const 0) (i32.const 1) (i32.const 1))))",
        '(module (import "env" "at" (global i32)) (memory 1) (data (global.get 0) "x"))',
        '(module (import "env" "memory" (memory 1)))',
        '(module (global (export "runner:global:0") (mut i32) (i32.const 0)))',
        '(module (import "runner" "grow" (func (param i32 i32) (result i32))))',
    ],
)
def test_what_cannot_be_undone_is_not_called_restorable(text: str) -> None:
    found = facts(text)
    Module.validate(Engine(), found.wasm)
    assert not found.restorable
    assert not found.shrinkable


@pytest.mark.parametrize(
    ("feature", "text"),
    [
        ("reference-types", "(module (table 2 funcref) (func (table.set (i32.const 0) (ref.null func))))"),
        ("simd", "(module (func (drop (v128.const i64x2 1 2))))"),
        ("large-memory-offsets", "(module (memory 1) (func (drop (i32.load offset=0xf0000000 (i32.const 0)))))"),
    ],
)
def test_a_feature_that_was_not_verified_is_refused_here_too(feature: str, text: str) -> None:
    with pytest.raises(UnsupportedFeature, match=feature):
        facts(text)


def test_an_instruction_in_an_unusual_encoding_is_found_too() -> None:
    wasm = bytes(wat2wasm('(module (memory 1) (data $d "x") (func (data.drop $d) nop))'))
    short, long = b"\xfc\x09\x00\x01", b"\xfc\x89\x00\x00"  # the nop makes room for a longer number
    assert wasm.count(short) == 1
    Module.validate(Engine(), wasm.replace(short, long))
    assert not instrument(wasm.replace(short, long)).restorable


def test_names_that_would_flood_a_message_are_dropped_and_others_kept() -> None:
    short, long = "f" * NAME_LIMIT_BYTES, "f" * (NAME_LIMIT_BYTES + 1)
    assert inspect(facts(f"(module (func ${short}))").wasm).function_names == {0: short}
    assert not inspect(facts(f"(module (func ${long}))").wasm).function_names
    assert long.encode() not in facts(f"(module ${long} (func $f))").wasm
    assert long.encode() not in facts(f"(module ${long} (func $f) (start $f))").wasm
    assert inspect(facts(f"(module $m (memory 1) (func $f) {GROW})").wasm).function_names[1] == "f"


def test_a_damaged_name_section_is_dropped() -> None:
    wasm = bytes(wat2wasm("(module (func $f))"))
    at = wasm.index(b"\x04name") + 5
    damaged = wasm[:at] + b"\x01\x7f" + wasm[at + 2 :]
    assert not inspect(instrument(damaged).wasm).custom_sections


def test_ranges_join_pages_that_are_near() -> None:
    pages = {1, 2, 5, 9}
    assert [(a // PAGE_BYTES, b // PAGE_BYTES) for a, b in ranges(pages)] == [(1, 3), (5, 6), (9, 10)]
    assert [(a // PAGE_BYTES, b // PAGE_BYTES) for a, b in ranges(pages, gap=2)] == [(1, 6), (9, 10)]
    assert list(ranges(set())) == []


def test_an_artifact_comes_back_as_it_was_packed() -> None:
    artifact = Artifact.of(facts(EVERYTHING), b"native code" * 3)
    assert Artifact.unpack(artifact.pack()) == artifact
    for foreign in (b"", b"native code", struct.pack("<8sI", b"runnerW0", 2) + b"{}"):
        with pytest.raises(ValueError, match="no artifact"):
            Artifact.unpack(foreign)


def test_random_bodies_compute_the_same_as_before() -> None:
    """Bodies full of the bytes that an instruction of interest has, as constants."""
    chance = random.Random(7)
    for _ in range(60):
        constants = [chance.choice([0x40, 0x4000, 0xFC09, 0x09FC, 0x0CFC, -64]) for _ in range(12)]
        steps = "".join(f"(local.set 0 (i32.xor (local.get 0) (i32.const {constant})))" for constant in constants)
        text = f'(module (memory 1 1) (func (export "f") (param i32) (result i32) {steps} (local.get 0)) {GROW})'
        expected = 5
        for constant in constants:
            expected ^= constant
        plain, guest = both(text)
        assert guest("f", 5) == plain("f", 5) == expected
        assert facts(text).shrinkable
