"""Sources and sinks of batch runs: JSON lines, CSV, plain lines, in files, packed files, stdin and stdout.

Hook implementations only; what reads and writes is imported when a batch runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runner.contracts import Host, Provider
from runner.hookspecs import hookimpl
from runner.records import Sink, Source
from runner_files.settings import CsvInput, CsvOutput, FileInput, FileOutput


def _deferred(name: str) -> Callable[[Any, Host], Any]:
    def create(settings: Any, host: Host) -> Any:
        from runner_files import formats

        return getattr(formats, name)(settings, host)

    return create


@hookimpl
def runner_sources() -> list[Provider[Source]]:
    """The formats that can be read."""
    return [
        Provider(
            name="jsonl",
            summary="JSON lines: a JSON value a line, in UTF-8",
            create=_deferred("json_source"),
            settings=FileInput,
            suffixes=(".jsonl", ".ndjson"),
        ),
        Provider(
            name="csv",
            summary="Comma-separated values, quoted as RFC 4180 has it",
            create=_deferred("csv_source"),
            settings=CsvInput,
            suffixes=(".csv",),
        ),
        Provider(
            name="lines",
            summary="Plain lines, as the bytes that they are",
            create=_deferred("line_source"),
            settings=FileInput,
            suffixes=(".txt", ".log"),
        ),
    ]


@hookimpl
def runner_sinks() -> list[Provider[Sink]]:
    """The formats that can be written."""
    return [
        Provider(
            name="jsonl",
            summary="JSON lines",
            create=_deferred("line_sink"),
            settings=FileOutput,
            suffixes=(".jsonl", ".ndjson"),
        ),
        Provider(
            name="csv",
            summary="Comma-separated values, with one header",
            create=_deferred("csv_sink"),
            settings=CsvOutput,
            suffixes=(".csv",),
        ),
        Provider(
            name="lines",
            summary="Plain lines",
            create=_deferred("line_sink"),
            settings=FileOutput,
            suffixes=(".txt", ".log"),
        ),
    ]
