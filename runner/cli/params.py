"""`--param NAME=VALUE`: the parameters of a pipeline as they are written on a command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from runner.errors import UsageError

if TYPE_CHECKING:
    from runner.config import JobConfig

_WORDS = {"true": True, "false": False}
_READ: Mapping[str, Callable[[str], Any]] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": _WORDS.__getitem__,
    "json": json.loads,
}
_EXPECTED = {
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "json": "a JSON value",
}

param_option = click.option(
    "--param",
    "-p",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter of a pipeline; any number of them.",
)


def read_params(job: JobConfig, pairs: Sequence[str]) -> bytes | None:
    """The input of a pipeline with these parameters; None without any. Raises UsageError."""
    if not pairs:
        return None
    values: dict[str, Any] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign:
            raise UsageError(f"--param {pair!r}: write NAME=VALUE")
        param = job.params.get(name)
        if param is None:
            near = get_close_matches(name, job.params, 1)
            known = f"there are {', '.join(job.params)}" if job.params else "it has none"
            hint = f"did you mean {near[0]!r}?" if near else known
            raise UsageError(f"job {job.name!r} has no parameter {name!r}; {hint}")
        if name in values:
            raise UsageError(f"the parameter {name!r} is given twice")
        try:
            values[name] = _READ[param.type](text)
        except (ValueError, KeyError, RecursionError) as error:
            raise UsageError(f"the parameter {name!r} has to be {_EXPECTED[param.type]}, got {text[:60]!r}") from error
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogateescape")
