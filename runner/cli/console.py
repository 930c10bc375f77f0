"""What is written to the terminal: results on stdout, everything else on stderr.

Results of guests pass as the bytes they are. Text that a guest may have written is shown with its
control characters made visible, so that it cannot steer a terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Any, TextIO

import click

from runner.errors import ConfigError, FileUnavailable, RunnerError

_SPANS = ((172_800, 86_400, "d"), (7_200, 3_600, "h"), (120, 60, "min"), (0, 1, "s"))
"""From how many seconds on a time is told in units of how many seconds."""
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


def printable(text: str) -> str:
    """The text with control characters, but tabs and line breaks, written as `\\x1b`."""
    return text.translate(_CONTROL)


def tell(message: str = "") -> None:
    """A line on stderr."""
    click.echo(message, err=True)


def tell_error(error: RunnerError, subject: str = "", *, tail: bool = True) -> None:
    """An error on stderr, with the end of what the guest logged if `tail`."""
    if isinstance(error, ConfigError):
        for problem in error.problems:
            tell(printable(str(problem)))
        message = f"{counted(len(error.problems), 'problem')} in {error.problems[0].file}"
    else:
        message = printable(str(error))
    prefix = f"{subject}: " if subject else ""
    tell(f"{click.style('Error:', fg='red', bold=True)} {prefix}{message}")
    stderr_tail: str = getattr(error, "stderr_tail", "")
    if tail and stderr_tail.strip():
        tell("the end of its standard error:")
        for line in printable(stderr_tail).rstrip("\n").split("\n"):
            tell(f"  {line}")


def show(text: str = "") -> None:
    """A line on stdout. Raises FileUnavailable when it cannot be written, BrokenPipeError when nobody reads."""
    with _Writing():
        click.echo(text)


def show_json(facts: Mapping[str, Any]) -> None:
    """One object as one line of JSON on stdout, in UTF-8 whatever the locale says."""
    write(json.dumps(facts, ensure_ascii=False, separators=(", ", ": ")).encode("utf-8", "backslashreplace") + b"\n")


def write(data: bytes) -> None:
    """Bytes on stdout, untouched."""
    with _Writing():
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def flush() -> None:
    """Let everything reach stdout; for the end of the program."""
    if sys.stdout is not None:
        with _Writing():
            sys.stdout.flush()


def failure(stream: TextIO | None) -> OSError | None:
    """Why a stream does not take what is waiting for it; None when it does, or is not there."""
    try:
        if stream is not None:
            stream.flush()
    except OSError as error:
        return error
    return None


def cannot_write(error: OSError) -> FileUnavailable:
    """The error of ours for a stdout that refuses."""
    return FileUnavailable(f"standard output cannot be written: {error.strerror}")


def show_table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """A table on stdout; see `table`."""
    for line in table(headers, rows, right=right):
        show(line)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> list[str]:
    """Aligned lines, the headers first. Columns whose header is in `right` are aligned to the right."""
    cells = [[click.style(header, bold=True) for header in headers], *rows]
    lengths = [[len(click.unstyle(cell)) for cell in row] for row in cells]
    widths = [max(column) for column in zip(*lengths, strict=True)]
    lines = []
    for row, sizes in zip(cells, lengths, strict=True):
        parts = []
        for header, cell, size, width in zip(headers, row, sizes, widths, strict=True):
            padding = " " * (width - size)
            parts.append(padding + cell if header in right else cell + padding)
        lines.append("  ".join(parts).rstrip())
    return lines


def duration(milliseconds: float) -> str:
    """`0.4 ms`, `12 ms`, `1.2 s`, `3 min 05 s`."""
    if milliseconds < 10:
        return f"{milliseconds:.1f} ms"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 59_950:
        return f"{milliseconds / 1e3:.1f} s"
    minutes, seconds = divmod(round(milliseconds / 1e3), 60)
    return f"{minutes} min {seconds:02} s"


def size(count: int) -> str:
    """`512 B`, `3.1 kB`, `20.4 MB`: decimal units."""
    if count < 1000:
        return f"{count} B"
    amount = float(count)
    for unit in ("kB", "MB", "GB"):
        amount /= 1000
        if amount < 999.95 or unit == "GB":
            return f"{amount:.1f} {unit}"
    raise AssertionError("the last unit takes everything")


def plain(value: Any) -> Any:
    """A value of our models as JSON has it: times in RFC 3339 UTC, enums as their values."""
    if isinstance(value, datetime):
        return moment(value.timestamp())
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def counted(count: int, noun: str) -> str:
    """`1 job`, `3 jobs`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def moment(timestamp: float) -> str:
    """Seconds since the epoch in RFC 3339, UTC, to the millisecond."""
    return datetime.fromtimestamp(timestamp, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def relative(moment: datetime, now: datetime) -> str:
    """`just now`, `12 s ago`, `3 h ago`, `in 4 min`: for people, beside or in place of the moment itself."""
    seconds = (now - moment).total_seconds()
    if abs(seconds) < 1:
        return "just now"
    amount, unit = next((abs(seconds) // length, unit) for least, length, unit in _SPANS if abs(seconds) >= least)
    return f"in {amount:.0f} {unit}" if seconds < 0 else f"{amount:.0f} {unit} ago"


class _Writing:
    """Turns a stdout that refuses into an error of ours. Nobody reading is another matter."""

    def __enter__(self) -> None:
        if sys.stdout is None:
            raise FileUnavailable("standard output is closed")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise cannot_write(error) from error
