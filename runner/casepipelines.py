"""Tests of pipelines: what is next is decided as in the queue, but runs are carried out at once, nothing is
kept, and mocks stand in place of steps.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, NamedTuple, Protocol

from runner import plan as plans
from runner.admission import plan_of
from runner.app import Runner
from runner.config import CaseConfig, JobConfig, Mock
from runner.contracts import FunctionExecutor
from runner.errors import InvalidInput, LookupFailed, Stopped, UsageError
from runner.expressions import Raw, encode
from runner.models import Function, InvocationContext, InvocationResult, TriggerType
from runner.pipeline import advance
from runner.pipeline_state import State
from runner.plan import Plan
from runner.runs import MAX_PAYLOAD_BYTES, Failure, NewRun, RunStatus, StepEnded
from runner.verdicts import TAIL_LINES, Outcome, logged

RUN_ID = 1
_LONG_AGO = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Calls(Protocol):
    """What it takes to run the functions of a case; see runner.caseruns.CaseRuns."""

    @property
    def runner(self) -> Runner:
        """One that keeps nothing."""

    def function(self, name: str) -> Function:
        """A registered function. Raises why there is none."""

    def context(self, case: CaseConfig, function: Function, env_vars: Mapping[str, str]) -> InvocationContext:
        """The facts of the case's invocations of a function."""

    def running(self, context: InvocationContext, executor: FunctionExecutor) -> AbstractContextManager[None]:
        """While what has this context runs, it can be stopped."""


class Came(NamedTuple):
    """What came of a run: exactly one of both is not None."""

    output: bytes | None = None
    failure: Failure | None = None


def run(calls: Calls, case: CaseConfig, job: JobConfig) -> Outcome:
    """What comes of a case of a pipeline. Raises what stands in the way of running it."""
    started = time.perf_counter()
    config = calls.runner.config
    plan = plan_of(config, job, {name: _pinned(name, config.namespace) for name in config.functions_of(job.name)})
    given = case.input or job.input
    payload = encode(dict(case.params)) if case.params else given.read() if given is not None else b""
    lines: deque[str] = deque(maxlen=TAIL_LINES)
    pipeline = _Pipeline(calls, case, job, plan, payload, case.mocks, lines)
    came = pipeline.run()
    facts: dict[str, Any] = {
        "steps": {name: step.status for name, step in pipeline.state.steps.items()},
        "stderr": "\n".join(lines),
        "duration_ms": (time.perf_counter() - started) * 1e3,
    }
    if came.failure is not None:
        return Outcome(error_class=came.failure.error_class, message=came.failure.message, **facts)
    return Outcome(output=came.output, **facts)


def _pinned(name: str, namespace: str) -> Function:
    """What a plan wants to know of a function: those of mocked steps need not even be there."""
    return Function(
        id="", name=name, namespace=namespace, version=0, wasm_cid="", created_at=_LONG_AGO, updated_at=_LONG_AGO
    )


class _Pipeline:
    """One run of a pipeline, or of one that a step of it starts, which has no mocks."""

    def __init__(
        self,
        calls: Calls,
        case: CaseConfig,
        job: JobConfig,
        plan: Plan,
        payload: bytes,
        mocks: Mapping[str, Mock],
        lines: deque[str],
    ) -> None:
        """`lines` takes the end of what is logged."""
        self._calls, self._case, self._job, self._plan = calls, case, job, plan
        self._payload, self._mocks, self._lines = payload, mocks, lines
        self.state = State()

    def run(self) -> Came:
        """Run it to its end."""
        world = _World(self._job.name, self._calls.runner.config.namespace, self._payload)
        numbers = itertools.count(1)
        ended: list[StepEnded] = []
        while True:
            move = advance(self._plan, self.state, ended, world)
            if move.is_over:
                return Came(failure=move.failure) if move.failure is not None else self._output(world)
            ended = []
            for child, came in zip(move.children, self._carry_out(move.children), strict=True):
                ended.append(_ended(child, next(numbers), came))
                if came.output is not None:
                    world.given[child.step or "", child.item or 0] = came.output

    def _output(self, world: _World) -> Came:
        name = self._plan.last
        step = self.state.steps.get(name) if name is not None else None
        if name is None or step is None or step.status != "succeeded":
            return Came(b"")
        try:
            return Came((world.output(name) if step.total is None else world.outputs(name, step.total)).text)
        except LookupFailed as error:
            self._lines.append(f"it has no output: {error}")
            return Came(b"")

    def _carry_out(self, children: Sequence[NewRun]) -> Iterator[Came]:
        """What comes of each, in order; those of one step go to the workers together."""
        for step, group in itertools.groupby(children, key=lambda child: child.step or ""):
            runs = list(group)
            if step in self._mocks:
                yield from (_mocked(self._mocks[step], step, run.item) for run in runs)
            elif runs[0].function is None:
                yield from map(self._started, runs)
            else:
                yield from self._called(step, runs)

    def _started(self, run: NewRun) -> Came:
        """A pipeline that a step starts."""
        job = self._calls.runner.config.jobs[run.job]
        payload = run.payload or (job.input.read() if job.input is not None else b"")
        inner = _Pipeline(self._calls, self._case, job, plans.load(run.plan), payload, {}, self._lines)
        came = inner.run()
        return came if job.output is None or came.output is None else Came(b"")  # it would be in the file

    def _called(self, step: str, runs: Sequence[NewRun]) -> Iterator[Came]:
        started = self._calls.runner.config.jobs[runs[0].job]
        if started.batch is not None:
            raise UsageError(
                f"step {step!r} starts the batch {started.name!r}, of which a test writes nothing where other steps "
                f"would look for it; mock it: mocks: {{{step}: {{output: ...}}}}"
            )
        function = self._calls.function(runs[0].function or "")
        limit = self._plan.steps[step].timeout_seconds
        if limit is not None:
            function = replace(function, timeout_seconds=limit)
        own = None if started.steps else started.input
        payloads = [run.payload or (own.read() if own is not None else b"") for run in runs]
        for result in self._results(function, payloads, {**started.env_vars, **self._case.env_vars}):
            self._lines.extend(f"{step}: {line}" for line in logged(result.logs).splitlines())
            if result.error is not None:
                yield Came(failure=Failure.of(result.error))
            else:
                yield Came(result.output if started.steps or started.output is None else b"")  # it would be in the file

    def _results(
        self, function: Function, payloads: Sequence[bytes], env_vars: Mapping[str, str]
    ) -> Iterator[InvocationResult]:
        context = self._calls.context(self._case, function, env_vars)
        executor = self._calls.runner.executor_for(function)
        left = len(payloads)
        try:
            with self._calls.running(context, executor):
                for result in executor.execute_many(function, payloads, context):
                    if isinstance(result.error, Stopped):
                        raise result.error
                    left -= 1
                    yield result
        except InvalidInput as error:  # the module is refused
            yield from itertools.repeat(InvocationResult(None, error), left)


def _mocked(mock: Mock, step: str, item: int | None) -> Came:
    if mock.error is not None:
        return Came(failure=Failure(mock.error, mock.message or "as the test wants it"))
    if mock.output is not None:
        return Came(mock.output.read())
    outputs, place = mock.outputs or (), item or 0
    if place >= len(outputs):
        raise UsageError(f"step {step!r} has more items than the {len(outputs)} outputs of its mock")
    return Came(outputs[place].read())


def _ended(child: NewRun, number: int, came: Came) -> StepEnded:
    error_class, message, _ = came.failure or (None, None, "")
    status = RunStatus.SUCCEEDED if came.failure is None else RunStatus.DEAD
    return StepEnded(number, number, child.step or "", child.item, status, error_class, message)


class _World:
    """What a pipeline's run can look at; see runner.pipeline.World."""

    def __init__(self, job: str, namespace: str, payload: bytes) -> None:
        self.namespace, self.run_id = namespace, RUN_ID
        self._job, self._input = job, Raw(payload, "input")
        self.given: dict[tuple[str, int], bytes] = {}
        """What steps gave, by name and item; item 0 for a step without any."""
        self._raws: dict[tuple[str, str], Raw] = {}  # so that each is parsed once

    def facts(self) -> Mapping[str, Any]:
        """See World."""
        facts = {"id": self.run_id, "job": self._job, "namespace": self.namespace}
        return {**facts, "trigger_type": TriggerType.JOB.value, "trigger": None, "slot": None}

    def input(self) -> Raw:
        """See World."""
        return self._input

    def output(self, step: str) -> Raw:
        """See World."""
        return self._raw(step, "output", lambda: self.given[step, 0])

    def outputs(self, step: str, total: int) -> Raw:
        """See World."""
        return self._raw(step, "outputs", lambda: self._listed(step, total))

    def _raw(self, step: str, fact: str, read: Callable[[], bytes]) -> Raw:
        raw = self._raws.get((step, fact))
        if raw is None:
            raw = self._raws[step, fact] = Raw(read(), f"steps.{step}.{fact}")
        return raw

    def _listed(self, step: str, total: int) -> bytes:
        parts = []
        for item in range(total):
            output = self.given.get((step, item), b"null")
            Raw(output, f"the output of item {item} of step {step!r}").value()
            parts.append(output.strip())
        text = b"[%s]" % b",".join(parts)
        if len(text) > MAX_PAYLOAD_BYTES:
            raise LookupFailed(f"the outputs of step {step!r} have more than {MAX_PAYLOAD_BYTES:,} bytes together")
        return text

    def done(self, step: str, after: int, limit: int) -> Sequence[int]:  # noqa: ARG002
        """See World."""
        return ()
