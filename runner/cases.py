"""Tests of jobs.yaml: from their keys to frozen cases, with located errors.

Which keys there are is declared in runner.testkeys. Here is what they mean together: that names are
declared, that a case has what its function or job takes, that its expectation can be met.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from runner.config import CaseConfig, Expectation, ExpectedOutput, JobConfig, JobInput, Mock, StepConfig
from runner.errors import InvalidInput, InvocationError, RunnerError
from runner.kinds import INVALID
from runner.plan import ON_FAILURE
from runner.schema import Given
from runner.stepkeys import fits
from runner.yamlnodes import Entries, Node, join

COUNTS = ("records_in", "records_out", "failed")
"""The numbers of records that can be expected."""
STDIN = "-"
_OF_A_FAILURE = ("error", "message", "exit_code", "trap")
_OF_A_PIPELINE = ("params", "mocks")
_CALLED = {
    **{"timeout": "TimedOut", "Timeout": "TimedOut", "TimeoutError": "TimedOut", "oom": "OutOfMemory"},
    **{"OOM": "OutOfMemory", "MemoryError": "OutOfMemory", "trap": "Trapped", "Trap": "Trapped", "exit": "Exited"},
}


def _tree(root: type[RunnerError]) -> Iterator[type[RunnerError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


ERRORS: Mapping[str, type[RunnerError]] = MappingProxyType(
    {kind.__name__: kind for root in (InvocationError, InvalidInput) for kind in _tree(root)}
)
"""The errors that can be expected, by name: how a guest ends, and what is nobody's fault but the input's."""


class CaseReader:
    """Reads the tests of one file. What is wrong goes to the file's reader, and a case may only be used if
    nothing is."""

    def __init__(
        self,
        folder: Path,
        *,
        functions: Iterable[str],
        secrets: Iterable[str],
        job_names: Iterable[str],
        jobs: Mapping[str, JobConfig],
    ) -> None:
        """`functions`, `secrets` and `job_names` are all that are declared, `jobs` those that are valid."""
        self._folder = folder
        self._jobs = {name: job for name, job in jobs.items() if job.batch is not INVALID}
        self._functions, self._secrets, self._job_names = set(functions), set(secrets), set(job_names)

    def read(self, name: str, given: Given, line: int) -> CaseConfig | None:
        """The case; None if there is no telling what it is."""
        function, job = given.values.get("function"), given.values.get("job")
        self._check_target(given, function, job)
        for secret in given.values.get("secrets", {}):
            if secret not in self._secrets:
                _report_name(given, "secrets", secret, f"no secret {secret!r} is declared", self._secrets)
        configured = self._jobs.get(job) if job is not None else None
        if function in self._functions or configured is not None:
            self._check_use(given, configured)
        expect = given.values.get("expect")
        if expect is not None:
            _check_error(expect)
            _check_output(expect)
        if expect is None or not given.valid:
            return None
        return CaseConfig(
            name=name,
            function=function,
            job=job,
            description=given.values.get("description"),
            input=JobInput.of(given.values["input"], self._folder) if "input" in given.values else None,
            records=given.values.get("records"),
            env_vars=MappingProxyType(dict(given.values.get("env_vars", {}))),
            secrets=MappingProxyType(dict(given.values.get("secrets", {}))),
            params=MappingProxyType(dict(given.values.get("params", {}))),
            mocks=MappingProxyType({step: self._mock(mock) for step, mock in given.values.get("mocks", {}).items()}),
            expect=self._expectation(expect),
            line=line,
        )

    def _check_target(self, given: Given, function: str | None, job: str | None) -> None:
        if function is not None and function not in self._functions:
            hint = given.reader.guess(function, self._functions)
            if function in self._job_names:
                hint = f"; there is a job of that name: write `job: {function}`"
            given.report("function", f"no function {function!r} is declared{hint or '; declare it under `functions`'}")
        if job is not None and job not in self._job_names:
            hint = given.reader.guess(job, self._job_names)
            if job in self._functions:
                hint = f"; there is a function of that name: write `function: {job}`"
            given.report("job", f"no job {job!r} is declared{hint or '; declare it under `jobs`'}")

    # What goes with what

    def _check_use(self, given: Given, job: JobConfig | None) -> None:
        """That a case has no key that its function or job has no use for."""
        pipeline, batch = job is not None and bool(job.steps), job is not None and job.batch is not None
        if pipeline:
            assert job is not None
            self._check_pipeline(given, job)
        for key in () if pipeline else _OF_A_PIPELINE:
            if key in given.keys:
                given.report(key, f"{key!r} goes with a pipeline, which is a job with `steps`")
        if "records" in given.keys and not batch and job is not None:
            given.report("records", "'records' goes with a function or a batch")
        if "input" in given.keys and ("records" in given.keys or batch):
            given.report("input", "'input' cannot stand beside 'records'" if not batch else "a batch takes 'records'")
        if batch:
            assert job is not None
            _check_batch(given, job)
        expect = given.values.get("expect")
        if expect is not None:
            many = batch or "records" in given.keys
            _check_expectation(expect, many=many, lone=not (many and job is None), direct=not (pipeline or batch))
            _check_steps(expect, job)

    def _check_pipeline(self, given: Given, job: JobConfig) -> None:
        for name, value in given.values.get("params", {}).items():
            param = job.params.get(name)
            if param is None:
                _report_name(given, "params", name, f"job {job.name!r} has no parameter {name!r}", job.params)
            elif not fits(param.type, value):
                _, node, where = _entry(given, "params", name)
                given.reader.mismatch(node, where, f"a value of type {param.type}")
        if "params" in given.keys and "input" in given.keys:
            given.report("input", "'input' cannot stand beside 'params', which are the keys of a pipeline's input")
        known = _steps_of(job)
        for name, mock in given.values.get("mocks", {}).items():
            step = known.get(name)
            if step is None:
                _report_name(given, "mocks", name, f"job {job.name!r} has no step {name!r}", known)
                continue
            _check_error(mock)
            if "outputs" in mock.keys and step.foreach is None:
                mock.report("outputs", f"step {name!r} has no `foreach`, so it has one output: write `output`")
            if "message" in mock.keys and "error" not in mock.keys:
                mock.report("message", "'message' goes with an 'error'")

    # Values

    def _mock(self, given: Given) -> Mock:
        output, outputs = given.values.get("output"), given.values.get("outputs")
        return Mock(
            output=None if output is None else JobInput.of(output, self._folder),
            outputs=None if outputs is None else tuple(JobInput.of(one, self._folder) for one in outputs),
            error=given.values.get("error"),
            message=given.values.get("message") or "",
        )

    def _expectation(self, given: Given) -> Expectation:
        values = given.values
        error = values.get("error")
        if error is None:
            error = next((kind for key, kind in _implied() if values.get(key) is not None), None)
        fails = values.get("status") == "failed" or any(values.get(key) is not None for key in _OF_A_FAILURE)
        return Expectation(
            output=self._expected_output(given),
            succeeds=not fails,
            error=error,
            message=values.get("message"),
            exit_code=values.get("exit_code"),
            trap=values.get("trap"),
            counts=MappingProxyType({key: values[key] for key in COUNTS if values.get(key) is not None}),
            steps=MappingProxyType(dict(values.get("steps", {}))),
        )

    def _expected_output(self, expect: Given) -> ExpectedOutput | None:
        written = expect.values.get("output")
        if written is None:
            return None
        line = expect.nodes["output"].line
        if isinstance(written, str):
            return ExpectedOutput(form="text", value=written, line=line)
        form = next(key for key in written.model.one_of if key in written.keys)
        value = written.values.get(form)
        return ExpectedOutput(form=form, value=self._folder / value if form == "path" else value, line=line)


def _implied() -> tuple[tuple[str, str], ...]:
    return ("exit_code", "Exited"), ("trap", "Trapped")


def _check_batch(given: Given, job: JobConfig) -> None:
    assert job.batch is not None
    if "records" not in given.keys:
        streams = getattr(job.batch.input.settings, "path", None) == STDIN
        why = "has partitions" if job.batch.partitions is not None else "reads standard input" if streams else ""
        if why:
            given.report("job", f"{job.name!r} {why}; say with 'records' what the test runs over")
    if not hasattr(job.batch.output.settings, "path"):
        given.report("job", f"the output of {job.name!r} has no `path`, so that a test cannot keep it apart")


def _check_expectation(expect: Given, *, many: bool, lone: bool, direct: bool) -> None:
    """`many`: there are records; `lone`: it ends as one, and not record by record; `direct`: it ends as its
    function does."""
    if not expect.keys and expect.valid:
        expect.report("", f"expected at least one of {', '.join(expect.model.keys)}")
    for key in () if many else COUNTS:
        if key in expect.keys:
            expect.report(key, f"{key!r} goes with 'records' or with a batch")
    for key in () if lone else (*_OF_A_FAILURE, "status"):
        if key in expect.keys:
            expect.report(key, f"{key!r} cannot be told of many records; those that fail are counted in 'failed'")
    for key, error in _implied():
        if key not in expect.keys:
            continue
        if not direct:
            expect.report(key, f"{key!r} is known of functions only; expect an 'error' or a part of its 'message'")
        elif expect.values.get("error", error) != error:
            expect.report("error", f"{key!r} goes with {error}")
    failing = [key for key in _OF_A_FAILURE if key in expect.keys]
    if failing and expect.values.get("status") == "succeeded":
        expect.report("status", f"'succeeded' cannot stand beside {failing[0]!r}")
    if "output" in expect.keys and (failing or expect.values.get("status") == "failed"):
        expect.report("output", f"what fails has no output: leave out this or {(failing or ['status'])[0]!r}")


def _check_error(given: Given) -> None:
    error = given.values.get("error")
    if error is not None and error not in ERRORS:
        hint = given.reader.guess(error, ERRORS, _CALLED) or f"; such as {', '.join(list(ERRORS)[1:6])}"
        given.report("error", f"there is no error {error!r}{hint}")


def _check_output(expect: Given) -> None:
    written = expect.values.get("output")
    pattern = written.values.get("matches") if isinstance(written, Given) else None
    if pattern is not None:
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            assert isinstance(written, Given)
            written.report("matches", f"not a regular expression: {error}")


def _check_steps(expect: Given, job: JobConfig | None) -> None:
    if "steps" not in expect.keys:
        return
    if job is None or not job.steps:
        expect.report("steps", "'steps' goes with a pipeline, which is a job with `steps`")
        return
    known = _steps_of(job)
    for name in expect.values.get("steps", {}):
        if name not in known:
            _report_name(expect, "steps", name, f"job {job.name!r} has no step {name!r}", known)


def _steps_of(job: JobConfig) -> dict[str, StepConfig]:
    """All that a pipeline may run, by name."""
    return {**job.steps, **({ON_FAILURE: job.on_failure} if job.on_failure is not None else {})}


def _entry(given: Given, key: str, name: str) -> tuple[Node, Node, str]:
    """Name, value and place of an entry of a mapping."""
    entries = given.nodes[key]
    assert isinstance(entries, Entries)
    found, value = next(entry for entry in entries.entries if entry[0].value == name)
    return found, value, join(join(given.where, key), name)


def _report_name(given: Given, key: str, name: str, message: str, known: Iterable[str]) -> None:
    """Report the name of an entry of a mapping, with the nearest of those that are known."""
    node, _, where = _entry(given, key, name)
    given.reader.report(node, where, message + given.reader.guess(name, known))
