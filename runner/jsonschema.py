"""JSON Schema (draft 2020-12, https://json-schema.org/draft/2020-12) of jobs.yaml, for editors.

Made from the same dataclasses as the loader, with the settings of the plugins in a catalogue. It
says less than the loader checks: whether names are declared and files are there it cannot know.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from runner.batchkeys import BatchKeys
from runner.cases import ERRORS
from runner.catalogue import Catalogue
from runner.contracts import Provider
from runner.jobskeys import AUTO_EXECUTOR, FileKeys, SecretKeys
from runner.kinds import (
    AnythingKind,
    BooleanKind,
    ChoiceKind,
    CustomKind,
    EitherKind,
    IntegerKind,
    Kind,
    ListKind,
    MapKind,
    NumberKind,
    PathKind,
    Rule,
    ScalarKind,
    TextKind,
)
from runner.schema import Key, ModelKind, kind_of, model_of
from runner.testkeys import CaseKeys

Schema = dict[str, Any]

_IGNORED: Schema = {"description": "Ignored: room for anchors."}
_TYPES: dict[type[ScalarKind], Schema] = {
    ScalarKind: {"type": "null"},
    BooleanKind: {"type": "boolean"},
    IntegerKind: {"type": "integer"},
    NumberKind: {"type": "number"},
    TextKind: {"type": "string"},
    PathKind: {"type": "string", "minLength": 1},
}


def json_schema(catalogue: Catalogue) -> Schema:
    """The schema of jobs.yaml with these plugins; a fresh dict of JSON values."""
    writer = _Writer(_customs(catalogue))
    root = writer.mapping(FileKeys)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "jobs.yaml",
        **root,
        "$defs": dict(sorted(writer.definitions.items())),
    }


def settings_schema(cls: type[Any]) -> Schema:
    """The schema of one settings class, on its own."""
    writer = _Writer({})
    return {**writer.mapping(cls), "$defs": writer.definitions}


def _customs(catalogue: Catalogue) -> dict[str, Callable[[_Writer], Schema]]:
    return {
        "file": lambda _: {"type": "string", "minLength": 1},
        "executor": lambda writer: writer.choice(catalogue.executors, extra=(AUTO_EXECUTOR,)),
        "registry": lambda writer: writer.choice(catalogue.registries),
        "trigger": lambda writer: writer.one_key(catalogue.triggers),
        "jobs": lambda _: {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        "batch": lambda writer: writer.of(kind_of(BatchKeys)),
        "source": lambda writer: writer.formats(catalogue.sources),
        "sink": lambda writer: writer.formats(catalogue.sinks),
        "secret": lambda writer: writer.of(kind_of(SecretKeys)),
        "test": lambda writer: writer.of(kind_of(CaseKeys)),
        "error": lambda _: {"enum": [*ERRORS]},
    }


class _Writer:
    """Writes schemas; every dataclass becomes a definition, so that they may contain themselves."""

    def __init__(self, customs: Mapping[str, Callable[[_Writer], Schema]]) -> None:
        self._customs = customs
        self._names: dict[type[Any], str] = {}
        self.definitions: dict[str, Schema] = {}

    def of(self, kind: Kind) -> Schema:
        """The schema of a kind."""
        if isinstance(kind, ScalarKind):
            return {**_TYPES[type(kind)], **_bounds(kind.rule)}
        if isinstance(kind, ChoiceKind):
            return {"enum": [key for key, _, _ in kind.choices]}
        if isinstance(kind, ListKind):
            return {"type": "array", "items": self.of(kind.item)}
        if isinstance(kind, MapKind):
            return self._map(kind)
        if isinstance(kind, EitherKind):
            return {"anyOf": [self.of(part) for part in kind.kinds]} if len(kind.kinds) > 1 else self.of(kind.kinds[0])
        if isinstance(kind, ModelKind):
            return {"$ref": f"#/$defs/{self._define(kind.cls)}"}
        if isinstance(kind, CustomKind):
            return self._customs[kind.name](self)
        assert isinstance(kind, AnythingKind)
        return {}

    def mapping(self, cls: type[Any]) -> Schema:
        """The schema of a dataclass, in place."""
        model = model_of(cls)
        required = [key.name for key in model.keys.values() if key.required]
        return {
            "type": "object",
            **_described(cls.__doc__ if "__doc__" in vars(cls) else None, cls.__name__),
            "properties": {name: self._property(key) for name, key in model.keys.items()},
            "patternProperties": {"^x-": _IGNORED},
            "additionalProperties": False,
            **({"required": required} if required else {}),
            **({"oneOf": [{"required": [name]} for name in model.one_of]} if model.one_of else {}),
        }

    def choice(self, providers: Mapping[str, Provider[Any]], *, extra: Iterable[str] = ()) -> Schema:
        """A provider's name, or a mapping from it to its settings."""
        return {"anyOf": [{"enum": [*extra, *providers]}, self.one_key(providers)]}

    def one_key(self, providers: Mapping[str, Provider[Any]]) -> Schema:
        """A mapping from one provider's name to its settings."""
        return {
            "type": "object",
            "properties": {name: self._settings(provider) for name, provider in providers.items()},
            "patternProperties": {"^x-": _IGNORED},
            "additionalProperties": False,
            "oneOf": [{"required": [name]} for name in providers] or [{"not": {}}],
        }

    def formats(self, providers: Mapping[str, Provider[Any]]) -> Schema:
        """The settings of one provider, which `format` names unless the ending of `path` does."""
        return {"anyOf": [self._format(provider) for provider in providers.values()] or [{"not": {}}]}

    def _format(self, provider: Provider[Any]) -> Schema:
        settings: Schema = self.mapping(provider.settings) if provider.settings else {"type": "object"}
        properties = {"format": {"const": provider.name}, **settings.get("properties", {})}
        required = [*([] if provider.suffixes else ["format"]), *settings.get("required", ())]
        return {**settings, "description": provider.summary, "properties": properties, "required": required}

    def _settings(self, provider: Provider[Any]) -> Schema:
        if provider.settings is None:
            nothing: Schema = {"patternProperties": {"^x-": _IGNORED}, "additionalProperties": False}
            return {"description": provider.summary, "type": ["object", "null"], **nothing}
        settings = self.of(ModelKind(provider.settings))
        required = any(key.required for key in model_of(provider.settings).keys.values())
        options = [settings] if required or model_of(provider.settings).one_of else [settings, {"type": "null"}]
        return {"description": provider.summary, "anyOf": options}

    def _define(self, cls: type[Any]) -> str:
        if cls not in self._names:
            taken = set(self._names.values())
            candidates = [cls.__name__, *(f"{cls.__name__}{number}" for number in range(2, len(taken) + 3))]
            self._names[cls] = name = next(name for name in candidates if name not in taken)
            self.definitions[name] = self.mapping(cls)
        return self._names[cls]

    def _map(self, kind: MapKind) -> Schema:
        value = self.of(kind.value)
        pattern = kind.key.rule.pattern
        if pattern is None:
            return {"type": "object", "additionalProperties": value}
        skipped = kind.key.rule.skip_x
        return {
            "type": "object",
            "patternProperties": {f"^{'(?!x-)' if skipped else ''}{_anchored(pattern)}$": value}
            | ({"^x-": _IGNORED} if skipped else {}),
            "additionalProperties": False,
        }

    def _property(self, key: Key) -> Schema:
        schema = self.of(key.kind)
        doc = {"description": key.metadata["doc"]} if "doc" in key.metadata else {}
        default = {} if key.required else _default(key.default)
        return {**doc, **schema, **default}


def _described(doc: str | None, name: str) -> Schema:
    """The first paragraph of a docstring; nothing for the one that dataclass writes itself."""
    if not doc or doc.startswith(f"{name}("):
        return {}
    return {"description": " ".join(doc.split("\n\n")[0].split())}


def _anchored(pattern: str) -> str:
    # NUL is written out: `\0` is octal to Python and may not stand in an ECMA pattern with flag u before digits.
    return f"(?:{pattern})".replace(r"\0", r"\u0000")


def _bounds(rule: Rule) -> Schema:
    bounds = {"minimum": rule.minimum, "maximum": rule.maximum, "exclusiveMinimum": rule.above}
    pattern = None if rule.pattern is None else f"^{_anchored(rule.pattern)}$"
    return {name: value for name, value in {**bounds, "pattern": pattern}.items() if value is not None}


def _default(value: Any) -> Schema:
    plain = plain_default(value)
    return {} if plain is None else {"default": plain}


def plain_default(value: Any) -> Any:
    """A default as jobs.yaml would write it; None when there is nothing to write."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) or not isinstance(value, bool | int | float | str | tuple | list | Mapping):
        return None
    if isinstance(value, tuple | list):
        return [plain_default(item) for item in value] or None
    if isinstance(value, Mapping):
        return {name: plain_default(item) for name, item in value.items()} or None
    return value
