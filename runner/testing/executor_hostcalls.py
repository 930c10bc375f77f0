"""The executor suite, fifth part: host functions that the host answers, progress, lines that come early."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runner.errors import (
    BadOutput,
    GrantMissing,
    HostCallFailed,
    HostCallRefused,
    InputTooLarge,
    RunnerError,
    StoreLocked,
    Trapped,
    UsageError,
)
from runner.testing import guests
from runner.testing.executor_bench import Bench, ExecutorSuite, context


class HostCalls(ExecutorSuite):
    """What is asked of the host reaches it whole, and its answer or error the guest."""

    @pytest.fixture(autouse=True)
    def _forgetful(self, bench: Bench) -> Iterator[None]:
        yield
        bench.answer = lambda: b"1"
        bench.host_calls.clear()
        bench.progress.clear()
        bench.early_logs.clear()

    @pytest.mark.parametrize("guest", [guests.ENQUEUE, guests.ENQUEUE_MODULE], ids=["env", "host"])
    def test_a_job_is_enqueued(self, bench: Bench, guest: str) -> None:
        bench.answer = lambda: b"4711"
        facts = context(request_id="asker", run_id=5)
        assert bench.output(guest, guests.enqueue(b"notify", b"pay\0load \xff"), facts) == b"4711"
        assert bench.host_calls == [(facts, "enqueue_background", [b"notify", b"pay\0load \xff"])]

    @pytest.mark.parametrize("guest", [guests.ENQUEUE, guests.ENQUEUE_MODULE], ids=["env", "host"])
    def test_a_job_is_scheduled(self, bench: Bench, guest: str) -> None:
        assert bench.output(guest, guests.enqueue(b"notify", b"", when=b"1h30m")) == b"1"
        assert bench.host_calls == [(context(), "schedule_once", [b"notify", b"1h30m", b""])]

    def test_a_large_payload_reaches_the_host_whole(self, bench: Bench) -> None:
        payload = bytes(range(256)) * 20_000
        bench.output(guests.ENQUEUE, guests.enqueue(b"notify", payload))
        assert bench.host_calls[0][2] == [b"notify", payload]

    def test_every_invocation_of_a_stream_may_ask(self, bench: Bench) -> None:
        inputs = [guests.enqueue(b"notify", b"%d" % number) for number in range(30)]
        assert [result.output for result in bench.many(guests.ENQUEUE, inputs)] == [b"1"] * 30
        assert sorted(int(arguments[1]) for _, _, arguments in bench.host_calls) == list(range(30))

    @pytest.mark.parametrize("error", [UsageError("no job 'notfy'; did you mean"), InputTooLarge(17, 16)])
    def test_what_can_never_work_is_refused(self, bench: Bench, error: RunnerError) -> None:
        found = self.error(bench, error)
        assert isinstance(found, HostCallRefused)
        assert (found.host_function, found.cause) == ("enqueue_background", error.error_class)
        assert str(error) in str(found)
        assert not found.retryable

    def test_what_may_work_later_has_failed(self, bench: Bench) -> None:
        found = self.error(bench, StoreLocked("the store is locked by \udcff"))
        assert isinstance(found, HostCallFailed)
        assert found.cause == "StoreLocked"
        assert "the store is locked by" in str(found)
        assert found.retryable

    def test_a_missing_grant_is_told_as_such(self, bench: Bench) -> None:
        found = self.error(bench, GrantMissing("enqueue_background", "`allow: {enqueue: [notify]}`"))
        assert isinstance(found, GrantMissing)
        assert "`allow: {enqueue: [notify]}`" in str(found)

    def error(self, bench: Bench, error: RunnerError) -> RunnerError:
        """How a guest ends whose host call raises this; the next one must be well."""

        def fail() -> bytes:
            raise error

        bench.answer = fail
        result = bench.invoke(guests.ENQUEUE, guests.enqueue(b"notify"))
        bench.answer = lambda: b"2"
        assert bench.output(guests.ENQUEUE, guests.enqueue(b"notify")) == b"2"
        assert result.error is not None
        return result.error

    def test_a_bad_pointer_asks_nothing(self, bench: Bench) -> None:
        guest = guests.ENQUEUE.replace("(call $enqueue (local.get $job)", "(call $enqueue (i32.const -1)")
        assert guest != guests.ENQUEUE
        bench.error(Trapped, guest, guests.enqueue(b"notify"))
        assert bench.host_calls == []

    def test_a_guest_that_cannot_take_the_answer_asks_nothing(self, bench: Bench) -> None:
        imports = '(import "env" "enqueue_background" (func $enqueue (param i32 i32 i32 i32) (result i64)))'
        call = "(drop (call $enqueue (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))"
        error = bench.error(BadOutput, guests.command(call, imports=imports))
        assert "allocator" in str(error)
        assert bench.host_calls == []

    @pytest.mark.parametrize("guest", [guests.PROGRESS, guests.PROGRESS_MODULE], ids=["env", "host"])
    def test_progress_is_told(self, bench: Bench, guest: str) -> None:
        facts = context(run_id=5)
        assert bench.output(guest, bytes([42, 100]), facts) == bytes([42, 100])
        assert bench.progress == [(facts, 42), (facts, 100)]

    @pytest.mark.parametrize(("reported", "told"), [(-1, 0), (-128, 0), (101, 100), (127, 100)])
    def test_progress_stays_within_bounds(self, bench: Bench, reported: int, told: int) -> None:
        bench.output(guests.PROGRESS, bytes([reported & 255]))
        assert [percent for _, percent in bench.progress] == [told]

    def test_a_flood_of_progress_is_thinned_out(self, bench: Bench) -> None:
        bench.output(guests.PROGRESS, bytes([*range(100), *range(99, -1, -1)] * 200 + [100]))
        told = [percent for _, percent in bench.progress]
        assert told[0] == 0
        assert told[-1] == 100
        assert len(told) < 1000

    def test_lines_are_told_once_early_or_with_the_result(self, bench: Bench) -> None:
        facts = context(run_id=5)
        result = bench.invoke(guests.TICKS, bytes([12]), facts)
        assert all(whose == facts for whose, _ in bench.early_logs)
        lines = [entry.message for _, entry in bench.early_logs] + [entry.message for entry in result.logs]
        assert lines == list("LKJIHGFEDCBA")

    def test_lines_of_no_run_come_with_the_result(self, bench: Bench) -> None:
        result = bench.invoke(guests.TICKS, bytes([8]))
        assert "".join(entry.message for entry in result.logs) == "HGFEDCBA"
        assert bench.early_logs == []
