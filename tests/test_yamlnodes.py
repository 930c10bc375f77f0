"""YAML 1.2 by the core schema, with places; hostile texts end in located problems."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runner import yamlnodes
from runner.yamlnodes import Entries, Items, Node, Scalar, decode, join, parse, resolve, shorten

Found = list[tuple[int, int, str, str]]


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both parsers of PyYAML: the one with libyaml is not everywhere."""
    if not hasattr(yaml, request.param):
        pytest.skip("PyYAML was built without libyaml")
    monkeypatch.setattr(yamlnodes, "_PARSER", getattr(yaml, request.param))
    return str(request.param)


def read(text: str) -> tuple[Any, Found]:
    found: Found = []
    node = parse(text, lambda *problem: found.append(problem))
    return (None if node is None else plain(node)), found


def plain(node: Node) -> Any:
    if isinstance(node, Items):
        return [plain(item) for item in node.items]
    if isinstance(node, Entries):
        return {key.value: plain(value) for key, value in node.entries}
    assert isinstance(node, Scalar)
    return node.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(word, None) for word in ("", "~", "null", "Null", "NULL")],
        *[(word, True) for word in ("true", "True", "TRUE")],
        *[(word, False) for word in ("false", "False", "FALSE")],
        *[(word, word) for word in ("yes", "no", "on", "off", "y", "N", "tRUE", "nULL", "nan", "inf", "+.nan")],
        *[(word, word) for word in ("12:30", "190:20:30", "2027-01-15", "1_000", "0b1", "0X1F", "1e", "e3", ".", "-")],
        ("0", 0),
        ("-12", -12),
        ("+3", 3),
        ("010", 10),
        ("0o17", 15),
        ("0x1f", 31),
        ("1.5", 1.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e3", 1000.0),
        ("-1.5E-2", -0.015),
        (".inf", math.inf),
        ("-.INF", -math.inf),
    ],
)
def test_plain_scalars_mean_what_yaml_1_2_says(text: str, value: Any) -> None:
    resolved = resolve(text)
    assert (type(resolved), resolved) == (type(value), value)


def test_nan_is_a_number() -> None:
    assert math.isnan(float(resolve(".NaN") or 0))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: '3'", {"a": "3"}),
        ("a: |\n  3\n", {"a": "3\n"}),
        ("a: !!str 3", {"a": "3"}),
        ("a: ! 3", {"a": "3"}),
        ("a: !!float 3", {"a": 3.0}),
        ("a: !!int '3'", {"a": 3}),
        ("a: !!null ''", {"a": None}),
        ("on: 1\n1: 2", {"on": 1, 1: 2}),
        ("a: &x [1, {b: 2}]\nc: *x", {"a": [1, {"b": 2}], "c": [1, {"b": 2}]}),
        ("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}", {"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 3}}),
        ("a: {<<: [{p: 1}, {p: 2, q: 2}], r: 3}", {"a": {"p": 1, "q": 2, "r": 3}}),
        ("a: {'<<': {p: 1}}", {"a": {"<<": {"p": 1}}}),
        ("%YAML 1.2\n---\na: 1\n...\n", {"a": 1}),
        ("# nothing\n", None),
    ],
)
def test_trees(parser: str, text: str, value: Any) -> None:
    assert read(text) == (value, []), parser


@pytest.mark.parametrize(
    ("text", "line", "column", "where", "words"),
    [
        ("a: 1\nb: 2\na: 3", 3, 1, "a", "duplicate key 'a'; it stands in line 1"),
        ("f:\n  g:\n    - {x: 1, x: 2}", 3, 14, "f.g[0].x", "duplicate key 'x'"),
        ("1: a\n0x1: b", 2, 1, "[1]", "duplicate key 1"),
        ("a: !!int x", 1, 4, "a", "'x' is not what its tag '!!int' says"),
        ("a: !!python/object:os.system {}", 1, 4, "a", "means nothing here"),
        ("a: !mine x", 1, 4, "a", "the tag '!mine' means nothing here"),
        ("a: !!timestamp 2027-01-15", 1, 4, "a", "means nothing here"),
        ("a: *b", 1, 4, "a", "has no anchor `&b`"),
        ("a: &x [*x]", 1, 8, "a[0]", "stands inside its own anchor"),
        ("a: {<<: 1}", 1, 9, "a", "`<<` takes a mapping"),
        ("? [a]\n: b", 1, 3, "", "cannot be a key"),
        ("a: 1\n---\nb: 1", 2, 1, "", "a second document"),
        ("a:\n\tb: 1", 2, 1, "", "indent with spaces"),
        ("a: b: c", 1, 5, "", "not valid YAML"),
        ("a: 'x\nb: 1", 2, 5, "", "from 1:4"),
        ("a: b\x00c", 1, 5, "", "U+0000"),
        ("a: 1\nb: \x1b[0m", 2, 4, "", "U+001B"),
        (f"a: {'1' * 200}", 1, 4, "a", "a number of 200 characters"),
        (f"a: {'9' * 5000}", 1, 4, "a", "a number of 5000 characters"),
        ("[" * 500, 1, 101, "", "deeper than 100"),
        ("- " * 500, 1, 201, "", "deeper than 100"),
    ],
)
def test_problems_are_located(parser: str, text: str, line: int, column: int, where: str, words: str) -> None:
    _, found = read(text)
    assert [problem[:3] for problem in found] == [(line, column, where)], (parser, found)
    assert words in found[0][3]


def test_aliases_cannot_multiply_without_end(parser: str) -> None:
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 12)]
    value, found = read("\n".join(["l0: &l0 [x]", *levels]))
    assert value is None, parser
    assert "the aliases up to here stand for more than 1,000,000 values" in found[0][3]


def test_a_long_text_cannot_be_multiplied_by_aliases() -> None:
    _, found = read(f"a: &a {'x' * 64_000}\nb: [{', '.join(['*a'] * 2000)}]")
    assert "stand for more than" in found[0][3]


def test_aliases_cannot_nest_deeper_than_the_text_may() -> None:
    def link(n: int) -> str:
        inner = f"*l{n - 1}" if n else "x"
        return f"l{n}: &l{n} {'[' * 60}{inner}{']' * 60}"

    _, found = read("\n".join(link(n) for n in range(3)))
    assert found[0][0] == 2
    assert "nested deeper" in found[0][3]


def test_a_merge_keeps_the_places_of_its_source() -> None:
    root = parse("x: &x\n  p: 1\nb:\n  <<: *x\n  q: 2\n", lambda *_: None)
    assert isinstance(root, Entries)
    b = root.get("b")
    assert isinstance(b, Entries)
    assert [(key.value, key.line, value.column) for key, value in b.entries] == [("p", 2, 6), ("q", 5, 6)]


@pytest.mark.parametrize(
    ("data", "place"),
    [(b"a: \xff", (1, 4)), (b"\xef\xbb\xbfa: \xff", (1, 4)), ("ä: 1\nöö: ".encode() + b"\xc3", (2, 5))],
)
def test_what_is_not_utf8_is_located(data: bytes, place: tuple[int, int]) -> None:
    found: Found = []
    assert decode(data, lambda *problem: found.append(problem)) is None
    assert found[0][:2] == place
    assert "not UTF-8" in found[0][3]


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert decode(b"\xef\xbb\xbfa: 1", lambda *_: None) == "a: 1"


def test_paths_and_values_in_messages_stay_short() -> None:
    assert join("functions", "clean-up") == "functions.clean-up"
    assert join("", "jobs") == "jobs"
    assert join("functions", "a b") == "functions['a b']"
    assert join("functions", 1) == "functions[1]"
    assert len(join("", "x" * 10_000)) <= 64
    assert len(shorten("x" * 10_000)) <= 62
    assert shorten("it's") == '"it\'s"'


@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"%@#\n \t<1.?,~\\\x00\ufeff\u2028é"), max_size=60))
def test_any_text_is_a_tree_or_a_located_problem(text: str) -> None:
    found: Found = []
    node = parse(text, lambda *problem: found.append(problem))
    if node is None and not found:
        assert yaml.compose(text, Loader=yamlnodes._PARSER) is None
    lines = max(text.count("\n"), len(text.splitlines())) + 2
    assert all(1 <= line <= lines and column >= 1 for line, column, _, _ in found)
