"""How two outputs differ, for people: texts by line, JSON by path, other bytes by place. Pure.

What is told is lines of text. One that begins with `-` shows what was expected and one with `+` what
came instead, so that whoever shows them may colour them. Characters that cannot be seen are made
visible, and no difference is ever longer than a screen or two.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from itertools import islice
from typing import Any

CONTEXT = 2
"""So many lines are shown before and behind what differs."""
COMPARED_LINES = 500
"""Of a stretch that differs, so many lines are looked at for what is still the same."""
SHOWN_LINES = 40
SHOWN_BEGINNING = 10
SHOWN_WIDTH = 120
SHOWN_PATHS = 20
SHOWN_VALUE = 80
DUMPED_BYTES = 16

_NO_BREAK = "(no line break at the end)"


def text_or_bytes(expected: bytes, got: bytes) -> list[str]:
    """How `got` differs, as text if both are UTF-8 without NUL; empty if it does not."""
    if expected == got:
        return []
    try:
        texts = expected.decode(), got.decode()
    except UnicodeDecodeError:
        return _bytes(expected, got)
    return _bytes(expected, got) if "\0" in texts[0] + texts[1] else _text(*texts)


def beginning(data: bytes) -> list[str]:
    """How an output begins, for one that nothing can be compared with."""
    if not data:
        return ["it is empty"]
    try:
        lines = _lines(data.decode())
    except UnicodeDecodeError:
        return [_dump("+", data, row) for row in range(0, min(len(data), SHOWN_BEGINNING * DUMPED_BYTES), DUMPED_BYTES)]
    more = ["  ... and more"] if len(lines) > SHOWN_BEGINNING else []
    return [*_whole("+", lines[:SHOWN_BEGINNING]), *more]


def visible(text: str) -> str:
    """The text with what cannot be seen made visible: tabs, spaces at the end, control characters, spaces
    of another kind than the usual one, characters without width."""
    stripped = text.rstrip(" ")
    shown = stripped if stripped.isprintable() else "".join(map(_visible, stripped))
    return shown + "·" * (len(text) - len(stripped))


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if character == "\t":
        return "⇥"
    return chr(0x2400 + code) if code < 32 else f"<U+{code:04X}>"


# Text


def _text(expected: str, got: str) -> list[str]:
    before, after = _lines(expected), _lines(got)
    if not before or not after:
        return [f"expected {_counted(before)}, got {_counted(after)}", *_cut(_whole("-", before) + _whole("+", after))]
    start = _same(before, after)
    end = _same(before[start:][::-1], after[start:][::-1])
    first = max(0, start - CONTEXT)
    left, right = before[first : len(before) - max(0, end - CONTEXT)], after[first : len(after) - max(0, end - CONTEXT)]
    shown = _hunks(left, right, first, max(len(before), len(after)))
    return [f"expected {_counted(before)} (-), got {_counted(after)} (+)", *_cut(shown)]


def _lines(text: str) -> list[str]:
    """Its lines with their breaks; only a line feed is one."""
    lines = text.split("\n")
    last = lines.pop()
    return [line + "\n" for line in lines] + ([last] if last else [])


def _counted(lines: Sequence[str]) -> str:
    return "nothing" if not lines else f"{len(lines):,} line{'' if len(lines) == 1 else 's'}"


def _same(left: Sequence[str], right: Sequence[str]) -> int:
    """How many lines are the same from the beginning on."""
    count = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        count += 1
    return count


def _whole(sign: str, lines: Sequence[str]) -> list[str]:
    width = len(str(len(lines)))
    return [_line(sign, number, width, _shown(line)) for number, line in enumerate(lines[: SHOWN_LINES + 1], 1)]


def _hunks(before: Sequence[str], after: Sequence[str], first: int, most: int) -> list[str]:
    """What differs with its context; both sides begin behind `first` lines."""
    shown: list[str] = []
    width = len(str(most))
    for number, group in enumerate(_groups(before, after)):
        shown += ["  ..."] if number else []
        for tag, b1, b2, a1, a2 in group:
            if tag == "equal":
                shown += [_line(" ", first + 1 + at, width, _shown(before[at])) for at in range(b1, b2)]
            elif tag == "replace" and b2 - b1 == a2 - a1:
                for b, a in zip(range(b1, b2), range(a1, a2), strict=True):
                    shown += _pair(before[b], after[a], first + 1 + b, first + 1 + a, width)
            else:
                shown += [_line("-", first + 1 + at, width, _shown(before[at])) for at in range(b1, b2)]
                shown += [_line("+", first + 1 + at, width, _shown(after[at])) for at in range(a1, a2)]
    if len(before) > COMPARED_LINES or len(after) > COMPARED_LINES:
        shown.append("  ... what follows was not compared")
    return shown


def _groups(before: Sequence[str], after: Sequence[str]) -> Iterable[list[tuple[str, int, int, int, int]]]:
    """The differences in groups that stand near each other, as difflib has them. In what is too long to be
    compared whole, what comes last is a difference only because it was cut there."""
    left, right = before[:COMPARED_LINES], after[:COMPARED_LINES]
    matcher = SequenceMatcher(None, left, right)
    codes = matcher.get_opcodes()
    if len(codes) > 2 and codes[-1][0] != "equal" and (len(before) > len(left) or len(after) > len(right)):
        codes.pop()  # the matcher's own list, from which it makes the groups
    return matcher.get_grouped_opcodes(CONTEXT)


def _line(sign: str, number: int, width: int, text: str) -> str:
    return f"{sign} {number:>{width}} | {text}".rstrip()


def _shown(line: str, around: int = 0) -> str:
    """A line as it is shown: visible, cut to what stands around a place, with a word on a missing break."""
    text = _window(visible(line.removesuffix("\n")), around)
    return text if line.endswith("\n") else f"{text} {_NO_BREAK}"


def _window(text: str, around: int) -> str:
    if len(text) <= SHOWN_WIDTH:
        return text
    start = max(0, min(around - SHOWN_WIDTH // 2, len(text) - SHOWN_WIDTH))
    end = start + SHOWN_WIDTH
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"


def _pair(before: str, after: str, number: int, other: int, width: int) -> list[str]:
    """A line and what came in its place, with a mark under the part that differs."""
    left, right = visible(before.removesuffix("\n")), visible(after.removesuffix("\n"))
    if unicodedata.normalize("NFC", left) == unicodedata.normalize("NFC", right):
        left, right = _spelt(left), _spelt(right)  # they look the same
    start = _same(left, right)
    end = _same(left[start:][::-1], right[start:][::-1])
    shown = []
    for sign, at, text, line in (("-", number, left, before), ("+", other, right, after)):
        ending = "" if line.endswith("\n") else f" {_NO_BREAK}"
        shown.append(_line(sign, at, width, _window(text, start) + ending))
    marked = max(len(right) - end - start, 1)
    if start + end and max(len(left), len(right)) <= SHOWN_WIDTH and left != right:
        shown.append(_line(" ", 0, width, " " * start + "^" * marked).replace("0", " ", 1))
    return shown


def _spelt(text: str) -> str:
    return "".join(char if char.isascii() else f"<U+{ord(char):04X}>" for char in text)


def _cut(lines: Sequence[str]) -> list[str]:
    return [*lines[:SHOWN_LINES], *(["  ... and more"] if len(lines) > SHOWN_LINES else [])]


# Bytes


def _bytes(expected: bytes, got: bytes) -> list[str]:
    place = _first_difference(expected, got)
    sizes = f"expected {len(expected):,} bytes (-), got {len(got):,} bytes (+)"
    row = place - place % DUMPED_BYTES
    return [
        f"{sizes}; the first difference is at byte {place:,} (0x{place:x})",
        _dump("-", expected, row),
        _dump("+", got, row),
    ]


def _first_difference(left: bytes, right: bytes) -> int:
    low, high = 0, min(len(left), len(right))
    if left[:high] == right[:high]:
        return high
    while high - low > 1:  # left[:low] is the same, left[:high] is not
        middle = (low + high) // 2
        low, high = (middle, high) if left[low:middle] == right[low:middle] else (low, middle)
    return low


def _dump(sign: str, data: bytes, row: int) -> str:
    part = data[row : row + DUMPED_BYTES]
    text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
    return (
        f"{sign} {row:08x} | {part.hex(' '):<{DUMPED_BYTES * 3 - 1}} | {text}"
        if part
        else f"{sign} {row:08x} | (its end)"
    )


# JSON


def json_values(expected: Any, got: Any) -> list[str]:
    """How a JSON value differs from another, by path; empty if it does not. Numbers are the same if they
    are worth the same, whatever the order of keys is."""
    found = _differences(expected, got, "")
    shown = list(islice(found, SHOWN_PATHS))
    more = sum(1 for _ in found)
    return [*shown, *([f"... and {more:,} more"] if more else [])]


def _differences(expected: Any, got: Any, path: str) -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(got, dict):
        for key, value in expected.items():
            place = _join(path, key)
            if key in got:
                yield from _differences(value, got[key], place)
            else:
                yield f"{place}: expected {_value(value)}, got nothing"
        for key in got:
            if key not in expected:
                yield f"{_join(path, key)}: expected nothing, got {_value(got[key])}"
    elif isinstance(expected, list) and isinstance(got, list):
        yield from _list_differences(expected, got, path)
    elif _kind(expected) is not _kind(got) or expected != got:
        yield f"{path or 'the value'}: expected {_value(expected)}, got {_value(got)}"


def _list_differences(expected: list[Any], got: list[Any], path: str) -> Iterator[str]:
    if len(expected) != len(got):
        yield f"{path or 'the list'}: expected {len(expected):,} items, got {len(got):,}"
    for index, (one, other) in enumerate(zip(expected, got, strict=False)):
        yield from _differences(one, other, f"{path}[{index}]")
    common = min(len(expected), len(got))
    for index, value in enumerate(expected[common:], common):
        yield f"{path}[{index}]: expected {_value(value)}, got nothing"
    for index, value in enumerate(got[common:], common):
        yield f"{path}[{index}]: expected nothing, got {_value(value)}"


def _kind(value: Any) -> type:
    """The type as JSON has it: a number is one kind, and true is none."""
    return float if isinstance(value, int) and not isinstance(value, bool) else type(value)


def _join(path: str, key: str) -> str:
    if not (key.isascii() and key.replace("-", "_").isidentifier()):
        return f"{path}[{json.dumps(key, ensure_ascii=False)}]"
    return f"{path}.{key}" if path else key


def _value(value: Any) -> str:
    if isinstance(value, list) and len(value) > 9:
        return f"a list of {len(value):,}"
    if isinstance(value, dict) and len(value) > 9:
        return f"a mapping of {len(value):,}"
    try:
        text = visible(json.dumps(value, ensure_ascii=False))
    except RecursionError:
        return "a value of very many levels"
    return text if len(text) <= SHOWN_VALUE else f"{text[:SHOWN_VALUE]}…"
