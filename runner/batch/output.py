"""What becomes of results: written to the sink in order, skipped, quarantined, or the end of the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runner.batch.counts import Counts
from runner.batch.pending import Pending
from runner.batch.quarantine import Quarantined, QuarantineFile, described
from runner.batchkeys import OnErrorKeys
from runner.errors import OutputRefused, RecordFailed, RunnerError, TooManyFailures
from runner.models import InvocationResult
from runner.records import Place, Sink

RATE_RECORDS = 1000
"""How many records there must be before their rate of failures means something."""


@dataclass(kw_only=True, slots=True)
class Output:
    """Sink and quarantine of one run. Used by one thread."""

    sink: Sink
    quarantine: QuarantineFile | None
    """None unless failed records are quarantined."""
    on_error: OnErrorKeys
    counts: Counts
    ended_by: Callable[[bytes, InvocationResult], None] = lambda *_: None
    """Is told of the record that ends the batch: what its function was given, and what came of it."""

    def settle(self, pending: Pending) -> bool:
        """Write a block that has no open item. False for a chunk whose output the sink refuses: nothing
        of it is written then. Raises RecordFailed, TooManyFailures, FileUnavailable."""
        if not pending.failures:
            if not self._write(pending, 0, len(pending.outputs)):
                return False
        else:
            start = 0
            for index in sorted(pending.failures):
                self._write(pending, start, index)
                self._fail(pending, index, pending.failures[index])
                start = index + 1
            self._write(pending, start, len(pending.outputs))
        self.counts.records_in += pending.block.count
        self.counts.bytes_in += pending.block.size
        if self.counts.failed:
            self.check_budget()
        return True

    def check_budget(self, *, at_end: bool = False) -> None:
        """Raises TooManyFailures when there are more than `on_error` allows."""
        counts, on_error = self.counts, self.on_error
        failed, records = counts.failed, counts.records_in
        limit = ""
        if on_error.max_errors is not None and failed > on_error.max_errors:
            limit = f"max_errors is {on_error.max_errors:,}"
        elif on_error.max_rate is not None and (at_end or records >= RATE_RECORDS):
            limit = f"max_rate is {on_error.max_rate:g}" if failed > on_error.max_rate * records else ""
        if limit:
            where = ""
            if self.quarantine is not None:
                self.quarantine.sync()
                where = f"; they are in {self.quarantine.shown}.partial"
            raise TooManyFailures(failed, records, limit, where)

    def _write(self, pending: Pending, start: int, stop: int) -> bool:
        """Write the outputs from `start` to `stop`. One that the sink refuses is a failed record."""
        while start < stop:
            outputs: Sequence[bytes] = pending.outputs
            if stop - start < len(outputs):
                outputs = outputs[start:stop]
            first = start

            def place(index: int, first: int = first) -> Place:
                return pending.block.place(first + index)

            before = self.sink.size
            try:
                self.counts.records_out += self.sink.write(outputs, place)
                start = stop
            except OutputRefused as refused:
                if pending.chunked:
                    return False
                self.counts.records_out += refused.written
                self._fail(pending, start + refused.index, refused)
                start += refused.index + 1
            self.counts.bytes_out += self.sink.size - before
        return True

    def _fail(self, pending: Pending, index: int, error: RunnerError) -> None:
        place, result = pending.block.place(index), pending.results.get(index)
        if self.on_error.action == "fail":
            if result is not None:
                self.ended_by(pending.payloads[index], result)
            raise RecordFailed(str(place), error) from error
        if self.quarantine is None:
            self.counts.records_skipped += 1
            return
        self.counts.records_quarantined += 1
        error_class, message, stderr_tail = described(error)
        self.quarantine.add(
            Quarantined(
                place=place,
                attempts=pending.attempts.get(index, 0) + isinstance(error, OutputRefused),
                error_class=error_class,
                message=message,
                stderr_tail=stderr_tail,
                record=pending.block.records()[index],
                lead=pending.block.lead,
                output_offset=self.sink.offset,
                whole=index not in pending.block.cut_short,
                recording=result.recording if result is not None else None,
            )
        )
