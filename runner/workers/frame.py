"""One frame: some inputs on their way to a worker, and what has come back for those before them.

How frames are filled, sent and watched is in frames.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from runner.errors import Stopped
from runner.models import InvocationResult


class Frame:
    """Inputs on their way, and the results that have come back for those before them."""

    __slots__ = ("cap", "inputs", "logged", "number", "pieces", "piled", "quiet", "results", "size", "tries", "unsent")

    def __init__(self, number: int, inputs: list[bytes]) -> None:
        self.number = number
        self.inputs = inputs
        """Those without a result."""
        self.results: list[InvocationResult] = []
        """Those not yielded yet."""
        self.size = 0
        """Bytes of output in `results`."""
        self.pieces: list[bytes] = []
        self.piled = 0
        """Bytes in `pieces`."""
        self.logged = 0
        """Bytes of log lines that were handed over before their results, since the last ones of those."""
        self.unsent = memoryview(b"")
        self.tries = 0
        self.quiet = 0.0
        """Until when, as far as we saw, its worker did something that has a bound of its own."""
        self.cap = 0.0
        """When its worker must be through, whatever it tells."""

    def keep(self, results: Sequence[InvocationResult]) -> int:
        """Take the results of the first inputs; returns the bytes of output in them."""
        self.pieces.clear()
        self.piled = self.logged = 0
        self.results += results
        del self.inputs[: len(results)]
        size = sum([len(result.output) for result in results if result.output])
        self.size += size
        return size

    def stop_rest(self) -> None:
        """Let every input that is left end as stopped before it began."""
        self.keep([InvocationResult(None, Stopped(begun=False)) for _ in self.inputs])
