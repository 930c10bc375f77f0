"""The contracts of batch runs: a Source gives records in blocks, a Sink takes what a function made of them.

Both speak bytes. A position is a small JSON object that only its maker understands: given back to the
same source or sink, by another process on another day, it goes on exactly there. That is all that an
exact resume needs. `runner.testing` holds a conformance suite for each; runner.batch is their user.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple

from runner.errors import InvalidRecord, UsageError

Position = Mapping[str, Any]
"""Where to go on: JSON values by name, opaque to all but the source or sink that gave it."""
COMPRESSED = (".gz", ".zst")
"""Endings of a path that say how its bytes are packed; the ending before them says what they are."""

NONE_REFUSED: Mapping[int, InvalidRecord] = MappingProxyType({})


class Place(NamedTuple):
    """Where a record stands, as messages and quarantined records tell it."""

    source: str
    """The file as the user would write it, or the table."""
    number: int
    """The line on which it begins, or the row; from 1. 0 for a whole file."""
    offset: int | None = None
    """The bytes before it in the file, unpacked; None where bytes mean nothing."""

    def __str__(self) -> str:
        """`orders-03.jsonl:1289 (byte 260113)`."""
        line = f":{self.number}" if self.number else ""
        return f"{self.source}{line}" + ("" if self.offset is None else f" (byte {self.offset})")


PlaceOf = Callable[[int], Place]
"""The place of the record with this index in its block."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How much of a source is read at once."""

    block_bytes: int = 1 << 18
    """A block ends before it passes this, if it has a record by then."""
    block_records: int = 4096
    """The most records in a block."""
    record_bytes: int = 16 << 20
    """A record that is longer is refused, and never held in memory."""


class Block(ABC):
    """Consecutive records of a source, at least one."""

    count: int
    """How many records, refused ones included."""
    size: int
    """Their bytes in the source."""
    end: Position
    """Where to open the source to read what follows."""
    refused: Mapping[int, InvalidRecord] = NONE_REFUSED
    """By index, those that are no valid records of their source, and why. No function gets to see them."""
    cut_short: Collection[int] = ()
    """By index, those of which `records` gives the beginning only, for they are too long to be held."""
    lead: bytes = b""
    """What a function is given in front of each record, or of all of a chunk: the header of a CSV file."""

    @abstractmethod
    def records(self) -> Sequence[bytes]:
        """Each record as it stands in the source, without its line break; what is kept of one that failed."""

    def payloads(self) -> Sequence[bytes]:
        """What a function is given for each record alone."""
        lead = self.lead
        return [lead + record for record in self.records()] if lead else self.records()

    def chunk(self) -> bytes:
        """What a function is given for all of them together: lines. Only asked for if none is refused."""
        return self.lead + b"".join([record + b"\n" for record in self.records()])

    @abstractmethod
    def place(self, index: int) -> Place:
        """Where a record stands. Only asked for those that are to be told of, so it may take its time."""


class Reader(ABC):
    """A source that is being read; a context manager. Used by one thread."""

    @abstractmethod
    def read(self) -> Block | None:
        """The next block, None after the last. What is in a block depends on the source and on where it
        begins only, so that reading again from any `end` gives the same blocks.

        Raises FileUnavailable for what vanished, SourceChanged for what is not what it was.
        """

    def done(self) -> float | None:
        """How much of the source is read, from 0 to 1; None where nobody knows."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Give back files and connections. May be called twice."""

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Source(ABC):
    """Where a batch takes its records from. Making one looks at nothing yet."""

    resumable: bool = True
    """Whether it can be opened at a position; a stream that comes once cannot."""

    @abstractmethod
    def parts(self) -> Mapping[str, str]:
        """Everything that it will read, in order: what users call it, and what tells one state of it from
        another (size and time of a file). Looked up once; `open` reads just that.

        Raises FileUnavailable when there is nothing to read.
        """

    @abstractmethod
    def open(self, limits: Limits, position: Position | None = None) -> Reader:
        """Begin to read, at the start or at the `end` of a block. Raises FileUnavailable, SourceChanged."""


class Sink(ABC):
    """Where a batch puts its output. Nothing of it can be seen by others before it is published. Used by one
    thread.
    """

    resumable: bool = True
    """Whether `open` takes a position; a stream that is gone once it is written does not."""
    seamless: bool = False
    """Whether its cuts leave no trace in the output, wherever they are made. Known once it is open."""
    target: str
    """What it writes, as the user would write it."""

    @abstractmethod
    def open(self, position: Position | None = None) -> None:
        """Begin anew, or behind a `cut`, with all that was written after it taken back.

        Raises FileUnavailable for what cannot be written or is not there any more, StoreLocked while
        another run writes it.
        """

    @property
    @abstractmethod
    def offset(self) -> int:
        """How much output there is up to here, in the sink's own unit: bytes before they are packed, rows."""

    @property
    def size(self) -> int:
        """Bytes of output up to here, before they are packed; without what was copied."""
        return self.offset

    @abstractmethod
    def write(self, outputs: Sequence[bytes], place: PlaceOf) -> int:
        """Append what a function made of records, one output for each, in order; `place(i)` tells where
        that of `outputs[i]` came from. How many records or lines of output that were.

        Raises OutputRefused for one that cannot stand in this sink: those before it are written then,
        nothing of it and of those behind it. Raises FileUnavailable.
        """

    @abstractmethod
    def cut(self) -> Position:
        """End what belongs together, so that the output can be continued from here; where nothing was
        written since the last time, nothing changes. It must be called at the same places of the output
        in every run, since packed bytes may depend on them; not of one that is `seamless`."""

    @abstractmethod
    def sync(self) -> None:
        """Bring to the disk what was written before the last `cut`. Raises FileUnavailable."""

    @abstractmethod
    def publish(self) -> None:
        """Make the output visible as a whole, durably, in place of an earlier one; after a `sync` of all
        of it, or in a later process without `open`. Does nothing if it was done already."""

    def is_published(self) -> bool | None:
        """Whether there is an output, of whatever run; None where that cannot be told."""
        return None

    def open_copy(self, offset: int) -> None:
        """Begin anew, to insert into what is published, which is so much: `copy` and `write` follow in order.
        Raises UsageError for a sink that cannot do this, FileUnavailable when nothing is published."""
        del offset
        raise UsageError(f"{self.target} cannot be merged with the output of records that run again; run the whole job")

    def copy(self, offset: int | None) -> None:
        """Append what is published, from where the last copy ended up to this offset; None: the rest.
        Raises FileUnavailable when that is not as much as `open_copy` was told."""
        raise NotImplementedError

    @abstractmethod
    def close(self) -> None:
        """Give back files and locks. What is not published stays where `open` finds it. May be called twice."""
