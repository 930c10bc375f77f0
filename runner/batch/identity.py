"""What a batch is a batch of: its function, settings and input, and how two of them differ. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

MOST_TOLD = 10
"""How many changed inputs are told by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Everything that output depends on. A checkpoint is good for the identity that it was made under."""

    function: str
    """Name, version and content id: `clean version 3 (bafk...)`."""
    settings: Mapping[str, str]
    """Every setting that output or positions depend on, as text, by its name in jobs.yaml."""
    environment: Mapping[str, str]
    """A digest of each variable's value; values may be private."""
    inputs: Mapping[str, str]
    """What is read, in order, with what tells one state of it from another."""

    def facts(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Identity:
        """The identity that `facts` told. Raises TypeError for what it never told."""
        return cls(**facts)


def digests(env_vars: Mapping[str, str]) -> dict[str, str]:
    """The environment as an identity holds it."""
    return {name: hashlib.sha256(value.encode()).hexdigest()[:16] for name, value in sorted(env_vars.items())}


def changes(before: Identity, now: Identity) -> list[str]:
    """One sentence for each thing that is not what it was; empty when nothing changed."""
    told = []
    if before.function != now.function:
        told.append(f"the function was {before.function}, it is {now.function}")
    told += _changed("setting", before.settings, now.settings)
    told += [
        f"the environment variable {name} has changed" for name, *_ in _differences(before.environment, now.environment)
    ]
    inputs = list(_changed("input", before.inputs, now.inputs))
    if not inputs and list(before.inputs) != list(now.inputs):
        inputs = ["the inputs are in another order"]
    if len(inputs) > MOST_TOLD:
        inputs = [*inputs[:MOST_TOLD], f"and {len(inputs) - MOST_TOLD:,} inputs more"]
    return told + inputs


def _differences(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[tuple[str, str | None, str | None]]:
    for name in dict.fromkeys((*before, *now)):
        if before.get(name) != now.get(name):
            yield name, before.get(name), now.get(name)


def _changed(noun: str, before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name, was, is_now in _differences(before, now):
        if was is None:
            yield f"{noun} {name} is new ({is_now})"
        elif is_now is None:
            yield f"{noun} {name} is gone (it was {was})"
        else:
            yield f"{noun} {name} was {was}, it is {is_now}"
