"""Output that is collected as JSON lines beside its target, and put there as a whole at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from runner.errors import FileUnavailable, OutputRefused
from runner.partial import PartialFile
from runner.records import PlaceOf, Position, Sink
from runner_files.rows import decoded


class Target(ABC):
    """What rows are put into."""

    name: str
    """As the user would write it."""
    staging: Path
    """Where rows are collected; `.partial` is added to it."""

    @abstractmethod
    def check(self) -> None:
        """Raises FileUnavailable or UsageError when rows can never be put there."""

    def refuses(self, row: dict[str, Any]) -> str:  # noqa: ARG002
        """Why it cannot have this row; empty if it can."""
        return ""

    @abstractmethod
    def put(self, lines: Path) -> None:
        """Make the rows of this file visible, all or none. Doing it again, with the same file, changes
        nothing. Raises FileUnavailable."""

    def old_rows(self) -> Iterator[bytes] | None:
        """What was put there before, line by line, if `put` takes its place; None if it adds to it.
        Raises FileUnavailable."""
        return None


class StagedSink(Sink):
    """Collects rows, then puts them into a target."""

    seamless = True

    def __init__(self, target: Target) -> None:
        self._to = target
        self.target = target.name
        self._file = PartialFile(target.staging, target.name)
        self._offset = self._size = 0
        self._old: Iterator[bytes] | None = None
        self._copied = self._published = 0

    def open(self, position: Position | None = None) -> None:
        """See Sink."""
        self._to.check()
        self._file.open(None if position is None else position["bytes"])
        self._offset = 0 if position is None else position["offset"]
        self._size = self._file.length

    @property
    def offset(self) -> int:
        """See Sink: rows."""
        return self._offset

    @property
    def size(self) -> int:
        """See Sink."""
        return self._size

    def write(self, outputs: Sequence[bytes], place: PlaceOf) -> int:  # noqa: ARG002
        """See Sink. Every line is a row."""
        before = self._offset
        for index, output in enumerate(outputs):
            lines = [line for line in output.split(b"\n") if line.strip()]
            try:
                faults = [self._to.refuses(decoded(line)) for line in lines]
            except ValueError as error:
                faults = [str(error)]
            if any(faults):
                raise OutputRefused(index, next(filter(None, faults)), written=self._offset - before)
            for line in lines:
                self._add(line)
                self._size += len(line) + 1
        return self._offset - before

    def _add(self, line: bytes) -> None:
        self._file.append(line + b"\n")
        self._offset += 1

    def cut(self) -> Position:
        """See Sink."""
        return {"bytes": self._file.length, "offset": self._offset}

    def sync(self) -> None:
        """See Sink."""
        self._file.sync()

    def publish(self) -> None:
        """See Sink."""
        if self._file.partial.exists():
            self._to.put(self._file.partial)
            self._file.partial.unlink()

    def open_copy(self, offset: int) -> None:
        """See Sink."""
        self.open()
        self._old, self._published = self._to.old_rows(), offset

    def copy(self, offset: int | None) -> None:
        """See Sink."""
        if self._old is None:
            return
        while offset is None or self._copied < offset:
            line = next(self._old, None)
            if line is None:
                break
            self._add(line)
            self._copied += 1
        if offset is None and self._copied != self._published:
            raise FileUnavailable(
                f"{self.target} has {self._copied:,} rows where the run before wrote {self._published:,}: it was "
                "changed since; run the whole job"
            )

    def close(self) -> None:
        """See Sink."""
        self._file.close()
