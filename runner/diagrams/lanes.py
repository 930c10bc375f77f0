"""A graph as lines of text, one node a line, with lanes that lead from what is needed to what needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from runner.graph import inverted

ASCII = str.maketrans("○◎│─├┤┬┴┼╰╯╭╮╶╴", "o@|-+++++`'.,--")
"""For terminals that can show nothing else: `str.translate` takes it."""

_CHARACTERS = {  # by whether a line leaves upwards, downwards, to the left and to the right
    (1, 1, 0, 0): "│",
    (1, 1, 0, 1): "├",
    (1, 1, 1, 0): "┤",
    (1, 1, 1, 1): "┼",
    (1, 0, 0, 1): "╰",
    (1, 0, 1, 0): "╯",
    (1, 0, 1, 1): "┴",
}


class Row(NamedTuple):
    """One line of the drawing."""

    lines: str
    """The lanes, all rows of a drawing equally wide."""
    name: str
    """The node that stands in this row; empty in a row between two."""


def rows(needs: Mapping[str, Sequence[str]], many: frozenset[str] = frozenset()) -> list[Row]:
    """Draw a graph without cycles; the nodes in `many` have a mark of their own."""
    drawn: list[Row] = []
    lanes: list[str | None] = []
    left = {name: len(set(needing)) for name, needing in inverted(needs).items()}
    order = _order(needs)
    for name in order:
        if drawn:
            drawn.append(Row(" ".join(" " if origin is None else "│" for origin in lanes), ""))
        drawn.append(Row(_place(name, set(needs[name]), lanes, left, "◎" if name in many else "○"), name))
    width = max((len(row.lines) for row in drawn), default=0)
    return [Row(row.lines.ljust(width), row.name) for row in drawn]


def _order(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """What is needed comes first, and what needs it as soon as it can: that keeps lanes short."""
    waiting = {name: len(set(needed)) for name, needed in needs.items()}
    needing = inverted({name: list(dict.fromkeys(needed)) for name, needed in needs.items()})
    ready = [name for name in reversed(list(needs)) if not waiting[name]]
    order = []
    while ready:
        name = ready.pop()
        order.append(name)
        for other in reversed(needing[name]):
            waiting[other] -= 1
            if not waiting[other]:
                ready.append(other)
    return order


def _place(name: str, needed: set[str], lanes: list[str | None], left: dict[str, int], mark: str) -> str:
    """Draw a node's row and change the lanes to those that lead on below it."""
    joined = {column for column, origin in enumerate(lanes) if origin in needed}
    for column in joined:
        left[str(lanes[column])] -= 1
    ended = {column for column in joined if not left[str(lanes[column])]}
    here = min(ended) if ended else _free(lanes)
    lanes += [None] * (here + 1 - len(lanes))
    first, last = min(joined | {here}), max(joined | {here})
    text = ""
    for column, origin in enumerate(lanes):
        left_of, right_of = first < column <= last, first <= column < last
        if column == here:
            text += mark
        elif column in joined:
            text += _CHARACTERS[1, int(column not in ended), int(left_of), int(right_of)]
        elif origin is not None:
            text += "│"  # it passes in front of a line to others
        else:
            text += "─" if left_of and right_of else " "
        text += "─" if right_of else " "
    for column in ended:
        lanes[column] = None
    lanes[here] = name if left[name] else None
    while lanes and lanes[-1] is None:
        lanes.pop()
    return text.rstrip()


def _free(lanes: list[str | None]) -> int:
    return next((column for column, origin in enumerate(lanes) if origin is None), len(lanes))
