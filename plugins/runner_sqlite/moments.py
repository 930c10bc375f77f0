"""Moments as the tables of the queue keep them: whole microseconds since the epoch, UTC."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)

SECOND = 1_000_000
"""Microseconds."""
DAY = 86_400 * SECOND


def to_number(moment: datetime) -> int:
    """The microseconds of an aware moment. Raises ValueError for a naive one."""
    if moment.tzinfo is None:
        raise ValueError(f"a moment must carry a time zone, got the naive {moment!r}")
    return (moment - _EPOCH) // _MICROSECOND


def from_number(microseconds: int) -> datetime:
    """The moment, in UTC. Raises ValueError or TypeError for what to_number never gives."""
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError as error:
        raise ValueError(f"{microseconds} microseconds are no moment") from error


def or_none(microseconds: int | None) -> datetime | None:
    """The moment of a column that may be NULL."""
    return None if microseconds is None else from_number(microseconds)
