"""Whether what came of a case is what had to come of it, and in what words that is told.

Pure: files with expected outputs are read through a function that is given. How cases are run is in
runner.caseruns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from runner import differences
from runner.cases import ERRORS
from runner.config import CaseConfig, Expectation, ExpectedOutput
from runner.errors import Exited, FileUnavailable, RunnerError, Trapped
from runner.models import LogEntry, LogLevel
from runner.yamlnodes import shorten

SHOWN_FAILURES = 3
"""So many failed records are told one by one."""
SHOWN_MESSAGE = 300
TAIL_LINES = 20
"""So much of what was logged is told."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of a case. It succeeded if it has no `error_class`."""

    output: bytes | None = None
    """None where there is none: it failed, or has no output of its own."""
    error_class: str | None = None
    message: str = ""
    """The error's."""
    exit_code: int | None = None
    trap: str | None = None
    stderr: str = ""
    """The end of what was logged to standard error."""
    counts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Of records, by the names that an Expectation has; empty where there are none."""
    failures: Sequence[str] = ()
    """How records failed, the first ones."""
    steps: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """How a pipeline's steps ended."""
    duration_ms: float = 0.0

    @classmethod
    def of_error(cls, error: RunnerError, **facts: Any) -> Outcome:
        """That of a failure."""
        return cls(
            error_class=error.error_class,
            message=str(error),
            exit_code=error.code if isinstance(error, Exited) else None,
            trap=error.trap if isinstance(error, Trapped) else None,
            **{"stderr": getattr(error, "stderr_tail", ""), **facts},
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What is not as it had to be."""

    lines: tuple[str, ...] = ()
    """In words; those that begin with - or + belong to a difference. Empty: all is well."""
    update: tuple[Path, bytes] | None = None
    """The file with the expected output and what would have to stand there, if nothing else is wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseReport:
    """How a case ended, for whoever shows it."""

    case: CaseConfig
    status: str
    """`passed`, `updated` (its expected output was written), `failed`, `error` (it could not be run) or
    `skipped`."""
    duration_ms: float = 0.0
    """In the guest, for a function; else from beginning to end."""
    lines: tuple[str, ...] = ()
    """Why it is not `passed`."""
    stderr: str = ""
    """The end of what its guests logged to standard error."""
    error: RunnerError | None = None
    """Why it could not be run."""

    @property
    def is_bad(self) -> bool:
        """Whether somebody has to look at it."""
        return self.status in ("failed", "error")


def logged(entries: Sequence[LogEntry]) -> str:
    """The end of what was logged, as a person reads it."""
    return "\n".join(
        entry.message if entry.level is LogLevel.STDERR else f"[{entry.level.value}] {entry.message}"
        for entry in entries[-TAIL_LINES:]
    )


def judge(expect: Expectation, outcome: Outcome, read: Callable[[Path], bytes], folder: Path) -> Verdict:
    """Compare. `read` raises FileUnavailable for a file that cannot be read; `folder` is that of jobs.yaml."""
    lines = [*_ending(expect, outcome), *_counts(expect, outcome), *_steps(expect, outcome)]
    output = expect.output
    if output is None or outcome.error_class is not None:
        return Verdict(lines=tuple(lines))
    if outcome.output is None:
        return Verdict(lines=(*lines, "an output is expected, and what was run has none of its own"))
    if output.form == "path":
        told = _compared_with_file(output.value, outcome.output, read, folder)
        update = (output.value, outcome.output) if told and not lines else None
        return Verdict(lines=(*lines, *told), update=update)
    return Verdict(lines=(*lines, *_compared(output, outcome.output)))


# How it ended


def _ending(expect: Expectation, outcome: Outcome) -> list[str]:
    if expect.succeeds:
        return [] if outcome.error_class is None else [f"expected it to succeed, and it failed: {_told(outcome)}"]
    if outcome.error_class is None:
        wanted = f"to fail with {expect.error}" if expect.error else "to fail"
        return [f"expected it {wanted}, and it succeeded; its output:", *differences.beginning(outcome.output or b"")]
    lines = []
    if expect.error is not None and not is_a(outcome.error_class, expect.error):
        lines.append(f"expected {expect.error}, got {_told(outcome)}")
    elif expect.exit_code not in (None, outcome.exit_code):
        lines.append(f"expected exit code {expect.exit_code}, got {outcome.exit_code}")
    elif expect.trap not in (None, outcome.trap):
        lines.append(f"expected trap {expect.trap}, got {outcome.trap}: {_told(outcome)}")
    if expect.message is not None and expect.message not in outcome.message and expect.message not in outcome.stderr:
        where = "its message or standard error" if outcome.stderr else "its message, and nothing was logged"
        lines.append(f"expected {shorten(expect.message)} in {where}; the message: {_told(outcome)}")
    return lines


def is_a(error_class: str, wanted: str) -> bool:
    """Whether an error of the one class is one of the other; of classes that are not ours only the same name
    is."""
    kind = ERRORS.get(error_class)
    return error_class == wanted or (kind is not None and issubclass(kind, ERRORS[wanted]))


def _told(outcome: Outcome) -> str:
    message = differences.visible(outcome.message.replace("\n", " "))
    return f"{outcome.error_class}: {message[:SHOWN_MESSAGE]}{'…' if len(message) > SHOWN_MESSAGE else ''}"


# Records and steps


def _counts(expect: Expectation, outcome: Outcome) -> list[str]:
    if not outcome.counts:
        return []
    wanted = {**({"failed": 0} if expect.succeeds else {}), **expect.counts}
    lines = []
    for name, number in wanted.items():
        got = outcome.counts[name]
        if got == number:
            continue
        lines.append(f"{name}: expected {number:,}, got {got:,}")
        if name == "failed" and outcome.failures:
            more = got - len(outcome.failures)
            lines += [
                *(f"  {failure}" for failure in outcome.failures),
                *([f"  and {more:,} more"] if more > 0 else []),
            ]
    return lines


def _steps(expect: Expectation, outcome: Outcome) -> list[str]:
    return [
        f"step {name}: expected {status}, got {outcome.steps.get(name, 'nothing')}"
        for name, status in expect.steps.items()
        if outcome.steps.get(name) != status
    ]


# Output


def _compared_with_file(path: Path, output: bytes, read: Callable[[Path], bytes], folder: Path) -> list[str]:
    shown = path.relative_to(folder) if path.is_relative_to(folder) else path
    try:
        expected = read(path)
    except FileUnavailable as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return [
                f"{shown} is not there yet; `runner test --update` writes it. The output:",
                *differences.beginning(output),
            ]
        raise
    lines = differences.text_or_bytes(expected, output)
    return [f"the output differs from {shown}: {lines[0]}", *lines[1:]] if lines else []


def _compared(expected: ExpectedOutput, output: bytes) -> list[str]:
    value = expected.value
    if expected.form == "text":
        lines = differences.text_or_bytes(value.encode(), output)
        return [f"the output differs: {lines[0]}", *lines[1:]] if lines else []
    if expected.form == "json":
        return _compared_json(value, output)
    text = output.decode(errors="replace")
    if expected.form == "contains":
        found, wanted = value in text, f"expected {shorten(value)} somewhere in the output"
    else:
        found, wanted = (
            re.search(value, text, re.MULTILINE) is not None,
            f"nothing in the output matches {shorten(value)}",
        )
    return [] if found else [f"{wanted}:", *differences.beginning(output)]


def _compared_json(expected: Any, output: bytes) -> list[str]:
    try:
        got = json.loads(output.decode(), parse_constant=_no_json)
    except (ValueError, RecursionError) as error:
        reason = "too many levels" if isinstance(error, RecursionError) else str(error)
        return [f"the output is no JSON ({reason}):", *differences.beginning(output)]
    lines = differences.json_values(expected, got)
    return ["the output differs:", *(f"  {line}" for line in lines)] if lines else []


def _no_json(word: str) -> Any:
    raise ValueError(f"{word} is no number")
