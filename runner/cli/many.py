"""What commands have in common that do the same to many: they ask first, count, and tell what failed."""

from __future__ import annotations

import sys
from types import TracebackType

import click

from runner.cli import console
from runner.cli.progress import Counter, is_live
from runner.cli.project import Project
from runner.errors import RunnerError

SHOWN = 10
"""So many errors are shown one by one."""


def confirm(question: str, number: int, *, yes: bool) -> None:
    """Let a person at a terminal confirm what is done to more than one. Raises click.Abort."""
    if number > 1 and not yes and sys.stdin is not None and sys.stdin.isatty():
        click.confirm(question, abort=True, err=True)


class Many:
    """Counts while something is done to many; a context manager. Ended by an error, it tells how far it
    came."""

    def __init__(self, project: Project, total: int, verb: str) -> None:
        self._total, self._verb = total, verb
        self._counter = Counter(live=is_live() and not project.quiet)
        self.done = self.failed = 0

    def __enter__(self) -> Many:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._counter.clear()
        if self.failed > SHOWN:
            console.tell(f"and {self.failed - SHOWN:,} more like this")
        if error is not None and self.done:
            console.tell(f"{self._verb} before that: {self.done:,} of {self._total:,}")

    def count(self, number: int = 1) -> None:
        """So many more are done."""
        self.done += number
        self._counter.show(f"{self._verb}: {self.done:,} of {self._total:,}")

    def fail(self, error: RunnerError) -> None:
        """One of them cannot be done."""
        self.failed += 1
        if self.failed <= SHOWN:
            self._counter.clear()
            console.tell_error(error)
