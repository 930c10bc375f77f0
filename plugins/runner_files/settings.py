"""What `input:` and `output:` of a batch may say about each format. Light to import."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

STREAM = "-"
"""The path that is stdin or stdout."""
_NO_STREAM = {"pattern": r"(?!-$)[^\0]+", "expected": "a path: this format cannot come from stdin or go to stdout"}


def _doc(text: str, **facts: Any) -> dict[str, Any]:
    return {"doc": text, **facts}


@dataclass(frozen=True, kw_only=True)
class FileInput:
    """Files of lines: one record a line, as the bytes that they are."""

    path: str = field(
        metadata=_doc(
            "A file, or several by a pattern (`data/*.jsonl`, `data/**/*.jsonl`), from the folder of jobs.yaml; `-` is "
            "stdin. `.gz` and `.zst` are unpacked.",
            pattern=r"[^\0]+",
        )
    )
    sort: Literal["name", "modified"] = field(
        default="name",
        metadata=_doc("The order of several files: by their paths' bytes, or the one changed longest ago first."),
    )


@dataclass(frozen=True, kw_only=True)
class CsvInput(FileInput):
    """Files of comma-separated values, quoted as RFC 4180 has it. A function is given the header line and
    behind it the row, or the rows of the chunk, so that one that takes a whole file takes these."""

    delimiter: str = field(
        default=",",
        metadata=_doc('What separates columns; a tab is "\\t".', pattern=r"[\t -!#-~]", expected="one ASCII character"),
    )
    header: bool = field(default=True, metadata=_doc("Whether the first line of each file names its columns."))


@dataclass(frozen=True, kw_only=True)
class FileOutput:
    """A file of lines. A line break is added to what a function wrote if there is none at its end; of a
    function that wrote nothing there is no line."""

    path: str = field(
        metadata=_doc(
            "The file, from the folder of jobs.yaml; `-` is stdout. `.gz` and `.zst` are packed.", pattern=r"[^\0]+"
        )
    )
    level: int = field(
        default=0, metadata=_doc("How hard to pack; 0 is the method's own default.", minimum=0, maximum=19)
    )


@dataclass(frozen=True, kw_only=True)
class CsvOutput(FileOutput):
    """A file of comma-separated values. The header that a function writes with every output is kept once."""

    header: bool = field(default=True, metadata=_doc("Whether a function writes a header line first."))


@dataclass(frozen=True, kw_only=True)
class FilesInput(FileInput):
    """Whole files: each file of the pattern is one record."""

    path: str = field(
        metadata=_doc(
            "A file, or several by a pattern (`pages/**/*.html`), from the folder of jobs.yaml.", **_NO_STREAM
        )
    )


@dataclass(frozen=True, kw_only=True)
class FilesOutput:
    """A folder with a file for each record, named like the file that the record was. It appears as a whole,
    in place of one that an earlier run has written."""

    path: str = field(metadata=_doc("The folder, from the folder of jobs.yaml.", **_NO_STREAM))
    ending: str | None = field(
        default=None,
        metadata=_doc("The ending of its files; that of the input without it.", pattern=r"[^/\0]*", example=".html"),
    )


@dataclass(frozen=True, kw_only=True)
class SqliteInput:
    """Rows of a table, or of a query, each as a JSON object with a value for each column; bytes are
    `{"$base64": "..."}`. What others write meanwhile is not seen."""

    __one_of__: ClassVar[tuple[str, ...]] = ("table", "query")

    path: str = field(metadata=_doc("The database, from the folder of jobs.yaml.", **_NO_STREAM))
    table: str | None = field(
        default=None, metadata=_doc("A table or view, in the order of its rows.", example="orders")
    )
    query: str | None = field(
        default=None,
        metadata=_doc(
            "A SELECT; give it an ORDER BY, so that a run that was interrupted can go on.",
            called=("sql",),
            example="SELECT id, total FROM orders ORDER BY id",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class SqliteOutput:
    """A table. Every line that a function writes is a JSON object; its keys are columns, a new one is added."""

    path: str = field(metadata=_doc("The database, from the folder of jobs.yaml.", **_NO_STREAM))
    table: str = field(metadata=_doc("The table.", example="clean_orders"))
    mode: Literal["replace", "append"] = field(
        default="replace", metadata=_doc("Whether the rows take the place of the table, or are added to it.")
    )


@dataclass(frozen=True, kw_only=True)
class ParquetInput(FileInput):
    """Parquet files: rows as JSON objects. Needs the extra `parquet`."""

    path: str = field(metadata=_doc("A file, or several by a pattern, from the folder of jobs.yaml.", **_NO_STREAM))


@dataclass(frozen=True, kw_only=True)
class ParquetOutput:
    """A Parquet file. Every line that a function writes is a JSON object; its keys are columns. Needs the
    extra `parquet`."""

    path: str = field(metadata=_doc("The file, from the folder of jobs.yaml.", **_NO_STREAM))
    compression: Literal["snappy", "zstd", "gzip", "none"] = field(
        default="snappy", metadata=_doc("How columns are packed.")
    )
