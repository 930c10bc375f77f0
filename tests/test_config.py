"""jobs.yaml: what a valid file becomes, and every way in which a file is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.config import Config, JobInput
from runner.errors import ConfigError, FileUnavailable, NotAvailable, Problem, UsageError
from runner.jobskeys import FileKeys, FunctionKeys, JobKeys
from runner.loading import load
from runner.models import Rights
from runner.schema import model_of
from runner.yamlnodes import MAX_BYTES
from tests.jobs_yaml_cases import (
    CATALOGUE,
    FUNCTIONS_REFUSED,
    REFUSED,
    WHOLE,
    Catalogue,
    PoolSettings,
    TickSettings,
    by_name,
    provider,
)

Load = Callable[[str], Config]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "functions").mkdir()
    for name in ("clean.wasm", "charge.c", "odd.rs"):
        (tmp_path / "functions" / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def loaded(project: Path) -> Load:
    def load_text(text: str) -> Config:
        (project / "jobs.yaml").write_text(text, encoding="utf-8")
        return load("jobs.yaml", CATALOGUE)

    return load_text


@pytest.fixture
def problems(loaded: Load) -> Callable[[str], list[str]]:
    def problems_of(text: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            loaded(text)
        return [str(problem) for problem in caught.value.problems]

    return problems_of


class TestValid:
    def test_functions(self, loaded: Load, project: Path) -> None:
        config = loaded(WHOLE)
        clean, charge, other = config.functions.values()
        assert (clean.wasm, clean.source, clean.line) == (project / "functions/clean.wasm", None, 15)
        assert clean.definition.namespace == "shop"
        assert (clean.definition.memory_limit_mb, clean.definition.retry_count) == (16, 3)
        assert clean.definition.timeout_seconds == 10
        assert dict(clean.definition.env_vars) == {"REGION": "eu", "MODE": "live"}
        assert charge.source == project / "functions/charge.c"
        assert charge.description == "Takes money"
        assert (charge.definition.secrets, charge.definition.dlq_topic) == (("KEY",), "charge.dead")
        assert charge.definition.is_public
        assert other.definition.timeout_seconds == 0.5

    def test_executors(self, loaded: Load) -> None:
        clean, charge, other = loaded(WHOLE).functions.values()
        assert clean.executor.settings == PoolSettings(workers=3)
        assert charge.executor == clean.executor  # a bare name means the settings of `defaults`
        assert (other.executor.name, other.executor.settings) == ("wasmtime", None)
        assert [one.definition.executor for one in (clean, charge, other)] == ["wasmer", "wasmer", "wasmtime"]

    def test_jobs(self, loaded: Load, project: Path) -> None:
        jobs = loaded(WHOLE).jobs
        assert list(jobs) == ["second", "first", "third"]
        assert jobs["second"].input == JobInput(data="plain ü".encode())
        assert jobs["second"].output == project / "out/a.txt"
        assert jobs["first"].input == JobInput(data='{"b":[1,2.5,null,true],"a":"ü"}'.encode())
        assert dict(jobs["first"].env_vars) == {"LIMIT": "3"}
        assert jobs["third"].input == JobInput(path=project / "data.csv")
        assert jobs["third"].output is None

    def test_grants(self, loaded: Load) -> None:
        functions = "{wasm: functions/clean.wasm, allow: {enqueue: [j, k]}}, g: {wasm: functions/clean.wasm}"
        config = loaded(
            f"version: 1\ndefaults: {{allow: {{enqueue: [k]}}}}\nfunctions: {{f: {functions}}}\n"
            "jobs: {j: {run: f}, k: {run: g}}"
        )
        granted = [one.definition.allow for one in config.functions.values()]
        assert granted == [Rights(enqueue=("j", "k")), Rights(enqueue=("k",))]
        assert loaded(WHOLE).functions["charge"].definition.allow == Rights()

    def test_pure(self, loaded: Load) -> None:
        functions = (
            "{f: {wasm: functions/clean.wasm, pure: true, secrets: [], allow: {}}, g: {wasm: functions/clean.wasm}}"
        )
        config = loaded(
            "version: 1\nsecrets: {A: {env: A}}\ndefaults: {secrets: [A], allow: {enqueue: [j]}}\n"
            f"functions: {functions}\njobs: {{j: {{run: f}}}}"
        )
        assert [one.definition.pure for one in config.functions.values()] == [True, False]

    def test_triggers(self, loaded: Load) -> None:
        tick, boot = loaded(WHOLE).jobs["first"].triggers
        assert (tick.kind, tick.settings, tick.line) == ("tick", TickSettings(every_seconds=2), 39)
        assert (boot.kind, boot.settings) == ("boot", None)

    def test_the_least_file(self, loaded: Load, project: Path) -> None:
        config = loaded("version: 1\n")
        assert (config.path, config.folder) == (project / "jobs.yaml", project)
        assert (config.namespace, config.registry.name) == ("default", "sqlite")
        assert (dict(config.functions), dict(config.jobs), dict(config.secrets)) == ({}, {}, {})

    def test_what_is_left_out_is_the_default(self, loaded: Load) -> None:
        one = loaded("version: 1\nfunctions: {f: {wasm: functions/clean.wasm}}").functions["f"]
        definition = one.definition
        assert (definition.memory_limit_mb, definition.timeout_seconds, definition.retry_count) == (64, 30, 0)
        assert (definition.retry_delay_seconds, definition.dlq_topic, definition.is_public) == (5, None, False)
        assert (definition.executor, definition.version, definition.secrets) == ("auto", 0, ())

    def test_null_takes_a_default_back(self, loaded: Load) -> None:
        config = loaded(
            "version: 1\ndefaults: {dlq_topic: dead}\nfunctions: {f: {wasm: functions/clean.wasm, dlq_topic: null}}"
        )
        assert config.functions["f"].definition.dlq_topic is None

    def test_a_secret_and_a_job_may_have_any_yaml_word_as_a_name(self, loaded: Load) -> None:
        config = loaded("version: 1\nfunctions: {on: {wasm: functions/clean.wasm}}\njobs: {yes: {run: on}}")
        assert config.jobs["yes"].run == "on"

    def test_nothing_can_be_changed(self, loaded: Load) -> None:
        config = loaded(WHOLE)
        with pytest.raises(FrozenInstanceError):
            config.namespace = "other"  # type: ignore[misc]
        for mapping in (config.functions, config.jobs, config.secrets, config.functions["clean"].definition.env_vars):
            with pytest.raises(TypeError):
                mapping["new"] = None  # type: ignore[index]

    def test_paths_are_meant_from_the_folder_of_the_file(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (project / "jobs.yaml").write_text("version: 1\nfunctions: {f: {wasm: functions/clean.wasm}}")
        monkeypatch.chdir("/")
        assert load(project / "jobs.yaml", CATALOGUE).functions["f"].wasm == project / "functions/clean.wasm"

    def test_json_null_is_an_input(self, loaded: Load) -> None:
        config = loaded(
            "version: 1\nfunctions: {f: {wasm: functions/clean.wasm}}\njobs: {j: {run: f, input: {json: null}}}"
        )
        assert config.jobs["j"].input == JobInput(data=b"null")


@pytest.mark.parametrize("text", REFUSED)
def test_refused(problems: Callable[[str], list[str]], text: str) -> None:
    found = problems(text)
    assert len(found) == 1, found
    assert found[0].startswith(REFUSED[text])


@pytest.mark.parametrize("text", FUNCTIONS_REFUSED)
def test_functions_refused(problems: Callable[[str], list[str]], text: str) -> None:
    (found,) = problems(f"version: 1\nsecrets: {{KEY: {{env: K}}}}\nfunctions:\n  f: {text}\n")
    assert found.startswith("jobs.yaml:4:")
    assert FUNCTIONS_REFUSED[text].removeprefix("f: {}: ") in found


@pytest.mark.parametrize(
    ("name", "fine"),
    [("a", True), ("A-1_b", True), ("a" * 64, True), ("a" * 65, False), ("1a", False), ("_a", False), ("ä", False)],
)
def test_names(project: Path, name: str, fine: bool) -> None:
    (project / "jobs.yaml").write_text(f"version: 1\nfunctions: {{{name}: {{wasm: functions/clean.wasm}}}}")
    if fine:
        assert list(load("jobs.yaml", CATALOGUE).functions) == [name]
    else:
        with pytest.raises(ConfigError, match="expected a name"):
            load("jobs.yaml", CATALOGUE)


class TestProblems:
    def test_all_are_found_in_the_order_of_the_file(self, problems: Callable[[str], list[str]]) -> None:
        found = problems(
            "version: 1\njobs:\n  j: {run: clen, retries: 1}\nfunctions:\n  clean:\n"
            "    wasm: functions/clean.wasm\n    retry_count: three\n    tiemout: 1\nregistry: nope\n"
        )
        assert [line.split(" ")[0] for line in found] == [
            "jobs.yaml:3:12",
            "jobs.yaml:3:18",
            "jobs.yaml:7:18",
            "jobs.yaml:8:5",
            "jobs.yaml:9:11",
        ]

    def test_what_an_alias_repeats_is_one_problem(self, problems: Callable[[str], list[str]]) -> None:
        text = "version: 1\nx-a: &a {retry_count: no}\nfunctions:\n"
        text += "".join(f"  f{n}: {{<<: *a, wasm: functions/clean.wasm}}\n" for n in range(9))
        assert len(problems(text)) == 1

    def test_a_broken_default_is_told_once_and_where_it_stands(self, problems: Callable[[str], list[str]]) -> None:
        text = "version: 1\ndefaults: {executor: nope, retry_count: x}\n"
        found = problems(text + "functions: {f: {wasm: functions/clean.wasm}, g: {wasm: functions/clean.wasm}}")
        assert [line.split(":")[2].split(" ")[0] for line in found] == ["22", "41"]

    def test_the_value_of_a_secret_is_never_shown(self, problems: Callable[[str], list[str]]) -> None:
        text = 'version: 1\nsecrets: {A: hunter2, B: [hunter2], C: {env: "hunter2=x"}, D: {file: "hunter2\\0"}}'
        found = problems(text)
        assert len(found) == 4
        assert "hunter2" not in "".join(found)
        assert "a secret is a reference, never a value: write {env: VARIABLE} or {file: PATH}" in found[0]

    def test_a_name_that_is_ignored_says_so(self, problems: Callable[[str], list[str]]) -> None:
        text = "version: 1\nfunctions: {x-ray: {wasm: functions/clean.wasm}}\njobs: {j: {run: x-ray}}"
        assert problems(text)[0].endswith("no function 'x-ray' is declared; names that begin with x- are ignored")

    def test_other_words_for_a_key_are_known(self, problems: Callable[[str], list[str]]) -> None:
        for cls, lead in ((FileKeys, ""), (FunctionKeys, "functions: {f: {"), (JobKeys, "jobs: {j: {")):
            for word, key in model_of(cls).called.items():
                closing = "}}" if lead else ""
                found = problems(f"{lead}{word}: 1{closing}" if lead else f"{word}: 1")
                assert any(f"unknown key '{word}'; did you mean '{key}'?" in line for line in found)

    def test_an_absent_default_registry(self, project: Path) -> None:
        (project / "jobs.yaml").write_text("version: 1")
        with pytest.raises(ConfigError, match=r"^jobs.yaml registry: .*'sqlite'; it comes with plugin runner_sqlite$"):
            load("jobs.yaml", Catalogue(registries={}))

    def test_nothing_is_installed(self, project: Path) -> None:
        (project / "jobs.yaml").write_text("version: 1\ndefaults: {executor: mine}\nregistry: mine\n")
        with pytest.raises(
            ConfigError, match=r"executor 'mine'; known: auto\n.*registry 'mine'; `runner plugins list`"
        ):
            load("jobs.yaml", Catalogue(registries={}, executors={}))

    def test_a_settings_class_that_cannot_be_read_is_its_authors_fault(self, project: Path) -> None:
        @dataclass(frozen=True)
        class Odd:
            what: complex = 1j

        (project / "jobs.yaml").write_text("version: 1\nregistry: odd")
        with pytest.raises(UsageError, match=r"Odd.what: settings cannot have the type <class 'complex'>"):
            load("jobs.yaml", Catalogue(registries=by_name(provider("odd", Odd))))


class TestFile:
    def test_missing(self, project: Path) -> None:
        with pytest.raises(FileUnavailable, match=r"there is no jobs.yaml; `runner init` makes one"):
            load("jobs.yaml", CATALOGUE)
        with pytest.raises(FileUnavailable, match="Is a directory"):
            load(project, CATALOGUE)
        with pytest.raises(FileUnavailable, match="null byte"):
            load("a\0b", CATALOGUE)

    def test_not_utf8(self, project: Path) -> None:
        (project / "jobs.yaml").write_bytes("version: 1\nnamespace: é".encode("latin-1"))
        with pytest.raises(ConfigError, match=r"^jobs.yaml:2:12: the file is not UTF-8: byte 0xe9"):
            load("jobs.yaml", CATALOGUE)

    def test_too_large(self, project: Path) -> None:
        (project / "jobs.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
        with pytest.raises(ConfigError, match="the file is larger than 10,000,000 bytes"):
            load("jobs.yaml", CATALOGUE)

    def test_windows_line_ends_and_a_byte_order_mark(self, project: Path) -> None:
        (project / "jobs.yaml").write_bytes(b"\xef\xbb\xbfversion: 1\r\nnamespace: shop\r\n")
        assert load("jobs.yaml", CATALOGUE).namespace == "shop"


class TestSecrets:
    def test_from_the_environment(self, loaded: Load, monkeypatch: pytest.MonkeyPatch) -> None:
        reference = loaded(WHOLE).secrets["KEY"]
        monkeypatch.delenv("SHOP_KEY", raising=False)
        with pytest.raises(NotAvailable, match=r"secret 'KEY' \(jobs.yaml:11\): the environment variable SHOP_KEY is"):
            reference.resolve()
        monkeypatch.setenv("SHOP_KEY", "s3cret")
        assert reference.resolve() == "s3cret"

    def test_from_a_file(self, loaded: Load, project: Path) -> None:
        reference = loaded(WHOLE).secrets["PEM"]
        with pytest.raises(NotAvailable, match=r"secret 'PEM' \(jobs.yaml:12\).*No such file"):
            reference.resolve()
        for written, value in ((b"a\nb\n", "a\nb"), (b"a\r\n", "a"), (b"a\n\n", "a\n"), (b"", "")):
            (project / "pem.txt").write_bytes(written)
            assert reference.resolve() == value
        (project / "pem.txt").write_bytes(b"\xff")
        with pytest.raises(NotAvailable, match="not UTF-8"):
            reference.resolve()


def test_the_input_of_a_job_is_looked_for_when_it_runs(loaded: Load, project: Path) -> None:
    third = loaded(WHOLE).jobs["third"].input
    assert third is not None
    with pytest.raises(FileUnavailable, match=r"the input .*data.csv cannot be read: No such file"):
        third.read()
    (project / "data.csv").write_bytes(b"\x00\xff")
    assert third.read() == b"\x00\xff"
    assert JobInput(data=b"x").read() == b"x"


def many(functions: int, jobs: int) -> str:
    lines = ["version: 1", "functions:"]
    lines += [f"  f{n}:\n    wasm: functions/clean.wasm\n    env_vars: {{A: b}}" for n in range(functions)]
    lines += ["jobs:"]
    lines += [f"  j{n}:\n    run: f{n % functions}\n    input: {{json: [{n}]}}" for n in range(jobs)]
    return "\n".join(lines)


def test_a_large_file_loads(loaded: Load) -> None:
    begin = time.perf_counter()
    assert len(loaded(many(20, 5_000)).jobs) == 5_000
    assert time.perf_counter() - begin < 10


def test_a_file_of_nothing_but_problems_is_given_up(problems: Callable[[str], list[str]]) -> None:
    found = problems("version: 1\njobs: {" + "a, " * 100_000 + "}")
    assert len(found) == 10_001
    assert found[0] == "jobs.yaml: more than 10,000 problems; looking for more was given up"
    assert found[-1].startswith("jobs.yaml:2:30008 jobs.a: duplicate key 'a'")


def test_a_large_file_of_wrong_names_is_refused_as_fast(problems: Callable[[str], list[str]]) -> None:
    begin = time.perf_counter()
    assert len(problems(many(2_000, 2_000).replace("run: f", "run: g"))) == 2_000
    assert time.perf_counter() - begin < 20


KEYS = (*model_of(FileKeys).keys, *model_of(FunctionKeys).keys, *model_of(JobKeys).keys, "env", "file", "path", "json")
NAMES = ("sqlite", "wasmer", "tick", "boot", "every_seconds", "f", "x-a", "functions/clean.wasm", "<<", "", "\0", "ü")
WORDS = st.sampled_from((*KEYS, *NAMES))
SCALARS = WORDS | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(1)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.integers(0, 3), inner, max_size=6),
    max_leaves=30,
)
FILES = st.dictionaries(st.sampled_from([*model_of(FileKeys).keys, "x-y"]), TREES, max_size=7)
CONTENTS = FILES.map(lambda tree: yaml.safe_dump({"version": 1, **tree}, allow_unicode=True).encode())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(
    data=CONTENTS | st.binary(max_size=100) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace"))
)
def test_whatever_the_file_holds_it_is_loaded_or_refused(project: Path, data: bytes) -> None:
    (project / "jobs.yaml").write_bytes(data)
    problems: tuple[Problem, ...] = ()
    try:
        config = load("jobs.yaml", CATALOGUE)
        assert all(function.wasm or function.source for function in config.functions.values())
    except ConfigError as error:
        problems = error.problems
    assert all(problem.file == "jobs.yaml" and problem.message for problem in problems)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    )
)
def test_json_input_arrives_as_it_was_written(project: Path, value: Any) -> None:
    job = {"run": "f", "input": {"json": value}}
    tree = {"version": 1, "functions": {"f": {"wasm": "functions/clean.wasm"}}, "jobs": {"j": job}}
    # Quoted throughout: PyYAML would leave what only YAML 1.2 takes for a number without quotes.
    (project / "jobs.yaml").write_text(yaml.safe_dump(tree, default_style='"'), encoding="utf-8")
    read = load("jobs.yaml", CATALOGUE).jobs["j"].input
    assert read is not None
    assert json.loads(read.read()) == value
