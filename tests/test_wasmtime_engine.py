"""The wasmtime engine in process: what the executor suite cannot see from outside the workers."""

from __future__ import annotations

import gc
import resource
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runner_wasmtime.engine import WasmtimeEngine
from runner_wasmtime.watchdog import Watchdog

from runner.errors import (
    BadOutput,
    Exited,
    InvalidModule,
    InvocationError,
    OutOfMemory,
    TimedOut,
    Trapped,
    UnknownImport,
)
from runner.models import Abi, LogLevel
from runner.testing import guests
from runner.testing.guests import compiled
from runner.workers.engine import Call, Loaded, LogBuffer

REQUEST_ID = '(import "env" "get_request_id" (func $request_id (result i64)))'
LOG_INFO = '(import "env" "log_info" (func $log_info (param i32 i32)))'

Load = Callable[..., Loaded]


def make_call(**facts: object) -> Call:
    defaults: dict[str, object] = {
        "name": "probe",
        "env_vars": {},
        "secrets": {},
        "request_id": "request-1",
        "caller_wallet": None,
        "timeout_seconds": 20.0,
        "memory_limit_mb": 16,
        "output_limit_bytes": 1 << 20,
        "logs": LogBuffer(4096),
    }
    return Call(**{**defaults, **facts})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def engine() -> Iterator[WasmtimeEngine]:
    engine = WasmtimeEngine()
    engine.warm_up()
    engine.start()
    yield engine
    engine.stop()
    assert not any(thread.name == "deadline" for thread in threading.enumerate())


@pytest.fixture
def load(engine: WasmtimeEngine) -> Load:
    def load(guest: str, abi: Abi = Abi.COMMAND) -> Loaded:
        return engine.load(engine.compile(compiled(guest)), abi)

    return load


def output(loaded: Loaded, input: bytes = b"", **facts: object) -> bytes:
    return loaded.invoke(input, make_call(**facts))[0]


def failure(loaded: Loaded, input: bytes = b"", **facts: object) -> InvocationError:
    with pytest.raises(InvocationError) as caught:
        loaded.invoke(input, make_call(**facts))
    return caught.value


# The process


def test_a_warm_engine_has_no_thread_and_no_file_and_survives_a_fork() -> None:
    script = """
        import os, time
        from runner.models import Abi
        from runner.testing import guests
        from runner.workers.engine import import_engine
        from tests.test_wasmtime_engine import make_call

        def seen():
            return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

        artifact = import_engine("runner_wasmtime.engine").compile(guests.compiled(guests.MOODY))
        before = seen()
        engine = import_engine("runner_wasmtime.engine")
        engine.warm_up()
        assert seen() == before == (1, before[1]), (before, seen())
        for _ in range(3):
            if os.fork() == 0:
                engine.start()
                loaded = engine.load(artifact, Abi.COMMAND)
                assert loaded.invoke(b"hello", make_call())[0] == b"hello"
                started = time.monotonic()
                try:
                    loaded.invoke(b"L", make_call(timeout_seconds=0.2))
                except Exception as error:
                    print(type(error).__name__, time.monotonic() - started < 10, flush=True)
                os._exit(0)
            assert os.wait()[1] == 0
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("TimedOut True\n" * 3, 0), done.stderr


def test_ten_thousand_invocations_keep_nothing(load: Load) -> None:
    moody, reactor = load(guests.MOODY), load(guests.UPPER_REACTOR, Abi.REACTOR)

    def run(times: int) -> int:
        for _ in range(times):
            output(moody, b"some input")
            output(reactor, b"some input")
            failure(moody, guests.mood("unreachable"))
            failure(moody, b"X")
        gc.collect()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = run(500)
    assert run(2500) - before < 4096  # KiB


# State


def test_what_one_wrote_no_other_finds(load: Load) -> None:
    pages = 100
    grow = f"(drop (memory.grow (i32.const {pages})))"
    scan = """(loop $next
        (local.set $found (i32.or (local.get $found) (i32.load (local.get $at))))
        (local.set $at (i32.add (local.get $at) (i32.const 4)))
        (br_if $next (i32.lt_u (local.get $at) (i32.shl (memory.size) (i32.const 16)))))
        (i32.store (i32.const 16) (local.get $found)) (call $write (i32.const 1) (i32.const 16) (i32.const 4))"""
    fill = """(memory.fill (i32.const 0) (i32.const 170) (i32.shl (memory.size) (i32.const 16)))
        (call $write (i32.const 1) (i32.const 64) (i32.const 4))"""
    writer = load(guests.command(f"{grow} {fill}"))
    reader = load(guests.command(f"(local $at i32) (local $found i32) {grow} {scan}"))
    for _ in range(3):
        assert output(writer) == b"\xaa" * 4
        assert output(reader) == bytes(4)


def test_random_bytes_differ_and_clocks_run(load: Load) -> None:
    random = load(
        """(module (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "malloc") (param i32) (result i32) (i32.const 1024))
        (func (export "handle") (param i32 i32) (result i64)
          (drop (call $random (i32.const 0) (i32.const 16)))
          (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 16)))
          (i64.const 0x1800000000)))""",
        Abi.REACTOR,
    )
    answers = [output(random) for _ in range(20)]
    assert len({answer[:16] for answer in answers}) == 20
    times = [int.from_bytes(answer[16:], "little") for answer in answers]
    assert times == sorted(times)
    assert abs(times[-1] - time.monotonic_ns()) < 10e9


# Deadlines


@pytest.mark.parametrize(
    ("guest", "abi"),
    [
        ('(module (func $loop (loop (br 0))) (start $loop) (func (export "_start")))', Abi.COMMAND),
        (guests.reactor("(i64.const 0)", '(func (export "_initialize") (loop (br 0)))'), Abi.REACTOR),
        (guests.reactor("(loop (br 0)) (i64.const 0)"), Abi.REACTOR),
    ],
    ids=["start function", "_initialize", "handle"],
)
def test_the_deadline_counts_from_the_instantiation(load: Load, guest: str, abi: Abi) -> None:
    loaded = load(guest, abi)
    started = time.monotonic()
    error = failure(loaded, timeout_seconds=0.2)
    assert isinstance(error, TimedOut)
    assert 0.2 <= time.monotonic() - started < 10


def test_a_deadline_that_passed_does_not_reach_the_next_invocation(load: Load) -> None:
    moody = load(guests.MOODY)
    for _ in range(5):
        assert isinstance(failure(moody, b"L", timeout_seconds=0.02), TimedOut)
        assert [output(moody, b"well") for _ in range(20)] == [b"well"] * 20


def test_a_disarmed_watchdog_is_silent() -> None:
    calls: list[float] = []
    watchdog = Watchdog(lambda: calls.append(time.monotonic()))
    watchdog.start()
    for _ in range(50):
        watchdog.arm(0.005)
        time.sleep(0.001)
        watchdog.disarm()
    time.sleep(0.05)
    assert len(calls) <= 5  # a machine that stands still for 4 ms may pass a deadline
    calls.clear()
    watchdog.arm(1000)
    armed = time.monotonic()
    watchdog.arm(0.05)
    time.sleep(0.3)
    assert [0.05 <= moment - armed < 0.25 for moment in calls] == [True]
    watchdog.arm(1e300)
    watchdog.disarm()
    watchdog.stop()


# Endings


def test_a_function_without_a_name_is_shown_by_its_index(load: Load) -> None:
    error = failure(load('(module (func (export "_start") (call 1)) (func unreachable))'))
    assert isinstance(error, Trapped)
    assert error.functions == ("func[1]", "func[0]")


def test_names_are_made_fit_to_print(load: Load) -> None:
    error = failure(load('(module (func (export "_start") (call $"a\\0ab")) (func $"a\\0ab" unreachable))'))
    assert isinstance(error, Trapped)
    assert error.functions[0] == "a\ufffdb"


def test_a_failure_tells_memory_and_keeps_no_frames(load: Load) -> None:
    error = failure(load(guests.GROW_AND_EXIT), memory_limit_mb=3)
    assert isinstance(error, OutOfMemory)
    assert error.memory_peak_bytes == 3 << 20  # type: ignore[attr-defined]
    assert error.__context__ is None


def test_the_smaller_of_two_memory_limits_counts(load: Load) -> None:
    guest = guests.command(
        "(loop (br_if 0 (i32.ne (i32.const -1) (memory.grow (i32.const 1))))) unreachable", memory="1 4"
    )
    error = failure(load(guest))
    assert isinstance(error, OutOfMemory)
    assert error.memory_peak_bytes == 4 << 16  # type: ignore[attr-defined]


def test_proc_exit_in_the_start_function_ends_well(load: Load) -> None:
    guest = guests.command("unreachable", "(func $early (call $exit (i32.const 0))) (start $early)")
    assert output(load(guest)) == b""
    assert isinstance(failure(load(guest.replace("i32.const 0", "i32.const 7"))), Exited)


def test_a_command_needs_no_memory(load: Load) -> None:
    assert load('(module (func (export "_start")))').invoke(b"", make_call()) == (b"", 0)


def test_what_a_reactor_prints_is_logged(load: Load) -> None:
    guest = guests.reactor(
        """(i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const 7))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (i64.const 0)""",
        '(data (i32.const 16) "one\\ntwo")',
        imports='(import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))',
    )
    call = make_call()
    assert load(guest, Abi.REACTOR).invoke(b"", call)[0] == b""
    assert [(entry.level, entry.message) for entry in call.logs.take()] == [
        (LogLevel.INFO, "one"),
        (LogLevel.INFO, "two"),
    ]


# Host functions


def test_a_bad_pointer_is_an_errno_for_wasi_and_a_trap_for_ours(load: Load) -> None:
    errno = "(call $fd_read (i32.const 0) (i32.const -4) (i32.const 1) (i32.const 8))"
    wasi = guests.command(f"(if (i32.ne {errno} (i32.const 21)) (then unreachable))")
    assert output(load(wasi)) == b""
    ours = guests.reactor("(call $log_info (i32.const -4) (i32.const 8)) (i64.const 0)", imports=LOG_INFO)
    error = failure(load(ours, Abi.REACTOR))
    assert isinstance(error, Trapped)
    assert error.trap == "out_of_bounds_memory"


@pytest.mark.parametrize(
    ("allocator", "kind"),
    [
        ("", BadOutput),
        ('(func (export "malloc") (param i32) (result i32) (i32.const -16))', BadOutput),
        ('(func (export "malloc") (param i32) (result i32) (i32.const 0))', OutOfMemory),
        ('(func (export "malloc") (param i32) (result i32) unreachable)', Trapped),
        ('(func (export "malloc") (param i32) (result i32) (drop (call $request_id)) (i32.const 16))', BadOutput),
        ('(func (export "malloc") (param i64) (result i32) (i32.const 16))', BadOutput),
    ],
    ids=["none", "outside", "null", "traps", "calls back", "other type"],
)
def test_an_allocator_that_fails_an_answer_ends_the_guest(load: Load, allocator: str, kind: type[Exception]) -> None:
    start = '(func (export "_start") (drop (call $request_id)))'
    loaded = load(f'(module {REQUEST_ID} (memory (export "memory") 1) {allocator} {start})')
    for _ in range(2):
        assert type(failure(loaded)) is kind


def test_an_allocator_may_call_what_returns_nothing(load: Load) -> None:
    guest = f"""(module {REQUEST_ID} {LOG_INFO} (memory (export "memory") 1)
        (func (export "malloc") (param i32) (result i32) (call $log_info (i32.const 0) (i32.const 1)) (i32.const 16))
        (func (export "handle") (param i32 i32) (result i64) (i64.rotl (call $request_id) (i64.const 32))))"""
    call = make_call()
    assert load(guest, Abi.REACTOR).invoke(b"", call)[0] == b"request-1"
    assert len(call.logs.take()) == 2


def test_what_a_host_function_raises_comes_out_and_the_engine_goes_on(load: Load) -> None:
    class Broken(LogBuffer):
        def log(self, level: LogLevel, message: bytes) -> None:  # noqa: ARG002
            raise KeyError("the log is broken")

    guest = guests.reactor("(call $log_info (i32.const 0) (i32.const 8)) (i64.const 0)", imports=LOG_INFO)
    loaded = load(guest, Abi.REACTOR)
    with pytest.raises(KeyError, match="the log is broken"):
        loaded.invoke(b"", make_call(logs=Broken(10)))
    assert output(loaded) == b""


# Modules


def test_simd_and_tail_calls_run(load: Load) -> None:
    guest = guests.command(
        """(v128.store (i32.const 16) (i8x16.add (v128.load (i32.const 32)) (i8x16.splat (i32.const 1))))
        (return_call $end)""",
        """(data (i32.const 32) "abcdefghijklmnop")
        (func $end (call $write (i32.const 1) (i32.const 16) (i32.const 16)))""",
    )
    assert output(load(guest)) == b"bcdefghijklmnopq"


def test_large_initial_memory_is_there(load: Load) -> None:
    data = bytes(range(256)) * 600
    text = "".join(f"\\{byte:02x}" for byte in data)
    guest = guests.command(
        f"(call $write (i32.const 1) (i32.const 1000) (i32.const {len(data)}))",
        f'(data (i32.const 1000) "{text}")',
        memory="4",
    )
    loaded = load(guest)
    assert [output(loaded) for _ in range(3)] == [data] * 3


def test_too_many_tables_are_refused(engine: WasmtimeEngine) -> None:
    with pytest.raises(InvalidModule, match="table"):
        engine.compile(compiled(f'(module {"(table 1 funcref)" * 65} (func (export "_start")))'))


def test_an_invalid_module_is_refused_with_the_reason(engine: WasmtimeEngine) -> None:
    with pytest.raises(InvalidModule, match="type mismatch"):
        engine.compile(compiled('(module (func (export "_start") (i32.const 1)))'))
    for data in (b"", b"(module)", b"\0asm"):
        with pytest.raises(InvalidModule, match="magic"):
            engine.compile(data)


@pytest.mark.parametrize(
    ("guest", "kind", "abi"),
    [
        (guests.importing("env", "nothing"), UnknownImport, Abi.COMMAND),
        (
            '(module (import "env" "log_info" (func (param i64 i32))) (func (export "_start")))',
            InvalidModule,
            Abi.COMMAND,
        ),
        ('(module (import "env" "log_info" (memory 1)) (func (export "_start")))', InvalidModule, Abi.COMMAND),
        ('(module (func (export "_start") (result i32) (i32.const 0)))', InvalidModule, Abi.COMMAND),
        ('(module (func (export "_start")))', InvalidModule, Abi.REACTOR),
        (
            '(module (memory (export "memory") 1) (func (export "handle") (param i32 i32) (result i64) (i64.const 0)))',
            InvalidModule,
            Abi.REACTOR,
        ),
    ],
    ids=["unknown import", "other parameters", "no function", "a result", "no reactor", "no allocator"],
)
def test_what_cannot_be_called_is_refused_at_load(load: Load, guest: str, kind: type[Exception], abi: Abi) -> None:
    with pytest.raises(kind):
        load(guest, abi)
