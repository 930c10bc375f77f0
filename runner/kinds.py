"""What a value in jobs.yaml may be: the kinds, the rules on them, and the Reader that collects problems.

A Kind reads one node strictly: nothing is coerced ('3' is no integer, true is none either). Mappings
with declared keys are in runner.schema, which also finds the kind for an annotation.
"""

from __future__ import annotations

import difflib
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from runner.errors import Problem
from runner.yamlnodes import Entries, Items, Node, Scalar, join, resolve, shorten

MAX_PROBLEMS = 10_000
"""How many problems of one file are collected."""


class TooManyProblemsError(Exception):
    """A file has so many problems that looking for more helps nobody; never leaves `load`."""


class _Invalid(Enum):
    INVALID = 0


INVALID: Any = _Invalid.INVALID
"""What reading a node gives after its problem was reported."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a value must satisfy beyond its type: a field's metadata, or a mark in Annotated.

    On a list or mapping it holds for the items or values, on a union for every alternative that it
    can be applied to.
    """

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    """The number must be greater than this."""
    pattern: str | None = None
    """A regular expression that the whole string must match."""
    expected: str | None = None
    """Words for messages and documents, in place of those made from the type and this rule."""
    hidden: bool = False
    """Never show the value: it may be a secret."""
    skip_x: bool = False
    """Of a mapping's keys: those that begin with `x-` are ignored."""

    def allows(self, value: Any) -> bool:
        """Whether the value satisfies the rule."""
        if isinstance(value, str):
            return self.pattern is None or re.fullmatch(self.pattern, value) is not None
        if not isinstance(value, int | float):
            return True
        return not (
            (self.minimum is not None and value < self.minimum)
            or (self.maximum is not None and value > self.maximum)
            or (self.above is not None and value <= self.above)
        )

    def span(self) -> str:
        """The bounds in words, a space before them; empty without any."""
        if self.minimum is not None and self.maximum is not None:
            return f" from {self.minimum} to {self.maximum}"
        bounds = ((">", self.above), (">=", self.minimum), ("<=", self.maximum))
        words = " and ".join(f"{sign} {bound}" for sign, bound in bounds if bound is not None)
        return f" {words}" if words else ""


PLAIN = Rule()
"""The rule that allows everything."""


class Reader:
    """Reads the nodes of one file and collects their problems.

    `customs` holds the functions that read what `Annotated[..., Custom(name, ...)]` marks.
    """

    def __init__(self, file: str, customs: Mapping[str, Callable[[Node, str], Any]] | None = None) -> None:
        self.file = file
        self.customs = customs or {}
        self.problems: list[Problem] = []
        self._guesses = 200_000

    def report(self, at: Node, where: str, message: str) -> Any:
        """Note a problem at a node; returns INVALID."""
        self.report_at(at.line, at.column, where, message)
        return INVALID

    def report_at(self, line: int, column: int, where: str, message: str) -> None:
        """Note a problem at a place counted from 1; 0 and 0 is the file as a whole.
        Raises TooManyProblemsError after MAX_PROBLEMS."""
        self.problems.append(Problem(file=self.file, line=line, column=column, where=where, message=message))
        if len(self.problems) > MAX_PROBLEMS:
            raise TooManyProblemsError

    def mismatch(self, at: Node, where: str, expected: str, *, hint: str = "", hidden: bool = False) -> Any:
        """Note that something else was expected at a node; returns INVALID."""
        got = "a value that is not shown here" if hidden else show(at)
        if isinstance(at, Scalar) and at.value is None:
            hint = "; leave the key out if nothing is meant"
        return self.report(at, where, f"expected {expected}, got {got}{hint}")

    def guess(self, name: object, known: Iterable[str], called: Mapping[str, str] | None = None) -> str:
        """`; did you mean ...?`, else the known names if they are few, else nothing.

        `called` maps other words that people use for a name. The work is bounded over the whole
        file, so that one of a hundred thousand wrong names is reported as fast as another.
        """
        names = list(known)
        text = str(name)[:64]
        if called and text in called:
            return f"; did you mean {called[text]!r}?"
        self._guesses -= len(names)
        close = difflib.get_close_matches(text, names, 1) if self._guesses > 0 else []
        if close:
            return f"; did you mean {close[0]!r}?"
        return f"; known: {', '.join(sorted(names))}" if 0 < len(names) <= 24 else ""

    def finish(self) -> tuple[Problem, ...]:
        """Every problem once, in the order of the file. What an alias repeats is one problem."""
        unique: dict[tuple[int, int, str], Problem] = {}
        for problem in self.problems:
            unique.setdefault((problem.line, problem.column, problem.message), problem)
        return tuple(sorted(unique.values(), key=lambda problem: (problem.line, problem.column)))


def show(node: Node) -> str:
    """A node in a message."""
    if not isinstance(node, Scalar):
        return "a list" if isinstance(node, Items) else "a mapping"
    if node.value is None:
        return "nothing"
    return str(node.value).lower() if isinstance(node.value, bool) else shorten(node.value)


class Kind(ABC):
    """What a field takes."""

    expected: str
    """In words, with an article: `an integer >= 0`."""

    @abstractmethod
    def fits(self, node: Node, /) -> bool:
        """Whether the node has this kind's shape; its value may still be refused."""

    @abstractmethod
    def read(self, reader: Reader, node: Node, where: str) -> Any:
        """The value, or INVALID after reporting why not."""


class ScalarKind(Kind):
    """Null, or the base of the kinds below: one of `python_types`, exactly."""

    python_types: tuple[type, ...] = (type(None),)
    words = "nothing"

    def __init__(self, rule: Rule = PLAIN) -> None:
        self.rule = rule
        self.expected = rule.expected or self.words + rule.span()

    def fits(self, node: Node, /) -> bool:
        return isinstance(node, Scalar) and type(node.value) in self.python_types

    def read(self, reader: Reader, node: Node, where: str) -> Any:
        hint = ""
        if isinstance(node, Scalar):
            try:
                if type(node.value) in self.python_types:
                    value = self.convert(node.value)
                    if self.rule is PLAIN or self.rule.allows(value):
                        return value
                else:
                    hint = self.hint(node.value)
            except (ValueError, OverflowError):
                pass  # reported like any other mismatch
        return reader.mismatch(node, where, self.expected, hint=hint, hidden=self.rule.hidden)

    def convert(self, value: Any) -> Any:
        """The value as the field holds it. Raises ValueError or OverflowError for one that cannot be."""
        return value

    def hint(self, value: Any) -> str:
        """How to write what was probably meant by a value of another type."""
        if isinstance(value, str):
            return "; remove the quotes" if type(resolve(value[:99])) in self.python_types else ""
        return ""


class TextKind(ScalarKind):
    """A string that can be written as UTF-8."""

    python_types = (str,)
    words = "a string"

    def convert(self, value: str) -> str:
        if not value.isascii():
            value.encode()  # a lone surrogate, written as an escape, is a ValueError
        return value

    def hint(self, value: Any) -> str:
        return "" if value is None else "; put it in quotes"


class BooleanKind(ScalarKind):
    """true or false."""

    python_types = (bool,)
    words = "true or false"

    def hint(self, value: Any) -> str:
        if isinstance(value, str) and value.lower() in ("yes", "on", "y", "no", "off", "n"):
            return f"; write {'true' if value.lower() in ('yes', 'on', 'y') else 'false'}"
        return super().hint(value)


class IntegerKind(ScalarKind):
    """A whole number, written without a point."""

    python_types = (int,)
    words = "an integer"


class NumberKind(ScalarKind):
    """A finite number, always read as a float."""

    python_types = (int, float)
    words = "a number"

    def convert(self, value: float) -> float:
        if not math.isfinite(value):
            raise ValueError
        return float(value)


class PathKind(TextKind):
    """A path as written; what it is relative to, and whether it exists, is its reader's business."""

    words = "a path"

    def convert(self, value: str) -> Any:
        if not value or "\0" in value:
            raise ValueError
        return Path(super().convert(value))


class ChoiceKind(Kind):
    """One of a few values: a Literal, or an Enum by its members' values."""

    def __init__(self, choices: Mapping[str | int | bool | None, Any]) -> None:
        self.choices = [(key, type(key), value) for key, value in choices.items()]
        words = [str(key).lower() if isinstance(key, bool) else repr(key) for key in choices]
        self.expected = words[0] if len(words) == 1 else f"one of {', '.join(words)}"

    def fits(self, node: Node, /) -> bool:
        return isinstance(node, Scalar) and any(isinstance(node.value, kind) for _, kind, _ in self.choices)

    def read(self, reader: Reader, node: Node, where: str) -> Any:
        if not isinstance(node, Scalar):
            return reader.mismatch(node, where, self.expected)
        for key, kind, value in self.choices:
            if type(node.value) is kind and node.value == key:
                return value
        near = difflib.get_close_matches(str(node.value)[:64], [str(key) for key, _, _ in self.choices], 1)
        return reader.mismatch(node, where, self.expected, hint=f"; did you mean {near[0]!r}?" if near else "")


class ListKind(Kind):
    """A list, read as a tuple (or a list, if the annotation says so)."""

    expected = "a list"

    def __init__(self, item: Kind, container: Callable[[list[Any]], Any] = tuple) -> None:
        self.item, self.container = item, container

    def fits(self, node: Node, /) -> bool:
        return isinstance(node, Items)

    def read(self, reader: Reader, node: Node, where: str) -> Any:
        if not isinstance(node, Items):
            return reader.mismatch(node, where, self.expected)
        values = [self.item.read(reader, item, f"{where}[{index}]") for index, item in enumerate(node.items)]
        return self.container([value for value in values if value is not INVALID])


class MapKind(Kind):
    """A mapping whose keys are the user's, read as a dict in the order of the file."""

    expected = "a mapping"

    def __init__(self, key: ScalarKind, value: Kind) -> None:
        self.key, self.value = key, value

    def fits(self, node: Node, /) -> bool:
        return isinstance(node, Entries)

    def read(self, reader: Reader, node: Node, where: str) -> Any:
        if not isinstance(node, Entries):
            return reader.mismatch(node, where, self.expected)
        result = {}
        for key, value in node.entries:
            if self.key.rule.skip_x and is_x(key):
                continue
            place = join(where, key.value)
            name = self.key.read(reader, key, place)
            read = self.value.read(reader, value, place)
            if name is not INVALID and read is not INVALID:
                result[name] = read
        return result


class EitherKind(Kind):
    """One of several kinds, told apart by the node's shape; among equals the one with fewest problems."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self.kinds = tuple(kinds)
        named = [kind.expected for kind in kinds if type(kind) is not ScalarKind]
        self.expected = " or ".join(dict.fromkeys(named)) or ScalarKind.words

    def fits(self, node: Node, /) -> bool:
        return any(kind.fits(node) for kind in self.kinds)

    def read(self, reader: Reader, node: Node, where: str) -> Any:
        fitting = [kind for kind in self.kinds if kind.fits(node)]
        if not fitting:
            solid = [kind for kind in self.kinds if type(kind) is not ScalarKind]
            if len(solid) == 1:  # an Optional: its own hints are the best
                return solid[0].read(reader, node, where)
            return reader.mismatch(node, where, self.expected)
        tries = [self._try(reader, kind, node, where) for kind in fitting]
        value, problems = min(tries, key=lambda tried: len(tried[1]))
        reader.problems += problems
        return value

    @staticmethod
    def _try(reader: Reader, kind: Kind, node: Node, where: str) -> tuple[Any, list[Problem]]:
        before = len(reader.problems)
        value = kind.read(reader, node, where)
        problems = reader.problems[before:]
        del reader.problems[before:]
        return value, problems


class AnythingKind(Kind):
    """Any value that JSON can hold."""

    expected = "any value"

    def fits(self, _node: Node, /) -> bool:
        return True

    def read(self, reader: Reader, node: Node, where: str) -> Any:
        if isinstance(node, Items):
            items = [self.read(reader, item, f"{where}[{index}]") for index, item in enumerate(node.items)]
            return INVALID if INVALID in items else items
        if isinstance(node, Entries):
            entries = [self._entry(reader, key, value, join(where, key.value)) for key, value in node.entries]
            return INVALID if any(INVALID in entry for entry in entries) else dict(entries)
        assert isinstance(node, Scalar)
        if isinstance(node.value, float):
            return _JSON_NUMBER.read(reader, node, where)
        return _JSON_TEXT.read(reader, node, where) if isinstance(node.value, str) else node.value

    def _entry(self, reader: Reader, key: Scalar, value: Node, where: str) -> tuple[Any, Any]:
        return _JSON_KEY.read(reader, key, where), self.read(reader, value, where)


_JSON_TEXT = TextKind()
_JSON_KEY = TextKind(Rule(expected="a string as key, as JSON has it"))
_JSON_NUMBER = NumberKind(Rule(expected="a finite number, as JSON has it"))


class CustomKind(Kind):
    """Read by the Reader's own function of this name."""

    def __init__(self, name: str, expected: str) -> None:
        self.name, self.expected = name, expected

    def fits(self, _node: Node, /) -> bool:
        return True

    def read(self, reader: Reader, node: Node, where: str) -> Any:
        return reader.customs[self.name](node, where)


def is_x(key: Scalar) -> bool:
    """Whether a key is one of those that are ignored, room for anchors."""
    return isinstance(key.value, str) and key.value.startswith("x-")
