"""Look-ups and conditions: what they find, and what is said when they are wrong or find nothing."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import LookupFailed
from runner.expressions import (
    Condition,
    Lookup,
    Raw,
    encode,
    fill,
    find,
    holds,
    lookups,
    parse,
    parse_condition,
    sole,
)

SCOPE: dict[str, Any] = {
    "params": {"day": "monday", "limit": 3, "fast": True, "nothing": None, "odd key": "odd"},
    "steps": {
        "a": {"output": {"files": ["x", "y", {"name": "z"}], "count": 12, "ratio": 0.5}, "status": "succeeded"},
        "list-shards": {"outputs": [1, None, "t"]},
    },
    "item": {"name": "n"},
    "run": {"id": 7},
}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        (5, 5),
        (None, None),
        ("${{ params.limit }}", 3),
        ("${{params.limit}}", 3),
        ("${{ params.nothing }}", None),
        ("${{ steps.a.output.files }}", ["x", "y", {"name": "z"}]),
        ("${{ steps.a.output.files[0] }}", "x"),
        ("${{ steps.a.output.files[-1].name }}", "z"),
        ("${{ steps.list-shards.outputs[2] }}", "t"),
        ('${{ params["odd key"] }}', "odd"),
        ("${{ params['odd key'] }}", "odd"),
        (" ${{ params.limit }}", " 3"),
        ("${{ params.day }}-${{ params.limit }}-${{ params.fast }}.csv", "monday-3-true.csv"),
        ("$${{ params.day }} costs $5", "${{ params.day }} costs $5"),
        ("$${{${{ run.id }}}}", "${{7}}"),
        ("${{ steps.a.output.ratio }}!", "0.5!"),
        ({"a": ["${{ run.id }}", {"b": "${{ item }}"}], "${{": 1}, {"a": [7, {"b": {"name": "n"}}], "${{": 1}),
        (("${{ run.id }}",), [7]),
    ],
)
def test_fill(value: Any, expected: Any) -> None:
    assert fill(value, SCOPE, "with") == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("${{ parms.day }}", "with: ${{ parms.day }}: the run has no 'parms'; did you mean 'params'?"),
        ("${{ params.dya }}", "with: ${{ params.dya }}: params has no 'dya'; did you mean 'day'?"),
        ("${{ steps.zzz }}", "with: ${{ steps.zzz }}: steps has no 'zzz'; it has a, list-shards"),
        ({"p": ["${{ run.job }}"]}, "with.p[0]: ${{ run.job }}: run has no 'job'; it has id"),
        ("${{ steps.a.output.files[3] }}", "with: ${{ steps.a.output.files[3] }}: steps.a.output.files has 3 items, "),
        ("${{ steps.a.output.files[-4] }}", "and none at [-4]"),
        ("${{ steps.a.output.files.x }}", "steps.a.output.files is a list and has no 'x'"),
        ("${{ params.day[0] }}", "params.day is a string and has no [0]"),
        ('${{ params["odd key"].x }}', "params[\"odd key\"] is a string and has no 'x'"),
        ("${{ params.nothing.x }}", "params.nothing is null and has no 'x'"),
        ("a ${{ item }}", "with: ${{ item }} stands in text, where a string, number or boolean can, and is a mapping"),
        ("a ${{ params.nothing }}", "and is null"),
        ("${{ params.fast[0] }}", "params.fast is a boolean and has no [0]"),
    ],
)
def test_what_finds_nothing(value: Any, message: str) -> None:
    with pytest.raises(LookupFailed) as caught:
        fill(value, SCOPE, "with")
    assert message in str(caught.value)


def test_nothing_to_find() -> None:
    with pytest.raises(LookupFailed, match="a has no 'b'; it has nothing"):
        find(Lookup("a.b", ("a", "b")), {"a": {}}, "if")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${{ a", "`${{` without `}}`; `$${{` is a literal `${{`"),
        ("${{ }}", "`${{  }}` is no look-up: it is empty"),
        ("${{ a b }}", "expected a path such as steps.NAME.output.files[0], stuck at ' b'"),
        ("${{ a. }}", "stuck at '.'"),
        ("${{ a[x] }}", "stuck at '[x]'"),
        ("${{ [0] }}", "stuck at '[0]'"),
        ("${{ a + 1 }}", "stuck at ' + 1'"),
        ("${{ a == 1 }}", "a comparison has its braces around the look-ups only, and stands in `if`"),
        ("${{ always() }}", "write always() without the braces, as the whole `if`"),
        ("${{ a | upper }}", "stuck at ' | upper'"),
    ],
)
def test_what_is_no_lookup(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(text)


def test_sole_and_lookups() -> None:
    assert sole("${{ a.b[0] }}") == Lookup("a.b[0]", ("a", "b", 0))
    assert sole("x${{ a }}") is sole("a") is sole("") is sole(3) is sole(["${{ a }}"]) is None
    assert [one.text for one in lookups({"k": ["${{ a }} ${{ b }}", 3], "l": "${{ c }}"})] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${{ steps.a.output.count }} > 10", True),
        ("${{ steps.a.output.count }}>=12", True),
        ("${{ steps.a.output.count }} < 12.0", False),
        ("${{ steps.a.output.count }} == 12.0", True),
        ("1 <= ${{ params.limit }}", True),
        ("${{ params.limit }} != 3", False),
        ("${{ params.fast }} == true", True),
        ("${{ params.fast }} == 1", False),
        ("${{ params.limit }} == '3'", False),
        ("${{ params.fast }}", True),
        ("false", False),
        ("${{ params.nothing }} == null", True),
        ("${{ params.day }} == 'monday'", True),
        ('${{ params.day }} == "mond\\u0061y"', True),
        ("${{ params.day }} < 'tuesday'", True),
        ("${{ params.day }} in ['monday', \"friday\"]", True),
        ("${{ params.day }} not  in ['monday', 3 ]", False),
        ("${{ params.limit }} in []", False),
        ("${{ params.limit }} in [1, ${{ params.limit }}]", True),
        ("'x' in ${{ steps.a.output.files }}", True),
        ("'z' in ${{ steps.a.output.files }}", False),
        ("${{ steps.a.status }} != 'failed'", True),
    ],
)
def test_comparisons(text: str, expected: bool) -> None:
    assert holds(parse_condition(text), SCOPE, "if") is expected


@pytest.mark.parametrize("name", ["success", "failure", "always"])
def test_functions(name: str) -> None:
    assert parse_condition(f" {name}( ) ") == Condition(name)
    assert list(parse_condition(f"{name}()").lookups()) == []


def test_the_lookups_of_a_condition() -> None:
    found = parse_condition("${{ params.a }} in [1, ${{ steps.b.status }}]").lookups()
    assert [one.text for one in found] == ["params.a", "steps.b.status"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a look-up, a number, a quoted text, true, false, null or a list at the end; write `${{"),
        ("always", "null or a list at 'always'"),
        ("alwys()", "no function alwys(); did you mean always()?"),
        ("sqrt()", "no function sqrt(); there are success(), failure(), always()"),
        ("${{ a }} = 1", "expected ==, !=, <, <=, >, >=, in or not in at '= 1'"),
        ("${{ a }} and ${{ b }}", "expected ==, !=, <, <=, >, >=, in or not in at 'and ${{ b }}'"),
        ("${{ a }} > 1 and always()", "'and always()' is too much; an `if` is one comparison"),
        ("${{ a }} >", "a list at the end"),
        ("a > 1", "at 'a > 1'"),
        ("'open", 'at "\'open"'),
        ('"\\x"', "is no text as JSON has it"),
        ("1 in [1 2]", "expected `,` or `]` in a list at '2]'"),
        ("1 in [", "at the end"),
        ("1 in [[1]]", "at '[1]]'"),
        ("${{ a", "`${{` without `}}`"),
        ("trueish", "at 'trueish'"),
    ],
)
def test_what_is_no_condition(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_condition(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${{ params.limit }}", "if: an `if` without a comparison needs true or false, got a number"),
        ("${{ params.day }} > 3", "if: a string and a number have no order; compare numbers or strings"),
        ("${{ params.fast }} > false", "a boolean and a boolean have no order"),
        ("${{ item }} == 3", "if: a mapping cannot be compared; compare a part of it"),
        ("3 in 'three'", "if: `in` needs a list on its right, got a string"),
        ("[1] == 1", "a list cannot be compared"),
        ("${{ params.x }} == 3", "if: ${{ params.x }}: params has no 'x'"),
    ],
)
def test_what_cannot_be_decided(text: str, message: str) -> None:
    with pytest.raises(LookupFailed) as caught:
        holds(parse_condition(text), SCOPE, "if")
    assert message in str(caught.value)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(values)
def test_a_value_without_braces_stays_as_it_is(value: Any) -> None:
    if "${{" not in json.dumps(value):
        assert fill(value, {}, "") == value


@given(values)
def test_any_value_can_be_found(value: Any) -> None:
    assert fill({"k": "${{ x[0] }}"}, {"x": [value]}, "") == {"k": value}


@given(st.text(alphabet="${}[]().'\" ab1<>=,in"))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for attempt in (parse, parse_condition):
        try:
            attempt(text)
        except ValueError as error:
            assert str(error)  # noqa: PT017 - both ways are fine


# Raw JSON


RAW = {"o": Raw(b' {"n": 1.0, "l": [1, {"x": "\xc3\xbc"}]} ', "steps.a.output"), "bad": Raw(b"hello", "steps.b.output")}


def test_raw_json_is_passed_on_as_it_is() -> None:
    assert encode(fill("${{ o }}", RAW, "with")) == b'{"n": 1.0, "l": [1, {"x": "\xc3\xbc"}]}'
    filled = fill({"a": ["${{ o }}", 2], "ü": "${{ o.l }}"}, RAW, "with")
    assert encode(filled) == '{"a":[{"n": 1.0, "l": [1, {"x": "ü"}]},2],"ü":[1,{"x":"ü"}]}'.encode()
    assert json.loads(encode(filled))["a"][0] == RAW["o"].value()


def test_raw_json_is_parsed_where_something_in_it_is_meant() -> None:
    assert fill("${{ o.l[1].x }}/${{ o.n }}", RAW, "with") == "ü/1.0"
    assert holds(parse_condition("${{ o.n }} == 1"), RAW, "if")
    assert holds(parse_condition("${{ bad }} == 1"), {"bad": Raw(b"1", "x")}, "if")
    assert find(Lookup("o", ("o",)), RAW, "with") is RAW["o"]


@pytest.mark.parametrize("text", [b"hello", b"", b"NaN", b"\xff", b"[1", b"1 2", b"[" * 100_000])
def test_what_is_no_json(text: bytes) -> None:
    raw = Raw(text, "steps.b.output")
    for attempt in (raw.value, lambda: encode({"a": raw}), lambda: fill("${{ r.x }}", {"r": raw}, "with")):
        with pytest.raises(LookupFailed, match=r"steps\.b\.output is no JSON"):
            attempt()


def test_what_json_cannot_say() -> None:
    assert encode({"a": "\ud800"}) == b'{"a":"\\ud800"}'
    with pytest.raises(LookupFailed, match="cannot be written as JSON"):
        encode(Raw(b"[1e999]", "x").value())


@given(values)
def test_encoding_with_and_without_raw_is_the_same(value: Any) -> None:
    text = encode(value)
    assert json.loads(text) == value
    assert encode({"k": [value, Raw(text, "x")]}) == b'{"k":[%s,%s]}' % (text, text)
