"""The executor `command`: real scripts, really run."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path

import pytest
from runner_command.executor import CommandExecutor
from runner_command.settings import CommandSettings

from runner.contracts import Host
from runner.errors import Exited, InvalidModule, OutputTooLarge, RunnerError, TimedOut, Trapped
from runner.models import EMPTY, Function, InvocationContext, InvocationResult, LogLevel
from runner.plugins import load
from runner.wasm import content_id

HERE = Path(__file__).parent


class Bench:
    """An executor with the modules it may ask for."""

    def __init__(self, folder: Path) -> None:
        self.modules: dict[str, bytes] = {}
        self.host = Host(project_dir=folder, state_dir=folder / "state", get_wasm_bytes=self.modules.__getitem__)
        self.executor = CommandExecutor(CommandSettings(output_limit_mb=1, log_limit_kb=1), self.host)

    def function(self, program: str | bytes, *, timeout_seconds: float = 20, memory_limit_mb: int = 512) -> Function:
        data = program if isinstance(program, bytes) else f"#!/bin/sh\n{program}\n".encode()
        self.modules[content_id(data)] = data
        now = datetime.now(timezone.utc)
        return Function(
            id="1",
            name="it",
            namespace="test",
            version=1,
            wasm_cid=content_id(data),
            created_at=now,
            updated_at=now,
            timeout_seconds=timeout_seconds,
            memory_limit_mb=memory_limit_mb,
        )

    def run(self, function: Function, input: bytes = b"", env_vars: Mapping[str, str] = EMPTY) -> InvocationResult:
        return self.executor.invoke(function, input, context(env_vars))

    def error(self, function: Function, input: bytes = b"") -> RunnerError:
        result = self.run(function, input)
        assert result.output is None
        assert result.error is not None
        return result.error


def context(env_vars: Mapping[str, str] = EMPTY) -> InvocationContext:
    return InvocationContext(
        request_id="r1",
        function_id="1",
        function_name="it",
        namespace="test",
        env_vars=env_vars,
        secrets={"KEY": "s3cret"},
    )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.executor.close()


def test_input_output_and_log(bench: Bench) -> None:
    result = bench.run(bench.function("echo one >&2; echo two >&2; cat; printf '%s' END"), b"bytes \xff\n")
    assert result.unwrap() == b"bytes \xff\nEND"
    assert [(entry.level, entry.message) for entry in result.logs] == [
        (LogLevel.STDERR, "one"),
        (LogLevel.STDERR, "two"),
    ]
    assert result.duration_ms > 0
    assert result.memory_peak_bytes > 100_000


def test_megabytes_pass_both_ways(bench: Bench) -> None:
    data = os.urandom(1 << 20)
    assert bench.run(bench.function("cat"), data).unwrap() == data


def test_input_need_not_be_read(bench: Bench) -> None:
    assert bench.run(bench.function("echo done"), bytes(4 << 20)).unwrap() == b"done\n"


def test_the_environment_is_what_was_given_and_no_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAK", "1")
    lines = bench.run(bench.function("env"), env_vars={"REGION": "eu"}).unwrap().decode().splitlines()
    given = {line for line in lines if not line.startswith(("PWD=", "SHLVL=", "_="))}
    assert given == {
        "PATH=/usr/local/bin:/usr/bin:/bin",
        "REGION=eu",
        "KEY=s3cret",
        "RUNNER_FUNCTION=it",
        "RUNNER_REQUEST_ID=r1",
    }


def test_many_inputs_one_result_each(bench: Bench) -> None:
    function = bench.function('read -r x; [ "$x" != bad ] && echo "$x"')
    results = bench.executor.execute_many(function, [b"a", b"bad", b"c"], context())
    assert [(result.output, type(result.error)) for result in results] == [
        (b"a\n", type(None)),
        (None, Exited),
        (b"c\n", type(None)),
    ]


def test_inputs_may_be_endless(bench: Bench) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x"

    results = iter(bench.executor.execute_many(bench.function("cat"), endless(), context()))
    assert [next(results).output for _ in range(3)] == [b"x"] * 3


def test_an_exit_code_is_told_with_what_was_logged(bench: Bench) -> None:
    error = bench.error(bench.function("echo because >&2; exit 3"))
    assert isinstance(error, Exited)
    assert (error.code, error.stderr_tail) == (3, "because\n")


def test_a_signal_is_a_trap(bench: Bench) -> None:
    error = bench.error(bench.function("kill -SEGV $$"))
    assert isinstance(error, Trapped)
    assert error.trap == "SIGSEGV"


def test_a_missing_interpreter_is_told(bench: Bench) -> None:
    error = bench.error(bench.function(b"#!/no/such/interpreter\n"))
    assert isinstance(error, Exited)
    assert error.code in (126, 127)


@pytest.mark.parametrize("program", ["while :; do :; done", "sleep 60", "sleep 60 & sleep 60", "cat /dev/zero >&2"])
def test_the_deadline_is_real(bench: Bench, program: str) -> None:
    started = time.monotonic()
    error = bench.error(bench.function(program, timeout_seconds=0.3))
    assert isinstance(error, TimedOut)
    assert error.timeout_seconds == 0.3
    assert 0.3 <= time.monotonic() - started < 5


def test_nothing_is_left_behind(bench: Bench) -> None:
    """What a program starts in the background ends with it, and does not hold its result up."""
    started = time.monotonic()
    background = bench.run(bench.function("sleep 60 & echo $!")).unwrap()
    assert time.monotonic() - started < 5
    deadline = time.monotonic() + 5
    while is_alive(int(background)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(int(background))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def test_output_has_a_limit(bench: Bench) -> None:
    error = bench.error(bench.function("cat /dev/zero"))
    assert isinstance(error, OutputTooLarge)
    assert error.limit_bytes == 1 << 20


def test_a_flood_of_logs_is_cut(bench: Bench) -> None:
    result = bench.run(bench.function("head -c 5000000 /dev/zero | tr '\\0' x >&2; echo ok"))
    assert result.unwrap() == b"ok\n"
    assert sum(len(entry.message) for entry in result.logs) < 2000
    assert "dropped" in result.logs[-1].message


def test_memory_has_a_limit(bench: Bench) -> None:
    hungry = "x=$(head -c 60000000 /dev/zero | tr '\\0' x); echo ${#x}"
    assert bench.run(bench.function(hungry)).unwrap() == b"60000000\n"
    assert isinstance(bench.error(bench.function(hungry, memory_limit_mb=32)), Exited | Trapped)


def test_what_is_no_program_is_refused(bench: Bench) -> None:
    with pytest.raises(InvalidModule, match=r"starts with b'\\x00asm"):
        bench.run(bench.function(b"\0asm\1\0\0\0"))


def test_programs_are_kept_by_content_and_forgotten(bench: Bench) -> None:
    function = bench.function("echo kept")
    bench.run(function)
    bench.modules.clear()
    assert bench.run(function).unwrap() == b"kept\n"
    bench.executor.invalidate(function.wasm_cid)
    bench.executor.invalidate(function.wasm_cid)
    with pytest.raises(KeyError):
        bench.run(function)


def test_threads_may_share_it(bench: Bench) -> None:
    outputs: list[bytes | None] = []

    def work(number: int) -> None:
        for turn in range(5):
            outputs.append(bench.run(bench.function(f"echo {number} {turn}")).output)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outputs, key=str) == [f"{n} {t}\n".encode() for n in range(4) for t in range(5)]


def test_close_ends_what_runs(bench: Bench) -> None:
    results: list[InvocationResult] = []
    thread = threading.Thread(target=lambda: results.append(bench.run(bench.function("echo up >&2; sleep 60"))))
    thread.start()
    while not bench.executor._running:
        time.sleep(0.01)
    bench.executor.close()
    bench.executor.close()
    thread.join(timeout=10)
    assert [type(result.error) for result in results] == [Trapped]


def test_no_descriptor_leaks(bench: Bench) -> None:
    function = bench.function("cat")
    bench.run(function)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        bench.run(function)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_hook_runner_executors() -> None:
    """The installed package is found, and works from its provider."""
    provider = load(only=["command"]).catalogue.get("executors", "command")
    assert provider.settings is CommandSettings
    assert provider.available().ok
    assert not provider.takes_wasm
