"""Mappings with declared keys: from frozen dataclasses to kinds, and from nodes to their instances.

A dataclass is the whole declaration: annotations give the kinds, `field(metadata=...)` the rules and
documents. runner.jsonschema and runner.reference describe the same classes. Which keys jobs.yaml has
is in runner.jobskeys; what they mean together is checked in runner.loading.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from runner.errors import RunnerError, UsageError
from runner.kinds import (
    INVALID,
    PLAIN,
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
    Reader,
    Rule,
    ScalarKind,
    TextKind,
    is_x,
    show,
)
from runner.yamlnodes import Entries, Node, Scalar, join

_RULES = {spec.name for spec in dataclasses.fields(Rule)}
_SCALARS: dict[Any, type[ScalarKind]] = {
    str: TextKind,
    bool: BooleanKind,
    int: IntegerKind,
    float: NumberKind,
    Path: PathKind,
    type(None): ScalarKind,
}


@dataclass(frozen=True)
class Custom:
    """Marks `Annotated[..., Custom(name, expected)]`: read by the Reader's function of that name."""

    name: str
    expected: str


@dataclass(frozen=True)
class Partial:
    """Marks `Annotated[Model, Partial()]`: read as Given, what was written, so that it can be merged."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key that a mapping may have."""

    name: str
    """In the file; the dataclass's field may have another (`metadata={"key": ...}`)."""
    attribute: str
    kind: Kind
    required: bool
    default: Any
    """What it is when left out; dataclasses.MISSING for a required one."""
    metadata: Mapping[str, Any]
    """What the field declares: doc, example, called, the names of Rule; or `custom`, which does what Custom
    does for a class that is to be imported without this file."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A dataclass as a mapping's declaration.

    A dataclass may name keys of which exactly one must be written as
    `__one_of__: ClassVar[tuple[str, ...]]`.
    """

    cls: type[Any]
    keys: Mapping[str, Key]
    one_of: tuple[str, ...]
    called: Mapping[str, str]
    """Other words that people use for a key."""


_MODELS: dict[type[Any], Model] = {}


def model_of(cls: type[Any]) -> Model:
    """The declaration in a dataclass. Raises UsageError for what it cannot declare."""
    model = _MODELS.get(cls)
    if model is None:
        model = _MODELS[cls] = _declared(cls)
    return model


def _declared(cls: type[Any]) -> Model:
    if not dataclasses.is_dataclass(cls) or not isinstance(cls, type):
        raise UsageError(f"settings must be a dataclass, got {cls!r}")
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise UsageError(f"the annotations of {cls.__qualname__} cannot be resolved: {error}") from error
    keys = [_key(cls, spec, hints[spec.name]) for spec in dataclasses.fields(cls) if spec.init]
    return Model(
        cls=cls,
        keys={key.name: key for key in keys},
        one_of=getattr(cls, "__one_of__", ()),
        called={word: key.name for key in keys for word in key.metadata.get("called", ())},
    )


def _key(cls: type[Any], spec: dataclasses.Field[Any], annotation: Any) -> Key:
    rules = {name: spec.metadata[name] for name in _RULES & spec.metadata.keys()}
    try:
        if "custom" in spec.metadata:
            kind: Kind = CustomKind(spec.metadata["custom"], spec.metadata["expected"])
        else:
            kind = kind_of(annotation, Rule(**rules) if rules else PLAIN)
    except UsageError as error:
        raise UsageError(f"{cls.__qualname__}.{spec.name}: {error}") from error
    if spec.name in getattr(cls, "__one_of__", ()) and isinstance(kind, EitherKind):
        # None is what the field holds when the other key is written; it cannot be written itself.
        kind = EitherKind([part for part in kind.kinds if type(part) is not ScalarKind])
    default = spec.default
    if default is dataclasses.MISSING and spec.default_factory is not dataclasses.MISSING:
        default = spec.default_factory()
    return Key(
        name=spec.metadata.get("key", spec.name),
        attribute=spec.name,
        kind=kind,
        required=default is dataclasses.MISSING,
        default=default,
        metadata=spec.metadata,
    )


def check_settings(cls: type[Any]) -> None:
    """Check that the loader can read a plugin's settings class, and the classes it is made of.
    Raises UsageError that names the field. Doing it again costs nothing."""
    pending, done = [cls], set()
    while pending:
        current = pending.pop()
        done.add(current)
        kinds = [key.kind for key in model_of(current).keys.values()]
        while kinds:
            kind = kinds.pop()
            kinds += parts(kind)
            if isinstance(kind, ModelKind) and kind.cls not in done:
                pending.append(kind.cls)


def parts(kind: Kind) -> list[Kind]:
    """The kinds that a kind is made of, without those of another class."""
    if isinstance(kind, ListKind):
        return [kind.item]
    if isinstance(kind, MapKind):
        return [kind.key, kind.value]
    return list(kind.kinds) if isinstance(kind, EitherKind) else []


def kind_of(annotation: Any, rule: Rule = PLAIN) -> Kind:
    """The kind for an annotation: str, int, float, bool, Path, None, Any, Literal, Enum, a dataclass,
    list, tuple[T, ...], Sequence, dict and Mapping with string keys, unions of them, Annotated with
    Rule. Raises UsageError for anything else."""
    if isinstance(annotation, type) and annotation in _SCALARS:
        return _SCALARS[annotation](PLAIN if annotation is type(None) else rule)
    if annotation is Any or annotation is object:
        return AnythingKind()
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _annotated(annotation, rule)
    if origin in (Union, types.UnionType):
        return EitherKind([kind_of(argument, rule) for argument in arguments])
    if origin is Literal:
        return ChoiceKind({value: value for value in arguments})
    if origin in (list, collections.abc.Sequence) or (origin is tuple and arguments[1:] == (...,)):
        return ListKind(kind_of(arguments[0], rule), list if origin is list else tuple)
    if origin in (dict, collections.abc.Mapping):
        return _map(arguments, rule)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ChoiceKind({member.value: member for member in annotation})
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return ModelKind(annotation)
    raise UsageError(f"settings cannot have the type {annotation!r}")


def _annotated(annotation: Any, rule: Rule) -> Kind:
    for mark in annotation.__metadata__:
        if isinstance(mark, Custom):
            return CustomKind(mark.name, mark.expected)
        if isinstance(mark, Partial):
            return ModelKind(annotation.__origin__, partial=True)
        if isinstance(mark, Rule):
            rule = _both(mark, rule)
    return kind_of(annotation.__origin__, rule)


def _both(outer: Rule, inner: Rule) -> Rule:
    changed = {name: getattr(outer, name) for name in _RULES if getattr(outer, name) != getattr(PLAIN, name)}
    return dataclasses.replace(inner, **changed)


def _map(arguments: tuple[Any, ...], rule: Rule) -> Kind:
    key = kind_of(arguments[0])
    if not isinstance(key, TextKind):
        raise UsageError(f"the keys of a mapping must be str, got {arguments[0]!r}")
    return MapKind(key, kind_of(arguments[1], rule))


@dataclass(kw_only=True)
class Given:
    """What was written in a mapping: the valid values by attribute, without the defaults."""

    reader: Reader
    model: Model
    node: Entries
    where: str
    values: dict[str, Any] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    """The value's node of every known key, valid or not."""
    keys: dict[str, Scalar] = field(default_factory=dict)
    """The key's own node, likewise."""
    valid: bool = False
    """Whether nothing in the mapping was reported while it was read."""

    def report(self, key: str, message: str) -> Any:
        """Note a problem at a key's value, or at the mapping if the key is not there; returns INVALID."""
        node = self.nodes.get(key)
        if node is None:
            return self.reader.report(self.node, self.where, message)
        return self.reader.report(node, join(self.where, key), message)

    def build(self) -> Any:
        """The dataclass's instance; INVALID if something in the mapping was, or if the class refuses."""
        if not self.valid:
            return INVALID
        try:
            return self.model.cls(**self.values)
        except (RunnerError, ValueError, TypeError) as error:  # a plugin's __post_init__ checks here
            return self.reader.report(self.node, self.where, f"refused: {error}")


def read_given(reader: Reader, node: Node, cls: type[Any], where: str) -> Any:
    """What is written in a mapping that the class declares; INVALID (reported) if it is no mapping.

    Unknown keys, missing ones and invalid values are reported. Keys that begin with `x-` are ignored.
    """
    if not isinstance(node, Entries):
        return reader.mismatch(node, where, ModelKind.expected)
    model = model_of(cls)
    given = Given(reader=reader, model=model, node=node, where=where)
    before = len(reader.problems)
    for name, value in node.entries:
        key = model.keys.get(name.value) if isinstance(name.value, str) else None
        if key is None:
            if not is_x(name):
                _unknown(given, name)
            continue
        given.nodes[key.name], given.keys[key.name] = value, name
        read = key.kind.read(reader, value, join(where, key.name))
        if read is not INVALID:
            given.values[key.attribute] = read
    _check_presence(given)
    given.valid = len(reader.problems) == before
    return given


def _unknown(given: Given, name: Scalar) -> None:
    model = given.model
    hint = given.reader.guess(name.value, model.keys, model.called)
    message = f"unknown key {show(name)}{hint or ('' if model.keys else '; it takes no keys')}"
    given.reader.report(name, join(given.where, name.value), message)


def _check_presence(given: Given) -> None:
    one_of = given.model.one_of
    written = [name for name in given.keys if name in one_of]
    if one_of and not written:
        given.reader.report(given.node, given.where, f"one of {_listed(one_of, 'or')} is required")
    for name in written[1:]:
        message = f"{name!r} stands beside {written[0]!r}; exactly one of {_listed(one_of, 'and')} is allowed"
        given.reader.report(given.keys[name], join(given.where, name), message)
    for name, key in given.model.keys.items():
        if key.required and name not in given.keys:
            given.reader.report(given.node, given.where, f"{name!r} is required: {key.kind.expected}")


def _listed(names: tuple[str, ...], word: str) -> str:
    quoted = [repr(name) for name in names]
    return f"{', '.join(quoted[:-1])} {word} {quoted[-1]}"


class ModelKind(Kind):
    """A mapping that a dataclass declares."""

    expected = "a mapping"

    def __init__(self, cls: type[Any], *, partial: bool = False) -> None:
        self.cls, self.partial = cls, partial

    def fits(self, node: Node, /) -> bool:
        return isinstance(node, Entries)

    def read(self, reader: Reader, node: Node, where: str) -> Any:
        given = read_given(reader, node, self.cls, where)
        return given if given is INVALID or self.partial else given.build()
