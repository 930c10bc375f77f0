"""Errors and log lines as bytes, on their way between a worker and the app.

JSON and nothing that could run code where it is read: the app does not trust what a worker tells.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from runner.errors import (
    BadOutput,
    Exited,
    GrantMissing,
    HostCallFailed,
    HostCallRefused,
    InvocationError,
    OutOfMemory,
    OutputTooLarge,
    ReplayDiverged,
    TimedOut,
    Trapped,
    WorkerLost,
)
from runner.models import LogEntry, LogLevel

UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What decoding forged bytes may raise."""

_LATEST_MOMENT = 1e11
_logs_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

_FIELDS: dict[type[InvocationError], tuple[str, ...]] = {
    Trapped: ("trap", "detail", "functions"),
    Exited: ("code",),
    TimedOut: ("timeout_seconds",),
    OutOfMemory: ("memory_limit_mb", "detail"),
    OutputTooLarge: ("limit_bytes",),
    GrantMissing: ("host_function", "wanted"),
    HostCallRefused: ("host_function", "cause", "reason"),
    HostCallFailed: ("host_function", "cause", "reason"),
    ReplayDiverged: ("number", "detail"),
    WorkerLost: ("reason",),
    BadOutput: ("detail",),
}
"""The attributes that make an error again on the other side. Stopped is not among them: that is never
what a worker tells."""


def encode_error(error: InvocationError) -> bytes:
    """What `decode_error` reads. Raises KeyError for an error that may not travel."""
    names = _FIELDS[type(error)]
    fields = {name: getattr(error, name) for name in names}
    return json.dumps([type(error).__name__, fields, error.stderr_tail]).encode()


def decode_error(data: bytes) -> InvocationError:
    """The error. Raises one of UNREADABLE."""
    classes = {kind.__name__: kind for kind in _FIELDS}
    name, fields, tail = json.loads(data)
    kind: Any = classes[name]
    arguments = [fields[field] for field in _FIELDS[kind] if field != "functions"]
    named = {"functions": fields["functions"]} if kind is Trapped else {}
    made: InvocationError = kind(*arguments, **named, stderr_tail=str(tail))
    f"{made}{made.stderr_tail}".encode()  # a lone surrogate is a ValueError: nobody could store it
    return made


def encode_logs(entries: Sequence[LogEntry]) -> bytes:
    """What `decode_logs` reads."""
    return _logs_encoder.encode(entries).encode("utf-8", "surrogatepass")


def decode_logs(data: bytes) -> tuple[LogEntry, ...]:
    """The log lines. Raises one of UNREADABLE."""
    entries = tuple(
        LogEntry(LogLevel(level), str(message), float(moment))
        for level, message, moment in json.loads(data.decode("utf-8", "replace"))
    )
    if not all(0 <= entry.timestamp < _LATEST_MOMENT for entry in entries):
        raise ValueError("a log line of no time")
    "".join([entry.message for entry in entries]).encode()
    return entries
