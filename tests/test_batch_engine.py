"""What a batch does with its records: order, failures, retries, budgets, checkpoints, changes."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.batch.feed import WINDOW_BYTES
from runner.batch.running import Choices
from runner.batchkeys import OnErrorKeys
from runner.errors import CheckpointOutdated, OutputTooLarge, StoreError, TimedOut, Trapped
from tests.batch_bench import Bench, picky

QUARANTINE = OnErrorKeys(action="quarantine")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def numbered(count: int, *bad: int) -> str:
    """So many lines; those in `bad` are such that a picky function fails."""
    marked = frozenset(bad)
    return "".join(f"{'!' if number in marked else ''}line {number}\n" for number in range(count))


def rejects(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(line) for line in bench.read("out.txt.rejected.jsonl").splitlines()]


# Output


def test_output_is_in_the_order_of_the_input(bench: Bench) -> None:
    bench.write("in.txt", numbered(10_000))
    report = bench.run()
    assert bench.read("out.txt").decode() == numbered(10_000).upper()
    assert (report.status, report.counts.records_in, report.counts.records_out) == ("succeeded", 10_000, 10_000)
    assert report.counts.bytes_in == report.counts.bytes_out == len(numbered(10_000))
    assert report.counts.attempts == 10_000


@pytest.mark.parametrize("isolation", ["record", "chunk"])
def test_empty_input_gives_empty_output(bench: Bench, isolation: str) -> None:
    bench.write("in.txt", "")
    assert bench.run(isolation=isolation).status == "succeeded"
    assert bench.read("out.txt") == b""
    assert bench.sent == []


def test_the_last_line_needs_no_line_break(bench: Bench) -> None:
    bench.write("in.txt", "a\nb")
    bench.run()
    assert bench.read("out.txt") == b"A\nB\n"


def test_a_function_may_write_nothing_or_several_lines(bench: Bench) -> None:
    bench.write("in.txt", "a\nb\nc\n")
    bench.guest = lambda data: {b"a": b"", b"b": b"1\n2\n", b"c": b"3"}[data]
    assert bench.run().counts.records_out == 3
    assert bench.read("out.txt") == b"1\n2\n3\n"


def test_chunks_are_lines_and_give_lines(bench: Bench) -> None:
    bench.write("in.txt", numbered(1000))
    report = bench.run(isolation="chunk", kb=1)
    assert bench.read("out.txt").decode() == numbered(1000).upper()
    assert b"".join(bench.sent).decode() == numbered(1000)
    assert all(data.endswith(b"\n") and len(data) <= 1024 for data in bench.sent)
    assert report.counts.attempts == len(bench.sent) < 20
    assert report.counts.records_in == 1000


def test_nobody_sees_output_before_it_is_whole(bench: Bench) -> None:
    bench.write("in.txt", numbered(100))
    bench.write("out.txt", "of an earlier run")

    def guest(data: bytes) -> bytes:
        assert bench.read("out.txt") == b"of an earlier run"
        return data

    bench.guest = guest
    assert bench.run().status == "succeeded"
    assert bench.read("out.txt").decode() == numbered(100)


# Failures


def test_a_failure_ends_the_run_and_names_the_place(bench: Bench) -> None:
    bench.write("in.txt", numbered(100, 50))
    report = bench.run(every=10)
    assert report.status == "failed"
    assert str(report.error) == f"in.txt:51 (byte {len(numbered(50))}): trapped: unreachable"
    assert report.error is not None
    assert report.error.error_class == "RecordFailed"
    assert not (bench.folder / "out.txt").exists()
    bench.write("fixed", "")
    bench.guest = bytes.upper
    resumed = bench.run(every=10)
    assert resumed.counts.records_reused == 50
    assert bench.read("out.txt").decode() == numbered(100, 50).upper()


def test_skipped_records_are_counted(bench: Bench) -> None:
    bench.write("in.txt", numbered(100, 0, 50, 51, 99))
    report = bench.run(on_error="skip")
    assert report.status == "succeeded"
    assert (report.counts.records_in, report.counts.records_out, report.counts.records_skipped) == (100, 96, 4)
    assert bench.read("out.txt").count(b"\n") == 96


def test_a_quarantined_record_keeps_all_about_it(bench: Bench) -> None:
    bench.write("in.txt", numbered(10, 3) + "!\xff\n")
    report = bench.run(on_error=QUARANTINE)
    before = numbered(3)
    first, second = rejects(bench)
    assert first == {
        **{"source": "in.txt", "record": 4, "offset": len(before), "attempts": 1, "error_class": "Trapped"},
        **{"message": "trapped: unreachable", "stderr_tail": "no marks, please\n", "input": "!line 3"},
        "output_offset": len(before),
    }
    assert second["record"] == 11
    assert report.counts.records_quarantined == 2
    assert report.quarantine == "out.txt.rejected.jsonl"


def test_bytes_that_are_no_text_are_kept_too(bench: Bench) -> None:
    bench.write("in.txt", b"!\xff\n")
    bench.run(on_error=QUARANTINE)
    (row,) = rejects(bench)
    assert row["input_base64"] == "If8="


def test_without_failures_the_quarantine_of_an_earlier_run_goes(bench: Bench) -> None:
    bench.write("in.txt", numbered(10, 3))
    bench.run(on_error=QUARANTINE)
    assert rejects(bench)
    bench.write("in.txt", numbered(10))
    assert bench.run(on_error=QUARANTINE).quarantine is None
    assert not (bench.folder / "out.txt.rejected.jsonl").exists()


@pytest.mark.parametrize("bad", [(0,), (57, 58, 599), range(100, 300), range(600)])
def test_a_chunk_that_fails_runs_record_by_record(bench: Bench, bad: tuple[int, ...]) -> None:
    bench.write("in.txt", numbered(600, *bad))
    report = bench.run(isolation="chunk", on_error=QUARANTINE)
    expected = "".join(f"LINE {number}\n" for number in range(600) if number not in bad)
    assert bench.read("out.txt").decode() == expected
    assert [row["record"] for row in rejects(bench)] == [number + 1 for number in bad]
    assert report.counts.records_out == 600 - len(bad)


def test_a_failed_chunk_names_its_record(bench: Bench) -> None:
    bench.write("in.txt", numbered(600, 300))
    assert str(bench.run(isolation="chunk").error).startswith("in.txt:301 (byte ")


# Retries


def failing(times: int, error: Callable[[], Exception], *bad: bytes) -> Callable[[bytes], bytes]:
    """A function that fails so often for each of these inputs."""
    left = dict.fromkeys(bad, times)

    def guest(data: bytes) -> bytes:
        if left.get(data):
            left[data] -= 1
            raise error()
        return data.upper()

    return guest


def test_a_record_is_tried_again_and_keeps_its_place(bench: Bench) -> None:
    bench.write("in.txt", numbered(10_000))
    bench.retry_count = 2
    bench.guest = failing(2, lambda: TimedOut(1), b"line 5", b"line 7000", b"line 9999")
    report = bench.run()
    assert report.status == "succeeded"
    assert bench.read("out.txt").decode() == numbered(10_000).upper()
    assert report.counts.attempts == 10_006
    assert bench.sent.count(b"line 7000") == 3


def test_the_others_go_on_while_one_waits(bench: Bench) -> None:
    bench.write("in.txt", numbered(10_000))
    bench.retry_count = 1
    bench.guest = failing(1, lambda: TimedOut(1), b"line 0")
    bench.run()
    assert bench.sent[-1] == b"line 0"  # nobody slept before all others were through
    assert bench.slept == [2.0]  # half of retry_delay_seconds, as chance has it


def test_tries_are_used_up(bench: Bench) -> None:
    bench.write("in.txt", numbered(10, 3))
    bench.retry_count = 2
    report = bench.run(on_error=QUARANTINE)
    assert rejects(bench)[0]["attempts"] == 3
    assert report.counts.attempts == 12
    assert bench.slept == [2.0, 4.0]


def test_what_cannot_end_otherwise_is_not_tried_again(bench: Bench) -> None:
    bench.write("in.txt", numbered(10))
    bench.retry_count = 5
    bench.guest = failing(1, lambda: OutputTooLarge(5), b"line 3")
    assert bench.run(on_error="skip").counts.attempts == 10


def test_what_waits_for_one_record_is_bounded(bench: Bench) -> None:
    """One record waits for its next try; what has come after it may not pile up without end."""
    line = b"x" * 100_000 + b"\n"
    bench.write("in.txt", b"first\n" + line * 1500)
    bench.retry_count = 1
    flying = 0

    def guest(data: bytes) -> bytes:
        nonlocal flying
        if data == b"first" and not bench.slept:
            raise TimedOut(1)
        flying += len(data)
        if not bench.slept:
            assert flying < WINDOW_BYTES
        return data

    bench.guest = guest
    assert bench.run().status == "succeeded"
    assert len(bench.sent) == 1502
    assert len(bench.slept) == 1


def test_progress_is_what_has_ended_not_what_was_read(bench: Bench) -> None:
    bench.write("in.txt", numbered(10))
    bench.retry_count = 1
    seen: list[tuple[float | None, int]] = []
    inner = failing(1, lambda: TimedOut(1), b"line 3")

    def guest(data: bytes) -> bytes:
        (view,) = bench.views
        seen.append((view.done(), view.records()))
        return inner(data)

    bench.guest = guest
    assert bench.run().status == "succeeded"
    assert seen[:5] == [(0.0, 0), (0.1, 1), (0.2, 2), (0.3, 3), (0.3, 3)]  # the fourth is to be tried again
    assert seen[10] == (0.9, 9)
    assert bench.slept


# Any order


def test_in_any_order_nobody_waits_for_a_record_that_is_tried_again(bench: Bench) -> None:
    bench.write("in.txt", numbered(30_000))
    bench.retry_count = 1
    bench.guest = failing(1, lambda: TimedOut(1), b"line 0", b"line 15000")
    report = bench.run(order="any")
    lines = bench.read("out.txt").decode().splitlines()
    assert sorted(lines) == sorted(numbered(30_000).upper().splitlines())
    assert lines.index("LINE 0") > lines.index("LINE 29999")  # its block has come last
    assert report.counts.records_out == 30_000


@pytest.mark.parametrize("after", [0, 100, 5000, 9999])
def test_in_any_order_none_is_lost_and_none_doubled(bench: Bench, after: int) -> None:
    bench.write("in.txt", numbered(10_000, 77))
    bench.retry_count = 1
    dying(bench, after)
    inner = bench.guest
    tried = failing(1, lambda: TimedOut(1), *(b"line %d" % number for number in range(0, 10_000, 1111)))
    bench.guest = lambda data: tried(inner(data).lower())
    with pytest.raises(Killed):
        bench.run(order="any", every=50, on_error="skip")
    bench.guest = picky
    report = bench.run(order="any", every=50, on_error="skip")
    assert report.status == "succeeded"
    assert sorted(bench.read("out.txt").splitlines()) == sorted(
        line for line in numbered(10_000, 77).upper().encode().splitlines() if b"!" not in line
    )
    assert (report.counts.records_in, report.counts.records_skipped) == (10_000, 1)
    assert report.counts.records_reused >= after - 700  # blocks of 50, ten of which had to wait


# Budgets


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_errors": 2}, "3 of 100 records failed, and max_errors is 2"),
        ({"max_rate": 0.02}, "3 of 100 records failed, and max_rate is 0.02"),
        ({"max_errors": 3, "max_rate": 0.03}, None),
        ({"max_errors": 0}, "3 of 100 records failed, and max_errors is 0"),
    ],
)
def test_a_budget(bench: Bench, limits: dict[str, Any], message: str | None) -> None:
    bench.write("in.txt", numbered(100, 5, 50, 95))
    report = bench.run(on_error=OnErrorKeys(action="quarantine", **limits))
    assert report.status == ("failed" if message else "succeeded")
    if message:
        assert str(report.error) == f"{message}; they are in out.txt.rejected.jsonl.partial"
        assert not (bench.folder / "out.txt").exists()
        assert len(bench.read("out.txt.rejected.jsonl.partial").splitlines()) == 3


def test_a_budget_ends_the_run_early(bench: Bench) -> None:
    bench.write("in.txt", numbered(100_000, *range(100_000)))
    report = bench.run(on_error=OnErrorKeys(action="skip", max_errors=10))
    assert report.status == "failed"
    assert len(bench.sent) < 10_000


# Checkpoints


class Killed(Exception):
    """The process is gone."""


def dying(bench: Bench, after: int) -> None:
    def guest(data: bytes) -> bytes:
        if len(bench.sent) > after:
            raise Killed
        return picky(data)

    bench.guest = guest


@pytest.mark.parametrize("after", [0, 5, 99, 100, 101, 450, 997])
@pytest.mark.parametrize("isolation", ["record", "chunk"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_it_goes_on_where_it_was(bench: Bench, after: int, isolation: str, suffix: str) -> None:
    """Byte for byte, the packed output too."""
    keys: dict[str, Any] = {"every": 100, "isolation": isolation, "on_error": QUARANTINE, "records": 10}
    bench.write("in.txt", numbered(1000, 7, 320, 321, 999))
    bench.run(sink=f"whole.txt{suffix}", **keys)
    expected = bench.read(f"whole.txt{suffix}")
    quarantined = bench.read(f"whole.txt{suffix}.rejected.jsonl")
    dying(bench, after if isolation == "record" else after // 10)
    bench.sent.clear()
    with pytest.raises(Killed):
        bench.run(sink=f"out.txt{suffix}", choices=Choices(restart=True), **keys)
    assert not (bench.folder / f"out.txt{suffix}").exists()
    bench.guest = picky
    report = bench.run(sink=f"out.txt{suffix}", **keys)
    assert report.status == "succeeded"
    assert bench.read(f"out.txt{suffix}") == expected
    assert bench.read(f"out.txt{suffix}.rejected.jsonl") == quarantined
    if after >= 450:
        assert report.counts.records_reused >= 300


@pytest.mark.parametrize("order", ["input", "any"])
@pytest.mark.parametrize("long", [0, 9000])
def test_what_was_read_ahead_makes_no_difference(bench: Bench, order: str, long: int) -> None:
    """Blocks end by their bytes here, behind a header, and one row is longer than several."""
    rows = [f"{number},{'x' * (long if number == 300 else 3)}" for number in range(6000)]
    bench.write("in.csv", "\n".join(["id,name", *rows, ""]))
    keys: dict[str, Any] = {"form": "csv", "isolation": "chunk", "every": 500, "order": order}
    bench.run("in.csv", "whole.csv.gz", **keys)
    sent = len(bench.sent)
    assert sent >= 30
    bench.sent.clear()
    dying(bench, sent // 2)
    with pytest.raises(Killed):
        bench.run("in.csv", "out.csv.gz", **keys)
    bench.guest = picky
    report = bench.run("in.csv", "out.csv.gz", **keys)
    assert report.counts.records_reused >= 1000
    assert bench.read("out.csv.gz") == bench.read("whole.csv.gz")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_slow_records_are_kept_soon_where_nobody_can_tell(bench: Bench, suffix: str) -> None:
    """A second each, and far fewer than from one cut to the next. A packed output waits for that cut."""
    bench.write("in.txt", numbered(2000, 777))
    whole, out = f"whole.txt{suffix}", f"out.txt{suffix}"
    bench.run(sink=whole, on_error=QUARANTINE)
    bench.sent.clear()

    def guest(data: bytes) -> bytes:
        bench.now += 1
        if len(bench.sent) > 1900:
            raise Killed
        return picky(data)

    bench.guest = guest
    with pytest.raises(Killed):
        bench.run(sink=out, on_error=QUARANTINE)
    bench.guest = picky
    report = bench.run(sink=out, on_error=QUARANTINE)
    assert report.counts.records_reused == (0 if suffix else 1536)
    assert bench.read(out) == bench.read(whole)
    assert bench.read(f"{out}.rejected.jsonl") == bench.read(f"{whole}.rejected.jsonl")


def test_a_checkpoint_takes_little_of_the_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where syncing is slow, most cuts make no checkpoint."""
    synced = []

    def slow(descriptor: int) -> None:
        synced.append(descriptor)
        bench.now += 1

    monkeypatch.setattr(os, "fsync", slow)
    bench.guest = lambda data: bench.sleep(0.001) or data  # type: ignore[func-returns-value]
    bench.write("in.txt", numbered(10_000))
    bench.run(every=10)
    assert len(synced) < 30


def interrupted(bench: Bench, **keys: Any) -> None:
    bench.write("in.txt", numbered(1000))
    dying(bench, 500)
    with pytest.raises(Killed):
        bench.run(every=100, **keys)
    bench.guest = picky


def append(bench: Bench) -> None:
    bench.write("in.txt", numbered(1001))


def other_version(bench: Bench) -> None:
    bench.version = 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (append, "input in.txt was 8,890 bytes changed"),
        (other_version, "the function was guest version 1"),
        (lambda bench: bench.__setattr__("isolation", "chunk"), "setting isolation was record, it is chunk"),
    ],
)
def test_changes_are_told_and_the_user_decides(bench: Bench, change: Callable[[Bench], None], told: str) -> None:
    interrupted(bench)
    change(bench)
    keys: dict[str, Any] = {"every": 100, "isolation": getattr(bench, "isolation", "record")}
    report = bench.run(**keys)
    assert isinstance(report.error, CheckpointOutdated)
    assert len(report.error.changes) == 1
    assert report.error.changes[0].startswith(told)
    assert "--restart begins again, --resume goes on" in str(report.error)
    assert not (bench.folder / "out.txt").exists()
    resumed = bench.run(choices=Choices(resume=True), **keys)
    assert resumed.status == "succeeded"
    assert resumed.counts.records_reused >= 400
    assert bench.read("out.txt") == bench.read("in.txt").upper()


def test_restart_begins_again(bench: Bench) -> None:
    interrupted(bench)
    bench.version = 2
    report = bench.run(every=100, choices=Choices(restart=True))
    assert report.status == "succeeded"
    assert report.counts.records_reused == 0
    assert bench.read("out.txt").decode() == numbered(1000).upper()


def test_a_finished_run_is_run_anew(bench: Bench) -> None:
    bench.write("in.txt", numbered(10))
    bench.run()
    bench.write("in.txt", numbered(20))
    assert bench.run().counts.records_in == 20
    assert bench.told == []


def test_a_partial_output_that_is_gone(bench: Bench) -> None:
    interrupted(bench)
    (bench.folder / "out.txt.partial").unlink()
    report = bench.run(every=100)
    assert str(report.error) == ("cannot write out.txt.partial: No such file or directory; begin again with --restart")
    bench.write("out.txt.partial", b"short")
    assert "has 5 bytes where the checkpoint has" in str(bench.run(every=100).error)
    assert bench.run(every=100, choices=Choices(restart=True)).status == "succeeded"


def test_a_damaged_checkpoint(bench: Bench) -> None:
    interrupted(bench)
    bench.write(".runner/batches/b/_/checkpoint.json", b"{")
    report = bench.run(every=100)
    assert isinstance(report.error, StoreError)
    assert "--restart begins again" in str(report.error)
    assert bench.run(every=100, choices=Choices(restart=True)).status == "succeeded"


def test_killed_between_the_names_of_output_and_quarantine(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write("in.txt", numbered(100, 5))
    replaced = Path.replace

    def replace(path: Path, target: Path) -> Path:
        if target.name.endswith(".rejected.jsonl"):
            raise Killed
        return replaced(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", replace)
        with pytest.raises(Killed):
            bench.run(on_error=QUARANTINE)
    (bench.folder / "in.txt").unlink()  # whoever moves it away once the output is there
    report = bench.run(on_error=QUARANTINE)
    assert report.status == "succeeded"
    assert len(bench.sent) == 100
    assert report.counts.records_reused == 100
    assert rejects(bench)[0]["record"] == 6
    assert bench.read("out.txt").count(b"\n") == 99


# Only failed


def test_only_failed_merges_in_place(bench: Bench) -> None:
    bad = (0, 1, 57, 300, 599)
    bench.write("in.txt", numbered(600, *bad))
    bench.run(on_error=QUARANTINE)
    bench.sent.clear()
    bench.guest = bytes.upper
    report = bench.run(on_error=QUARANTINE, only_failed=True)
    assert report.status == "succeeded"
    assert len(bench.sent) == 5
    assert bench.read("out.txt").decode() == numbered(600, *bad).upper()
    assert not (bench.folder / "out.txt.rejected.jsonl").exists()
    counts = report.counts
    assert (counts.records_in, counts.records_out, counts.records_reused) == (600, 600, 595)
    assert bench.run(on_error=QUARANTINE, only_failed=True).counts.records_in == 600
    assert bench.told == ["b: nothing is quarantined"]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_some_fail_again(bench: Bench, suffix: str) -> None:
    out = f"out.txt{suffix}"
    bad = (10, 20, 30, 40)
    bench.write("in.txt", numbered(100, *bad))
    bench.run(sink=out, on_error=QUARANTINE)
    fixed = numbered(100, *bad)
    for round_ in ((10, 30), (20,), (40,)):
        wanted = {f"!line {number}".encode() for number in round_}
        bench.guest = lambda data, wanted=wanted: data.upper() if data in wanted else picky(data)  # type: ignore[misc]
        report = bench.run(sink=out, on_error=QUARANTINE, only_failed=True)
        assert report.status == "succeeded"
    bench.run(source="in.txt", sink="plain.txt", choices=Choices(restart=True), on_error="skip")
    data = bench.read(out)
    assert (gzip.decompress(data) if suffix else data).decode() == fixed.upper()


def test_an_error_while_merging_changes_nothing(bench: Bench) -> None:
    bench.write("in.txt", numbered(100, 10, 20))
    bench.run(on_error=QUARANTINE)
    before = bench.read("out.txt"), bench.read("out.txt.rejected.jsonl")
    dying(bench, -1)
    with pytest.raises(Killed):
        bench.run(on_error=QUARANTINE, only_failed=True)
    assert (bench.read("out.txt"), bench.read("out.txt.rejected.jsonl")) == before
    bench.guest = bytes.upper
    assert bench.run(on_error=QUARANTINE, only_failed=True).status == "succeeded"
    assert bench.read("out.txt").decode() == numbered(100, 10, 20).upper()


def test_only_failed_needs_what_it_merges_into(bench: Bench) -> None:
    bench.write("in.txt", numbered(100, 10))
    assert "has not run to its end" in str(bench.run(on_error=QUARANTINE, only_failed=True).error)
    assert "keeps no failed records" in str(bench.run(on_error="skip", only_failed=True).error)
    bench.run(on_error=QUARANTINE)
    bench.write("out.txt", b"edited\n")
    bench.guest = bytes.upper
    assert "it was changed since" in str(bench.run(on_error=QUARANTINE, only_failed=True).error)
    assert bench.read("out.txt") == b"edited\n"
    whole = json.loads(bench.read("out.txt.rejected.jsonl"))
    for line, why in (
        (b'{"source": 1}', "no 'record'"),
        (b"not json", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[1]", "other keys or values"),
        (json.dumps({**whole, "input": 5}).encode(), "other keys or values"),
    ):
        bench.write("out.txt.rejected.jsonl", line + b"\n")
        error = bench.run(on_error=QUARANTINE, only_failed=True).error
        assert str(error) == f"out.txt.rejected.jsonl:1 is no quarantined record: it has {why}"


def test_input_and_output_are_different_files(bench: Bench) -> None:
    bench.write("a.txt", "a\n")
    bench.write("out.txt", "b\n")
    report = bench.run(source="*.txt")
    assert str(report.error) == "out.txt is the output and among the input as well; give it another path"
    assert bench.read("out.txt") == b"b\n"


def test_what_a_sink_refuses_is_a_failed_record(bench: Bench) -> None:
    """Here a header that is not that of the others."""
    bench.write("in.csv", "h\n" + numbered(20))
    bench.guest = lambda data: data.replace(b"h\n", b"other\n") if b"line 7" in data else data
    bench.run("in.csv", "out.csv", form="csv", on_error=QUARANTINE)
    assert bench.read("out.csv").decode() == "h\n" + "".join(f"line {n}\n" for n in range(20) if n != 7)
    (row,) = [json.loads(line) for line in bench.read("out.csv.rejected.jsonl").splitlines()]
    assert (row["error_class"], row["attempts"], row["input"], row["lead"]) == ("OutputRefused", 1, "line 7", "h\n")
    bench.guest = bytes
    bench.run("in.csv", "out.csv", form="csv", on_error=QUARANTINE, only_failed=True)
    assert bench.read("out.csv") == bench.read("in.csv")


def test_a_trap_is_an_error_of_ours() -> None:
    with pytest.raises(Trapped):
        picky(b"!")
