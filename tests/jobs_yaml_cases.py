"""What the tests of jobs.yaml share: a catalogue of providers, a whole file, and files that are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runner.contracts import Provider


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    workers: int = field(default=2, metadata={"doc": "How many.", "minimum": 1})


@dataclass(frozen=True, kw_only=True)
class TickSettings:
    every_seconds: float = field(metadata={"doc": "The pause.", "above": 0})

    def __post_init__(self) -> None:
        if self.every_seconds == 13:
            raise ValueError("13 brings no luck")


@dataclass(frozen=True, kw_only=True)
class LinesSettings:
    path: str = field(metadata={"doc": "Where they are."})


def provider(name: str, settings: type[Any] | None = None, suffixes: tuple[str, ...] = ()) -> Provider[Any]:
    def create(_settings: object, _host: object) -> Any:
        raise AssertionError("loading must create nothing")

    return Provider(name=name, summary=f"The {name}.", create=create, settings=settings, suffixes=suffixes)


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
    sources: Mapping[str, Provider[Any]] = field(
        default_factory=lambda: by_name(provider("jsonl", LinesSettings, (".jsonl",)), provider("table"))
    )
    sinks: Mapping[str, Provider[Any]] = field(
        default_factory=lambda: by_name(provider("jsonl", LinesSettings, (".jsonl",)), provider("table"))
    )


CATALOGUE = Catalogue()

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

FUNCTION = "functions: {f: {wasm: functions/clean.wasm}}"

TO_B = "output: {path: b.jsonl}"
BATCH = f"{{function: f, input: {{path: a.jsonl}}, {TO_B}}}"
BATCHES = {
    "{function: f, input: {path: a.jsonl}}": "12 jobs.j.batch: 'output' is required",
    f"{{function: g, input: {{path: a.jsonl}}, {TO_B}}}": "23 jobs.j.batch.function: no function 'g' is declared",
    f"{{function: f, input: a.jsonl, {TO_B}}}": "33 jobs.j.batch.input: expected a mapping, such as "
    "{path: data.jsonl}; write `{path: a.jsonl}`, got 'a.jsonl'",
    f"{{function: f, input: {{path: a.xyz}}, {TO_B}}}": "40 jobs.j.batch.input.path: the ending of this path tells "
    "no format: add `format:`, one of jsonl, table",
    f"{{function: f, input: {{path: a.jsonl, sort: up}}, {TO_B}}}": "49 jobs.j.batch.input.sort: unknown key 'sort'",
    f"{{function: f, input: {{}}, {TO_B}}}": "33 jobs.j.batch.input: 'path' is required",
    f"{{function: f, input: {{format: tabel}}, {TO_B}}}": "42 jobs.j.batch.input.format: no installed plugin "
    "provides source 'tabel'; did you mean 'table'?",
    f"{{function: f, input: {{format: [a]}}, {TO_B}}}": "42 jobs.j.batch.input.format: expected the name of a format",
    "{function: f, input: {path: a.jsonl}, output: {path: '{partition}.jsonl'}, partitions: {by: value}}": "99 "
    "jobs.j.batch.partitions: "
    "'values' names the partitions",
    "{function: f, input: {path: a.jsonl}, output: {path: '{partition}.jsonl'}, "
    "partitions: {by: value, values: [1]}}": (
        "120 jobs.j.batch.partitions.values[0]: expected a name (letters, digits, ., _ or -, at most 64), got 1; put it"
    ),
    f"{{function: f, input: {{path: a.jsonl}}, {TO_B}, partitions: {{by: day}}}}": "58 jobs.j.batch.output: "
    "all partitions would write the same",
    f"{{function: f, input: {{path: '{{partition}}.jsonl'}}, {TO_B}}}": "33 jobs.j.batch.input: '{partition}' stands "
    "for nothing",
    f"{{function: f, input: {{path: a.jsonl}}, {TO_B}, on_error: ignore}}": "85 jobs.j.batch.on_error: "
    "expected one of 'fail', 'skip', 'quarantine'",
}
"""What may not stand under `batch:`, each with what is told, from the column on."""

REFUSED = {
    # the file as a whole
    "": "jobs.yaml: the file is empty; begin with `version: 1`",
    "# only a comment\n": "jobs.yaml: the file is empty",
    "- a": "jobs.yaml:1:1: expected a mapping that begins with `version: 1`, got a list",
    "hello": "jobs.yaml:1:1: expected a mapping that begins with `version: 1`, got 'hello'",
    "a: [": "jobs.yaml:2:1: not valid YAML",
    "version: 1\nversion: 1": "jobs.yaml:2:1 version: duplicate key 'version'; it stands in line 1 already",
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
    # grants
    "version: 1\ndefaults: {allow: {enqueue: [a]}}": "jobs.yaml:2:30 defaults.allow.enqueue[0]: no job 'a' is "
    "declared; declare it under `jobs`",
    "version: 1\ndefaults: {allow: {http: true}}": "jobs.yaml:2:20 defaults.allow.http: unknown key 'http'; known: "
    "enqueue",
    "version: 1\ndefaults: {secrets: [A]}\nsecrets: {A: {env: A}}\n"
    "functions: {f: {pure: true, wasm: functions/clean.wasm}}": "jobs.yaml:4:23 functions.f.pure: a pure function "
    "gives the same for the same input, whatever the world says, and so has no 'secrets'; take one of "
    "both away (`secrets: []` takes away what `defaults` gives)",
    "version: 1\ndefaults: {pure: true}": "jobs.yaml:2:12 defaults.pure: unknown key 'pure'",
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
    **{
        f"version: 1\n{FUNCTION}\njobs:\n  j:\n    batch: {keys}": f"jobs.yaml:5:{problem}"
        for keys, problem in BATCHES.items()
    },
    f"version: 1\n{FUNCTION}\njobs:\n  j:\n    input: text\n    batch: {BATCH}": "jobs.yaml:5:12 jobs.j.input: a batch "
    "has its own 'input'",
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
"""How the one problem of each file begins."""

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
    "{wasm: functions/clean.wasm, allow: [a]}": "f.allow: expected a mapping, got a list",
    "{wasm: functions/clean.wasm, allow: {enqueue: a}}": "f.allow.enqueue: expected a list, got 'a'",
    "{wasm: functions/clean.wasm, allow: {enqueue: [1a]}}": "f.allow.enqueue[0]: expected a name",
    "{wasm: functions/clean.wasm, executor: wasmar}": "no installed plugin provides executor 'wasmar'; did you mean",
    "{wasm: functions/clean.wasm, executor: dask}": "it comes with plugin runner_dask",
    "{wasm: functions/clean.wasm, executor: {wasmer: {}, wasmtime: {}}}": "expected an executor's name, or a mapping",
    "{wasm: functions/clean.wasm, executor: {}}": "expected an executor's name, or a mapping from it to its settings",
    "{wasm: functions/clean.wasm, executor: {wasmer: 3}}": "f.executor.wasmer: expected a mapping, got 3",
    "{wasm: functions/clean.wasm, pure: 1}": "f.pure: expected true or false, got 1",
    "{wasm: functions/clean.wasm, pure: true, secrets: [KEY]}": "f.pure: a pure function gives the same for the same",
    "{wasm: functions/clean.wasm, version: 3}": "f.version: unknown key 'version'",
    "3": "f: expected a mapping, got 3",
}
"""A function, and a part of its one problem."""
