"""Builders that ship with runner: C, C++ and Zig through the `ziglang` package, `.wat` through wasmtime.

Hook implementations only; compilers are imported or started when a source is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runner.contracts import Availability, Builder, Host, Provider
from runner.hookspecs import hookimpl
from runner_builders.settings import ZigSettings


def _create_zig(settings: Any, host: Host) -> Builder:
    from runner_builders.zig import ZigBuilder

    return ZigBuilder(settings or ZigSettings(), host)


def _zig_available() -> Availability:
    from runner_builders.zig import available

    return available()


def _create_wat(_settings: Any, host: Host) -> Builder:
    from runner_builders.wat import WatBuilder

    return WatBuilder(host)


@hookimpl
def runner_builders() -> Sequence[Provider[Builder]]:
    """The two builders; the names are their suffixes."""
    return [
        Provider[Builder](
            name=".c,.cpp,.zig",
            summary="C, C++ and Zig, compiled by the ziglang package",
            create=_create_zig,
            settings=ZigSettings,
            available=_zig_available,
        ),
        Provider[Builder](name=".wat", summary="WebAssembly text, compiled by wasmtime", create=_create_wat),
    ]
