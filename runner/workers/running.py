"""Which runs are under way, so that they can be stopped by their request id."""

from __future__ import annotations

import threading

from runner.workers.frames import FrameRun


class Running:
    """The runs of one executor that are under way. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: set[FrameRun] = set()

    def entered(self, run: FrameRun) -> _Entry:
        """A context in which the run is under way."""
        return _Entry(self._runs, run, self._lock)

    def stop(self, request_id: str) -> bool:
        """Stop every run with this request id; False if there is none."""
        with self._lock:
            found = [run for run in self._runs if run.request_id == request_id]
        for run in found:
            run.stop()
        return bool(found)


class _Entry:
    __slots__ = ("_lock", "_run", "_runs")

    def __init__(self, runs: set[FrameRun], run: FrameRun, lock: threading.Lock) -> None:
        self._runs, self._run, self._lock = runs, run, lock

    def __enter__(self) -> None:
        with self._lock:
            self._runs.add(self._run)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._runs.discard(self._run)
