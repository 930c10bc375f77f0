"""Who may have a worker: a semaphore that is first come, first served, and knows who is not looking.

A thread whose run waits for its consumer or its source holds workers that nobody reads from; were
they counted for good, a consumer that calls the executor again would wait for itself.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator

GRACE_SECONDS = 0.05
"""How long one waits before the permits of those who are away are given out a second time."""


class Closed(Exception):
    """There are no permits any more."""


class Permits:
    """`size` permits, given in the order in which they are asked for."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._given = 0
        self._away: Counter[int] = Counter()
        self._waiting: deque[threading.Lock] = deque()
        self._closed = False

    def acquire(self, is_stopped: Callable[[], bool]) -> bool:
        """Take a permit; waits for one. False when `is_stopped` turns true meanwhile. Raises Closed."""
        with self._lock:
            if self._closed:
                raise Closed
            # Who waits for its own consumer or source would wait for ever.
            mine = self._away[threading.get_ident()]
            if self._given < self._size + mine and (mine or not self._waiting):
                self._given += 1
                return True
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        try:
            while not turn.acquire(timeout=GRACE_SECONDS):
                if is_stopped():
                    self._withdraw(turn)
                    return False
                with self._lock:
                    self._grant(self._size + sum(self._away.values()))
        except BaseException:
            self._withdraw(turn)
            raise
        if self._closed:
            raise Closed
        return True

    def try_acquire(self) -> bool:
        """Take a permit if one is free and nobody waits for it. Raises Closed."""
        with self._lock:
            if self._closed:
                raise Closed
            if self._given >= self._size or self._waiting:
                return False
            self._given += 1
            return True

    def release(self) -> None:
        """Give a permit back."""
        with self._lock:
            self._given -= 1
            self._grant(self._size)

    @contextlib.contextmanager
    def away(self, count: int) -> Iterator[None]:
        """The holder of so many permits, this thread, does not look at its workers meanwhile."""
        thread = threading.get_ident()
        with self._lock:
            self._away[thread] += count
        try:
            yield
        finally:
            with self._lock:
                self._away[thread] -= count
                if not self._away[thread]:
                    del self._away[thread]

    def close(self) -> None:
        """Give no more; who waits gets Closed."""
        with self._lock:
            self._closed = True
            while self._waiting:
                self._waiting.popleft().release()

    def _grant(self, most: int) -> None:
        while self._waiting and self._given < most:
            self._given += 1
            self._waiting.popleft().release()

    def _withdraw(self, turn: threading.Lock) -> None:
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
                return
        if not self._closed:
            self.release()  # it was granted in the moment in which the wait was interrupted
