"""The in-memory run store keeps the contract that its doubles are used for."""

from __future__ import annotations

from pathlib import Path

from runner.run_store import RunStore
from runner.testing import MemoryRunStore, RunStoreContract


class TestMemoryRunStore(RunStoreContract):
    durable = False

    def make_store(self, folder: Path) -> RunStore:  # noqa: ARG002
        return MemoryRunStore()
