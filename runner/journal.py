"""The daemon's log: one line an event, as text for people or as JSON, and never a flood.

Lines of one kind that come faster than BURST in a second are counted and told together.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, TextIO

BURST = 20
"""So many lines of one kind are written in a second."""
LEVELS = ("debug", "info", "warning", "error")


class Journal:
    """Writes lines. Safe for several threads; a stream that nobody reads any more is no error."""

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        as_json: bool = False,
        level: str = "info",
        paint: Callable[[str, str], str] = lambda _level, text: text,
        clean: Callable[[str], str] = str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`level` is the least that is written; `paint` colours a word by level (or `moment`, `fact`),
        `clean` makes text of guests harmless for a terminal. Both are for text, not for JSON."""
        self._stream = stream or sys.stderr
        self._as_json, self._paint, self._clean, self._clock = as_json, paint, clean, clock
        self._least = LEVELS.index(level)
        self._lock = threading.Lock()
        self._second = 0
        self._counts: dict[str, int] = {}

    def tell(self, level: str, message: str, **facts: Any) -> None:
        """Write a line; `facts` are JSON values. Lines of one `kind`, a fact that is not shown, are
        limited together."""
        kind = str(facts.pop("kind", ""))
        if LEVELS.index(level) < self._least:
            return
        with self._lock:
            now = self._clock()
            if int(now) != self._second:
                self._tell_missing(now)
                self._second = int(now)
            count = self._counts[kind] = self._counts.get(kind, 0) + 1
            if not kind or count <= BURST:
                self._write(now, level, message, facts)

    def _tell_missing(self, now: float) -> None:
        for kind, count in self._counts.items():
            if kind and count > BURST:
                self._write(now, "info", f"and {count - BURST:,} more lines about {kind}", {})
        self._counts.clear()

    def _write(self, now: float, level: str, message: str, facts: dict[str, Any]) -> None:
        moment = datetime.fromtimestamp(now, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if self._as_json:
            # ASCII, whatever the locale says.
            line = json.dumps({"timestamp": moment, "level": level, "message": message, **facts})
        else:
            shown = "".join(f"  {self._paint('fact', f'{name}={value}')}" for name, value in facts.items())
            line = f"{self._paint('moment', moment)}  {self._paint(level, f'{level:7}')}  {self._clean(message)}{shown}"
        with contextlib.suppress(OSError, ValueError):
            print(line, file=self._stream, flush=True)
