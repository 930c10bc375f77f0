"""The wasmer executor keeps the executor contract, in its worker processes and behind their walls."""

from __future__ import annotations

import pytest
import runner_wasmer

from runner.contracts import FunctionExecutor, Host
from runner.testing import ExecutorContract
from runner.workers.settings import WorkerSettings


class TestWasmerExecutor(ExecutorContract):
    @classmethod
    def make_executor(cls, host: Host) -> FunctionExecutor:
        (provider,) = runner_wasmer.runner_executors()
        available = provider.available()
        if not available.ok:
            pytest.skip(f"{available.reason}; {available.remedy}")
        settings = WorkerSettings(
            workers=2, output_limit_mb=cls.output_limit_bytes >> 20, log_limit_kb=cls.log_limit_bytes >> 10
        )
        return provider.create(settings, host)
