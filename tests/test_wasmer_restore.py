"""An instance that is put back to its first state is as good as a fresh one, whatever was done to it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from runner_wasmer import llvm

from runner.errors import Trapped
from runner.workers.engine import Abi, Call, LogBuffer

if sys.version_info[:2] != (3, 10):
    pytest.skip("wasmer has wheels for CPython 3.10 only", allow_module_level=True)

from runner_wasmer.engine import engine
from runner_wasmer.module import LoadedModule
from wasmtime import wat2wasm

PAGES = 20
SIZE = PAGES << 16

# The input is a list of u32: first 0 to spoil, 1 to look, 2 to grow by a page, 3 to trap; then addresses.
# Spoiling writes one byte to each address and overwrites every global. Looking returns a checksum of
# the whole memory but for the page of the input, the globals and the memory's size.
GUEST = f"""(module
  (memory (export "memory") {PAGES} {PAGES + 4})
  (global $a (mut i32) (i32.const 11)) (global $b (mut i64) (i64.const -1234567890123))
  (global $c (mut f32) (f32.const 1.1)) (global $d (mut f64) (f64.const -0.0))
  (data (i32.const 300000) "some data that starts here")
  (data (i32.const 131070) "across a border of pages")
  (data (i32.const {SIZE - 4}) "end!")
  (func (export "malloc") (param i32) (result i32) (i32.const 65536))
  (func $look (result i64) (local $at i32) (local $sum i64)
    (loop $again
      (if (i32.ne (i32.shr_u (local.get $at) (i32.const 16)) (i32.const 1)) (then
        (local.set $sum (i64.xor (i64.mul (local.get $sum) (i64.const 0x100000001b3)) (i64.load (local.get $at))))))
      (br_if $again (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.const {SIZE}))))
    (local.get $sum))
  (func (export "handle") (param $ptr i32) (param $len i32) (result i64) (local $end i32) (local $what i32)
    (local.set $end (i32.add (local.get $ptr) (local.get $len)))
    (local.set $what (i32.load (local.get $ptr)))
    (if (i32.eq (local.get $what) (i32.const 1)) (then
      (i64.store (i32.const 65600) (call $look))
      (i32.store (i32.const 65608) (global.get $a)) (i64.store (i32.const 65612) (global.get $b))
      (f32.store (i32.const 65620) (global.get $c)) (f64.store (i32.const 65624) (global.get $d))
      (i32.store (i32.const 65632) (memory.size))
      (return (i64.or (i64.const 65600) (i64.shl (i64.const 36) (i64.const 32))))))
    (if (i32.eq (local.get $what) (i32.const 2)) (then (drop (memory.grow (i32.const 1)))))
    (if (i32.eq (local.get $what) (i32.const 3)) (then unreachable))
    (global.set $a (i32.const 12)) (global.set $b (i64.const 3))
    (global.set $c (f32.const nan)) (global.set $d (f64.const 7))
    (block $done (loop $again
      (br_if $done (i32.ge_u (local.tee $ptr (i32.add (local.get $ptr) (i32.const 4))) (local.get $end)))
      (i32.store8 (i32.load (local.get $ptr)) (i32.const 0xa5))
      (br $again)))
    (i64.const 0)))"""
NAN_GUEST = '(module (memory (export "memory") 1) (global (mut f32) (f32.const nan:0x200001)) (func (export "_start")))'

# Grows by $len pages; the answer is 16 bytes of what was added, the size, or "refused".
GROWER = f"""(module
  (memory (export "memory") {PAGES} {PAGES + 4})
  (data (i32.const 131072) "refused")
  (func (export "malloc") (param i32) (result i32) (i32.const 65536))
  (func (export "handle") (param $ptr i32) (param $len i32) (result i64)
    (if (i32.eq (memory.grow (local.get $len)) (i32.const -1)) (then
      (return (i64.or (i64.const 131072) (i64.shl (i64.const 7) (i64.const 32))))))
    (i64.store (i32.const 65600) (i64.load (i32.const {SIZE})))
    (i64.store (i32.const 65608) (i64.load (i32.sub (i32.shl (memory.size) (i32.const 16)) (i32.const 8))))
    (i32.store (i32.const 65616) (memory.size))
    (i64.store (i32.const {SIZE}) (i64.const -1))
    (i64.store (i32.sub (i32.shl (memory.size) (i32.const 16)) (i32.const 8)) (i64.const -1))
    (i64.or (i64.const 65600) (i64.shl (i64.const 20) (i64.const 32)))))"""
# Read one byte; for a `g` grow by a page; then do something with the page behind the first.
STEP = """(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1 2)
  (data $passive "12345678")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 1))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (if (i32.eq (i32.load8_u (i32.const 100)) (i32.const 103)) (then (drop (memory.grow (i32.const 1)))))
    %s))"""
WRITE = """(i32.store (i32.const 0) (i32.const 65536)) (i32.store (i32.const 4) (i32.const 8))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))"""
FILL = "(memory.fill (i32.const 65536) (i32.const 1) (i32.const 8))"
INIT = "(memory.init $passive (i32.const 65536) (i32.const 0) (i32.const 8))"
# Nothing is exported; what an earlier invocation left would trap.
HIDDEN = """(module (memory 1 3) (global $g (mut i32) (i32.const 0)) (func (export "_start")
    (if (i32.load (i32.const 64)) (then unreachable))
    (if (i32.or (global.get $g) (i32.ne (memory.size) (i32.const 1))) (then unreachable))
    (i32.store (i32.const 64) (i32.const 1)) (global.set $g (i32.const 1)) (drop (memory.grow (i32.const 1)))))"""
SOURCES = {
    "guest": GUEST,
    "nan": NAN_GUEST,
    "grower": GROWER,
    "writer": STEP % WRITE,
    "filler": STEP % FILL,
    "initializer": STEP % INIT,
    "hidden": HIDDEN,
}

COMPILE = """
import sys
from runner_wasmer.engine import engine
sys.stdout.buffer.write(engine().compile(sys.stdin.buffer.read()))
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("restore")
    environment = llvm.environment(llvm.library_folder(folder))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    artifacts = {}
    for name, text in SOURCES.items():
        command = [sys.executable, "-c", COMPILE]
        wasm = bytes(wat2wasm(text))
        artifacts[name] = subprocess.run(command, input=wasm, env=environment, check=True, capture_output=True).stdout
    return artifacts


class Subject:
    """The loaded guest, and what the next invocation must see."""

    def __init__(self, artifact: bytes) -> None:
        self.loaded: Any = engine().load(artifact, Abi.REACTOR)
        assert isinstance(self.loaded, LoadedModule)
        self.call = Call(
            name="guest",
            env_vars={},
            secrets={},
            request_id="r",
            caller_wallet=None,
            timeout_seconds=5,
            memory_limit_mb=2,
            output_limit_bytes=1 << 20,
            logs=LogBuffer(1 << 16),
        )
        self.first = self.look()

    def __call__(self, what: int, *addresses: int) -> bytes:
        words = b"".join(word.to_bytes(4, "little") for word in (what, *addresses))
        output: bytes = self.loaded.invoke(words, self.call)[0]
        return output

    def look(self) -> bytes:
        return self(1)

    @property
    def kept(self) -> bool:
        """Whether the instance serves the next invocation too."""
        return self.loaded._guest is not None


@pytest.fixture
def subject(compiled: dict[str, bytes]) -> Subject:
    return Subject(compiled["guest"])


def anywhere(chance: random.Random, count: int) -> list[int]:
    """Addresses outside the page of the input, near each other or not."""
    base = chance.randrange(SIZE)
    spread = chance.choice([100, 20_000, SIZE])
    found = ((base + chance.randrange(spread)) % SIZE for _ in range(count))
    return [address for address in found if address >> 16 != 1]


def test_whatever_was_written_is_gone(subject: Subject) -> None:
    chance = random.Random(11)
    for _ in range(400):
        for _ in range(chance.randrange(4)):
            subject(0, *anywhere(chance, chance.choice([1, 5, 60, 900])))
        assert subject.look() == subject.first
        assert subject.kept


def test_the_pages_learned_by_heart_change_nothing(subject: Subject) -> None:
    """The same few pages again and again, then others."""
    learned = [300_001, 500_000, 500_001, SIZE - 1]
    for count in range(40):
        subject(0, *learned)
        if count % 7 == 0:
            assert subject.look() == subject.first
    assert any(first <= 500_000 < end for first, end, _ in subject.loaded._guest._restorer._ranges)
    subject(0, *range(0, 65_536, 512), 700_000, 300_010)
    assert subject.look() == subject.first


def test_data_at_the_borders_of_pages_comes_back(subject: Subject) -> None:
    subject(0, *range(300_000, 300_026), *range(131_072, 131_094), *range(SIZE - 4, SIZE))
    assert subject.look() == subject.first


def test_an_instance_that_trapped_is_dropped(subject: Subject) -> None:
    with pytest.raises(Trapped):
        subject(3)
    assert not subject.kept
    assert subject.look() == subject.first


def test_memory_that_was_added_is_gone(subject: Subject) -> None:
    grown = [SIZE, SIZE + 1, SIZE + 65_535]
    for _ in range(30):
        subject(2, *grown)
        assert subject.kept
        assert subject.look() == subject.first
        with pytest.raises(Trapped) as caught:  # beyond the end again, though Wasmer has it
            subject(0, SIZE)
        assert caught.value.trap == "out_of_bounds_memory"


def test_added_memory_starts_as_zeros_again(compiled: dict[str, bytes]) -> None:
    """The guest grows by as many pages as the input has bytes, returns what it finds and spoils it."""
    loaded: Any = engine().load(compiled["grower"], Abi.REACTOR)
    call = Subject(compiled["guest"]).call
    chance = random.Random(5)
    for _ in range(200):
        pages = chance.randrange(1, 6)
        output = loaded.invoke(bytes(pages), call)
        if pages <= 4:
            assert output == (bytes(16) + (PAGES + pages).to_bytes(4, "little"), (PAGES + pages) << 16)
        else:
            assert output == (b"refused", PAGES << 16)
        assert loaded._guest is not None


def test_a_host_that_reads_beyond_what_the_guest_has_now_is_stopped(compiled: dict[str, bytes]) -> None:
    """Pages that are hidden must never be touched from Python: that would end the process."""
    loaded: Any = engine().load(compiled["writer"], Abi.COMMAND)
    call = Subject(compiled["guest"]).call
    for _ in range(5):
        assert loaded.invoke(b"g", call) == (b"\0" * 8, 2 << 16)  # grew first: a write of 8 bytes there
        assert loaded.invoke(b"n", call) == (b"", 1 << 16)  # did not: EFAULT
        assert loaded._guest is not None


def test_bulk_instructions_stop_at_what_the_guest_has_now(compiled: dict[str, bytes]) -> None:
    """Wasmer's own code would touch the hidden pages, and end the process."""
    loaded: Any = engine().load(compiled["filler"], Abi.COMMAND)
    call = Subject(compiled["guest"]).call
    for _ in range(5):
        assert loaded.invoke(b"g", call) == (b"", 2 << 16)
        assert loaded._guest is not None
        with pytest.raises(Trapped) as caught:
            loaded.invoke(b"n", call)
        assert caught.value.trap == "out_of_bounds_memory"


def test_modules_that_cannot_shrink_are_made_anew_and_no_longer_prepared(compiled: dict[str, bytes]) -> None:
    loaded: Any = engine().load(compiled["initializer"], Abi.COMMAND)
    call = Subject(compiled["guest"]).call
    for _ in range(20):
        assert loaded.invoke(b"g", call) == (b"", 2 << 16)
        assert loaded._guest is None
    with pytest.raises(Trapped) as caught:
        loaded.invoke(b"n", call)
    assert caught.value.trap == "out_of_bounds_memory"


def test_memory_that_is_not_exported_is_put_back_too(compiled: dict[str, bytes]) -> None:
    loaded: Any = engine().load(compiled["hidden"], Abi.COMMAND)
    call = Subject(compiled["guest"]).call
    for _ in range(10):
        assert loaded.invoke(b"", call) == (b"", 2 << 16)
        assert loaded._guest is not None


def test_only_so_many_modules_keep_an_instance(compiled: dict[str, bytes]) -> None:
    one = engine()
    modules: list[Any] = [one.load(compiled["guest"], Abi.REACTOR) for _ in range(12)]
    call = Subject(compiled["guest"]).call
    for module in modules:
        module.invoke(b"\x01\0\0\0", call)
    assert [module._guest is not None for module in modules] == [False] * 4 + [True] * 8


def test_a_global_whose_bits_would_not_survive_is_no_reason_to_fail(compiled: dict[str, bytes]) -> None:
    loaded: Any = engine().load(compiled["nan"], Abi.COMMAND)
    call = Subject(compiled["guest"]).call
    assert loaded.invoke(b"", call) == loaded.invoke(b"", call) == (b"", 1 << 16)
    assert loaded._guest is None


def test_memory_at_rest_stays_small(subject: Subject) -> None:
    chance = random.Random(3)

    def resident_kib() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4

    subject(0, *anywhere(chance, 50))
    before = resident_kib()
    for _ in range(2000):
        subject(0, *anywhere(chance, 50))
    assert resident_kib() - before < 2048
