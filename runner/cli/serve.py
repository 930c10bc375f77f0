"""`runner serve`."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from runner.cli import console
from runner.cli.groups import ProjectCommand, no_reuse_option
from runner.cli.project import Project, pass_project
from runner.errors import RunnerError

if TYPE_CHECKING:
    from runner.journal import Journal

COLORS = {"error": "red", "warning": "yellow", "debug": None, "info": "green"}


class Seconds(click.FloatRange):
    """A length of time that ends."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See click.ParamType."""
        seconds = float(super().convert(value, param, ctx))
        if not math.isfinite(seconds):
            self.fail(f"expected a number of seconds, got {value}", param, ctx)
        return seconds


@click.command("serve", cls=ProjectCommand)
@click.option("--lanes", type=click.IntRange(1, 1024), help="How many runs at once; one a core unless told otherwise.")
@click.option("--queue", "queues", multiple=True, help="Take runs of this queue only; may be given several times.")
@click.option(
    "--grace",
    "grace_seconds",
    type=Seconds(0),
    default=30.0,
    show_default=True,
    help="Seconds that running work has after SIGTERM; what is left then goes back to the queue.",
)
@click.option(
    "--lease",
    "lease_seconds",
    type=Seconds(1),
    default=30.0,
    show_default=True,
    help="Seconds after which another daemon takes over the work of one that died.",
)
@click.option("--drain", is_flag=True, help="End as soon as nothing is ready or running.")
@no_reuse_option
@click.option("--json", "as_json", is_flag=True, help="Log JSON, one object a line.")
@click.option("-v", "--verbose", is_flag=True, help="Log what went well, too.")
@pass_project
def serve(
    project: Project,
    lanes: int | None,
    queues: tuple[str, ...],
    grace_seconds: float,
    lease_seconds: float,
    drain: bool,
    as_json: bool,
    verbose: bool,
) -> int:
    """Serve the jobs, until told to end.

    Fires triggers and carries out queued runs.

    The log goes to stderr: with --json one object a line with timestamp, level, message and facts.
    SIGTERM and Ctrl-C drain: running work may finish within --grace, the rest goes back to the queue;
    a second one ends at once. SIGHUP, or a changed jobs.yaml, loads it again; a bad file changes
    nothing. Several daemons may serve one store.

    \b
    Examples:
      runner serve
      runner serve --lanes 8 --queue heavy
      runner enqueue clean --lines names.txt && runner serve --drain
    """
    project.start_ahead()
    from runner.daemon import Daemon, DaemonSettings
    from runner.journal import Journal

    level = "debug" if verbose else "warning" if project.quiet else "info"
    journal = Journal(as_json=as_json, level=level, paint=_paint, clean=console.printable)
    settings = DaemonSettings(
        lanes=lanes,
        queues=frozenset(queues) or None,
        grace_seconds=grace_seconds,
        lease_seconds=lease_seconds,
        drain=drain,
    )
    with _told(journal, as_json), project.open(notify=lambda message: journal.tell("warning", message)) as runner:
        daemon = Daemon(runner, settings, journal)

        def on_stop(number: int, _: FrameType | None) -> None:
            daemon.stop(number)

        def on_reload(_: int, __: FrameType | None) -> None:
            daemon.reload()

        signal.signal(signal.SIGTERM, on_stop)
        signal.signal(signal.SIGINT, on_stop)
        signal.signal(signal.SIGHUP, on_reload)
        return daemon.run()


@contextlib.contextmanager
def _told(journal: Journal, as_json: bool) -> Iterator[None]:
    """Where the log is JSON, what ended the daemon is a line of it, too."""
    try:
        yield
    except RunnerError as error:
        if not as_json:
            raise
        journal.tell("error", str(error), error_class=error.error_class)
        raise click.exceptions.Exit(error.exit_status) from error


def _paint(level: str, text: str) -> str:
    if not sys.stderr.isatty():
        return text
    return click.style(text, fg=COLORS.get(level), dim=level in ("moment", "fact", "debug"))
