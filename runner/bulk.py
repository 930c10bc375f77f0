"""The same act on many: a run for each line of a file, cancelling, running again, redriving and dropping.

Everything goes in steps of a bounded size, each a transaction, so that neither memory nor the store's
other users suffer from a million. What was done before an error stays done, and has been yielded.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from runner.errors import InputTooLarge, InvalidInput, RunnerError, RunNotFound, UsageError
from runner.ledger import DeadLetter, RunFilter
from runner.run_store import RunStore
from runner.runs import MAX_PAYLOAD_BYTES, Enqueued, RunStatus

READ_BYTES = 256 * 1024
"""So much of a file is looked at together."""
STEP_LINES = 5_000
"""So many lines at most are accepted in one transaction."""
PAGE = 500
"""So many runs or dead letters are looked at together."""
THREADS = 32
"""Single acts that are carried out at once, to share commits."""


# Lines


class Reader(Protocol):
    """A binary file."""

    def read1(self, size: int = ..., /) -> bytes:
        """What is there now, at most `size` bytes; waits only while nothing is. Empty at the end."""


class Step(NamedTuple):
    """Lines that belong together, without their breaks."""

    lines: list[bytes]
    last: int
    """The number, counted from 1, of the last line that was looked at: this step and those before it hold
    every line up to it that is not empty."""


def steps(file: Reader) -> Iterator[Step]:
    """The lines of a file as they come, without those that are empty. A line that is too large for a run
    ends them with InvalidInput, after all that stand before it have been yielded."""
    last = 0
    for lines in _lines(file):
        kept: list[bytes] = []
        for line in lines:
            if len(line) > MAX_PAYLOAD_BYTES:
                yield Step(kept, last)
                raise InvalidInput(f"line {last + 1:,}: {InputTooLarge(len(line), MAX_PAYLOAD_BYTES)}")
            last += 1
            if line:
                kept.append(line)
            if len(kept) == STEP_LINES:
                yield Step(kept, last)
                kept = []
        yield Step(kept, last)


def _lines(file: Reader) -> Iterator[Iterator[bytes]]:
    """The lines that each read completes, without their breaks; of one that is endless, the beginning."""
    rest = b""
    while data := file.read1(READ_BYTES):
        *whole, rest = (rest + data).split(b"\n")
        if len(rest) > MAX_PAYLOAD_BYTES + 1:
            whole.append(rest)
        yield (line[:-1] if line.endswith(b"\r") else line for line in whole)
    if rest:
        yield iter([rest])


# Runs


class Done(NamedTuple):
    """What came of an act on one run: exactly one of `status`, `enqueued` and `error` is not None."""

    run_id: int
    status: RunStatus | None = None
    """The status it has now, of one that was to be cancelled."""
    enqueued: Enqueued | None = None
    """The run that does its work again."""
    error: RunnerError | None = None


def chosen(store: RunStore, filter: RunFilter) -> Sequence[int]:
    """The numbers of the runs that pass the filter, oldest first."""
    run_ids = array("q")
    before: int | None = None
    while page := store.list_runs(filter, before=before, limit=PAGE):
        run_ids.extend(run.run_id for run in page)
        before = page[-1].run_id
    return run_ids[::-1]


def cancel(store: RunStore, reason: str, now: Callable[[], datetime]) -> Callable[[int], Done]:
    """The act of cancelling a run."""
    return lambda run_id: Done(run_id, status=store.cancel(run_id, reason, now=now()))


def retry(store: RunStore, now: Callable[[], datetime]) -> Callable[[int], Done]:
    """The act of running a run again. A dead letter that it left is settled by it, in one transaction."""

    def again(run_id: int) -> Done:
        redriven = store.redrive([run_id], now=now()) if store.get(run_id).status is RunStatus.DEAD else []
        return Done(run_id, enqueued=redriven[0] if redriven else store.rerun(run_id, now=now()))

    return again


def each(run_ids: Sequence[int], act: Callable[[int], Done]) -> Iterator[Done]:
    """Carry out an act on each of these runs and yield what came of it, in order. An error of ours about
    one of them does not disturb the others; one of the store ends it."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(THREADS, thread_name_prefix="bulk") as pool:
        for page in _pages(run_ids):
            yield from pool.map(lambda run_id: _caught(run_id, act), page)


def _pages(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    return (numbers[begin : begin + PAGE] for begin in range(0, len(numbers), PAGE))


def _caught(run_id: int, act: Callable[[int], Done]) -> Done:
    try:
        return act(run_id)
    except (InvalidInput, UsageError) as error:
        return Done(run_id, error=error)


# Dead letters


def letters(store: RunStore, *, namespace: str, job: str | None = None) -> Sequence[int]:
    """The ids of the dead letters of a job, or of all, oldest first."""
    ids = array("q")
    before: int | None = None
    while page := store.dead_letters(namespace=namespace, job=job, before=before, limit=PAGE):
        ids.extend(letter.dead_letter_id for letter in page)
        before = page[-1].dead_letter_id
    return ids[::-1]


def redrive(store: RunStore, ids: Sequence[int], now: Callable[[], datetime]) -> Iterator[list[Enqueued]]:
    """Run these dead letters again; the runs that were made by each step. One whose unique key a live run
    has stays, and one that is not there is left out. What dies again meanwhile is not redriven twice."""
    for page in _pages(ids):
        yield store.redrive(list(page), limit=len(page), now=now())


def drop(store: RunStore, ids: Sequence[int]) -> Iterator[int]:
    """Forget these dead letters; how many by each step."""
    for page in _pages(ids):
        yield store.drop(list(page), limit=len(page))


def dead_letter(store: RunStore, dead_letter_id: int, now: datetime) -> DeadLetter:
    """One dead letter. Raises InvalidInput without one of that number."""
    try:
        letter = store.why(dead_letter_id, now=now).dead_letter
    except RunNotFound:
        letter = None
    if letter is None:
        raise InvalidInput(f"no dead letter {dead_letter_id}; `runner dlq list` shows those there are")
    return letter
