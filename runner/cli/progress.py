"""What `runner run` shows while jobs run: one line that is rewritten on a terminal, plain lines in a log."""

from __future__ import annotations

import time

import click

from runner.cli import console
from runner.cli.liveline import LiveLine
from runner.reports import JobReport


class Progress(LiveLine):
    """Tells of jobs as they start and end."""

    def __init__(self, total: int, *, live: bool, quiet: bool) -> None:
        super().__init__(live=live, quiet=quiet)
        self._total = total
        self._done = 0
        self._job = ""
        self._since = 0.0

    def started(self, job: str) -> None:
        """A job runs from now on."""
        with self.lock:
            self._job, self._since = job, time.monotonic()
        if not self.live:
            self.say(f"{job}: running")

    def ended(self, report: JobReport) -> None:
        """It runs no more. An error is told, whatever is shown otherwise."""
        with self.lock:
            self._done += 1
            self._job = ""
            self.pause()
            if report.error is not None:
                console.tell_error(report.error, subject=report.job)
        if not self.live and report.error is None:
            self.say(_plain(report))

    def status(self) -> str:
        """See LiveLine."""
        if not self._job:
            return ""
        elapsed = time.monotonic() - self._since
        # tenths of a second change too often to be read once it takes long
        shown = console.duration(elapsed * 1e3) if elapsed >= 60 else f"{elapsed:.1f} s"
        return f"[{self._done + 1}/{self._total}] {self._job}  running  {shown}"


def _plain(report: JobReport) -> str:
    if report.reason:
        return f"{report.job}: {report.status} ({report.reason})"
    took, size = console.duration(report.duration_ms), console.size(report.output_bytes)
    where = f" to {report.output_path}" if report.output_path else ""
    return f"{report.job}: {report.status} in {took}, {size}{where}"


COLORS = {
    **{"running": "cyan", "succeeded": "green", "ran": "green", "caught_up": "green"},
    **{"failed": "red", "dead": "bright_red", "lost": "magenta"},
    **{"cancelled": "yellow", "skipped": "yellow", "released": "yellow"},
}


def colored(status: str) -> str:
    """The status of a job, a run, an attempt or a slot in its colour."""
    return click.style(status, fg=COLORS.get(status))
