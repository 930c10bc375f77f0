"""The conformance suite of sources: what every one of them promises to a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import pytest

from runner.errors import FileUnavailable, SourceChanged
from runner.records import Block, Limits, Position, Source

LIMITS = Limits(block_bytes=256, block_records=7, record_bytes=1 << 20)
BY_BYTES = Limits(block_bytes=100, block_records=1 << 20, record_bytes=1 << 20)
"""With these it is the bytes that end a block."""
RECORDS = 100


class SourceContract(ABC):
    """Subclass it with fixtures of your source; `written` must put there what `expected` says."""

    @abstractmethod
    def make(self, folder: Path) -> Source:
        """A new source over what is in the folder."""

    @abstractmethod
    def write(self, folder: Path, count: int) -> None:
        """Put so many records there, in place of what was there."""

    @abstractmethod
    def expected(self, count: int) -> list[bytes]:
        """What a function is given for each of them alone."""

    def read(self, source: Source, limits: Limits = LIMITS, position: Position | None = None) -> list[Block]:
        """All blocks from a position on."""
        with source.open(limits, position) as reader:
            blocks = []
            while (block := reader.read()) is not None:
                blocks.append(block)
            assert reader.read() is None
        return blocks

    def test_gives_every_record_in_order(self, tmp_path: Path) -> None:
        self.write(tmp_path, RECORDS)
        blocks = self.read(self.make(tmp_path))
        assert [bytes(data) for block in blocks for data in block.payloads()] == self.expected(RECORDS)
        assert sum(block.count for block in blocks) == RECORDS

    @pytest.mark.parametrize("limits", [LIMITS, BY_BYTES])
    def test_blocks_keep_to_the_limits(self, tmp_path: Path, limits: Limits) -> None:
        self.write(tmp_path, RECORDS)
        for block in self.read(self.make(tmp_path), limits):
            assert 0 < block.count <= limits.block_records
            assert block.count == len(block.records()) == len(block.payloads())
            assert block.size <= limits.block_bytes or block.count == 1

    def test_a_chunk_is_the_records_as_lines(self, tmp_path: Path) -> None:
        self.write(tmp_path, RECORDS)
        for block in self.read(self.make(tmp_path)):
            assert block.chunk() == block.lead + b"".join(record + b"\n" for record in block.records())
            assert [block.lead + record for record in block.records()] == list(block.payloads())

    @pytest.mark.parametrize("limits", [LIMITS, BY_BYTES])
    def test_can_be_read_on_from_every_block(self, tmp_path: Path, limits: Limits) -> None:
        self.write(tmp_path, RECORDS)
        source = self.make(tmp_path)
        assert source.resumable
        blocks = self.read(source, limits)
        for number, block in enumerate(blocks):
            rest = self.read(self.make(tmp_path), limits, position=block.end)
            assert [(each.chunk(), each.end) for each in rest] == [
                (each.chunk(), each.end) for each in blocks[number + 1 :]
            ]
            assert [each.place(0) for each in rest] == [each.place(0) for each in blocks[number + 1 :]]

    def test_every_record_has_a_place_of_its_own(self, tmp_path: Path) -> None:
        self.write(tmp_path, RECORDS)
        blocks = self.read(self.make(tmp_path))
        places = [block.place(index) for block in blocks for index in range(block.count)]
        assert len(set(places)) == RECORDS
        assert all(str(place).startswith(place.source) for place in places)

    def test_what_there_is_to_read_is_told(self, tmp_path: Path) -> None:
        self.write(tmp_path, RECORDS)
        first = self.make(tmp_path).parts()
        assert first
        assert dict(first) == dict(self.make(tmp_path).parts())
        self.write(tmp_path, RECORDS + 1)
        assert dict(first) != dict(self.make(tmp_path).parts())

    def test_nothing_to_read_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(FileUnavailable):
            self.make(tmp_path).parts()

    def test_what_changed_since_is_not_read_as_if_it_had_not(self, tmp_path: Path) -> None:
        self.write(tmp_path, RECORDS)
        source = self.make(tmp_path)
        source.parts()
        self.write(tmp_path, RECORDS // 2)
        try:
            found = [bytes(data) for block in self.read(source) for data in block.payloads()]
        except (SourceChanged, FileUnavailable):
            return
        assert found == self.expected(RECORDS // 2)  # a database, which is read as it is at one moment

    def test_no_record_at_all(self, tmp_path: Path) -> None:
        self.write(tmp_path, 0)
        try:
            assert self.read(self.make(tmp_path)) == []
        except FileUnavailable:
            assert self.expected(0) == []  # no file, where each is a record

    def test_closing_twice_and_early(self, tmp_path: Path) -> None:
        self.write(tmp_path, RECORDS)
        before = len(list(Path("/proc/self/fd").iterdir()))
        reader = self.make(tmp_path).open(LIMITS)
        reader.read()
        done = reader.done()
        assert done is None or 0 <= done <= 1
        reader.close()
        reader.close()
        assert len(list(Path("/proc/self/fd").iterdir())) == before
