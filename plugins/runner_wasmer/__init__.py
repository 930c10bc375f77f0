"""Executor `wasmer`: functions compiled to native code by LLVM, run in headless worker processes.

The app never imports wasmer: it does not load on CPython 3.11 or later, and its compiler ends the
process when a library is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from runner.contracts import Availability, FunctionExecutor, Host, Provider
from runner.hookspecs import hookimpl
from runner.workers.settings import WorkerSettings


def _available() -> Availability:
    from runner_wasmer import environment

    home = environment.find()
    if home is not None:
        return Availability(ok=True, version=f"{environment.VERSION} (LLVM, {home.python})")
    return Availability(
        ok=False,
        reason="its wheels need CPython 3.10, and no environment with them is here",
        remedy=f"`{environment.INSTALL_COMMAND}` makes one",
    )


def _create(settings: WorkerSettings, host: Host) -> FunctionExecutor:
    from runner.errors import EngineUnavailable
    from runner.workers.executor import EngineTraits, WorkerExecutor
    from runner.workers.launch import EngineSpec
    from runner_wasmer import artifact, environment, llvm
    from runner_wasmer.features import VERIFIED
    from runner_wasmer.signatures import SIGNATURES

    home = environment.find()
    if home is None:
        available = _available()
        raise EngineUnavailable("wasmer", available.reason, remedy=available.remedy)
    spec = EngineSpec(
        name="wasmer",
        module="runner_wasmer.engine",
        version=f"{environment.VERSION}-{artifact.FORMAT}",
        package_dir=Path(__file__).parent.parent,
        python=home.python,
        compile_environment=llvm.environment(llvm.library_folder(host.state_dir, home.site_packages), {}),
    )
    traits = EngineTraits(signatures=SIGNATURES, features=VERIFIED, other="wasmtime")
    return WorkerExecutor(spec, traits, settings, host)


def _install(notify: Callable[[str], None]) -> None:
    from runner_wasmer import environment

    environment.install(notify)


def _identity(settings: WorkerSettings) -> str:
    from runner_wasmer import artifact, environment

    return settings.identity(f"wasmer {environment.VERSION}-{artifact.FORMAT}")


@hookimpl
def runner_executors() -> Sequence[Provider[FunctionExecutor]]:
    """The Wasmer executor."""
    return [
        Provider(
            name="wasmer",
            summary="WebAssembly compiled to native code by LLVM (Wasmer 2.1)",
            create=_create,
            settings=WorkerSettings,
            available=_available,
            identity=_identity,
            install=_install,
        )
    ]
