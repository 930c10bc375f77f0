"""A block on its way: what was sent, what came back, what is still open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from runner.errors import RunnerError
from runner.models import InvocationResult
from runner.records import Block, Place


class _Gone(Block):
    """In place of a block whose memory was given back."""

    def records(self) -> Sequence[bytes]:
        return ()

    def place(self, index: int) -> Place:
        raise IndexError(index)


_GONE = _Gone()


class Pending:
    """The records of one block and their results. A chunk is one item until it fails: then its records are,
    as they are from the beginning where one of them is none."""

    __slots__ = (
        *("attempts", "block", "chunked", "count", "end", "failures", "open", "outputs", "payloads"),
        *("results", "size", "written"),
    )

    def __init__(self, block: Block, *, chunked: bool) -> None:
        self.block = block
        self.end, self.count = block.end, block.count
        self.written = False
        """Whether it has left its order, and nothing is kept of it but its end."""
        self.chunked = chunked and not block.refused
        self.payloads: Sequence[bytes] = ()
        """What the function is given, by index."""
        self.outputs: list[bytes] = []
        """What it made of it; not yet, or never, where it is empty."""
        self.failures: dict[int, RunnerError] = {}
        """Records that failed for good."""
        self.results: dict[int, InvocationResult] = {}
        """What came of their last attempts, of those that a function got to see."""
        self.attempts: dict[int, int] = {}
        """How often a record that failed was tried."""
        self.open = 0
        """Items without an end."""
        self.size = 0
        """Bytes that it keeps in memory."""
        if self.chunked:
            self.payloads, self.outputs, self.open, self.size = [block.chunk()], [b""], 1, block.size
        else:
            self._by_record()

    def items(self) -> Iterable[int]:
        """The indexes of what is to be sent."""
        refused = self.failures
        if not refused:
            return range(len(self.payloads))
        return [index for index in range(len(self.payloads)) if index not in refused]

    def expand(self) -> None:
        """From a chunk that failed to its records."""
        self.chunked = False
        self._by_record()

    def failed(self, index: int, error: RunnerError, result: InvocationResult) -> None:
        """Note that a record has failed for good."""
        self.failures[index], self.results[index] = error, result
        self.open -= 1
        self.size += len(result.recording or b"") + sum([len(entry.message) for entry in result.logs])

    def forget(self) -> None:
        """Note that it is written, and give its memory back."""
        self.written, self.size = True, 0
        self.block, self.payloads, self.outputs, self.failures, self.results = _GONE, (), [], {}, {}

    def _by_record(self) -> None:
        block = self.block
        self.payloads = block.payloads()
        self.outputs = [b""] * block.count
        self.failures = dict(block.refused)
        self.open = block.count - len(self.failures)
        self.size += block.size
