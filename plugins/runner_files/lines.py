"""Sources of lines: one record a line, from files in order or from stdin. Lines, JSON lines, CSV.

A block is determined by where it begins and what stands there: the whole records in the next
`block_bytes`, or one that is longer. So a run that goes on reads the same blocks as one that was never
interrupted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from runner.errors import InvalidRecord, SourceChanged
from runner.records import Block, Limits, Place, Position, Reader
from runner_files.inputs import READ_BYTES, InputFile
from runner_files.unpacked import Unpacked, standard_input, unpacked

KEPT_BYTES = 1 << 16
"""What is kept of a record that is too long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """Where something stands in an input."""

    name: str
    offset: int = 0
    """Unpacked bytes before it."""
    line: int = 1

    @property
    def position(self) -> Position:
        """As a checkpoint has it."""
        return {"file": self.name, "offset": self.offset, "line": self.line}


@dataclass(frozen=True, kw_only=True, slots=True)
class Records:
    """The records in some text, and where they stand where that is not one a line."""

    records: Sequence[bytes]
    refused: Mapping[int, InvalidRecord] = field(default_factory=dict)
    starts: Sequence[tuple[int, int]] | None = None
    """For each its offset and its line, both from 0, in the text. None: each has a line, without gaps."""


class TextBlock(Block):
    """Records of some text: one a line, unless it is told which."""

    def __init__(self, text: bytes, start: Start, lines: int, found: Records | None, lead: bytes) -> None:
        self._text, self._start, self._found = text, start, found
        self._offsets: list[int] | None = None
        self.size, self.lead, self.end = len(text), lead, {}
        if found is None:
            self.count = lines
        else:
            self.count, self.refused = len(found.records), found.refused

    def records(self) -> Sequence[bytes]:
        """See Block. Split when they are wanted: a chunk goes to its function as it is."""
        if self._found is None:
            self._found = Records(records=split(self._text))
        return self._found.records

    def chunk(self) -> bytes:
        """See Block. What was read goes on as it is."""
        text = self._text if self._text.endswith(b"\n") else self._text + b"\n"
        return self.lead + text if self.lead else text

    def place(self, index: int) -> Place:
        """See Block."""
        start, found = self._start, self._found
        if found is not None and found.starts is not None:
            offset, line = found.starts[index]
        elif index:
            if self._offsets is None:
                self._offsets = list(accumulate((len(record) + 1 for record in self.records()), initial=0))
            offset, line = self._offsets[index], index
        else:  # which is that of a chunk: it goes to its function without being split
            offset, line = 0, 0
        return Place(start.name, start.line + line, start.offset + offset)


class TooLong(Block):
    """A record of which only the beginning is held."""

    count = 1

    def __init__(self, beginning: bytes, size: int, start: Start, why: str) -> None:
        self._beginning, self._start = beginning, start
        self.size = size
        self.refused = {0: InvalidRecord(why)}
        self.cut_short = (0,)
        self.end = {}

    def records(self) -> Sequence[bytes]:
        """See Block."""
        return [self._beginning]

    def place(self, index: int) -> Place:  # noqa: ARG002
        """See Block."""
        return Place(self._start.name, self._start.line, self._start.offset)


class Text:
    """One input being read: what was read of it and is not given yet."""

    def __init__(self, source: Unpacked, start: Start) -> None:
        self.source, self.start = source, start
        self.data = bytearray()
        self.ended = False

    def fill(self, size: int) -> None:
        """Read until there are so many bytes, or no more. Of a stream: until there are more than before."""
        data = self.data
        while len(data) < size and not self.ended:
            piece = self.source.read(size - len(data))
            self.ended = not piece
            data += piece
            if piece and self.source.is_stream:
                return

    def take(self, size: int) -> tuple[bytes, int]:
        """The first so many bytes, and how many line breaks these have."""
        with memoryview(self.data) as view:
            text = bytes(view[:size])
        del self.data[:size]  # before anything else asks for memory: it would be had from the system each time
        lines = line_breaks(text)
        self._move(size, lines)
        return text, lines

    def put_back(self, text: bytes) -> int:
        """Take back the end of what was taken; how many line breaks it has."""
        self.data[:0] = text
        lines = line_breaks(text)
        self._move(-len(text), -lines)
        return lines

    def drop_line(self) -> int:
        """Leave out a line without holding it; returns its length."""
        size = 0
        while True:
            end = self.data.find(b"\n") + 1
            size += end or len(self.data)
            del self.data[: end or len(self.data)]
            if end or self.ended:
                break
            self.fill(READ_BYTES)
        self._move(size, 1)
        return size

    def _move(self, size: int, lines: int) -> None:
        start = self.start
        self.start = Start(name=start.name, offset=start.offset + size, line=start.line + lines)


class Rules:
    """What a record is in lines of bytes: one a line."""

    lead: bytes = b""
    """What stands before the records of the input."""

    def begin(self, text: Text, limits: Limits) -> None:
        """An input begins: take from it what is no record. Raises InvalidInput."""

    def whole(self, data: bytearray, end: int) -> int:
        """How much of the data up to there is whole records, with their line breaks; 0 for none."""
        return data.rfind(b"\n", 0, end) + 1

    def first(self, data: bytes, count: int) -> int:
        """The length of the first so many records; there may be more."""
        end = 0
        for _ in range(count):
            end = data.index(b"\n", end) + 1
        return end

    def records(self, text: bytes) -> Records | None:  # noqa: ARG002
        """The records of a text that is whole, or the end of an input; None: each line is one, and well."""
        return None


FAR = 60
"""Line breaks that are so far apart, in bytes, are faster jumped to than found byte by byte."""
COPIED_BYTES = 1 << 20


def line_breaks(text: bytes) -> int:
    """How many line breaks there are.

    `count` looks at every byte, `replace` jumps from one to the next (memchr): for lines of 200 bytes that is
    less than a third of the time. It makes a copy, which must not be large.
    """
    if text.find(b"\n") < FAR or len(text) > COPIED_BYTES:
        return text.count(b"\n")
    return len(text) - len(text.replace(b"\n", b""))


def split(text: bytes) -> list[bytes]:
    """The lines of a text, without their line breaks."""
    lines = text.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines


class JsonRules(Rules):
    """A JSON value a line, in UTF-8; empty lines are none. Whether it is JSON is for the function to say."""

    def records(self, text: bytes) -> Records | None:
        """See Rules."""
        if has_empty(text):
            return in_utf8(without_empty(split(text)), text)
        if text.isascii() or _fault(text) is None:
            return None
        return in_utf8(Records(records=split(text)), text)


def has_empty(text: bytes) -> bool:
    """Whether there is an empty line."""
    return text[:1] in (b"\r", b"\n") or _EMPTY_LINE.search(text) is not None


_EMPTY_LINE = re.compile(rb"\n\r?\n")  # a fifth of the time that `in` takes to look for two line breaks


def without_empty(lines: Sequence[bytes]) -> Records:
    """The lines that are not empty."""
    records, starts, offset = [], [], 0
    for number, line in enumerate(lines):
        if line.rstrip(b"\r"):
            records.append(line)
            starts.append((offset, number))
        offset += len(line) + 1
    return Records(records=records, starts=starts)


def in_utf8(found: Records, text: bytes) -> Records:
    """The same records; those that are no UTF-8 are refused."""
    if text.isascii() or _fault(text) is None:
        return found
    refused = dict(found.refused)
    for index, record in enumerate(found.records):
        fault = _fault(record)
        if fault is not None:
            refused[index] = InvalidRecord(f"not UTF-8: byte {record[fault]:#04x} at byte {fault} of the record")
    return Records(records=found.records, refused=refused, starts=found.starts)


def _fault(text: bytes) -> int | None:
    """Where the first byte stands that cannot be UTF-8."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return error.start
    return None


class LineReader(Reader):
    """Reads files one after the other, or stdin when there are none."""

    def __init__(
        self, files: Sequence[InputFile], rules: Rules, limits: Limits, position: Position | None = None
    ) -> None:
        self._files, self._rules, self._limits = files, rules, limits
        self._total = sum(file.size for file in files)
        self._next = 0
        """The file that is opened next."""
        self._text: Text | None = None
        if not files:
            self._begin(Text(standard_input(), Start(name="stdin")))
        elif position is not None:
            self._go_to(Start(name=position["file"], offset=position["offset"], line=position["line"]))

    def read(self) -> Block | None:
        """See Reader."""
        while self._text is not None or self._open_next():
            assert self._text is not None
            block = self._block(self._text)
            if block is not None:
                block.end = self._text.start.position
                return block
            if self._text.ended and not self._text.data:
                self.close()
        return None

    def done(self) -> float | None:
        """See Reader. Measured in bytes of files, packed as they are."""
        if not self._total:
            return None
        before = sum(file.size for file in self._files[: self._next])
        if self._text is not None:
            before += self._text.source.place - self._files[self._next - 1].size
        return before / self._total

    def close(self) -> None:
        """See Reader."""
        if self._text is not None:
            self._text.source.close()
            self._text = None

    def _go_to(self, start: Start) -> None:
        """Read on from there."""
        names = [file.name for file in self._files]
        if start.name not in names:
            raise SourceChanged(f"{start.name}, where the run is to go on, is not among its inputs; use --restart")
        index = names.index(start.name)
        for file in (self._files[0], self._files[index]):  # what begins an input is needed for what follows
            self._begin(Text(unpacked(file), Start(name=file.name)))
            self.close()
        self._next = index + 1
        self._text = Text(unpacked(self._files[index]), start)
        self._text.source.skip(start.offset)

    def _open_next(self) -> bool:
        if self._next == len(self._files):
            return False
        file = self._files[self._next]
        self._next += 1
        self._begin(Text(unpacked(file), Start(name=file.name)))
        return True

    def _begin(self, text: Text) -> None:
        self._text = text
        self._rules.begin(text, self._limits)

    def _block(self, text: Text) -> Block | None:
        """The next block of one input; None where what was read has no record."""
        limits, rules, data = self._limits, self._rules, text.data
        wanted = limits.block_bytes
        while True:
            text.fill(wanted)
            held = len(data)
            if text.ended and held < wanted:
                size = held
                break
            size = rules.whole(data, wanted)  # what was read beyond makes no difference
            if size:
                break
            if held > limits.record_bytes:
                return self._too_long(text)
            if held >= wanted:
                wanted = min(wanted * 2, limits.record_bytes + 1)
        if not size:
            return None
        start = text.start
        block, breaks = text.take(size)
        if breaks > limits.block_records:
            end = rules.first(block, limits.block_records)
            breaks -= text.put_back(block[end:])
            block = block[:end]
        found, lines = rules.records(block), breaks + (not block.endswith(b"\n"))
        return TextBlock(block, start, lines, found, rules.lead) if found is None or found.records else None

    def _too_long(self, text: Text) -> Block:
        start = text.start
        beginning = bytes(text.data[:KEPT_BYTES])
        size = text.drop_line()
        limit = self._limits.record_bytes >> 20
        why = f"longer than {limit} MiB, the most that a record may have (max_record_mb)"
        return TooLong(beginning.partition(b"\n")[0], size, start, why)
