"""The in-memory registry, for tests that need one and no file. It keeps the whole contract but the
last word: what it holds is gone with the object.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from datetime import datetime, timezone
from difflib import get_close_matches
from itertools import islice

from runner.contracts import FunctionRegistry
from runner.errors import FunctionNotFound, InvalidInput, StoreDamaged, UsageError
from runner.models import Function, FunctionDefinition, FunctionStatus, LogEntry
from runner.results import ResultCache
from runner.testing.memory_results import Entry, MemoryResultCache
from runner.wasm import content_id

_SETTINGS = tuple(field.name for field in fields(FunctionDefinition) if field.name != "version")


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)


class MemoryRegistry(FunctionRegistry):
    """A FunctionRegistry in dictionaries, behind one lock.

    `now` is the clock of created_at and updated_at; it must return aware datetimes.
    `log_lines` is how many log lines are kept for each function.
    """

    def __init__(self, *, now: Callable[[], datetime] = _utc_now, log_lines: int = 10_000) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._versions: dict[tuple[str, str], list[Function]] = {}
        self._modules: dict[str, bytes] = {}
        self._logs: dict[tuple[str, str], deque[LogEntry]] = defaultdict(lambda: deque(maxlen=log_lines))
        self._results: dict[bytes, Entry] = {}

    def register(
        self, definition: FunctionDefinition, wasm: bytes, *, source_cid: str | None = None
    ) -> Function | None:
        """See FunctionRegistry.register."""
        wasm_cid = content_id(wasm)
        settings = {name: getattr(definition, name) for name in _SETTINGS}
        with self._lock:
            versions = self._versions.get((definition.namespace, definition.name), [])
            following = len(versions) + 1
            if definition.version not in (0, following):
                raise UsageError(
                    f"function {definition.name!r} cannot become version {definition.version}: "
                    f"the next is {following}; ask for that or for 0"
                )
            self._modules[wasm_cid] = bytes(wasm)
            previous = _newest_active(versions)
            if previous is not None and previous.wasm_cid == wasm_cid and _has(previous, settings):
                return previous
            moment = self._now()
            self._versions.setdefault((definition.namespace, definition.name), []).append(
                Function(
                    **settings,
                    id=f"{definition.namespace}/{definition.name}@{following}",
                    version=following,
                    wasm_cid=wasm_cid,
                    source_cid=source_cid,
                    created_at=moment,
                    updated_at=moment,
                )
            )
            return previous

    def get(self, namespace: str, name: str, version: int = 0) -> Function:
        """See FunctionRegistry.get."""
        with self._lock:
            for function in reversed(self._versions.get((namespace, name), ())):
                if function.status is FunctionStatus.ACTIVE and version in (0, function.version):
                    return function
            raise self._not_found(namespace, name, version)

    def list(self, namespace: str) -> Sequence[Function]:
        """See FunctionRegistry.list."""
        with self._lock:
            return [
                function
                for (space, _), versions in sorted(self._versions.items())
                if space == namespace and (function := _newest_active(versions))
            ]

    def versions(self, namespace: str, name: str) -> Sequence[Function]:
        """See FunctionRegistry.versions."""
        with self._lock:
            return self._known(namespace, name)[::-1]

    def delete(self, namespace: str, name: str, version: int = 0) -> int:
        """See FunctionRegistry.delete."""
        with self._lock:
            versions = self._versions.get((namespace, name), [])
            doomed = [f for f in versions if f.status is FunctionStatus.ACTIVE and version in (0, f.version)]
            if not doomed:
                raise self._not_found(namespace, name, version)
            for function in doomed:
                versions[function.version - 1] = replace(
                    function, status=FunctionStatus.INACTIVE, updated_at=self._now()
                )
            return len(doomed)

    def get_wasm_bytes(self, wasm_cid: str) -> bytes:
        """See FunctionRegistry.get_wasm_bytes."""
        with self._lock:
            wasm = self._modules.get(wasm_cid)
        if wasm is None:
            raise InvalidInput(f"no module {wasm_cid!r} in this registry")
        if content_id(wasm) != wasm_cid:
            raise StoreDamaged(f"module {wasm_cid} is not what was registered; register its function again")
        return wasm

    def add_logs(self, function: Function, request_id: str, entries: Sequence[LogEntry]) -> None:  # noqa: ARG002
        """See FunctionRegistry.add_logs."""
        with self._lock:
            self._logs[function.namespace, function.name].extend(entries)

    def get_logs(self, namespace: str, name: str, limit: int = 100) -> Sequence[LogEntry]:
        """See FunctionRegistry.get_logs."""
        with self._lock:
            self._known(namespace, name)
            newest_first = reversed(self._logs[namespace, name])
            return list(islice(newest_first, max(limit, 0)))[::-1]

    def result_cache(self, *, max_bytes: int, tell: Callable[[str], None]) -> ResultCache:  # noqa: ARG002
        """See FunctionRegistry.result_cache."""
        return MemoryResultCache(max_bytes=max_bytes, kept=self._results)

    def close(self) -> None:
        """See FunctionRegistry.close."""

    def _known(self, namespace: str, name: str) -> Sequence[Function]:
        try:
            return self._versions[namespace, name]
        except KeyError:
            raise self._not_found(namespace, name, 0) from None

    def _not_found(self, namespace: str, name: str, version: int) -> FunctionNotFound:
        names = [
            known
            for (space, known), versions in self._versions.items()
            if space == namespace and _newest_active(versions)
        ]
        nearest = get_close_matches(name, names, n=1)
        return FunctionNotFound(name, namespace=namespace, version=version, suggestion=nearest[0] if nearest else None)


def _newest_active(versions: Sequence[Function]) -> Function | None:
    return next((f for f in reversed(versions) if f.status is FunctionStatus.ACTIVE), None)


def _has(function: Function, settings: dict[str, object]) -> bool:
    return all(getattr(function, name) == value for name, value in settings.items())
