"""How two outputs differ, as it is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import differences
from runner.differences import beginning, json_values, text_or_bytes, visible

NUMBERED = [f"line {number}\n" for number in range(1, 101)]


def told(expected: str, got: str) -> list[str]:
    return text_or_bytes(expected.encode(), got.encode())


@pytest.mark.parametrize(
    ("expected", "got", "lines"),
    [
        (
            "Hello, Ada!",
            "Hello, Ada!\n",
            [
                "expected 1 line (-), got 1 line (+)",
                "- 1 | Hello, Ada! (no line break at the end)",
                "+ 1 | Hello, Ada!",
            ],
        ),
        (
            "Hello, Ada!\n",
            "Hello, Ida!\n",
            ["expected 1 line (-), got 1 line (+)", "- 1 | Hello, Ada!", "+ 1 | Hello, Ida!", "    |        ^"],
        ),
        (
            "a\nb\nc\n",
            "a\nc\n",
            ["expected 3 lines (-), got 2 lines (+)", "  1 | a", "- 2 | b", "  3 | c"],
        ),
        (
            "a\nc\n",
            "a\nb\nc\n",
            ["expected 2 lines (-), got 3 lines (+)", "  1 | a", "+ 2 | b", "  2 | c"],
        ),
        ("", "a\nb", ["expected nothing, got 2 lines", "+ 1 | a", "+ 2 | b (no line break at the end)"]),
        ("a\n", "", ["expected 1 line, got nothing", "- 1 | a"]),
        ("\n", "\r\n", ["expected 1 line (-), got 1 line (+)", "- 1 |", "+ 1 | ␍"]),
        ("a \n", "a\n", ["expected 1 line (-), got 1 line (+)", "- 1 | a·", "+ 1 | a", "    |  ^"]),
        ("a\tb\n", "a b\n", ["expected 1 line (-), got 1 line (+)", "- 1 | a⇥b", "+ 1 | a b", "    |  ^"]),
        (
            "a\u00a0b\n",
            "a b\n",
            ["expected 1 line (-), got 1 line (+)", "- 1 | a<U+00A0>b", "+ 1 | a b", "    |  ^"],
        ),
        (  # they look the same
            "é\n",
            "e\u0301\n",
            ["expected 1 line (-), got 1 line (+)", "- 1 | <U+00E9>", "+ 1 | e<U+0301>", "    | ^^^^^^^^"],
        ),
    ],
)
def test_texts(expected: str, got: str, lines: list[str]) -> None:
    assert told(expected, got) == lines


def test_only_what_stands_near_a_difference_is_shown() -> None:
    changed = [*NUMBERED]
    changed[49], changed[79] = "other\n", "others\n"
    assert told("".join(NUMBERED), "".join(changed)) == [
        "expected 100 lines (-), got 100 lines (+)",
        "   48 | line 48",
        "   49 | line 49",
        "-  50 | line 50",
        "+  50 | other",
        "   51 | line 51",
        "   52 | line 52",
        "  ...",
        "   78 | line 78",
        "   79 | line 79",
        "-  80 | line 80",
        "+  80 | others",
        "   81 | line 81",
        "   82 | line 82",
    ]


def test_a_long_line_is_shown_where_it_differs() -> None:
    first, second, third = told("x" * 5000 + "a" + "y" * 5000 + "\n", "x" * 5000 + "b" + "y" * 5000 + "\n")
    assert first == "expected 1 line (-), got 1 line (+)"
    assert second == f"- 1 | …{'x' * 60}a{'y' * 59}…"
    assert third == f"+ 1 | …{'x' * 60}b{'y' * 59}…"


def test_what_is_too_long_is_not_compared_to_its_end() -> None:
    before = "".join(f"{number}\n" for number in range(100_000))
    lines = told(before, before.replace("7\n", "", 1) + "more\n")
    assert lines == [
        "expected 100,000 lines (-), got 100,000 lines (+)",
        "       6 | 5",
        "       7 | 6",
        "-      8 | 7",
        "       9 | 8",
        "      10 | 9",
        "  ... what follows was not compared",
    ]


def test_a_difference_is_never_longer_than_a_screen_or_two() -> None:
    lines = told("a\n" * 3000, "b\nc\n" * 3000)
    assert len(lines) == differences.SHOWN_LINES + 2
    assert lines[-1] == "  ... and more"


@pytest.mark.parametrize(
    ("expected", "got", "lines"),
    [
        (
            bytes(range(40)),
            bytes(range(20)) + b"\xff" + bytes(range(21, 40)),
            [
                "expected 40 bytes (-), got 40 bytes (+); the first difference is at byte 20 (0x14)",
                "- 00000010 | 10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f | ................",
                "+ 00000010 | 10 11 12 13 ff 15 16 17 18 19 1a 1b 1c 1d 1e 1f | ................",
            ],
        ),
        (
            b"\xff" * 16,
            b"\xff" * 16 + b"abc",
            [
                "expected 16 bytes (-), got 19 bytes (+); the first difference is at byte 16 (0x10)",
                "- 00000010 | (its end)",
                "+ 00000010 | 61 62 63                                        | abc",
            ],
        ),
        (
            b"a\0",
            b"",
            [
                "expected 2 bytes (-), got 0 bytes (+); the first difference is at byte 0 (0x0)",
                "- 00000000 | 61 00                                           | a.",
                "+ 00000000 | (its end)",
            ],
        ),
    ],
)
def test_bytes(expected: bytes, got: bytes, lines: list[str]) -> None:
    assert text_or_bytes(expected, got) == lines


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_the_first_different_byte_is_found(left: bytes, right: bytes) -> None:
    left, right = b"\xff" + left, b"\xff" + right
    lines = text_or_bytes(left, right)
    assert bool(lines) == (left != right)
    if lines:
        place = next(
            (at for at, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right))
        )
        assert f"at byte {place} (" in lines[0]


@given(st.text(alphabet="ab \n\t\r", max_size=30), st.text(alphabet="ab \n\t\r", max_size=30))
def test_texts_that_differ_are_never_told_to_be_the_same(left: str, right: str) -> None:
    lines = told(left, right)
    assert bool(lines) == (left != right)
    if lines:
        signs = {sign: [line[1:] for line in lines if line[0] == sign] for sign in "-+"}
        assert signs["-"] != signs["+"]


@given(st.text())
def test_nothing_is_invisible(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert not shown.endswith(" ")


@pytest.mark.parametrize(
    ("expected", "got", "lines"),
    [
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, []),
        (1, True, ["the value: expected 1, got true"]),
        (0, False, ["the value: expected 0, got false"]),
        (None, 0, ["the value: expected null, got 0"]),
        ("1", 1, ['the value: expected "1", got 1']),
        ([1], [1, 2], ["the list: expected 1 items, got 2", "[1]: expected nothing, got 2"]),
        (
            {"items": [{"price": 3}, {"price": 4}]},
            {"items": [{"price": 3}, {"price": 5}]},
            ["items[1].price: expected 4, got 5"],
        ),
        (
            {"a b": {"c": 1}, "d": 1},
            {"a b": {}, "e": [1, 2]},
            ['["a b"].c: expected 1, got nothing', "d: expected 1, got nothing", "e: expected nothing, got [1, 2]"],
        ),
        ({}, {"a": list(range(10))}, ["a: expected nothing, got a list of 10"]),
        ("a\u200b", "a", ['the value: expected "a<U+200B>", got "a"']),
    ],
)
def test_json(expected: Any, got: Any, lines: list[str]) -> None:
    assert json_values(expected, got) == lines


def test_many_differences_in_json_are_counted() -> None:
    lines = json_values({str(number): number for number in range(100)}, {})
    assert len(lines) == differences.SHOWN_PATHS + 1
    assert lines[-1] == "... and 80 more"


def test_json_of_any_depth() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert json_values([1], deep) == ["[0]: expected 1, got a value of very many levels"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(_JSON, _JSON)
def test_json_differs_if_and_only_if_something_is_told(left: Any, right: Any) -> None:
    assert json_values(left, json.loads(json.dumps(left))) == []
    if json.dumps(left, sort_keys=True) != json.dumps(right, sort_keys=True) and left != right:
        assert json_values(left, right)


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", ["it is empty"]),
        (b"a\nb", ["+ 1 | a", "+ 2 | b (no line break at the end)"]),
        (b"\n" * 100, [*(f"+ {number:>2} |" for number in range(1, 11)), "  ... and more"]),
        (b"\xff", ["+ 00000000 | ff                                              | ."]),
    ],
)
def test_how_an_output_begins(data: bytes, lines: list[str]) -> None:
    assert beginning(data) == lines
