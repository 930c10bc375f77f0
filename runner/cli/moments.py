"""Moments and durations on the command line."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta, timezone

import click


def now() -> datetime:
    """This moment, aware, in UTC."""
    return datetime.now(timezone.utc)


class MomentType(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on only
    """Reads a moment; with `or_ago` also a duration, which is meant back from now."""

    name = "when"

    def __init__(self, *, or_ago: bool = False) -> None:
        self._or_ago = or_ago

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """See click.ParamType."""
        from runner.when import DURATION, parse_duration, parse_moment

        if isinstance(value, datetime):
            return value
        try:
            if self._or_ago:
                with suppress(ValueError):
                    return now() - parse_duration(str(value))
            return parse_moment(str(value))
        except ValueError as error:
            also = f", or {DURATION} back from now" if self._or_ago and "expected a moment" in str(error) else ""
            self.fail(f"{error}{also}", param, ctx)
        except OverflowError:
            self.fail(f"{value!r} is before all time", param, ctx)


class DurationType(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on only
    """Reads a length of time."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """See click.ParamType."""
        from runner.when import parse_duration

        if isinstance(value, timedelta):
            return value
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
