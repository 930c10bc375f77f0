"""Running the quarantined records of a batch again, and putting what comes of them where it belongs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from runner.batch.counts import Counts
from runner.batch.engine import Engine, Keeping, Written
from runner.batch.feed import Feed
from runner.batch.output import Output
from runner.batch.pending import Pending
from runner.batch.quarantine import Quarantined, read_quarantine
from runner.batch.report import BatchReport
from runner.batch.running import BatchRun
from runner.errors import InvalidRecord, UsageError
from runner.records import Block, Place, Position, Reader

BLOCK_RECORDS = 256
BLOCK_BYTES = 1 << 20


class QuarantineBlock(Block):
    """Some records of a quarantine, which a function is given behind the same lead."""

    def __init__(self, found: Sequence[Quarantined]) -> None:
        self.found = found
        self.count = len(found)
        self.size = sum(len(each.record) for each in found)
        self.end: Position = {}
        self.lead = found[0].lead
        self.refused = {
            index: InvalidRecord(each.message)  # no function was to see it, or not all of it is here
            for index, each in enumerate(found)
            if not each.whole or each.error_class == InvalidRecord.__name__
        }
        self.cut_short = [index for index, each in enumerate(found) if not each.whole]

    def records(self) -> Sequence[bytes]:
        """See Block."""
        return [each.record for each in self.found]

    def place(self, index: int) -> Place:
        """See Block."""
        return self.found[index].place


class QuarantineReader(Reader):
    """Reads a published quarantine."""

    def __init__(self, path: Path, shown: str) -> None:
        self._records = read_quarantine(path, shown)
        self._leads = itertools.groupby(self._records, key=lambda found: found[1].lead)
        self._group: Iterator[tuple[int, Quarantined]] = iter(())
        self._size = path.stat().st_size
        self._read = 0

    def read(self) -> Block | None:
        """See Reader."""
        while True:
            found = list(self._some())
            if found:
                return QuarantineBlock(found)
            following = next(self._leads, None)
            if following is None:
                return None
            self._group = following[1]

    def done(self) -> float | None:
        """See Reader."""
        return self._read / self._size if self._size else None

    def close(self) -> None:
        """See Reader."""
        self._records.close()

    def _some(self) -> Iterator[Quarantined]:
        size = 0
        for end, record in itertools.islice(self._group, BLOCK_RECORDS):
            self._read = end
            yield record
            size += len(record.record)
            if size >= BLOCK_BYTES:
                break


class MergingOutput(Output):
    """Writes the published output anew, with what succeeds now where it belongs."""

    def settle(self, pending: Pending) -> bool:
        """See Output."""
        block = pending.block
        assert isinstance(block, QuarantineBlock)
        for index, record in enumerate(block.found):
            self.sink.copy(record.output_offset)
            if index in pending.failures:
                self._fail(pending, index, pending.failures[index])
            else:
                self._write(pending, index, index + 1)
        self.counts.records_in += block.count
        return True


class MergeRun(BatchRun):
    """Runs only what is in the quarantine of the last run of a plan. Until all is done, output and
    quarantine stay as they were. What it reports are the counts of both runs together."""

    def _work(self, stack: ExitStack) -> None:
        plan, parts, quarantine = self._plan, self._parts, self._quarantine
        if quarantine is None or plan.quarantine is None:
            raise UsageError(f"{plan.title} keeps no failed records; `on_error: quarantine` would")
        path = plan.project / plan.quarantine
        records = sum(1 for _ in read_quarantine(path, plan.quarantine)) if path.exists() else 0
        self._counts = self._before(records)
        if not records:
            parts.tell(f"{plan.title}: nothing is quarantined")
            return
        reader = stack.enter_context(QuarantineReader(path, plan.quarantine))
        plan.sink.open_copy(self._counts.output_offset)
        quarantine.open()
        on_error = replace(plan.on_error, max_errors=None, max_rate=None)
        output = MergingOutput(sink=plan.sink, quarantine=quarantine, on_error=on_error, counts=self._counts)
        feed = Feed(reader, self._retries(), chunked=False)
        keeping = Keeping(
            every=records + 1,
            mark=self._mark,
            save=self._save,
            keep_logs=parts.keep_logs,
            clock=parts.clock,
            soon=math.inf,
        )  # which is never: what runs again is little, and nothing of it is lost
        parts.watch(self._view(reader, feed))
        Engine(feed, output, keeping).run(parts.execute)
        plan.sink.copy(None)
        self._mark(Written(None), plan.sink.cut(), finished=True)
        self._save()

    def _note(self, report: BatchReport) -> None:
        """See BatchRun. What was there before is there still."""

    def _before(self, records: int) -> Counts:
        """What the last run has counted, without the records that are to run again. Raises UsageError."""
        last, title = self._state.last(), self._plan.title
        if last is None or last["status"] != "succeeded" or self._state.load() is not None:
            raise UsageError(f"{title} has not run to its end; `runner batch {title}` comes first")
        if last["records_quarantined"] != records:
            raise UsageError(
                f"{self._plan.quarantine} has {records:,} records and the last run of {title} left "
                f"{last['records_quarantined']:,}; run the whole batch again"
            )
        done = last["records_in"] - records
        kept = {name: last[name] for name in ("records_out", "bytes_out", "output_offset")}
        return Counts(records_in=done, records_reused=done, **kept)
