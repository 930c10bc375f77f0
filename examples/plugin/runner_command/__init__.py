"""A plugin for `runner`: executor `command`, which runs scripts and programs of this machine.

Hook implementations only; the executor is imported when it is created, so that listing plugins stays
fast.
"""

from __future__ import annotations

from collections.abc import Sequence

from runner.contracts import Availability, FunctionExecutor, Host, Provider
from runner.hookspecs import hookimpl
from runner_command.settings import CommandSettings


def _create(settings: CommandSettings | None, host: Host) -> FunctionExecutor:
    from runner_command.executor import CommandExecutor

    return CommandExecutor(settings or CommandSettings(), host)


def _available() -> Availability:
    import os

    if hasattr(os, "pidfd_open"):
        return Availability(ok=True, version="0.1.0")
    return Availability(ok=False, reason="it needs Linux 5.3 or newer", remedy="use `executor: auto`")


@hookimpl
def runner_executors() -> Sequence[Provider[FunctionExecutor]]:
    """The executor `command`."""
    return [
        Provider(
            name="command",
            summary="Scripts and programs of this machine, without a sandbox",
            create=_create,
            settings=CommandSettings,
            available=_available,
            takes_wasm=False,
        )
    ]
