"""What `runner run` shows while jobs run: one line that is rewritten on a terminal, plain lines in a log."""

from __future__ import annotations

import os
import sys
import threading
import time
from types import TracebackType

import click

from runner.cli import console
from runner.reports import JobReport

REDRAW_SECONDS = 0.1
_CLEAR = "\r\x1b[2K"


def is_live() -> bool:
    """Whether stderr is a terminal whose lines can be rewritten."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class Progress:
    """Tells of jobs as they start and end; a context manager. Safe to use from several threads."""

    def __init__(self, total: int, *, live: bool, quiet: bool) -> None:
        self._total, self._quiet = total, quiet
        self._live = live and not quiet
        self._done = 0
        self._job = ""
        self._since = 0.0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._redraw, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        if self._live:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._live:
            self._thread.join()
            self._write(_CLEAR)

    def say(self, message: str) -> None:
        """A line of its own; the status line moves down."""
        if self._quiet:
            return
        with self._lock:
            self._clear()
            console.tell(console.printable(message))

    def started(self, job: str) -> None:
        """A job runs from now on."""
        with self._lock:
            self._job, self._since = job, time.monotonic()
        if not self._live:
            self.say(f"{job}: running")

    def ended(self, report: JobReport) -> None:
        """It runs no more. An error is told, whatever is shown otherwise."""
        with self._lock:
            self._done += 1
            self._job = ""
            self._clear()
            if report.error is not None:
                console.tell_error(report.error, subject=report.job)
        if not self._live and report.error is None:
            self.say(_plain(report))

    def pause(self) -> None:
        """Take the status line away, so that something else can be written to the terminal."""
        with self._lock:
            self._clear()

    def _redraw(self) -> None:
        while not self._ended.wait(REDRAW_SECONDS):
            with self._lock:
                if self._job:
                    self._write(_CLEAR + self._status())

    def _status(self) -> str:
        elapsed = time.monotonic() - self._since
        # tenths of a second change too often to be read once it takes long
        shown = console.duration(elapsed * 1e3) if elapsed >= 60 else f"{elapsed:.1f} s"
        text = f"[{self._done + 1}/{self._total}] {self._job}  running  {shown}"
        # stdout may be a file: it is stderr's width that counts; 0 is a terminal that does not know
        columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
        return text[: columns - 1]

    def _clear(self) -> None:
        if self._live:
            self._write(_CLEAR)

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


class Counter:
    """One line on a terminal that says how far something has come."""

    def __init__(self, *, live: bool) -> None:
        self._live = live
        self._shown_at = 0.0

    def show(self, text: str) -> None:
        """This is how far it has come; shown only so often."""
        if self._live and time.monotonic() - self._shown_at >= REDRAW_SECONDS:
            self._shown_at = time.monotonic()
            self._write(_CLEAR + text)

    def clear(self) -> None:
        """Take the line away."""
        if self._shown_at:
            self._shown_at = 0.0
            self._write(_CLEAR)

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


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
