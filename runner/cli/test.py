"""`runner test`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.cli import console
from runner.cli.completion import complete_function, complete_test
from runner.cli.groups import ProjectCommand, json_option
from runner.cli.liveline import LiveLine, is_live
from runner.cli.project import Project, pass_project

if TYPE_CHECKING:
    from runner.verdicts import CaseReport

INTERRUPTED = 130
REPEATED_FROM = 20
"""With more tests than this, the bad ones are listed once more at the end."""
COLORS = {"passed": "green", "updated": "yellow", "failed": "red", "error": "red", "skipped": "yellow"}
ORDER = ("failed", "error", "passed", "updated", "skipped")


@click.command("test", cls=ProjectCommand)
@click.argument("names", nargs=-1, metavar="[TEST]...", shell_complete=complete_test)
@click.option("--function", metavar="NAME", shell_complete=complete_function, help="Only tests that run this function.")
@click.option("-x", "--fail-fast", is_flag=True, help="End with the first test that goes wrong.")
@click.option("--update", is_flag=True, help="Write the output into the expected file where that is all that is wrong.")
@click.option(
    "--junit", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write JUnit XML as well."
)
@json_option
@pass_project
def test(
    project: Project,
    names: Sequence[str],
    function: str | None,
    fail_fast: bool,
    update: bool,
    junit: Path | None,
    as_json: bool,
) -> int:
    """Run the tests of jobs.yaml.

    Runs the named tests, those that a pattern names, or all, several at once, each invocation in a
    sandbox of its own. What was expected and what came instead is shown on stdout in the order of
    jobs.yaml. Nothing of it reaches the registry, the queue or an output file of a job; no secret is
    looked up, and nothing is tried twice.

    --update writes files that `expect: {output: {path: ...}}` names, and never jobs.yaml.

    With --json one object a test on stdout: test, function, job, status (passed, updated, failed,
    error, skipped), duration_ms, line, error_class, message, stderr_tail. An error is what could not
    be run at all. Exit status 0 when all passed, 1 when a test went wrong; 3 or 4 when all that went
    wrong did so for want of something or because of the store, 2 when there is nothing to test.

    \b
    Examples:
      runner test
      runner test clean_keeps_good_rows 'report_*' -x
      runner test --function clean --update
      runner test --junit build/tests.xml
    """
    project.start_ahead()
    from runner.caseruns import CaseRuns, choose_cases, scratch_runner
    from runner.loading import load

    plugins = project.plugins()
    config = load(project.file, plugins.catalogue)
    cases = choose_cases(config, names, function=function)
    shown = Shown(project, len(cases), max(len(case.name) for case in cases), as_json=as_json)
    started_at, interrupted = datetime.now(timezone.utc), False
    with shown, scratch_runner(config, plugins, state_dir=project.state_dir, notify=shown.say) as runner:
        runs = CaseRuns(runner, cases, fail_fast=fail_fast, update=update, started=shown.started, ended=shown.ended)
        try:
            with closing(runs.run()) as reports:
                for report in reports:
                    shown.report(report)
        except KeyboardInterrupt:
            interrupted = True
            for report in runs.left():
                shown.report(report)
    duration_ms = (datetime.now(timezone.utc) - started_at).total_seconds() * 1e3
    if junit is not None:
        _write_junit(junit, shown.reports, config.namespace, project.file, started_at, duration_ms)
    shown.close(duration_ms)
    if interrupted:
        console.tell("interrupted")
        return INTERRUPTED
    return _exit_status(shown.reports)


class Shown(LiveLine):
    """Reports on stdout, and on the terminal's last line what is running."""

    def __init__(self, project: Project, total: int, width: int, *, as_json: bool) -> None:
        super().__init__(live=is_live(), quiet=project.quiet)
        self.reports: list[CaseReport] = []
        self._file, self._total, self._width, self._as_json = project.file, total, width, as_json
        self._running: dict[str, None] = {}
        self._since = time.monotonic()

    def started(self, name: str) -> None:
        """A test runs from now on."""
        with self.lock:
            self._running[name] = None

    def ended(self, name: str) -> None:
        """It runs no more."""
        with self.lock:
            self._running.pop(name, None)

    def status(self) -> str:
        """See LiveLine."""
        running = ", ".join(self._running) or ("finishing" if self.reports else "preparing")
        return (
            f"[{len(self.reports)}/{self._total}] {console.duration((time.monotonic() - self._since) * 1e3)}  {running}"
        )

    def report(self, report: CaseReport) -> None:
        """How a test ended."""
        self.reports.append(report)
        with self.lock:
            self.pause()
            if self._as_json:
                console.show_json(_facts(report))
            elif report.is_bad or not self.quiet:
                self._show(report)

    def _show(self, report: CaseReport) -> None:
        status, name = (
            click.style(f"{report.status:<7}", fg=COLORS[report.status]),
            f"{report.case.name:<{self._width}}",
        )
        took = console.duration(report.duration_ms) if report.status in ("passed", "updated", "failed") else ""
        place = f"{self._file}:{report.case.line}" if report.is_bad else ""
        console.show(f"{status}  {name}  {took:>8}  {place}".rstrip())
        for line in report.lines:
            text, color = console.printable(line), {"-": "green", "+": "red"}.get(line[:1])
            console.show(f"  {click.style(text, fg=color) if color else text}")
        if report.is_bad and report.stderr.strip():
            console.show("  the end of its standard error:")
            for line in console.printable(report.stderr).rstrip("\n").split("\n"):
                console.show(f"    {line}")

    def close(self, duration_ms: float) -> None:
        """The last lines."""
        if self.quiet:
            return
        counts = Counter(report.status for report in self.reports)
        told = [click.style(f"{counts[name]} {name}", fg=COLORS[name]) for name in ORDER if counts[name]]
        summary = f"{', '.join(told)} in {console.duration(duration_ms)}"
        if self._as_json:
            console.tell(summary)
            return
        console.show()
        if len(self.reports) > REPEATED_FROM:
            for report in self.reports:
                if report.is_bad:
                    console.show(f"{report.status}  {report.case.name}  {self._file}:{report.case.line}")
        console.show(summary)


def _facts(report: CaseReport) -> dict[str, Any]:
    case = report.case
    return {
        "test": case.name,
        "function": case.function,
        "job": case.job,
        "status": report.status,
        "duration_ms": round(report.duration_ms, 3),
        "line": case.line,
        "error_class": report.error.error_class if report.error is not None else None,
        "message": "\n".join(report.lines) or None,
        "stderr_tail": report.stderr or None,
    }


def _write_junit(
    path: Path, reports: Sequence[CaseReport], suite: str, file: Path, started_at: datetime, duration_ms: float
) -> None:
    from runner.files import write_whole
    from runner.junit import junit_xml

    write_whole(path, junit_xml(reports, suite=suite, file=str(file), started_at=started_at, duration_ms=duration_ms))


def _exit_status(reports: Sequence[CaseReport]) -> int:
    statuses = [1 if report.error is None else report.error.exit_status for report in reports if report.is_bad]
    return 1 if 1 in statuses else max(statuses, default=0)
