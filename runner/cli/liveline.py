"""Lines at the end of a terminal that are rewritten while something runs, and what is said above them."""

from __future__ import annotations

import os
import re
import sys
import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TypeVar

import click
from click.globals import resolve_color_default

from runner.cli import console

REDRAW_SECONDS = 0.1
_CLEAR = "\r\x1b[2K"
_UP = "\x1b[1A\x1b[2K"
_STYLE = re.compile(r"(\x1b\[[0-9;]*m)")

Self = TypeVar("Self", bound="LiveLine")


def is_live() -> bool:
    """Whether stderr is a terminal whose lines can be rewritten."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class LiveLine(ABC):
    """A status line on stderr, or several; a context manager. Where it is not live, only what is said is shown. Safe to
    use from several threads."""

    def __init__(self, *, live: bool, quiet: bool) -> None:
        self.quiet, self.live = quiet, live and not quiet
        self.lock = threading.RLock()
        self._ended = threading.Event()
        self._lines = 0
        self._is_plain = resolve_color_default() is False
        self._thread = threading.Thread(target=self._redraw, name="progress", daemon=True)

    @abstractmethod
    def status(self) -> str:
        """What is shown now, with line breaks between lines; empty: nothing. Called with the lock held."""

    wants_ticks: bool = False
    """Whether `tick` is to be called where nothing is live."""

    def tick(self) -> None:  # noqa: B027
        """Called ten times a second, in a thread of its own."""

    def __enter__(self: Self) -> Self:
        if self.live or self.wants_ticks:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self.pause()

    def say(self, message: str) -> None:
        """A line of its own; the status line moves down."""
        if not self.quiet:
            with self.lock:
                self.pause()
                console.tell(console.printable(message))

    def pause(self) -> None:
        """Take the status line away, so that something else can be written to the terminal."""
        if self.live:
            with self.lock:
                self._write(self._clear())

    def _redraw(self) -> None:
        while not self._ended.wait(REDRAW_SECONDS):
            self.tick()
            with self.lock:
                text = self.status() if self.live else ""
                if text:
                    columns, rows = size()
                    text = click.unstyle(text) if self._is_plain else text
                    lines = [cut(line, columns - 1) for line in text.split("\n")[: rows - 1]]
                    self._write(self._clear() + "\n".join(lines))
                    self._lines = len(lines)

    def _clear(self) -> str:
        lines, self._lines = self._lines, 0
        return _CLEAR + _UP * (lines - 1)

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def size() -> tuple[int, int]:
    """Columns and rows of the terminal; stdout may be a file, so it is stderr that counts."""
    columns, rows = os.get_terminal_size(sys.stderr.fileno())
    return columns or 80, rows or 24  # 0 is a terminal that does not know


def cut(line: str, columns: int) -> str:
    """As much of a line as fits, styles not counted."""
    text, room = "", columns
    for piece in _STYLE.split(line):
        if _STYLE.fullmatch(piece):
            text += piece
        else:
            text += piece[:room]
            room -= len(piece[:room])
    return text
