"""What a guest tells while it still runs, handed to the app now and then: log lines and its progress.

Nothing is handed over in the first moments of an invocation, and not often after that: short
invocations pay nothing, and a guest that tells without end does not keep the app busy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from time import monotonic_ns

from runner.errors import InvocationError
from runner.models import LogEntry
from runner.workers.area import ResultWriter
from runner.workers.protocol import LOGS, PROGRESS
from runner.workers.wire import encode_logs

INTERVAL_NS = 100_000_000
"""The least time between two hand-overs, and from the start of an invocation to its first one of lines."""
COMPLETE = 100


class Live:
    """Decides what is told when. Which invocation runs is read from `results`; `ask` is Worker's."""

    def __init__(self, results: ResultWriter, ask: Callable[[str, Sequence[bytes]], bytes]) -> None:
        self._results, self._ask = results, ask
        self._logs_told_ns = 0
        self._invocation_ns = 0
        self._percent = -1
        self._percent_told_ns = 0

    def take_logs(self, entries: Sequence[LogEntry]) -> bool:
        """Hand lines to the app; False if it is too early, or if the app would not have them."""
        if monotonic_ns() - max(self._results.started_ns, self._logs_told_ns) < INTERVAL_NS:
            return False
        try:
            self._ask(LOGS, [encode_logs(entries)])
        except InvocationError:
            return False
        finally:
            self._logs_told_ns = monotonic_ns()
        return True

    def report_progress(self, percent: int) -> None:
        """Tell the app, unless it was told so, or of another percentage a moment ago; COMPLETE is told at
        once."""
        if self._invocation_ns != self._results.started_ns:
            self._invocation_ns = self._results.started_ns
            self._percent, self._percent_told_ns = -1, 0
        if percent == self._percent:
            return
        if percent != COMPLETE and monotonic_ns() - self._percent_told_ns < INTERVAL_NS:
            return
        with contextlib.suppress(InvocationError):  # it matters less than what the guest is at
            self._ask(PROGRESS, [bytes([percent])])
        self._percent, self._percent_told_ns = percent, monotonic_ns()
