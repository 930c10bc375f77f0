"""What jobs.yaml may say about the triggers `cron`, `interval`, `timer` and `job`.

Every start of the program reads this file: what checks a value is imported when there is one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Any, ClassVar, Literal

from runner.timekeys import OnceKeys, RecurringKeys, duration, duration_key, priority_key, queue_key

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_SECOND = timedelta(seconds=1)
_NO_ZONES = ("right/", "posix/", "localtime", "posixrules")
"""Files beside those of zones: with leap seconds, or of this machine."""


def _moment_key(doc: str, **facts: Any) -> dict[str, Any]:
    """The metadata of a key that holds a moment. A date alone is none: it would be a floating time."""
    return {
        "doc": doc,
        "pattern": r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}[0-9:.,Zz +-]*",
        "expected": "a moment with its offset, like 2027-01-15T09:00:00Z or 2027-01-15T11:00:00+02:00",
        **facts,
    }


def moment(key: str, text: str) -> datetime:
    """The value of a key that holds a moment. Raises ValueError, which names the key, for a floating time."""
    from runner.when import parse_moment

    try:
        return parse_moment(text)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


@lru_cache(maxsize=1024)
def zone(name: str) -> tzinfo:
    """The time zone of an IANA name. Raises ValueError with the nearest that there is."""
    from zoneinfo import ZoneInfo

    if name == "UTC":
        return timezone.utc
    try:
        if name.startswith(_NO_ZONES):
            raise LookupError
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError) as error:
        near = _nearest_zone(name[:64])
        hint = f"did you mean {near!r}?" if near else "expected an IANA name like Europe/Athens, or UTC"
        raise ValueError(f"timezone: there is no {name!r}; {hint}") from error


@lru_cache(maxsize=1024)
def _nearest_zone(name: str) -> str | None:
    import difflib
    from zoneinfo import available_timezones

    known = {known for known in available_timezones() if not known.startswith(_NO_ZONES)}
    city = name.replace(" ", "_").lower()
    same = sorted(other for other in known if city in (other.lower(), other.rpartition("/")[2].lower()))
    return next(iter(same or difflib.get_close_matches(name, known, 1)), None)


@dataclass(frozen=True, kw_only=True)
class CronSettings(RecurringKeys):
    """Due by a cron expression, as crontab(5) has it."""

    schedule: str = field(
        metadata={
            "doc": "Five fields: minute, hour, day of month, month, day of week; or six, with seconds in front; or "
            "`@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.",
            "called": ("cron", "expression", "at"),
            "example": '"15 2 * * *"',
        }
    )
    timezone: str = field(
        default="UTC",
        metadata={
            "doc": "Whose clocks it goes by: an IANA name.",
            "called": ("tz", "time_zone", "zone"),
            "example": "Europe/Athens",
        },
    )

    def __post_init__(self) -> None:
        from runner_apscheduler.expression import parse

        super().__post_init__()
        try:
            parse(self.schedule)
        except ValueError as error:
            raise ValueError(f"schedule: {error}") from error
        zone(self.timezone)


@dataclass(frozen=True, kw_only=True)
class IntervalSettings(RecurringKeys):
    """Due again and again after the same length of time."""

    every: str = field(
        metadata=duration_key(
            "The time from one due time to the next, whole seconds.",
            called=("interval", "period", "minutes", "hours", "seconds", "days", "schedule"),
            example="10m",
        )
    )
    start: str | None = field(
        default=None,
        metadata=_moment_key(
            "The first due time. Unless given, due times are counted from 1970 on: `10m` is due at every full ten "
            "minutes (UTC), `1d` at midnight.",
            called=("start_date", "from"),
            example='"2027-01-15T09:00:00+02:00"',
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if duration("every", self.every, least=_SECOND) % _SECOND:
            raise ValueError(f"every: {self.every} is not whole seconds")
        if self.start is not None:
            moment("start", self.start)


@dataclass(frozen=True, kw_only=True)
class TimerSettings(OnceKeys):
    """Due once: at a moment, or some time after the trigger was first seen by a daemon."""

    __one_of__: ClassVar[tuple[str, ...]] = ("at", "after")

    at: str | None = field(
        default=None,
        metadata=_moment_key(
            "The moment.", called=("when", "time", "date", "run_date"), example='"2027-01-15T09:00:00Z"'
        ),
    )
    after: str | None = field(
        default=None,
        metadata=duration_key(
            "The time from when a daemon first sees the trigger in jobs.yaml.", called=("delay", "in"), example="30m"
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.at is not None:
            moment("at", self.at)
        if self.after is not None:
            duration("after", self.after)


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """Started by a person, a program, a guest (`enqueue_background`), or another job that has ended."""

    queue: str | None = field(
        default=None,
        metadata=queue_key(
            "The queue of the job's runs that have no other trigger, and of those that follow another job; `default` "
            "unless given."
        ),
    )
    priority: int = field(default=0, metadata=priority_key())
    after: tuple[str, ...] = field(
        default=(),
        metadata={
            "doc": "Another job, or a list of them: it runs each time that one has ended. Its input is then "
            '`{"run_id": ..., "job": ..., "status": ...}`.',
            "custom": "jobs",
            "expected": "the name of a job, or a list of them",
            "called": ("needs", "depends_on", "on"),
            "example": "nightly",
        },
    )
    status: tuple[Literal["succeeded", "failed", "cancelled", "dead"], ...] = field(
        default=("succeeded",),
        metadata={
            "doc": "How the other job must have ended.",
            "called": ("statuses", "when", "if"),
            "example": "[failed, dead]",
        },
    )

    def __post_init__(self) -> None:
        if self.after and not self.status:
            raise ValueError("status: an empty list follows nothing; leave it out, or name a status")
