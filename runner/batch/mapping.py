"""A batch that stands in no jobs.yaml: `runner map`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from runner.batchkeys import BatchKeys
from runner.catalogue import Catalogue, Lookup, format_of_path
from runner.config import Choice, Config, FunctionConfig, JobConfig
from runner.contracts import Provider
from runner.errors import ConfigError, FileUnavailable, UsageError
from runner.jobskeys import AUTO_EXECUTOR
from runner.kinds import Reader
from runner.models import FunctionDefinition
from runner.yamlnodes import Entries, Node, Scalar, parse

STREAM = "-"
End = Literal["input", "output"]


def with_module(config: Config, name: str, module: Path) -> Config:
    """The configuration with one function more, from a module or from a source file that a builder takes.
    Raises FileUnavailable when it is not there."""
    if not module.is_file():
        raise FileUnavailable(f"there is no module {module}")
    compiled = module.suffix == ".wasm"
    function = FunctionConfig(
        definition=FunctionDefinition(name=name, namespace=config.namespace),
        wasm=module.absolute() if compiled else None,
        source=None if compiled else module.absolute(),
        executor=Choice(name=AUTO_EXECUTOR),
        description=None,
        line=0,
    )
    return replace(config, functions=MappingProxyType({**config.functions, name: function}))


def choice_of(catalogue: Catalogue, end: End, given: str, format: str | None) -> Choice:
    """The source or sink that a path, or a mapping as under `input:` in jobs.yaml, means.
    Raises UsageError, ConfigError."""
    providers: Mapping[str, Provider[Any]] = catalogue.sources if end == "input" else catalogue.sinks
    reader = Reader(f"--{end}")
    node: Node | None
    if given.lstrip().startswith("{"):
        node = parse(given, reader.report_at)
    else:
        name = format or format_of_path(given, providers)
        if name is None:
            known = ", ".join(providers)
            raise UsageError(f"--{end} {given}: its ending tells no format; give --{end}-format, one of {known}")
        node = _mapping(path=given, format=name)
    choice = _choose(catalogue, end, node, reader) if node is not None else None
    problems = reader.finish()
    if problems:
        raise ConfigError(problems)
    assert isinstance(choice, Choice)
    return choice


def _choose(catalogue: Catalogue, end: End, node: Node, reader: Reader) -> Any:
    lookup = Lookup(catalogue, reader)
    return (lookup.source if end == "input" else lookup.sink)(node, "")


def _mapping(**values: str) -> Entries:
    return Entries(1, 1, [(Scalar(1, 1, key, True), Scalar(1, 1, value, False)) for key, value in values.items()])


def stream_format(catalogue: Catalogue, end: End, other: str, other_format: str | None) -> str:
    """The format of `-` when the other end is `other`: the same if it can be a stream, or lines."""
    found = other_format or format_of_path(other, catalogue.sinks)
    reader = Reader(f"--{end}")
    if found is not None:
        _choose(catalogue, end, _mapping(path=STREAM, format=found), reader)
    return "lines" if found is None or reader.finish() else found


def job_of(name: str, keys: BatchKeys, env_vars: Mapping[str, str]) -> tuple[JobConfig, str]:
    """A job with this batch, and a name for its state: the same for the same function, input and output."""
    ends = repr((keys.input, keys.output)).encode()
    job = JobConfig(
        name=name,
        run=None,
        description=None,
        input=None,
        output=None,
        env_vars=env_vars,
        triggers=(),
        line=0,
        batch=keys,
    )
    return job, f"map-{name}-{hashlib.sha256(ends).hexdigest()[:12]}"
