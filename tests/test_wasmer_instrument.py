"""What is added to a module before it is compiled, shown by running the result on another engine."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from runner_wasmer.artifact import Artifact
from runner_wasmer.instrument import NAME_LIMIT_BYTES, PAGE_BYTES, Instrumented, instrument, ranges
from wasmtime import Engine, Global, Instance, Module, Store, wat2wasm

from runner.wasm import inspect

GROW = '(func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))'
EVERYTHING = """(module
  (type $t (func (param i32) (result i32)))
  (memory (export "memory") 1 3)
  (table 2 2 funcref) (elem (i32.const 0) $double $grow)
  (global $a (mut i32) (i32.const 7)) (global $fixed i32 (i32.const 1)) (global $b (mut f64) (f64.const 2.5))
  (func $double (type $t) (i32.mul (local.get 0) (i32.const 2)))
  (func $grow (type $t) (local i64 f32)
    (block (result i32) (drop (i32.const 0x4000)) (block) (memory.grow (local.get 0))))
  (func (export "through_table") (param i32 i32) (result i32)
    (call_indirect (type $t) (local.get 1) (local.get 0)))
  (func (export "twice") (param i32) (result i32)
    (i32.add (memory.grow (local.get 0)) (i32.mul (i32.const 100) (memory.grow (local.get 0)))))
  (func (export "change") (global.set $a (i32.const 9)) (global.set $b (f64.const nan)))
  (data (i32.const 8190) "abcd"))"""


class Running:
    """An instrumented module on wasmtime."""

    def __init__(self, text: str) -> None:
        self.facts = instrument(bytes(wat2wasm(text)))
        self.store = Store(Engine())
        self.exports = Instance(self.store, Module(self.store.engine, self.facts.wasm), []).exports(self.store)

    def __call__(self, name: str, *arguments: int) -> Any:
        function: Any = self.exports[name]
        return function(self.store, *arguments)

    @property
    def refused(self) -> int:
        assert self.facts.refused is not None
        found = self.exports[self.facts.refused]
        assert isinstance(found, Global)
        return int(found.value(self.store))


def facts(text: str) -> Instrumented:
    return instrument(bytes(wat2wasm(text)))


def test_growing_works_as_before_and_a_refusal_is_noted() -> None:
    guest = Running(f'(module (memory (export "memory") 1 3) {GROW})')
    assert [guest("grow", pages) for pages in (0, 1, 1)] == [1, 1, 2]
    assert guest.refused == 0
    assert guest("grow", 1) == -1
    assert guest.refused == 1
    assert guest("grow", 0) == 3


def test_every_place_that_grows_is_found_and_all_else_stays() -> None:
    guest = Running(EVERYTHING)
    assert guest("through_table", 0, 21) == 42
    assert guest("through_table", 1, 1) == 1
    assert guest("twice", 1) == 2 - 100
    assert guest.refused == 1


def test_mutable_globals_are_exported_and_data_is_told_in_whole_pages() -> None:
    found = facts(EVERYTHING)
    names = {export.name for export in inspect(found.wasm).exports if export.kind == "global"}
    assert names == set(found.globals) == {"runner:global:0", "runner:global:2", "runner:refused"}
    assert found.data == ((PAGE_BYTES, 3 * PAGE_BYTES),)
    assert found.restorable


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
    assert found.refused is None
    assert found.restorable


@pytest.mark.parametrize(
    "text",
    [
        "(module (func $s) (start $s))",
        '(module (memory 1) (data $d "x") (func (data.drop $d)))',
        "(module (table 1 funcref) (elem $e func 0) (func (elem.drop $e)))",
        "(module (table 1 funcref) (elem $e func 0) (func (table.init $e (i32.const 0) (i32.const 0) (i32.const 1))))",
        "(module (table 2 funcref) (func (table.copy (i32.const 0) (i32.const 1) (i32.const 1))))",
        "(module (table 2 funcref) (func (table.set (i32.const 0) (ref.null func))))",
        "(module (table 2 funcref) (func (drop (table.grow (ref.null func) (i32.const 1)))))",
        '(module (import "env" "at" (global i32)) (memory 1) (data (global.get 0) "x"))',
        '(module (import "env" "memory" (memory 1)))',
        '(module (global (export "runner:global:0") (mut i32) (i32.const 0)))',
    ],
)
def test_what_cannot_be_undone_is_not_called_restorable(text: str) -> None:
    found = facts(text)
    Module.validate(Engine(), found.wasm)
    assert not found.restorable


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
    assert not inspect(facts(f"(module ${long} (func $f))").wasm).function_names
    assert inspect(facts(f"(module $m (memory 1) (func $f) {GROW})").wasm).function_names[0] == "f"


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
        guest = Running(text)
        assert guest("f", 5) == expected
        assert guest.facts.restorable
