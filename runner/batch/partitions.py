"""Parts of a batch that run on their own: their names, and what `{partition}` stands for in each. Pure."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from pathlib import PurePath

from runner.batchkeys import PLACEHOLDER, BatchKeys, OnErrorKeys
from runner.config import Choice
from runner.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Partition:
    """One part of a batch."""

    name: str
    """How users call it: a day as 2026-11-25, a value, a file's name without its endings."""
    day: date | None = None
    file: str | None = None
    """The only file that it reads."""

    def applied(self, keys: BatchKeys) -> BatchKeys:
        """The keys of a batch with this partition in place of `{partition}`. Raises UsageError for a
        format that only a day can have."""
        on_error = keys.on_error
        if isinstance(on_error, OnErrorKeys) and on_error.path is not None:
            on_error = dataclasses.replace(on_error, path=self._filled(on_error.path))
        source = self._applied(keys.input)
        if self.file is not None:
            source = dataclasses.replace(source, settings=dataclasses.replace(source.settings, path=self.file))
        return dataclasses.replace(keys, input=source, output=self._applied(keys.output), on_error=on_error)

    def _applied(self, choice: Choice) -> Choice:
        settings = choice.settings
        if settings is None:
            return choice
        texts = {
            spec.name: self._filled(value)
            for spec in dataclasses.fields(settings)
            if isinstance(value := getattr(settings, spec.name), str)
        }
        return dataclasses.replace(choice, settings=dataclasses.replace(settings, **texts))

    def _filled(self, text: str) -> str:
        def fill(found: re.Match[str]) -> str:
            form = found.group(1)
            if form is None:
                return self.name
            if self.day is None:
                raise UsageError(f"{found.group()} has a format, which only partitions by day can have")
            return self.day.strftime(form)

        return PLACEHOLDER.sub(fill, text)


def by_file(names: Iterable[str]) -> list[Partition]:
    """A partition for each of these files. Raises UsageError for two of one name."""
    found: dict[str, Partition] = {}
    for file in names:
        name = PurePath(file).name.split(".")[0] or PurePath(file).name
        if name in found:
            raise UsageError(f"{found[name].file} and {file} would both be partition {name!r}; give them other names")
        found[name] = Partition(name=name, file=file)
    return list(found.values())


def by_value(values: Iterable[str]) -> list[Partition]:
    """A partition for each value."""
    return [Partition(name=value) for value in values]


def by_day(first: date, last: date) -> list[Partition]:
    """A partition for each day, both ends included. Raises UsageError when there is none."""
    if last < first:
        raise UsageError(f"--to {last} is before --from {first}")
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    return [Partition(name=day.isoformat(), day=day) for day in days]


def yesterday(now: datetime) -> date:
    """The last day that is over, in UTC."""
    return now.astimezone(timezone.utc).date() - timedelta(days=1)


def day_of(text: str) -> date:
    """The day that a text like 2026-11-25 names. Raises UsageError."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no day; write it like 2026-11-25") from None
