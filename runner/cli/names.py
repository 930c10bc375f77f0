"""Names on the command line; that of a function is NAME or NAME@VERSION."""

from __future__ import annotations

import re
from dataclasses import dataclass

import click

from runner.errors import UsageError


@dataclass(frozen=True, slots=True)
class FunctionName:
    """`version` 0 is the newest."""

    name: str
    version: int = 0

    def without_version(self) -> str:
        """The name, for a command that is about all versions. Raises UsageError if one was given."""
        if self.version:
            raise UsageError(f"this is about all versions of {self.name}: leave out @{self.version}")
        return self.name


class FunctionNameType(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on only
    """Reads a FunctionName."""

    name = "function"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> FunctionName:
        """See click.ParamType."""
        if isinstance(value, FunctionName):
            return value
        name, at, version = str(value).partition("@")
        if not at:
            return FunctionName(name)
        if not name or not (version.isascii() and version.isdigit()) or not 1 <= int(version[:10]) < 1 << 31:
            self.fail(f"{value!r}: expected NAME or NAME@VERSION with a version from 1, like clean@2", param, ctx)
        return FunctionName(name, int(version))


class NameType(click.ParamType):  # type: ignore[type-arg]  # as above
    """Reads a name as jobs.yaml has them."""

    name = "name"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """See click.ParamType."""
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", str(value)):
            self.fail(f"{value!r}: expected a letter, then letters, digits, _ or -, at most 64", param, ctx)
        return str(value)
