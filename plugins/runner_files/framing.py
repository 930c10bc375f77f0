"""How what functions wrote becomes one text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

from runner.errors import OutputRefused
from runner.records import Position
from runner_files.commas import header_size, row_breaks
from runner_files.lines import line_breaks

SHOWN_BYTES = 60


class Framed(NamedTuple):
    """Some outputs as they stand in the file."""

    text: bytes
    lines: int
    """How many, or rows."""
    refused: OutputRefused | None = None
    """Why the outputs end here."""


class Framing(ABC):
    """Makes the text of one output, from its beginning to its end."""

    @abstractmethod
    def frame(self, outputs: Sequence[bytes]) -> Framed:
        """What these outputs add to the text, up to the first that cannot stand in it."""

    @property
    def facts(self) -> Position:
        """What must be known to go on."""
        return {}

    def recall(self, facts: Position) -> None:  # noqa: B027
        """Go on where these facts were told."""

    def begin_with(self, text: bytes) -> None:  # noqa: B027
        """Go on behind a text that this made in an earlier run, of which this is the beginning."""


class Lines(Framing):
    """A line break ends every output; an empty one is nothing."""

    def __init__(self, count: Callable[[bytes], int] = line_breaks) -> None:
        """`count` tells how many rows a text of whole ones has."""
        self._count = count

    def frame(self, outputs: Sequence[bytes]) -> Framed:
        """See Framing."""
        text = b"".join([output if output.endswith(b"\n") else output + b"\n" for output in outputs if output])
        return Framed(text, self._count(text))


class WithHeader(Framing):
    """Rows of CSV: every output begins with the same header, which stands in the text once."""

    def __init__(self) -> None:
        self._header = b""

    def frame(self, outputs: Sequence[bytes]) -> Framed:
        """See Framing."""
        header, parts, refused = self._header, [], None
        for index, output in enumerate(outputs):
            if not output:
                continue
            whole = output if output.endswith(b"\n") else output + b"\n"
            if not header:
                self._header = header = whole[: header_size(whole)]
                parts.append(header)
            if not whole.startswith(header):
                refused = OutputRefused(index, _other_header(whole, header))
                break
            parts.append(whole[len(header) :])
        text = b"".join(parts)
        return Framed(text, row_breaks(text) - bool(parts and parts[0] is header), refused)

    @property
    def facts(self) -> Position:
        """See Framing."""
        return {"header": self._header.decode("latin-1")}

    def begin_with(self, text: bytes) -> None:
        """See Framing."""
        self._header = text[: header_size(text)]

    def recall(self, facts: Position) -> None:
        """See Framing."""
        self._header = facts["header"].encode("latin-1")


def _other_header(output: bytes, header: bytes) -> str:
    got = output[: header_size(output)].rstrip()[:SHOWN_BYTES].decode("utf-8", "replace")
    wanted = header.rstrip()[:SHOWN_BYTES].decode("utf-8", "replace")
    return (
        f"the output begins with {got!r} where its header is {wanted!r}; a function writes the header with every "
        "output, or set `header: false`"
    )
