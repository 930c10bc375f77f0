"""The conformance suite of a run store. Subclass it in your plugin's tests:

    from runner.testing import RunStoreContract

    class TestMyRunStore(RunStoreContract):
        def make_store(self, folder):
            return MyRunStore(folder / "runs.db")

pytest finds the inherited tests. They speak the RunStore contract and nothing else.
"""

from __future__ import annotations

from runner.testing.runs_ledger import LedgerSuite
from runner.testing.runs_outcomes import OutcomesSuite
from runner.testing.runs_road import RoadSuite
from runner.testing.runs_steps import StepsSuite


class RunStoreContract(RoadSuite, OutcomesSuite, LedgerSuite, StepsSuite):
    """What every RunStore promises. A subclass says how one is made (see Bench.make_store), and sets
    `durable = False` for a store that forgets when it is closed. Each test has a store of its own, fresh
    and empty, as the fixture `store`."""
