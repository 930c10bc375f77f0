"""What plugins provide, as jobs.yaml names it: look-up by kind and name, with settings checked and built.

A name that nobody provides is a located problem that names the plugin to install. How plugins are
found and loaded is in runner.plugins.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Protocol

from runner.config import Choice, TriggerConfig
from runner.contracts import Builder, FunctionExecutor, FunctionRegistry, Provider
from runner.jobskeys import AUTO_EXECUTOR
from runner.kinds import INVALID, Reader, is_x
from runner.records import COMPRESSED
from runner.schema import model_of, read_given
from runner.yamlnodes import Entries, Node, Scalar, join

if TYPE_CHECKING:
    from runner.records import Sink, Source
    from runner.triggers import TriggerSource

FIRST_PARTY: Mapping[str, Mapping[str, str]] = {
    "registry": {"sqlite": "runner_sqlite", "postgres": "runner_postgres"},
    "executor": {"wasmer": "runner_wasmer", "wasmtime": "runner_wasmtime", "dask": "runner_dask"},
    "trigger": {
        **dict.fromkeys(("cron", "interval", "timer", "job"), "runner_apscheduler"),
        **dict.fromkeys(("http", "websocket"), "runner_http"),
        "database": "runner_database",
        "pubsub": "runner_pubsub",
    },
    "builder": dict.fromkeys((".c", ".cpp", ".zig", ".wat"), "runner_builders"),
    "source": dict.fromkeys(("jsonl", "csv", "lines", "files", "sqlite", "parquet"), "runner_files"),
    "sink": dict.fromkeys(("jsonl", "csv", "lines", "files", "sqlite", "parquet"), "runner_files"),
}
"""Which plugin of this project provides a name, for those who do not have it installed."""


class Catalogue(Protocol):
    """Every provider of the plugins that are loaded, by kind and name."""

    @property
    def registries(self) -> Mapping[str, Provider[FunctionRegistry]]: ...

    @property
    def executors(self) -> Mapping[str, Provider[FunctionExecutor]]: ...

    @property
    def builders(self) -> Mapping[str, Provider[Builder]]: ...

    @property
    def triggers(self) -> Mapping[str, Provider[TriggerSource]]: ...

    @property
    def sources(self) -> Mapping[str, Provider[Source]]: ...

    @property
    def sinks(self) -> Mapping[str, Provider[Sink]]: ...


class Lookup:
    """Finds what a node of jobs.yaml names in a catalogue; problems go to the reader."""

    def __init__(self, catalogue: Catalogue, reader: Reader) -> None:
        self._catalogue, self._reader = catalogue, reader

    def registry(self, node: Node, where: str) -> Any:
        """A Choice of a registry, or INVALID."""
        return self._choice("registry", self._catalogue.registries, node, where)

    def executor(self, node: Node, where: str) -> Any:
        """A Choice of an executor, or INVALID. `auto` needs no provider and takes no settings."""
        if isinstance(node, Scalar) and node.value == AUTO_EXECUTOR:
            return Choice(name=AUTO_EXECUTOR)
        return self._choice("executor", self._catalogue.executors, node, where, extra=(AUTO_EXECUTOR,))

    def trigger(self, node: Node, where: str) -> Any:
        """A TriggerConfig, or INVALID."""
        entry = self._only_entry(node)
        if entry is None:
            expected = "a mapping with one key, the kind of trigger"
            return self._reader.mismatch(node, where, expected, hint=_as_trigger(node))
        kind, settings = entry
        provider = self._provider("trigger", self._catalogue.triggers, kind, join(where, kind.value))
        if provider is INVALID:
            return INVALID
        built = self._settings("trigger", provider, settings, join(where, kind.value))
        if built is INVALID:
            return INVALID
        return TriggerConfig(kind=provider.name, settings=built, line=kind.line, column=kind.column)

    def source(self, node: Node, where: str) -> Any:
        """A Choice of a source of records, or INVALID."""
        return self._format("source", self._catalogue.sources, node, where)

    def sink(self, node: Node, where: str) -> Any:
        """A Choice of a sink of records, or INVALID."""
        return self._format("sink", self._catalogue.sinks, node, where)

    def _format(self, kind: str, providers: Mapping[str, Provider[Any]], node: Node, where: str) -> Any:
        """Which provider a mapping is for is told by its `format`, or else by the ending of its `path`."""
        if not isinstance(node, Entries):
            return self._reader.mismatch(node, where, f"a mapping, such as {{path: data.jsonl}}{_as_path(node)}")
        named, path = node.get("format"), node.get("path")
        if named is None:
            name = format_of_path(path.value if isinstance(path, Scalar) else None, providers)
            if name is None:
                place = where if path is None else join(where, "path")
                return self._reader.report(path or node, place, _no_format(kind, path, providers))
            provider = providers[name]
        elif isinstance(named, Scalar):
            provider = self._provider(kind, providers, named, join(where, "format"))
        else:
            return self._reader.mismatch(named, join(where, "format"), "the name of a format")
        if provider is INVALID:
            return INVALID
        rest = [entry for entry in node.entries if entry[0].value != "format"]
        built = self._settings(kind, provider, Entries(node.line, node.column, rest), where)
        return built if built is INVALID else Choice(name=provider.name, settings=built)

    def check_source(self, path: PurePath, node: Node, where: str) -> None:
        """Report a source file that no builder takes."""
        known = {suffix for name in self._catalogue.builders for suffix in name.split(",")}
        if path.suffix not in known:
            hint = self._whose("builder", path.suffix, known)
            message = f"no installed plugin builds {path.suffix or 'a file without an ending'!r}{hint}"
            self._reader.report(node, where, message)

    def _choice(
        self, kind: str, providers: Mapping[str, Provider[Any]], node: Node, where: str, extra: tuple[str, ...] = ()
    ) -> Any:
        name, settings = node, None
        if isinstance(node, Entries):
            name, settings = self._only_entry(node) or (node, None)
        if not isinstance(name, Scalar):
            article = "an" if kind[0] in "aeiou" else "a"
            return self._reader.mismatch(node, where, f"{article} {kind}'s name, or a mapping from it to its settings")
        place = where if settings is None else join(where, name.value)
        provider = self._provider(kind, providers, name, place, extra)
        if provider is INVALID:
            return INVALID
        built = self._settings(kind, provider, settings or Entries(name.line, name.column, []), place)
        return built if built is INVALID else Choice(name=provider.name, settings=built)

    @staticmethod
    def _only_entry(node: Node) -> tuple[Scalar, Node] | None:
        entries = [entry for entry in node.entries if not is_x(entry[0])] if isinstance(node, Entries) else []
        return entries[0] if len(entries) == 1 else None

    def _provider(
        self, kind: str, providers: Mapping[str, Provider[Any]], name: Scalar, where: str, extra: tuple[str, ...] = ()
    ) -> Any:
        if not isinstance(name.value, str):
            return self._reader.mismatch(name, where, f"the name of a {kind}")
        if name.value in providers:
            return providers[name.value]
        if name.value in extra:
            return self._reader.report(name, where, f"{kind} {name.value!r} takes no settings")
        hint = self._whose(kind, name.value, [*providers, *extra])
        return self._reader.report(name, where, f"no installed plugin provides {kind} {name.value[:64]!r}{hint}")

    def _whose(self, kind: str, name: str, known: Any) -> str:
        plugin = FIRST_PARTY[kind].get(name)
        if plugin:
            return f"; it comes with plugin {plugin}"
        return self._reader.guess(name, known) or "; `runner plugins list` shows what is installed"

    def _settings(self, kind: str, provider: Provider[Any], node: Node, where: str) -> Any:
        nothing = isinstance(node, Scalar) and node.value is None
        entries = Entries(node.line, node.column, []) if nothing else node
        if provider.settings is not None:
            if isinstance(entries, Scalar):
                hint = _as_settings(provider, entries)
                return self._reader.mismatch(entries, where, "a mapping", hint=hint)
            given = read_given(self._reader, entries, provider.settings, where)
            return given if given is INVALID else given.build()
        if isinstance(entries, Entries) and all(is_x(key) for key, _ in entries.entries):
            return None
        return self._reader.report(node, where, f"{kind} {provider.name!r} takes no settings")


def format_of_path(path: object, providers: Mapping[str, Provider[Any]]) -> str | None:
    """The provider that has the ending of a path, one that says how it is packed left out; None without one."""
    if not isinstance(path, str):
        return None
    name = PurePath(path)
    suffix = PurePath(name.stem).suffix if name.suffix in COMPRESSED else name.suffix
    found = (provider.name for provider in providers.values() if suffix and suffix in provider.suffixes)
    return next(found, None)


def _no_format(kind: str, path: Node | None, providers: Mapping[str, Provider[Any]]) -> str:
    known = ", ".join(providers) or "none; plugin runner_files provides them"
    if path is None:
        return f"'path' is required, or 'format' and the settings of that {kind}: {known}"
    return f"the ending of this path tells no format: add `format:`, one of {known}"


def _as_path(node: Node) -> str:
    return f"; write `{{path: {node.value[:64]}}}`" if isinstance(node, Scalar) and isinstance(node.value, str) else ""


def _as_settings(provider: Provider[Any], node: Scalar) -> str:
    """How to write a value as what it probably means: the only setting that has to be there."""
    assert provider.settings is not None
    required = [key.name for key in model_of(provider.settings).keys.values() if key.required]
    value = json.dumps(node.value, ensure_ascii=False, default=str)
    return f"; write `{provider.name}: {{{required[0]}: {value[:64]}}}`" if len(required) == 1 else ""


def _as_trigger(node: Node) -> str:
    if isinstance(node, Scalar) and isinstance(node.value, str):
        return f"; write `{node.value[:64]}: {{...}}`"
    if isinstance(node, Entries) and len(node.entries) > 1:
        return f" with {len(node.entries)} keys; begin each kind with its own `-` and indent its settings"
    return ""
