"""Where idle lanes wait: for a change of the store, for a moment, or for each other. Nobody polls.

One idle lane at a time listens to the store; when it wakes, it looks for work and the next one listens.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

from runner.run_store import Changes

LONGEST_SECONDS = 60.0
"""One wait ends after this at the latest: the fallback, should a change have been told to nobody."""


class Doorbell:
    """Wakes one waiter for each change. Safe for several threads."""

    def __init__(self, changes: Changes, seconds_until_due: Callable[[], float | None]) -> None:
        """`seconds_until_due` tells how long until time alone brings work; None: never."""
        self._changes, self._seconds_until_due = changes, seconds_until_due
        self._listening = threading.Lock()
        self._inner = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(changes.fileno(), select.POLLIN)
        self._poll.register(self._inner, select.POLLIN)
        self._open = False

    def wait(self) -> None:
        """Sleep until it rings. It may ring for nothing."""
        with self._listening:
            if self._open:
                return
            seconds = self._seconds_until_due()
            if seconds is not None and seconds <= 0:
                return
            limit = LONGEST_SECONDS if seconds is None else min(seconds, LONGEST_SECONDS)
            ready = [descriptor for descriptor, _ in self._poll.poll(limit * 1000 + 1)]
            if self._changes.fileno() in ready:
                self._changes.wait(0)
            if self._inner in ready and not self._open:
                os.eventfd_read(self._inner)

    def ring(self) -> None:
        """Wake one who waits, or else the next who will."""
        os.eventfd_write(self._inner, 1)

    def open(self) -> None:
        """From now on nobody waits any more."""
        self._open = True
        self.ring()

    def close(self) -> None:
        """Give back the descriptors, once nobody waits. May be called twice."""
        if self._inner >= 0:
            self._changes.close()
            os.close(self._inner)
            self._inner = -1
