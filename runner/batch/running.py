"""One run of a batch from lock to published output: where it begins, what ends it, what is left of it."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from runner.batch.anyorder import AnyOrder, Without
from runner.batch.checkpoint import Checkpoint, StateFolder
from runner.batch.counts import Counts
from runner.batch.engine import Engine, Execute, Keeping, Written
from runner.batch.feed import Feed, Retries
from runner.batch.identity import Identity, changes
from runner.batch.output import Output
from runner.batch.plan import Plan
from runner.batch.quarantine import QuarantineFile
from runner.batch.report import BatchReport, View
from runner.errors import CheckpointOutdated, RunnerError
from runner.models import InvocationResult, LogEntry
from runner.records import Position, Reader


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """What a batch needs of the program around it."""

    execute: Execute
    reuse: Callable[[Execute, Counts], Execute] = field(default=lambda execute, _: execute)
    """Puts what is known of results before what makes them; counts what it takes."""
    keep_logs: Callable[[Sequence[LogEntry]], None]
    ended_by: Callable[[bytes, InvocationResult], None] = field(default=lambda *_: None)
    """See Output."""
    tell: Callable[[str], None]
    """Tells the user one sentence."""
    watch: Callable[[View], None] = field(default=lambda _: None)
    """Told once, when records begin to run."""
    workers: Callable[[], Sequence[str]] = tuple
    """What each worker is at; see FunctionExecutor.workers."""
    clock: Callable[[], float] = field(default=time.monotonic)
    wall_clock: Callable[[], float] = field(default=time.time)
    sleep: Callable[[float], None] = field(default=time.sleep)
    chance: Callable[[], float] = field(default=random.random)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """What the user decides about a run that was interrupted before."""

    restart: bool = False
    """Begin again, whatever there is."""
    resume: bool = False
    """Go on, even if something has changed."""


class BatchRun:
    """Runs a plan once. `run` may be called once."""

    def __init__(self, plan: Plan, parts: Parts, choices: Choices) -> None:
        self._plan, self._parts, self._choices = plan, parts, choices
        self._state = StateFolder(plan.state, plan.title)
        self._counts = Counts()
        self._quarantine = (
            None if plan.quarantine is None else QuarantineFile(plan.project / plan.quarantine, plan.quarantine)
        )
        self._marked: Checkpoint | None = None
        self._resumable = plan.source.resumable and plan.sink.resumable

    def run(self) -> BatchReport:
        """Run it to its end and tell how it ended: no RunnerError is raised, and Ctrl-C makes it `cancelled`.
        What was done stays for the next run."""
        started = self._parts.clock()
        error: RunnerError | None = None
        status = "succeeded"
        try:
            self._run(started)
        except RunnerError as raised:
            error, status = raised, "failed"
        except KeyboardInterrupt:
            status = "cancelled"
        return self._report(status, started, error)

    def _run(self, started: float) -> None:
        plan = self._plan
        with ExitStack() as stack:
            stack.callback(self._state.close)
            self._state.lock()
            stack.callback(plan.sink.close)
            if self._quarantine is not None:
                stack.callback(self._quarantine.close)
            try:
                if not self._finished_before():
                    self._work(stack)
                self._publish()
            except (RunnerError, KeyboardInterrupt) as raised:
                error = raised if isinstance(raised, RunnerError) else None
                with contextlib.suppress(RunnerError):  # of a full disk, say, which is what ended it
                    self._save()
                if not isinstance(error, CheckpointOutdated):
                    self._note(self._report("failed" if error else "cancelled", started, error))
                raise
            self._state.finish(self._kept(self._report("succeeded", started, None)))

    def _note(self, report: BatchReport) -> None:
        """Remember how the run ended that can go on."""
        self._state.note(self._kept(report))

    def _kept(self, report: BatchReport) -> dict[str, Any]:
        """A report as a later run finds it."""
        moment = datetime.fromtimestamp(self._parts.wall_clock(), timezone.utc)
        finished_at = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {**report.facts(), "finished_at": finished_at, "output_offset": report.counts.output_offset}

    def _finished_before(self) -> bool:
        """Whether an earlier run did everything and was killed before the output had its name."""
        if self._choices.restart:
            return False
        found = self._state.load()
        if found is None or not found.finished:
            return False
        self._counts = Counts.of(found.counts)
        self._counts.records_reused = self._counts.records_in
        self._parts.tell(f"{self._plan.title}: all was done already; its output gets its name now")
        return True

    def _work(self, stack: ExitStack) -> None:
        plan, parts = self._plan, self._parts
        checkpoint = self._begin()
        plan.sink.open(checkpoint.sink if checkpoint else None)
        if self._quarantine is not None:
            self._quarantine.open(checkpoint.quarantine if checkpoint else None)
        reader = stack.enter_context(plan.source.open(plan.limits, checkpoint.source if checkpoint else None))
        if checkpoint and checkpoint.ahead:
            reader = Without(reader, checkpoint.ahead)
        output = Output(
            sink=plan.sink,
            quarantine=self._quarantine,
            on_error=plan.on_error,
            counts=self._counts,
            ended_by=parts.ended_by,
        )
        feed = Feed(reader, self._retries(), chunked=plan.keys.isolation == "chunk")
        keeping = Keeping(
            every=plan.keys.checkpoint.every,
            mark=self._mark,
            save=self._save,
            keep_logs=parts.keep_logs,
            clock=parts.clock,
        )
        parts.watch(self._view(reader, feed))
        kind = AnyOrder if plan.keys.order == "any" else Engine
        kind(feed, output, keeping).run(parts.reuse(parts.execute, self._counts))
        self._mark(Written(None), plan.sink.cut(), finished=True)
        self._save()

    def _begin(self) -> Checkpoint | None:
        """Where to begin; None at the beginning."""
        plan = self._plan
        identity = plan.identity()
        plan.check_paths(identity.inputs)
        checkpoint = None if self._choices.restart else self._state.load()
        before = None if checkpoint is None else self._state.identity()
        if checkpoint is None or before is None or not self._resumable:
            self._state.begin(identity)
            return None
        self._compare(before, identity)
        self._counts = Counts.of(checkpoint.counts)
        self._counts.records_reused = self._counts.records_in
        self._parts.tell(f"{plan.title}: goes on behind {self._counts.records_in:,} records of an interrupted run")
        return checkpoint

    def _compare(self, before: Identity, now: Identity) -> None:
        changed = changes(before, now)
        if not changed:
            return
        if not self._choices.resume:
            raise CheckpointOutdated(self._plan.title, changed)
        for change in changed:
            self._parts.tell(f"{self._plan.title}: {change}")
        self._state.adopt(now)

    def _mark(self, written: Written, sink: Position, *, finished: bool = False) -> None:
        """Remember what the next checkpoint says."""
        self._counts.output_offset = self._plan.sink.offset
        self._marked = Checkpoint(
            source=written.position,
            ahead=written.ahead,
            sink=sink,
            quarantine=0 if self._quarantine is None else self._quarantine.length,
            counts=self._counts.facts(),
            finished=finished,
        )

    def _save(self) -> None:
        """Make the checkpoint that was marked last, if it would be of use."""
        marked, self._marked = self._marked, None
        if marked is None or not (marked.finished or self._resumable):
            return
        self._plan.sink.sync()
        if self._quarantine is not None:
            self._quarantine.sync()
        self._state.save(marked)

    def _publish(self) -> None:
        self._plan.sink.publish()
        if self._quarantine is not None:
            self._quarantine.publish(self._counts.records_quarantined)

    def _retries(self) -> Retries:
        function, parts = self._plan.function, self._parts
        return Retries(
            retry_count=function.retry_count,
            retry_delay_seconds=function.retry_delay_seconds,
            clock=parts.clock,
            sleep=parts.sleep,
            chance=parts.chance,
        )

    def _view(self, reader: Reader, feed: Feed) -> View:
        counts, before, done_before = self._counts, self._counts.records_in, reader.done() or 0.0

        def done() -> float | None:
            """Of what was read as much as has ended of its records."""
            read = reader.done()
            (under_way, ended), written = feed.under_way(), counts.records_in - before
            if read is None or not written + under_way:
                return None if read is None else done_before
            return done_before + (read - done_before) * (written + ended) / (written + under_way)

        return View(
            title=self._plan.title,
            counts=counts,
            records=lambda: counts.records_in + feed.under_way()[1],
            done=done,
            waiting=lambda: feed.waiting,
            done_before=done_before,
            workers=self._parts.workers,
        )

    def _report(self, status: str, started: float, error: RunnerError | None) -> BatchReport:
        plan, counts = self._plan, self._counts
        return BatchReport(
            job=plan.job,
            partition=plan.partition,
            status=status,
            duration_ms=(self._parts.clock() - started) * 1e3,
            function=plan.function.name,
            version=plan.function.version,
            counts=counts,
            output=plan.sink.target,
            quarantine=plan.quarantine if counts.records_quarantined else None,
            error=error,
        )
