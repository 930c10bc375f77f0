"""The conformance suite of an executor. Subclass it in your plugin's tests:

    from runner.testing import ExecutorContract

    class TestMyExecutor(ExecutorContract):
        @classmethod
        def make_executor(cls, host):
            return MyExecutor(host, output_limit_bytes=cls.output_limit_bytes, log_limit_bytes=cls.log_limit_bytes)

pytest finds the inherited tests. They speak the FunctionExecutor contract and nothing else, with real
guests, really stopped; the modules are in guests.py and need no compiler of yours.
"""

from __future__ import annotations

from runner.testing.executor_failures import Failures
from runner.testing.executor_hostcalls import HostCalls
from runner.testing.executor_invocations import Invocations
from runner.testing.executor_modules import Modules
from runner.testing.executor_stops import Stops


class ExecutorContract(Invocations, Failures, Modules, Stops, HostCalls):
    """What every FunctionExecutor promises. A subclass says how one is made.

    `make_executor(host)` is a classmethod: most tests share one executor, the fixture `bench` (a
    runner.testing.executor_bench.Bench), which your own tests may use too. `output_limit_bytes` and
    `log_limit_bytes` are the limits it must be made with; set others in the class if yours cannot be
    set so. A test of a Wasm feature that the executor refuses with UnsupportedFeature is skipped.
    Give the suite time: modules are compiled and deadlines waited for (a minute is usual).
    """
