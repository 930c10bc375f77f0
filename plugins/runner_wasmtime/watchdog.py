"""Calls a function when an invocation runs past its deadline.

One thread, asleep until the earliest moment it may be needed: arming and disarming a deadline do not
wake it, so that an invocation costs no switch of threads and an idle worker no processor time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

_FOREVER: Final = float("inf")


class Watchdog:
    """Watches one deadline at a time. Its thread belongs to the process that called `start`."""

    def __init__(self, expired: Callable[[], None]) -> None:
        self._expired = expired
        self._changed = threading.Condition(threading.Lock())
        self._deadline = _FOREVER
        self._wakes_at = 0.0
        self._stopped = False
        self._thread = threading.Thread(target=self._watch, name="deadline", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def arm(self, seconds: float) -> None:
        """Call `expired` once in `seconds` from now, from the thread, unless disarmed before."""
        deadline = time.monotonic() + seconds
        with self._changed:
            self._deadline = deadline
            if deadline < self._wakes_at:
                self._changed.notify()

    def disarm(self) -> None:
        """Forget the deadline. After this `expired` is not called until the next `arm`."""
        with self._changed:
            self._deadline = _FOREVER

    def stop(self) -> None:
        """End the thread and wait for it."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def _watch(self) -> None:
        with self._changed:
            while not self._stopped:
                remaining = self._deadline - time.monotonic()
                if remaining <= 0:
                    self._deadline = remaining = _FOREVER
                    self._expired()
                # Waits for the deadline known now; a later one is looked at when it wakes.
                timeout = None if remaining > threading.TIMEOUT_MAX else remaining
                self._wakes_at = _FOREVER if timeout is None else time.monotonic() + timeout
                self._changed.wait(timeout)
