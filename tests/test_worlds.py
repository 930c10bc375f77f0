"""What guests learn of the world: pure, recorded and replayed, in the workers of both engines."""

from __future__ import annotations

import hashlib
import json
import struct
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from runner.contracts import FunctionExecutor, Host
from runner.errors import Exited, GrantMissing, HostCallRefused, InvalidInput, ReplayDiverged, TimedOut
from runner.models import InvocationContext, InvocationResult, Recording, Replay
from runner.plugins import load
from runner.testing import guests
from runner.testing.executor_bench import Bench, ExecutorSuite, context
from runner.workers.recording import Recorded
from runner.workers.settings import WorkerSettings
from runner.workers.world import PURE_MONOTONIC_NS, PURE_RANDOM, PURE_REALTIME_NS
from tests.support import ENGINE_NAMES
from tests.world_guests import ASKS, ASKS_MORE, SAYS, asks

ALL = context(record=Recording(keep_all=True, limit_bytes=1 << 16))
FAILURES = context(record=Recording(keep_all=False, limit_bytes=1 << 16))
SECRET = "s3cr3t-of-tests"


@pytest.fixture(scope="module", params=ENGINE_NAMES)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    class Suite(ExecutorSuite):
        @classmethod
        def make_executor(cls, host: Host) -> FunctionExecutor:
            provider = load().catalogue.get("executors", request.param)
            executor: FunctionExecutor = provider.create(WorkerSettings(workers=2, output_limit_mb=1), host)
            return executor

    bench = Bench(Suite, tmp_path_factory.mktemp("worlds"))
    with closing(bench.executor):
        yield bench


def recorded(result: InvocationResult) -> bytes:
    assert result.recording is not None
    return result.recording


def replaying(result: InvocationResult, **facts: object) -> InvocationContext:
    return context(replay=Replay(recording=recorded(result)), **facts)


def blocks(input: bytes, size: int) -> bytes:
    """The random bytes of a pure function, as their documentation tells."""
    seed = PURE_RANDOM + hashlib.sha256(input).digest()
    return b"".join(hashlib.sha256(seed + struct.pack("<Q", n)).digest() for n in range(size // 32 + 1))[:size]


# Pure


def test_a_pure_function_learns_the_same_every_time(bench: Bench) -> None:
    before = time.monotonic()
    inputs = [asks(sleep_seconds=3600), asks(), asks()]
    results = [bench.output(ASKS, data, pure=True) for data in inputs]
    assert [result.output for result in bench.many(ASKS, inputs * 40, pure=True)] == results * 40
    assert results[1] == results[2] != results[0]
    assert struct.unpack("<QQQQ40s", results[0]) == (
        *(PURE_REALTIME_NS, PURE_MONOTONIC_NS, 0, 1),
        blocks(inputs[0], 40),
    )
    assert time.monotonic() - before < 3000  # nothing slept


@pytest.mark.parametrize(
    "name", ["get_secret", "get_request_id", "get_caller_wallet"], ids=["secret", "request id", "wallet"]
)
def test_a_pure_function_may_ask_its_host_for_nothing(bench: Bench, name: str) -> None:
    error = bench.error(HostCallRefused, guests.HOST, guests.host_call(name, b"X"), pure=True)
    assert "a pure function" in str(error)
    error = bench.error(HostCallRefused, guests.ENQUEUE, guests.enqueue(b"job"), pure=True)
    assert "a pure function" in str(error)
    assert not bench.host_calls


# Recorded and replayed


def test_what_fails_is_recorded_and_gives_the_same_again(bench: Bench) -> None:
    first = bench.invoke(ASKS, asks(3, sleep_seconds=0.001), FAILURES)
    assert isinstance(first.error, Exited)
    again = bench.invoke(ASKS, asks(3, sleep_seconds=0.001), replaying(first))
    assert isinstance(again.error, Exited)
    assert [entry.message for entry in again.logs] == [entry.message for entry in first.logs]
    assert again.recording is None


def test_what_ends_well_is_recorded_if_all_is(bench: Bench) -> None:
    first = bench.invoke(ASKS, asks(), ALL)
    results = list(bench.many(ASKS, [asks()] * 20, replaying(first)))
    assert {result.output for result in results} == {first.output}
    assert Recorded.parse(recorded(first)).engine.split()[0] in ENGINE_NAMES
    assert bench.invoke(ASKS, asks(), FAILURES).recording is None
    assert bench.invoke(ASKS, asks(3)).recording is None


def test_each_invocation_of_a_frame_has_its_own_recording(bench: Bench) -> None:
    inputs = [asks(number % 3) for number in range(60)]
    results = list(bench.many(ASKS, inputs, FAILURES))
    assert [result.recording is not None for result in results] == [bool(number % 3) for number in range(60)]
    for data, result in list(zip(inputs, results, strict=True))[1:6:4]:
        again = bench.invoke(ASKS, data, replaying(result))
        assert [entry.message for entry in again.logs] == [entry.message for entry in result.logs]


def test_nothing_is_waited_for_in_a_replay(bench: Bench) -> None:
    first = bench.invoke(ASKS, asks(), ALL)
    calls = json.loads(recorded(first))
    calls["calls"].append(["wait", [True]])
    slept = context(replay=Replay(recording=json.dumps(calls).encode()))
    assert bench.output(ASKS, asks(sleep_seconds=3600), slept) == first.output


def test_another_version_that_asks_more_diverges(bench: Bench) -> None:
    first = bench.invoke(ASKS, asks(), ALL)
    error = bench.invoke(ASKS_MORE, asks(), replaying(first)).error
    assert isinstance(error, ReplayDiverged)
    assert error.number == 6
    assert "it is random, and the recording ends before it" in str(error)
    longer = bench.invoke(ASKS_MORE, asks(), ALL)
    error = bench.invoke(ASKS, asks(sleep_seconds=1), replaying(longer)).error
    assert isinstance(error, ReplayDiverged)
    assert "it is wait, where the recording has random of 41 bytes" in str(error)
    assert bench.output(SAYS, asks(), replaying(first)) == b"ello"


def test_a_long_recording_is_cut_and_says_so(bench: Bench) -> None:
    short = context(record=Recording(keep_all=True, limit_bytes=220))
    first = bench.invoke(ASKS, asks(), short)
    assert len(recorded(first)) <= 220
    assert Recorded.parse(recorded(first)).cut_bytes == 220
    error = bench.invoke(ASKS, asks(), replaying(first)).error
    assert isinstance(error, ReplayDiverged)
    assert "was cut at 220 bytes" in str(error)
    assert "max_kb" in str(error)
    tiny = bench.invoke(ASKS, asks(), context(record=Recording(keep_all=True, limit_bytes=10)))
    assert (tiny.output is not None, tiny.recording) == (True, None)


def test_host_calls_are_answered_without_effects(bench: Bench) -> None:
    bench.host_calls.clear()
    bench.answer = lambda: b"4711"
    first = bench.invoke(guests.ENQUEUE, guests.enqueue(b"notify", b"payload"), ALL)
    bench.answer = lambda: b"1"
    again = bench.invoke(guests.ENQUEUE, guests.enqueue(b"notify", b"payload"), replaying(first))
    assert again.output == first.output == b"4711"
    assert len(bench.host_calls) == 1
    error = bench.invoke(guests.ENQUEUE, guests.enqueue(b"notify", b"other"), replaying(first)).error
    assert isinstance(error, ReplayDiverged)
    assert "enqueue_background(6 bytes" in str(error)
    assert b"payload" not in recorded(first)
    bench.host_calls.clear()


def test_a_refusal_of_the_host_is_told_again(bench: Bench) -> None:
    def refuse() -> bytes:
        raise GrantMissing("enqueue_background", f"`allow: {{enqueue: [{SECRET}]}}`")

    bench.answer = refuse
    secrets = context(record=FAILURES.record, secrets={"KEY": SECRET})
    first = bench.invoke(guests.ENQUEUE, guests.enqueue(SECRET.encode()), secrets)
    bench.answer = lambda: b"1"
    assert SECRET.encode() not in recorded(first)
    assert hashlib.sha256(SECRET.encode()).hexdigest().encode() not in recorded(first)
    # Another value of the secret: it counts by its name.
    facts = replaying(first, secrets={"KEY": "another-value"})
    error = bench.invoke(guests.ENQUEUE, guests.enqueue(b"another-value"), facts).error
    assert isinstance(error, GrantMissing)
    assert "<secret KEY>" in str(error)
    bench.host_calls.clear()


def test_a_secret_is_never_recorded(bench: Bench) -> None:
    call = guests.host_call("get_secret", b"KEY")
    first = bench.invoke(guests.HOST, call, context(record=ALL.record, secrets={"KEY": SECRET}))
    assert SECRET.encode() in first.unwrap()
    assert SECRET.encode() not in recorded(first)
    assert bench.output(guests.HOST, call, replaying(first, secrets={"KEY": "other"})) == b"other"
    absent = context(replay=Replay(recording=recorded(first), absent_secrets=("KEY",)))
    error = bench.invoke(guests.HOST, call, absent).error
    assert isinstance(error, HostCallRefused)
    assert "a recording never has the value of a secret, and the secret 'KEY' has none here" in str(error)
    assert isinstance(bench.invoke(guests.HOST, call, replaying(first)).error, GrantMissing)


def test_a_killed_invocation_has_no_recording(bench: Bench) -> None:
    result = bench.invoke(ASKS, asks(sleep_seconds=60), ALL, timeout_seconds=0.3)
    assert isinstance(result.error, TimedOut)
    assert result.recording is None


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b"[]", b"[" * 100_000, b"{}", b'{"engine":"","cut_bytes":0,"calls":{}}'),
        *(b'{"engine":1,"cut_bytes":0,"calls":[]}', b'{"engine":"\\ud800","cut_bytes":0,"calls":[]}'),
        *(
            b'{"engine":"","cut_bytes":0,"calls":[%s]}' % call
            for call in (
                *(b"1", b"[]", b'["laugh",1]', b'["realtime","1"]', b'["realtime",-1]', b'["realtime",1e3]'),
                *(b'["realtime",9223372036854775808]', b'["realtime",1,2]', b'["random","*"]', b'["random",7]'),
                *(b'["wait",7]', b'["host","x",[],"answer"]', b'["host",1,[],"answer",""]'),
                *(b'["host","x",[],"answer",7]', b'["host","x",[],"laugh",""]', b'["host","x",[],"error",["No"]]'),
                b'["host","x",[[1]],"answer",""]',
            )
        ),
    ],
)
def test_what_is_no_recording_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no recording"):
        Recorded.parse(data)


def test_an_executor_refuses_what_is_no_recording(bench: Bench) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        bench.invoke(ASKS, asks(), context(replay=Replay(recording=b"junk")))
