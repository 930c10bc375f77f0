"""Pipelines carried out from a store: what a turn reads there, what it leaves, and what stands in its way."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runner.admission import new_run, pin
from runner.config import Config, JobConfig
from runner.errors import StoreError
from runner.ledger import RunFilter
from runner.loading import load
from runner.models import Function
from runner.pipelines import Pipelines
from runner.runs import (
    MAX_PAYLOAD_BYTES,
    Claim,
    Claimant,
    Dead,
    Failed,
    Failure,
    NewRun,
    Outcome,
    Parked,
    Released,
    RunStatus,
    Succeeded,
)
from runner.testing import MemoryRunStore
from runner.testing.runs_bench import START
from tests.jobs_yaml_cases import CATALOGUE

HEAD = """\
version: 1
namespace: shop
functions: {f: {wasm: f.wasm, retry_count: 3, dlq_topic: f.dead}, g: {wasm: f.wasm}}
jobs:
  plain: {run: g, output: {path: plain.txt}}
"""
Guest = Callable[[Claim], bytes | None]


def function(name: str, version: int) -> Function:
    dies = name == "f"
    return Function(
        id=f"{name}@{version}",
        name=name,
        namespace="shop",
        version=version,
        wasm_cid=name,
        created_at=START,
        updated_at=START,
        retry_count=3 if dies else 0,
        dlq_topic="f.dead" if dies else None,
    )


class Project:
    """A project whose guests are a Python function."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "f.wasm").touch()
        self.store = MemoryRunStore()
        self.now = START
        self.version = 1
        self.claimed: list[Claim] = []

    def declare(self, jobs: str) -> Config:
        path = self.folder / "jobs.yaml"
        path.write_text(HEAD + jobs)
        self.config = load(path, CATALOGUE)
        self.pipelines = Pipelines(self.store, job_of=self.config.jobs.get, now=lambda: self.now)
        return self.config

    def new_run(self, name: str = "p", payload: bytes = b"", **facts: Any) -> NewRun:
        job: JobConfig = self.config.jobs[name]
        functions = {name: function(name, self.version) for name in self.config.functions}
        return new_run(job, pin(self.config, job, functions), payload, **facts)

    def enqueue(self, name: str = "p", payload: bytes = b"", **facts: Any) -> int:
        return self.store.enqueue([self.new_run(name, payload, **facts)], now=self.now)[0].run_id

    def claim(self, limit: int = 100) -> list[Claim]:
        self.now += timedelta(seconds=1)
        claims = self.store.claim(Claimant(owner="one", namespace="shop"), limit, now=self.now)
        self.claimed += claims
        return claims

    def outcome(self, claim: Claim, guest: Guest) -> Outcome:
        if claim.function is None:
            return self.pipelines.advance(claim)
        output = guest(claim)
        key = (claim.run_id, claim.token)
        return Dead(*key, Failure("Trapped", "boom")) if output is None else Succeeded(*key, output)

    def run(self, guest: Guest = lambda claim: claim.payload, name: str = "p", payload: bytes = b"") -> int:
        """Run a job to its end; its id."""
        run_id = self.enqueue(name, payload)
        self.finish(guest)
        return run_id

    def finish(self, guest: Guest) -> None:
        while claims := self.claim():
            self.store.finish([self.outcome(claim, guest) for claim in claims], now=self.now)

    def ended(self, run_id: int) -> tuple[str, bytes | None, str | None]:
        run = self.store.get(run_id)
        return run.status.value, self.store.result(run_id), run.message


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_pipeline_is_carried_out(project: Project) -> None:
    project.declare(
        "  p: {steps: {a: {run: f, with: [1, 2]}, b: {run: g, needs: [a], foreach: '${{ steps.a.output }}'}}}"
    )
    run_id = project.run(lambda claim: claim.payload + b"0" if claim.step == "b" else claim.payload)
    assert project.ended(run_id) == ("succeeded", b"[10,20]", None)
    run = project.store.get(run_id)
    assert run.started_at is not None
    assert run.finished_at is not None
    assert run.duration_ms == (run.finished_at - run.started_at).total_seconds() * 1e3
    a, b, _ = [claim for claim in project.claimed if claim.step]
    assert (a.job, a.function, a.function_version, a.retry_count, a.dlq_topic) == ("p", "f", 1, 3, "f.dead")
    assert (b.function, b.retry_count, b.dlq_topic, b.item) == ("g", 0, None, 0)


def test_what_is_pinned_stays(project: Project) -> None:
    project.declare("  p: {steps: {a: {run: f}, b: {run: g, needs: [a]}}}")
    run_id = project.enqueue()
    project.declare("  p: {steps: {x: {run: f}}}")
    project.version = 2
    later = project.enqueue()
    project.finish(lambda claim: claim.payload)
    steps = {claim.step: claim.function_version for claim in project.claimed if claim.parent_id == run_id}
    assert steps == {"a": 1, "b": 1}
    assert [claim.step for claim in project.claimed if claim.parent_id == later] == ["x"]


def test_its_own_input(project: Project) -> None:
    project.declare("  p: {steps: {a: {run: f}}, input: {path: in.txt}}")
    (project.folder / "in.txt").write_bytes(b"from a file")
    assert project.ended(project.run())[1] == b"from a file"
    assert project.ended(project.run(payload=b"given"))[1] == b"given"
    (project.folder / "in.txt").unlink()
    status, _, message = project.ended(project.run())
    assert status == "failed"
    assert "in.txt cannot be read: No such file" in str(message)
    project.declare("  p: {steps: {a: {run: f, with: fixed}}, input: {path: in.txt}}")
    assert project.ended(project.run())[1] == b"fixed"  # it is read only where it is needed


def test_facts_of_the_run(project: Project) -> None:
    facts = "{i: '${{ run.id }}', j: '${{ run.job }}', n: '${{ run.namespace }}', t: '${{ run.trigger }}'}"
    project.declare(f"  p: {{steps: {{a: {{run: f, with: {facts}}}}}}}")
    run_id = project.run()
    assert json.loads(project.ended(run_id)[1] or b"") == {"i": run_id, "j": "p", "n": "shop", "t": None}


def test_another_job_as_a_step(project: Project) -> None:
    project.declare(
        "  inner: {params: {v: json}, steps: {x: {run: f}, y: {run: g, needs: [x], with: 'y: ${{ steps.x.text }}'}}}\n"
        "  p: {steps: {a: {job: inner, with: {v: 5}}, b: {job: plain, needs: [a], with: '${{ steps.a.output }}'}}}"
    )
    run_id = project.run()
    assert project.ended(run_id) == ("succeeded", b'y: {"v":5}', None)
    jobs = [(claim.job, claim.step) for claim in project.claimed if claim.function]
    assert jobs == [("inner", "x"), ("inner", "y"), ("plain", "b")]


def test_where_its_output_goes(project: Project) -> None:
    project.declare("  p: {steps: {a: {run: f, with: hello}}, output: {path: out/p.txt}}")
    assert project.ended(project.run())[:2] == ("succeeded", b"")
    assert (project.folder / "out/p.txt").read_bytes() == b"hello"
    project.declare("  p: {steps: {a: {run: f, with: hello}, b: {run: f}}}")
    assert project.ended(project.run())[:2] == ("succeeded", b"")  # which of the two?
    project.declare("  p: {steps: {a: {run: f, with: a}, b: {run: f, needs: [a], if: 'false'}}}")
    assert project.ended(project.run())[:2] == ("succeeded", b"")


def test_outputs_that_cannot_be_put_together(project: Project) -> None:
    project.declare(
        "  p: {steps: {a: {run: f, foreach: [1, 2]}, b: {run: g, needs: [a], with: {all: '${{ steps.a.outputs }}'}}}}"
    )
    _, _, message = project.ended(project.run(lambda _: b"hello"))
    assert message is not None
    assert "${{ steps.a.outputs }}: the output of item 0 of step 'a' is no JSON" in message
    half = b'"%s"' % (b"x" * (MAX_PAYLOAD_BYTES // 2))
    _, _, message = project.ended(project.run(lambda _: half))
    assert "the outputs of step 'a' have more than 16,777,216 bytes together" in str(message)


def test_an_output_that_is_too_much_to_keep(project: Project) -> None:
    half = b'"%s"' % (b"x" * (MAX_PAYLOAD_BYTES // 2))
    project.declare("  p: {steps: {a: {run: f, foreach: [1, 2]}}}")
    run_id = project.run(lambda _: half)
    assert project.ended(run_id)[:2] == ("succeeded", b"")
    (line,) = project.store.logs(run_id)
    assert line.entry.message.startswith("it has no output: the outputs of step 'a' have more than")
    project.declare("  p: {steps: {a: {run: f, foreach: [1, 2]}}, output: {path: x}}")
    assert project.ended(project.run(lambda _: half))[0] == "failed"


def test_a_failure_is_that_of_its_step(project: Project) -> None:
    project.declare("  p: {steps: {a: {run: f}}, on_failure: {run: g, with: '${{ failure.message }}'}}")
    run_id = project.run(lambda claim: None if claim.step == "a" else claim.payload)
    run = project.store.get(run_id)
    assert (run.status, run.error_class, run.message) == (RunStatus.FAILED, "Trapped", "step 'a' failed: boom")
    assert project.claimed[-2].payload == b"boom"
    (letter,) = project.store.dead_letters()
    assert letter.run_id != run_id
    assert len(project.store.read_topic("f.dead")) == 1


def test_parameters_that_do_not_fit(project: Project) -> None:
    project.declare("  p: {steps: {a: {run: f}}, params: {n: integer}}")
    assert project.ended(project.run(payload=b'{"n": "x"}')) == (
        "failed",
        None,
        "the parameter 'n' is a string and has to be of type integer",
    )
    assert project.ended(project.run(payload=b'{"n": 3}'))[1] == b'{"n": 3}'


def test_one_at_a_time(project: Project) -> None:
    project.declare("  p: {steps: {a: {run: f}}, concurrency: 1, params: {k: {type: string, default: x}}}")
    first, second = project.enqueue(), project.enqueue()
    live: list[int] = []

    def guest(claim: Claim) -> bytes:
        parent = claim.parent_id or 0
        assert all(run in (parent, *finished()) for run in live)
        live.append(parent)
        return b""

    def finished() -> list[int]:
        ended = project.store.list_runs(RunFilter(is_step=False, statuses=frozenset({RunStatus.SUCCEEDED})))
        return [run.run_id for run in ended]

    project.finish(guest)
    assert live == [first, second]
    project.declare("  p: {steps: {a: {run: f}}, concurrency: {limit: 1, key: '${{ params.k }}'}, params: {k: string}}")
    for key in ("x", "y", "x"):
        project.enqueue(payload=json.dumps({"k": key}).encode())
    claims = project.claim()
    project.store.finish([project.outcome(claim, guest) for claim in claims], now=project.now)
    assert len(project.claim()) == 2


def test_going_on_reads_what_earlier_runs_left(project: Project) -> None:
    from runner import pipeline_state, plan
    from runner.pipeline_state import taking_over

    steps = "{a: {run: f, with: [1, 2, 3]}, b: {run: g, needs: [a], foreach: '${{ steps.a.output }}', "
    steps += "on_item_error: continue}, c: {run: g, needs: [b], with: '${{ steps.b.outputs }}'}}"
    project.declare(f"  p: {{steps: {steps}}}")
    first = project.run(lambda claim: None if (claim.step, claim.item) == ("b", 1) else claim.payload)
    run = project.new_run()
    made = taking_over(plan.load(run.plan), pipeline_state.load(project.store.state(first)), (first,))
    again = project.store.enqueue([run._replace(plan=made.dump())], now=project.now)[0].run_id
    project.claimed.clear()
    project.finish(lambda claim: b"99" if claim.step == "b" else claim.payload)
    assert [(claim.step, claim.item) for claim in project.claimed if claim.step] == [("b", 1), ("c", None)]
    assert project.ended(again)[1] == b"[1,99,3]"


def test_what_is_not_kept_any_more(project: Project) -> None:
    from runner import plan
    from runner.plan import Reuse

    project.declare("  p: {steps: {a: {run: f}, b: {run: g, needs: [a], with: '${{ steps.a.output }}'}}}")
    run = project.new_run()
    made = plan.load(run.plan)
    gone = plan.Plan(steps=made.steps, last=made.last, reuse=Reuse(runs=(99,), whole={"a": None}))
    run_id = project.store.enqueue([run._replace(plan=gone.dump())], now=project.now)[0].run_id
    project.finish(lambda claim: claim.payload)
    assert "what step 'a' gave is not kept any more" in str(project.ended(run_id)[2])


@pytest.mark.parametrize("text", [b"", b"{}", b"hello", b"[1]", b'{"steps":[{}],"params":[]}', b"\xff"])
def test_a_plan_that_cannot_be_read(project: Project, text: bytes) -> None:
    project.declare("  p: {steps: {a: {run: f}}}")
    run_id = project.store.enqueue([project.new_run()._replace(plan=text)], now=project.now)[0].run_id
    project.finish(lambda claim: claim.payload)
    status, _, message = project.ended(run_id)
    assert status == "failed"
    assert message


def test_a_store_that_refuses(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.declare("  p: {steps: {a: {run: f}}}")
    project.enqueue()
    (claim,) = project.claim()

    def refuse(*_: object, **__: object) -> Any:
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(project.store, "steps_ended", refuse)
        outcome = project.pipelines.advance(claim)
    assert outcome == Released(claim.run_id, claim.token, "the disk is full", started=False)
    assert isinstance(project.pipelines.advance(claim), Parked)


def test_a_state_of_something_else_ends_it_and_nothing_more(project: Project) -> None:
    project.declare("  p: {steps: {a: {run: f}}}")
    project.enqueue()
    (claim,) = project.claim()
    outcome = project.pipelines.advance(claim._replace(state=b'{"steps": 3}'))
    assert isinstance(outcome, Failed)
    assert "the pipeline cannot go on" in outcome.failure.message


def test_limits_of_a_step(project: Project) -> None:
    project.declare("  p: {steps: {a: {run: f, timeout_seconds: 2, retry_delay_seconds: 0.5, retry_count: 9}}}")
    run_id = project.enqueue()
    (claim,) = project.claim()
    assert project.pipelines.step_of(claim) is None
    project.store.finish([project.pipelines.advance(claim)], now=project.now)
    (child,) = project.claim()
    step = project.pipelines.step_of(child)
    assert step is not None
    assert (step.timeout_seconds, step.retry_delay_seconds, child.retry_count) == (2, 0.5, 9)
    fresh = Pipelines(project.store, job_of=project.config.jobs.get, now=lambda: project.now)
    assert fresh.step_of(child) == step
    assert child.parent_id == run_id


def test_many_runs_are_remembered_no_longer_than_there_is_room(project: Project) -> None:
    from runner import pipelines

    project.declare("  p: {steps: {a: {run: f, with: x}, b: {run: g, needs: [a], with: '${{ steps.a.output }}'}}}")
    count = pipelines.REMEMBERED_RUNS * 2
    for _ in range(count):
        project.enqueue()
    project.finish(lambda claim: claim.payload)
    found = project.store.list_runs(RunFilter(is_step=False), limit=1000)
    assert [project.ended(run.run_id)[:2] for run in found] == [("succeeded", b"x")] * count
