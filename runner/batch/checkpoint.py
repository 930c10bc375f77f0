"""What a batch keeps in the state folder: its lock, what it is a batch of, how far it is, how it ended.

A checkpoint is one small file that is replaced as a whole. It is written after all that it speaks of is
on the disk, so that whoever finds it can go on from there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runner.batch.identity import Identity
from runner.errors import FileUnavailable, StoreDamaged, StoreError, StoreFull, StoreLocked
from runner.files import write_whole
from runner.partial import sync_folder
from runner.records import Position

FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """How far a batch is: everything before these positions is done and on the disk."""

    source: Position | None
    """Where to read on; None at the beginning."""
    ahead: Sequence[Position]
    """The ends of blocks behind it that are done, too."""
    sink: Position | None
    quarantine: int
    """Bytes of the quarantine file."""
    counts: Mapping[str, Any]
    finished: bool = False
    """Whether everything is done, and only the files' names are left to give."""


class StateFolder:
    """The state of one batch, or of one partition of it. The lock is held from `lock` to `close`."""

    def __init__(self, folder: Path, title: str) -> None:
        self._folder, self._title = folder, title
        self._lock = -1

    def lock(self) -> None:
        """Keep others out. Raises StoreLocked while another process runs this batch, StoreError."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise StoreLocked(f"{self._title} is running already, in another process; wait for it or stop it") from None
        except OSError as error:
            self.close()
            raise _refused(self._folder, error) from error

    def close(self) -> None:
        """Let others in. May be called twice."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def load(self) -> Checkpoint | None:
        """How far an earlier process came that did not end well; None without one.
        Raises StoreDamaged for a file that cannot be understood."""
        facts = self._read("checkpoint.json")
        try:
            return None if facts is None else Checkpoint(**facts)
        except TypeError as error:
            raise self._damaged("checkpoint.json", str(error)) from error

    def identity(self) -> Identity | None:
        """What that was a run of; None where nothing is known. Raises StoreDamaged."""
        facts = self._read("run.json")
        try:
            return None if facts is None else Identity.of(facts["identity"])
        except (KeyError, TypeError) as error:
            raise self._damaged("run.json", str(error)) from error

    def begin(self, identity: Identity) -> None:
        """Forget the run before, and note what this one is a run of. Raises StoreError."""
        self._forget("checkpoint.json")  # first: it would be taken for one of the new identity
        self.adopt(identity)

    def adopt(self, identity: Identity) -> None:
        """Take what there is for a run of another identity, as the user wants it. Raises StoreError."""
        self._write("run.json", {"format": FORMAT, "identity": identity.facts()})

    def save(self, checkpoint: Checkpoint) -> None:
        """Note how far the run is, durably. Raises StoreError, with the checkpoint before left as it was."""
        self._write("checkpoint.json", asdict(checkpoint))
        if checkpoint.finished:
            with _refusals(self._folder):
                sync_folder(self._folder)

    def finish(self, report: Mapping[str, Any]) -> None:
        """Note how the run ended, and forget how far it was. Raises StoreError."""
        self._write("last.json", report)
        self._forget("checkpoint.json")
        self._forget("run.json")

    def last(self) -> dict[str, Any] | None:
        """How the last run that came to an end did end; None without one."""
        return self._read("last.json")

    def note(self, report: Mapping[str, Any]) -> None:
        """Note how a run ended that can go on. Raises StoreError."""
        self._write("last.json", report)

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            facts = json.loads((self._folder / name).read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _refused(self._folder / name, error) from error
        except ValueError as error:
            raise self._damaged(name, str(error)) from error
        if not isinstance(facts, dict) or facts.get("format", FORMAT) != FORMAT:
            raise self._damaged(name, "it is of another version")
        return facts

    def _damaged(self, name: str, why: str) -> StoreDamaged:
        return StoreDamaged(f"{self._folder / name} cannot be understood ({why}); --restart begins again")

    def _write(self, name: str, facts: Mapping[str, Any]) -> None:
        try:
            write_whole(self._folder / name, json.dumps(facts).encode())
        except FileUnavailable as error:
            cause = error.__cause__
            raise _refused(self._folder / name, cause if isinstance(cause, OSError) else OSError(str(error))) from error

    def _forget(self, name: str) -> None:
        with _refusals(self._folder), contextlib.suppress(FileNotFoundError):
            (self._folder / name).unlink()


@contextlib.contextmanager
def _refusals(place: Path) -> Any:
    try:
        yield
    except OSError as error:
        raise _refused(place, error) from error


def _refused(place: Path, error: OSError) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"no room for {place}: {error.strerror}; make room and run again, nothing done is lost")
    return StoreError(f"{place} cannot be used: {error.strerror or error}")
