"""What a batch sends to the workers: the records of its source, and those that are tried again.

Memory is bounded here: no block is read while what is under way holds `WINDOW_BYTES`. The stream then
ends, its results come in, and another begins. It must not wait instead, for it may be asked for an input
before what it gave last was sent.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from runner.batch.pending import Pending
from runner.errors import Stopped
from runner.models import InvocationResult
from runner.records import Reader
from runner.retry import delay_seconds, should_retry

WINDOW_BYTES = 64 << 20
"""Of records read and outputs not written; a block that is under way already may go beyond."""
MOST_BLOCKS = 10_000
"""So many blocks may be under way, or written behind one that is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Retries:
    """When a record is tried again, and by which clock."""

    retry_count: int
    retry_delay_seconds: float
    clock: Callable[[], float]
    """Seconds, monotonic."""
    sleep: Callable[[float], None]
    chance: Callable[[], float]
    """Uniform from 0 to 1."""


class Feed:
    """The inputs of one batch, in streams. Used by one thread."""

    def __init__(self, reader: Reader, retries: Retries, *, chunked: bool) -> None:
        self._reader, self._retries, self._chunked = reader, retries, chunked
        self.blocks: deque[Pending] = deque()
        """Those that are not written yet, in the order of the source."""
        self.flying: deque[tuple[Pending, int]] = deque()
        """What was sent and has no result, in order: the next result is that of the first."""
        self._due: list[tuple[float, int, Pending, int]] = []
        self._numbers = itertools.count()
        self._ended = False

    @property
    def waiting(self) -> int:
        """How many records wait for another try."""
        return len(self._due)

    def under_way(self) -> tuple[int, int]:
        """How many records were read and are not written yet, and how many of these have ended. May be asked
        by any thread."""
        blocks = [pending for pending in list(self.blocks) if not pending.written]
        ended = [pending.count - (pending.count if pending.chunked else pending.open) for pending in blocks]
        return sum([pending.count for pending in blocks]), sum(ended)

    @property
    def held(self) -> int:
        """Bytes that the blocks keep in memory."""
        return sum([pending.size for pending in self.blocks])

    @property
    def done(self) -> bool:
        """Whether everything was read, sent and taken away."""
        return self._ended and not self.blocks

    def inputs(self) -> Iterator[bytes]:
        """The inputs of one stream; its end does not mean that there will be no other. Raises what the
        source raises."""
        send = self.flying.append
        due = self._due
        while True:
            yield from self._tries()
            if self._ended or len(self.blocks) >= MOST_BLOCKS or (self.held >= WINDOW_BYTES and self.blocks):
                return
            block = self._reader.read()
            if block is None:
                self._ended = True
                continue
            pending = Pending(block, chunked=self._chunked)
            self.blocks.append(pending)
            payloads = pending.payloads
            for item in zip(itertools.repeat(pending), pending.items()):  # the first has no end
                send(item)
                yield payloads[item[1]]
                if due:
                    yield from self._tries()

    def failed(self, pending: Pending, index: int, result: InvocationResult) -> None:
        """An item has failed: it will be tried again, or that was its last try. Raises Stopped."""
        error = result.error
        assert error is not None
        if isinstance(error, Stopped):
            raise error
        if pending.chunked:
            self._expand(pending)
            return
        attempts = pending.attempts[index] = pending.attempts.get(index, 0) + 1
        retries = self._retries
        if should_retry(error, attempts=attempts, retry_count=retries.retry_count):
            wait = delay_seconds(
                attempts=attempts, retry_delay_seconds=retries.retry_delay_seconds, chance=retries.chance()
            )
            self._again(pending, index, retries.clock() + wait)
        else:
            pending.failed(index, error, result)

    def reopen(self, pending: Pending) -> None:
        """A chunk whose output cannot be written: its records are sent one by one."""
        self._expand(pending)

    def rest(self) -> None:
        """Sleep until there is something to send, when all that is left are records to be tried again."""
        if self._due and not self.flying:
            self._retries.sleep(max(0.0, self._due[0][0] - self._retries.clock()))

    def _expand(self, pending: Pending) -> None:
        pending.expand()
        now = self._retries.clock()
        for index in pending.items():
            self._again(pending, index, now)

    def _again(self, pending: Pending, index: int, moment: float) -> None:
        heapq.heappush(self._due, (moment, next(self._numbers), pending, index))

    def _tries(self) -> Iterator[bytes]:
        due, clock = self._due, self._retries.clock
        while due and due[0][0] <= clock():
            _, _, pending, index = heapq.heappop(due)
            self.flying.append((pending, index))
            yield pending.payloads[index]
