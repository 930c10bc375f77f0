"""Tells when one file was written or put in its place anew, by inotify(7): nobody polls.

Where the kernel does not tell (some network file systems), SIGHUP remains.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from inotify_simple import INotify, flags


class FileWatch:
    """Watches the folder of a file, since editors and deployments replace files by renaming."""

    def __init__(self, path: Path) -> None:
        """Raises OSError where the kernel cannot watch, or watches too much already."""
        self._path = path
        self._target = os.path.realpath(path)
        self._inotify = INotify(nonblocking=True)
        try:
            self._inotify.add_watch(str(path.parent), flags.CLOSE_WRITE | flags.MOVED_TO)
        except OSError:
            self._inotify.close()
            raise

    def fileno(self) -> int:
        """Readable when something happened in the folder."""
        return int(self._inotify.fileno())

    def changed(self) -> bool:
        """Whether the file is among what changed since the last call, or a link on its way leads elsewhere
        (as where a mounted ConfigMap is replaced). Never waits."""
        before, self._target = self._target, os.path.realpath(self._path)
        events = self._inotify.read(timeout=0)
        named = any(event.name == self._path.name or event.mask & flags.Q_OVERFLOW for event in events)
        return named or self._target != before

    def close(self) -> None:
        """Watch no more."""
        self._inotify.close()

    def __enter__(self) -> FileWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inotify.close()
