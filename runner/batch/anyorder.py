"""`order: any`: blocks are written as they are done, whichever was read first.

A checkpoint then says up to where everything is written, and which blocks behind that are, by their ends:
what is in a block depends on where it begins only, so that whoever goes on knows them again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from runner.batch.engine import Engine, Written
from runner.batch.pending import Pending
from runner.records import Block, Position, Reader


class AnyOrder(Engine):
    """Writes blocks in the order in which they are done."""

    _passed: Position | None = None
    """Everything before this is written."""

    def _settle(self) -> None:
        """See Engine. Of the blocks under way there are few; those that are written hold no memory."""
        feed = self.feed
        for pending in [each for each in feed.blocks if not each.open and not each.written]:
            if not self._output.settle(pending):
                feed.reopen(pending)
                continue
            pending.forget()
            self._written(pending)
        self._pass()

    def _position(self, pending: Pending) -> Written:  # noqa: ARG002
        """See Engine."""
        self._pass()
        return Written(self._passed, [each.end for each in self.feed.blocks if each.written])

    def _pass(self) -> None:
        blocks = self.feed.blocks
        while blocks and blocks[0].written:
            self._passed = blocks.popleft().end


class Without(Reader):
    """What another reader gives, without the blocks that are written already."""

    def __init__(self, reader: Reader, ahead: Sequence[Position]) -> None:
        self._reader = reader
        self._ahead = {json.dumps(end, sort_keys=True) for end in ahead}

    def read(self) -> Block | None:
        """See Reader."""
        while (block := self._reader.read()) is not None and self._ahead:
            key = json.dumps(block.end, sort_keys=True)
            if key not in self._ahead:
                break
            self._ahead.remove(key)
        return block

    def done(self) -> float | None:
        """See Reader."""
        return self._reader.done()

    def close(self) -> None:
        """See Reader."""
        self._reader.close()
