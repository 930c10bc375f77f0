"""`runner enqueue`."""

from __future__ import annotations

import signal
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from runner.cli import console
from runner.cli.completion import complete_job
from runner.cli.given import open_given, read_given
from runner.cli.groups import ProjectCommand, json_option
from runner.cli.liveline import LiveLine, is_live
from runner.cli.moments import DurationType, MomentType, now
from runner.cli.names import NameType
from runner.cli.project import Project, pass_project
from runner.cli.served import tell_if_unserved
from runner.errors import InvocationError, UsageError

if TYPE_CHECKING:
    from runner.app import Runner
    from runner.ledger import Run
    from runner.runs import Enqueued


@click.command("enqueue", cls=ProjectCommand)
@click.argument("job", shell_complete=complete_job)
@click.option(
    "-i",
    "--input",
    "given",
    metavar="FILE|-|TEXT",
    help="What the run gets: a file, - for stdin, or the text itself. The job's own input without it.",
)
@click.option(
    "--lines", metavar="FILE|-", help="Enqueue a run for each line of a file, or of stdin, that is not empty."
)
@click.option("--at", "run_at", type=MomentType(), metavar="WHEN", help="Not before this moment.")
@click.option("--in", "delay", type=DurationType(), metavar="DURATION", help="Not before so long from now.")
@click.option("--priority", type=int, help="Higher runs first; 0 unless the job's own trigger says otherwise.")
@click.option("--queue", type=NameType(), help="The queue it waits in; that of the job's own trigger, or `default`.")
@click.option("--unique", "unique_key", metavar="KEY", help="Refuse it while a run with this key waits or runs.")
@click.option("--join", is_flag=True, help="With --unique: take the run that has the key instead of refusing.")
@click.option("--wait", is_flag=True, help="Wait for its end and write its output to stdout, as `runner run` would.")
@json_option
@pass_project
def enqueue(
    project: Project, /, job: str, given: str | None, lines: str | None, wait: bool, as_json: bool, **facts: Any
) -> int:
    """Put a run of a job into the queue, for a daemon to carry out.

    Prints the number of the run once it is on the disk: from then on it is not lost, whatever
    happens. The function is pinned in the version that jobs.yaml has now.

    --lines enqueues as many runs as a file has lines, in transactions of some thousand, in constant
    memory; if it has to stop, it tells exactly up to which line it came.

    WHEN is a moment like 2027-01-15T09:00:00Z, DURATION a length of time like 90s, 15m or 1h30m.

    With --json one object a run: run_id, job, created (false if it joined another). With --wait and
    --json one object a run at its end, with the keys of `runs list`. Exit status 1 when the key is
    taken; with --wait that of `runner run`, and 130 when the waiting was interrupted, which leaves
    the run as it is.

    \b
    Examples:
      runner enqueue clean --input day.csv
      runner enqueue report --in 15m --unique report --join
      runner enqueue clean --lines files.txt --queue slow
      runner enqueue report --wait > report.md
    """
    _check(given, lines, facts)
    found = _facts(**facts)
    on_terminal = sys.stdout is not None and sys.stdout.isatty()
    is_quiet = wait or (lines is not None and on_terminal)
    sink = _Sink(job, as_json=as_json, shows=not is_quiet, waits=wait)
    with project.open() as runner:
        runner.config.job(job)
        try:
            _accept(project, given, lines, sink, lambda payloads: runner.enqueue(job, payloads, **found))
        except BaseException:
            if sink.count or lines is not None:
                console.tell(f"{sink.told}, of lines 1 to {sink.lines:,}" if sink.lines else sink.told)
            raise
        try:
            if is_quiet or sink.joined:
                project.say(sink.told)
            if sink.count:
                tell_if_unserved(project, runner)
            return _wait(runner, sink.run_ids, as_json)
        except KeyboardInterrupt:
            project.say("what was accepted goes on all the same; `runner runs cancel` ends it")
            raise


def _check(given: str | None, lines: str | None, facts: dict[str, Any]) -> None:
    if given is not None and lines is not None:
        raise UsageError("--input is for one run and --lines for many: give one of them")
    if facts["run_at"] is not None and facts["delay"] is not None:
        raise UsageError("--at and --in both say when: give one of them")
    if facts["join"] and facts["unique_key"] is None:
        raise UsageError("--join says what to do when a key is taken: give the key with --unique")
    if lines is not None and facts["unique_key"] is not None:
        raise UsageError("--unique lets one run in, and --lines is for many: give one of them")


def _facts(
    run_at: datetime | None,
    delay: timedelta | None,
    priority: int | None,
    queue: str | None,
    unique_key: str | None,
    join: bool,
) -> dict[str, Any]:
    """The facts of the run, as `Runner.enqueue` takes them."""
    from runner.runs import OnConflict

    try:
        run_at = run_at if delay is None else now() + delay
    except OverflowError as error:
        raise UsageError("--in is longer than time lasts here") from error
    on_conflict = OnConflict.JOIN if join else OnConflict.REFUSE
    named = {"queue": queue, "unique_key": unique_key, "on_conflict": on_conflict}
    return {"run_at": run_at, "priority": priority, **named}


class _Sink:
    """Takes what was accepted, shows it and counts it."""

    def __init__(self, job: str, *, as_json: bool, shows: bool, waits: bool) -> None:
        self._job, self._as_json, self._shows, self._waits = job, as_json, shows, waits
        self.run_ids = array("q")
        """All of them, if they are to be waited for."""
        self.count = self.joined = self.lines = 0
        self._first = self._last = 0

    def take(self, enqueued: Sequence[Enqueued], last_line: int = 0) -> None:
        """These are on the disk, and with them every line up to this one."""
        self.lines = last_line
        if enqueued:
            self.count += len(enqueued)
            self.joined += sum(not created for _, created in enqueued)
            self._first, self._last = self._first or enqueued[0].run_id, enqueued[-1].run_id
            if self._waits:
                self.run_ids.extend(run_id for run_id, _ in enqueued)
            if self._shows:
                self._show(enqueued)

    def _show(self, enqueued: Sequence[Enqueued]) -> None:
        if self._as_json:
            for run_id, created in enqueued:
                console.show_json({"run_id": run_id, "job": self._job, "created": created})
        else:
            console.show("\n".join(str(run_id) for run_id, _ in enqueued))

    @property
    def told(self) -> str:
        """`accepted 3 runs: 5 to 7`."""
        if self.joined:
            return f"joined run {self._first}, which has the key"
        if self.count < 2:
            return f"accepted run {self._first}" if self.count else "accepted nothing"
        where = "" if self._last - self._first + 1 == self.count else "among "  # others enqueued at the same time
        return f"accepted {self.count:,} runs: {where}{self._first} to {self._last}"


def _accept(
    project: Project,
    given: str | None,
    lines: str | None,
    sink: _Sink,
    enqueue: Callable[[list[bytes]], list[Enqueued]],
) -> None:
    from runner.bulk import steps
    from runner.runs import MAX_PAYLOAD_BYTES

    if lines is None:
        payload = read_given(project, given, most=MAX_PAYLOAD_BYTES)
        with _unbroken():
            sink.take(enqueue([payload]))
        return
    with open_given(lines) as file, _Counting(sink, live=is_live(), quiet=project.quiet) as counting:
        for step in steps(file):
            with _unbroken():
                accepted = enqueue(step.lines) if step.lines else []
                counting.pause()
                sink.take(accepted, step.last)


class _Counting(LiveLine):
    """Says how many runs have been accepted so far."""

    def __init__(self, sink: _Sink, *, live: bool, quiet: bool) -> None:
        super().__init__(live=live, quiet=quiet)
        self._sink = sink

    def status(self) -> str:
        """See LiveLine."""
        return f"{self._sink.count:,} runs accepted" if self._sink.count else ""


@contextmanager
def _unbroken() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until this is over, so that what was accepted is known."""
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.signal(number, lambda number, _: came.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def _wait(runner: Runner, run_ids: Sequence[int], as_json: bool) -> int:
    """Show each run's end, in order; the exit status that they come to."""
    from runner.watching import ended, exit_status

    def shown() -> Iterator[Run]:
        for run in ended(runner.store, run_ids):
            _show_end(runner, run, as_json)
            yield run

    return exit_status(shown()) if run_ids else 0


def _show_end(runner: Runner, run: Run, as_json: bool) -> None:
    if as_json:
        from runner.cli.runfacts import run_facts

        console.show_json(run_facts(run))
        return
    output = runner.store.result(run.run_id)
    if output is not None:
        console.write(output)
        if sys.stdout.isatty() and output and not output.endswith(b"\n"):
            console.tell()  # what follows on the terminal begins on a line of its own
        return
    attempts = runner.store.attempts(run.run_id)
    error = InvocationError(
        run.message or "no reason was given", stderr_tail=attempts[-1].stderr_tail if attempts else ""
    )
    console.tell_error(error, subject=f"run {run.run_id} of {run.job} is {run.status.value}")
