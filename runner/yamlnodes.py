"""YAML text to a tree of located nodes, by the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema).

PyYAML parses (with libyaml where it has it); what a plain scalar means is decided here, so that `on`,
`yes`, `12:30` and `2024-01-01` are strings. Anchors, aliases and `<<` work; duplicate keys, foreign
tags, deep nesting and aliases that multiply without end are problems. What a node is for is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import yaml
from yaml import events

MAX_BYTES = 10_000_000
"""The largest text that is read."""
MAX_DEPTH = 100
"""How deep lists and mappings may nest."""
MAX_ALIASED = 1_000_000
"""How many nodes all aliases together may stand for, 64 characters of text counting as one."""
MAX_DIGITS = 100
"""The longest number."""

_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
# Written as what may not stand there: the set of what may takes ten times as long to compile.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufeff\ufffe\uffff]")
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_KIND_OF_TAG: dict[str, tuple[type, ...]] = {
    "null": (type(None),),
    "bool": (bool,),
    "int": (int,),
    "float": (float, int),
    "str": (str,),
}

Report = Callable[[int, int, str, str], None]
"""Told of a problem: line, column (both from 1), dotted path, message."""


class _UnreadableError(Exception):
    """The rest of the text cannot be made sense of; the problem is already reported."""


@dataclass(slots=True, eq=False)
class Node:
    """A value and where it starts, counted from 1."""

    line: int
    column: int
    weight: int = field(init=False, default=1)
    """How many values it holds, itself included, with every alias spelt out."""
    height: int = field(init=False, default=0)
    """How many levels of lists and mappings it has."""


@dataclass(slots=True, eq=False)
class Scalar(Node):
    """A value without parts. `plain` tells that it was written without quotes."""

    value: bool | int | float | str | None
    plain: bool


@dataclass(slots=True, eq=False)
class Items(Node):
    """A list."""

    items: list[Node]


@dataclass(slots=True, eq=False)
class Entries(Node):
    """A mapping in the order of the text, keys distinct, `<<` done (what it brought comes first)."""

    entries: list[tuple[Scalar, Node]]

    def get(self, key: str) -> Node | None:
        """The value of a key, None without one."""
        return next((value for name, value in self.entries if name.value == key), None)


def join(where: str, key: object) -> str:
    """The dotted path of a key in the mapping at `where`."""
    text = str(key)
    if not text.replace("-", "_").isidentifier():
        text = f"[{shorten(key)}]"
        return where + text
    if len(text) > 64:
        text = text[:61] + "..."
    return f"{where}.{text}" if where else text


def shorten(value: object, limit: int = 60) -> str:
    """The value as Python writes it, cut to about `limit` characters."""
    text = repr(value[: limit + 1] if isinstance(value, str) else value)
    return text if len(text) <= limit + 2 else f"{text[: limit - 3]}...{text[-1] if isinstance(value, str) else ''}"


def resolve(text: str) -> bool | int | float | str | None:
    """What a plain scalar means. Raises ValueError for a number that is too long to be meant."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    is_integer = _INTEGER.fullmatch(text)
    if not is_integer and not _NUMBER.fullmatch(text):
        return text
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} characters; {MAX_DIGITS} is the most")
    if not is_integer:
        return _float(text)
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text, 10)


def _float(text: str) -> float:
    lowered = text.lower()
    return float(lowered.replace(".", "") if lowered[-1] in "fn" else lowered)


def decode(data: bytes, report: Report) -> str | None:
    """The text of a UTF-8 file, a byte order mark removed. None after reporting that it is none."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # With a byte order mark the codec counts from behind it.
        start = error.start + (len(data) - len(error.object))
        head = data[:start]
        column = len(head[head.rfind(b"\n") + 1 :].decode("utf-8-sig", "replace")) + 1
        message = f"the file is not UTF-8: byte 0x{data[start]:02x} cannot be there; save it as UTF-8"
        report(head.count(b"\n") + 1, column, "", message)
        return None


def parse(text: str, report: Report) -> Node | None:
    """The tree of a YAML text; None when it is empty or cannot be read, which is then reported.

    Problems that leave the rest readable (a duplicate key, a foreign tag) are reported and the tree
    is returned; it may only be used to look for more problems then.
    """
    forbidden = _FORBIDDEN.search(text)
    if forbidden:
        line, column = _place(text, forbidden.start())
        report(line, column, "", f"the character U+{ord(forbidden[0]):04X} cannot stand in YAML; remove it")
        return None
    try:
        return _Composer(report).compose(_events(text, report))
    except _UnreadableError:
        return None


def _place(text: str, index: int) -> tuple[int, int]:
    return text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index)


def _events(text: str, report: Report) -> Iterator[events.Event]:
    parser = _PARSER(text)
    try:
        while parser.check_event():
            yield parser.get_event()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        report(line, column, "", _syntax_message(error, text.splitlines()[line - 1 : line], column))
        raise _UnreadableError from error
    except yaml.YAMLError as error:  # pragma: no cover - the reader's, which `parse` has gone before
        report(1, 1, "", f"not valid YAML: {error}")
        raise _UnreadableError from error
    finally:
        parser.dispose()


def _syntax_message(error: yaml.MarkedYAMLError, lines: list[str], column: int) -> str:
    at_tab = bool(lines) and lines[0][column - 1 : column] == "\t"
    if at_tab and "cannot start any token" in (error.problem or ""):
        return "not valid YAML: a tab where only spaces may stand; indent with spaces"
    context, begin = error.context, error.context_mark
    if context and begin:
        context += f" from {begin.line + 1}:{begin.column + 1}"
    return "not valid YAML: " + ", ".join(part for part in (context, error.problem) if part)


@dataclass(slots=True, eq=False)
class _OpenItems:
    """A list whose end has not come yet."""

    node: Items


@dataclass(slots=True, eq=False)
class _OpenEntries:
    """A mapping whose end has not come yet. `key` waits for its value; `merged` is the value of `<<`."""

    node: Entries
    seen: dict[tuple[type, object], int] = field(default_factory=dict)
    """The line of each key."""
    key: Scalar | None = None
    merged: Node | None = None


class _Located(Protocol):
    start_mark: Any


class _Composer:
    """Puts the events of one document together. Without recursion: the depth is the text's choice."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._anchors: dict[str, Node] = {}
        self._stack: list[_OpenItems | _OpenEntries] = []
        self._root: Node | None = None
        self._documents = 0
        self._aliased = 0
        self._handlers: dict[type, Callable[[Any], None]] = {
            events.ScalarEvent: self._scalar,
            events.AliasEvent: self._alias,
            events.MappingStartEvent: self._start_mapping,
            events.SequenceStartEvent: self._start_sequence,
            events.MappingEndEvent: self._end,
            events.SequenceEndEvent: self._end,
            events.DocumentStartEvent: self._start_document,
        }

    def compose(self, stream: Iterator[events.Event]) -> Node | None:
        handlers = self._handlers
        for event in stream:
            handler = handlers.get(type(event))
            if handler is not None:
                handler(event)
        return self._root

    def _problem(self, at: _Located | Node, message: str, where: str | None = None) -> None:
        line, column = (at.line, at.column) if isinstance(at, Node) else _start(at)
        self._report(line, column, self._where() if where is None else where, message)

    def _where(self) -> str:
        path = ""
        for level in self._stack:
            if isinstance(level, _OpenItems):
                path += f"[{len(level.node.items)}]"
            elif level.key is not None:
                path = join(path, level.key.value)
        return path

    def _start_document(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            self._problem(event, "a second document begins here; the file holds one, without `---` between parts")
            raise _UnreadableError

    def _scalar(self, event: Any) -> None:
        line, column = _start(event)
        node = Scalar(line, column, event.value, not event.style)
        node.weight += len(event.value) // 64
        try:
            if event.tag not in (None, "!"):
                self._apply_tag(event, node)
            elif event.implicit[0] and event.tag is None:
                node.value = resolve(event.value)
        except ValueError as error:
            self._problem(event, str(error))
        if event.anchor:
            self._anchors[event.anchor] = node
        self._add(node)

    def _apply_tag(self, event: Any, node: Scalar) -> None:
        kinds = _KIND_OF_TAG.get(event.tag.removeprefix(_TAG)) if event.tag.startswith(_TAG) else None
        if kinds is None:
            raise ValueError(f"the tag {_tag(event.tag)} means nothing here; remove it")
        if kinds == (str,):
            return
        value = resolve(event.value)
        if type(value) not in kinds:
            raise ValueError(f"{shorten(event.value)} is not what its tag {_tag(event.tag)} says")
        node.value = float(value) if kinds[0] is float and isinstance(value, int) else value

    def _alias(self, event: Any) -> None:
        node = self._anchors.get(event.anchor)
        if node is None or any(level.node is node for level in self._stack):
            inside = "stands inside its own anchor" if node else f"has no anchor `&{event.anchor}` before it"
            self._problem(event, f"the alias `*{event.anchor}` {inside}")
            raise _UnreadableError
        self._aliased += node.weight
        if self._aliased > MAX_ALIASED:
            self._problem(event, f"the aliases up to here stand for more than {MAX_ALIASED:,} values")
            raise _UnreadableError
        self._check_depth(event, len(self._stack) + node.height)
        self._add(node)

    def _start_mapping(self, event: Any) -> None:
        line, column = _start(event)
        self._open(event, _OpenEntries(Entries(line, column, [])), "map")

    def _start_sequence(self, event: Any) -> None:
        line, column = _start(event)
        self._open(event, _OpenItems(Items(line, column, [])), "seq")

    def _open(self, event: Any, level: _OpenItems | _OpenEntries, tag: str) -> None:
        if event.tag not in (None, "!", _TAG + tag):
            self._problem(event, f"the tag {_tag(event.tag)} means nothing here; remove it")
        self._check_depth(event, len(self._stack) + 1)
        if event.anchor:
            self._anchors[event.anchor] = level.node
        self._stack.append(level)

    def _check_depth(self, event: Any, depth: int) -> None:
        if depth > MAX_DEPTH:
            self._problem(event, f"nested deeper than {MAX_DEPTH} levels", where="")
            raise _UnreadableError

    def _end(self, _event: Any) -> None:
        level = self._stack.pop()
        if isinstance(level, _OpenEntries) and level.merged is not None:
            self._merge(level, level.merged)
        self._add(level.node)

    def _add(self, node: Node) -> None:
        if not self._stack:
            self._root = node
            return
        level = self._stack[-1]
        level.node.weight += node.weight
        level.node.height = max(level.node.height, node.height + 1)
        if isinstance(level, _OpenItems):
            level.node.items.append(node)
        elif level.key is not None:
            self._finish_entry(level, level.key, node)
        elif isinstance(node, Scalar):
            level.key = node
        else:
            self._problem(node, "a list or mapping cannot be a key")
            raise _UnreadableError

    def _finish_entry(self, level: _OpenEntries, key: Scalar, node: Node) -> None:
        identity = (type(key.value), key.value)
        if identity in level.seen:
            first = level.seen[identity]
            self._problem(key, f"duplicate key {shorten(key.value)}; it stands in line {first} already")
        else:
            level.seen[identity] = key.line
            if key.value == "<<" and key.plain:
                level.merged = node
            else:
                level.node.entries.append((key, node))
        level.key = None

    def _merge(self, level: _OpenEntries, source: Node) -> None:
        """Take over the entries of `<<`: the mapping's own win, then those of the earlier mapping of a
        list (https://yaml.org/type/merge.html)."""
        merged = []
        for mapping in source.items if isinstance(source, Items) else [source]:
            if not isinstance(mapping, Entries):
                self._problem(mapping, "`<<` takes a mapping, or a list of mappings")
                return
            for key, node in mapping.entries:
                identity = (type(key.value), key.value)
                if identity not in level.seen:
                    level.seen[identity] = key.line
                    merged.append((key, node))
        level.node.entries[:0] = merged


def _start(event: Any) -> tuple[int, int]:
    mark = event.start_mark
    return mark.line + 1, mark.column + 1


def _tag(tag: str) -> str:
    return shorten(tag.replace(_TAG, "!!"))
