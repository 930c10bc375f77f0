"""Carries out what was claimed from the queue: from a claim to the outcome of its attempt.

Runs of one function that have been quick so far go to the workers together, in frames; all others one
by one. Claiming and recording is done by runner.lanes.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from runner import wasm
from runner.config import JobConfig
from runner.errors import InvocationError, RunnerError, Stopped
from runner.files import write_whole
from runner.models import Function, InvocationContext, InvocationResult
from runner.outcomes import outcome_of, sound
from runner.runs import Cancelled, Claim, Outcome, Released

if TYPE_CHECKING:
    from runner.app import Runner

QUICK_MS = 5.0
"""A function whose invocations have been shorter than this shares frames with others of its own."""
SAMPLES = 8
"""So many invocations are looked at before a function counts as quick."""


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
        self, runner: Runner, *, now: Callable[[], datetime], chance: Callable[[], float] = random.random
    ) -> None:
        self._runner, self._now, self._chance = runner, now, chance
        self._functions: dict[tuple[str, str, int], Function] = {}
        self._shares: dict[str, bool] = {}
        self._worst_ms: dict[str, tuple[int, float]] = {}

    def carry_out(self, claims: Sequence[Claim], watch: Watch) -> Iterator[Outcome]:
        """One outcome for each claim, as soon as it is known."""
        ordered = sorted(claims, key=_kind)  # stable: priority and order stay within a kind
        for _, group in itertools.groupby(ordered, key=_kind):
            yield from self._carry_out_kind(list(group), watch)

    def _carry_out_kind(self, claims: list[Claim], watch: Watch) -> Iterator[Outcome]:
        first = claims[0]
        job = self._runner.config.jobs.get(first.job)
        try:
            function = self._function(first)
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
        if not data and job is not None and job.input is not None:
            data = job.input.read()
        context = replace(
            self._context(claim, function, job), request_id=f"{claim.run_id}.{claim.attempt}", run_id=claim.run_id
        )
        executor = self._runner.executor_for(function)
        watch.begin((claim,), lambda: executor.stop(context.request_id))
        return self._runner.dispatcher.try_once(executor, function, data, context)

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
        if job is not None and (job.output or (job.input and not all(claim.payload for claim in claims))):
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

    def _results(
        self, claims: list[Claim], function: Function, job: JobConfig | None, watch: Watch
    ) -> Generator[InvocationResult, None, None]:
        """The results of the executor in order; what it raises is the result of all that are left."""
        error: RunnerError = InvocationError("its executor told no result")
        try:
            context = self._context(claims[0], function, job)
            executor = self._runner.executor_for(function)
            watch.begin(claims, lambda: executor.stop(context.request_id))
            yield from executor.execute_many(function, [claim.payload for claim in claims], context)
        except RunnerError as raised:
            error = raised
        except Exception as raised:  # an executor is foreign code
            error = _executor_failed(raised)
        while True:
            yield InvocationResult(None, error)

    # Shared

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
            claim, result, retry_delay_seconds=retry_delay_seconds, now=self._now(), chance=self._chance()
        )


def _stopped(claim: Claim, watch: Watch, result: InvocationResult) -> Outcome:
    """How a run ends that was stopped or kept from beginning: as somebody asked, or else it goes back."""
    verdict = watch.verdict(claim) or Released(claim.run_id, claim.token, "it was stopped to let others pass")
    if isinstance(verdict, Cancelled):
        return verdict._replace(duration_ms=result.duration_ms, logs=result.logs)
    begun = isinstance(result.error, Stopped) and result.error.begun
    return verdict._replace(started=begun) if isinstance(verdict, Released) else verdict


def _executor_failed(error: Exception) -> InvocationError:
    return InvocationError(f"the executor raised {type(error).__name__}: {error}")


def _kind(claim: Claim) -> tuple[str, str, int]:
    return claim.job, claim.function or "", claim.function_version
