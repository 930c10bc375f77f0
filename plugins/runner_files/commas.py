"""Records of comma-separated values as RFC 4180 has them: a quoted field may hold line breaks, and a quote
inside of it is doubled. Rows stay the bytes that they are."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

from runner.errors import InvalidInput, InvalidRecord
from runner.records import Limits
from runner_files.lines import Records, Rules, Text, has_empty, in_utf8, line_breaks, split, without_empty

QUOTE = b'"'


class CsvRules(Rules):
    """A row each; all of one file have as many columns. With a header, that of all files is the same."""

    def __init__(self, delimiter: str, *, header: bool) -> None:
        self._delimiter, self._has_header = delimiter, header
        self._columns = 0
        """How many columns a row has; 0 as long as no row was seen."""
        self._first = ""
        """The file whose header the others must have."""

    def begin(self, text: Text, limits: Limits) -> None:
        """See Rules. Raises InvalidInput for another header than that of the files before."""
        if not self._has_header:
            return
        size = self._header_size(text, limits)
        header = bytes(text.data[:size]).removesuffix(b"\n")
        if not header.strip():
            return
        name = text.start.name
        fault = in_utf8(Records(records=[header]), header).refused
        if fault:
            raise InvalidInput(f"{name}:1: the header is {fault[0]}")
        if self.lead and header + b"\n" != self.lead:
            raise InvalidInput(f"{name}:1: its header is not that of {self._first}; read one kind of file at a time")
        self.lead, self._first = header + b"\n", self._first or name
        self._columns = self._count(header)
        text.take(size)

    @staticmethod
    def _header_size(text: Text, limits: Limits) -> int:
        """The length of the first row, of which as much is read as is needed."""
        wanted = limits.block_bytes
        while True:
            text.fill(wanted)
            size, held = header_size(bytes(text.data)), len(text.data)
            if size < held or text.ended or held >= limits.record_bytes:
                return size
            if held >= wanted:
                wanted = min(wanted * 2, limits.record_bytes)

    def whole(self, data: bytearray, end: int) -> int:
        """See Rules. A line break between quotes ends nothing."""
        end = data.rfind(b"\n", 0, end) + 1
        quotes = data.count(QUOTE, 0, end)
        while end and quotes & 1:
            before = data.rfind(b"\n", 0, end - 1) + 1
            quotes -= data.count(QUOTE, before, end)
            end = before
        return end

    def first(self, data: bytes, count: int) -> int:
        """See Rules."""
        end = quotes = 0
        while count:
            start, end = end, data.find(b"\n", end) + 1
            if not end:
                return len(data)
            quotes += data.count(QUOTE, start, end)
            count -= not quotes & 1
        return end

    def records(self, text: bytes) -> Records:
        """See Rules."""
        found = rows(text)
        if not self._columns and found.records:
            self._columns = self._count(found.records[0])
        return in_utf8(self._with_columns(found, quoted=QUOTE in text), text)

    def _with_columns(self, found: Records, *, quoted: bool) -> Records:
        separator, wanted = self._delimiter.encode(), self._columns - 1
        odd = [index for index, row in enumerate(found.records) if row.count(separator) != wanted or quoted]
        refused = dict(found.refused)
        for index in odd:
            row = found.records[index]
            columns = self._count(row)
            if row.count(QUOTE) & 1:
                refused[index] = InvalidRecord("a quoted field does not end")
            elif columns != self._columns:
                refused[index] = InvalidRecord(f"{columns} columns where {self._columns} are expected")
        return Records(records=found.records, refused=refused, starts=found.starts)

    def _count(self, row: bytes) -> int:
        if QUOTE not in row:
            return row.count(self._delimiter.encode()) + 1
        lines = row.decode("utf-8", "replace").splitlines(keepends=True)
        return len(next(csv.reader(lines, delimiter=self._delimiter), ()))


def header_size(data: bytes) -> int:
    """The length of the first row with its line break; all of the data if it does not end."""
    end = quotes = 0
    while True:
        start, end = end, data.find(b"\n", end) + 1
        if not end:
            return len(data)
        quotes += data.count(QUOTE, start, end)
        if not quotes & 1:
            return end


def row_breaks(text: bytes) -> int:
    """How many line breaks there are that end a row."""
    if QUOTE not in text:
        return line_breaks(text)
    return sum(part.count(b"\n") for part in text.split(QUOTE)[::2])


def rows(text: bytes) -> Records:
    """The rows of a text; empty lines are none."""
    lines = split(text)
    if QUOTE not in text:
        if has_empty(text):
            return without_empty(lines)
        return Records(records=lines)
    records, starts = [], []
    for row, offset, number in _joined(lines):
        if row.rstrip(b"\r"):
            records.append(row)
            starts.append((offset, number))
    return Records(records=records, starts=starts)


def _joined(lines: Sequence[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Rows whose quoted fields hold line breaks, put together again; each with its offset and line."""
    open_lines: list[bytes] = []
    offset = number = 0
    for line in lines:
        odd = line.count(QUOTE) & 1
        if open_lines or odd:
            open_lines.append(line)
            if not odd or len(open_lines) == 1:
                continue
            line = b"\n".join(open_lines)
        yield line, offset, number
        offset += len(line) + 1
        number += line.count(b"\n") + 1
        open_lines = []
    if open_lines:
        yield b"\n".join(open_lines), offset, number
