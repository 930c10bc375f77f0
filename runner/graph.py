"""Directed graphs of names: cycles, layers, what lies before and behind. Pure, and without types of ours.

A graph is a mapping from every name to the names that it needs, all of which are keys as well. Nothing
here recurses, so that a chain may be as long as it likes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

Needs = Mapping[str, Collection[str]]


def find_cycle(needs: Needs) -> list[str]:
    """One cycle as a path on which each name needs the next, its first name also its last; empty
    without any."""
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))  # graphlib tells it from what is needed to what needs it
    return []


def layers(needs: Needs) -> list[list[str]]:
    """The names in layers: each stands in the first that lies behind all it needs. Within a layer they
    are in the order of the mapping. Raises ValueError for a graph with a cycle."""
    place = {name: number for number, name in enumerate(needs)}
    sorter = TopologicalSorter(needs)
    sorter.prepare()
    found = []
    while sorter.is_active():
        layer = sorter.get_ready()
        sorter.done(*layer)
        found.append(sorted(layer, key=place.__getitem__))
    return found


def reached(graph: Needs, start: Iterable[str]) -> set[str]:
    """Every name on a path that leaves one of these: all that they need, at first or second hand. They
    themselves only if a path comes back to them."""
    found: set[str] = set()
    pending = [name for given in start for name in graph[given]]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += graph[name]
    return found


def inverted(needs: Needs) -> dict[str, list[str]]:
    """The graph the other way round: for every name those that need it, in the order of the mapping."""
    found: dict[str, list[str]] = {name: [] for name in needs}
    for name, needed in needs.items():
        for other in needed:
            found[other].append(name)
    return found
