"""What `runner doctor` finds out: which parts work on this machine, by trying them.

Every engine that is here is started, its walls are counted and a small function is run, in a
folder that is thrown away. Nothing of the project is changed.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from runner import wasm
from runner.app import STATE_FOLDER, Runner
from runner.automatic import PREFERRED_EXECUTORS
from runner.config import Config
from runner.contracts import FunctionExecutor, Host, Provider
from runner.errors import ConfigError, NotAvailable, RunnerError
from runner.jobskeys import AUTO_EXECUTOR
from runner.loading import load
from runner.models import Function, InvocationContext
from runner.plugins import Plugins

NOTHING_MODULE = bytes.fromhex(
    "0061736d01000000"  # magic number and version
    "010401600000"  # type 0: () -> ()
    "03020100"  # function 0 of type 0
    "0503010001"  # a memory of one page
    "071302066d656d6f72790200065f73746172740000"  # exports "memory" and "_start"
    "0a040102000b"  # function 0 does nothing
)
"""The smallest WASI command."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One finding. `detail` says what was found or why it does not work, `remedy` what to do then."""

    part: str
    """`python`, `plugin`, `jobs.yaml`, `state`, `registry`, `toolchain`, `engine` or `wall`."""
    name: str
    ok: bool
    needed: bool = False
    """Whether jobs cannot run without it."""
    detail: str = ""
    remedy: str = ""


def examine(plugins: Plugins, file: Path, state_dir: Path | None) -> Iterator[Check]:
    """All findings, one after the other as they are made."""
    yield Check(part="python", name=platform.python_version(), ok=True, detail=sys.executable)
    for info in plugins.infos:
        works = info.error is None
        yield Check(part="plugin", name=info.name, ok=works, detail=info.error or f"{info.distribution} {info.version}")
    config, check = _config(plugins, file)
    yield check
    yield _state(state_dir or file.absolute().parent / STATE_FOLDER)
    if config is not None:
        yield _registry(config, plugins, state_dir)
    suffixes = (
        {function.source.suffix for function in config.functions.values() if function.source} if config else set()
    )
    for provider in plugins.catalogue.builders.values():
        found = provider.available()
        needed = not suffixes.isdisjoint(provider.name.split(","))
        detail = found.version or provider.summary if found.ok else found.reason
        yield Check(
            part="toolchain", name=provider.name, ok=found.ok, needed=needed, detail=detail, remedy=found.remedy
        )
    yield from _engines(plugins, _wanted_executors(config))


def _config(plugins: Plugins, file: Path) -> tuple[Config | None, Check]:
    if not file.exists():
        detail = f"there is no {file} here; `runner init` makes one"
        return None, Check(part="jobs.yaml", name=str(file), ok=True, detail=detail)
    try:
        config = load(file, plugins.catalogue)
    except RunnerError as error:
        count = len(error.problems) if isinstance(error, ConfigError) else 0
        detail = f"{count} problem{'' if count == 1 else 's'}" if count else str(error)
        remedy = "`runner validate` shows them" if isinstance(error, ConfigError) else ""
        return None, Check(part="jobs.yaml", name=str(file), ok=False, needed=True, detail=detail, remedy=remedy)
    detail = f"{len(config.functions)} functions, {len(config.jobs)} jobs"
    return config, Check(part="jobs.yaml", name=str(file), ok=True, detail=detail)


def _state(folder: Path) -> Check:
    """Whether the state folder can be written, or made where it is not yet."""
    base = folder
    while not base.exists() and base != base.parent:
        base = base.parent
    try:
        with tempfile.TemporaryFile(dir=base):
            pass
        free = shutil.disk_usage(base).free
    except OSError as error:
        detail = f"{base} cannot be written: {error.strerror}"
        remedy = "make it writable, or give another folder with --state-dir"
        return Check(part="state", name=str(folder), ok=False, needed=True, detail=detail, remedy=remedy)
    detail = f"{free / 1e9:,.1f} GB free" if base == folder else "made with the first run"
    return Check(part="state", name=str(folder), ok=True, detail=detail)


def _registry(config: Config, plugins: Plugins, state_dir: Path | None) -> Check:
    name = config.registry.name
    if not (state_dir or config.folder / STATE_FOLDER).is_dir():
        return Check(part="registry", name=name, ok=True, detail="nothing is registered yet")
    try:
        with Runner(config, plugins, state_dir=state_dir, notify=lambda _: None) as runner:
            count = len(runner.registry.list(config.namespace))
    except RunnerError as error:
        return Check(part="registry", name=name, ok=False, needed=True, detail=str(error))
    return Check(part="registry", name=name, ok=True, detail=f"{count} functions in namespace {config.namespace!r}")


def _wanted_executors(config: Config | None) -> frozenset[str]:
    """The executors that jobs.yaml names; without one, `auto`."""
    functions = config.functions.values() if config else ()
    return frozenset(function.executor.name for function in functions) or frozenset({AUTO_EXECUTOR})


def _engines(plugins: Plugins, wanted: frozenset[str]) -> Iterator[Check]:
    working = set()
    for provider in plugins.catalogue.executors.values():
        checks = list(_engine(provider, provider.name in wanted))
        working |= {check.name for check in checks if check.part == "engine" and check.ok}
        yield from checks
    if AUTO_EXECUTOR in wanted:
        ok = not working.isdisjoint(PREFERRED_EXECUTORS)
        chosen = next((name for name in PREFERRED_EXECUTORS if name in working), "")
        detail = f"takes {chosen}" if ok else "no engine works that it may take"
        yield Check(part="engine", name=AUTO_EXECUTOR, ok=ok, needed=True, detail=detail)


def _engine(provider: Provider[FunctionExecutor], needed: bool) -> Iterator[Check]:
    found = provider.available()
    if not found.ok:
        yield Check(
            part="engine", name=provider.name, ok=False, needed=needed, detail=found.reason, remedy=found.remedy
        )
        return
    with tempfile.TemporaryDirectory(prefix="runner-doctor-") as folder:
        try:
            executor = provider.create(provider.settings() if provider.settings else None, _host(Path(folder)))
        except RunnerError as error:
            yield Check(part="engine", name=provider.name, ok=False, needed=needed, detail=str(error))
            return
        try:
            yield from _tried(executor, provider.name, found.version, needed)
        finally:
            executor.close()


def _tried(executor: FunctionExecutor, name: str, version: str, needed: bool) -> Iterator[Check]:
    try:
        walls: Mapping[str, str] = executor.walls()
        result = executor.invoke(_FUNCTION, b"", _CONTEXT)
        error = result.error
    except RunnerError as raised:
        walls, error = _walls(executor), raised
    if error is None:
        detail = f"{version}; compiles and runs a function"
        yield Check(part="engine", name=name, ok=True, needed=needed, detail=detail)
    else:
        yield Check(part="engine", name=name, ok=False, needed=needed, detail=str(error))
    for wall, reason in walls.items():
        yield Check(part="wall", name=f"{name} {wall}", ok=not reason, detail=reason)


def _walls(executor: FunctionExecutor) -> Mapping[str, str]:
    try:
        return executor.walls()
    except NotAvailable:
        return {}


def _host(folder: Path) -> Host:
    return Host(project_dir=folder, state_dir=folder, get_wasm_bytes=lambda _: NOTHING_MODULE)


_NOW = datetime.now(timezone.utc)
_FUNCTION = Function(
    id="doctor",
    name="doctor",
    namespace="doctor",
    version=1,
    wasm_cid=wasm.content_id(NOTHING_MODULE),
    created_at=_NOW,
    updated_at=_NOW,
)
_CONTEXT = InvocationContext(
    request_id=f"doctor-{os.getpid()}", function_id="doctor", function_name="doctor", namespace="doctor"
)
