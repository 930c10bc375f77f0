"""Bad modules and bad guests on the real engines: each a clear error, and the next invocation is fine."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from wasmtime import wat2wasm

from runner.errors import (
    BadOutput,
    Exited,
    InvalidModule,
    OutOfMemory,
    OutputTooLarge,
    RunnerError,
    TimedOut,
    Trapped,
    UnknownImport,
    UnsupportedFeature,
)
from runner.models import InvocationResult
from runner.workers.executor import TABLE_LIMIT, WorkerExecutor
from tests.support import (
    COMMAND,
    ECHO,
    ENGINE_NAMES,
    FOREVER,
    READ,
    WRITE,
    command,
    context,
    function,
    memory_kib,
    real_executor,
)

pytestmark = pytest.mark.slow

MEBIBYTE = 1 << 20
EXIT = '(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))'
# Writes 64 KiB to a descriptor, 16384 times: 1 GiB.
FLOOD = """(i32.store (i32.const 4) (i32.const 65536))
  (loop $again (drop (call $write (i32.const {fd}) (i32.const 0) (i32.const 1) (i32.const 16)))
    (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 16384))))"""
SAY_N = """(i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const 4))
  (i32.store (i32.const 16) (local.get $n))
  (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))"""
GROW_MEMORY = f"(loop $again (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) \
  (local.set $n (memory.size)) {SAY_N}"
GROW_TABLE = f"(loop $again (br_if $again (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)))) \
  (local.set $n (table.size $t)) {SAY_N}"
HUGE_TABLE_GROWTH = f"(local.set $n (table.grow $t (ref.null func) (i32.const 0x7fffffff))) {SAY_N}"
SIMD = (
    f"(local.set $n (i32x4.extract_lane 2 (i32x4.add (v128.const i32x4 1 2 3 4) (i32x4.splat (i32.const 39))))) {SAY_N}"
)
TABLE = "(table $t 1 funcref)"


@pytest.fixture(scope="module", params=ENGINE_NAMES)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerExecutor]:
    """Each real engine on one worker, so that what a guest leaves behind meets the next."""
    executor = real_executor(request.param, tmp_path_factory.mktemp("state"), workers=1)
    yield executor
    executor.close()


@pytest.fixture(autouse=True)
def _next_is_fine(engine: WorkerExecutor) -> Iterator[None]:
    yield
    assert engine.execute(function(ECHO), b"next", context()) == b"next"


def name_of(executor: WorkerExecutor) -> str:
    return executor._spec.name


def invoke(executor: WorkerExecutor, wasm: bytes, input: bytes = b"", **settings: float) -> InvocationResult:
    wanted = {"timeout_seconds": 10, **settings}
    return executor.invoke(function(wasm, **wanted), input, context())


# Modules that are none


@pytest.mark.parametrize(
    ("wasm", "message"),
    [
        (b"", "there are no bytes"),
        (b"\0", "less than a magic number"),
        (b"\0asm", "ends in the middle of its header"),
        (ECHO[:-7], "byte [0-9]+"),
        (ECHO[:60], "byte [0-9]+"),
        (ECHO + b"\x01", "byte [0-9]+"),
        (random.Random(7).randbytes(5000), "not WebAssembly"),
        (b"\0asm\x02\0\0\0" + ECHO[8:], "unknown version"),
        (b"\x7fELF" + bytes(500), "an ELF program"),
        (b"(module)", "WebAssembly text"),
        (b'print("hello")\n', "text, not WebAssembly"),
        (bytes(wat2wasm("(module)")), "no entry point"),
        (bytes(wat2wasm('(module (func (export "main")))')), "no entry point.*`main`"),
        (bytes(wat2wasm('(module (func (export "_start") (param i32)))')), "`_start` is"),
        (bytes(wat2wasm('(module (memory (export "memory") 1025) (func (export "_start")))')), "memory_limit_mb"),
        (bytes(wat2wasm('(module (memory 65536) (func (export "_start")))')), "memory_limit_mb"),
        (bytes(wat2wasm('(module (import "env" "memory" (memory 1)) (func (export "_start")))')), "memory"),
        (bytes(wat2wasm('(module (table 200000 funcref) (func (export "_start")))')), "table"),
        (bytes(wat2wasm('(module (import "env" "t" (table 1 funcref)) (func (export "_start")))')), "table"),
        (COMMAND[:-6] + b"\x0a\x05\x01\x03\x00\x6a\x0b", "the module is invalid"),  # for the compiler to find
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_module_is_refused(engine: WorkerExecutor, wasm: bytes, message: str) -> None:
    for _ in range(2):
        with pytest.raises(InvalidModule, match=message):
            invoke(engine, wasm)


@pytest.mark.parametrize(
    ("module", "name", "suggestion"),
    [
        ("env", "get_envv", "env.get_env"),
        ("wasi_snapshot_preview1", "sock_open", "sock_"),
        ("wasi_unstable", "fd_write", "wasi_snapshot_preview1.fd_write"),
        ("js", "anything_at_all", "docs/functions.md"),
    ],
)
def test_an_unknown_import_is_refused_by_name(engine: WorkerExecutor, module: str, name: str, suggestion: str) -> None:
    wasm = command("", f'(import "{module}" "{name}" (func))')
    with pytest.raises(UnknownImport, match=f"{module}.{name}") as caught:
        invoke(engine, wasm)
    assert suggestion in str(caught.value)


def test_simd_is_for_wasmtime(engine: WorkerExecutor) -> None:
    wasm = command(SIMD, WRITE)
    if name_of(engine) == "wasmer":
        with pytest.raises(UnsupportedFeature, match=r"simd.*executor: wasmtime"):
            invoke(engine, wasm)
    else:
        assert invoke(engine, wasm).output == (42).to_bytes(4, "little")


@pytest.mark.parametrize(
    "wasm",
    [
        '(module (memory 1 2 shared) (func (export "_start")))',
        '(module (memory i64 1) (func (export "_start")))',
        '(module (memory 1) (memory 1) (func (export "_start")))',
    ],
)
def test_memories_that_cannot_be_capped_are_refused(engine: WorkerExecutor, wasm: str) -> None:
    with pytest.raises(InvalidModule):
        invoke(engine, bytes(wat2wasm(wasm)))


# Guests that go wrong


@pytest.mark.parametrize(
    ("body", "trap"),
    [
        ("unreachable", "unreachable"),
        ("(drop (i32.div_u (i32.const 1) (local.get $n)))", "integer_divide_by_zero"),
        ("(drop (i32.load (i32.const -4)))", "out_of_bounds_memory"),
        ("(drop (i32.trunc_f32_s (f32.const nan)))", "bad_conversion"),
        ("call $main", "stack_overflow"),
        ("(drop (call $sum (i64.const 1) (i64.const 2) (i64.const 3)))", "stack_overflow"),
    ],
)
def test_a_trap_is_told_by_name(engine: WorkerExecutor, body: str, trap: str) -> None:
    deep = """(func $sum (param i64 i64 i64) (result i64) (i64.add (local.get 0)
      (call $sum (i64.add (local.get 0) (i64.const 1)) (local.get 2) (local.get 1))))"""
    wasm = command(body, deep)
    for _ in range(3):
        started = time.monotonic()
        error = invoke(engine, wasm).error
        assert isinstance(error, Trapped), error
        assert error.trap == trap
        assert time.monotonic() - started < 5


def test_exit_codes(engine: WorkerExecutor) -> None:
    for code in (1, 3, 255):
        error = invoke(engine, command(f"(call $exit (i32.const {code})) unreachable", EXIT)).error
        assert isinstance(error, Exited)
        assert error.code == code
    assert invoke(engine, command("(call $exit (i32.const 0)) unreachable", EXIT)).output == b""


def test_an_endless_loop_is_stopped(engine: WorkerExecutor) -> None:
    for _ in range(3):
        error = invoke(engine, FOREVER, timeout_seconds=0.1).error
        assert isinstance(error, TimedOut)


def test_memory_does_not_grow_past_the_limit(engine: WorkerExecutor) -> None:
    for limit in (1, 4):
        result = invoke(engine, command(GROW_MEMORY, WRITE), memory_limit_mb=limit)
        assert result.output == (limit * 16).to_bytes(4, "little")
        assert result.memory_peak_bytes == limit * MEBIBYTE


def test_a_guest_that_wants_more_memory_than_there_is_is_out_of_memory(engine: WorkerExecutor) -> None:
    grow = "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable"
    error = invoke(engine, command(grow), memory_limit_mb=2).error
    assert isinstance(error, OutOfMemory)
    assert error.memory_limit_mb == 2


def test_a_table_does_not_grow_past_the_limit(engine: WorkerExecutor) -> None:
    grows, jumps = command(GROW_TABLE, WRITE, TABLE), command(HUGE_TABLE_GROWTH, WRITE, TABLE)
    if name_of(engine) == "wasmer":
        with pytest.raises(UnsupportedFeature, match=r"reference-types.*executor: wasmtime"):
            invoke(engine, grows)
        return
    size = int.from_bytes(invoke(engine, grows).unwrap(), "little")
    assert TABLE_LIMIT - 1000 < size <= TABLE_LIMIT
    assert invoke(engine, jumps).output == b"\xff\xff\xff\xff"


def test_a_gibibyte_of_output_is_cut_off(engine: WorkerExecutor) -> None:
    before = memory_kib()
    started = time.monotonic()
    error = invoke(engine, command(FLOOD.format(fd=1), WRITE)).error
    assert isinstance(error, OutputTooLarge)
    assert error.limit_bytes == 64 * MEBIBYTE
    assert time.monotonic() - started < 3
    assert memory_kib() - before < 64 * 1024


def test_a_gibibyte_of_log_is_cut_off(engine: WorkerExecutor) -> None:
    result = invoke(engine, command(FLOOD.format(fd=2), WRITE), timeout_seconds=30)
    assert result.output == b""
    assert "bytes more were logged and dropped" in result.logs[-1].message
    assert sum(len(entry.message) for entry in result.logs) < 300 * 1024


def test_megabytes_of_input_need_not_be_read(engine: WorkerExecutor) -> None:
    assert invoke(engine, COMMAND, bytes(20 * MEBIBYTE)).output == b""
    results = engine.execute_many(function(COMMAND), [bytes(MEBIBYTE)] * 20, context())
    assert [result.output for result in results] == [b""] * 20


def test_bytes_that_are_no_utf8_go_in_and_out(engine: WorkerExecutor) -> None:
    data = bytes(range(256)) + b"\xff\xfe\xc0\x80\xed\xa0\x80"
    assert invoke(engine, ECHO, data).output == data
    log = command(
        """(i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 1000))
        (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
        (i32.store (i32.const 4) (i32.load (i32.const 8)))
        (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 12))) unreachable""",
        READ,
        WRITE,
    )
    result = invoke(engine, log, b"bad \xff\xc3 end")
    assert isinstance(result.error, Trapped)
    assert result.error.stderr_tail == "bad \ufffd\ufffd end"
    assert [entry.message for entry in result.logs] == ["bad \ufffd\ufffd end"]


def test_a_reactor_that_points_outside_its_memory(engine: WorkerExecutor) -> None:
    for answer in ("0x00000010_fffffff0", "0x7fffffff_00000000", "0xffffffff_ffffffff"):
        wasm = bytes(
            wat2wasm(
                f"""(module (memory (export "memory") 1)
                (func (export "malloc") (param i32) (result i32) (i32.const 64))
                (func (export "handle") (param i32 i32) (result i64) (i64.const {answer})))"""
            )
        )
        assert isinstance(invoke(engine, wasm, b"x").error, (BadOutput, OutputTooLarge))


@pytest.mark.parametrize(("name", "host_function"), [("VARIABLE", "get_env"), ("PASSWORD", "get_secret")])
def test_facts_that_are_no_utf8_reach_the_guest(engine: WorkerExecutor, name: str, host_function: str) -> None:
    wasm = bytes(
        wat2wasm(
            f"""(module (import "env" "{host_function}" (func $get (param i32 i32) (result i64)))
            (memory (export "memory") 1) (data (i32.const 0) "{name}")
            (func (export "malloc") (param i32) (result i32) (i32.const 64))
            (func (export "handle") (param i32 i32) (result i64)
              (i64.rotl (call $get (i32.const 0) (i32.const 8)) (i64.const 32))))"""
        )
    )
    odd = "a\udcffb"  # how Python holds an environment variable with the byte 0xff
    facts = context(env_vars={"VARIABLE": odd}, secrets={"PASSWORD": odd})
    assert engine.execute(function(wasm), b"", facts) == b"a?b"


def test_wrong_pointers_in_every_host_call(engine: WorkerExecutor) -> None:
    rng = random.Random(11)
    edges = (0, 1, 65535, 65536, -1, -4, 0x7FFFFFFF)
    for _ in range(12):
        calls = " ".join(
            f"(drop (call ${which} {' '.join(f'(i32.const {rng.choice(edges)})' for _ in range(4))}))"
            for which in rng.choices(("read", "write"), k=6)
        )
        error = invoke(engine, command(calls, READ, WRITE), b"input" * 100).error
        assert error is None or isinstance(error, (Trapped, OutputTooLarge))


# Mutations

# Instructions of the same type, by opcode: one in the place of another leaves a valid module.
ALIKE = (range(0x6A, 0x79), range(0x46, 0x50), range(0x7C, 0x8B), (0x28, 0x2C, 0x2D, 0x2E, 0x2F), (0x36, 0x3A, 0x3B))


def damaged(rng: random.Random, wasm: bytes) -> bytes:
    """The module with one to three small damages anywhere."""
    data = bytearray(wasm)
    for _ in range(rng.randint(1, 3)):
        place, kind = rng.randrange(8, len(data)), rng.randrange(4)
        if kind == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x0B, 0x20, 0x41))
        elif kind == 2:
            del data[place]
        else:
            data.insert(place, rng.randrange(256))
    return bytes(data)


def twisted(rng: random.Random, wasm: bytes) -> bytes:
    """The module with other instructions of the same types and other small constants: mostly valid."""
    data = bytearray(wasm)
    code = wasm.index(b"_start")
    for place in range(code + 8, len(data)):
        alike = next((group for group in ALIKE if data[place] in group), None)
        if alike is not None and rng.random() < 0.3:
            data[place] = rng.choice(alike)
        elif data[place] < 0x40 and data[place - 1] == 0x41 and rng.random() < 0.3:  # i32.const
            data[place] = rng.randrange(0x80)
    return bytes(data)


def test_mutated_modules_harm_nobody(engine: WorkerExecutor) -> None:
    rng = random.Random(2013)
    seeds = (ECHO, command(GROW_MEMORY, WRITE), command(FLOOD.format(fd=1), WRITE), command("call $main", WRITE))
    ended: Counter[str] = Counter()
    for number in range(100):
        wasm = (damaged, twisted)[number % 2](rng, rng.choice(seeds))
        try:
            result = invoke(engine, wasm, b"input", timeout_seconds=0.1, memory_limit_mb=2)
            ended[type(result.error).__name__ if result.error else "output"] += 1
        except RunnerError as error:
            ended[type(error).__name__] += 1
        assert engine.execute(function(ECHO), b"next", context()) == b"next"
    print(f"{name_of(engine)}: 100 mutated modules ended as {dict(ended)}")
    assert ended["InvalidModule"] > 10
    assert ended["output"] >= 4
    assert ended["TimedOut"] + ended["Trapped"] >= 4
