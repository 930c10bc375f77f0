"""The conformance suite of sinks: what every one of them promises to a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import pytest

from runner.errors import FileUnavailable, StoreLocked, UsageError
from runner.records import Place, Position, Sink

OUTPUTS = 30


def place(index: int) -> Place:
    """Where the record came from of which an output was made."""
    return Place("in.jsonl", index + 1, index * 10)


class SinkContract(ABC):
    """Subclass it with what makes and reads your sink. Outputs are lines of `output`."""

    @abstractmethod
    def make(self, folder: Path) -> Sink:
        """A new sink into the folder."""

    @abstractmethod
    def published(self, folder: Path) -> list[bytes] | None:
        """What everybody can see of it: the outputs in order; None when there is nothing."""

    def output(self, number: int) -> bytes:
        """What a function wrote for a record."""
        return b'{"id":%d}' % number

    def fill(self, sink: Sink, start: int, stop: int) -> None:
        """Write some outputs, one by one and together."""
        outputs = [self.output(number) for number in range(start, stop)]
        sink.write(outputs[:1], lambda index: place(start + index))
        sink.write(outputs[1:], lambda index: place(start + 1 + index))

    def whole(self, folder: Path) -> list[Position]:
        """A run that nothing disturbs, cut after every ten outputs."""
        sink = self.make(folder)
        sink.open()
        cuts = []
        for start in range(0, OUTPUTS, 10):
            self.fill(sink, start, start + 10)
            cuts.append(sink.cut())
        sink.sync()
        sink.publish()
        sink.close()
        return cuts

    def test_nothing_is_seen_before_it_is_published(self, tmp_path: Path) -> None:
        sink = self.make(tmp_path)
        sink.open()
        self.fill(sink, 0, OUTPUTS)
        sink.cut()
        sink.sync()
        assert self.published(tmp_path) is None
        sink.publish()
        sink.close()
        assert self.published(tmp_path) == [self.output(number) for number in range(OUTPUTS)]

    def test_goes_on_behind_every_cut(self, tmp_path: Path) -> None:
        (tmp_path / "whole").mkdir()
        self.whole(tmp_path / "whole")
        for kept in range(OUTPUTS // 10):
            folder = tmp_path / str(kept)
            folder.mkdir()
            sink = self.make(folder)
            sink.open()
            position: Position | None = None
            for start in range(0, kept * 10, 10):
                self.fill(sink, start, start + 10)
                position = sink.cut()
            sink.sync()
            offset = sink.offset
            self.fill(sink, kept * 10, kept * 10 + 5)  # lost with the process
            sink.close()
            sink = self.make(folder)
            sink.open(position)
            assert sink.offset == offset
            for start in range(kept * 10, OUTPUTS, 10):
                self.fill(sink, start, start + 10)
                sink.cut()
            sink.sync()
            sink.publish()
            sink.close()
            assert self.published(folder) == self.published(tmp_path / "whole")

    def test_cuts_that_leave_no_trace_may_be_made_anywhere(self, tmp_path: Path) -> None:
        sink = self.make(tmp_path)
        sink.open()
        if not sink.seamless:
            sink.close()
            pytest.skip("its cuts may leave a trace")
        self.fill(sink, 0, 3)
        cut = sink.cut()
        assert sink.cut() == cut
        sink.sync()
        self.fill(sink, 3, 9)
        sink.close()
        sink = self.make(tmp_path)
        sink.open(cut)
        for start in range(3, OUTPUTS, 9):
            self.fill(sink, start, start + 9)
            sink.cut()
        sink.sync()
        sink.publish()
        sink.close()
        assert self.published(tmp_path) == [self.output(number) for number in range(OUTPUTS)]

    def test_beginning_anew_forgets_what_was(self, tmp_path: Path) -> None:
        sink = self.make(tmp_path)
        sink.open()
        self.fill(sink, 100, 110)
        sink.close()
        self.whole(tmp_path)
        assert self.published(tmp_path) == [self.output(number) for number in range(OUTPUTS)]

    def test_takes_the_place_of_an_earlier_output(self, tmp_path: Path) -> None:
        self.whole(tmp_path)
        sink = self.make(tmp_path)
        sink.open()
        self.fill(sink, 50, 55)
        sink.cut()
        sink.sync()
        sink.publish()
        sink.close()
        assert self.published(tmp_path) == [self.output(number) for number in range(50, 55)]

    def test_publishing_can_be_done_later_and_twice(self, tmp_path: Path) -> None:
        sink = self.make(tmp_path)
        sink.open()
        self.fill(sink, 0, 10)
        sink.cut()
        sink.sync()
        sink.close()
        for _ in range(2):
            later = self.make(tmp_path)
            later.publish()
            later.close()
            assert self.published(tmp_path) == [self.output(number) for number in range(10)]

    def test_an_output_of_nothing(self, tmp_path: Path) -> None:
        sink = self.make(tmp_path)
        sink.open()
        sink.cut()
        sink.sync()
        sink.publish()
        sink.close()
        assert self.published(tmp_path) == []

    def test_two_at_once(self, tmp_path: Path) -> None:
        sink = self.make(tmp_path)
        sink.open()
        other = self.make(tmp_path)
        with pytest.raises(StoreLocked):
            other.open()
        other.close()
        sink.close()
        other.open()
        other.close()
        other.close()

    def test_inserts_into_what_is_published(self, tmp_path: Path) -> None:
        sink = self.make(tmp_path)
        sink.open()
        self.fill(sink, 0, 10)
        between = sink.offset
        self.fill(sink, 20, 30)
        total = sink.offset
        sink.cut()
        sink.sync()
        sink.publish()
        sink.close()
        merged = self.make(tmp_path)
        try:
            merged.open_copy(total)
        except UsageError:
            pytest.skip("it cannot, and says so")
        merged.copy(between)
        self.fill(merged, 10, 20)
        merged.copy(None)
        assert self.published(tmp_path) == [self.output(number) for number in (*range(10), *range(20, 30))]
        merged.cut()
        merged.sync()
        merged.publish()
        merged.close()
        assert self.published(tmp_path) == [self.output(number) for number in range(OUTPUTS)]

    def test_inserts_only_into_what_it_wrote(self, tmp_path: Path) -> None:
        self.whole(tmp_path)
        sink = self.make(tmp_path)
        with pytest.raises((FileUnavailable, UsageError)):  # noqa: PT012  # one of the two
            sink.open_copy(1)
            sink.copy(None)
        sink.close()

    def test_what_cannot_be_written_is_told_first(self, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.write_bytes(b"")
        sink = self.make(file)  # a folder is wanted here
        with pytest.raises(FileUnavailable):
            sink.open()
        sink.close()
