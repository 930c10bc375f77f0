"""`${{ ... }}` in jobs.yaml: look-ups inside any value, and the condition in a step's `if`.

A look-up is a dotted path with indexes into what a run knows, and nothing more: no arithmetic, no
calls. Pure: what there is to look up is an argument. Written wrongly it is a ValueError with the
reason, which the loader shows with its place; finding nothing is a LookupFailed.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, NamedTuple

from runner.errors import LookupFailed

FUNCTIONS = ("success", "failure", "always")
"""What can stand as `NAME()` in a condition."""
SHOWN = 12
"""How many known names a message lists."""

_OPEN = re.compile(r"\$?\$\{\{")
_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_PART = re.compile(r"""\.([A-Za-z_][A-Za-z0-9_-]*)|\[(-?[0-9]{1,9})\]|\["([^"\]]*)"\]|\['([^'\]]*)'\]""")
_FUNCTION = re.compile(r"\s*([A-Za-z_]+)\s*\(\s*\)\s*")
_OPERATOR = re.compile(r"\s*(==|!=|<=|>=|<|>|not\s+in\b|in\b)\s*")
_LITERAL = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|\"(?:[^\"\\]|\\.)*\"|true\b|false\b|null\b")
_COMPARED: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Lookup(NamedTuple):
    """One look-up."""

    text: str
    """As it was written between the braces."""
    path: tuple[str | int, ...]
    """Keys of mappings and indexes of lists; the first is one of the scope's names."""


class Condition(NamedTuple):
    """What an `if` says: a function, or else a comparison, or else a value that is true or false."""

    function: str
    """One of FUNCTIONS; empty for the others."""
    left: Any = None
    """A Lookup, or a value."""
    operator: str = ""
    """Empty: `left` alone decides."""
    right: Any = None

    def lookups(self) -> Iterator[Lookup]:
        """Every look-up in it."""
        for side in (self.left, self.right):
            yield from (one for one in (side if isinstance(side, list) else [side]) if isinstance(one, Lookup))


class Raw:
    """A value that is JSON text, parsed when a look-up goes into it and else passed on as it is."""

    __slots__ = ("_value", "place", "text")

    def __init__(self, text: bytes, place: str) -> None:
        """`place` names it in messages."""
        self.text, self.place = text, place
        self._value: tuple[Any] | None = None

    def value(self) -> Any:
        """The value. Raises LookupFailed when it is no JSON."""
        if self._value is None:
            try:
                self._value = (json.loads(self.text, parse_constant=_refuse_constant),)
            except (ValueError, RecursionError) as error:
                begin = (
                    f"; it begins with {self.text[:40].decode(errors='replace')!r}" if self.text else ", it is empty"
                )
                raise LookupFailed(f"{self.place} is no JSON ({error or 'nested too deeply'}){begin}") from error
        return self._value[0]


Part = str | Lookup


@lru_cache(maxsize=4096)
def parse(text: str) -> tuple[Part, ...]:
    """The pieces of a text, look-ups and what stands between them; `$${{` is a literal `${{`.
    Raises ValueError."""
    parts: list[Part] = []
    plain, place = "", 0
    while opening := _OPEN.search(text, place):
        plain += text[place : opening.start()]
        place = opening.end()
        if opening[0].startswith("$$"):
            plain += "${{"
            continue
        if plain:
            parts.append(plain)
            plain = ""
        found, place = _lookup(text, place)
        parts.append(found)
    plain += text[place:]
    return (*parts, plain) if plain else tuple(parts)


def sole(value: Any) -> Lookup | None:
    """The look-up that a value is, with nothing around it. Raises ValueError."""
    parts = parse(value) if isinstance(value, str) else ()
    return parts[0] if len(parts) == 1 and isinstance(parts[0], Lookup) else None


def lookups(value: Any) -> Iterator[Lookup]:
    """Every look-up in a JSON value, in order. Raises ValueError."""
    if isinstance(value, str):
        yield from (part for part in parse(value) if isinstance(part, Lookup))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from lookups(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from lookups(item)


def fill(value: Any, scope: Mapping[str, Any], where: str) -> Any:
    """The JSON value with its look-ups replaced. A text that is one look-up becomes what it finds; one
    that stands in other text has to find a string, number or boolean.

    `where` is the value's place, for messages. Raises LookupFailed.
    """
    if isinstance(value, str):
        parts = parse(value)
        if len(parts) == 1 and isinstance(parts[0], Lookup):
            return find(parts[0], scope, where)
        return "".join(part if isinstance(part, str) else _text(part, scope, where) for part in parts)
    if isinstance(value, Mapping):
        return {name: fill(item, scope, f"{where}.{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [fill(item, scope, f"{where}[{index}]") for index, item in enumerate(value)]
    return value


def find(lookup: Lookup, scope: Mapping[str, Any], where: str) -> Any:
    """What a look-up finds; what is Raw and meant as a whole stays Raw. Raises LookupFailed."""
    found: Any = scope
    try:
        for depth, key in enumerate(lookup.path):
            found = plain(found)
            reason = _missing(found, key, _shown(lookup.path[:depth]))
            if reason:
                raise LookupFailed(reason)
            found = found[key]
    except LookupFailed as error:
        raise LookupFailed(f"{where}: ${{{{ {lookup.text} }}}}: {error}") from None
    return found


def plain(value: Any) -> Any:
    """The value, parsed if it is Raw. Raises LookupFailed."""
    return value.value() if isinstance(value, Raw) else value


def encode(value: Any) -> bytes:
    """A JSON value, in which anything may be Raw, as compact JSON. Raises LookupFailed for what is none."""
    if isinstance(value, Raw):
        value.value()
        return value.text.strip()
    try:
        return _dump(value)
    except TypeError:  # there is Raw in it
        if isinstance(value, Mapping):
            return b"{%s}" % b",".join(b"%s:%s" % (_dump(name), encode(item)) for name, item in value.items())
        return b"[%s]" % b",".join(map(encode, value))


@lru_cache(maxsize=4096)
def parse_condition(text: str) -> Condition:
    """What an `if` says. Raises ValueError."""
    function = _FUNCTION.fullmatch(text)
    if function:
        if function[1] not in FUNCTIONS:
            near = get_close_matches(function[1], FUNCTIONS, 1)
            hint = f"did you mean {near[0]}()?" if near else f"there are {', '.join(f'{name}()' for name in FUNCTIONS)}"
            raise ValueError(f"no function {function[1]}(); {hint}")
        return Condition(function[1])
    left, place = _operand(text, 0)
    if not text[place:].strip():
        return Condition("", left)
    sign = _OPERATOR.match(text, place)
    if sign is None:
        raise ValueError(f"expected ==, !=, <, <=, >, >=, in or not in at {text[place:].strip()!r}; {_FORMS}")
    right, place = _operand(text, sign.end())
    if text[place:].strip():
        raise ValueError(f"{text[place:].strip()!r} is too much; an `if` is one comparison")
    return Condition("", left, " ".join(sign[1].split()), right)


def holds(condition: Condition, scope: Mapping[str, Any], where: str) -> bool:
    """Whether a comparison holds; a function is the caller's to decide. Raises LookupFailed, also for
    values that cannot be compared."""
    left = _value(condition.left, scope, where)
    if not condition.operator:
        if not isinstance(left, bool):
            raise LookupFailed(f"{where}: an `if` without a comparison needs true or false, got {kind(left)}")
        return left
    right = _value(condition.right, scope, where)
    if condition.operator in ("in", "not in"):
        if not isinstance(right, list):
            raise LookupFailed(f"{where}: `{condition.operator}` needs a list on its right, got {kind(right)}")
        return any(_same(left, item) for item in right) == (condition.operator == "in")
    for side in (left, right):
        if isinstance(side, list | Mapping):
            raise LookupFailed(f"{where}: {kind(side)} cannot be compared; compare a part of it")
    if condition.operator in ("==", "!="):
        return _same(left, right) == (condition.operator == "==")
    if kind(left) != kind(right) or kind(left) not in ("a number", "a string"):
        raise LookupFailed(f"{where}: {kind(left)} and {kind(right)} have no order; compare numbers or strings")
    return _COMPARED[condition.operator](left, right)


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "null"
    for types, words in (((bool,), "a boolean"), ((int, float), "a number"), ((str,), "a string")):
        if isinstance(value, types):
            return words
    return "a mapping" if isinstance(value, Mapping) else "a list"


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _dump(value: Any) -> bytes:
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can write
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise LookupFailed(f"a value cannot be written as JSON: {error}") from error


_FORMS = "write `${{ steps.NAME.output.count }} > 10`, success(), failure() or always()"


def _lookup(text: str, place: int) -> tuple[Lookup, int]:
    """The look-up whose braces were opened just before `place`, and the place behind it."""
    end = text.find("}}", place)
    if end < 0:
        raise ValueError("`${{` without `}}`; `$${{` is a literal `${{`")
    written = text[place:end].strip()
    root = _PATH.match(written)
    path: list[str | int] = [root[0]] if root else []
    at = root.end() if root else 0
    while root and (part := _PART.match(written, at)):
        name, index, *quoted = part.groups()
        path.append(int(index) if index is not None else next(one for one in (name, *quoted) if one is not None))
        at = part.end()
    if not path or at < len(written):
        raise ValueError(f"`${{{{ {written} }}}}` is no look-up: {_why_none(written, at)}")
    return Lookup(written, tuple(path)), end + 2


def _why_none(written: str, at: int) -> str:
    if not written:
        return "it is empty"
    if _FUNCTION.fullmatch(written):
        return f"write {written} without the braces, as the whole `if`"
    if re.search(r"[=<>!]|\bin\b", written[at:]):
        return "a comparison has its braces around the look-ups only, and stands in `if`"
    return f"expected a path such as steps.NAME.output.files[0], stuck at {written[at:][:40]!r}"


def _operand(text: str, place: int) -> tuple[Any, int]:
    """A look-up, a literal or a list of them, and the place behind it."""
    place = _next(text, place)
    if not text.startswith("[", place):
        return _item(text, place)
    items: list[Any] = []
    place = _next(text, place + 1)
    while not text.startswith("]", place):
        if items:
            if not text.startswith(",", place):
                raise ValueError(f"expected `,` or `]` in a list at {text[place:][:40]!r}")
            place = _next(text, place + 1)
        item, place = _item(text, place)
        items.append(item)
        place = _next(text, place)
    return items, place + 1


def _next(text: str, place: int) -> int:
    """The place of the next character that is no space."""
    return len(text) - len(text[place:].lstrip())


def _item(text: str, place: int) -> tuple[Any, int]:
    if text.startswith("${{", place):
        return _lookup(text, place + 3)
    if text.startswith("'", place) and "'" in text[place + 1 :]:
        end = text.index("'", place + 1)
        return text[place + 1 : end], end + 1
    literal = _LITERAL.match(text, place)
    if literal is None:
        got = f"at {text[place:][:40]!r}" if text[place:] else "at the end"
        raise ValueError(f"expected a look-up, a number, a quoted text, true, false, null or a list {got}; {_FORMS}")
    try:
        return json.loads(literal[0]), literal.end()
    except ValueError as error:
        raise ValueError(f"{literal[0][:40]} is no text as JSON has it: {error}") from error


def _value(operand: Any, scope: Mapping[str, Any], where: str) -> Any:
    if isinstance(operand, Lookup):
        return plain(find(operand, scope, where))
    return [_value(item, scope, where) for item in operand] if isinstance(operand, list) else operand


def _same(left: Any, right: Any) -> bool:
    """Equal as JSON has it: true is not 1, and 1 is 1.0. No list or mapping is the same as another."""
    return kind(left) == kind(right) and not isinstance(left, list | Mapping) and bool(left == right)


def _text(lookup: Lookup, scope: Mapping[str, Any], where: str) -> str:
    found = plain(find(lookup, scope, where))
    if isinstance(found, str):
        return found
    if isinstance(found, bool | int | float):
        return json.dumps(found)
    raise LookupFailed(
        f"{where}: ${{{{ {lookup.text} }}}} stands in text, where a string, number or boolean can, and is {kind(found)}"
    )


def _missing(found: Any, key: str | int, place: str) -> str:
    """Why a key is not in what was found so far; empty if it is."""
    if isinstance(key, int):
        if not isinstance(found, list):
            return f"{place} is {kind(found)} and has no [{key}]"
        return "" if -len(found) <= key < len(found) else f"{place} has {len(found)} items, and none at [{key}]"
    if not isinstance(found, Mapping):
        return f"{place} is {kind(found)} and has no {key!r}"
    if key in found:
        return ""
    known = [str(name) for name in found]
    near = get_close_matches(key, known[:1000], 1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(sorted(known)[:SHOWN]) or 'nothing'}"
    return f"{place or 'the run'} has no {key!r}{hint}"


def _shown(path: tuple[str | int, ...]) -> str:
    """A path as it would be written."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        elif _PATH.fullmatch(key):
            text += f".{key}" if text else key
        else:
            text += f"[{json.dumps(key)}]"
    return text
