"""The Wasmer engine in process: real modules, compiled by LLVM in a process of their own."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runner_wasmer import llvm

from runner.errors import (
    BadOutput,
    Exited,
    GrantMissing,
    InvalidModule,
    InvocationError,
    OutOfMemory,
    OutputTooLarge,
    Trapped,
    UnknownImport,
)
from runner.models import LogLevel
from runner.workers.engine import Abi, Call, LogBuffer

if sys.version_info[:2] != (3, 10):
    pytest.skip("wasmer has wheels for CPython 3.10 only", allow_module_level=True)

import wasmer  # type: ignore[import-untyped]
from runner_wasmer.engine import engine
from wasmtime import wat2wasm

PREVIEW_1 = "wasi_snapshot_preview1"
READ = f'(import "{PREVIEW_1}" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))'
WRITE = f'(import "{PREVIEW_1}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))'
EXIT = f'(import "{PREVIEW_1}" "proc_exit" (func $exit (param i32)))'
REQUEST_ID = '(import "env" "get_request_id" (func $request_id (result i64)))'
GET_ENV = '(import "host" "get_env" (func $get_env (param i32 i32) (result i64)))'
GET_SECRET = '(import "env" "get_secret" (func $get_secret (param i32 i32) (result i64)))'
LOG_INFO = '(import "env" "log_info" (func $log_info (param i32 i32)))'
BUMP = """(global $next (mut i32) (i32.const 4096))
  (func $malloc (export "malloc") (param i32) (result i32)
    (global.get $next) (global.set $next (i32.add (global.get $next) (local.get 0))))"""


def command(body: str, *parts: str, memory: str = "1 4") -> str:
    return f'(module {" ".join(parts)} (memory (export "memory") {memory}) (func $main (export "_start") {body}))'


def reactor(body: str, *parts: str, allocator: str = BUMP, memory: str = "1 4") -> str:
    """A reactor whose `handle` has the parameters $ptr and $len and returns an i64."""
    handle = f'(func (export "handle") (param $ptr i32) (param $len i32) (result i64) {body})'
    return f'(module {" ".join(parts)} (memory (export "memory") {memory}) {allocator} {handle})'


PACK = "(i64.or (i64.extend_i32_u (local.get $ptr)) (i64.shl (i64.extend_i32_u (local.get $len)) (i64.const 32)))"
SWAPPED = "(i64.rotl (call {}) (i64.const 32))"
"""A host function has its pointer in the high half, `handle` in the low one."""

# Writes the word at 1000, counts it and the global up: fresh state always writes zeros.
COUNTING = """(i32.store (i32.const 0) (i32.const 1000)) (i32.store (i32.const 4) (i32.const 8))
  (i32.store (i32.const 1004) (global.get $count))
  (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))
  (i32.store (i32.const 1000) (i32.add (i32.load (i32.const 1000)) (i32.const 1)))
  (global.set $count (i32.add (global.get $count) (i32.const 1)))
  (drop (memory.grow (i32.const 1))) (i32.store (i32.const 65536) (i32.const 7))"""
# Writes 64 KiB to a descriptor for ever.
FLOOD = """(i32.store (i32.const 4) (i32.const 65536))
  (loop $again (drop (call $write (i32.const {fd}) (i32.const 0) (i32.const 1) (i32.const 16)))
    (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const {times}))))"""
GROW = "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))"
TABLE = "(type $plain (func)) (type $other (func (param i32))) (func $f) (table 3 3 funcref) (elem (i32.const 0) $f)"

GUESTS = {
    "echo": command(
        """(i32.store (i32.const 4) (i32.const 65000)) (i32.store (i32.const 0) (i32.const 64))
        (loop $again
          (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
          (i32.store (i32.const 16) (i32.const 64)) (i32.store (i32.const 20) (i32.load (i32.const 8)))
          (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 12)))
          (br_if $again (i32.load (i32.const 8))))""",
        READ,
        WRITE,
    ),
    "counting": command(COUNTING, WRITE, "(global $count (mut i32) (i32.const 0))"),
    "silent": command(""),
    "no_memory": '(module (func (export "_start")))',
    "exit_0": command("(call $exit (i32.const 0)) unreachable", EXIT),
    "exit_3": command("(call $exit (i32.const 3)) unreachable", EXIT),
    "exit_in_start": command("", EXIT, "(func $s (call $exit (i32.const 4))) (start $s)"),
    "flood_stdout": command(FLOOD.format(fd=1, times=1 << 20), WRITE).replace('"_start")', '"_start") (local $n i32)'),
    "flood_stderr": command(FLOOD.format(fd=2, times=1 << 14), WRITE).replace('"_start")', '"_start") (local $n i32)'),
    "unreachable": command("call $mid", "(func $inner unreachable) (func $mid (call $inner))"),
    "integer_divide_by_zero": command("(drop (i32.div_s (i32.const 1) (i32.const 0)))"),
    "integer_overflow": command("(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))"),
    "bad_conversion": command("(drop (i32.trunc_f32_s (f32.const nan)))"),
    "out_of_bounds_memory": command("(drop (i32.load (i32.const 65536)))"),
    "out_of_bounds_table": command("(call_indirect (type $plain) (i32.const 5))", TABLE),
    "indirect_call_to_null": command("(call_indirect (type $plain) (i32.const 1))", TABLE),
    "indirect_call_type_mismatch": command("(call_indirect (type $other) (i32.const 1) (i32.const 0))", TABLE),
    "stack_overflow": command("call $main"),
    "trap_in_start": command("", "(func $s unreachable) (start $s)"),
    "segment_out_of_bounds": command("", '(data (i32.const 65534) "abc")', memory="1 1"),
    "out_of_memory": command(f"{GROW} unreachable"),
    "out_of_memory_exit": command(f"{GROW} (call $exit (i32.const 1))", EXIT),
    "full_but_divides": command(f"{GROW} (drop (i32.div_s (i32.const 1) (i32.const 0)))"),
    "full_but_fine": command(GROW),
    "below_limit": command("(drop (memory.grow (i32.const 1))) unreachable"),
    "reactor_echo": reactor(PACK, memory="4 4"),
    "reactor_counting": reactor(
        f"(if (i32.load (i32.const 64)) (then unreachable)) (i32.store (i32.const 64) (i32.const 1)) {PACK}"
    ),
    "reactor_initialized": reactor(
        "(local.set $len (global.get $ready)) " + PACK,
        '(global $ready (mut i32) (i32.const 0)) (func (export "_initialize") (global.set $ready (i32.const 2)))',
    ),
    "reactor_outside": reactor("(i64.const 0x00000008_fffffff0)"),
    "reactor_too_large": reactor("(i64.const 0x7fffffff_00000000)"),
    "reactor_allocator_outside": reactor(
        "(i64.const 0)", allocator='(func (export "alloc") (param i32) (result i32) i32.const -16)'
    ),
    "reactor_allocator_empty": reactor(
        "(i64.const 0)", allocator='(func (export "alloc") (param i32) (result i32) i32.const 0)'
    ),
    "reactor_exit_0": reactor("(call $exit (i32.const 0)) unreachable", EXIT),
    "reactor_prints": reactor(
        """(i32.store (i32.const 0) (local.get $ptr)) (i32.store (i32.const 4) (local.get $len))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16))) (i64.const 0)""",
        WRITE,
    ),
    "request_id": reactor(SWAPPED.format("$request_id"), REQUEST_ID),
    "get_env": reactor(SWAPPED.format("$get_env (local.get $ptr) (local.get $len)"), GET_ENV),
    "get_secret": reactor(SWAPPED.format("$get_secret (local.get $ptr) (local.get $len)"), GET_SECRET),
    "log_info": reactor("(call $log_info (local.get $ptr) (local.get $len)) (i64.const 0)", LOG_INFO),
    "log_outside": reactor("(call $log_info (i32.const -4) (i32.const 8)) (i64.const 0)", LOG_INFO),
    "allocates_in_allocator": reactor(
        SWAPPED.format("$request_id"),
        REQUEST_ID,
        allocator=f"""{BUMP.replace('"malloc"', '"alloc"')}
        (func (export "orama_alloc") (param i32) (result i32) (drop (call $request_id)) (i32.const 64))""",
    ),
    "no_allocator": command("(drop (call $request_id))", REQUEST_ID),
    "unknown_import": command("", '(import "env" "launch" (func))'),
    "foreign_wasi": command("", '(import "wasi_unstable" "sched_yield" (func (result i32)))'),
    "wrong_type": command("", f'(import "{PREVIEW_1}" "sched_yield" (func (param i32) (result i32)))'),
    "memory_import": '(module (import "env" "memory" (memory 1)) (func (export "_start")))',
    "all_wasi": "",  # filled in below
}

COMPILE = """
import json, sys
from pathlib import Path
from runner_wasmer.engine import engine
from runner.errors import InvalidModule
compiler = engine()
compiler.prepare_compile()
for path in map(Path, sys.argv[1:]):
    try:
        path.with_suffix(".artifact").write_bytes(compiler.compile(path.read_bytes()))
    except InvalidModule as error:
        path.with_suffix(".error").write_text(str(error))
"""


def every_wasi_import() -> str:
    from runner_wasmer.signatures import SIGNATURES

    parts = []
    for (module, name), (parameters, results) in SIGNATURES.items():
        types = f"(param {' '.join(parameters)}) (result {' '.join(results)})"
        parts.append(f'(import "{module}" "{name}" (func {types}))')
    return command("", *parts)


def compile_all(folder: Path, modules: dict[str, bytes]) -> None:
    """Compile in a process that has LLVM's library folder: NAME.artifact or NAME.error in `folder`."""
    for name, wasm in modules.items():
        (folder / f"{name}.wasm").write_bytes(wasm)
    environment = llvm.environment(llvm.library_folder(folder))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    paths = [str(folder / f"{name}.wasm") for name in modules]
    subprocess.run([sys.executable, "-c", COMPILE, *paths], env=environment, check=True, timeout=120)


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the compiled GUESTS."""
    folder = tmp_path_factory.mktemp("guests")
    texts = {**GUESTS, "all_wasi": every_wasi_import()}
    compile_all(folder, {name: bytes(wat2wasm(text)) for name, text in texts.items()})
    return folder


Invoke = Callable[..., tuple[bytes, int]]


@pytest.fixture
def invoke(artifacts: Path) -> Invoke:
    """Load a guest and invoke it once, or `times` times: the last output and memory size."""

    def run(name: str, stdin: bytes = b"", call: Call | None = None, times: int = 1) -> tuple[bytes, int]:
        loaded = load(artifacts, name)
        for _ in range(times):
            result: tuple[bytes, int] = loaded.invoke(stdin, call or make_call())
        return result

    return run


def load(artifacts: Path, name: str) -> Any:
    text = GUESTS[name]
    abi = Abi.REACTOR if '"handle"' in text else Abi.COMMAND
    return engine().load((artifacts / f"{name}.artifact").read_bytes(), abi)


def make_call(**facts: Any) -> Call:
    given: dict[str, Any] = {"env_vars": {}, "secrets": {}, "memory_limit_mb": 1, "output_limit_bytes": 1 << 20}
    logs = LogBuffer(facts.pop("log_limit_bytes", 1 << 16))
    given.update(facts)
    return Call(name="guest", request_id="r-77", caller_wallet=None, timeout_seconds=5, logs=logs, **given)


def test_input_and_output_of_a_command(invoke: Invoke) -> None:
    for size in (0, 1, 200, 65_000, 65_001, 700_000):
        data = os.urandom(size)
        assert invoke("echo", data)[0] == data


def test_no_state_is_visible_to_the_next_invocation(artifacts: Path) -> None:
    loaded = load(artifacts, "counting")
    call = make_call()
    assert [loaded.invoke(b"", call) for _ in range(50)] == [(bytes(8), 2 << 16)] * 50


def test_a_failed_invocation_leaves_the_module_usable(artifacts: Path) -> None:
    for name, error in (("stack_overflow", Trapped), ("exit_3", Exited), ("out_of_memory", OutOfMemory)):
        loaded = load(artifacts, name)
        for _ in range(3):
            with pytest.raises(error):
                loaded.invoke(b"", make_call())


@pytest.mark.parametrize("name", ["silent", "no_memory", "exit_0", "reactor_exit_0", "full_but_fine", "all_wasi"])
def test_a_normal_end_without_output(invoke: Invoke, name: str) -> None:
    assert invoke(name)[0] == b""


def test_the_final_size_of_the_memory_is_told(invoke: Invoke) -> None:
    assert invoke("silent")[1] == 1 << 16
    assert invoke("no_memory")[1] == 0
    assert invoke("full_but_fine")[1] == 4 << 16


def test_megabytes_of_input_that_nobody_reads(invoke: Invoke) -> None:
    assert invoke("silent", bytes(8 << 20)) == (b"", 1 << 16)


@pytest.mark.parametrize(("name", "code"), [("exit_3", 3), ("exit_in_start", 4)])
def test_exit_codes(invoke: Invoke, name: str, code: int) -> None:
    with pytest.raises(Exited) as caught:
        invoke(name)
    assert caught.value.code == code


TRAPS = [name for name in GUESTS if name.startswith(("un", "integer", "bad_c", "out_of_b", "indirect"))]


@pytest.mark.parametrize("name", [name for name in TRAPS if name != "unknown_import"])
def test_traps_are_told_apart(invoke: Invoke, name: str) -> None:
    with pytest.raises(Trapped) as caught:
        invoke(name)
    assert caught.value.trap == name
    assert caught.value.functions


def test_a_trap_names_the_functions_innermost_first(invoke: Invoke) -> None:
    with pytest.raises(Trapped) as caught:
        invoke("unreachable")
    assert caught.value.functions == ("inner", "mid", "main")


@pytest.mark.parametrize(
    ("name", "trap"), [("trap_in_start", "unreachable"), ("segment_out_of_bounds", "out_of_bounds_memory")]
)
def test_traps_while_instantiating(invoke: Invoke, name: str, trap: str) -> None:
    with pytest.raises(Trapped) as caught:
        invoke(name)
    assert caught.value.trap == trap


def test_a_stack_overflow_tells_little_and_keeps_nothing(invoke: Invoke) -> None:
    with pytest.raises(Trapped) as caught:
        invoke("stack_overflow")
    assert caught.value.trap == "stack_overflow"
    assert set(caught.value.functions) == {"main"}
    assert len(caught.value.functions) < 200
    assert len(str(caught.value)) < 1000
    assert caught.value.__context__ is None  # the engine's own error holds every frame


@pytest.mark.parametrize("name", ["out_of_memory", "out_of_memory_exit"])
def test_a_guest_that_fails_at_its_limit_is_out_of_memory(invoke: Invoke, name: str) -> None:
    with pytest.raises(OutOfMemory) as caught:
        invoke(name)
    assert caught.value.memory_limit_mb == 1


@pytest.mark.parametrize(
    ("name", "trap"), [("below_limit", "unreachable"), ("full_but_divides", "integer_divide_by_zero")]
)
def test_other_failures_are_not_blamed_on_memory(invoke: Invoke, name: str, trap: str) -> None:
    with pytest.raises(Trapped) as caught:
        invoke(name)
    assert caught.value.trap == trap


def peak_rss_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_output_past_its_limit_ends_the_guest_at_once(invoke: Invoke) -> None:
    invoke("silent")
    before = peak_rss_kib()
    with pytest.raises(OutputTooLarge):
        invoke("flood_stdout", call=make_call(output_limit_bytes=1 << 20))
    assert peak_rss_kib() - before < 16 << 10


def test_a_gibibyte_of_standard_error_costs_no_memory(invoke: Invoke) -> None:
    call = make_call(log_limit_bytes=10_000)
    before = peak_rss_kib()
    assert invoke("flood_stderr", call=call)[0] == b""
    assert peak_rss_kib() - before < 16 << 10
    entries = call.logs.take()
    assert sum(len(entry.message) for entry in entries) < 12_000
    assert "dropped" in entries[-1].message


@pytest.mark.parametrize("size", [0, 1, 200, 150_000])
def test_input_and_output_of_a_reactor(invoke: Invoke, size: int) -> None:
    data = os.urandom(size)
    assert invoke("reactor_echo", data, times=3)[0] == data


def test_a_reactor_starts_afresh_too(invoke: Invoke) -> None:
    assert invoke("reactor_counting", b"abc", times=5)[0] == b"abc"


def test_a_reactor_is_initialized_first(invoke: Invoke) -> None:
    assert invoke("reactor_initialized", b"abcdef")[0] == b"ab"


def test_what_a_reactor_prints_is_logged(invoke: Invoke) -> None:
    call = make_call()
    assert invoke("reactor_prints", b"one\ntwo", call)[0] == b""
    assert [(entry.level, entry.message) for entry in call.logs.take()] == [
        (LogLevel.INFO, "one"),
        (LogLevel.INFO, "two"),
    ]


@pytest.mark.parametrize("name", ["reactor_outside", "reactor_allocator_outside"])
def test_a_reactor_that_points_outside_its_memory(invoke: Invoke, name: str) -> None:
    with pytest.raises(BadOutput, match=r"outside|of a memory of"):
        invoke(name, b"abc")


def test_a_reactor_whose_output_is_too_large(invoke: Invoke) -> None:
    with pytest.raises(OutputTooLarge):
        invoke("reactor_too_large")


def test_an_allocator_that_gives_nothing_is_out_of_memory(invoke: Invoke) -> None:
    with pytest.raises(OutOfMemory):
        invoke("reactor_allocator_empty", b"abc")


def test_input_larger_than_the_guests_memory(invoke: Invoke) -> None:
    with pytest.raises(InvocationError):
        invoke("reactor_echo", bytes(1 << 20))


def test_host_functions_return_bytes_through_the_guests_allocator(invoke: Invoke) -> None:
    call = make_call(env_vars={"REGION": "eu-grüße", "EMPTY": ""}, secrets={"KEY": "s3cret"})
    assert invoke("request_id", call=call)[0] == b"r-77"
    assert invoke("get_env", b"REGION", call)[0] == "eu-grüße".encode()
    assert invoke("get_env", b"EMPTY", call)[0] == b""
    assert invoke("get_env", b"MISSING", call)[0] == b""
    assert invoke("get_env", b"\xff\xfe", call)[0] == b""
    assert invoke("get_secret", b"KEY", call)[0] == b"s3cret"


def test_a_secret_that_was_not_granted(invoke: Invoke) -> None:
    with pytest.raises(GrantMissing):
        invoke("get_secret", b"OTHER")


def test_a_host_function_without_a_result(invoke: Invoke) -> None:
    call = make_call()
    invoke("log_info", "grüße".encode() + b"\xff", call)
    assert [(entry.level, entry.message) for entry in call.logs.take()] == [(LogLevel.INFO, "grüße\ufffd")]


def test_a_host_function_given_a_bad_pointer_ends_the_guest(invoke: Invoke) -> None:
    with pytest.raises(Trapped) as caught:
        invoke("log_outside")
    assert caught.value.trap == "out_of_bounds_memory"


def test_host_functions_need_an_allocator_that_allocates(invoke: Invoke) -> None:
    with pytest.raises(BadOutput, match="exports no allocator"):
        invoke("no_allocator")
    with pytest.raises(BadOutput, match="called a host function"):
        invoke("allocates_in_allocator")


def test_imports_that_no_function_answers_are_refused_by_name(artifacts: Path) -> None:
    for name, told in (("unknown_import", "env.launch"), ("foreign_wasi", "wasi_unstable.sched_yield")):
        with pytest.raises(UnknownImport, match=told):
            load(artifacts, name)
    with pytest.raises(UnknownImport, match=r"env\.memory"):
        load(artifacts, "memory_import")
    with pytest.raises(InvalidModule, match="sched_yield has another type"):
        load(artifacts, "wrong_type")


def test_a_module_without_the_entry_point_of_its_abi_is_refused(artifacts: Path) -> None:
    for name, abi, told in (("reactor_echo", Abi.COMMAND, "_start"), ("echo", Abi.REACTOR, "handle")):
        with pytest.raises(InvalidModule, match=told):
            engine().load((artifacts / f"{name}.artifact").read_bytes(), abi)


def test_bytes_that_are_no_module_do_not_compile(tmp_path: Path) -> None:
    magic = b"\0asm\x01\0\0\0"
    bad = {"empty": b"", "text": b"(module)", "cut": magic + b"\x01\x05", "noise": magic + bytes(range(1, 99))}
    compile_all(tmp_path, bad)
    for name in bad:
        assert (tmp_path / f"{name}.error").read_text().startswith(("the module is invalid", "these "))


def test_growing_never_moves_a_memory() -> None:
    """What memory.py rests on: an old view stays valid."""
    store = wasmer.Store(wasmer.engine.JIT())
    for maximum in (200, 32768, 65536, None):
        memory = wasmer.Memory(store, wasmer.MemoryType(1, maximum))
        view = memoryview(memory.buffer)
        before = ctypes.addressof(ctypes.c_char.from_buffer(view))
        memory.grow(150)
        assert ctypes.addressof(ctypes.c_char.from_buffer(memoryview(memory.buffer))) == before


def address_space_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * 4


@pytest.mark.parametrize("name", ["echo", "exit_3", "unreachable", "request_id", "flood_stdout", "no_allocator"])
def test_no_instance_outlives_its_invocation(artifacts: Path, name: str) -> None:
    loaded = load(artifacts, name)
    call = make_call(output_limit_bytes=10)
    gc.disable()  # nothing may wait for the collector: each memory takes 6 GiB of addresses
    try:
        sizes = []
        for _ in range(3):
            kept: list[InvocationError] = []
            for _ in range(50):
                try:
                    loaded.invoke(b"some input", call)
                except InvocationError as error:
                    kept.append(error)
                call.logs.take()
            sizes.append(address_space_kib())
        assert sizes[2] - sizes[0] < 1 << 20
    finally:
        gc.enable()
