"""Sources and sinks of batch runs: JSON lines, CSV, plain lines and whole files, packed or not, stdin and
stdout, SQLite, Parquet.

Hook implementations only; what reads and writes is imported when a batch runs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from runner.contracts import Availability, Host, Provider
from runner.hookspecs import hookimpl
from runner.records import Sink, Source
from runner_files.settings import (
    CsvInput,
    CsvOutput,
    FileInput,
    FileOutput,
    FilesInput,
    FilesOutput,
    ParquetInput,
    ParquetOutput,
    SqliteInput,
    SqliteOutput,
)


def _made(module: str, name: str) -> Callable[[Any, Host], Any]:
    def create(settings: Any, host: Host) -> Any:
        return getattr(importlib.import_module(f"runner_files.{module}"), name)(settings, host)

    return create


def _parquet_available() -> Availability:
    from runner_files.parquet import available

    return available()


_JSON, _CSV, _TEXT = (".jsonl", ".ndjson"), (".csv",), (".txt", ".log")
_DATABASE, _PARQUET = (".db", ".sqlite", ".sqlite3"), (".parquet",)


@hookimpl
def runner_sources() -> list[Provider[Source]]:
    """The formats that can be read."""

    def source(
        name: str, summary: str, make: Any, settings: type[Any], *suffixes: str, **more: Any
    ) -> Provider[Source]:
        return Provider(name=name, summary=summary, create=make, settings=settings, suffixes=suffixes, **more)

    return [
        source("jsonl", "JSON lines, in UTF-8", _made("formats", "json_source"), FileInput, *_JSON),
        source("csv", "Comma-separated values (RFC 4180)", _made("formats", "csv_source"), CsvInput, *_CSV),
        source("lines", "Plain lines, as the bytes they are", _made("formats", "line_source"), FileInput, *_TEXT),
        source("files", "Whole files", _made("wholefiles", "files_source"), FilesInput),
        source("sqlite", "A table or query of SQLite", _made("tables", "sqlite_source"), SqliteInput, *_DATABASE),
        source(
            "parquet",
            "Rows of Parquet files (extra `parquet`)",
            _made("parquet", "parquet_source"),
            ParquetInput,
            *_PARQUET,
            available=_parquet_available,
        ),
    ]


@hookimpl
def runner_sinks() -> list[Provider[Sink]]:
    """The formats that can be written."""

    def sink(name: str, summary: str, make: Any, settings: type[Any], *suffixes: str, **more: Any) -> Provider[Sink]:
        return Provider(name=name, summary=summary, create=make, settings=settings, suffixes=suffixes, **more)

    return [
        sink("jsonl", "JSON lines", _made("formats", "line_sink"), FileOutput, *_JSON),
        sink("csv", "Comma-separated values, with one header", _made("formats", "csv_sink"), CsvOutput, *_CSV),
        sink("lines", "Plain lines", _made("formats", "line_sink"), FileOutput, *_TEXT),
        sink("files", "A folder with a file for each record", _made("wholefiles", "files_sink"), FilesOutput),
        sink("sqlite", "A table of SQLite", _made("tabletarget", "sqlite_sink"), SqliteOutput, *_DATABASE),
        sink(
            "parquet",
            "A Parquet file (extra `parquet`)",
            _made("parquet", "parquet_sink"),
            ParquetOutput,
            *_PARQUET,
            available=_parquet_available,
        ),
    ]
