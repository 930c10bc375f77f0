"""The executor suite, first part: invocations that end well, and what a guest sees and says."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from runner.errors import GrantMissing, Trapped
from runner.models import LogLevel
from runner.testing import guests
from runner.testing.executor_bench import Bench, ExecutorSuite, context

EVERY_BYTE = bytes(range(256))


class Invocations(ExecutorSuite):
    """Inputs, outputs, streams of inputs, fresh state, host functions, logs."""

    # Inputs and outputs

    @pytest.mark.parametrize("guest", [guests.UPPER, guests.UPPER_REACTOR], ids=["command", "reactor"])
    def test_both_abis_take_input_and_give_output(self, bench: Bench, guest: str) -> None:
        assert bench.output(guest, b"Hello, world") == b"HELLO, WORLD"

    @pytest.mark.parametrize("guest", [guests.UPPER, guests.UPPER_REACTOR], ids=["command", "reactor"])
    def test_bytes_pass_unchanged(self, bench: Bench, guest: str) -> None:
        data = EVERY_BYTE.replace(b"abcdefghijklmnopqrstuvwxyz", b"") + b"\xff\xfe\0\xc3"
        assert bench.output(guest, data) == data

    @pytest.mark.parametrize("guest", [guests.UPPER, guests.UPPER_REACTOR], ids=["command", "reactor"])
    def test_an_empty_input_gives_an_empty_output(self, bench: Bench, guest: str) -> None:
        result = bench.invoke(guest, b"")
        assert (result.output, result.error) == (b"", None)

    def test_an_output_may_be_as_large_as_the_limit(self, bench: Bench) -> None:
        data = (EVERY_BYTE * (self.output_limit_bytes // 256 + 1))[: self.output_limit_bytes]
        assert bench.output(guests.ECHO, data) == data

    def test_input_that_is_never_read_does_no_harm(self, bench: Bench) -> None:
        large = bytes(8 << 20)
        outputs = [result.unwrap() for result in bench.many(guests.IGNORES_INPUT, [large, b"", large])]
        assert outputs == [b"ok"] * 3

    def test_execute_returns_the_output(self, bench: Bench) -> None:
        assert bench.executor.execute(bench.function(guests.ECHO), b"abc", context()) == b"abc"

    def test_execute_raises_the_error(self, bench: Bench) -> None:
        with pytest.raises(Trapped):
            bench.executor.execute(bench.function(guests.MOODY), guests.mood("unreachable"), context())

    def test_a_result_tells_duration_and_memory(self, bench: Bench) -> None:
        result = bench.invoke(guests.GROW, memory_limit_mb=2)
        assert result.duration_ms > 0
        assert result.memory_peak_bytes == 2 << 20

    # Streams of inputs

    def test_a_thousand_results_come_in_order(self, bench: Bench) -> None:
        inputs = [f"record {number} {'x' * (number % 97)}".encode() for number in range(1000)]
        assert [result.output for result in bench.many(guests.ECHO, inputs)] == inputs

    def test_no_inputs_give_no_results(self, bench: Bench) -> None:
        assert list(bench.many(guests.ECHO, [])) == []

    def test_large_inputs_come_in_order(self, bench: Bench) -> None:
        inputs = [EVERY_BYTE * (number * 300) for number in range(1, 11)]
        assert [result.output for result in bench.many(guests.ECHO, inputs)] == inputs

    def test_inputs_are_taken_as_they_are_needed(self, bench: Bench) -> None:
        taken = 0

        def endless() -> Iterator[bytes]:
            nonlocal taken
            while True:
                taken += 1
                yield str(taken).encode()

        results = bench.many(guests.ECHO, endless())
        assert [next(results).output for _ in range(10)] == [str(number).encode() for number in range(1, 11)]
        assert taken < 50_000
        results.close()  # type: ignore[attr-defined]
        before = taken
        assert bench.output(guests.ECHO, b"after") == b"after"
        assert taken == before

    def test_an_error_among_good_ones_disturbs_none(self, bench: Bench) -> None:
        inputs = [b"input %d" % number for number in range(100)]
        bad = {13: b"X", 50: guests.mood("unreachable"), 51: guests.mood("out_of_bounds_memory"), 99: b"X"}
        results = list(bench.many(guests.MOODY, [bad.get(at, data) for at, data in enumerate(inputs)]))
        assert [at for at, result in enumerate(results) if result.error is not None] == sorted(bad)
        assert all(result.output == inputs[at] for at, result in enumerate(results) if at not in bad)

    def test_what_the_inputs_raise_comes_out(self, bench: Bench) -> None:
        def failing() -> Iterator[bytes]:
            yield b"one"
            raise LookupError("the source failed")

        with pytest.raises(LookupError, match="the source failed"):
            list(bench.many(guests.ECHO, failing()))
        assert bench.output(guests.ECHO, b"after") == b"after"

    def test_threads_may_invoke_at_once(self, bench: Bench) -> None:
        functions = [bench.function(guest) for guest in (guests.UPPER, guests.UPPER_REACTOR, guests.ECHO)]

        def run(thread: int) -> list[bytes | None]:
            inputs = [b"thread %d input %d" % (thread, number) for number in range(50)]
            results = bench.executor.execute_many(functions[thread % 3], inputs, context())
            return [(result.output or b"").upper() for result in results]

        with ThreadPoolExecutor(4) as pool:
            for thread, outputs in enumerate(pool.map(run, range(4))):
                assert outputs == [b"THREAD %d INPUT %d" % (thread, number) for number in range(50)]

    # Fresh state

    def test_memory_and_globals_are_fresh_each_time(self, bench: Bench) -> None:
        outputs = {result.unwrap() for result in bench.many(guests.STATE, [b""] * 50)}
        outputs.add(bench.output(guests.STATE))
        assert outputs == {bytes([1, 1, 2])}

    def test_tables_are_fresh_each_time(self, bench: Bench) -> None:
        outputs = {result.unwrap() for result in bench.many(guests.TABLE_STATE, [b""] * 50)}
        assert outputs == {bytes([1, 1])}

    def test_initialize_is_called_before_handle(self, bench: Bench) -> None:
        assert [result.output for result in bench.many(guests.INITIALIZED, [b"?1", b"?2"])] == [b"y1", b"y2"]

    # What a guest sees

    def test_env_vars_are_the_whole_environment(self, bench: Bench) -> None:
        facts = context(env_vars={"REGION": "eu", "EMPTY": "", "ÜNI": "✓ =;"})
        assert sorted(bench.output(guests.ENVIRON, b"", facts).split(b"\0")) == sorted(
            [b"REGION=eu", b"EMPTY=", "ÜNI=✓ =;".encode(), b""]
        )
        assert bench.output(guests.ENVIRON) == b""

    def test_the_only_argument_is_the_functions_name(self, bench: Bench) -> None:
        assert bench.output(guests.ARGUMENTS) == b"probe\0"

    @pytest.mark.parametrize("guest", [guests.HOST, guests.HOST_MODULE], ids=["env", "host"])
    def test_host_functions_answer(self, bench: Bench, guest: str) -> None:
        facts = context(env_vars={"REGION": "eu", "EMPTY": ""}, caller_wallet="0xabc", secrets={"KEY": "s3cret ✓"})

        def ask(name: str, argument: bytes = b"") -> bytes:
            return bench.output(guest, guests.host_call(name, argument), facts)

        assert ask("get_env", b"REGION") == b"eu"
        assert ask("get_env", b"EMPTY") == b""
        assert ask("get_env", b"MISSING") == b"none"
        assert ask("get_env", b"\xff\xfe") == b"none"
        assert ask("get_request_id") == b"request-1"
        assert ask("get_caller_wallet") == b"0xabc"
        assert ask("get_secret", b"KEY") == "s3cret ✓".encode()

    def test_nobody_called_means_no_wallet(self, bench: Bench) -> None:
        assert bench.output(guests.HOST, guests.host_call("get_caller_wallet")) == b"none"

    def test_contexts_do_not_mix(self, bench: Bench) -> None:
        for number in range(5):
            facts = context(request_id=f"request-{number}")
            assert bench.output(guests.HOST, guests.host_call("get_request_id"), facts) == b"request-%d" % number

    def test_a_secret_without_a_grant_is_an_error(self, bench: Bench) -> None:
        facts = context(secrets={"KEY": "s3cret"}, env_vars={"OTHER": "no secret"})
        result = bench.invoke(guests.HOST, guests.host_call("get_secret", b"OTHER"), facts)
        assert isinstance(result.error, GrantMissing)
        assert result.error.host_function == "get_secret"
        assert "OTHER" in str(result.error)
        assert bench.output(guests.HOST, guests.host_call("get_secret", b"KEY"), facts) == b"s3cret"

    def test_secrets_are_not_in_the_environment(self, bench: Bench) -> None:
        facts = context(secrets={"KEY": "s3cret"})
        assert bench.output(guests.ENVIRON, b"", facts) == b""
        assert bench.output(guests.HOST, guests.host_call("get_env", b"KEY"), facts) == b"none"

    # What a guest says

    def test_logs_belong_to_their_invocation(self, bench: Bench) -> None:
        calls = [guests.host_call("log_info", b"one"), guests.host_call("get_request_id")]
        calls.append(guests.host_call("log_error", b"two\nlines"))
        first, silent, second = (result.logs for result in bench.many(guests.HOST, calls))
        assert [(entry.level, entry.message) for entry in first] == [(LogLevel.INFO, "one")]
        assert silent == ()
        assert [(entry.level, entry.message) for entry in second] == [(LogLevel.ERROR, "two\nlines")]

    def test_stderr_is_logged_by_lines(self, bench: Bench) -> None:
        result = bench.invoke(guests.MOODY, b"X")
        assert [(entry.level, entry.message) for entry in result.logs] == [
            (LogLevel.STDERR, "bye"),
            (LogLevel.STDERR, "\ufffd"),
        ]

    def test_invalid_text_in_a_log_line_is_shown_as_such(self, bench: Bench) -> None:
        (entry,) = bench.invoke(guests.HOST, guests.host_call("log_info", b"a\xff\0b")).logs
        assert entry.message == "a\ufffd\0b"
