"""The in-memory registry keeps the registry contract."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from runner.contracts import FunctionRegistry
from runner.errors import StoreDamaged
from runner.models import LogEntry, LogLevel
from runner.testing import MemoryRegistry, RegistryContract
from runner.testing.registry import definition, module


class TestMemoryRegistry(RegistryContract):
    durable = False

    def make_registry(self, folder: Path) -> FunctionRegistry:  # noqa: ARG002
        return MemoryRegistry()


def test_the_clock_is_an_argument() -> None:
    moment = datetime(2013, 1, 1, tzinfo=timezone.utc)
    registry = MemoryRegistry(now=lambda: moment)
    registry.register(definition(), module("a"))
    assert registry.get("shop", "clean").created_at == moment


def test_only_the_newest_log_lines_are_kept() -> None:
    registry = MemoryRegistry(log_lines=3)
    registry.register(definition(), module("a"))
    lines = [LogEntry(LogLevel.INFO, str(n), float(n)) for n in range(5)]
    registry.add_logs(registry.get("shop", "clean"), "1", lines)
    assert list(registry.get_logs("shop", "clean")) == lines[-3:]


def test_a_changed_module_is_noticed() -> None:
    registry = MemoryRegistry()
    registry.register(definition(), module("a"))
    wasm_cid = registry.get("shop", "clean").wasm_cid
    registry._modules[wasm_cid] = module("b")
    with pytest.raises(StoreDamaged, match=wasm_cid):
        registry.get_wasm_bytes(wasm_cid)
