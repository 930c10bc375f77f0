"""The same act on many runs: lines of files, cancelling, running again, redriving, dropping."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import bulk
from runner.errors import InvalidInput, RunConflict, RunNotFound, StoreFull, UsageError
from runner.ledger import RunFilter
from runner.run_store import RunStore
from runner.runs import MAX_PAYLOAD_BYTES, Claimant, Dead, Enqueued, Failed, Failure, NewRun, RunStatus
from runner.testing import MemoryRunStore
from runner.testing.runs_bench import START


def now() -> datetime:
    return START


@pytest.fixture
def store() -> RunStore:
    return MemoryRunStore()


def put(store: RunStore, count: int, **facts: object) -> list[int]:
    run = NewRun(**{"namespace": "shop", "job": "clean", **facts})  # type: ignore[arg-type]
    return [run_id for run_id, _ in store.enqueue([run] * count, now=START)]


def end(store: RunStore, outcome: type[Dead] | type[Failed] = Dead) -> None:
    """End every run that is due."""
    claims = store.claim(Claimant(owner="one", namespace="shop"), 10_000, now=START + timedelta(hours=1))
    store.finish([outcome(*claim[:2], Failure("Trapped", "boom")) for claim in claims], now=START)


# Lines


class Pieces:
    """A file that gives so much at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        self._file, self._size = io.BytesIO(data), size

    def read1(self, size: int = -1, /) -> bytes:
        return self._file.read(min(size, self._size))


@given(st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r\n", b"\r", b"\n\n", b"d" * 9])), st.integers(1, 7))
def test_lines_are_those_of_the_file_however_it_comes(parts: list[bytes], size: int) -> None:
    data = b"".join(parts)
    steps = list(bulk.steps(Pieces(data, size)))
    *whole, rest = data.split(b"\n")
    lines = [line[:-1] if line.endswith(b"\r") else line for line in whole] + [rest]
    assert [line for step in steps for line in step.lines] == [line for line in lines if line]
    assert (steps[-1].last if steps else 0) == len(whole) + bool(rest)
    for step in steps:  # what is told of a step is true when nothing follows
        told = [line for line in lines[: step.last] if line]
        assert sum(len(before.lines) for before in steps[: steps.index(step) + 1]) == len(told)


def test_a_step_is_of_bounded_size() -> None:
    steps = list(bulk.steps(io.BufferedReader(io.BytesIO(b"x\n" * (3 * bulk.STEP_LINES + 5)))))
    assert max(len(step.lines) for step in steps) <= bulk.STEP_LINES
    assert sum(len(step.lines) for step in steps) == 3 * bulk.STEP_LINES + 5


def test_a_line_that_is_just_not_too_large() -> None:
    line = b"x" * MAX_PAYLOAD_BYTES
    assert [step.lines for step in bulk.steps(Pieces(line + b"\r\n", 1 << 22)) if step.lines] == [[line]]
    assert [step.lines for step in bulk.steps(Pieces(line, 1 << 22)) if step.lines] == [[line]]


@pytest.mark.parametrize("ending", [b"", b"\n", b"\nmore\n"])
def test_a_line_that_is_too_large_ends_it_after_those_before_it(ending: bytes) -> None:
    steps = bulk.steps(Pieces(b"one\n\ntwo\n" + b"x" * (MAX_PAYLOAD_BYTES + 1) + ending, 1 << 22))
    seen: list[bulk.Step] = []
    with pytest.raises(InvalidInput, match=r"line 4: the input has 16,777,\d+ bytes"):
        seen.extend(steps)
    assert [line for step in seen for line in step.lines] == [b"one", b"two"]
    assert seen[-1].last == 3


def test_a_line_without_an_end_is_not_read_to_its_end() -> None:
    class Endless:
        given = 0

        def read1(self, size: int = -1, /) -> bytes:
            self.given += size
            return b"x" * size

    file = Endless()
    with pytest.raises(InvalidInput, match="line 1"):
        list(bulk.steps(file))
    assert file.given < 2 * MAX_PAYLOAD_BYTES


# Runs


def test_those_that_are_chosen_come_oldest_first(store: RunStore) -> None:
    run_ids = put(store, 2 * bulk.PAGE + 3)
    put(store, 1, job="other")
    assert list(bulk.chosen(store, RunFilter(job="clean"))) == run_ids
    assert list(bulk.chosen(store, RunFilter(job="none"))) == []


def test_cancelling_many(store: RunStore) -> None:
    run_ids = put(store, bulk.PAGE + 1)
    (running,) = store.claim(Claimant(owner="one", namespace="shop"), 1, now=START)
    done = list(bulk.each([*run_ids, 9999], bulk.cancel(store, "no more", now)))
    assert [one.run_id for one in done] == [*run_ids, 9999]
    assert done[0].status is RunStatus.RUNNING
    assert {one.status for one in done[1:-1]} == {RunStatus.CANCELLED}
    assert isinstance(done[-1].error, RunNotFound)
    assert store.get(run_ids[-1]).message == "no more"
    assert running.run_id == run_ids[0]


def test_running_again_settles_a_dead_letter(store: RunStore) -> None:
    (dead,) = put(store, 1)
    end(store)
    (failed,) = put(store, 1)
    end(store, Failed)
    (live,) = put(store, 1)
    first, second, third = bulk.each([dead, failed, live], bulk.retry(store, now))
    assert store.dead_letters() == []
    parents = [store.get(one.enqueued.run_id).parent_id for one in (first, second) if one.enqueued]
    assert parents == [dead, failed]
    assert isinstance(third.error, UsageError)


def test_running_again_without_its_letter_and_against_a_key(store: RunStore) -> None:
    (dropped,) = put(store, 1)
    (keyed,) = put(store, 1, unique_key="k")
    end(store)
    store.drop([dropped])
    put(store, 1, unique_key="k")
    first, second = bulk.each([dropped, keyed], bulk.retry(store, now))
    assert first.enqueued is not None
    assert isinstance(second.error, RunConflict)
    assert [letter.run_id for letter in store.dead_letters()] == [keyed]


def test_an_error_of_the_store_ends_it() -> None:
    def act(run_id: int) -> bulk.Done:
        if run_id == 3:
            raise StoreFull("no room")
        return bulk.Done(run_id, enqueued=Enqueued(run_id, True))

    seen: list[bulk.Done] = []
    with pytest.raises(StoreFull):
        seen.extend(bulk.each([1, 2, 3, 4], act))
    assert [done.run_id for done in seen] == [1, 2]


# Dead letters


def test_redriving_all_leaves_those_that_die_meanwhile(store: RunStore) -> None:
    run_ids = put(store, bulk.PAGE + 2)
    end(store)
    chosen = bulk.letters(store, namespace="shop")
    assert list(chosen) == run_ids

    def and_die() -> Iterator[int]:
        for made in bulk.redrive(store, chosen, now):
            yield len(made)
            end(store)

    assert list(and_die()) == [bulk.PAGE, 2]
    assert len(store.dead_letters(limit=10_000)) == bulk.PAGE + 2
    assert all(letter.dead_letter_id not in run_ids for letter in store.dead_letters(limit=10_000))


def test_the_letters_of_a_job_and_of_a_namespace(store: RunStore) -> None:
    mine, other = put(store, 2), put(store, 1, job="other")
    end(store)
    assert list(bulk.letters(store, namespace="shop", job="clean")) == mine
    assert list(bulk.letters(store, namespace="shop")) == [*mine, *other]
    assert list(bulk.letters(store, namespace="elsewhere")) == []
    assert list(bulk.drop(store, [mine[0], other[0], 99])) == [2]
    assert list(bulk.letters(store, namespace="shop")) == [mine[1]]


def test_one_letter(store: RunStore) -> None:
    dead, live = *put(store, 1), 2
    end(store)
    put(store, 1)
    assert bulk.dead_letter(store, dead, START).run_id == dead
    for number in (live, 99):
        with pytest.raises(InvalidInput, match=f"no dead letter {number}; `runner dlq list`"):
            bulk.dead_letter(store, number, START)
