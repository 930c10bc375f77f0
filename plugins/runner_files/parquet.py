"""Parquet, by pyarrow: rows of files as records, and a file as the place for output."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.contracts import Availability, Host
from runner.errors import FileUnavailable, InvalidRecord, SourceChanged, ToolchainUnavailable
from runner.partial import sync_folder
from runner.records import Limits, Place, Position, Reader, Sink, Source
from runner_files.inputs import InputFile, OpenFile, find
from runner_files.lines import KEPT_BYTES
from runner_files.rows import RowBlock, encoded
from runner_files.settings import ParquetInput, ParquetOutput
from runner_files.staging import StagedSink, Target

BATCH_ROWS = 8192
BATCH_BYTES = 16 << 20
"""How many rows are held at once, and how much of JSON."""
REMEDY = "pip install 'runner[parquet]'"


def available() -> Availability:
    """Whether pyarrow is installed."""
    if importlib.util.find_spec("pyarrow") is None:
        return Availability(ok=False, reason="the package pyarrow is not installed", remedy=REMEDY)
    return Availability(ok=True)


def _arrow() -> Any:
    try:
        importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ToolchainUnavailable(f"Parquet needs the package pyarrow: {REMEDY}") from error
    return importlib.import_module("pyarrow")


class ParquetSource(Source):
    """Files of rows."""

    def __init__(self, folder: Path, settings: ParquetInput) -> None:
        self._arrow = _arrow()
        self._folder, self._settings = folder, settings
        self._files: list[InputFile] | None = None

    def parts(self) -> Mapping[str, str]:
        """See Source."""
        return {file.name: file.state for file in self._found()}

    def open(self, limits: Limits, position: Position | None = None) -> Reader:
        """See Source."""
        return ParquetReader(self._arrow, self._found(), limits, position)

    def _found(self) -> list[InputFile]:
        if self._files is None:
            self._files = find(self._folder, self._settings.path, self._settings.sort)
        return self._files


class ParquetReader(Reader):
    """Reads rows of files in order."""

    def __init__(self, arrow: Any, files: Sequence[InputFile], limits: Limits, position: Position | None) -> None:
        self._arrow, self._files, self._limits = arrow, files, limits
        self._index, self._row = 0, 0
        if position is not None:
            names = [file.name for file in files]
            if position["file"] not in names:
                raise SourceChanged(f"{position['file']}, where the run is to go on, is not among its inputs")
            self._index, self._row = names.index(position["file"]), position["row"]
        self._rows: Iterator[dict[str, Any]] | None = None
        self._held: tuple[bytes, InvalidRecord | None] | None = None

    def read(self) -> RowBlock | None:
        """See Reader. A block is of one file."""
        while self._index < len(self._files):
            block = self._block(self._files[self._index])
            if block is not None:
                return block
            self._index, self._row, self._rows = self._index + 1, 0, None
        return None

    def _block(self, file: InputFile) -> RowBlock | None:
        if self._rows is None:
            self._rows = self._read_from(file, self._row)
        records: list[bytes] = []
        bad: dict[int, InvalidRecord] = {}
        first, size = self._row, 0
        while len(records) < self._limits.block_records:
            row = self._held or self._next(self._rows)
            self._held = None
            if row is None:
                break
            data, error = row
            if records and size + len(data) > self._limits.block_bytes:
                self._held = row
                break
            if error is not None:
                bad[len(records)] = error
            records.append(data)
            size += len(data)
        if not records:
            return None
        self._row += len(records)
        places = [Place(file.name, first + number) for number in range(1, len(records) + 1)]
        block = RowBlock(records, places, {"file": file.name, "row": self._row})
        block.refused = bad
        return block

    def _next(self, rows: Iterator[dict[str, Any]]) -> tuple[bytes, InvalidRecord | None] | None:
        row = next(rows, None)
        if row is None:
            return None
        try:
            data = encoded(row)
        except InvalidRecord as error:
            return repr(row)[:KEPT_BYTES].encode("utf-8", "backslashreplace"), error
        limit = self._limits.record_bytes
        if len(data) > limit:
            return data[:KEPT_BYTES], InvalidRecord(f"longer than {limit >> 20} MiB (max_record_mb)")
        return data, None

    def _read_from(self, file: InputFile, row: int) -> Iterator[dict[str, Any]]:
        parquet = importlib.import_module("pyarrow.parquet")
        OpenFile(file).close()  # raises for a file that is not what it was
        try:
            with parquet.ParquetFile(file.path) as opened:
                groups = [opened.metadata.row_group(number).num_rows for number in range(opened.num_row_groups)]
                first = 0
                while first < len(groups) and row >= groups[first]:
                    row -= groups[first]
                    first += 1
                for batch in opened.iter_batches(BATCH_ROWS, row_groups=list(range(first, len(groups)))):
                    if row >= batch.num_rows:
                        row -= batch.num_rows
                        continue
                    yield from batch.slice(row).to_pylist()
                    row = 0
        except (OSError, self._arrow.ArrowException) as error:
            raise FileUnavailable(f"{file.name} is no whole Parquet file: {str(error).splitlines()[0]}") from error

    def done(self) -> float | None:
        """See Reader."""
        return self._index / len(self._files)

    def close(self) -> None:
        """See Reader."""
        rows, self._rows = self._rows, None
        if rows is not None:
            rows.close()  # type: ignore[attr-defined]  # a generator


class ParquetTarget(Target):
    """A Parquet file. Its schema is what all rows together need."""

    def __init__(self, folder: Path, settings: ParquetOutput) -> None:
        self._arrow = _arrow()
        self._settings = settings
        self._path = folder / settings.path
        self.name, self.staging = settings.path, self._path

    def check(self) -> None:
        """See Target."""
        if self._path.is_dir():
            raise FileUnavailable(f"cannot write {self.name}: it is a folder")

    def put(self, lines: Path) -> None:
        """See Target."""
        parquet = importlib.import_module("pyarrow.parquet")
        made = self._path.with_name(f"{self._path.name}.made")
        compression = None if self._settings.compression == "none" else self._settings.compression
        try:
            schema = self._schema(lines)
            with parquet.ParquetWriter(made, schema, compression=compression) as writer:
                for rows in _batches(lines):
                    writer.write_table(self._table(rows, schema))
            with made.open("rb") as file:
                os.fsync(file.fileno())
            made.replace(self._path)
            sync_folder(self._path.parent)
        except (OSError, self._arrow.ArrowException, FileUnavailable) as error:
            made.unlink(missing_ok=True)
            if isinstance(error, FileUnavailable):
                raise
            raise FileUnavailable(f"cannot write {self.name}: {str(error).splitlines()[0]}") from error

    def old_rows(self) -> Iterator[bytes] | None:
        """See Target."""
        return self._read()

    def _read(self) -> Iterator[bytes]:
        (file,) = find(self._path.parent, self._path.name, "name")
        with ParquetReader(self._arrow, [file], Limits(), None) as reader:
            while block := reader.read():
                yield from block.records()

    def _schema(self, lines: Path) -> Any:
        """What all rows together need; a column may be missing from some."""
        schemas = [self._table(rows).schema for rows in _batches(lines)]
        return self._arrow.unify_schemas(schemas, promote_options="permissive") if schemas else self._arrow.schema([])

    def _table(self, rows: list[dict[str, Any]], schema: Any = None) -> Any:
        names = dict.fromkeys(name for row in rows for name in row) if schema is None else schema.names
        columns = {}
        for name in names:
            try:
                kind = None if schema is None else schema.field(name).type
                columns[name] = self._arrow.array([row.get(name) for row in rows], type=kind)
            except (self._arrow.ArrowException, OverflowError) as error:
                message = f"the values of column {name} are not of one type: {str(error).splitlines()[0]}"
                raise FileUnavailable(f"cannot write {self.name}: {message}") from error
        return self._arrow.table(columns, schema=schema)


def _batches(lines: Path) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    size = 0
    with lines.open("rb") as file:
        for line in file:
            rows.append(json.loads(line))
            size += len(line)
            if len(rows) >= BATCH_ROWS or size >= BATCH_BYTES:
                yield rows
                rows, size = [], 0
    if rows:
        yield rows


def parquet_source(settings: ParquetInput, host: Host) -> Source:
    """A source of rows. Raises ToolchainUnavailable without pyarrow."""
    return ParquetSource(host.project_dir, settings)


def parquet_sink(settings: ParquetOutput, host: Host) -> Sink:
    """A sink of rows. Raises ToolchainUnavailable without pyarrow."""
    return StagedSink(ParquetTarget(host.project_dir, settings))
