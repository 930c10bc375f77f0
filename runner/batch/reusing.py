"""Records whose results are known are not run again: between a batch and what carries it out.

A block of inputs is looked up at once, those that are not known are run, and all results come in order. A
record is looked up again when it is tried again; that finds what others have made of it meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import NamedTuple

from runner.batch.counts import Counts
from runner.batch.engine import Execute
from runner.models import InvocationResult
from runner.results import Kept, NewResult

BLOCK_RECORDS = 8192
"""How many records are looked up at once: the more, the less each costs."""
BLOCK_BYTES = 16 << 20
"""And how many bytes of them, about."""
KEEP_SECONDS = 1.0
"""Results that were made are kept after so long at the latest, or after a block."""


class Memory(NamedTuple):
    """The results of one function with one environment."""

    find: Callable[[Sequence[bytes]], tuple[list[bytes], list[Kept | None]]]
    """The keys of inputs, and what is known for each."""
    keep: Callable[[Sequence[NewResult]], None]


class Reusing:
    """An Execute that takes known results, and has another make those that are not known."""

    def __init__(self, execute: Execute, counts: Counts, memory: Memory, clock: Callable[[], float]) -> None:
        self._execute, self._counts, self._memory, self._clock = execute, counts, memory, clock
        self._made: list[NewResult] = []
        self._kept_at = clock()

    def __call__(self, inputs: Iterator[bytes]) -> Generator[InvocationResult, None, None]:
        """See Execute."""
        try:
            while block := _block(inputs):
                yield from self._results(block)
        finally:
            self._keep()

    def _results(self, block: list[bytes]) -> Iterator[InvocationResult]:
        keys, known = self._memory.find(block)
        missing = [input for input, kept in zip(block, known, strict=True) if kept is None]
        if not missing:
            yield from map(self._reused, known)
            return
        results = self._execute(iter(missing))
        try:
            for key, kept in zip(keys, known, strict=True):
                yield self._reused(kept) if kept is not None else self._noted(key, next(results))
        finally:
            if isinstance(results, Generator):
                results.close()

    def _reused(self, kept: Kept | None) -> InvocationResult:
        assert kept is not None
        self._counts.records_reused += 1
        self._counts.attempts -= 1  # whoever takes the result counts one
        return InvocationResult(kept.output, None, (), 0.0, kept.memory_peak_bytes)

    def _noted(self, key: bytes, result: InvocationResult) -> InvocationResult:
        if result.output is not None:
            self._made.append(NewResult(key, result.output, result.duration_ms, result.memory_peak_bytes))
            if len(self._made) >= BLOCK_RECORDS or self._clock() - self._kept_at >= KEEP_SECONDS:
                self._keep()
        return result

    def _keep(self) -> None:
        made, self._made = self._made, []
        if made:
            self._memory.keep(made)
        self._kept_at = self._clock()


def _block(inputs: Iterator[bytes]) -> list[bytes]:
    block, size = [], 0
    for input in inputs:
        block.append(input)
        size += len(input)
        if len(block) == BLOCK_RECORDS or size >= BLOCK_BYTES:
            break
    return block
