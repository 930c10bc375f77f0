"""Compile processes that refuse, crash, hang, eat memory or are killed: always one clear error."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runner.errors import CompileTimedOut, EngineUnavailable, InvalidModule
from runner.workers.executor import WorkerExecutor
from tests.support import (
    COMMAND,
    ECHO,
    ENGINE_NAMES,
    MODULES,
    compilers,
    context,
    eventually,
    function,
    is_alive,
    marked,
    memory_kib,
    open_descriptors,
    puppets,
    real_executor,
    say,
)


@pytest.fixture
def puppet(tmp_path: Path) -> Iterator[WorkerExecutor]:
    """Puppets on one worker, with four seconds to compile."""
    executor = puppets(tmp_path, workers=1, compile_timeout_seconds=4)
    yield executor
    executor.close()


def precompile(executor: WorkerExecutor, wasm: bytes) -> None:
    executor.precompile(MODULES.add(wasm), wasm)


def many_functions(count: int) -> bytes:
    """A module with so many functions that each do a little arithmetic."""
    body = b"\x00" + b"\x41\x01\x41\x02\x6a\x41\x03\x6c\x1a" * 8 + b"\x0b"
    one = unsigned(len(body)) + body
    types = section(1, b"\x01\x60\x00\x00")
    functions = section(3, unsigned(count) + bytes(count))
    exports = section(7, b"\x01\x06_start\x00\x00")
    return b"\0asm\x01\0\0\0" + types + functions + exports + section(10, unsigned(count) + one * count)


def section(number: int, content: bytes) -> bytes:
    return bytes([number]) + unsigned(len(content)) + content


def unsigned(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


@pytest.mark.parametrize(
    ("word", "error", "message"),
    [
        ("compile-refuse", InvalidModule, "the puppet does not like it"),
        ("compile-crash", InvalidModule, "the compiler crashed on the module .*SIGSEGV"),
        ("compile-raise", InvalidModule, "the compiler has a bug"),
        ("compile-hang", CompileTimedOut, "took longer than 4 s"),
        ("compile-greedy", InvalidModule, "more memory than a compiler may have"),
    ],
)
def test_what_a_compiler_does_wrong_is_told(
    puppet: WorkerExecutor, word: str, error: type[Exception], message: str
) -> None:
    for _ in range(1 if word == "compile-hang" else 2):
        with pytest.raises(error, match=message) as caught:
            precompile(puppet, marked(word))
        assert type(caught.value) is error
    assert not compilers()
    assert puppet.execute(function(), say("fine"), context()) == b"fine"


def test_a_compiler_killed_from_outside_is_told_and_the_next_try_works(puppet: WorkerExecutor) -> None:
    wasm = marked("compile-slow")
    for wait in (0, 0.4):
        killer = threading.Timer(wait, lambda: os.kill(eventually(compilers)[0], signal.SIGKILL))
        killer.start()
        with pytest.raises(EngineUnavailable, match="killed from outside; try again"):
            puppet.execute(function(wasm), say(1), context())
        killer.join()
    assert puppet.execute(function(wasm), say("worked"), context()) == b"worked"


@pytest.mark.parametrize("engine", ENGINE_NAMES)
def test_a_real_compiler_killed_from_outside(tmp_path: Path, engine: str) -> None:
    executor = real_executor(engine, tmp_path, workers=1)
    try:
        with ThreadPoolExecutor(1) as threads:
            compiling = threads.submit(precompile, executor, many_functions(3000))
            os.kill(eventually(compilers)[0], signal.SIGKILL)
            assert isinstance(compiling.exception(), EngineUnavailable)
        assert executor.execute(function(ECHO), b"next", context()) == b"next"
    finally:
        executor.close()


@pytest.mark.parametrize("engine", ENGINE_NAMES)
def test_a_module_of_twenty_thousand_functions_meets_the_deadline(tmp_path: Path, engine: str) -> None:
    wasm = many_functions(20_000)
    executor = real_executor(engine, tmp_path, workers=1, compile_timeout_seconds=0.3)
    try:
        started = time.monotonic()
        with pytest.raises(CompileTimedOut, match="compile_timeout_seconds") as caught:
            precompile(executor, wasm)
        assert time.monotonic() - started < 5
        assert caught.value.timeout_seconds == 0.3
        assert caught.value.size_bytes >= len(wasm)
        assert not compilers()
    finally:
        executor.close()


def test_failed_compiles_leak_nothing(puppet: WorkerExecutor) -> None:
    for count in range(12):
        if count == 2:
            before = open_descriptors()
        with pytest.raises(InvalidModule):
            precompile(puppet, marked("compile-refuse"))
    assert open_descriptors() == before
    assert not puppet._compiling


def test_an_interrupt_ends_the_compiler(puppet: WorkerExecutor) -> None:
    main = threading.main_thread().ident
    assert main is not None
    found: list[int] = []

    def interrupt() -> None:
        found.extend(eventually(compilers))
        time.sleep(0.2)
        signal.pthread_kill(main, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            _start_and_compile(thread, puppet)
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert not is_alive(found[0])
    assert puppet.execute(function(), say("fine"), context()) == b"fine"


def _start_and_compile(thread: threading.Thread, executor: WorkerExecutor) -> None:
    thread.start()
    precompile(executor, marked("compile-hang"))


def test_a_compiler_sees_neither_files_nor_network_nor_secrets(
    puppet: WorkerExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "correct horse")
    with ThreadPoolExecutor(1) as threads:
        compiling = threads.submit(precompile, puppet, marked("compile-slow"))
        pid = eventually(compilers)[0]
        eventually(lambda: not list(Path(f"/proc/{pid}/root").iterdir()))
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        lines = Path(f"/proc/{pid}/status").read_text()
        networks = Path(f"/proc/{pid}/net/dev").read_text()
        compiling.result()
    assert b"correct horse" not in environment
    assert "NoNewPrivs:\t1" in lines
    assert "eth" not in networks


def test_a_megabyte_of_module_goes_in_and_out(tmp_path: Path) -> None:
    executor = puppets(tmp_path, workers=1)
    large = COMMAND + section(0, b"\x07padding" + bytes(20 << 20))
    try:
        before = memory_kib()
        assert executor.execute(function(large), say("fine"), context()) == b"fine"
        assert memory_kib() - before < 300 * 1024
    finally:
        executor.close()
