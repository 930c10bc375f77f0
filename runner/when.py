"""Moments and durations as people write them: `2027-01-15T09:00:00Z`, `2027-01-15`, `1h30m`.

Pure. A moment without a time zone is refused, because it means another time to every reader.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

MOMENT = "a moment like 2027-01-15T09:00:00Z, 2027-01-15 09:00+02:00 or 2027-01-15 (midnight UTC)"
"""What `parse_moment` takes, for messages."""
DURATION = "a duration like 90s, 15m, 2h, 1d or 1h30m"
"""What `parse_duration` takes, for messages."""

_MOMENT = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)"
    r"(?:[Tt ](?P<time>\d\d:\d\d(?::\d\d)?)(?:[.,](?P<fraction>\d{1,9}))? ?(?P<zone>[Zz]|[+-]\d\d:?\d\d)?)?",
    re.ASCII,
)
_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_DURATION = re.compile(
    "".join(rf"(?:(?P<{unit}>\d{{1,9}}(?:\.\d{{1,6}})?){letter})?" for letter, unit in _UNITS.items())
)


def parse_moment(text: str) -> datetime:
    """An aware moment in UTC, from RFC 3339 (seconds and their fractions may be left out, a space may stand
    for the T) or a date alone, which is its first moment in UTC. Raises ValueError, which says what was
    expected."""
    match = _MOMENT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r}: expected {MOMENT}")
    day, time, fraction, zone = match.group("day", "time", "fraction", "zone")
    if time is not None and zone is None:
        raise ValueError(f"{text!r} has no time zone; add Z for UTC, or an offset like +02:00")
    offset = "+00:00" if zone is None or zone in "Zz" else f"{zone[:3]}:{zone[-2:]}"
    try:
        moment = datetime.fromisoformat(f"{day}T{time or '00:00'}{offset}").astimezone(timezone.utc)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is no moment: {error}") from error
    return moment + timedelta(microseconds=int((fraction or "")[:6].ljust(6, "0")))


def parse_duration(text: str) -> timedelta:
    """A length of time: numbers with their units w, d, h, m and s, the longest first. Raises ValueError,
    which says what was expected."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r}: expected {DURATION}")
    try:
        return timedelta(**{unit: float(number) for unit, number in match.groupdict().items() if number is not None})
    except OverflowError as error:
        raise ValueError(f"{text!r} is longer than time lasts here: {error}") from error


def format_moment(moment: datetime) -> str:
    """An aware moment in RFC 3339, UTC: `2027-01-15T09:00:00Z`, with a fraction only where there is one."""
    return moment.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def format_duration(length: timedelta) -> str:
    """As `parse_duration` takes it, in days, hours, minutes and whole seconds, the zeros left out: `1d2h`."""
    seconds = round(length.total_seconds())
    if seconds < 0:
        return f"-{format_duration(-length)}"
    parts = []
    for letter, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{letter}")
    return "".join(parts) or "0s"
