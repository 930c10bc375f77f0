"""Replaying: a past attempt once more, offline, with what the world told it then, and what differs.

Nothing is written and nobody is asked: an engine is started for it that has no host behind it.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.app import Runner
from runner.automatic import PREFERRED_EXECUTORS, AutoExecutor
from runner.config import SecretReference
from runner.contracts import FunctionExecutor, Host
from runner.differences import text_or_bytes
from runner.errors import EngineUnavailable, InvalidInput, NotAvailable, UsageError
from runner.jobskeys import AUTO_EXECUTOR
from runner.ledger import Attempt, AttemptStatus, Run
from runner.models import Function, InvocationContext, InvocationResult, Replay
from runner.plugins import Plugins
from runner.recordings import NOT_KEPT, Kept, facts_of
from runner.repro import Expected, Repro
from runner.runs import MAX_LOG_LINES, MAX_MESSAGE_CHARACTERS, storable
from runner.wasm import content_id
from runner.workers.recording import Recorded

_COMPARABLE = (AttemptStatus.SUCCEEDED, AttemptStatus.FAILED, AttemptStatus.LOST)


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Something that was not as it had been."""

    part: str
    """`status`, `error`, `output` or `logs`."""
    lines: Sequence[str]
    """As runner.differences tells it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """How a replay ended."""

    function: Function
    executor: str
    result: InvocationResult
    recording: str
    """`whole`, `cut`, `none`, or `pure`: then none was needed."""
    recorded_by: str
    """The engine that ran it then; empty if that is not known."""
    differences: Sequence[Difference]

    @property
    def is_same(self) -> bool:
        """Whether everything was as it had been."""
        return not self.differences


# What there is to replay


def of_run(runner: Runner, run_id: int, number: int | None = None) -> Repro:
    """An attempt of a run of the queue, the latest that ended by itself unless another is named. Raises
    RunNotFound, UsageError for what cannot be replayed, InvalidInput for an input that is gone."""
    store = runner.store
    run = store.get(run_id)
    job = runner.config.jobs.get(run.job)
    if run.function is None:
        raise UsageError(
            f"run {run_id} is a pipeline; replay its steps, which `runner runs list --parent {run_id}` shows"
        )
    if job is not None and job.batch is not None:
        raise UsageError(f"run {run_id} is of a batch, which goes on where it was; its records can be run one by one")
    attempt = _attempt(run, store.attempts(run_id), number)
    data = store.recording(run_id, attempt.number)
    kept, lacks = _kept(runner, run, attempt, data)
    return Repro(
        name=f"run {run_id}, attempt {attempt.number}",
        attempt=attempt.number,
        kept=kept,
        wasm=runner.registry.get_wasm_bytes(kept.wasm_cid),
        input=_input(runner, run, kept),
        expected=_expected(runner, run, attempt, kept),
        lacks=lacks,
    )


def of_quarantine(runner: Runner, path: Path, line: int, function: Function | None) -> Repro:
    """A record of a quarantine, for the function that it failed in unless another is named. Raises
    FileUnavailable, InvalidInput, UsageError for a record that does not tell its function."""
    from runner.batch.quarantine import read_quarantine

    found = next(itertools.islice(read_quarantine(path, str(path)), max(line - 1, 0), None), None)
    if found is None or line < 1:
        raise InvalidInput(f"{path} has no line {line}")
    record = found[1]
    if not record.whole:
        raise InvalidInput(f"{path}:{line} has only the beginning of a record that was too long")
    if function is None and not record.attempts:
        raise UsageError(
            f"{path}:{line} was seen by no function ({record.message}); "
            f"`runner replay {path}:{line} --function NAME` lets one see it"
        )
    kept, lacks = _kept_of_record(runner, f"{path}:{line}", record.recording, function)
    failed = Expected(
        error_class=record.error_class, message=record.message, logs=(), logs_are_whole=False, output=None
    )
    return Repro(
        name=f"{path}:{line}",
        kept=kept,
        wasm=runner.registry.get_wasm_bytes(kept.wasm_cid),
        input=record.lead + record.record,
        expected=failed,
        lacks=lacks,
    )


def _kept_of_record(runner: Runner, name: str, recording: bytes | None, other: Function | None) -> tuple[Kept, str]:
    """The facts of a quarantined record, and why they are not all there are."""
    if recording is not None:
        return _parsed(name, recording)
    if other is None:
        raise UsageError(
            f"{name} has no recording that tells its function: `runner replay {name} --function NAME` does"
        )
    return facts_of(other, runner.context(other)), "" if other.pure else NOT_KEPT


def _parsed(name: str, recording: bytes) -> tuple[Kept, str]:
    try:
        kept = Kept.parse(recording)
    except ValueError as why:
        raise InvalidInput(f"what was kept of {name} cannot be read: {why}") from None
    return kept, "" if kept.pure or kept.calls is not None else NOT_KEPT


def _attempt(run: Run, attempts: Sequence[Attempt], number: int | None) -> Attempt:
    found = [attempt for attempt in attempts if attempt.status in _COMPARABLE]
    if number is None:
        if found:
            return found[-1]
        raise UsageError(f"run {run.run_id} is {run.status.value} and no attempt of it has ended by itself")
    attempt = next((attempt for attempt in attempts if attempt.number == number), None)
    if attempt is None:
        raise UsageError(f"run {run.run_id} has no attempt {number}; it has had {len(attempts)}")
    if attempt not in found:
        raise UsageError(
            f"attempt {number} of run {run.run_id} is {attempt.status.value}: nothing came of it to compare"
        )
    return attempt


def _kept(runner: Runner, run: Run, attempt: Attempt, data: bytes | None) -> tuple[Kept, str]:
    """The facts of an attempt, and why they are not all there are."""
    if data is not None:
        return _parsed(f"attempt {attempt.number}", data)
    assert run.function is not None
    function = runner.registry.get(run.namespace, run.function, attempt.function_version)
    job = runner.config.jobs.get(run.job)
    context = InvocationContext(
        request_id=f"{run.run_id}.{attempt.number}",
        function_id=function.id,
        function_name=function.name,
        namespace=function.namespace,
        env_vars={**function.env_vars, **(job.env_vars if job is not None else {})},
    )
    return facts_of(function, context), "" if function.pure else NOT_KEPT


def _input(runner: Runner, run: Run, kept: Kept) -> bytes:
    """What the attempt read."""
    if kept.input is not None:
        return kept.input
    payload = runner.store.payload(run.run_id)
    job = runner.config.jobs.get(run.job)
    own = job.input if job is not None and not job.steps else None
    if kept.input_cid is None:
        return own.read() if own is not None and (not payload or run.trigger is not None) else payload
    data = own.read() if own is not None else b""
    if content_id(data) != kept.input_cid:
        where = (
            "its job has no input any more" if own is None else f"{own.path or 'the input in jobs.yaml'} has changed"
        )
        raise InvalidInput(
            f"run {run.run_id} cannot be replayed: {where}, and its input ({kept.input_cid}) was not kept: it was "
            "longer than `recording: {max_kb: ...}` allows, or had the value of a secret"
        )
    return data


def _expected(runner: Runner, run: Run, attempt: Attempt, kept: Kept) -> Expected:
    lines = runner.store.logs(run.run_id, after=(attempt.number, 0), limit=MAX_LOG_LINES)
    logs = tuple((line.entry.level.value, line.entry.message) for line in lines if line.attempt == attempt.number)
    is_whole = len(logs) < MAX_LOG_LINES
    succeeded = attempt.status is AttemptStatus.SUCCEEDED
    return Expected(
        error_class=None if succeeded else attempt.error_class or "",
        message=None if succeeded else attempt.message or "",
        logs=logs if is_whole else logs[: MAX_LOG_LINES - 1],
        logs_are_whole=is_whole,
        output=_output(runner, run, kept) if succeeded else None,
    )


def _output(runner: Runner, run: Run, kept: Kept) -> bytes | None:
    """What it wrote, as far as that can be known."""
    job = runner.config.jobs.get(run.job)
    if job is None or job.output is None or job.steps:
        return None if kept.output_cid is not None else runner.store.result(run.run_id)
    with contextlib.suppress(OSError):
        data = job.output.read_bytes()
        if content_id(data) == kept.output_cid:
            return data
    return None


# Secrets


def resolve(names: Sequence[str], declared: Mapping[str, SecretReference]) -> dict[str, str]:
    """The values of those secrets that have one here."""
    found = {}
    for name in names:
        if name in declared:
            with contextlib.suppress(NotAvailable):
                found[name] = declared[name].resolve()
    return found


# Running it


def replay(
    repro: Repro,
    plugins: Plugins,
    *,
    other: tuple[Function, bytes] | None = None,
    secrets: Mapping[str, str],
    settings: Mapping[str, Any],
    folder: Path,
    notify: Callable[[str], None] = lambda _: None,
) -> Replayed:
    """Run it again and compare. `other` is a function with its module to run in place of its own; `settings`
    are those of executors by name; in `folder` compiled modules are kept.

    Raises EngineUnavailable, InvalidModule, InvalidInput: what stands in the way of any invocation.
    """
    kept = repro.kept
    function, wasm = other or (kept.as_function(), repro.wasm)
    recorded = _recorded(kept)
    context = InvocationContext(
        request_id=kept.request_id,
        function_id=function.id,
        function_name=function.name,
        namespace=function.namespace,
        caller_wallet=kept.caller_wallet,
        env_vars=kept.env_vars,
        secrets={name: secrets[name] for name in function.secrets if name in secrets},
        replay=_replay(kept, function, secrets),
    )
    modules = {function.wasm_cid: wasm}
    host = Host(project_dir=folder, state_dir=folder, get_wasm_bytes=modules.__getitem__, notify=notify)
    engine = recorded.engine.partition(" ")[0] if recorded is not None else ""
    with _executor(plugins, (engine, function.executor), settings, host) as (executor, used):
        result = executor.invoke(function, repro.input, context)
    how = "none" if recorded is None else "cut" if recorded.cut_bytes else "whole"
    return Replayed(
        function=function,
        executor=used[-1],
        result=result,
        recording="pure" if function.pure else how,
        recorded_by="" if recorded is None else recorded.engine,
        differences=compare(repro.expected, result),
    )


def _recorded(kept: Kept) -> Recorded | None:
    if kept.calls is None:
        return None
    try:
        return Recorded.parse(kept.calls.encode())
    except ValueError as why:
        raise InvalidInput(f"the recording cannot be read: {why}") from None


def _replay(kept: Kept, function: Function, secrets: Mapping[str, str]) -> Replay | None:
    if kept.calls is None or function.pure:
        return None
    absent = tuple(name for name in function.secrets if name not in secrets)
    return Replay(recording=kept.calls.encode(), absent_secrets=absent)


@contextlib.contextmanager
def _executor(
    plugins: Plugins, wanted: Sequence[str], settings: Mapping[str, Any], host: Host
) -> Iterator[tuple[FunctionExecutor, list[str]]]:
    """An executor that takes the first of these that is here and runs the module, or another; and the names
    of those it has used."""
    providers, used, reasons = plugins.catalogue.executors, list[str](), []
    names = []
    for name in dict.fromkeys((*wanted, *PREFERRED_EXECUTORS)):
        if name in providers and name != AUTO_EXECUTOR:
            available = providers[name].available()
            names += [name] if available.ok else []
            reasons += [] if available.ok else [f"{name}: {available.reason}"]
    if not names:
        raise EngineUnavailable("auto", "; ".join(reasons), remedy="`runner engines list` tells more")
    with contextlib.ExitStack() as stack:

        def make(name: str) -> FunctionExecutor:
            provider = providers[name]
            default = provider.settings() if provider.settings is not None else None
            executor: FunctionExecutor = provider.create(settings.get(name) or default, host)
            stack.callback(executor.close)
            used.append(name)
            return executor

        yield AutoExecutor(names, make, lambda _: None), used


# Comparing


def compare(expected: Expected, result: InvocationResult) -> list[Difference]:
    """What of a result is not as it was."""
    error = result.error
    status = "succeeded" if error is None else "failed"
    found = [_difference("status", expected.status, status)]
    if error is not None and expected.error_class is not None:
        then = f"{expected.error_class}: {expected.message}"
        found.append(_difference("error", then, f"{error.error_class}: {_cut(storable(str(error)))}"))
    elif error is not None:
        found.append(Difference(part="error", lines=[f"+ {error.error_class}: {_cut(storable(str(error)))}"]))
    if result.output is not None and expected.output is not None:
        found.append(Difference(part="output", lines=text_or_bytes(expected.output, result.output)))
    logs = [(entry.level.value, _cut(storable(entry.message))) for entry in result.logs]
    if not expected.logs_are_whole:
        logs = logs[: len(expected.logs)]
    found.append(Difference(part="logs", lines=text_or_bytes(_listing(expected.logs), _listing(logs))))
    return [difference for difference in found if difference.lines]


def _difference(part: str, then: str, now: str) -> Difference:
    return Difference(part=part, lines=[] if then == now else [f"- {then}", f"+ {now}"])


def _listing(logs: Sequence[tuple[str, str]]) -> bytes:
    return "".join(f"{level} {text}\n" for level, text in logs).encode()


def _cut(text: str) -> str:
    """As much of a text as a store keeps."""
    return text if len(text) <= MAX_MESSAGE_CHARACTERS else text[: MAX_MESSAGE_CHARACTERS - 1] + "…"
