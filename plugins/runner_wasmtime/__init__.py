"""Executor `wasmtime`: Cranelift-compiled functions in worker processes, on every Python.

Runs what Wasmer must refuse (SIMD, threads' atomics and newer features excepted as listed), with the
same limits and the same walls.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runner.contracts import Availability, FunctionExecutor, Host, Provider
from runner.hookspecs import hookimpl
from runner.workers.settings import WorkerSettings


def _available() -> Availability:
    from runner.entry_points import version

    found = version("wasmtime")
    if found is None:
        return Availability(ok=False, reason="the package wasmtime is not installed", remedy="pip install wasmtime")
    return Availability(ok=True, version=found)


def _create(settings: WorkerSettings, host: Host) -> FunctionExecutor:
    from runner.workers.executor import EngineTraits, WorkerExecutor
    from runner.workers.launch import EngineSpec
    from runner_wasmtime.features import VERIFIED
    from runner_wasmtime.signatures import SIGNATURES

    spec = EngineSpec(
        name="wasmtime",
        module="runner_wasmtime.engine",
        version=_available().version,
        package_dir=Path(__file__).parent.parent,
    )
    return WorkerExecutor(spec, EngineTraits(signatures=SIGNATURES, features=VERIFIED), settings, host)


def _identity(settings: WorkerSettings) -> str:
    return settings.identity(f"wasmtime {_available().version}")


@hookimpl
def runner_executors() -> Sequence[Provider[FunctionExecutor]]:
    """The wasmtime executor."""
    return [
        Provider(
            name="wasmtime",
            summary="WebAssembly compiled by Cranelift (wasmtime), on every Python",
            create=_create,
            settings=WorkerSettings,
            available=_available,
            identity=_identity,
        )
    ]
