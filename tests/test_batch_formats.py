"""Every source and sink of runner_files against the contracts."""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runner_files import lines

from runner.errors import FileUnavailable, OutputRefused
from runner.records import Limits, Place, Sink, Source
from runner.testing import SinkContract, SourceContract
from tests.batch_bench import made

HAS_PYARROW = importlib.util.find_spec("pyarrow") is not None
HAS_ZSTD = importlib.util.find_spec("zstandard") is not None or importlib.util.find_spec("compression") is not None
needs_pyarrow = pytest.mark.skipif(not HAS_PYARROW, reason="pyarrow is not installed (extra `parquet`)")
needs_zstd = pytest.mark.skipif(not HAS_ZSTD, reason="zstandard is not installed (extra `zstd`)")


def row(number: int) -> bytes:
    return b'{"id":%d,"name":"n%d"}' % (number, number)


def rows(start: int, stop: int) -> bytes:
    return b"".join(row(number) + b"\n" for number in range(start, stop))


# Sources


class TestJsonLines(SourceContract):
    def make(self, folder: Path) -> Source:
        source: Source = made("sources", "jsonl", folder, path="in.jsonl")
        return source

    def write(self, folder: Path, count: int) -> None:
        (folder / "in.jsonl").write_bytes(rows(0, count))

    def expected(self, count: int) -> list[bytes]:
        return [row(number) for number in range(count)]


class TestSeveralFiles(TestJsonLines):
    def make(self, folder: Path) -> Source:
        source: Source = made("sources", "jsonl", folder, path="in/**/*.jsonl")
        return source

    def write(self, folder: Path, count: int) -> None:
        (folder / "in/deep").mkdir(parents=True, exist_ok=True)
        (folder / "in/a.jsonl").write_bytes(rows(0, count // 3))
        (folder / "in/b.jsonl").write_bytes(b"")
        (folder / "in/deep/c.jsonl").write_bytes(rows(count // 3, count).removesuffix(b"\n"))


class TestGzip(TestJsonLines):
    def make(self, folder: Path) -> Source:
        source: Source = made("sources", "jsonl", folder, path="*.jsonl.gz")
        return source

    def write(self, folder: Path, count: int) -> None:
        members = [gzip.compress(rows(0, count // 2)), gzip.compress(rows(count // 2, count))]
        (folder / "in.jsonl.gz").write_bytes(b"".join(members))


@needs_zstd
class TestZstd(TestJsonLines):
    def make(self, folder: Path) -> Source:
        source: Source = made("sources", "jsonl", folder, path="*.jsonl.zst")
        return source

    def write(self, folder: Path, count: int) -> None:
        from runner_files import zstd

        data = b""
        for piece in (rows(0, count // 2), rows(count // 2, count)):
            packer = zstd.packer(3)
            data += packer.compress(piece) + packer.flush()
        (folder / "in.jsonl.zst").write_bytes(data)


class TestCsv(SourceContract):
    def make(self, folder: Path) -> Source:
        source: Source = made("sources", "csv", folder, path="*.csv")
        return source

    def write(self, folder: Path, count: int) -> None:
        cells = [b'%d,"two\nlines, ""%d"""\n' % (number, number) for number in range(count)]
        (folder / "a.csv").write_bytes(b"id,text\n" + b"".join(cells[: count // 2]))
        (folder / "b.csv").write_bytes(b"id,text\n" + b"".join(cells[count // 2 :]))

    def expected(self, count: int) -> list[bytes]:
        return [b'id,text\n%d,"two\nlines, ""%d"""' % (number, number) for number in range(count)]


class TestWholeFiles(SourceContract):
    def make(self, folder: Path) -> Source:
        source: Source = made("sources", "files", folder, path="in/*.md")
        return source

    def write(self, folder: Path, count: int) -> None:
        (folder / "in").mkdir(exist_ok=True)
        for old in (folder / "in").iterdir():
            old.unlink()
        for number in range(count):
            (folder / f"in/{number:03}.md").write_bytes(b"# %d\ntext" % number)

    def expected(self, count: int) -> list[bytes]:
        return [b"# %d\ntext" % number for number in range(count)]

    def test_a_chunk_is_the_records_as_lines(self, tmp_path: Path) -> None:
        self.write(tmp_path, 3)
        pytest.skip("whole files are no lines")


class TestTable(SourceContract):
    select: tuple[str, str] = ("table", "orders")
    schema = "CREATE TABLE orders (id, name)"

    def make(self, folder: Path) -> Source:
        source: Source = made("sources", "sqlite", folder, path="shop.db", **dict([self.select]))
        return source

    def write(self, folder: Path, count: int) -> None:
        (folder / "shop.db").unlink(missing_ok=True)
        with closing(sqlite3.connect(folder / "shop.db")) as connection, connection:
            connection.execute(self.schema)
            connection.executemany(
                "INSERT INTO orders VALUES (?, ?)", [(number, f"n{number}") for number in range(count)]
            )

    def expected(self, count: int) -> list[bytes]:
        return [row(number) for number in range(count)]


class TestTableWithoutRowNumbers(TestTable):
    schema = "CREATE TABLE orders (id INTEGER PRIMARY KEY, name) WITHOUT ROWID"


class TestQuery(TestTable):
    select = ("query", "SELECT id, name FROM orders WHERE id >= 0 ORDER BY id")


@needs_pyarrow
class TestParquet(SourceContract):
    def make(self, folder: Path) -> Source:
        source: Source = made("sources", "parquet", folder, path="*.parquet")
        return source

    def write(self, folder: Path, count: int) -> None:
        import pyarrow
        from pyarrow import parquet

        for name, numbers in (("a", range(count // 2)), ("b", range(count // 2, count))):
            table = pyarrow.table({"id": list(numbers), "name": [f"n{number}" for number in numbers]})
            parquet.write_table(table, folder / f"{name}.parquet", row_group_size=11)

    def expected(self, count: int) -> list[bytes]:
        return [row(number) for number in range(count)]


@needs_pyarrow
def test_what_parquet_keeps(tmp_path: Path) -> None:
    """Kinds of values that a row may have, and columns that only some rows have."""
    sink: Sink = made("sinks", "parquet", tmp_path, path="out.parquet")
    sink.open()
    lines = [b'{"id":1,"tags":["a"]}', b'{"id":2.5,"at":{"x":null}}', b'{"id":3,"at":{"x":7,"y":"z"},"ok":true}']
    sink.write(lines, lambda index: Place("in", index))
    sink.cut()
    sink.sync()
    sink.publish()
    sink.close()
    source: Source = made("sources", "parquet", tmp_path, path="out.parquet")
    with source.open(Limits()) as reader:
        block = reader.read()
    assert block is not None
    first, second, third = [json.loads(record) for record in block.records()]
    assert (first["id"], first["tags"], second["id"], third["at"]) == (1, ["a"], 2.5, {"x": 7, "y": "z"})
    assert str(block.place(2)) == "out.parquet:3"


@needs_pyarrow
def test_values_that_are_not_of_one_type(tmp_path: Path) -> None:
    sink: Sink = made("sinks", "parquet", tmp_path, path="out.parquet")
    sink.open()
    sink.write([b'{"id":1}', b'{"id":"one"}'], lambda index: Place("in", index))
    sink.cut()
    sink.sync()
    with pytest.raises(FileUnavailable, match="the values of column id are not of one type"):
        sink.publish()
    sink.close()
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet.partial"]  # nothing is lost


# Sinks


class TestLineSink(SinkContract):
    path = "deep/out.jsonl"

    def make(self, folder: Path) -> Sink:
        sink: Sink = made("sinks", "jsonl", folder, path=self.path)
        return sink

    def published(self, folder: Path) -> list[bytes] | None:
        path = folder / self.path
        return self.unpacked(path.read_bytes()).splitlines() if path.exists() else None

    def unpacked(self, data: bytes) -> bytes:
        return data


class TestGzipSink(TestLineSink):
    path = "out.jsonl.gz"

    def unpacked(self, data: bytes) -> bytes:
        return gzip.decompress(data)


@needs_zstd
class TestZstdSink(TestLineSink):
    path = "out.jsonl.zst"

    def unpacked(self, data: bytes) -> bytes:
        from runner_files import zstd

        stream = zstd.unpack(io.BytesIO(data))
        return b"".join(iter(lambda: stream.read(1 << 16), b""))


class TestCsvSink(SinkContract):
    def make(self, folder: Path) -> Sink:
        sink: Sink = made("sinks", "csv", folder, path="out.csv")
        return sink

    def output(self, number: int) -> bytes:
        return b"id,name\n%d,n" % number

    def published(self, folder: Path) -> list[bytes] | None:
        path = folder / "out.csv"
        if not path.exists():
            return None
        header, *cells = path.read_bytes().split(b"\n") if path.stat().st_size else (b"", b"")
        assert header == (b"id,name" if path.stat().st_size else b"")
        assert cells.pop() == b""
        return [header + b"\n" + line for line in cells]


class TestFolderSink(SinkContract):
    def make(self, folder: Path) -> Sink:
        sink: Sink = made("sinks", "files", folder, path="out", ending=".json")
        return sink

    def published(self, folder: Path) -> list[bytes] | None:
        path = folder / "out"
        if not path.exists():
            return None
        files = [file for file in path.iterdir() if not file.name.startswith(".")]
        return [file.read_bytes() for file in sorted(files, key=lambda file: int(file.stem.rpartition("-")[2]))]


class TestTableSink(SinkContract):
    mode = "replace"

    def make(self, folder: Path) -> Sink:
        sink: Sink = made("sinks", "sqlite", folder, path="shop.db", table="clean orders", mode=self.mode)
        return sink

    def published(self, folder: Path) -> list[bytes] | None:
        if not (folder / "shop.db").exists():
            return None
        with closing(sqlite3.connect(folder / "shop.db")) as connection:
            cursor = connection.execute('SELECT * FROM "clean orders" ORDER BY rowid')
            names = [column[0] for column in cursor.description]
            return [
                json.dumps(dict(zip(names, values, strict=True)), separators=(",", ":")).encode() for values in cursor
            ]


class TestTableThatGrows(TestTableSink):
    mode = "append"

    def test_takes_the_place_of_an_earlier_output(self, tmp_path: Path) -> None:
        self.whole(tmp_path)
        self.whole(tmp_path)
        assert self.published(tmp_path) == [self.output(number) for number in range(30)] * 2

    def test_inserts_into_what_is_published(self, tmp_path: Path) -> None:
        self.whole(tmp_path)
        sink = self.make(tmp_path)
        sink.open_copy(30)
        sink.copy(5)
        self.fill(sink, 30, 35)
        sink.copy(None)
        sink.cut()
        sink.sync()
        sink.publish()
        sink.close()
        assert self.published(tmp_path) == [self.output(number) for number in range(35)]

    def test_inserts_only_into_what_it_wrote(self, tmp_path: Path) -> None:
        self.whole(tmp_path)
        pytest.skip("it adds to whatever is there")

    def test_killed_between_the_rows_and_the_end(self, tmp_path: Path) -> None:
        """They are in the table, and what was collected is there still: they are not added twice."""
        sink = self.make(tmp_path)
        sink.open()
        self.fill(sink, 0, 10)
        sink.cut()
        sink.sync()
        collected = tmp_path / "shop.db.clean orders.partial"
        (tmp_path / "kept").hardlink_to(collected)
        sink.publish()
        sink.close()
        (tmp_path / "kept").rename(collected)
        self.make(tmp_path).publish()
        assert self.published(tmp_path) == [self.output(number) for number in range(10)]
        assert not collected.exists()

    def test_a_column_that_is_not_there(self, tmp_path: Path) -> None:
        self.whole(tmp_path)
        sink = self.make(tmp_path)
        sink.open()
        with pytest.raises(OutputRefused, match="has no column 'other'"):
            sink.write([b'{"id":1}', b'{"other":1}'], lambda index: Place("in", index))
        assert sink.offset == 1
        sink.close()


@needs_pyarrow
class TestParquetSink(SinkContract):
    def make(self, folder: Path) -> Sink:
        sink: Sink = made("sinks", "parquet", folder, path="out.parquet")
        return sink

    def published(self, folder: Path) -> list[bytes] | None:
        from pyarrow import parquet

        if not (folder / "out.parquet").exists():
            return None
        found = parquet.read_table(folder / "out.parquet").to_pylist()
        return [json.dumps(each, separators=(",", ":")).encode() for each in found]


# Counting


@given(st.lists(st.integers(0, 3 * lines.FAR)), st.booleans())
def test_line_breaks_are_counted_however_far_apart(lengths: list[int], ended: bool) -> None:
    text = b"\n".join(b"x" * length for length in lengths) + (b"\n" if ended else b"")
    assert lines.line_breaks(text) == sum(byte == 10 for byte in text)


def test_line_breaks_of_a_long_text_are_counted() -> None:
    assert lines.line_breaks((b"x" * 99 + b"\n") * (lines.COPIED_BYTES // 100 + 1)) == lines.COPIED_BYTES // 100 + 1
