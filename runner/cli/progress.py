"""What `runner run` shows while jobs run: one line that is rewritten on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from runner.cli import console
from runner.cli.liveline import LiveLine, size
from runner.reports import JobReport

if TYPE_CHECKING:
    from runner.ownrun import View

LOG_SECONDS = 10.0
"""Where nothing is live, how often the items of a step are told."""


class Progress(LiveLine):
    """Tells of jobs as they start and end."""

    def __init__(self, total: int, *, live: bool, quiet: bool) -> None:
        super().__init__(live=live, quiet=quiet)
        self._total = total
        self._done = 0
        self._job = ""
        self._since = 0.0
        self._view: View | None = None
        self._told_at = 0.0

    def started(self, job: str) -> None:
        """A job runs from now on."""
        with self.lock:
            self._job, self._since, self._view = job, time.monotonic(), None
        if not self.live:
            self.say(f"{job}: running")

    def watch(self, view: View) -> None:
        """How far the pipeline has come that runs."""
        from runner.cli import steptree

        with self.lock:
            before, self._view = self._view, view
        if self.live:
            return
        lines = list(steptree.news(before, view, _now()))
        if not lines and time.monotonic() - self._told_at >= LOG_SECONDS:
            lines = list(steptree.items(view))
        if lines:
            self._told_at = time.monotonic()
        for line in lines:
            self.say(line)

    def ended(self, report: JobReport) -> None:
        """It runs no more. An error is told, whatever is shown otherwise."""
        with self.lock:
            self._done += 1
            self._job = ""
            self.pause()
            if self._view is not None and self.live:
                for line in self._tree(self._view, 1000):
                    console.tell(line)
            self._view = None
            if report.error is not None:
                console.tell_error(report.error, subject=report.job)
        if not self.live and report.error is None:
            self.say(_plain(report))

    def status(self) -> str:
        """See LiveLine."""
        if not self._job:
            return ""
        if self._view is not None:
            return "\n".join(self._tree(self._view, size()[1] - 2))
        elapsed = time.monotonic() - self._since
        # tenths of a second change too often to be read once it takes long
        shown = console.duration(elapsed * 1e3) if elapsed >= 60 else f"{elapsed:.1f} s"
        return f"[{self._done + 1}/{self._total}] {self._job}  running  {shown}"

    def _tree(self, view: View, most: int) -> list[str]:
        from runner.cli import steptree
        from runner.diagrams.lanes import ASCII

        lines = steptree.tree(view, _now(), most=most)
        if (sys.stderr.encoding or "").lower().startswith("utf"):
            return lines
        return [line.translate(ASCII).translate(steptree.ASCII) for line in lines]


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _plain(report: JobReport) -> str:
    if report.reason:
        return f"{report.job}: {report.status} ({report.reason})"
    took, size = console.duration(report.duration_ms), console.size(report.output_bytes)
    if not report.function and not report.output_bytes:
        return f"{report.job}: {report.status} in {took}"  # a pipeline, whose steps have written what it is for
    where = f" to {report.output_path}" if report.output_path else ""
    return f"{report.job}: {report.status} in {took}, {size}{where}"
