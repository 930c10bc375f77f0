"""Conformance suites that a plugin's tests subclass, and in-memory doubles.

Re-exports only. This package needs pytest; nothing that `import runner` reaches imports it.
"""

import pytest

# Before the suites are imported: a failed assert in a suite shows its values, as in a test file.
pytest.register_assert_rewrite(
    "runner.testing.registry",
    "runner.testing.executor_bench",
    "runner.testing.executor_failures",
    "runner.testing.executor_hostcalls",
    "runner.testing.executor_invocations",
    "runner.testing.executor_modules",
    "runner.testing.executor_stops",
    "runner.testing.results",
    "runner.testing.runs_bench",
    "runner.testing.runs_ledger",
    "runner.testing.runs_outcomes",
    "runner.testing.runs_road",
    "runner.testing.sinks",
    "runner.testing.sources",
)

from runner.testing.executor import ExecutorContract  # noqa: E402
from runner.testing.memory import MemoryRegistry  # noqa: E402
from runner.testing.memory_results import MemoryResultCache  # noqa: E402
from runner.testing.memory_runs import MemoryRunStore  # noqa: E402
from runner.testing.registry import RegistryContract  # noqa: E402
from runner.testing.results import ResultCacheContract  # noqa: E402
from runner.testing.runs import RunStoreContract  # noqa: E402
from runner.testing.sinks import SinkContract  # noqa: E402
from runner.testing.sources import SourceContract  # noqa: E402

__all__ = [
    "ExecutorContract",
    "MemoryRegistry",
    "MemoryResultCache",
    "MemoryRunStore",
    "RegistryContract",
    "ResultCacheContract",
    "RunStoreContract",
    "SinkContract",
    "SourceContract",
]
