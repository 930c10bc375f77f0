"""Which runs are under way, so that they can be stopped by their request id."""

from __future__ import annotations

import threading

from runner.workers.frames import FrameRun


class Running:
    """The runs of one executor that are under way. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: set[FrameRun] = set()

    def add(self, run: FrameRun) -> None:
        """The run is under way."""
        with self._lock:
            self._runs.add(run)

    def remove(self, run: FrameRun) -> None:
        """It is no longer. To be called for each that was added, whatever happens."""
        with self._lock:
            self._runs.discard(run)

    def stop(self, request_id: str) -> bool:
        """Stop every run with this request id; False if there is none."""
        with self._lock:
            found = [run for run in self._runs if run.request_id == request_id]
        for run in found:
            run.stop()
        return bool(found)
