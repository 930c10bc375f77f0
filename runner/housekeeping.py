"""What a daemon does now and then and what may take long, in a thread of its own: pruning, loading again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from runner.errors import RunnerError

PRUNE_SECONDS = 3600.0
"""From the end of one pruning to the next."""
STOP_SECONDS = 5.0
"""How long `stop` waits: loading again may be compiling."""
STEP_SECONDS = 0.05
"""Between two steps of pruning, so that runs come first."""


class Housekeeper:
    """Runs `prune` steps and `load_again` when they are due."""

    def __init__(
        self,
        *,
        prune: Callable[[], bool],
        load_again: Callable[[], None],
        tell: Callable[[str], None],
        broken: Callable[[BaseException], None],
    ) -> None:
        """`prune` does one step and tells whether there is more; `tell` is given what stood in its way,
        `broken` what nobody foresaw, after which nothing is done any more."""
        self._prune, self._load_again, self._tell, self._broken = prune, load_again, tell, broken
        self._condition = threading.Condition()
        self._reload = self._stopped = False
        self._thread = threading.Thread(target=self._run, name="housekeeper", daemon=True)

    def start(self) -> None:
        """Begin, with a pruning."""
        self._thread.start()

    def reload(self) -> None:
        """Ask for loading again; several asks may be met by one."""
        with self._condition:
            self._reload = True
            self._condition.notify()

    def stop(self) -> None:
        """End after the step that is under way, and wait for it a while."""
        with self._condition:
            self._stopped = True
            self._condition.notify()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        try:
            self._keep_house()
        except BaseException as error:
            self._broken(error)

    def _keep_house(self) -> None:
        due = time.monotonic()
        while True:
            with self._condition:
                self._condition.wait_for(
                    lambda: self._reload or self._stopped, timeout=max(0.0, due - time.monotonic())
                )
                if self._stopped:
                    return
                reload, self._reload = self._reload, False
            if reload:
                self._load_again()
            elif time.monotonic() >= due:
                due = time.monotonic() + (STEP_SECONDS if self._prune_once() else PRUNE_SECONDS)

    def _prune_once(self) -> bool:
        try:
            return self._prune()
        except RunnerError as error:
            self._tell(f"what is past its retention could not be pruned: {error}")
            return False
