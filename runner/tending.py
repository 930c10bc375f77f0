"""The thread that cares for what a daemon holds: it may have to wait for the store, which the main thread,
with its signals and questions, must not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from runner.errors import StoreError
from runner.reactor import Reactor
from runner.run_store import Changes

CHANGE_SECONDS = 0.05
"""So long after a change the store is looked at: a busy one changes all the time, and what is quick is
over by then."""
STOP_SECONDS = 1.0
"""How long `stop` waits: it may hang in a store that is locked."""


class Tender:
    """Calls `tend` when the store has changed, when it is woken, and after `seconds`, which is asked each time."""

    def __init__(
        self,
        changes: Changes,
        *,
        seconds: Callable[[], float],
        tend: Callable[[], None],
        refused: Callable[[StoreError], None],
        broken: Callable[[BaseException], None],
    ) -> None:
        """`refused` is told what may be tried again, `broken` what will never pass: then it ends."""
        self._changes, self._seconds, self._tend = changes, seconds, tend
        self._refused, self._broken = refused, broken
        self._reactor = Reactor()
        self._reactor.on(changes.fileno(), self._changed)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tender", daemon=True)

    def start(self) -> None:
        """Begin, with a call."""
        self._reactor.wake()
        self._thread.start()

    def wake(self) -> None:
        """There may be something to care for. Any thread may call it."""
        self._reactor.wake()

    def stop(self) -> None:
        """Begin nothing more, and wait a moment for what is under way. May be called twice."""
        self._stopped.set()
        self._reactor.wake()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)
        if not self._thread.is_alive():
            self._reactor.close()
            self._changes.close()

    def _changed(self) -> None:
        self._changes.wait(0)

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                self._reactor.turn(self._seconds())
                self._stopped.wait(CHANGE_SECONDS)
                self._tend_once()
        except BaseException as error:
            self._broken(error)

    def _tend_once(self) -> None:
        try:
            self._tend()
        except StoreError as error:
            if not error.retryable:
                raise
            self._refused(error)
