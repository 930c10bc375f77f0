"""What commands have in common that do the same to many: they ask first, count, and tell what failed."""

from __future__ import annotations

import sys
from types import TracebackType

import click

from runner.cli import console
from runner.cli.liveline import LiveLine, is_live
from runner.cli.project import Project
from runner.errors import RunnerError

SHOWN = 10
"""So many errors are shown one by one."""


def confirm(question: str, number: int, *, yes: bool) -> None:
    """Let a person at a terminal confirm what is done to more than one. Raises click.Abort."""
    if number > 1 and not yes and sys.stdin is not None and sys.stdin.isatty():
        click.confirm(question, abort=True, err=True)


class Many(LiveLine):
    """Counts while something is done to many. Ended by an error, it tells how far it came."""

    def __init__(self, project: Project, total: int, verb: str, *, is_bulk: bool) -> None:
        """`is_bulk`: they were not named one by one, so that a person at a terminal is told of their number
        and not of each."""
        super().__init__(live=is_live(), quiet=project.quiet)
        self._total, self._verb, self._is_bulk = total, verb, is_bulk
        self.done = self.failed = 0

    def status(self) -> str:
        """See LiveLine."""
        return f"{self._verb}: {self.done:,} of {self._total:,}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self.failed > SHOWN:
            console.tell(f"and {self.failed - SHOWN:,} more like this")
        if error is not None and self.done:
            console.tell(f"{self._verb} before that: at least {self.done:,} of {self._total:,}")

    def show_again(self, run_id: int, parent_id: int | None) -> None:
        """A run that does the work of another again, on stdout; as JSON if that other is given."""
        if parent_id is None and self._is_bulk and sys.stdout is not None and sys.stdout.isatty():
            return
        with self.lock:
            self.pause()
            if parent_id is None:
                console.show(str(run_id))
            else:
                console.show_json({"run_id": run_id, "parent_id": parent_id})

    def tell_total(self, text: str) -> None:
        """What was done to all of them, for who did not name them."""
        if self._is_bulk:
            self.say(text)

    def fail(self, error: RunnerError) -> None:
        """One of them cannot be done."""
        self.failed += 1
        if self.failed <= SHOWN:
            with self.lock:
                self.pause()
                console.tell_error(error)
