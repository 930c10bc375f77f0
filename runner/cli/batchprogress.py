"""What is shown of batches that run: a line that is rewritten on a terminal, a line now and then in a log,
JSON events where JSON is wanted; and the summary behind each."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from runner.batch.report import BatchReport, View
from runner.cli import console
from runner.cli.colors import colored
from runner.cli.liveline import LiveLine

LOG_SECONDS = 10.0
EVENT_SECONDS = 1.0
"""How often a log gets a line, and whoever reads JSON an event."""
WINDOW = 50
"""Over how many ticks the rate is measured: five seconds."""


class BatchProgress(LiveLine):
    """Tells of one batch after the other."""

    wants_ticks = True

    def __init__(self, *, live: bool, quiet: bool, as_json: bool) -> None:
        super().__init__(live=live and not as_json, quiet=quiet)
        self._as_json = as_json
        self._view: View | None = None
        self._since = 0.0
        self._told_at = 0.0
        self._seen: list[tuple[float, int]] = []

    def say(self, message: str) -> None:
        """See LiveLine."""
        if self._as_json:
            self._event("message", message=message)
        else:
            super().say(message)

    def watch(self, view: View) -> None:
        """This batch runs from now on."""
        with self.lock:
            self._view, self._since = view, time.monotonic()
            self._told_at, self._seen = self._since, [(self._since, view.records())]

    def ended(self, report: BatchReport, *, as_result: bool = True) -> None:
        """It runs no more: its error and its summary, or the report as JSON: on stdout if it is a result of
        the command, else as an event."""
        with self.lock:
            self._view = None
            self.pause()
            if self._as_json:
                if as_result:
                    console.show_json(report.facts())
                else:
                    self._event("ended", **report.facts())
                return
            if report.error is not None:
                console.tell_error(report.error, subject=_title(report))
            if not self.quiet:
                for line in summary(report):
                    console.tell(line)

    def status(self) -> str:
        """See LiveLine."""
        view = self._view
        return "" if view is None else f"{view.title}  {_text(self._facts(view))}"

    def tick(self) -> None:
        """See LiveLine."""
        with self.lock:
            view, now = self._view, time.monotonic()
            if view is None:
                return
            self._seen = [*self._seen[-WINDOW:], (now, view.records())]
            every = EVENT_SECONDS if self._as_json else LOG_SECONDS
            if self.live or now - self._told_at < every:
                return
            self._told_at = now
            facts = self._facts(view)
            if self._as_json:
                self._event("progress", job=view.title, **facts)
            else:
                self.say(f"{view.title}: {_text(facts)}")

    def _facts(self, view: View) -> dict[str, Any]:
        counts, done = view.counts, view.done()
        (then, before), (now, records) = self._seen[0], self._seen[-1]
        elapsed = time.monotonic() - self._since
        share = (done or 0.0) - view.done_before
        left = elapsed * (1 - (done or 0.0)) / share if done is not None and share > 0.001 else None
        return {
            "done": None if done is None else round(done, 4),
            "records_in": view.records(),
            "records_per_second": round((records - before) / (now - then)) if now > then else None,
            "records_failed": counts.failed,
            "records_waiting": view.waiting(),
            "seconds_left": None if left is None else round(left, 1),
            "workers": list(view.workers()),
        }

    def _event(self, event: str, **facts: Any) -> None:
        if not self.quiet and sys.stderr is not None:
            with self.lock:
                console.tell(json.dumps({"event": event, **facts}, ensure_ascii=False))


def _title(report: BatchReport) -> str:
    return report.job if report.partition is None else f"{report.job} {report.partition}"


def _text(facts: dict[str, Any]) -> str:
    parts = [] if facts["done"] is None else [f"{facts['done']:.0%}"]
    parts.append(f"{facts['records_in']:,} records")
    if facts["records_per_second"] is not None:
        parts.append(f"{facts['records_per_second']:,}/s")
    if facts["records_failed"]:
        parts.append(f"{facts['records_failed']:,} failed")
    if facts["records_waiting"]:
        parts.append(f"{facts['records_waiting']:,} to be tried again")
    if facts["seconds_left"] is not None:
        parts.append(f"{console.duration(facts['seconds_left'] * 1e3)} left")
    if facts["workers"]:
        parts.append(f"workers {', '.join(facts['workers'])}")
    return "  ".join(parts)


def summary(report: BatchReport) -> Iterator[str]:
    """The lines that tell how a batch ended."""
    counts = report.counts
    rate = f", {report.records_per_second:,.0f} records/s" if report.records_per_second >= 1 else ""
    yield f"{_title(report)}: {colored(report.status)} in {console.duration(report.duration_ms)}{rate}"
    failed = [
        f"{count:,} {what}"
        for count, what in ((counts.records_skipped, "skipped"), (counts.records_quarantined, "quarantined"))
        if count
    ]
    ins = f"{counts.records_in:,} in ({console.size(counts.bytes_in)})"
    yield f"  records  {', '.join([ins, f'{counts.records_out:,} out ({console.size(counts.bytes_out)})', *failed])}"
    if counts.records_reused:
        yield f"  reused   {counts.records_reused:,} that were done before"
    if report.status == "succeeded":
        yield f"  output   {report.output}"
    if report.quarantine is not None:
        partial = "" if report.status == "succeeded" else ".partial"
        yield f"  rejects  {report.quarantine}{partial}"
    if counts.slowest:
        slow = [
            f"{console.duration(duration)} {console.printable(place)}"
            for duration, place in sorted(counts.slowest, reverse=True)
        ]
        yield f"  slowest  {', '.join(slow[:3])}"
