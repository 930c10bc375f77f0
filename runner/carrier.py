"""Carries out what was claimed from the queue: from a claim to the outcome of its attempt.

Runs of one function that have been quick so far go to the workers together, in frames; all others one
by one. Claiming and recording is done by runner.lanes.
"""

from __future__ import annotations

import contextlib
import itertools
import operator
import random
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from runner import wasm
from runner.config import JobConfig
from runner.errors import InvocationError, RunnerError, Stopped
from runner.files import write_whole
from runner.models import Function, InvocationContext, InvocationResult
from runner.outcomes import outcome_of, sound
from runner.pipelines import Pipelines
from runner.recordings import with_kept
from runner.runs import Cancelled, Claim, Outcome, Released

if TYPE_CHECKING:
    from runner.app import Runner

Results = Generator[InvocationResult, None, None]
QUICK_MS = 5.0
"""A function whose invocations have been shorter than this shares frames with others of its own."""
SAMPLES = 8
"""So many invocations are looked at before a function counts as quick."""


class _Kind(NamedTuple):
    """What runs have in common that are carried out together."""

    job: str
    function: str
    version: int
    timeout_seconds: float
    """In place of the function's, as a step has it; negative: the function's own."""
    retry_delay_seconds: float

    def limited(self, function: Function) -> Function:
        """The function with the limits of the step."""
        limits = {name: getattr(self, name) for name in ("timeout_seconds", "retry_delay_seconds")}
        changed = {name: limit for name, limit in limits.items() if limit >= 0}
        return replace(function, **changed) if changed else function


class Watch(Protocol):
    """Whoever may want to end what is being carried out."""

    def begin(self, claims: Sequence[Claim], stop: Callable[[], Any]) -> None:
        """These are at a worker from now on; `stop` ends them, in any thread and at any time. Raises
        Stopped if one of them must not begin any more."""

    def verdict(self, claim: Claim) -> Outcome | None:
        """How a run is to end, if somebody asked for its end."""

    def leaving(self) -> bool:
        """Whether nothing more may begin."""


class Carrier:
    """Carries out claims of one project. Safe to use from several threads."""

    def __init__(
        self,
        runner: Runner,
        *,
        now: Callable[[], datetime],
        chance: Callable[[], float] = random.random,
        waits_for_engine: bool = True,
    ) -> None:
        """`waits_for_engine`: see outcome_of; False where somebody sits and waits."""
        self._runner, self._now, self._chance = runner, now, chance
        self._waits_for_engine = waits_for_engine
        self._functions: dict[tuple[str, str, int], Function] = {}
        self._shares: dict[str, bool] = {}
        self._worst_ms: dict[str, tuple[int, float]] = {}
        self._pipelines = Pipelines(runner.store, job_of=lambda name: runner.config.jobs.get(name), now=now)

    def carry_out(self, claims: Sequence[Claim], watch: Watch) -> Iterator[Outcome]:
        """One outcome for each claim, as soon as it is known."""
        kinds = [(self._kind(claim), claim) for claim in claims]
        kinds.sort(key=operator.itemgetter(0))  # stable: priority and order stay within a kind
        for kind, group in itertools.groupby(kinds, key=operator.itemgetter(0)):
            yield from self._carry_out_kind(kind, [claim for _, claim in group], watch)

    def _kind(self, claim: Claim) -> _Kind:
        """What runs that are carried out together have in common; pipelines come before their steps."""
        step = None
        with contextlib.suppress(RunnerError):  # it is told when the step itself cannot be carried out
            step = self._pipelines.step_of(claim)
        limits = (step.timeout_seconds, step.retry_delay_seconds) if step is not None else (None, None)
        return _Kind(
            *(claim.job, claim.function or "", claim.function_version),
            *(-1.0 if limit is None else limit for limit in limits),
        )

    def _carry_out_kind(self, kind: _Kind, claims: list[Claim], watch: Watch) -> Iterator[Outcome]:
        first = claims[0]
        if first.function is None:
            for claim in claims:
                yield self._advance(claim, watch)
            return
        job = self._runner.config.jobs.get(first.job)
        if job is not None and job.steps:
            job = replace(job, input=None, output=None)  # those are the pipeline's, and not of its steps
        try:
            function = kind.limited(self._function(first))
        except RunnerError as error:
            for claim in claims:
                yield self._outcome(claim, InvocationResult(None, error), 5.0)
            return
        if len(claims) > 1 and self._may_share(claims, function, job):
            yield from self._together(claims, function, job, watch)
            return
        for claim in claims:
            yield self._alone(claim, function, job, watch)

    def _function(self, claim: Claim) -> Function:
        key = (claim.namespace, claim.function or "", claim.function_version)
        function = self._functions.get(key)
        if function is None:
            function = self._functions[key] = self._runner.registry.get(*key)
        return function

    def _advance(self, claim: Claim, watch: Watch) -> Outcome:
        if watch.leaving() or watch.verdict(claim) is not None:
            return _stopped(claim, watch, InvocationResult(None, Stopped(begun=False)))
        return self._pipelines.advance(claim)

    # One by one

    def _alone(self, claim: Claim, function: Function, job: JobConfig | None, watch: Watch) -> Outcome:
        if watch.leaving() or watch.verdict(claim) is not None:
            return _stopped(claim, watch, InvocationResult(None, Stopped(begun=False)))
        result = sound(self._guarded(lambda: self._invoke(claim, function, job, watch)))
        self._measure(function, result)
        if isinstance(result.error, Stopped):
            return _stopped(claim, watch, result)
        if result.error is None and job is not None and job.output is not None:
            result = self._write_output(job, result)
        return self._outcome(claim, result, function.retry_delay_seconds)

    def _invoke(self, claim: Claim, function: Function, job: JobConfig | None, watch: Watch) -> InvocationResult:
        data = claim.payload
        if job is not None and job.input is not None and _reads_input(claim, job):
            data = job.input.read()
        context = replace(
            self._context(claim, function, job), request_id=f"{claim.run_id}.{claim.attempt}", run_id=claim.run_id
        )
        if job is not None and job.batch is not None:
            return self._batch(claim, function, job, context, watch)
        context = replace(context, record=self._runner.config.record)
        executor = self._runner.executor_for(function)
        watch.begin((claim,), lambda: executor.stop(context.request_id))
        file_input = None if data is claim.payload else data
        keeps_output = job is None or job.output is None

        def make(inputs: Sequence[bytes]) -> Results:
            for input in inputs:
                result = self._runner.dispatcher.try_once(executor, function, input, context)
                yield with_kept(result, function, context, file_input=file_input, keeps_output=keeps_output)

        with contextlib.closing(self._made(function, (data,), context, (claim.run_id,), make)) as results:
            return next(results)

    def _batch(
        self, claim: Claim, function: Function, job: JobConfig, context: InvocationContext, watch: Watch
    ) -> InvocationResult:
        """A batch is one attempt: it retries its records itself, and goes on where an attempt before was."""
        from runner.batch.jobs import as_result, executor_with, run_all  # many daemons never run one

        assert job.batch is not None
        executor = executor_with(self._runner, function, job.batch.workers)
        watch.begin((claim,), lambda: executor.stop(context.request_id))
        reports = run_all(self._runner, job, function, context=context, tell=self._runner.tell_once, now=claim.slot)
        return as_result(reports)

    def _write_output(self, job: JobConfig, result: InvocationResult) -> InvocationResult:
        assert job.output is not None
        try:
            write_whole(job.output, result.output or b"")
        except RunnerError as error:
            return result._replace(output=None, error=error)
        return result._replace(output=b"")  # it is in the file: not kept a second time

    # Together

    def _may_share(self, claims: list[Claim], function: Function, job: JobConfig | None) -> bool:
        """Whether runs of this function may go in one frame: nothing tells them apart, and they are quick."""
        samples, worst = self._worst_ms.get(function.id, (0, 0.0))
        if samples < SAMPLES or worst > QUICK_MS or self._runner.dispatcher.has_moments:
            return False
        if job is not None and (job.batch or job.output or any(_reads_input(claim, job) for claim in claims)):
            return False
        shares = self._shares.get(function.wasm_cid)
        if shares is None:
            shares = self._shares[function.wasm_cid] = self._is_anonymous(function)
        return shares

    def _is_anonymous(self, function: Function) -> bool:
        try:
            return not wasm.needs_identity(wasm.inspect(self._runner.registry.get_wasm_bytes(function.wasm_cid)))
        except RunnerError:  # no WebAssembly, or it cannot be read now: each run will tell its own reason
            return False

    def _together(
        self, claims: list[Claim], function: Function, job: JobConfig | None, watch: Watch
    ) -> Iterator[Outcome]:
        results = self._results(claims, function, job, watch)
        with contextlib.closing(results):
            for claim, result in zip(claims, map(sound, results), strict=False):
                self._measure(function, result)
                if isinstance(result.error, Stopped):
                    yield _stopped(claim, watch, result)
                else:
                    yield self._outcome(claim, result, function.retry_delay_seconds)

    def _results(self, claims: list[Claim], function: Function, job: JobConfig | None, watch: Watch) -> Results:
        """The results of the executor in order; what it raises is the result of all that are left."""
        error: RunnerError = InvocationError("its executor told no result")
        try:
            context = replace(self._context(claims[0], function, job), record=self._runner.config.record)
            executor = self._runner.executor_for(function)
            watch.begin(claims, lambda: executor.stop(context.request_id))

            def make(inputs: Sequence[bytes]) -> Results:
                for result in executor.execute_many(function, inputs, context):
                    yield with_kept(result, function, context)

            payloads, run_ids = [claim.payload for claim in claims], [claim.run_id for claim in claims]
            yield from self._made(function, payloads, context, run_ids, make)
        except RunnerError as raised:
            error = raised
        except Exception as raised:  # an executor is foreign code
            error = _executor_failed(raised)
        while True:
            yield InvocationResult(None, error)

    # Shared

    def _made(
        self,
        function: Function,
        inputs: Sequence[bytes],
        context: InvocationContext,
        run_ids: Sequence[int],
        make: Callable[[Sequence[bytes]], Results],
    ) -> Results:
        """What `make` makes of these inputs, or what is known of them where the function is pure."""
        if not function.pure:
            return make(inputs)
        return self._runner.reuse.recalled(function, inputs, context.env_vars, run_ids, make)

    def _context(self, claim: Claim, function: Function, job: JobConfig | None) -> InvocationContext:
        context = self._runner.context(function, job.env_vars if job is not None else None)
        return replace(context, trigger_type=claim.trigger_type)

    def _guarded(self, work: Callable[[], InvocationResult]) -> InvocationResult:
        """What it returns; whatever it raises is how the attempt ended, and never the end of a lane."""
        try:
            return work()
        except RunnerError as error:
            return InvocationResult(None, error)
        except Exception as error:  # an executor is foreign code
            return InvocationResult(None, _executor_failed(error))

    def _measure(self, function: Function, result: InvocationResult) -> None:
        samples, worst = self._worst_ms.get(function.id, (0, 0.0))
        self._worst_ms[function.id] = (samples + 1, max(result.duration_ms, worst * 0.99))

    def _outcome(self, claim: Claim, result: InvocationResult, retry_delay_seconds: float) -> Outcome:
        return outcome_of(
            claim,
            result,
            retry_delay_seconds=retry_delay_seconds,
            now=self._now(),
            chance=self._chance(),
            waits_for_engine=self._waits_for_engine,
        )


def _stopped(claim: Claim, watch: Watch, result: InvocationResult) -> Outcome:
    """How a run ends that was stopped or kept from beginning: as somebody asked, or else it goes back."""
    verdict = watch.verdict(claim) or Released(claim.run_id, claim.token, "it was stopped to let others pass")
    if isinstance(verdict, Cancelled):
        return verdict._replace(duration_ms=result.duration_ms, logs=result.logs)
    begun = isinstance(result.error, Stopped) and result.error.begun
    return verdict._replace(started=begun) if isinstance(verdict, Released) else verdict


def _reads_input(claim: Claim, job: JobConfig) -> bool:
    """Whether the job's own input is what the run gets: it goes before what an event tells."""
    return job.input is not None and (not claim.payload or claim.trigger is not None)


def _executor_failed(error: Exception) -> InvocationError:
    return InvocationError(f"the executor raised {type(error).__name__}: {error}")
