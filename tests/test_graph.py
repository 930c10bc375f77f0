"""Graphs: tables, and that nothing depends on how deep they are."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.graph import find_cycle, inverted, layers, reached

DIAMOND = {"d": ["b", "c"], "b": ["a"], "c": ["a"], "a": []}
LONG = {"n0": [], **{f"n{number}": [f"n{number - 1}"] for number in range(1, 50_000)}}

Graph = dict[str, list[str]]


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        ({}, []),
        ({"a": []}, [["a"]]),
        ({"b": [], "a": []}, [["b", "a"]]),
        (DIAMOND, [["a"], ["b", "c"], ["d"]]),
        ({"d": ["c", "a"], "c": ["b"], "b": ["a"], "a": [], "z": []}, [["a", "z"], ["b"], ["c"], ["d"]]),
        ({"b": ["a", "a"], "a": []}, [["a"], ["b"]]),
    ],
)
def test_layers(needs: Graph, expected: list[list[str]]) -> None:
    assert layers(needs) == expected
    assert find_cycle(needs) == []


@pytest.mark.parametrize(
    ("needs", "cycle"),
    [
        ({"a": ["a"]}, ["a", "a"]),
        ({"a": ["b"], "b": ["a"]}, ["a", "b", "a"]),
        ({"x": [], "a": ["b", "x"], "b": ["c"], "c": ["a"], "d": ["a"]}, ["a", "b", "c", "a"]),
    ],
)
def test_a_cycle_is_told_as_a_path(needs: Graph, cycle: list[str]) -> None:
    found = find_cycle(needs)
    assert found[0] == found[-1]
    assert set(found) == set(cycle)
    assert len(found) == len(cycle)
    for name, needed in pairwise(found):
        assert needed in needs[name]
    with pytest.raises(ValueError, match="cycle"):
        layers(needs)


@pytest.mark.parametrize(
    ("start", "expected"), [("d", {"a", "b", "c"}), ("b", {"a"}), ("a", set()), ("bc", {"a"}), ("", set())]
)
def test_reached(start: str, expected: set[str]) -> None:
    assert reached(DIAMOND, start) == expected


def test_reached_in_a_circle() -> None:
    assert reached({"a": ["b"], "b": ["a"], "c": ["a"]}, ["a"]) == {"a", "b"}


def test_inverted() -> None:
    assert inverted(DIAMOND) == {"d": [], "b": ["d"], "c": ["d"], "a": ["b", "c"]}


def test_a_long_chain() -> None:
    assert len(layers(LONG)) == len(LONG)
    assert len(reached(LONG, ["n49999"])) == len(LONG) - 1
    assert len(find_cycle({**LONG, "n0": ["n49999"]})) == len(LONG) + 1


graphs = st.integers(1, 12).flatmap(
    lambda count: st.lists(st.lists(st.integers(0, count - 1), max_size=4), min_size=count, max_size=count)
)


@given(graphs)
def test_layers_or_a_cycle(edges: list[list[int]]) -> None:
    needs = {str(name): [str(other) for other in others] for name, others in enumerate(edges)}
    cycle = find_cycle(needs)
    assert bool(cycle) == any(name in reached(needs, [name]) for name in needs)
    for name, needed in pairwise(cycle):
        assert needed in needs[name]
    if not cycle:
        found = layers(needs)
        depth = {name: number for number, layer in enumerate(found) for name in layer}
        assert depth.keys() == needs.keys()
        for name, others in needs.items():
            assert depth[name] == max((depth[other] + 1 for other in others), default=0)
