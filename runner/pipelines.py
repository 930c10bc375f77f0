"""Pipelines carried out from the queue: a claim of one becomes the outcome that its next turn has.

What a turn does is decided in runner.pipeline; here it is given what the store knows. Plans, and what
steps gave, are remembered between turns as far as there is room.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from runner import pipeline_state, plan
from runner.config import JobConfig
from runner.errors import LookupFailed, RunnerError, StoreError
from runner.expressions import Raw
from runner.files import write_whole
from runner.models import LogEntry, LogLevel
from runner.pipeline import Move, advance
from runner.pipeline_state import State, sources
from runner.plan import Plan, StepPlan
from runner.run_store import RunStore
from runner.runs import MAX_PAYLOAD_BYTES, Claim, Failed, Failure, Outcome, Parked, Released, StepEnded, Succeeded

PAGE = 1_000
"""So many rows are read from the store at a time."""
REMEMBERED_RUNS = 64
REMEMBERED_BYTES = 64 * 1024 * 1024


class _Kept:
    """What is remembered of a run."""

    def __init__(self, made: Plan) -> None:
        self.plan = made
        self.raws: dict[tuple[str, str], Raw] = {}

    @property
    def size(self) -> int:
        return sum(len(raw.text) for raw in self.raws.values())


class Pipelines:
    """Advances the pipelines of one store. Safe to use from several threads."""

    def __init__(
        self, store: RunStore, *, job_of: Callable[[str], JobConfig | None], now: Callable[[], datetime]
    ) -> None:
        """`job_of` gives a job as jobs.yaml has it now: for its input and its output file."""
        self._store, self._job_of, self._now = store, job_of, now
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, _Kept] = OrderedDict()

    def step_of(self, claim: Claim) -> StepPlan | None:
        """The step that a claimed run is; None for a run that is none. Raises StoreError, RunNotFound."""
        if claim.step is None or claim.parent_id is None:
            return None
        return self._of(claim.parent_id).plan.steps.get(claim.step)

    def advance(self, claim: Claim) -> Outcome:
        """The next turn of a pipeline's run. Never raises."""
        try:
            outcome = self._advance(claim)
        except StoreError as error:
            return Released(claim.run_id, claim.token, str(error), started=False)
        except RunnerError as error:
            outcome = Failed(claim.run_id, claim.token, Failure.of(error))
        except Exception as error:  # what it was given can be anything, and must not end whoever carries it out
            failure = Failure(type(error).__name__, f"the pipeline cannot go on: {error}")
            outcome = Failed(claim.run_id, claim.token, failure)
        self._forget(None if isinstance(outcome, Parked) else claim.run_id)
        return outcome

    def _advance(self, claim: Claim) -> Outcome:
        kept, state = self._of(claim.run_id), pipeline_state.load(claim.state)
        world = _World(self._store, claim, kept, self._job_of(claim.job))
        move = advance(kept.plan, state, self._ended(claim.run_id, state.seen), world)
        if move.seat is None:
            now = self._now().isoformat()
            state.begun_at = state.begun_at or now
            state.stamp(now)
        if move.is_over:
            return self._over(claim, kept.plan, state, move, world)
        return Parked(
            claim.run_id,
            claim.token,
            state.dump(),
            children=move.children,
            seen=state.seen,
            wake_after=move.wake_after,
            progress=move.progress,
            seat=move.seat,
        )

    def _over(self, claim: Claim, made: Plan, state: State, move: Move, world: _World) -> Outcome:
        began = datetime.fromisoformat(state.begun_at) if state.begun_at else self._now()
        duration_ms = max(0.0, (self._now() - began).total_seconds() * 1e3)
        if move.failure is not None:
            return Failed(claim.run_id, claim.token, move.failure, duration_ms, state=state.dump())
        output, logs = b"", []
        job = self._job_of(claim.job)
        last = None if made.last is None else state.steps[made.last]
        if made.last is not None and last is not None and last.status == "succeeded":
            try:
                found = world.output(made.last) if last.total is None else world.outputs(made.last, last.total)
                output = found.text
            except LookupFailed as error:
                if job is not None and job.output is not None:
                    raise
                logs.append(LogEntry(LogLevel.ERROR, f"it has no output: {error}", self._now().timestamp()))
        if job is not None and job.output is not None:
            write_whole(job.output, output)
            output = b""  # it is in the file: not kept a second time
        return Succeeded(claim.run_id, claim.token, output, duration_ms, logs=logs, state=state.dump())

    def _ended(self, run_id: int, after: int) -> list[StepEnded]:
        found = self._store.steps_ended(run_id, after=after, limit=PAGE)
        while len(found) % PAGE == 0 and found:
            page = self._store.steps_ended(run_id, after=found[-1].number, limit=PAGE)
            if not page:
                break
            found += page
        return found

    def _of(self, run_id: int) -> _Kept:
        with self._lock:
            kept = self._kept.get(run_id)
            if kept is not None:
                self._kept.move_to_end(run_id)
                return kept
        text = self._store.plan(run_id)
        if not text:
            raise LookupFailed(f"run {run_id} calls no function and has no plan: an older runner made it")
        kept = _Kept(plan.load(text))
        with self._lock:
            return self._kept.setdefault(run_id, kept)

    def _forget(self, run_id: int | None) -> None:
        """Forget a run that has ended, and the longest unused of the others when they are too many."""
        with self._lock:
            self._kept.pop(run_id or 0, None)
            size = sum(kept.size for kept in self._kept.values())
            while len(self._kept) > REMEMBERED_RUNS or (size > REMEMBERED_BYTES and len(self._kept) > 1):
                size -= self._kept.popitem(last=False)[1].size


class _World:
    """What a pipeline's run can look at; see runner.pipeline.World."""

    def __init__(self, store: RunStore, claim: Claim, kept: _Kept, job: JobConfig | None) -> None:
        self.namespace, self.run_id = claim.namespace, claim.run_id
        self._store, self._claim, self._kept, self._job = store, claim, kept, job

    def facts(self) -> Mapping[str, Any]:
        """See World."""
        claim = self._claim
        return {
            "id": claim.run_id,
            "job": claim.job,
            "namespace": claim.namespace,
            "trigger_type": claim.trigger_type.value,
            "trigger": claim.trigger,
            "slot": None if claim.slot is None else claim.slot.isoformat(),
        }

    def input(self) -> Raw:
        """See World."""
        return self._remembered(("", "input"), "input", self._read_input)

    def output(self, step: str) -> Raw:
        """See World."""
        return self._remembered((step, "output"), f"steps.{step}.output", lambda: self._read_output(step))

    def outputs(self, step: str, total: int) -> Raw:
        """See World."""
        return self._remembered((step, "outputs"), f"steps.{step}.outputs", lambda: self._read_outputs(step, total))

    def done(self, step: str, after: int, limit: int) -> Sequence[int]:
        """See World."""
        reuse = self._kept.plan.reuse
        return [] if reuse is None else self._store.step_items(reuse.runs, step, after=after, limit=limit)

    def _remembered(self, key: tuple[str, str], place: str, read: Callable[[], bytes]) -> Raw:
        raw = self._kept.raws.get(key)
        if raw is None:
            raw = self._kept.raws[key] = Raw(read(), place)
        return raw

    def _read_input(self) -> bytes:
        claim, job = self._claim, self._job
        if job is None or job.input is None or (claim.payload and claim.trigger is None):
            return claim.payload
        try:
            return job.input.read()
        except RunnerError as error:
            raise LookupFailed(str(error)) from error

    def _sources(self, step: str) -> tuple[int, ...]:
        return sources(self._kept.plan, step, self.run_id)

    def _read_output(self, step: str) -> bytes:
        found = self._store.step_outputs(self._sources(step), step, limit=1)
        if not found:
            raise LookupFailed(f"what step {step!r} gave is not kept any more")
        return found[0][1]

    def _read_outputs(self, step: str, total: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while page := self._store.step_outputs(self._sources(step), step, after=len(parts) - 1, limit=PAGE):
            for item, output in page:
                parts += [b"null"] * (item - len(parts))
                parts.append(_checked(output, step, item))
                size += len(output) + 1
            if size > MAX_PAYLOAD_BYTES:
                raise LookupFailed(
                    f"the outputs of step {step!r} have more than {MAX_PAYLOAD_BYTES:,} bytes together; let it leave "
                    "them in files or a database, and give where they are"
                )
        parts += [b"null"] * (total - len(parts))
        return b"[%s]" % b",".join(parts)


def _checked(output: bytes, step: str, item: int) -> bytes:
    """The output of an item, if it is JSON."""
    Raw(output, f"the output of item {item} of step {step!r}").value()
    return output.strip()
