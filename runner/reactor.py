"""What a thread sleeps on when several things may wake it, each with what is to be done then. Nobody polls."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator


class Reactor:
    """Used by one thread; `wake` may be called by any, and in a signal handler."""

    def __init__(self) -> None:
        self._reactions: dict[int, Callable[[], object]] = {}
        self._poll = select.poll()
        self._closing = threading.RLock()  # a signal handler may wake whoever closes
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.on(self._wake, self._woken)

    def on(self, descriptor: int, react: Callable[[], object]) -> None:
        """Call `react` whenever the descriptor is readable; it reads what there is to read."""
        self._reactions[descriptor] = react
        self._poll.register(descriptor, select.POLLIN)

    @contextlib.contextmanager
    def hearing_signals(self) -> Iterator[None]:
        """Let signals end the sleep of the main thread, too; nothing in another thread.

        Python runs a handler when the main thread executes Python again. A signal that comes just before the
        sleep begins, or to another thread, would be noticed when it ends.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        ours, theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.on(ours, lambda: os.read(ours, 4096))
        before = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            self._poll.unregister(ours)
            os.close(ours)
            os.close(theirs)

    def turn(self, seconds: float) -> None:
        """Sleep until something happens, for so long at most, and react to it."""
        for descriptor, _ in self._poll.poll(max(0.0, seconds) * 1000 + 1):
            self._reactions[descriptor]()

    def wake(self) -> None:
        """End the sleep that is under way, or else the next."""
        with self._closing:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def _woken(self) -> None:
        os.eventfd_read(self._wake)

    def close(self) -> None:
        """Give back its own descriptor. May be called twice."""
        with self._closing:
            if self._wake >= 0:
                os.close(self._wake)
                self._wake = -1
