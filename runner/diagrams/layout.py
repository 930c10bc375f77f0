"""Where the nodes of a graph are drawn, and by which way its edges go round them.

Layers from left to right, as Sugiyama, Tagawa and Toda have it ("Methods for Visual Understanding of
Hierarchical System Structures", 1981): an edge over several layers has a place in each of them, the order
within a layer follows the mean of the neighbours, and then everything is moved as near to its neighbours
as the order allows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from runner.graph import layers

SWEEPS = 8
"""How often the order and then the places are improved, in each direction."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """Where a node, or an edge that passes between nodes, is: the middle of its left side, and its size."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Everything that is placed, from (0, 0) to (width, height)."""

    boxes: Mapping[str, Box]
    """By node."""
    ways: Mapping[tuple[str, str], tuple[Box, ...]]
    """By edge (what is needed, what needs it), the boxes that it goes through in between."""
    width: float
    height: float


Place = tuple[str, str, int]
"""In the graph of places: a node (name, "", 0), or an edge (from, to, layer) that passes."""


def lay_out(
    needs: Mapping[str, Sequence[str]], sizes: Mapping[str, tuple[float, float]], *, across: float, down: float
) -> Layout:
    """Place a graph without cycles. `sizes` are the nodes' widths and heights, `across` and `down` the
    distances to keep between layers and within one."""
    columns, before = _columns(needs)
    _sort(columns, before)
    heights = {place: sizes[place[0]][1] if not place[1] else down / 2 for column in columns for place in column}
    middles = _spread(columns, before, heights, down)
    top = min((middles[place] - height / 2 for place, height in heights.items()), default=0.0)
    bottom = max((middles[place] + height / 2 for place, height in heights.items()), default=0.0)
    boxes: dict[Place, Box] = {}
    x = 0.0
    for column in columns:
        width = max(sizes[name][0] for name, to, _ in column if not to)
        for place in column:
            y = middles[place] - top
            boxes[place] = Box(x=x, y=y, width=sizes[place[0]][0] if not place[1] else width, height=heights[place])
        x += width + across
    depth = {place: number for number, column in enumerate(columns) for place in column}
    ways = {
        (other, name): tuple(boxes[other, name, layer] for layer in range(depth[other, "", 0] + 1, depth[name, "", 0]))
        for name, needed in needs.items()
        for other in needed
    }
    nodes = {place[0]: box for place, box in boxes.items() if not place[1]}
    return Layout(boxes=nodes, ways=ways, width=max(x - across, 0.0), height=bottom - top)


def _columns(needs: Mapping[str, Sequence[str]]) -> tuple[list[list[Place]], dict[Place, list[Place]]]:
    """The places of every layer, and for each place those in the layer before that it is joined to."""
    found = layers({name: list(needed) for name, needed in needs.items()})
    depth = {name: number for number, layer in enumerate(found) for name in layer}
    columns: list[list[Place]] = [[(name, "", 0) for name in layer] for layer in found]
    before: dict[Place, list[Place]] = {place: [] for column in columns for place in column}
    for name, needed in needs.items():
        for other in needed:
            last: Place = (other, "", 0)
            for layer in range(depth[other] + 1, depth[name]):
                place: Place = (other, name, layer)
                columns[layer].append(place)
                before[place] = [last]
                last = place
            before[name, "", 0].append(last)
    return columns, before


def _sort(columns: list[list[Place]], before: Mapping[Place, Sequence[Place]]) -> None:
    """Order each layer by the mean place of the neighbours, forwards and back."""
    behind = _behind(before)
    for _ in range(SWEEPS):
        for side, ordered in ((before, columns), (behind, columns[::-1])):
            rank: dict[Place, float] = {}
            for column in ordered:
                now = {place: float(number) for number, place in enumerate(column)}
                wanted = {place: mean(rank[n] for n in side[place]) if side[place] else now[place] for place in column}
                column.sort(key=wanted.__getitem__)
                rank.update((place, float(number)) for number, place in enumerate(column))


def _behind(before: Mapping[Place, Sequence[Place]]) -> dict[Place, list[Place]]:
    found: dict[Place, list[Place]] = {place: [] for place in before}
    for place, others in before.items():
        for other in others:
            found[other].append(place)
    return found


def _spread(
    columns: Sequence[Sequence[Place]],
    before: Mapping[Place, Sequence[Place]],
    heights: Mapping[Place, float],
    gap: float,
) -> dict[Place, float]:
    """The middle of every place: near to those of its neighbours, in the order of the layers."""
    behind = _behind(before)
    middles: dict[Place, float] = {}
    for column in columns:
        _settle(column, dict.fromkeys(column, 0.0), heights, gap, middles)
    for _ in range(SWEEPS):
        for side, ordered in ((behind, columns[::-1]), (before, columns)):
            for column in ordered:
                wanted = {p: mean(middles[n] for n in side[p]) if side[p] else middles[p] for p in column}
                _settle(column, wanted, heights, gap, middles)
    return middles


def _settle(
    column: Sequence[Place],
    wanted: Mapping[Place, float],
    heights: Mapping[Place, float],
    gap: float,
    middles: dict[Place, float],
) -> None:
    """Give the places of a layer the middles that are nearest to those wanted, at their distances.

    That is isotonic regression once the distances are taken off, done by pooling adjacent violators.
    """
    offsets: list[float] = []
    for number, place in enumerate(column):
        above = column[number - 1]
        offsets.append(offsets[-1] + (heights[above] + heights[place]) / 2 + gap if number else 0.0)
    pools: list[tuple[float, int]] = []  # the mean of a pool and how many are in it
    for place, offset in zip(column, offsets, strict=True):
        value, count = wanted[place] - offset, 1
        while pools and pools[-1][0] > value:
            other, others = pools.pop()
            value = (value * count + other * others) / (count + others)
            count += others
        pools.append((value, count))
    settled = [value for value, count in pools for _ in range(count)]
    middles.update((place, value + offset) for place, value, offset in zip(column, settled, offsets, strict=True))
