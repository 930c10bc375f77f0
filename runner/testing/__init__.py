"""Conformance suites that a plugin's tests subclass, and in-memory doubles.

Re-exports only. This package needs pytest; nothing that `import runner` reaches imports it.
"""

import pytest

# Before the suites are imported: a failed assert in a suite shows its values, as in a test file.
pytest.register_assert_rewrite(
    "runner.testing.registry",
    "runner.testing.executor_bench",
    "runner.testing.executor_failures",
    "runner.testing.executor_invocations",
    "runner.testing.executor_modules",
)

from runner.testing.executor import ExecutorContract  # noqa: E402
from runner.testing.memory import MemoryRegistry  # noqa: E402
from runner.testing.registry import RegistryContract  # noqa: E402

__all__ = ["ExecutorContract", "MemoryRegistry", "RegistryContract"]
