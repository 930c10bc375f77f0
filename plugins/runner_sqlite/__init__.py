"""The registry backend `sqlite`: functions, their modules and logs in one SQLite file.

Hook implementations only; the backend is imported when it is created.
"""

from __future__ import annotations

from typing import Any

from runner.contracts import FunctionRegistry, Host, Provider
from runner.hookspecs import hookimpl
from runner_sqlite.settings import SqliteSettings


@hookimpl
def runner_registries() -> list[Provider[FunctionRegistry]]:
    """The provider `sqlite`."""
    return [
        Provider(
            name="sqlite",
            summary="One SQLite file in the project's state folder; safe for many processes on one machine",
            create=_create,
            settings=SqliteSettings,
        )
    ]


def _create(settings: Any, host: Host) -> FunctionRegistry:
    from runner_sqlite.functions import SqliteRegistry

    settings = settings or SqliteSettings()
    return SqliteRegistry(
        settings.file(host),
        busy_timeout_seconds=settings.busy_timeout_seconds,
        log_lines=settings.log_lines,
        created_by=_user(),
    )


def _user() -> str | None:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        return None
