"""Waiting for runs to end and for what they log. Nobody looks before something has changed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from runner.errors import RunnerError
from runner.ledger import Run, RunFilter, RunLog
from runner.run_store import RunStore
from runner.runs import RunStatus

PAGE = 1_000
"""So many log lines are read together."""


def ended(store: RunStore, run_ids: Iterable[int]) -> Iterator[Run]:
    """Each of these runs in this order, once it is terminal. Raises RunNotFound."""
    with store.changes() as changes:
        for run_id in run_ids:
            while not (run := store.get(run_id)).status.is_terminal:
                changes.wait()
            yield run


def exit_status(runs: Iterable[Run]) -> int:
    """What a program that waited for terminal runs exits with, as if it had run them itself: 0 when all
    succeeded; 3 or 4 when all that did not lacked something or were refused by the store; else 1."""
    statuses = {_exit_status(run) for run in runs}
    return 1 if 1 in statuses else max(statuses, default=0)


def _exit_status(run: Run) -> int:
    if run.status is RunStatus.SUCCEEDED:
        return 0
    return _statuses(RunnerError).get(run.error_class or "", 1)


def _statuses(root: type[RunnerError]) -> dict[str, int]:
    """The exit statuses of an error class and all below it, by name."""
    found = {root.__name__: root.exit_status}
    for below in root.__subclasses__():
        found |= _statuses(below)
    return found


def lines_of(store: RunStore, run_id: int, *, after: tuple[int, int] = (0, 0)) -> Iterator[RunLog]:
    """The log lines of a run that are there, those after an (attempt, number). Raises RunNotFound."""
    while page := store.logs(run_id, after=after, limit=PAGE):
        yield from page
        after = page[-1].attempt, page[-1].number


def newest_of(store: RunStore, run_id: int, count: int) -> list[RunLog]:
    """The newest log lines of a run, in order. Raises RunNotFound."""
    return list(deque(lines_of(store, run_id), maxlen=count))


def follow_run(store: RunStore, run_id: int, *, after: tuple[int, int] = (0, 0)) -> Iterator[RunLog]:
    """The log lines of a run after an (attempt, number), as they come, until it has ended. Raises
    RunNotFound."""
    with store.changes() as changes:
        while True:
            is_over = store.get(run_id).status.is_terminal  # before its lines are read: the last come with the end
            for line in lines_of(store, run_id, after=after):
                yield line
                after = line.attempt, line.number
            if is_over:
                return
            changes.wait()


def follow(store: RunStore, filter: RunFilter, *, after: int) -> Iterator[RunLog]:
    """The log lines of all runs that pass the filter, as they come and without an end: those behind a
    place that RunStore.tail named."""
    with store.changes() as changes:
        while True:
            page = store.tail(filter, after=after, limit=PAGE)
            yield from page.lines
            if len(page.lines) < PAGE:
                changes.wait()
            after = page.after
