"""jobs.yaml: what a valid file becomes, and every way in which a file is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.config import Config, JobInput, load
from runner.contracts import Provider
from runner.errors import ConfigError, FileUnavailable, NotAvailable, Problem, UsageError
from runner.jobskeys import FileKeys, FunctionKeys, JobKeys
from runner.schema import model_of
from runner.yamlnodes import MAX_BYTES


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    workers: int = field(default=2, metadata={"doc": "How many.", "minimum": 1})


@dataclass(frozen=True, kw_only=True)
class TickSettings:
    every_seconds: float = field(metadata={"doc": "The pause.", "above": 0})

    def __post_init__(self) -> None:
        if self.every_seconds == 13:
            raise ValueError("13 brings no luck")


def provider(name: str, settings: type[Any] | None = None) -> Provider[Any]:
    def create(_settings: object, _host: object) -> Any:
        raise AssertionError("loading must create nothing")

    return Provider(name=name, summary=f"The {name}.", create=create, settings=settings)


def by_name(*providers: Provider[Any]) -> Mapping[str, Provider[Any]]:
    return {one.name: one for one in providers}


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    registries: Mapping[str, Provider[Any]] = field(default_factory=lambda: by_name(provider("sqlite")))
    executors: Mapping[str, Provider[Any]] = field(
        default_factory=lambda: by_name(provider("wasmer", PoolSettings), provider("wasmtime"))
    )
    builders: Mapping[str, Provider[Any]] = field(default_factory=lambda: by_name(provider(".c,.cpp")))
    triggers: Mapping[str, Provider[Any]] = field(
        default_factory=lambda: by_name(provider("tick", TickSettings), provider("boot"))
    )


CATALOGUE = Catalogue()
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


WHOLE = """\
version: 1
namespace: shop
registry: {sqlite: {}}
x-small: &small
  memory_limit_mb: 16
defaults:
  executor: {wasmer: {workers: 3}}
  timeout_seconds: 10
  env_vars: {REGION: eu, MODE: test}
secrets:
  KEY: {env: SHOP_KEY}
  PEM: {file: pem.txt}
functions:
  x-unused: {nothing: here}
  clean:
    <<: *small
    wasm: functions/clean.wasm
    retry_count: 3
    env_vars: {MODE: live}
    x-note: ignored
  charge:
    source: functions/charge.c
    executor: wasmer
    secrets: [KEY]
    dlq_topic: charge.dead
    is_public: true
    description: Takes money
  other:
    wasm: functions/clean.wasm
    executor: wasmtime
    timeout_seconds: 0.5
jobs:
  second: {run: clean, input: "plain ü", output: {path: out/a.txt}}
  first:
    run: charge
    input: {json: {b: [1, 2.5, null, true], a: ü}}
    env_vars: {LIMIT: "3"}
    triggers:
      - tick: {every_seconds: 2}
      - boot:
  third: {run: clean, input: {path: data.csv}}
"""


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


FUNCTION = "functions: {f: {wasm: functions/clean.wasm}}"

REFUSED = {
    # the file as a whole
    "": "jobs.yaml: the file is empty; begin with `version: 1`",
    "# only a comment\n": "jobs.yaml: the file is empty",
    "- a": "jobs.yaml:1:1: expected a mapping that begins with `version: 1`, got a list",
    "hello": "jobs.yaml:1:1: expected a mapping that begins with `version: 1`, got 'hello'",
    "a: [": "jobs.yaml:2:1: not valid YAML",
    "version: 1\nversion: 1": "jobs.yaml:2:1: duplicate key 'version'; it stands in line 1 already",
    # keys
    "namespace: a": "jobs.yaml:1:1: 'version' is required: 1",
    "version: 2": "jobs.yaml:1:10 version: expected 1, got 2",
    "version: 1.0": "jobs.yaml:1:10 version: expected 1, got 1.0",
    "version: true": "jobs.yaml:1:10 version: expected 1, got true",
    "version: '1'": "jobs.yaml:1:10 version: expected 1, got '1'",
    "version: 1\nfuncions: {}": "jobs.yaml:2:1 funcions: unknown key 'funcions'; did you mean 'functions'?",
    "version: 1\nzzz: {}": "jobs.yaml:2:1 zzz: unknown key 'zzz'; known: defaults, functions, jobs, namespace",
    "version: 1\n2: {}": "jobs.yaml:2:1 [2]: unknown key 2; known: ",
    "version: 1\nnamespace: 3": "jobs.yaml:2:12 namespace: expected a name (a letter, then letters, digits, _ or -, at "
    "most 64), got 3; put it in quotes",
    "version: 1\nnamespace: a b": "jobs.yaml:2:12 namespace: expected a name",
    "version: 1\nfunctions:": "jobs.yaml:2:11 functions: expected a mapping, got nothing; leave the key out",
    "version: 1\nfunctions: []": "jobs.yaml:2:12 functions: expected a mapping, got a list",
    # registry
    "version: 1\nregistry: sqlit": "jobs.yaml:2:11 registry: no installed plugin provides registry 'sqlit'; did you "
    "mean 'sqlite'?",
    "version: 1\nregistry: postgres": "jobs.yaml:2:11 registry: no installed plugin provides registry 'postgres'; it "
    "comes with plugin runner_postgres",
    "version: 1\nregistry: {sqlite: {path: x}}": "jobs.yaml:2:20 registry.sqlite: registry 'sqlite' takes no settings",
    "version: 1\nregistry: [sqlite]": "jobs.yaml:2:11 registry: expected a registry's name, or a mapping from it to "
    "its settings, got a list",
    "version: 1\nregistry: 3": "jobs.yaml:2:11 registry: expected the name of a registry, got 3",
    # defaults
    "version: 1\ndefaults: {wasm: a}": "jobs.yaml:2:12 defaults.wasm: unknown key 'wasm'",
    "version: 1\ndefaults: {timeout: 3}": "jobs.yaml:2:12 defaults.timeout: unknown key 'timeout'; did you mean "
    "'timeout_seconds'?",
    "version: 1\ndefaults: {secrets: [A]}": "jobs.yaml:2:22 defaults.secrets[0]: no secret 'A' is declared; declare it",
    "version: 1\ndefaults: {executor: {auto: {}}}": "jobs.yaml:2:23 defaults.executor.auto: executor 'auto' takes no "
    "settings",
    "version: 1\ndefaults: {executor: {wasmer: {workers: 0}}}": "jobs.yaml:2:41 defaults.executor.wasmer.workers: "
    "expected an integer >= 1, got 0",
    "version: 1\ndefaults: {executor: {wasmer: {worker: 1}}}": "jobs.yaml:2:32 defaults.executor.wasmer.worker: "
    "unknown key 'worker'; did you mean 'workers'?",
    # secrets
    "version: 1\nsecrets: {A: {env: A, file: b}}": "jobs.yaml:2:23 secrets.A.file: 'file' stands beside 'env'; exactly "
    "one of 'env' and 'file' is allowed",
    "version: 1\nsecrets: {A: {}}": "jobs.yaml:2:14 secrets.A: one of 'env' or 'file' is required",
    "version: 1\nsecrets: {A: {env: null}}": "jobs.yaml:2:20 secrets.A.env: expected the name of a variable",
    "version: 1\nsecrets: {1A: {env: A}}": "jobs.yaml:2:11 secrets['1A']: expected a name",
    # jobs
    f"version: 1\n{FUNCTION}\njobs: {{j: {{run: g}}}}": "jobs.yaml:3:17 jobs.j.run: no function 'g' is declared; "
    "known: f",
    f"version: 1\n{FUNCTION}\njobs: {{j: {{}}}}": "jobs.yaml:3:11 jobs.j: one of 'run', 'steps' or 'batch' is required",
    f"version: 1\n{FUNCTION}\njobs: {{j: {{run: null}}}}": "jobs.yaml:3:17 jobs.j.run: expected a name",
    f"version: 1\n{FUNCTION}\njobs: {{j: {{steps: {{}}}}}}": "jobs.yaml:3:19 jobs.j.steps: no installed plugin "
    "provides 'steps'; it comes with plugin runner_pipeline",
    f"version: 1\n{FUNCTION}\njobs: {{j: {{batch: {{}}}}}}": "jobs.yaml:3:19 jobs.j.batch: no installed plugin "
    "provides 'batch'; it comes with plugin runner_files",
    f"version: 1\n{FUNCTION}\njobs: {{j: {{run: f, on: x}}}}": "jobs.yaml:3:20 jobs.j.on: unknown key 'on'; did you "
    "mean 'triggers'?",
    f"version: 1\n{FUNCTION}\njobs: {{j: {{run: f, output: x}}}}": "jobs.yaml:3:28 jobs.j.output: expected a mapping",
    f"version: 1\n{FUNCTION}\njobs: {{j: {{run: f, output: {{}}}}}}": "jobs.yaml:3:28 jobs.j.output: 'path' is",
    f"version: 1\n{FUNCTION}\njobs: {{j: {{run: f, input: 3}}}}": "jobs.yaml:3:27 jobs.j.input: expected a string or a "
    "mapping, got 3",
    f"version: 1\n{FUNCTION}\njobs: {{j: {{run: f, input: {{path: ''}}}}}}": "jobs.yaml:3:34 jobs.j.input.path: "
    "expected a path, got ''",
    f"version: 1\n{FUNCTION}\njobs: {{j: {{run: f, input: {{json: .nan}}}}}}": "jobs.yaml:3:34 jobs.j.input.json: "
    "expected a finite number, as JSON has it, got nan",
    f"version: 1\n{FUNCTION}\njobs: {{j: {{run: f, input: {{json: {{1: a}}}}}}}}": "jobs.yaml:3:35 "
    "jobs.j.input.json[1]: expected a string as key, as JSON has it, got 1; put it in quotes",
    f"version: 1\n{FUNCTION}\njobs: {{j: {{run: f, env_vars: {{'A=B': x}}}}}}": "jobs.yaml:3:31 "
    "jobs.j.env_vars['A=B']: expected the name of a variable",
    'version: 1\njobs: {j: {run: f, env_vars: {A: "\\0"}}}\n' + FUNCTION: "jobs.yaml:2:34 jobs.j.env_vars.A: expected "
    "a string without NUL",
    f"version: 1\n{FUNCTION}\njobs: {{j: {{run: f, triggers: {{tick: 1}}}}}}": "jobs.yaml:3:30 jobs.j.triggers: "
    "expected a list, got a mapping",
    f"version: 1\n{FUNCTION}\njobs: {{j: {{run: f, triggers: [boot]}}}}": "jobs.yaml:3:31 jobs.j.triggers[0]: expected "
    "a mapping with one key, the kind of trigger, got 'boot'; write `boot: {...}`",
    f"version: 1\n{FUNCTION}\njobs: {{j: {{run: f, triggers: [{{boot: , tick: }}]}}}}": "jobs.yaml:3:31 "
    "jobs.j.triggers[0]: expected a mapping with one key, the kind of trigger, got a mapping with 2 keys",
    f"version: 1\n{FUNCTION}\njobs: {{j: {{run: f, triggers: [{{cron: {{}}}}]}}}}": "jobs.yaml:3:32 "
    "jobs.j.triggers[0].cron: no installed plugin provides trigger 'cron'; it comes with plugin runner_apscheduler",
    f"version: 1\n{FUNCTION}\njobs: {{j: {{run: f, triggers: [{{tock: {{}}}}]}}}}": "jobs.yaml:3:32 "
    "jobs.j.triggers[0].tock: no installed plugin provides trigger 'tock'; did you mean 'tick'?",
    f"version: 1\n{FUNCTION}\njobs: {{j: {{run: f, triggers: [tick: ]}}}}": "jobs.yaml:3:37 jobs.j.triggers[0].tick: "
    "'every_seconds' is required: a number > 0",
    f"version: 1\n{FUNCTION}\njobs: {{j: {{run: f, triggers: [{{tick: {{every_seconds: 13}}}}]}}}}": "jobs.yaml:3:38 "
    "jobs.j.triggers[0].tick: refused: 13 brings no luck",
    f"version: 1\n{FUNCTION}\njobs: {{j: {{run: f, triggers: [{{boot: {{a: 1}}}}]}}}}": "jobs.yaml:3:38 "
    "jobs.j.triggers[0].boot: trigger 'boot' takes no settings",
}


@pytest.mark.parametrize("text", REFUSED)
def test_refused(problems: Callable[[str], list[str]], text: str) -> None:
    found = problems(text)
    assert len(found) == 1, found
    assert found[0].startswith(REFUSED[text])


FUNCTIONS_REFUSED = {
    "{}": "f: {}: one of 'wasm' or 'source' is required",
    "{wasm: functions/clean.wasm, source: functions/charge.c}": "source: 'source' stands beside 'wasm'",
    "{wasm: functions/clen.wasm}": "'functions/clen.wasm' does not exist; did you mean 'functions/clean.wasm'?",
    "{wasm: nowhere/a.wasm}": "'nowhere/a.wasm' does not exist; paths are meant from the folder of jobs.yaml",
    "{wasm: functions}": "'functions' is not a file",
    "{wasm: functions/clean.wasm/x}": "cannot be read: Not a directory",
    f"{{wasm: {'a' * 5000}}}": "cannot be read: File name too long",
    "{wasm: null}": "expected a path, got nothing",
    "{wasm: 3}": "expected a path, got 3; put it in quotes",
    '{wasm: "a\\0b"}': "expected a path, got 'a\\x00b'",
    "{source: functions/odd.rs}": "no installed plugin builds '.rs'; known: .c, .cpp",
    "{source: functions}": "'functions' is not a file",
    "{wasm: functions/clean.wasm, retry_count: three}": "expected an integer from 0 to 100, got 'three'",
    "{wasm: functions/clean.wasm, retry_count: '3'}": "expected an integer from 0 to 100, got '3'; remove the quotes",
    "{wasm: functions/clean.wasm, retry_count: 3.0}": "expected an integer from 0 to 100, got 3.0",
    "{wasm: functions/clean.wasm, retry_count: true}": "expected an integer from 0 to 100, got true",
    "{wasm: functions/clean.wasm, retry_count: -1}": "expected an integer from 0 to 100, got -1",
    "{wasm: functions/clean.wasm, retry_count: [1]}": "expected an integer from 0 to 100, got a list",
    "{wasm: functions/clean.wasm, retry_count: }": "expected an integer from 0 to 100, got nothing; leave the key out",
    "{wasm: functions/clean.wasm, memory_limit_mb: 4097}": "expected an integer from 1 to 4096, got 4097",
    "{wasm: functions/clean.wasm, timeout_seconds: 0}": "expected a number > 0 and <= 86400, got 0",
    "{wasm: functions/clean.wasm, timeout_seconds: .inf}": "expected a number > 0 and <= 86400, got inf",
    "{wasm: functions/clean.wasm, timeout_seconds: .nan}": "expected a number > 0 and <= 86400, got nan",
    f"{{wasm: functions/clean.wasm, timeout_seconds: 1{'0' * 90}}}": "expected a number > 0 and <= 86400, got 1000",
    "{wasm: functions/clean.wasm, timeout_seconds: 12:30}": "expected a number > 0 and <= 86400, got '12:30'",
    "{wasm: functions/clean.wasm, is_public: yes}": "expected true or false, got 'yes'; write true",
    "{wasm: functions/clean.wasm, is_public: 'true'}": "expected true or false, got 'true'; remove the quotes",
    "{wasm: functions/clean.wasm, is_public: 0}": "expected true or false, got 0",
    "{wasm: functions/clean.wasm, dlq_topic: 3}": "expected a string without NUL, got 3; put it in quotes",
    "{wasm: functions/clean.wasm, env_vars: {A: 3}}": "f.env_vars.A: expected a string without NUL, got 3; put it in",
    "{wasm: functions/clean.wasm, env_vars: [A]}": "expected a mapping, got a list",
    "{wasm: functions/clean.wasm, env_vars: {1: a}}": "f.env_vars[1]: expected the name of a variable",
    "{wasm: functions/clean.wasm, secrets: KEY}": "expected a list, got 'KEY'",
    "{wasm: functions/clean.wasm, secrets: [KEX]}": "f.secrets[0]: no secret 'KEX' is declared; did you mean 'KEY'?",
    "{wasm: functions/clean.wasm, executor: wasmar}": "no installed plugin provides executor 'wasmar'; did you mean",
    "{wasm: functions/clean.wasm, executor: dask}": "it comes with plugin runner_dask",
    "{wasm: functions/clean.wasm, executor: {wasmer: {}, wasmtime: {}}}": "expected an executor's name, or a mapping",
    "{wasm: functions/clean.wasm, executor: {}}": "expected an executor's name, or a mapping from it to its settings",
    "{wasm: functions/clean.wasm, executor: {wasmer: 3}}": "f.executor.wasmer: expected a mapping, got 3",
    "{wasm: functions/clean.wasm, allow: {}}": "f.allow: unknown key 'allow'",
    "{wasm: functions/clean.wasm, pure: true}": "f.pure: unknown key 'pure'",
    "{wasm: functions/clean.wasm, version: 3}": "f.version: unknown key 'version'",
    "3": "f: expected a mapping, got 3",
}


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
