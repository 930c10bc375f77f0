"""Blocks of records that are no lines of a file: rows and whole files."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any

from runner.errors import InvalidRecord
from runner.records import Block, Place, Position

BLOB = "$base64"
"""A row's bytes are `{"$base64": "..."}` in JSON."""


class RowBlock(Block):
    """Some records with the place of each."""

    def __init__(self, records: Sequence[bytes], places: Sequence[Place], end: Position) -> None:
        self._records, self._places = records, places
        self.count, self.size, self.end = len(records), sum(map(len, records)), end
        self.refused: dict[int, InvalidRecord] = {}
        self.cut_short: list[int] = []

    def records(self) -> Sequence[bytes]:
        """See Block."""
        return self._records

    def place(self, index: int) -> Place:
        """See Block."""
        return self._places[index]


def encoded(row: dict[str, Any]) -> bytes:
    """A row as compact JSON. Raises InvalidRecord for what JSON cannot hold."""
    try:
        return _encode(row).encode()
    except (ValueError, TypeError) as error:
        raise InvalidRecord(f"the row cannot be written as JSON: {_why(row, error)}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {BLOB: base64.b64encode(value).decode()}
    isoformat: Callable[[], str] | None = getattr(value, "isoformat", None)
    return isoformat() if isoformat is not None else str(value)


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain).encode


def _why(row: dict[str, Any], error: Exception) -> str:
    for name, value in row.items():
        try:
            _encode(value).encode()
        except (ValueError, TypeError):
            return f"column {name} is {value!r:.60}"
    return str(error)


def decoded(line: bytes) -> dict[str, Any]:
    """The row that a line of output is. Raises ValueError, which says what it is instead."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"the output is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"the output is no JSON object with a value for each column, but {type(row).__name__}")
    return row
