"""What keys of jobs.yaml have in common: names, variables, and how a key is declared with its document."""

from __future__ import annotations

from typing import Annotated, Any

from runner.kinds import Rule

_NAME = r"[A-Za-z][A-Za-z0-9_-]{0,63}"
_NAME_WORDS = "a name (a letter, then letters, digits, _ or -, at most 64)"
Name = Annotated[str, Rule(pattern=_NAME, expected=_NAME_WORDS)]
Named = Annotated[str, Rule(pattern=_NAME, expected=_NAME_WORDS, skip_x=True)]
"""A name that is a mapping's key."""

Variable = Annotated[str, Rule(pattern=r"[^=\0]+", expected="the name of a variable (without = and NUL)")]
Value = Annotated[str, Rule(pattern=r"[^\0]*", expected="a string without NUL")]


def documented(text: str, **facts: Any) -> dict[str, Any]:
    """The metadata of a key: its document, and what runner.schema and runner.kinds know: rules, an
    example, other words that people use for it (`called`)."""
    return {"doc": text, **facts}
