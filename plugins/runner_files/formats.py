"""The sources and sinks of the formats that are lines, made from their settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from runner.contracts import Host
from runner.partial import is_stream
from runner.records import Limits, Position, Reader, Sink, Source
from runner_files.commas import CsvRules, row_breaks
from runner_files.framing import Framing, Lines, WithHeader
from runner_files.inputs import InputFile, find
from runner_files.lines import JsonRules, LineReader, Rules
from runner_files.outputs import FileSink, StreamSink
from runner_files.settings import STREAM, CsvInput, CsvOutput, FileInput, FileOutput

MakeRules = Callable[[], Rules]


class LineSource(Source):
    """Files of lines, or stdin."""

    def __init__(self, folder: Path, settings: FileInput, rules: MakeRules) -> None:
        self._folder, self._settings, self._rules = folder, settings, rules
        self._files: list[InputFile] | None = None
        self.resumable = settings.path != STREAM

    def parts(self) -> Mapping[str, str]:
        """See Source."""
        if not self.resumable:
            return {"stdin": "comes once"}
        return {file.name: file.state for file in self._found()}

    def open(self, limits: Limits, position: Position | None = None) -> Reader:
        """See Source."""
        return LineReader(self._found() if self.resumable else (), self._rules(), limits, position)

    def _found(self) -> list[InputFile]:
        if self._files is None:
            self._files = find(self._folder, self._settings.path, self._settings.sort)
        return self._files


def line_source(settings: FileInput, host: Host) -> Source:
    """A source of lines."""
    return LineSource(host.project_dir, settings, Rules)


def json_source(settings: FileInput, host: Host) -> Source:
    """A source of JSON lines."""
    return LineSource(host.project_dir, settings, JsonRules)


def csv_source(settings: CsvInput, host: Host) -> Source:
    """A source of rows."""
    return LineSource(host.project_dir, settings, lambda: CsvRules(settings.delimiter, header=settings.header))


def line_sink(settings: FileOutput, host: Host) -> Sink:
    """A sink of lines."""
    return _sink(settings, host, Lines())


def csv_sink(settings: CsvOutput, host: Host) -> Sink:
    """A sink of rows."""
    return _sink(settings, host, WithHeader() if settings.header else Lines(row_breaks))


def _sink(settings: FileOutput, host: Host, framing: Framing) -> Sink:
    if settings.path == STREAM:
        return StreamSink(None, "standard output", framing)
    path = host.project_dir / settings.path
    if is_stream(path):
        return StreamSink(path, settings.path, framing)
    return FileSink(host.project_dir, settings.path, framing, level=settings.level)
