"""The executor suite, third part: modules that are refused, compiling ahead, and the executor's life."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.errors import InvalidModule, UnknownImport
from runner.testing import guests
from runner.testing.executor_bench import Bench, ExecutorSuite, context, descendants
from runner.wasm import content_id

_NOISE = random.Random(7).randbytes(1000)

_BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "half a header": lambda whole: whole[:6],
    "wrong magic": lambda whole: b"\0wasm" + whole[5:],
    "wrong version": lambda whole: whole[:4] + b"\x07\0\0\0" + whole[8:],
    "truncated": lambda whole: whole[: len(whole) // 2],
    "no last byte": lambda whole: whole[:-1],
    "random": lambda _: _NOISE,
    "random behind the header": lambda whole: whole[:8] + b"\xee" + _NOISE,
    "text": lambda _: guests.ECHO.encode(),
    "nothing in it": lambda whole: whole[:8],
    "invalid code": lambda whole: whole.replace(b"\x45\x0d", b"\x0d\x45"),  # i32.eqz, br_if
}
"""From the bytes of ECHO to bytes that are no module."""

_ENTRIES = {
    "no entry point": '(module (memory (export "memory") 1) (func (export "main")))',
    "an entry point with a parameter": '(module (memory (export "memory") 1) (func (export "_start") (param i32)))',
    "an entry point that is no function": '(module (memory (export "_start") 1))',
    "a reactor without an allocator": """(module (memory (export "memory") 1)
        (func (export "handle") (param i32 i32) (result i64) (i64.const 0)))""",
    "a reactor without memory": """(module (func (export "malloc") (param i32) (result i32) (i32.const 0))
        (func (export "handle") (param i32 i32) (result i64) (i64.const 0)))""",
    "a reactor of another type": """(module (memory (export "memory") 1)
        (func (export "malloc") (param i32) (result i32) (i32.const 0))
        (func (export "handle") (param i32 i32) (result i32) (i32.const 0)))""",
    "an import of another type": guests.importing("env", "get_request_id"),
}


class Modules(ExecutorSuite):
    """What is refused before a guest runs is raised, by precompile and execute_many alike."""

    def refused(self, bench: Bench, guest: str | bytes, **settings: int) -> InvalidModule:
        """The error with which both ways refuse a guest."""
        wasm_cid, wasm = bench.module(guest)
        with pytest.raises(InvalidModule) as ahead:
            bench.executor.precompile(wasm_cid, wasm, **settings)
        with pytest.raises(InvalidModule) as caught:
            list(bench.executor.execute_many(bench.function(guest, **settings), [b""], context()))
        assert type(caught.value) is type(ahead.value)
        assert bench.output(guests.ECHO, b"after") == b"after"
        return caught.value

    @pytest.mark.parametrize("broken", _BROKEN.values(), ids=_BROKEN)
    def test_bytes_that_are_no_module_are_refused(self, bench: Bench, broken: Callable[[bytes], bytes]) -> None:
        assert str(self.refused(bench, broken(guests.compiled(guests.ECHO))))

    @pytest.mark.parametrize("guest", _ENTRIES.values(), ids=_ENTRIES)
    def test_a_module_that_cannot_be_called_is_refused(self, bench: Bench, guest: str) -> None:
        assert str(self.refused(bench, guest))

    @pytest.mark.parametrize(
        ("module", "name"),
        [("env", "get_envv"), ("wasi_snapshot_preview1", "fd_raed"), ("shop", "buy"), ("env", "")],
    )
    def test_an_unknown_import_is_refused_by_name(self, bench: Bench, module: str, name: str) -> None:
        error = self.refused(bench, guests.importing(module, name))
        assert isinstance(error, UnknownImport)
        assert (error.module, error.name) == (module, name)

    def test_more_initial_memory_than_allowed_is_refused(self, bench: Bench) -> None:
        guest = guests.command("", memory="17")
        self.refused(bench, guest, memory_limit_mb=1)
        assert bench.output(guest, memory_limit_mb=2) == b""

    # Compiling ahead

    def test_a_precompiled_module_runs_without_a_look_up(self, bench: Bench) -> None:
        wasm = guests.compiled(guests.command("(call $write (i32.const 1) (i32.const 16) (i32.const 3))", memory="1"))
        wasm_cid = content_id(wasm)
        bench.executor.precompile(wasm_cid, wasm, memory_limit_mb=16)
        bench.executor.precompile(wasm_cid, wasm, memory_limit_mb=16)
        assert bench.output(wasm) == bytes(3)
        assert wasm_cid not in bench.asked_for

    def test_precompiling_again_costs_next_to_nothing(self, bench: Bench) -> None:
        wasm_cid, wasm = bench.module(guests.ECHO)
        bench.executor.precompile(wasm_cid, wasm)
        started = time.monotonic()
        for _ in range(100):
            bench.executor.precompile(wasm_cid, wasm)
        assert time.monotonic() - started < 1

    def test_an_invalidated_module_is_looked_up_and_runs(self, bench: Bench) -> None:
        guest = guests.command("(call $write (i32.const 1) (i32.const 16) (i32.const 4))", memory="1")
        wasm_cid, _ = bench.module(guest)
        assert bench.output(guest) == bytes(4)
        bench.executor.invalidate(wasm_cid)
        bench.asked_for.clear()
        assert bench.output(guest) == bytes(4)
        assert bench.asked_for == [wasm_cid]

    def test_invalidating_what_is_unknown_is_no_error(self, bench: Bench) -> None:
        bench.executor.invalidate(content_id(b"never seen"))

    # Its life

    def test_a_limit_is_the_functions_and_not_the_modules(self, bench: Bench) -> None:
        sizes = [bench.output(guests.GROW, memory_limit_mb=megabytes) for megabytes in (1, 3, 1)]
        assert [int.from_bytes(size, "little") for size in sizes] == [16, 48, 16]

    def test_no_process_is_left_after_close(self, tmp_path: Path) -> None:
        gc.collect()  # an iterator that another test left open may start a worker for its own executor
        before = descendants()
        bench = Bench(type(self), tmp_path)
        assert bench.output(guests.UPPER, b"abc") == b"ABC"
        started = descendants() - before
        bench.executor.close()
        bench.executor.close()
        assert descendants() & started == set()

    def test_closing_what_never_ran_is_fine(self, tmp_path: Path) -> None:
        before = descendants()
        bench = Bench(type(self), tmp_path)
        bench.executor.close()
        assert descendants() - before == set()

    def test_compiled_modules_outlive_the_executor(self, tmp_path: Path) -> None:
        for _ in range(2):
            bench = Bench(type(self), tmp_path)
            try:
                assert bench.output(guests.UPPER, b"abc") == b"ABC"
            finally:
                bench.executor.close()
