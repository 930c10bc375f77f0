"""`load` makes the frozen configuration from jobs.yaml, or raises every problem found.

Which keys there are is declared in runner.jobskeys, what plugins provide is looked up in
runner.catalogue. Here is what keys mean together. Nothing is started or changed by loading.
"""

from __future__ import annotations

import difflib
import itertools
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from runner.batchkeys import BatchKeys, PartitionKeys, names_partition
from runner.catalogue import Catalogue, Lookup
from runner.config import CaseConfig, Choice, Config, FunctionConfig, JobConfig, JobInput, SecretReference
from runner.errors import ConfigError, FileUnavailable, Problem
from runner.jobskeys import (
    AUTO_EXECUTOR,
    DEFAULT_REGISTRY,
    FileKeys,
    FunctionKeys,
    JobKeys,
    RecordingKeys,
    RetentionKeys,
    ReuseKeys,
    SecretKeys,
)
from runner.kinds import INVALID, MAX_PROBLEMS, PathKind, Reader, TextKind, TooManyProblemsError, is_x
from runner.models import FunctionDefinition, Rights
from runner.schema import Given, read_given
from runner.steps import PipelineReader, check_cycles, refuse_without_steps
from runner.yamlnodes import MAX_BYTES, Entries, Items, Node, Scalar, decode, join, parse, shorten


def load(path: Path | str, catalogue: Catalogue, *, data: bytes | None = None) -> Config:
    """Read and check a jobs.yaml; with `data` these bytes, as if they stood there.

    Raises ConfigError with every problem (up to MAX_PROBLEMS), in the order of the file, and
    FileUnavailable when it cannot be read. Providers are asked for nothing but their settings class; none is created.
    """
    path = Path(path)
    reader = Reader(str(path))
    config = None
    try:
        config = _Loader(path, catalogue, reader).load(_read(path) if data is None else data)
    except TooManyProblemsError:
        message = f"more than {MAX_PROBLEMS:,} problems; looking for more was given up"
        reader.problems[-1] = Problem(file=reader.file, line=0, column=0, where="", message=message)
    problems = reader.finish()
    if problems:
        raise ConfigError(problems)
    assert config is not None
    return config


def load_if_any(path: Path, catalogue: Catalogue) -> Config:
    """What stands in a jobs.yaml, or nothing where there is none; raises what `load` does."""
    return load(path, catalogue, data=None if path.exists() else b"version: 1")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise FileUnavailable(f"there is no {path}; `runner init` makes one, `--file` names another") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise FileUnavailable(f"{path} cannot be read: {reason}") from error


class _Loader:
    """Makes the configuration of one file. Whatever is wrong goes to the reader and loading goes on,
    so that the result may only be used when the reader has no problem."""

    def __init__(self, path: Path, catalogue: Catalogue, reader: Reader) -> None:
        self._path, self._reader = path.absolute(), reader
        self._lookup = Lookup(catalogue, reader)
        self._default_executor: Any = INVALID
        self._job_names: Mapping[str, None] = {}
        reader.customs = {
            "file": self._existing_file,
            "executor": self._executor,
            "registry": self._lookup.registry,
            "trigger": self._lookup.trigger,
            "jobs": self._other_jobs,
            "batch": lambda node, where: read_given(reader, node, BatchKeys, where),
            "source": self._lookup.source,
            "sink": self._lookup.sink,
            "secret": self._secret_keys,
            "test": self._case_keys,
            "error": lambda node, where: TextKind().read(reader, node, where),
        }

    def load(self, data: bytes) -> Config | None:
        root = self._root(data)
        if root is None:
            return None
        self._default_executor = self._read_default_executor(root)
        self._job_names = dict.fromkeys(_keys(root, "jobs"))
        file = read_given(self._reader, root, FileKeys, "")
        namespace = file.values.get("namespace", "default")
        registry = file.values.get("registry")
        if "registry" not in file.keys:
            registry = self._lookup.registry(Scalar(0, 0, DEFAULT_REGISTRY, True), "registry")
        jobs = self._jobs(file)
        return Config(
            path=self._path,
            namespace=namespace,
            registry=registry,
            secrets=MappingProxyType(self._secrets(file)),
            functions=MappingProxyType(self._functions(file, namespace)),
            jobs=MappingProxyType(jobs),
            queues=MappingProxyType({name: keys.concurrency for name, keys in file.values.get("queues", {}).items()}),
            retention=file.values.get("retention", RetentionKeys()),
            reuse=file.values.get("reuse", ReuseKeys()),
            recording=file.values.get("recording", RecordingKeys()),
            tests=MappingProxyType(self._tests(file, jobs)),
        )

    def _root(self, data: bytes) -> Node | None:
        """The file's mapping; None after reporting that there is none."""
        if len(data) > MAX_BYTES:
            self._reader.report_at(0, 0, "", f"the file is larger than {MAX_BYTES:,} bytes, the most that is read")
            return None
        text = decode(data, self._reader.report_at)
        if text is None:
            return None
        node = parse(text, self._reader.report_at)
        if isinstance(node, Entries) or self._reader.problems:
            return node if isinstance(node, Entries) else None
        if node is None or (isinstance(node, Scalar) and node.value is None):
            message = "the file is empty; begin with `version: 1`, or let `runner init` make one to start from"
            self._reader.report_at(0, 0, "", message)
        else:
            self._reader.mismatch(node, "", "a mapping that begins with `version: 1`")
        return None

    def _read_default_executor(self, root: Node) -> Any:
        """The Choice in `defaults`, wherever it stands in the file: a function's bare name means it."""
        defaults = root.get("defaults") if isinstance(root, Entries) else None
        node = defaults.get("executor") if isinstance(defaults, Entries) else None
        return INVALID if node is None else self._lookup.executor(node, "defaults.executor")

    def _executor(self, node: Node, where: str) -> Any:
        default = self._default_executor
        if isinstance(node, Scalar) and isinstance(default, Choice) and default.name == node.value:
            return default
        return self._lookup.executor(node, where)

    def _other_jobs(self, node: Node, where: str) -> Any:
        """The names of jobs of this file, one or a list, as a tuple without repetitions; or INVALID."""
        names = []
        for index, item in enumerate(node.items if isinstance(node, Items) else [node]):
            place = f"{where}[{index}]" if isinstance(node, Items) else where
            name = TextKind().read(self._reader, item, place)
            if name is not INVALID and name not in self._job_names:
                hint = self._reader.guess(name, self._job_names) or "; declare it under `jobs`"
                name = self._reader.report(item, place, f"no job {shorten(name)} is declared{hint}")
            names.append(name)
        return INVALID if INVALID in names else tuple(dict.fromkeys(names))

    def _existing_file(self, node: Node, where: str) -> Any:
        """The absolute path of a regular file, or INVALID."""
        path = PathKind().read(self._reader, node, where)
        if path is INVALID:
            return INVALID
        target = self._path.parent / path
        try:
            if stat.S_ISREG(target.stat().st_mode):
                return target
            problem = "is not a file"
        except FileNotFoundError:
            problem = f"does not exist; {_near_file(target, path) or 'paths are meant from the folder of jobs.yaml'}"
        except (OSError, UnicodeError) as error:
            problem = f"cannot be read: {getattr(error, 'strerror', error)}"
        return self._reader.report(node, where, f"{shorten(str(path))} {problem}")

    def _secret_keys(self, node: Node, where: str) -> Any:
        if not isinstance(node, Entries):
            message = "a secret is a reference, never a value: write {env: VARIABLE} or {file: PATH}"
            return self._reader.report(node, where, message)
        given = read_given(self._reader, node, SecretKeys, where)
        return given if given is INVALID else given.build()

    def _secrets(self, file: Given) -> dict[str, SecretReference]:
        lines = _lines(file, "secrets")
        return {
            name: SecretReference(
                name=name,
                env=keys.env,
                file=None if keys.file is None else self._path.parent / keys.file,
                place=f"{self._reader.file}:{lines[name]}",
            )
            for name, keys in file.values.get("secrets", {}).items()
        }

    def _functions(self, file: Given, namespace: str) -> dict[str, FunctionConfig]:
        defaults = file.values.get("defaults")
        secrets, jobs = _lines(file, "secrets"), _lines(file, "jobs")
        if defaults is not None:
            self._check_grants(defaults, secrets, jobs)
        lines, functions = _lines(file, "functions"), {}
        for name, given in file.values.get("functions", {}).items():
            self._check_grants(given, secrets, jobs)
            if "source" in given.values:
                self._lookup.check_source(given.values["source"], given.nodes["source"], join(given.where, "source"))
            keys = FunctionKeys(**(_merged(defaults.values, given.values) if defaults else given.values))
            if keys.pure and (keys.secrets or keys.allow.enqueue):
                given.report("pure", _impure("secrets" if keys.secrets else "allow"))
            functions[name] = _function(name, namespace, keys, lines[name])
        return functions

    def _check_grants(self, given: Given, secrets: Mapping[str, int], jobs: Mapping[str, int]) -> None:
        """That every secret and job that is granted by name is declared."""
        names = given.values.get("secrets", ())
        self._check_declared("secret", names, given.nodes.get("secrets"), join(given.where, "secrets"), secrets)
        allow = given.nodes.get("allow")
        if isinstance(allow, Entries) and "allow" in given.values:
            where = join(join(given.where, "allow"), "enqueue")
            self._check_declared("job", given.values["allow"].enqueue, allow.get("enqueue"), where, jobs)

    def _check_declared(
        self, what: str, names: Sequence[str], node: Node | None, where: str, known: Mapping[str, int]
    ) -> None:
        for index, item in enumerate(node.items if isinstance(node, Items) else ()):
            if isinstance(item, Scalar) and item.value in names and item.value not in known:
                hint = self._reader.guess(item.value, known) or f"; declare it under `{what}s`"
                self._reader.report(item, f"{where}[{index}]", f"no {what} {item.value!r} is declared{hint}")

    def _jobs(self, file: Given) -> dict[str, JobConfig]:
        functions, lines, jobs = _lines(file, "functions"), _lines(file, "jobs"), {}
        for name, given in file.values.get("jobs", {}).items():
            if given.values.get("run") is not None:
                self._check_function(given, "run", functions)
            if "batch" in given.values:
                self._check_batch(given, given.values["batch"], functions)
            pipeline = self._pipeline(given, functions, lines)
            keys = given.build()
            if keys is not INVALID:
                jobs[name] = self._job(name, keys, lines[name], pipeline)
        check_cycles(file.values.get("jobs", {}))
        return jobs

    @staticmethod
    def _pipeline(job: Given, functions: Mapping[str, int], jobs: Mapping[str, int]) -> dict[str, Any]:
        """The fields of a JobConfig that only a pipeline has."""
        if "steps" in job.values:
            return PipelineReader(job, functions, jobs).read()
        if "steps" not in job.keys:
            refuse_without_steps(job)
        return {}

    def _check_function(self, given: Given, key: str, known: Mapping[str, int]) -> None:
        name = given.values.get(key)
        if name is not None and name not in known:
            given.report(key, f"no function {name!r} is declared{self._no_function(name, known)}")

    def _check_batch(self, job: Given, batch: Given, known: Mapping[str, int]) -> None:
        self._check_function(batch, "function", known)
        for key in ("input", "output"):
            if key in job.keys:
                job.report(key, f"a batch has its own {key!r}: put it under `batch:`")
        partitions = batch.values.get("partitions")
        if partitions is None and "partitions" in batch.keys:
            return  # there are some, and what is wrong with them was reported
        if partitions is not None and (partitions.by == "value") != bool(partitions.values):
            batch.report("partitions", "'values' names the partitions of `by: value`, and of no other")
        for key in ("input", "output"):
            self._check_partitioned(batch, key, partitions)

    @staticmethod
    def _check_partitioned(batch: Given, key: str, partitions: PartitionKeys | None) -> None:
        """Without `{partition}` all partitions would write one file; without partitions it stands for nothing."""
        choice = batch.values.get(key)
        named = choice is not None and choice.settings is not None and names_partition(choice.settings)
        if named and partitions is None:
            batch.report(key, "'{partition}' stands for nothing: there are no `partitions` under `batch:`")
        if key == "output" and choice is not None and not named and partitions is not None:
            batch.report(key, "all partitions would write the same: put '{partition}' into its path")

    def _no_function(self, name: str, known: Mapping[str, int]) -> str:
        if name.startswith("x-"):
            return "; names that begin with x- are ignored"
        return self._reader.guess(name, known) or "; declare it under `functions`"

    def _job(self, name: str, keys: JobKeys, line: int, pipeline: dict[str, Any]) -> JobConfig:
        return JobConfig(
            name=name,
            run=keys.run,
            batch=None if keys.batch is None else keys.batch.build(),
            description=keys.description,
            input=None if keys.input is None else JobInput.of(keys.input, self._path.parent),
            output=None if keys.output is None else self._path.parent / keys.output.path,
            env_vars=MappingProxyType(dict(keys.env_vars)),
            triggers=keys.triggers,
            line=line,
            **pipeline,
        )

    def _case_keys(self, node: Node, where: str) -> Any:
        from runner.testkeys import CaseKeys  # many files have no tests, and many commands are in a hurry

        return read_given(self._reader, node, CaseKeys, where)

    def _tests(self, file: Given, jobs: Mapping[str, JobConfig]) -> dict[str, CaseConfig]:
        if not file.values.get("tests"):
            return {}
        from runner.cases import CaseReader

        reader = CaseReader(
            self._path.parent,
            functions=_lines(file, "functions"),
            secrets=_lines(file, "secrets"),
            job_names=self._job_names,
            jobs=jobs,
        )
        lines = _lines(file, "tests")
        cases = (reader.read(name, given, lines[name]) for name, given in file.values["tests"].items())
        return {case.name: case for case in cases if case is not None}


def _keys(root: Node, key: str) -> list[str]:
    """The names that are declared under a top-level key, valid or not."""
    node = root.get(key) if isinstance(root, Entries) else None
    entries = node.entries if isinstance(node, Entries) else []
    return [name.value for name, _ in entries if isinstance(name.value, str) and not is_x(name)]


def _lines(file: Given, key: str) -> dict[str, int]:
    """The line of every name that is declared under a top-level key, valid or not."""
    node = file.nodes.get(key)
    entries = node.entries if isinstance(node, Entries) else []
    return {name.value: name.line for name, _ in entries if isinstance(name.value, str) and not is_x(name)}


def _merged(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**defaults, **given}
    if "env_vars" in defaults and "env_vars" in given:
        merged["env_vars"] = {**defaults["env_vars"], **given["env_vars"]}
    return merged


def _function(name: str, namespace: str, keys: FunctionKeys, line: int) -> FunctionConfig:
    executor = keys.executor if isinstance(keys.executor, Choice) else Choice(name=AUTO_EXECUTOR)
    definition = FunctionDefinition(
        name=name,
        namespace=namespace,
        memory_limit_mb=keys.memory_limit_mb,
        timeout_seconds=keys.timeout_seconds,
        is_public=keys.is_public,
        retry_count=keys.retry_count,
        retry_delay_seconds=keys.retry_delay_seconds,
        dlq_topic=keys.dlq_topic,
        env_vars=MappingProxyType(dict(keys.env_vars)),
        executor=executor.name,
        secrets=keys.secrets,
        allow=Rights(enqueue=keys.allow.enqueue),
        pure=keys.pure,
    )
    return FunctionConfig(
        definition=definition,
        wasm=keys.wasm,
        source=keys.source,
        executor=executor,
        description=keys.description,
        line=line,
    )


def _impure(key: str) -> str:
    nothing = "[]" if key == "secrets" else "{}"
    return (
        f"a pure function gives the same for the same input, whatever the world says, and so has no {key!r}; take one "
        f"of both away (`{key}: {nothing}` takes away what `defaults` gives)"
    )


def _near_file(target: Path, path: Path) -> str:
    """`did you mean ...?` for a file that is not there but whose neighbour may be meant."""
    try:
        names = [entry.name for entry in itertools.islice(target.parent.iterdir(), 500)]
    except OSError:
        return ""
    close = difflib.get_close_matches(target.name, names, 1)
    return f"did you mean {str(path.with_name(close[0]))!r}?" if close else ""
