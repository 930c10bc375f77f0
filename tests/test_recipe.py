"""Keys of results: every part counts, and no two of different parts are the same."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.recipe import ABI_VERSION, PARTS, Recipe, keys
from runner.workers import world

RECIPE = Recipe(
    module="bafkmodule",
    env_vars={"A": "1", "B": "2"},
    memory_limit_mb=64,
    timeout_seconds=30,
    name="clean",
    executor="wasmtime 1",
    abi=1,
)
OTHERS: dict[str, list[Any]] = {
    "module": ["bafkmodulf", "", "BAFKMODULE"],
    "env_vars": [{}, {"A": "1"}, {"A": "12", "B": ""}, {"A": "2", "B": "1"}, {"A1": "", "B": "2"}, {"AB": "12"}],
    "memory_limit_mb": [63, 65, 640],
    "timeout_seconds": [30.5, 3, 300],
    "name": ["clean2", "Clean", ""],
    "executor": ["wasmtime 2", "wasmer 1", ""],
    "abi": [0, 2, 11],
}
TOLD_AS = {"memory_limit_mb": "limits", "timeout_seconds": "limits"}


def key(recipe: Recipe, input: bytes = b"in") -> bytes:
    (found,) = keys(recipe.digest(), [input])
    return found


def test_a_key_has_32_bytes_and_is_the_same_for_the_same() -> None:
    again = replace(RECIPE, env_vars={"B": "2", "A": "1"}, timeout_seconds=30.0)
    assert key(RECIPE) == key(again)
    assert len(key(RECIPE)) == 32
    assert keys(RECIPE.digest(), [b"a", b"b", b"a"]) == [key(RECIPE, each) for each in (b"a", b"b", b"a")]


@pytest.mark.parametrize("part", [field.name for field in fields(Recipe)])
def test_every_part_counts_and_is_told(part: str) -> None:
    """A new part has to be put into OTHERS."""
    before = RECIPE.parts(b"in")
    for value in OTHERS[part]:
        other = replace(RECIPE, **{part: value})
        assert key(other) != key(RECIPE), value
        now = other.parts(b"in")
        assert {name for name in PARTS if now[name] != before[name]} == {TOLD_AS.get(part, part)}, value


def test_the_input_counts_and_is_told() -> None:
    assert len({key(RECIPE, each) for each in (b"", b"in", b"in\n", b"in\0", b"IN")}) == 5
    before, now = RECIPE.parts(b"in"), RECIPE.parts(b"in\n")
    assert tuple(before) == PARTS
    assert [name for name in PARTS if before[name] != now[name]] == ["input"]


TEXT = st.text(st.sampled_from('ab",[]\\\0 ü\udcff'), max_size=4)
RECIPES = st.builds(
    Recipe,
    module=TEXT,
    env_vars=st.dictionaries(TEXT, TEXT, max_size=3),
    memory_limit_mb=st.integers(1, 12),
    timeout_seconds=st.sampled_from([1, 1.0, 1.5, 11, 12.0]),
    name=TEXT,
    executor=TEXT,
    abi=st.integers(1, 3),
)


@settings(deadline=None, max_examples=400)
@given(one=RECIPES, other=RECIPES, first=st.binary(max_size=3), second=st.binary(max_size=3))
def test_keys_are_equal_where_all_parts_are(one: Recipe, other: Recipe, first: bytes, second: bytes) -> None:
    """Texts that run into each other, quotes and brackets, in every part."""
    assert (key(one, first) == key(other, second)) == ((one, first) == (other, second))


@settings(deadline=None, max_examples=300)
@given(recipe=RECIPES, moved=st.integers(1, 3))
def test_what_moves_from_one_part_to_the_next_makes_another_key(recipe: Recipe, moved: int) -> None:
    joined = recipe.module + recipe.name + recipe.executor
    cut = len(recipe.module) + moved
    other = replace(recipe, module=joined[:cut], name=joined[cut : cut + 1], executor=joined[cut + 1 :])
    assert (key(other) == key(recipe)) == (other == recipe)


def test_what_a_pure_function_sees_is_a_matter_of_the_abi_version() -> None:
    """Who changes one of these raises ABI_VERSION: results that were kept before are of another world."""
    seen = (world.PURE_REALTIME_NS, world.PURE_MONOTONIC_NS, world.PURE_RESOLUTION_NS, world.PURE_RANDOM)
    assert seen == (946_684_800_000_000_000, 1_000_000_000, 1, b"runner pure 1")
    assert ABI_VERSION == 1
    pure = world.PureWorld()
    pure.begin(b"in")
    assert pure.random(4).hex() == "6035424f"
