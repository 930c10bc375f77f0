"""The reference of jobs.yaml as Markdown, made from the declarations in runner.jobskeys.

docs/jobs-yaml.md is this text; docs/generate.py writes it and a test compares the two.
"""

from __future__ import annotations

import json
from typing import Any

from runner.batchkeys import BatchKeys, CheckpointKeys, ChunkKeys, OnErrorKeys, PartitionKeys
from runner.jobskeys import (
    AllowKeys,
    DefaultsKeys,
    FileKeys,
    FunctionKeys,
    InputKeys,
    JobKeys,
    OutputKeys,
    ReuseKeys,
    SecretKeys,
)
from runner.jsonschema import plain_default
from runner.kinds import EitherKind, Kind, ListKind, MapKind
from runner.schema import Key, model_of
from runner.stepkeys import ConcurrencyKeys, ParamKeys, StepKeys, TaskKeys
from runner.testkeys import CaseKeys, ExpectedOutputKeys, ExpectKeys, MockKeys
from runner.yamlnodes import MAX_ALIASED, MAX_BYTES, MAX_DEPTH

EXAMPLE = """\
version: 1
namespace: shop
registry: sqlite                # where functions, runs and logs are kept
defaults:
  timeout_seconds: 30
  retry_count: 2
  env_vars: {REGION: eu}
secrets:
  PAYMENTS_KEY: {env: PAYMENTS_KEY}   # where the value comes from, never the value
functions:
  clean:
    wasm: functions/clean.wasm
    memory_limit_mb: 128
  charge:
    source: functions/charge.c  # a builder plugin compiles it
    secrets: [PAYMENTS_KEY]
    env_vars: {MODE: live}      # beside REGION from the defaults
jobs:
  clean_orders:
    run: clean
    input: {path: data/orders.csv}
    output: {path: build/orders.csv}
  charge_test:
    run: charge
    input: {json: {amount: 100, currency: EUR}}
"""
"""A whole jobs.yaml; a test loads it."""

_INTRO = """\
# jobs.yaml

This page is generated from `runner/jobskeys.py`; `python docs/generate.py` writes it.

One file declares the functions of a repository and the jobs that run them. `runner init` writes one to
start from, `runner validate` checks it, `runner schema` prints a JSON Schema for editors, with the
settings of every installed plugin.

```yaml
{example}```
"""

_RULES = f"""\
## How the file is read

- The file is UTF-8 and YAML 1.2: only `true` and `false` are booleans, only `null` and `~` (or nothing) is
  null, and numbers are decimal, `0x` or `0o`. `on`, `yes`, `12:30` and `2027-01-15` are strings.
- Nothing is coerced. `"3"` is no integer and `3` no string: environment variables need quotes around numbers.
- A key that is unknown, written twice or of the wrong type is an error, and so is a file that is missing, a
  name that is not declared and a name that no installed plugin provides. All errors are shown at once:
  `jobs.yaml:14:5 functions.clean.retry_count: expected an integer from 0 to 100, got 'three'`.
- Keys that begin with `x-` are ignored in every mapping of this page (not in `env_vars` and `json`, which are
  yours). They are the place for anchors: `x-small: &small {{memory_limit_mb: 16}}`, then `<<: *small`. A
  function, job or secret can therefore not have a name that begins with `x-`.
- A name is a letter, then letters, digits, `_` or `-`, at most 64 characters.
- Paths are meant from the folder of jobs.yaml.
- At most {MAX_BYTES // 1_000_000} MB, {MAX_DEPTH} levels deep, with aliases that stand for at most
  {MAX_ALIASED:,} values.
"""

_PLUGINS = """\
## What plugins add

`registry` and `executor` name what a plugin provides, or are a mapping with that name as its one key and
the settings under it; an item of `triggers` is always such a mapping:

```yaml
registry: sqlite
defaults:
  executor: {wasmtime: {}}
```

A plugin declares its settings as a dataclass; they are checked as strictly as the keys here.
`runner plugins show NAME` lists them.
"""

_SECTIONS: tuple[tuple[str, type[Any]], ...] = (
    ("Top level", FileKeys),
    ("defaults", DefaultsKeys),
    ("functions.NAME", FunctionKeys),
    ("functions.NAME.allow", AllowKeys),
    ("secrets.NAME", SecretKeys),
    ("reuse", ReuseKeys),
    ("jobs.NAME", JobKeys),
    ("jobs.NAME.input", InputKeys),
    ("jobs.NAME.output", OutputKeys),
    ("jobs.NAME.steps.STEP", StepKeys),
    ("jobs.NAME.on_failure", TaskKeys),
    ("jobs.NAME.params.PARAM", ParamKeys),
    ("jobs.NAME.concurrency", ConcurrencyKeys),
    ("jobs.NAME.batch", BatchKeys),
    ("jobs.NAME.batch.chunk", ChunkKeys),
    ("jobs.NAME.batch.checkpoint", CheckpointKeys),
    ("jobs.NAME.batch.on_error", OnErrorKeys),
    ("jobs.NAME.batch.partitions", PartitionKeys),
    ("tests.NAME", CaseKeys),
    ("tests.NAME.expect", ExpectKeys),
    ("tests.NAME.expect.output", ExpectedOutputKeys),
    ("tests.NAME.mocks.STEP", MockKeys),
)


def reference() -> str:
    """The whole page."""
    parts = [_INTRO.format(example=EXAMPLE), *(_section(title, cls) for title, cls in _SECTIONS), _PLUGINS, _RULES]
    return "\n".join(parts)


def settings_table(cls: type[Any], *, without: frozenset[str] = frozenset()) -> str:
    """The keys of a settings class as a Markdown table; empty for a class without keys."""
    rows = [_row(key) for key in _keys(cls) if key.name not in without]
    if not rows:
        return ""
    return "\n".join(["| key | value | default | meaning |", "| --- | --- | --- | --- |", *rows]) + "\n"


def settings_lines(cls: type[Any]) -> list[tuple[str, str]]:
    """The keys of a settings class for a terminal: each with what it takes, then what it means."""
    told = []
    for key in _keys(cls):
        default = _default(key).replace("`", "")
        default = f"; {default}" if key.required else f"; {default} unless given" if default else ""
        told.append((f"{key.name}: {_words(key.kind)}{default}", str(key.metadata.get("doc", "")).replace("`", "")))
    return told


def _keys(cls: type[Any]) -> list[Key]:
    own = vars(cls).get("__annotations__", {})
    return sorted(model_of(cls).keys.values(), key=lambda key: key.attribute not in own)  # what it inherits comes last


def _section(title: str, cls: type[Any]) -> str:
    intro = " ".join((cls.__doc__ or "").split())
    own = frozenset(model_of(DefaultsKeys).keys) if cls is FunctionKeys else frozenset()
    heading = title if title == "Top level" else f"`{title}`"
    return f"## {heading}\n\n{intro}\n\n{settings_table(cls, without=own)}"


def _row(key: Key) -> str:
    meaning = str(key.metadata.get("doc", ""))
    if "example" in key.metadata:
        meaning += f" Example: `{key.name}: {key.metadata['example']}`."
    cells = (f"`{key.name}`", _words(key.kind), _default(key), meaning)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _default(key: Key) -> str:
    if key.required:
        return "required"
    value = plain_default(key.default)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _words(kind: Kind) -> str:
    """What a kind takes, containers spelt out."""
    if isinstance(kind, ListKind):
        return f"a list, each item {_words(kind.item)}"
    if isinstance(kind, MapKind):
        return f"a mapping, each key {_words(kind.key)}, each value {_words(kind.value)}"
    if isinstance(kind, EitherKind):
        return " or ".join(dict.fromkeys(_words(part) for part in kind.kinds if part.expected != "nothing"))
    return kind.expected.partition(" (")[0]
