"""The executor suite, second part: guests that end badly or take too much."""

from __future__ import annotations

import time

import pytest

from runner.errors import BadOutput, Exited, OutOfMemory, OutputTooLarge, TimedOut, Trapped
from runner.testing import guests
from runner.testing.executor_bench import Bench, ExecutorSuite

OVERSHOOT_SECONDS = 1.0
"""How late a guest may be stopped, on a machine that has other work too."""


class Failures(ExecutorSuite):
    """Deadlines, memory, output, logs, traps, exit codes; and that the next invocation is well."""

    # Deadlines

    def test_an_endless_loop_is_stopped_at_its_deadline(self, bench: Bench) -> None:
        bench.output(guests.MOODY, b"loaded")
        started = time.monotonic()
        error = bench.error(TimedOut, guests.MOODY, b"L", timeout_seconds=0.4)
        elapsed = time.monotonic() - started
        assert 0.35 < elapsed < 0.4 + OVERSHOOT_SECONDS
        assert error.timeout_seconds == 0.4
        assert bench.output(guests.MOODY, b"after") == b"after"

    def test_a_deadline_in_the_middle_of_a_stream_costs_one_result(self, bench: Bench) -> None:
        inputs = [b"input %d" % number for number in range(60)]
        inputs[20] = inputs[41] = b"L"
        results = list(bench.many(guests.MOODY, inputs, timeout_seconds=0.4))
        assert [at for at, result in enumerate(results) if isinstance(result.error, TimedOut)] == [20, 41]
        assert all(result.output == inputs[at] for at, result in enumerate(results) if at not in (20, 41))

    def test_the_deadline_is_each_invocations_own(self, bench: Bench) -> None:
        inputs = [b"L", b"one", b"L", b"two"]
        started = time.monotonic()
        results = list(bench.many(guests.MOODY, inputs, timeout_seconds=0.5))
        assert [result.output for result in results] == [None, b"one", None, b"two"]
        assert time.monotonic() - started < 2 * (0.5 + OVERSHOOT_SECONDS)

    # Memory and tables

    @pytest.mark.parametrize("memory_limit_mb", [1, 2, 5])
    def test_memory_grows_to_the_limit_and_no_further(self, bench: Bench, memory_limit_mb: int) -> None:
        output = bench.output(guests.GROW, memory_limit_mb=memory_limit_mb)
        assert int.from_bytes(output, "little") == memory_limit_mb * 16

    @pytest.mark.parametrize("guest", [guests.GROW_AND_ABORT, guests.GROW_AND_EXIT], ids=["abort", "exit"])
    def test_a_guest_that_ends_for_want_of_memory_is_out_of_memory(self, bench: Bench, guest: str) -> None:
        error = bench.error(OutOfMemory, guest, memory_limit_mb=2)
        assert error.memory_limit_mb == 2
        assert "memory_limit_mb" in str(error)

    def test_a_reactor_whose_allocator_refuses_is_out_of_memory(self, bench: Bench) -> None:
        bench.error(OutOfMemory, guests.UPPER_REACTOR, bytes(2 << 20), memory_limit_mb=1)
        assert bench.output(guests.UPPER_REACTOR, b"after", memory_limit_mb=1) == b"AFTER"

    def test_a_table_cannot_grow_for_ever(self, bench: Bench) -> None:
        size = int.from_bytes(bench.output(guests.GROW_TABLE), "little")
        assert size <= 10_000_000

    # Output and logs

    @pytest.mark.parametrize(
        ("guest", "input"), [(guests.MOODY, b"F"), (guests.LARGE_ANSWER, b"")], ids=["command", "reactor"]
    )
    def test_too_much_output_is_stopped_at_once(self, bench: Bench, guest: str, input: bytes) -> None:
        started = time.monotonic()
        error = bench.error(OutputTooLarge, guest, input)
        assert error.limit_bytes == self.output_limit_bytes
        assert time.monotonic() - started < 10
        assert bench.output(guests.ECHO, b"after") == b"after"

    def test_one_byte_over_the_limit_is_too_much(self, bench: Bench) -> None:
        bench.error(OutputTooLarge, guests.ECHO, bytes(self.output_limit_bytes + 1))

    def test_a_flood_on_stderr_is_cut_and_does_no_harm(self, bench: Bench) -> None:
        result = bench.invoke(guests.MOODY, b"E")
        assert result.error is None
        assert sum(len(entry.message) for entry in result.logs) <= self.log_limit_bytes + 1000
        assert "dropped" in result.logs[-1].message

    @pytest.mark.parametrize("guest", [guests.OUTSIDE_ANSWER], ids=["handle"])
    def test_an_answer_outside_the_memory_is_bad_output(self, bench: Bench, guest: str) -> None:
        bench.error(BadOutput, guest)

    # Traps and exits

    @pytest.mark.parametrize("trap", guests.TRAPS)
    def test_a_trap_is_told_by_its_name(self, bench: Bench, trap: str) -> None:
        error = bench.error(Trapped, guests.MOODY, guests.mood(trap))
        assert error.trap == trap
        assert bench.output(guests.MOODY, b"after") == b"after"

    def test_a_trap_names_the_functions_innermost_first(self, bench: Bench) -> None:
        error = bench.error(Trapped, guests.MOODY, guests.mood("unreachable"))
        assert error.functions[:3] == ("inner", "middle", "main")

    def test_the_frames_of_a_stack_overflow_are_bounded(self, bench: Bench) -> None:
        error = bench.error(Trapped, guests.MOODY, guests.mood("stack_overflow"))
        assert error.functions[:1] == ("deep",)
        assert len(error.functions) < 1000
        assert len(str(error)) < 10_000

    def test_an_exit_code_is_told(self, bench: Bench) -> None:
        error = bench.error(Exited, guests.MOODY, b"X")
        assert error.code == 3
        assert error.stderr_tail == "bye\n\ufffd"

    def test_exit_code_0_is_a_good_end(self, bench: Bench) -> None:
        result = bench.invoke(guests.MOODY, b"Z")
        assert (result.output, result.error) == (b"bye\n", None)
