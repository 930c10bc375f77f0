"""The file of quarantined records: JSON lines, one a record, with all that is needed to run it again."""

from __future__ import annotations

import base64
import json
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.errors import FileUnavailable, InvalidInput, RunnerError
from runner.partial import PartialFile
from runner.records import Place

TAIL_CHARACTERS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Quarantined:
    """A record that failed for good."""

    place: Place
    attempts: int
    """How often it was tried; 0 for one that no function got to see."""
    error_class: str
    message: str
    stderr_tail: str
    record: bytes
    """As it stands in the source, without its line break."""
    lead: bytes
    """What a function is given in front of it: the header of a CSV file."""
    output_offset: int
    """Where in the output, in bytes, that of this record would stand."""
    whole: bool = True
    """Whether `record` is all of it; one that was too long is not."""
    recording: bytes | None = None
    """What is kept of its last attempt, as runner.recordings writes it; None for nothing."""

    def facts(self) -> dict[str, Any]:
        """As JSON values, in the order in which they are written."""
        facts = {
            "source": self.place.source,
            "record": self.place.number,
            "offset": self.place.offset,
            "attempts": self.attempts,
            "error_class": self.error_class,
            "message": self.message,
            "stderr_tail": self.stderr_tail,
            **_bytes("input", self.record),
        }
        if self.lead:
            facts |= _bytes("lead", self.lead)
        if not self.whole:
            facts["truncated"] = True
        facts["output_offset"] = self.output_offset
        if self.recording is not None:
            facts["recording"] = json.loads(self.recording)
        return facts

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Quarantined:
        """The record that `facts` told. Raises KeyError, TypeError, ValueError for what it never told."""
        return cls(
            place=Place(facts["source"], facts["record"], facts["offset"]),
            attempts=facts["attempts"],
            error_class=facts["error_class"],
            message=facts["message"],
            stderr_tail=facts["stderr_tail"],
            record=_bytes_of("input", facts),
            lead=_bytes_of("lead", facts) if "lead" in facts or "lead_base64" in facts else b"",
            output_offset=facts["output_offset"],
            whole=not facts.get("truncated", False),
            recording=json.dumps(facts["recording"]).encode() if "recording" in facts else None,
        )


def _bytes(name: str, data: bytes) -> dict[str, Any]:
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def _bytes_of(name: str, facts: dict[str, Any]) -> bytes:
    if name in facts:
        text: str = facts[name]
        return text.encode()
    return base64.b64decode(facts[f"{name}_base64"], validate=True)


def described(error: RunnerError) -> tuple[str, str, str]:
    """Class, message and the end of standard error, as quarantined records keep them."""
    return error.error_class, str(error), getattr(error, "stderr_tail", "")[-TAIL_CHARACTERS:]


class QuarantineFile:
    """The quarantine of one run, on its way like the output itself."""

    def __init__(self, path: Path, shown: str) -> None:
        self._file = PartialFile(path, shown)

    @property
    def shown(self) -> str:
        """The file that is being written, as the user would write it."""
        return self._file.shown

    def open(self, length: int | None = None) -> None:
        """Begin anew, or go on behind that many bytes. Raises FileUnavailable, StoreLocked."""
        self._file.open(length)

    def add(self, record: Quarantined) -> None:
        """Append one. Raises FileUnavailable."""
        line = json.dumps(record.facts(), ensure_ascii=False)
        self._file.append(line.encode("utf-8", "backslashreplace") + b"\n")  # a file's name may be no UTF-8

    @property
    def length(self) -> int:
        """Bytes up to here."""
        return self._file.length

    def sync(self) -> None:
        """Bring all to the disk. Raises FileUnavailable."""
        self._file.sync()

    def publish(self, count: int) -> None:
        """Give the file its name; without any record take away that of an earlier run."""
        if count:
            self._file.publish()
        else:
            self._file.withdraw()

    def close(self) -> None:
        """Give the file back. May be called twice."""
        self._file.close()


def read_quarantine(path: Path, shown: str) -> Generator[tuple[int, Quarantined], None, None]:
    """Every record of a published quarantine and the bytes up to its end. Raises FileUnavailable,
    InvalidInput with the line for what is no such record."""
    end = 0
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                end += len(line)
                yield end, _parsed(line, f"{shown}:{number}")
    except OSError as error:
        raise FileUnavailable(f"cannot read {shown}: {error.strerror}") from error


def _parsed(line: bytes, place: str) -> Quarantined:
    try:
        return Quarantined.of(json.loads(line))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        why = "no JSON" if isinstance(error, ValueError) else "other keys or values"
        missing = f"no {error}" if isinstance(error, KeyError) else why
        raise InvalidInput(f"{place} is no quarantined record: it has {missing}") from error
