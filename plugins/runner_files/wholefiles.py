"""Whole files as records: each file of a pattern is one, and each output a file in a folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from runner.contracts import Host
from runner.errors import FileUnavailable, InvalidRecord, OutputRefused, SourceChanged
from runner.partial import ENDING, PartialFile, sync_folder
from runner.records import COMPRESSED, Limits, Place, PlaceOf, Position, Reader, Sink, Source
from runner_files.inputs import InputFile, find
from runner_files.lines import KEPT_BYTES
from runner_files.rows import RowBlock
from runner_files.settings import FilesInput, FilesOutput
from runner_files.unpacked import unpacked

MANIFEST = ".runner-batch"
"""Lists the files that a run has written; a folder without it is nobody's to replace."""


class FilesSource(Source):
    """The files of a pattern."""

    def __init__(self, folder: Path, settings: FilesInput) -> None:
        self._folder, self._settings = folder, settings
        self._files: list[InputFile] | None = None

    def parts(self) -> Mapping[str, str]:
        """See Source."""
        return {file.name: file.state for file in self._found()}

    def open(self, limits: Limits, position: Position | None = None) -> Reader:
        """See Source."""
        return FilesReader(self._found(), limits, position)

    def _found(self) -> list[InputFile]:
        if self._files is None:
            self._files = find(self._folder, self._settings.path, self._settings.sort)
        return self._files


class FilesReader(Reader):
    """Reads files whole, several in a block."""

    def __init__(self, files: Sequence[InputFile], limits: Limits, position: Position | None) -> None:
        self._files, self._limits = files, limits
        self._next = 0 if position is None else self._behind(position["file"])

    def _behind(self, name: str) -> int:
        names = [file.name for file in self._files]
        if name not in names:
            raise SourceChanged(f"{name}, behind which the run is to go on, is not among its inputs; use --restart")
        return names.index(name) + 1

    def read(self) -> RowBlock | None:
        """See Reader."""
        records: list[bytes] = []
        places: list[Place] = []
        long: dict[int, InvalidRecord] = {}
        size = 0
        while self._next < len(self._files) and len(records) < self._limits.block_records:
            file = self._files[self._next]
            if records and size + file.size > self._limits.block_bytes:
                break
            data = self._whole(file)
            if len(data) > self._limits.record_bytes:
                limit = self._limits.record_bytes >> 20
                long[len(records)] = InvalidRecord(f"longer than {limit} MiB, the most that a record may have")
                data = data[:KEPT_BYTES]
            self._next += 1
            size += len(data)
            records.append(data)
            places.append(Place(file.name, 0))
        if not records:
            return None
        block = RowBlock(records, places, {"file": self._files[self._next - 1].name})
        block.refused, block.cut_short = long, list(long)
        return block

    def _whole(self, file: InputFile) -> bytes:
        """All of a file, or more than a record may have."""
        source, pieces, size = unpacked(file), [], 0
        try:
            while size <= self._limits.record_bytes and (data := source.read(1 << 18)):
                pieces.append(data)
                size += len(data)
        finally:
            source.close()
        return b"".join(pieces)

    def done(self) -> float | None:
        """See Reader."""
        return self._next / len(self._files)

    def close(self) -> None:
        """See Reader. No file stays open from one to the next."""


class FolderSink(Sink):
    """A folder with a file for each output; the folder appears when it is whole."""

    seamless = True

    def __init__(self, folder: Path, settings: FilesOutput) -> None:
        self.target = settings.path
        self._ending = settings.ending
        self._path = folder / settings.path.rstrip("/")
        self._growing = self._path.with_name(self._path.name + ENDING)
        self._manifest = PartialFile(self._growing / MANIFEST, f"{settings.path}/{MANIFEST}")
        self._names: set[str] = set()
        self._unsynced: list[str] = []
        self._offset = self._size = 0

    def open(self, position: Position | None = None) -> None:
        """See Sink."""
        self._check_replaceable()
        if position is None:
            self._begin()
        self._manifest.open(None if position is None else position["manifest"])
        self._names, self._offset = set(), 0
        if position is not None:
            listed = self._manifest.partial.read_text(encoding="utf-8", errors="surrogateescape")
            self._names, self._offset, self._size = set(listed.splitlines()), position["offset"], position["size"]
        for name in self._written() - self._names:
            (self._growing / name).unlink()

    def _begin(self) -> None:
        try:
            self._growing.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileUnavailable(f"cannot write {self.target}: {error.strerror}") from error

    def _check_replaceable(self) -> None:
        path = self._path
        if path.exists() and not path.is_dir():
            raise FileUnavailable(f"cannot write {self.target}: it is a file, and `format: files` writes a folder")
        if path.is_dir() and not (path / MANIFEST).exists() and any(path.iterdir()):
            raise FileUnavailable(
                f"cannot write {self.target}: there are files in it that no batch has written; name a folder of its own"
            )

    def _written(self) -> set[str]:
        own = {MANIFEST, f"{MANIFEST}{ENDING}"}
        return {entry.name for entry in self._growing.iterdir() if entry.name not in own}

    @property
    def offset(self) -> int:
        """See Sink: files."""
        return self._offset

    @property
    def size(self) -> int:
        """See Sink."""
        return self._size

    def write(self, outputs: Sequence[bytes], place: PlaceOf) -> int:
        """See Sink."""
        for index, output in enumerate(outputs):
            name = self._name(place(index))
            if name in self._names or "\n" in name:
                why = "its name has a line break" if "\n" in name else "of another record there is one of this name"
                raise OutputRefused(index, f"no file {name!r} in {self.target}: {why}", written=index)
            try:
                (self._growing / name).write_bytes(output)
            except OSError as error:
                raise FileUnavailable(f"cannot write {name} in {self._growing}: {error.strerror}") from error
            self._note(name, len(output))
        return len(outputs)

    def _note(self, name: str, size: int) -> None:
        self._names.add(name)
        self._unsynced.append(name)
        self._manifest.append(os.fsencode(name) + b"\n")
        self._offset += 1
        self._size += size

    def _name(self, place: Place) -> str:
        name = PurePath(PurePath(place.source).name)
        if name.suffix in COMPRESSED:
            name = PurePath(name.stem)  # it was unpacked
        stem = f"{name.stem}-{place.number}" if place.number else name.stem
        return stem + (self._ending if self._ending is not None else name.suffix)

    def cut(self) -> Position:
        """See Sink."""
        return {"manifest": self._manifest.length, "offset": self._offset, "size": self._size}

    def sync(self) -> None:
        """See Sink."""
        names, self._unsynced = self._unsynced, []
        try:
            for name in names:
                descriptor = os.open(self._growing / name, os.O_RDONLY | os.O_CLOEXEC)
                os.fsync(descriptor)
                os.close(descriptor)
            sync_folder(self._growing)
        except OSError as error:
            raise FileUnavailable(f"cannot write {self._growing}: {error.strerror}") from error
        self._manifest.sync()

    def publish(self) -> None:
        """See Sink. For a moment there is no folder; a half one there never is."""
        replaced = self._path.with_name(self._path.name + ".replaced")
        try:
            if self._growing.exists():
                self._manifest.publish()
                if self._path.exists():
                    shutil.rmtree(replaced, ignore_errors=True)
                    self._path.rename(replaced)
                self._growing.rename(self._path)
                sync_folder(self._path.parent)
            shutil.rmtree(replaced, ignore_errors=True)
        except OSError as error:
            raise FileUnavailable(f"cannot write {self.target}: {error.strerror}") from error

    def is_published(self) -> bool | None:
        """See Sink."""
        return self._path.exists()

    def open_copy(self, offset: int) -> None:
        """See Sink."""
        names = [name for name in (self._path / MANIFEST).read_text().splitlines() if (self._path / name).exists()]
        if len(names) != offset:
            raise FileUnavailable(f"{self.target} has {len(names):,} of the {offset:,} files that the run before wrote")
        self.open()
        for name in names:
            os.link(self._path / name, self._growing / name)
            self._note(name, 0)

    def copy(self, offset: int | None) -> None:
        """See Sink. Files of a folder have no order."""

    def close(self) -> None:
        """See Sink."""
        self._manifest.close()


def files_source(settings: FilesInput, host: Host) -> Source:
    """A source of whole files."""
    return FilesSource(host.project_dir, settings)


def files_sink(settings: FilesOutput, host: Host) -> Sink:
    """A sink that is a folder."""
    return FolderSink(host.project_dir, settings)
