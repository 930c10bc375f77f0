"""Tests of jobs.yaml carried out: which, several at once, each in its sandbox, in a store that is thrown away.

What had to come of each is compared in runner.verdicts; records are run through runner.batch.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any

from runner.app import STATE_FOLDER, Runner
from runner.config import CaseConfig, Choice, Config, FunctionConfig
from runner.contracts import FunctionExecutor
from runner.errors import (
    FileUnavailable,
    InvalidInput,
    NotAvailable,
    RunnerError,
    Stopped,
    StoreReadOnly,
    UnsupportedFeature,
    UsageError,
)
from runner.files import make_state_folder, read_file, write_whole
from runner.jobskeys import DEFAULT_REGISTRY
from runner.models import Function, InvocationContext
from runner.plugins import Plugins
from runner.verdicts import CaseReport, Outcome, Verdict, judge, logged

STOP_SECONDS = 0.05
"""How often what has to end is told so, until it has."""


# Which


def choose_cases(config: Config, names: Sequence[str], *, function: str | None = None) -> list[CaseConfig]:
    """The cases with these names or patterns (`clean_*`), all without any, in the order of the file; of those
    only the ones that run the function, if one is named. Raises UsageError for what means nothing here, and
    when nothing is left."""
    file = config.path.name
    if not config.tests:
        raise UsageError(f"nothing to test in {file}: it declares no tests; put some under `tests:`")
    chosen = {name for given in names for name in _meant(given, config)} if names else set(config.tests)
    cases = [case for name, case in config.tests.items() if name in chosen]
    if function is not None:
        _check_known(function, config.functions, f"function {function!r}", file)
        cases = [case for case in cases if function in functions_of(case, config)]
        if not cases:
            raise UsageError(f"nothing to test: none of these tests runs function {function!r}")
    return cases


def _meant(given: str, config: Config) -> list[str]:
    found = [name for name in config.tests if name == given or fnmatchcase(name, given)]
    if not found:
        _check_known(given, config.tests, f"test {given!r}", config.path.name)
    return found


def _check_known(name: str, known: Iterable[str], what: str, file: str) -> None:
    names = list(known)
    if name not in names:
        near = get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names[:20]) or 'none'}"
        raise UsageError(f"no {what} in {file}; {hint}")


def functions_of(case: CaseConfig, config: Config) -> list[str]:
    """The functions that a case may run, those of jobs that its steps start included, each once; not those of
    mocked steps."""
    if case.function is not None:
        return [case.function]
    job = config.jobs[case.job or ""]
    if not job.steps:
        return list(job.functions)
    steps = [step for step in (*job.steps.values(), job.on_failure) if step is not None and step.name not in case.mocks]
    started = [function for step in steps if step.job is not None for function in config.functions_of(step.job)]
    return list(dict.fromkeys([step.run for step in steps if step.run is not None] + started))


# Where


@contextmanager
def scratch_runner(
    config: Config, plugins: Plugins, *, state_dir: Path | None, notify: Callable[[str], None]
) -> Iterator[Runner]:
    """A Runner over what jobs.yaml declares that keeps nothing and knows no secret, and in which nothing is
    tried twice. Only compiled modules are kept, in the project's own state folder if it can be written."""
    cache: Path | None = (state_dir or config.folder / STATE_FOLDER).absolute()
    try:
        assert cache is not None
        make_state_folder(cache)
    except (FileUnavailable, StoreReadOnly):
        cache = None
    with (
        tempfile.TemporaryDirectory(prefix="runner-test-") as folder,
        Runner(_apart(config), plugins, state_dir=Path(folder), cache_dir=cache, notify=notify) as runner,
    ):
        runner.may_reuse = False
        yield runner


def _apart(config: Config) -> Config:
    return replace(
        config,
        registry=Choice(name=DEFAULT_REGISTRY),
        secrets=MappingProxyType({}),
        functions=MappingProxyType({name: _tried_once(function) for name, function in config.functions.items()}),
    )


def _tried_once(function: FunctionConfig) -> FunctionConfig:
    return replace(function, definition=replace(function.definition, retry_count=0))


# How


class CaseRuns:
    """Runs cases and tells how each ended. `run` may be called once."""

    def __init__(
        self,
        runner: Runner,
        cases: Sequence[CaseConfig],
        *,
        started: Callable[[str], None] = lambda _: None,
        ended: Callable[[str], None] = lambda _: None,
        fail_fast: bool = False,
        update: bool = False,
    ) -> None:
        """`runner` is one from `scratch_runner`. `started` and `ended` are told a case's name, from several
        threads. With `update` files with expected outputs are written where they are all that is wrong."""
        self.runner, self.cases = runner, cases
        self._started, self._ended = started, ended
        self._fail_fast, self._update = fail_fast, update
        self._functions: dict[str, Function | RunnerError] = {}
        self._updated: dict[Path, tuple[str, bytes]] = {}
        self._lock = threading.Lock()
        self._running: dict[str, FunctionExecutor] = {}
        self._stopping = False
        self._told = 0

    def run(self) -> Generator[CaseReport, None, None]:
        """One report a case, in order. After the first bad one with `fail_fast` the others are `skipped`.
        Whenever the iterator is closed what still runs is stopped."""
        self._prepare()
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="case") as pool:
            futures = [pool.submit(self._run_one, case) for case in self.cases]
            try:
                for case, future in zip(self.cases, futures, strict=True):
                    report = self._settled(case, *future.result())
                    self._told += 1
                    yield report
                    if report.is_bad and self._fail_fast:
                        self._stop(futures)
                        yield from self.left(f"{case.name} went wrong before it")
                        return
            finally:
                self._stop(futures)

    def left(self, why: str = "interrupted") -> Iterator[CaseReport]:
        """A `skipped` report for every case of which nothing was told yet."""
        for case in self.cases[self._told :]:
            self._told += 1
            yield _report(case, "skipped", [why])

    def _prepare(self) -> None:
        """Register and compile every function that is needed. What is in the way of one is told of each case
        that needs it."""
        names = {name: None for case in self.cases for name in functions_of(case, self.runner.config)}
        for name in names:
            self.runner.prepare(name)
        for name in names:
            try:
                self._functions[name] = self._prepared(name)
            except RunnerError as error:
                self._functions[name] = error

    def _prepared(self, name: str) -> Function:
        function = self.runner.register(name).function
        wasm = self.runner.registry.get_wasm_bytes(function.wasm_cid)
        # Here and not at the first call: a compilation in another thread would not end at Ctrl-C.
        with suppress(UnsupportedFeature):  # for which `auto` may have another executor
            self.runner.executor_for(function).precompile(
                function.wasm_cid, wasm, memory_limit_mb=function.memory_limit_mb
            )
        return function

    def _run_one(self, case: CaseConfig) -> tuple[Outcome | None, Verdict | RunnerError]:
        """What came of it, if anything did, and what that means."""
        self._started(case.name)
        try:
            outcome = self._outcome(case)
            return outcome, judge(case.expect, outcome, read_file, self.runner.project_dir)
        except RunnerError as error:
            return None, error
        finally:
            self._ended(case.name)

    def _settled(self, case: CaseConfig, outcome: Outcome | None, verdict: Verdict | RunnerError) -> CaseReport:
        if isinstance(verdict, RunnerError):
            stderr = getattr(verdict, "stderr_tail", "")
            return _report(case, "error", str(verdict).splitlines(), stderr=stderr, error=verdict)
        assert outcome is not None
        status, lines = ("failed" if verdict.lines else "passed"), verdict.lines
        if verdict.update is not None and self._update:
            status, lines = self._write(case.name, *verdict.update)
        return _report(case, status, lines, stderr=outcome.stderr, duration_ms=outcome.duration_ms)

    def _write(self, name: str, path: Path, data: bytes) -> tuple[str, tuple[str, ...]]:
        shown = path.relative_to(self.runner.project_dir) if path.is_relative_to(self.runner.project_dir) else path
        if path in self._updated:
            other, written = self._updated[path]
            if written == data:
                return "passed", ()
            return "failed", (f"{shown} has just been written for {other}, whose output is another; use two files",)
        write_whole(path, data)
        self._updated[path] = (name, data)
        return "updated", (f"wrote {shown}",)

    # One case

    def _outcome(self, case: CaseConfig) -> Outcome:
        if case.function is not None and case.records is None:
            return self._call(case, case.function, case.env_vars, case.input.read() if case.input else b"")
        if case.function is not None:
            return self._batch(case)
        job = self.runner.config.job(case.job or "")
        if job.batch is not None:
            return self._batch(case)
        if job.run is not None:
            given = case.input or job.input
            return self._call(case, job.run, {**job.env_vars, **case.env_vars}, given.read() if given else b"")
        from runner import casepipelines

        return casepipelines.run(self, case, job)

    def _call(self, case: CaseConfig, name: str, env_vars: Mapping[str, str], data: bytes) -> Outcome:
        try:
            function = self.function(name)
            context, executor = self.context(case, function, env_vars), self.runner.executor_for(function)
            with self.running(context, executor):
                result = self.runner.dispatcher.try_once(executor, function, data, context)
        except InvalidInput as error:  # the module is refused
            return Outcome.of_error(error)
        facts: dict[str, Any] = {"stderr": logged(result.logs), "duration_ms": result.duration_ms}
        return Outcome(output=result.output, **facts) if not result.error else Outcome.of_error(result.error, **facts)

    def _batch(self, case: CaseConfig) -> Outcome:
        from runner import casebatches

        runner = self.runner
        with tempfile.TemporaryDirectory(dir=runner.state_dir, prefix="batch-") as folder:
            job = casebatches.job_of(runner, case, Path(folder))
            function = self.function(job.functions[0])
            context, executor = self.context(case, function, job.env_vars), runner.executor_for(function)
            with self.running(context, executor):
                return casebatches.run(runner, job, function, context, executor, Path(folder))

    # What running one takes

    def function(self, name: str) -> Function:
        """The registered function. Raises why there is none."""
        found = self._functions[name]
        if isinstance(found, RunnerError):
            raise found
        return found

    def context(self, case: CaseConfig, function: Function, env_vars: Mapping[str, str]) -> InvocationContext:
        """The facts of the case's invocations, with its own made-up secrets. Raises NotAvailable without a
        value for one that the function is granted."""
        for name in function.secrets:
            if name not in case.secrets:
                raise NotAvailable(
                    f"function {function.name!r} is granted the secret {name!r}, and a test looks up no real one; "
                    f"add a made-up value: secrets: {{{name}: ...}}"
                )
        context = self.runner.context(function, env_vars)
        return replace(context, secrets={name: case.secrets[name] for name in function.secrets})

    @contextmanager
    def running(self, context: InvocationContext, executor: FunctionExecutor) -> Iterator[None]:
        """While what has this context runs, it can be stopped. Raises Stopped if everything is to end."""
        with self._lock:
            if self._stopping:
                raise Stopped(begun=False)
            self._running[context.request_id] = executor
        try:
            yield
        finally:
            with self._lock:
                del self._running[context.request_id]

    def _stop(self, futures: Sequence[Future[tuple[Outcome | None, Verdict | RunnerError]]]) -> None:
        """End what runs, and wait until it has ended."""
        for future in futures:
            future.cancel()
        with self._lock:
            self._stopping = True
        while wait(futures, timeout=0).not_done:
            with self._lock:
                running = list(self._running.items())
            for request_id, executor in running:
                executor.stop(request_id)
            wait(futures, timeout=STOP_SECONDS)


def _report(case: CaseConfig, status: str, lines: Iterable[str], **facts: Any) -> CaseReport:
    return CaseReport(case=case, status=status, lines=tuple(lines), **facts)
