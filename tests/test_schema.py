"""Settings classes as a plugin author writes them: reading, JSON Schema, and the generated pages."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from runner.errors import ConfigError, UsageError
from runner.jobskeys import AllowKeys, DefaultsKeys, FileKeys, FunctionKeys, InputKeys, JobKeys, OutputKeys, SecretKeys
from runner.jsonschema import json_schema, settings_schema
from runner.kinds import INVALID, CustomKind, Kind, Reader, Rule
from runner.loading import load
from runner.reference import EXAMPLE
from runner.schema import check_settings, model_of, parts, read_given
from runner.stepkeys import ConcurrencyKeys, ParamKeys, StepKeys, TaskKeys
from runner.testkeys import CaseKeys, ExpectedOutputKeys, ExpectKeys, MockKeys
from runner.yamlnodes import Entries, Items, Node, Scalar, parse
from tests.jobs_yaml_cases import CATALOGUE, REFUSED, WHOLE, Catalogue, by_name, provider

KEYS = (
    *(FileKeys, DefaultsKeys, FunctionKeys, AllowKeys, SecretKeys, JobKeys, InputKeys, OutputKeys),
    *(StepKeys, TaskKeys, ParamKeys, ConcurrencyKeys),
    *(CaseKeys, ExpectKeys, ExpectedOutputKeys, MockKeys),
)
DOCS = Path(__file__).parent.parent / "docs"


class Mode(Enum):
    FAST = "fast"  # no checks
    SAFE = "safe"  # all checks


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is too much."""

    rows: int = field(default=10, metadata={"doc": "Rows.", "minimum": 1, "maximum": 100})


@dataclass(frozen=True, kw_only=True)
class Tree:
    name: str
    children: tuple[Tree, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Where:
    __one_of__: ClassVar[tuple[str, ...]] = ("host", "socket")

    host: str | None = None
    socket: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything at once.

    Only the first paragraph is shown.
    """

    text: str = "a"
    code: str = field(default="aa", metadata={"pattern": "[a-z]{2}", "expected": "two letters"})
    count: int = field(default=1, metadata={"minimum": 0, "called": ("number",)})
    ratio: float = field(default=0.5, metadata={"above": 0, "maximum": 1})
    flag: bool = False
    path: Path = Path("x")
    mode: Mode = Mode.SAFE
    level: Literal["low", "high", 3] = "low"
    names: tuple[str, ...] = ()
    numbers: list[int] = field(default_factory=list)
    ports: Sequence[int] = field(default=(), metadata={"minimum": 1, "maximum": 65535})
    table: Mapping[str, float] = field(default_factory=dict)
    strict: dict[Annotated[str, Rule(pattern="[A-Z]+", expected="capitals")], str] = field(default_factory=dict)
    either: int | str = 0
    either_list: str | tuple[str, ...] = ""
    maybe: str | None = "x"
    limits: Limits = field(default_factory=Limits)
    place: Where | Limits | None = None
    tree: Tree | None = None
    condition: str = field(default="", metadata={"key": "if"})
    anything: Any = None
    made: int = field(init=False, default=7)


def read(text: str, cls: type[Any] = Settings) -> tuple[Any, list[str]]:
    reader = Reader("f")
    node = parse(text, reader.report_at)
    assert isinstance(node, Entries), reader.problems
    given = read_given(reader, node, cls, "s")
    value = given if given is INVALID else given.build()
    return value, [str(problem) for problem in reader.finish()]


ACCEPTED: list[tuple[str, str, Any]] = [
    ("text: ''", "text", ""),
    ("code: zz", "code", "zz"),
    ("ratio: 1", "ratio", 1.0),
    ("flag: true", "flag", True),
    ("path: a/b", "path", Path("a/b")),
    ("mode: fast", "mode", Mode.FAST),
    ("level: 3", "level", 3),
    ("names: [a, b]", "names", ("a", "b")),
    ("numbers: [1, 2]", "numbers", [1, 2]),
    ("ports: [80]", "ports", (80,)),
    ("table: {b: 1, a: 2.5}", "table", {"b": 1.0, "a": 2.5}),
    ("strict: {AB: c}", "strict", {"AB": "c"}),
    ("either: 3", "either", 3),
    ("either: '3'", "either", "3"),
    ("either_list: [a]", "either_list", ("a",)),
    ("either_list: a", "either_list", "a"),
    ("maybe: null", "maybe", None),
    ("limits: {rows: 3, x-why: because}", "limits", Limits(rows=3)),
    ("place: {socket: s}", "place", Where(socket=Path("s"))),
    ("place: {rows: 2}", "place", Limits(rows=2)),
    ("tree: {name: a, children: [{name: b}]}", "tree", Tree(name="a", children=(Tree(name="b"),))),
    ("if: x", "condition", "x"),
    ("anything: {a: [1, {b: null}]}", "anything", {"a": [1, {"b": None}]}),
    ("x-note: {}", "text", "a"),
]

REFUSED_SETTINGS: list[tuple[str, str]] = [
    ("text: 1", "f:1:7 s.text: expected a string, got 1; put it in quotes"),
    ("text: true", "f:1:7 s.text: expected a string, got true; put it in quotes"),
    ("code: a", "f:1:7 s.code: expected two letters, got 'a'"),
    ("count: -1", "f:1:8 s.count: expected an integer >= 0, got -1"),
    ("count: 1.0", "f:1:8 s.count: expected an integer >= 0, got 1.0"),
    ("count: false", "f:1:8 s.count: expected an integer >= 0, got false"),
    ("count: '1'", "f:1:8 s.count: expected an integer >= 0, got '1'; remove the quotes"),
    ("number: 1", "f:1:1 s.number: unknown key 'number'; did you mean 'count'?"),
    ("ratio: 0", "f:1:8 s.ratio: expected a number > 0 and <= 1, got 0"),
    ("flag: off", "f:1:7 s.flag: expected true or false, got 'off'; write false"),
    ("mode: fats", "f:1:7 s.mode: expected one of 'fast', 'safe', got 'fats'; did you mean 'fast'?"),
    ("mode: FAST", "f:1:7 s.mode: expected one of 'fast', 'safe', got 'FAST'"),
    ("level: '3'", "f:1:8 s.level: expected one of 'low', 'high', 3, got '3'; did you mean '3'?"),
    ("names: a", "f:1:8 s.names: expected a list, got 'a'"),
    ("names: [a, 1]", "f:1:12 s.names[1]: expected a string, got 1; put it in quotes"),
    ("ports: [0]", "f:1:9 s.ports[0]: expected an integer from 1 to 65535, got 0"),
    ("table: {a: b}", "f:1:12 s.table.a: expected a number, got 'b'"),
    ("table: {1: 2}", "f:1:9 s.table[1]: expected a string, got 1; put it in quotes"),
    ("strict: {ab: c}", "f:1:10 s.strict.ab: expected capitals, got 'ab'"),
    ("either: 1.5", "f:1:9 s.either: expected an integer or a string, got 1.5"),
    ("either: []", "f:1:9 s.either: expected an integer or a string, got a list"),
    ("maybe: 1", "f:1:8 s.maybe: expected a string, got 1; put it in quotes"),
    ("limits: null", "f:1:9 s.limits: expected a mapping, got nothing; leave the key out if nothing is meant"),
    ("limits: {row: 1}", "f:1:10 s.limits.row: unknown key 'row'; did you mean 'rows'?"),
    ("place: {rows: 0}", "f:1:15 s.place.rows: expected an integer from 1 to 100, got 0"),
    (
        "place: {host: null}",
        "f:1:15 s.place.host: expected a string, got nothing; leave the key out if nothing is meant",
    ),
    ("tree: {name: a, children: [{}]}", "f:1:28 s.tree.children[0]: 'name' is required: a string"),
    ("condition: x", "f:1:1 s.condition: unknown key 'condition'"),
    ("made: 1", "f:1:1 s.made: unknown key 'made'; did you mean 'mode'?"),
]


@pytest.mark.parametrize(("text", "attribute", "value"), ACCEPTED)
def test_accepted(text: str, attribute: str, value: Any) -> None:
    settings, problems = read(text)
    assert problems == []
    read_value = getattr(settings, attribute)
    assert (type(read_value), read_value) == (type(value), value)


@pytest.mark.parametrize(("text", "problem"), REFUSED_SETTINGS)
def test_refused(text: str, problem: str) -> None:
    settings, problems = read(text)
    assert settings is INVALID
    assert len(problems) == 1
    assert problems[0].startswith(problem)


def test_defaults() -> None:
    assert read("x-a: 1") == (Settings(), [])


def test_a_class_without_keys_says_so() -> None:
    @dataclass(frozen=True)
    class Empty:
        pass

    assert read("a: 1", Empty)[1] == ["f:1:1 s.a: unknown key 'a'; it takes no keys"]


def bad(annotation: Any) -> type[Any]:
    @dataclass(frozen=True)
    class Bad:
        value: int = 0

    Bad.__annotations__["value"] = annotation
    return Bad


@pytest.mark.parametrize("annotation", [complex, set[str], tuple[int, str], dict[int, str], bytes, "Missing"])
def test_a_type_that_the_loader_cannot_read_names_its_field(annotation: Any) -> None:
    with pytest.raises(UsageError, match="Bad"):
        check_settings(bad(annotation))


def test_check_settings_looks_into_nested_classes() -> None:
    check_settings(Settings)
    with pytest.raises(UsageError, match="settings must be a dataclass, got <class 'int'>"):
        check_settings(int)

    @dataclass(frozen=True)
    class Outer:
        inner: Any = None

    Outer.__annotations__["inner"] = bad(bytes) | None
    with pytest.raises(UsageError, match=r"Bad.value: settings cannot have the type <class 'bytes'>"):
        check_settings(Outer)


def as_json(text: str) -> Any:
    """A YAML text as the loader understands it, for a validator; what is no JSON stays as it is."""
    node = parse(text, lambda *_: None)
    assert node is not None
    return _plain(node)


def _plain(node: Node) -> Any:
    if isinstance(node, Items):
        return [_plain(item) for item in node.items]
    if isinstance(node, Entries):
        return {str(key.value): _plain(value) for key, value in node.entries}
    assert isinstance(node, Scalar)
    return node.value


def _only_the_loader_knows(text: str, problem: str) -> bool:
    """Whether a refusal is about more than one value can tell, or about what JSON cannot write."""
    beyond: tuple[str, ...] = (
        "is declared",
        "not valid YAML",
        "duplicate key",
        "is empty",
        "brings no luck",
        "as JSON has it",
        "1.0",
    )
    beyond += (
        "tells no format",
        "names the partitions",
        "has its own",
        "would write the same",
        "for nothing",
        "a pure function",
    )
    return any(words in problem for words in beyond) or "{1: a}" in text


class TestJsonSchema:
    def test_settings(self) -> None:
        schema = settings_schema(Settings)
        Draft202012Validator.check_schema(schema)
        assert schema["description"] == "Everything at once."
        properties = schema["properties"]
        assert properties["count"] == {"type": "integer", "minimum": 0, "default": 1}
        assert properties["ratio"] == {"type": "number", "maximum": 1, "exclusiveMinimum": 0, "default": 0.5}
        assert properties["mode"] == {"enum": ["fast", "safe"], "default": "safe"}
        assert properties["path"] == {"type": "string", "minLength": 1, "default": "x"}
        assert schema["$defs"]["Limits"]["description"] == "What is too much."
        assert schema["$defs"]["Limits"]["properties"]["rows"]["description"] == "Rows."
        assert schema["$defs"]["Tree"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}
        assert "if" in properties
        assert "made" not in properties

    @pytest.mark.parametrize("text", [text for text, _, _ in ACCEPTED])
    def test_agrees_on_what_is_accepted(self, text: str) -> None:
        Draft202012Validator(settings_schema(Settings)).validate(as_json(text))

    @pytest.mark.parametrize(
        "text", [text for text, _ in REFUSED_SETTINGS if text not in ("count: 1.0", "table: {1: 2}")]
    )
    def test_agrees_on_what_is_refused(self, text: str) -> None:
        assert not Draft202012Validator(settings_schema(Settings)).is_valid(as_json(text))

    def test_two_classes_of_one_name(self) -> None:
        def named(kind: type[Any]) -> type[Any]:
            @dataclass(frozen=True)
            class Same:
                value: Any = None

            Same.__annotations__["value"] = kind
            return Same

        catalogue = Catalogue(triggers=by_name(provider("a", named(int)), provider("b", named(str))))
        definitions = json_schema(catalogue)["$defs"]
        assert [definitions[name]["properties"]["value"]["type"] for name in ("Same", "Same2")] == ["integer", "string"]

    def test_jobs_yaml(self) -> None:
        schema = json_schema(CATALOGUE)
        Draft202012Validator.check_schema(schema)
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert schema["required"] == ["version"]
        assert schema["$defs"]["PoolSettings"]["properties"]["workers"]["description"] == "How many."
        for name, definition in {"top": schema, **schema["$defs"]}.items():
            if name.endswith("Keys"):
                assert definition["patternProperties"] == {"^x-": {"description": "Ignored: room for anchors."}}
                assert definition["description"]
                assert all(key["description"] for key in definition["properties"].values())

    @pytest.mark.parametrize("text", [WHOLE, EXAMPLE, "version: 1"])
    def test_takes_what_the_loader_takes(self, text: str) -> None:
        Draft202012Validator(json_schema(CATALOGUE)).validate(as_json(text))

    @pytest.mark.parametrize(
        "text", [text for text, problem in REFUSED.items() if not _only_the_loader_knows(text, problem)]
    )
    def test_refuses_what_the_loader_refuses(self, text: str) -> None:
        assert not Draft202012Validator(json_schema(CATALOGUE)).is_valid(as_json(text))

    def test_works_without_any_plugin(self) -> None:
        nothing = Catalogue(registries={}, executors={}, builders={}, triggers={}, sources={}, sinks={})
        schema = json_schema(nothing)
        Draft202012Validator.check_schema(schema)
        assert Draft202012Validator(schema).is_valid({"version": 1})
        job = {"run": "a", "triggers": [{"cron": {}}]}
        assert not Draft202012Validator(schema).is_valid({"version": 1, "jobs": {"j": job}})


def _custom(kind: Kind) -> bool:
    return isinstance(kind, CustomKind) or any(map(_custom, parts(kind)))


class TestPages:
    @pytest.mark.parametrize("name", [*runpy.run_path(str(DOCS / "generate.py"))["PAGES"]])
    def test_is_what_generate_writes(self, name: str) -> None:
        pages: Mapping[str, Callable[[], str]] = runpy.run_path(str(DOCS / "generate.py"))["PAGES"]
        assert (DOCS / name).read_text(encoding="utf-8") == pages[name](), "run `python docs/generate.py`"

    def test_the_example_loads(self, tmp_path: Path) -> None:
        (tmp_path / "functions").mkdir()
        (tmp_path / "functions/clean.wasm").touch()
        (tmp_path / "functions/charge.c").touch()
        (tmp_path / "jobs.yaml").write_text(EXAMPLE)
        config = load(tmp_path / "jobs.yaml", CATALOGUE)
        assert dict(config.functions["charge"].definition.env_vars) == {"REGION": "eu", "MODE": "live"}

    def test_the_examples_of_keys_are_right(self) -> None:
        """Each `example` in the declarations is what its key takes."""
        wrong, seen = [], 0
        for cls in KEYS:
            for key in model_of(cls).keys.values():
                if "example" not in key.metadata or _custom(key.kind):
                    continue
                seen += 1
                reader = Reader("f", {"error": lambda node, _: node})
                node = parse(f"{key.name}: {key.metadata['example']}", reader.report_at)
                assert isinstance(node, Entries)
                key.kind.read(reader, node.entries[0][1], key.name)
                wrong += reader.problems
        assert wrong == []
        assert seen >= 10

    def test_every_key_is_documented(self) -> None:
        text = (DOCS / "jobs-yaml.md").read_text(encoding="utf-8")
        for cls in KEYS:
            for key in model_of(cls).keys.values():
                assert key.metadata.get("doc"), key.name
                assert f"| `{key.name}` |" in text


def test_errors_are_told_in_the_words_of_the_reference(tmp_path: Path) -> None:
    (tmp_path / "jobs.yaml").write_text("version: 1\ndefaults: {retry_count: three}")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "jobs.yaml", CATALOGUE)
    message = caught.value.problems[0].message
    assert message in (DOCS / "jobs-yaml.md").read_text(encoding="utf-8")
