"""The loop of a batch: inputs to the workers, results to the output, a checkpoint now and then."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from runner.batch.counts import Counts
from runner.batch.feed import Feed
from runner.batch.output import Output
from runner.batch.pending import Pending
from runner.models import InvocationResult, LogEntry
from runner.records import Position

Execute = Callable[[Iterator[bytes]], Iterator[InvocationResult]]
"""One result for each input, in order: an executor with its function and context."""

LOG_LINES = 100
"""How many log lines of one block are kept; a hundred thousand records a second could each write some."""
SOON_SECONDS = 1.0
"""A checkpoint does not wait any longer for the next cut where it may be made anywhere."""
SHARE = 20
"""Checkpoints may take one part in so many of the time."""


class Written(NamedTuple):
    """How much of a source is written."""

    position: Position | None
    """Everything before it; None: nothing."""
    ahead: Sequence[Position] = ()
    """The ends of the blocks behind it that are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Keeping:
    """What happens to what must last, and by which clock."""

    every: int
    """Records from one cut to the next."""
    mark: Callable[[Written, Position], None]
    """Remember what a checkpoint made here would say: this of the source is written, up to this position of
    the sink."""
    save: Callable[[], None]
    """Make the checkpoint that was marked last. May take its time."""
    keep_logs: Callable[[Sequence[LogEntry]], None]
    """Take some log lines of guests."""
    clock: Callable[[], float]
    """Seconds, monotonic."""
    soon: float = SOON_SECONDS
    """How long a checkpoint waits for the next cut where the sink's leave no trace; infinite: as long as it takes."""


@contextlib.contextmanager
def closed_early(results: Iterator[InvocationResult]) -> Iterator[Iterator[InvocationResult]]:
    """What still runs is stopped as soon as nobody wants its results any more."""
    try:
        yield results
    finally:
        if isinstance(results, Generator):
            results.close()


class Engine:
    """Runs one batch to its end. Used by one thread; counts and feed may be looked at from others."""

    def __init__(self, feed: Feed, output: Output, keeping: Keeping) -> None:
        self.feed, self._output, self._keeping = feed, output, keeping
        self._counts: Counts = output.counts
        self._logs: list[LogEntry] = []
        self._since_cut = 0
        self._save_after = keeping.clock()
        self._save_soon = self._save_after + keeping.soon
        self._slow_ms = 0.0

    def run(self, execute: Execute) -> None:
        """Send everything and write everything; on return the output is written up to its last cut.

        Raises RecordFailed and TooManyFailures, and whatever source, sink and executor raise; checkpoints
        that were made until then are good.
        """
        feed = self.feed
        while not feed.done:
            self._stream(execute)
            self._settle()
            feed.rest()
        self._output.check_budget(at_end=True)

    def _stream(self, execute: Execute) -> None:
        feed, counts = self.feed, self._counts
        popleft = feed.flying.popleft
        seen = 0
        with closed_early(execute(feed.inputs())) as results:
            for result in results:
                pending, index = popleft()
                output, logs, duration_ms = result[0], result[2], result[3]  # by position: every record pays for it
                seen += 1
                if output is not None:
                    pending.outputs[index] = output
                    pending.open -= 1
                    pending.size += len(output)
                else:
                    feed.failed(pending, index, result)
                if logs and len(self._logs) < LOG_LINES:
                    self._logs += logs[: LOG_LINES - len(self._logs)]
                if duration_ms > self._slow_ms:
                    self._slow_ms = counts.note(duration_ms, str(pending.block.place(index)))
                if not pending.open:
                    counts.attempts += seen
                    seen = 0
                    self._settle()
        counts.attempts += seen

    def _settle(self) -> None:
        """Write every block that has no open item, up to the first that has."""
        feed = self.feed
        blocks = feed.blocks
        while blocks and not blocks[0].open:
            pending = blocks[0]
            if not self._output.settle(pending):
                feed.reopen(pending)
                return
            blocks.popleft()
            self._written(pending)

    def _written(self, pending: Pending) -> None:
        if self._logs:
            self._keeping.keep_logs(self._logs)
            self._logs = []
        self._since_cut += pending.count
        if self._since_cut >= self._keeping.every:
            self._since_cut = 0
            self._cut(self._position(pending))
        elif self._output.sink.seamless and self._keeping.clock() >= self._save_soon:
            self._cut(self._position(pending))

    def _position(self, pending: Pending) -> Written:
        """What is written when this block was the last."""
        return Written(pending.end)

    def _cut(self, written: Written) -> None:
        """The output is cut at the same places in every run, unless nobody can tell from it; whether a
        checkpoint is made there is a matter of time."""
        self._keeping.mark(written, self._output.sink.cut())
        clock = self._keeping.clock
        started = clock()
        if started >= self._save_after:
            self._keeping.save()
            ended = clock()
            self._save_after = ended + SHARE * (ended - started)
            self._save_soon = max(self._save_after, ended + self._keeping.soon)
