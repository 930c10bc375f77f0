"""Input that is not what it should be, and places that cannot be written: each a clear error, and nothing
that is half looks whole."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from runner.batch.running import Choices
from runner.batchkeys import OnErrorKeys
from runner.errors import FileUnavailable, SourceChanged, StoreLocked
from tests.batch_bench import Bench
from tests.disks import fill, read_only_folder, small_disk
from tests.support import memory_kib

QUARANTINE = OnErrorKeys(action="quarantine")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, guest=bytes)


def rejects(bench: Bench, name: str) -> list[tuple[str, int, int | None, str]]:
    rows = [json.loads(line) for line in bench.read(f"{name}.rejected.jsonl").splitlines()]
    return [(row["source"], row["record"], row["offset"], row["message"]) for row in rows]


# Records


def test_bytes_that_are_no_utf8(bench: Bench) -> None:
    bench.write("in.jsonl", '{"a": "é"}\n'.encode() + b'{"b": "\xff"}\n{"c": 1}\n')
    report = bench.run("in.jsonl", "out.jsonl", form="jsonl")
    assert str(report.error) == "in.jsonl:2 (byte 12): not UTF-8: byte 0xff at byte 7 of the record"
    report = bench.run("in.jsonl", "out.jsonl", form="jsonl", on_error=QUARANTINE, choices=Choices(restart=True))
    assert bench.read("out.jsonl") == '{"a": "é"}\n{"c": 1}\n'.encode()
    assert not any(b"\xff" in data for data in bench.sent)  # no function saw the bad one
    row = json.loads(bench.read("out.jsonl.rejected.jsonl"))
    assert (row["attempts"], row["error_class"]) == (0, "InvalidRecord")
    assert row["input_base64"]


def test_lines_may_be_any_bytes(bench: Bench) -> None:
    bench.write("in.txt", b"\xff\xfe\r\n\0\n")
    assert bench.run().status == "succeeded"
    assert bench.read("out.txt") == b"\xff\xfe\r\n\0\n"


def test_empty_lines_are_no_json_records(bench: Bench) -> None:
    bench.write("in.jsonl", b"\n1\n\n\r\n2\r\n!\n\n")
    bench.guest = lambda data: (_ for _ in ()).throw(FileUnavailable("x")) if data == b"!" else data
    report = bench.run("in.jsonl", "out.jsonl", form="jsonl", on_error=QUARANTINE)
    assert report.counts.records_in == 3
    assert bench.read("out.jsonl") == b"1\n2\r\n"
    assert rejects(bench, "out.jsonl")[0][:3] == ("in.jsonl", 6, 9)


@pytest.mark.parametrize("isolation", ["record", "chunk"])
def test_a_line_of_100_mb(bench: Bench, isolation: str) -> None:
    """It is refused, named, and never held in memory."""
    with (bench.folder / "in.txt").open("wb") as file:
        file.write(b"first\n")
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b"\nlast\n")
    before = memory_kib(field="VmHWM")
    report = bench.run(on_error=QUARANTINE, isolation=isolation)
    assert report.status == "succeeded"
    assert bench.read("out.txt") == b"first\nlast\n"
    message = "longer than 16 MiB, the most that a record may have (max_record_mb)"
    assert rejects(bench, "out.txt") == [("in.txt", 2, 6, message)]
    row = json.loads(bench.read("out.txt.rejected.jsonl"))
    assert row["truncated"] is True
    assert len(row["input"]) == 65536
    assert memory_kib(field="VmHWM") - before < 80_000
    report = bench.run(only_failed=True, on_error=QUARANTINE)
    assert rejects(bench, "out.txt") == [("in.txt", 2, 6, message)]


def test_a_long_line_that_is_allowed(bench: Bench) -> None:
    line = b"y" * 3_000_000
    bench.write("in.txt", b"a\n" + line + b"\nb\n" + line)
    assert bench.run().status == "succeeded"
    assert bench.read("out.txt") == b"a\n" + line + b"\nb\n" + line + b"\n"
    assert bench.sent[1] == line


def test_a_wrong_number_of_columns(bench: Bench) -> None:
    bench.write("in.csv", 'id,name\n1,a\n2\n3,c,d\n"4,x",y\n5,"a,\nb"\n6,"x"\n')
    report = bench.run("in.csv", "out.csv", form="csv", on_error=QUARANTINE)
    assert bench.read("out.csv").decode() == 'id,name\n1,a\n"4,x",y\n5,"a,\nb"\n6,"x"\n'
    assert rejects(bench, "out.csv") == [
        ("in.csv", 3, 12, "1 columns where 2 are expected"),
        ("in.csv", 4, 14, "3 columns where 2 are expected"),
    ]
    assert report.counts.records_out == 4  # a row, not its lines


def test_a_quote_that_does_not_end(bench: Bench) -> None:
    bench.write("in.csv", 'id,name\n1,a\n2,"b\n3,c\n')
    report = bench.run("in.csv", "out.csv", form="csv")
    assert str(report.error) == "in.csv:3 (byte 12): a quoted field does not end"


def test_a_quote_that_does_not_end_for_very_long(bench: Bench) -> None:
    bench.write("in.csv", b'id,name\n1,"a\n' + b"2,b\n" * 300_000)
    report = bench.run("in.csv", "out.csv", form="csv", on_error=QUARANTINE, max_record_mb=1)
    assert report.counts.records_out == 300_000
    ((_, line, offset, message),) = rejects(bench, "out.csv")
    assert (line, offset) == (2, 8)
    assert message.startswith("longer than 1 MiB")


def test_files_of_another_kind(bench: Bench) -> None:
    bench.write("a.csv", "id,name\n1,a\n")
    bench.write("b.csv", "id,title\n1,a\n")
    report = bench.run("?.csv", "out.csv", form="csv")
    assert str(report.error) == "b.csv:1: its header is not that of a.csv; read one kind of file at a time"
    assert not (bench.folder / "out.csv").exists()


def test_an_empty_csv_file_among_others(bench: Bench) -> None:
    bench.write("a.csv", "")
    bench.write("b.csv", "id\n")
    bench.write("c.csv", "id\r\n1\r\n")
    bench.write("d.csv", "id\r\n2")
    report = bench.run("[ab].csv", "out.csv", form="csv")
    assert (report.status, bench.read("out.csv")) == ("succeeded", b"")
    report = bench.run("[acd].csv", "out.csv", form="csv")
    assert bench.read("out.csv") == b"id\r\n1\r\n2\n"


def test_csv_without_a_header(bench: Bench) -> None:
    bench.write("in.csv", "1;a\n2\n3;c\n")
    report = bench.run(
        "in.csv", "out.txt", form="csv", sink_form="lines", on_error="skip",
        source_settings={"header": False, "delimiter": ";"},
    )  # fmt: skip
    assert bench.sent == [b"1;a", b"3;c"]
    assert report.counts.records_skipped == 1


# Files


@pytest.mark.parametrize("pattern", ["nothing*.txt", "[x].txt", "deep/**/*.txt"])
def test_a_pattern_that_matches_nothing(bench: Bench, pattern: str) -> None:
    report = bench.run(pattern)
    assert str(report.error) == f"no file matches {pattern} in {bench.folder}"


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing.txt", "No such file or directory"), ("folder", "it is a folder; `folder/*` means the files in it")],
)
def test_a_file_that_is_none(bench: Bench, name: str, reason: str) -> None:
    (bench.folder / "folder").mkdir()
    report = bench.run(name)
    assert isinstance(report.error, FileUnavailable)
    assert str(report.error) == f"cannot read {name}: {reason}"


def test_names_with_marks_of_patterns(bench: Bench) -> None:
    bench.write("a[1].txt", "one\n")
    bench.write("a1.txt", "two\n")
    bench.run("a[1].txt")
    assert bench.read("out.txt") == b"one\n"


def test_several_files_in_a_stated_order(bench: Bench) -> None:
    for name, moment in (("10", 3), ("9", 1), ("b", 2)):
        path = bench.write(f"{name}.txt", f"{name}\n")
        os.utime(path, (moment, moment))
    bench.write("c.txt.partial", "of another batch\n")
    bench.run("*.txt", "out/a.txt")
    assert bench.read("out/a.txt") == b"10\n9\nb\n"
    bench.run("*.txt", "out/b.txt", source_settings={"sort": "modified"})
    assert bench.read("out/b.txt") == b"9\nb\n10\n"


LONGER_THAN_IS_READ_AT_ONCE = (b"line" * 25 + b"\n") * 6_000


def changing(bench: Bench, change: Any, after: int) -> None:
    """Something happens to the input while it is read."""

    def guest(data: bytes) -> bytes:
        if len(bench.sent) == after:
            change()
        return data

    bench.guest = guest


def test_a_file_that_grows_while_it_is_read(bench: Bench) -> None:
    path = bench.write("in.txt", LONGER_THAN_IS_READ_AT_ONCE)

    def grow() -> None:
        with path.open("ab") as file:
            file.write(b"more\n")

    changing(bench, grow, 50)
    report = bench.run(every=10)
    assert isinstance(report.error, SourceChanged)
    assert str(report.error).startswith("in.txt changed while it was read (near byte ")
    assert not (bench.folder / "out.txt").exists()
    bench.guest = bytes
    assert bench.run(every=10).status == "failed"  # it is not what it was, and the user must say so
    assert bench.run(every=10, choices=Choices(resume=True)).status == "succeeded"
    assert bench.read("out.txt") == path.read_bytes()


def test_a_file_that_vanishes_while_it_is_read(bench: Bench) -> None:
    path = bench.write("in.txt", LONGER_THAN_IS_READ_AT_ONCE)
    changing(bench, path.unlink, 5)
    assert "in.txt vanished while it was read" in str(bench.run(every=10).error)
    assert not (bench.folder / "out.txt").exists()


def test_a_file_that_vanishes_before_it_is_read(bench: Bench) -> None:
    bench.write("a.txt", LONGER_THAN_IS_READ_AT_ONCE)
    second = bench.write("b.txt", b"line\n")
    changing(bench, second.unlink, 5)
    assert "b.txt has vanished since the run began" in str(bench.run("?.txt", every=10).error)


def test_a_packed_file_that_is_not_whole(bench: Bench) -> None:
    data = gzip.compress(b"".join(b"line %d\n" % number for number in range(50_000)))
    bench.write("in.txt.gz", data[: len(data) // 2])
    report = bench.run("in.txt.gz")
    assert str(report.error).startswith("in.txt.gz is no whole gzip file: ")
    bench.write("in.txt.gz", b"line\n")
    assert "is no whole gzip file" in str(bench.run("in.txt.gz", choices=Choices(restart=True)).error)
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0xFF
    bench.write("in.txt.gz", bytes(flipped))
    assert "is no whole gzip file" in str(bench.run("in.txt.gz", choices=Choices(restart=True)).error)
    assert not (bench.folder / "out.txt").exists()


# Outputs


def test_an_output_that_is_a_folder(bench: Bench) -> None:
    bench.write("in.txt", "a\n")
    (bench.folder / "out.txt").mkdir()
    report = bench.run()
    assert str(report.error) == "cannot write out.txt: it is a folder"
    assert bench.sent == []


def test_an_output_below_a_file(bench: Bench) -> None:
    bench.write("in.txt", "a\n")
    bench.write("file", "")
    wrong = "what should be its folder is a file"
    for path in ("file/out.txt", "file/deep/out.txt"):
        assert str(bench.run(sink=path).error) == f"cannot write {path}: {wrong}"


def test_an_output_that_cannot_be_written(bench: Bench) -> None:
    bench.write("in.txt", "a\n")
    (bench.folder / "closed").mkdir()
    with read_only_folder(bench.folder / "closed") as folder:
        report = bench.run(sink=f"{folder}/out.txt")
    assert isinstance(report.error, FileUnavailable)
    assert "out.txt.partial: " in str(report.error)
    assert bench.sent == []


def test_a_full_disk(bench: Bench) -> None:
    """What was done before it was full is not done again when there is room."""
    bench.write("in.txt", b"".join(b"line %06d of some length\n" % number for number in range(200_000)))
    with small_disk(bench.folder / "disk", "4m") as disk:
        full = bench.run(sink="disk/out.txt", every=1000)
        assert str(full.error) == "cannot write disk/out.txt.partial: No space left on device"
        assert isinstance(full.error, FileUnavailable)
        assert not (disk / "out.txt").exists()
        bench.sent.clear()
        again = bench.run(sink="disk/out.txt", every=1000)
        assert again.status == "failed"
        assert again.counts.records_reused >= 50_000


def test_a_full_disk_for_the_state(bench: Bench) -> None:
    bench.write("in.txt", b"line\n" * 10_000)
    (bench.folder / ".runner").mkdir()
    with small_disk(bench.folder / ".runner/batches", "1m") as disk:
        fill(disk / "filler")
        report = bench.run(every=100)
        assert report.error is not None
        assert report.error.exit_status == 4
    assert not (bench.folder / "out.txt").exists()


def test_a_folder_that_others_use_is_not_replaced(bench: Bench) -> None:
    bench.write("in/a.md", "text")
    bench.write("site/mine.html", "precious")
    report = bench.run("in/*.md", "site", form="files")
    assert "there are files in it that no batch has written" in str(report.error)
    assert bench.read("site/mine.html") == b"precious"


def test_two_records_of_one_name(bench: Bench) -> None:
    bench.write("in/a/x.md", "1")
    bench.write("in/b/x.md", "2")
    report = bench.run("in/*/*.md", "site", form="files", on_error=QUARANTINE)
    assert bench.read("site/x.md") == b"1"
    assert rejects(bench, "site")[0][3] == "no file 'x.md' in site: of another record there is one of this name"
    assert report.counts.records_out == 1


def test_whole_files_that_are_packed(bench: Bench) -> None:
    bench.write("in/a.txt.gz", gzip.compress(b"text"))
    bench.run("in/*", "site", form="files")
    assert bench.read("site/a.txt") == b"text"


def test_a_name_that_is_no_utf8(bench: Bench) -> None:
    name = os.fsdecode(b"\xff.txt")
    bench.write(name, "a\nb\n")
    bench.guest = lambda data: (_ for _ in ()).throw(FileUnavailable("no")) if data == b"b" else data
    assert bench.run("*.txt", on_error=QUARANTINE).status == "succeeded"
    assert rejects(bench, "out.txt")[0][0] == name
    bench.guest = bytes
    assert bench.run(on_error=QUARANTINE, only_failed=True).status == "succeeded"
    assert bench.read("out.txt") == b"a\nb\n"


def test_a_partial_output_that_somebody_takes_away(bench: Bench) -> None:
    bench.write("in.txt", "a\n" * 10)
    changing(bench, lambda: (bench.folder / "out.txt.partial").unlink(), 5)
    report = bench.run()
    assert "out.txt.partial was taken away while it was written" in str(report.error)
    assert "out.txt.partial was taken away while it was written" in str(bench.run().error)
    bench.guest = bytes
    assert bench.run(choices=Choices(restart=True)).status == "succeeded"
    (bench.folder / "out.txt").unlink()
    changing(bench, lambda: (bench.folder / "out.txt.partial").unlink(), len(bench.sent) + 5)
    assert bench.run().status == "failed"
    assert not (bench.folder / "out.txt").exists()


def test_rows_that_are_no_objects(bench: Bench) -> None:
    lines = '{"a": 1}\n[1]\nnot json\n{"a": 2, "b": [1, {"c": null}]}\n{"a": 123456789012345678901}\n'
    bench.write("in.jsonl", lines)
    report = bench.run(
        "in.jsonl", "out.db", form="jsonl", sink_form="sqlite", sink_settings={"table": "t"}, on_error=QUARANTINE
    )
    assert report.counts.records_out == 2
    with closing(sqlite3.connect(bench.folder / "out.db")) as connection:
        assert connection.execute("SELECT a, b FROM t").fetchall() == [(1, None), (2, '[1,{"c":null}]')]
    assert [row[3].partition(":")[0] for row in rejects(bench, "out.db")] == [
        "the output is no JSON object with a value for each column, but list",
        "the output is no JSON",
        "a is too large for SQLite",
    ]


def test_a_database_that_is_none(bench: Bench) -> None:
    bench.write("shop.db", b"no database, but long enough to be looked at" * 100)
    report = bench.run("shop.db", "out.jsonl", form="sqlite", sink_form="jsonl", source_settings={"table": "orders"})
    assert str(report.error) == "the database shop.db cannot be used: file is not a database"


def test_a_table_that_is_not_there(bench: Bench) -> None:
    with closing(sqlite3.connect(bench.folder / "shop.db")) as connection, connection:
        connection.execute("CREATE TABLE orders (id)")
    report = bench.run("shop.db", "out.jsonl", form="sqlite", sink_form="jsonl", source_settings={"table": "order"})
    assert str(report.error) == "shop.db has no table 'order'; did you mean 'orders'?"


def test_values_that_json_cannot_hold(bench: Bench) -> None:
    with closing(sqlite3.connect(bench.folder / "shop.db")) as connection, connection:
        connection.execute("CREATE TABLE t (id, v)")
        connection.execute("INSERT INTO t VALUES (1, x'00ff'), (2, 9e999), (3, CAST(x'ff' AS TEXT)), (4, 'ok')")
    report = bench.run(
        "shop.db", "out.jsonl", form="sqlite", sink_form="jsonl", source_settings={"table": "t"}, on_error=QUARANTINE
    )
    assert report.status == "succeeded"
    assert bench.read("out.jsonl") == b'{"id":1,"v":{"$base64":"AP8="}}\n{"id":4,"v":"ok"}\n'
    (second, third) = rejects(bench, "out.jsonl")
    assert second == ("shop.db:t", 2, None, "the row cannot be written as JSON: column v is inf")
    assert third[3].startswith("the row cannot be written as JSON: column v is ")


# Two at once


def test_two_runs_of_one_batch(bench: Bench) -> None:
    bench.write("in.txt", "a\n")
    other = Bench(bench.folder, guest=bytes)
    seen: list[Any] = []
    changing(bench, lambda: seen.append(other.run()), 1)
    assert bench.run().status == "succeeded"
    (report,) = seen
    assert isinstance(report.error, StoreLocked)
    assert str(report.error) == "b is running already, in another process; wait for it or stop it"
    assert report.error.exit_status == 4
