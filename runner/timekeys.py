"""The keys that time triggers share in jobs.yaml. Whoever makes a kind of time trigger lets its settings
inherit from here; what the keys do is in `runner.timepolicy`. Every start of the program reads this file,
so it imports next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from runner.timepolicy import Policy

LONGEST = timedelta(days=3660)
"""The longest duration that these keys take."""


def duration_key(doc: str, **facts: Any) -> dict[str, Any]:
    """The metadata of a key that holds a length of time, for `duration`."""
    numbers = "".join(rf"([0-9]{{1,9}}(\.[0-9]{{1,6}})?{unit})?" for unit in "wdhms")
    return {"doc": doc, "pattern": f"(?=.){numbers}", "expected": "a duration like 90s, 15m, 2h, 1d or 1h30m", **facts}


def queue_key(doc: str) -> dict[str, Any]:
    """The metadata of a key that holds a queue's name."""
    words = "a name (a letter, then letters, digits, _ or -, at most 64)"
    return {"doc": doc, "pattern": r"[A-Za-z][A-Za-z0-9_-]{0,63}", "expected": words, "example": "heavy"}


def priority_key() -> dict[str, Any]:
    """The metadata of a key that holds a priority."""
    return {"doc": "Higher runs first.", "minimum": -1_000_000, "maximum": 1_000_000}


def duration(key: str, text: str, *, least: timedelta = timedelta(0), most: timedelta = LONGEST) -> timedelta:
    """The value of a key that holds a length of time. Raises ValueError, which names the key, for one that
    is too short or too long."""
    from runner.when import format_duration, parse_duration

    try:
        length = parse_duration(text)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    if not least <= length <= most:
        raise ValueError(f"{key}: {text} is not from {format_duration(least)} to {format_duration(most)}")
    return length


@dataclass(frozen=True, kw_only=True)
class OnceKeys:
    """The keys of a trigger that is due once."""

    catchup: Literal["none", "last", "all"] = field(
        default="last",
        metadata={
            "doc": "What becomes of due times that were missed: `none` skips them, `last` runs the newest, `all` runs "
            "every one.",
            "called": ("misfire", "coalesce", "backfill"),
        },
    )
    catchup_window: str = field(
        default="1d",
        metadata=duration_key(
            "How late a due time may be to be caught up.",
            called=("window", "misfire_grace_time", "startingDeadlineSeconds"),
            example="2h",
        ),
    )
    jitter: str = field(
        default="0s",
        metadata=duration_key(
            "The run begins at some moment of this time behind the due time, the same one for the same due time; it "
            "spreads the load of many jobs.",
            called=("splay", "random_delay"),
            example="5m",
        ),
    )
    enabled: bool = field(
        default=True,
        metadata={"doc": "`false` records its due times as skipped, and runs nothing.", "called": ("active",)},
    )
    queue: str | None = field(default=None, metadata=queue_key("The queue of its runs; `default` unless given."))
    priority: int = field(default=0, metadata=priority_key())

    def __post_init__(self) -> None:
        _ = self.policy  # raises for what cannot be

    @cached_property
    def policy(self) -> Policy:
        """What a Timetable goes by."""
        return _policy(self.catchup, self.catchup_window, 1, "allow", self.jitter, self.enabled)


@dataclass(frozen=True, kw_only=True)
class RecurringKeys(OnceKeys):
    """The keys of a trigger that is due again and again."""

    catchup_limit: int = field(
        default=100,
        metadata={
            "doc": "How many due times `catchup: all` runs at most, the newest ones.",
            "minimum": 1,
            "maximum": 1000,
        },
    )
    overlap: Literal["skip", "queue", "replace", "allow"] | None = field(
        default=None,
        metadata={
            "doc": "What becomes of a due time while an earlier run of this trigger has not ended: `skip` (unless "
            "given) skips it, `queue` (with `catchup: all`, unless given) lets it wait, `replace` cancels the earlier "
            "run, `allow` runs both.",
            "called": ("concurrency_policy", "concurrencyPolicy", "max_instances"),
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        overlap = self.policy.overlap.value
        if self.queue is not None and overlap in ("queue", "replace"):
            given = "" if self.overlap else " (which `catchup: all` means)"
            raise ValueError(
                f"queue: with overlap: {overlap}{given} the runs have a queue of their own, one at a time; "
                f"leave out `queue: {self.queue}`, or write overlap: allow or skip"
            )

    @cached_property
    def policy(self) -> Policy:
        """What a Timetable goes by."""
        overlap = self.overlap or ("queue" if self.catchup == "all" else "skip")
        return _policy(self.catchup, self.catchup_window, self.catchup_limit, overlap, self.jitter, self.enabled)


@lru_cache(maxsize=1024)  # many triggers have few policies
def _policy(catchup: str, window: str, limit: int, overlap: str, jitter: str, enabled: bool) -> Policy:
    from runner.timepolicy import Catchup, Overlap, Policy

    return Policy(
        catchup=Catchup(catchup),
        window=duration("catchup_window", window),
        limit=limit,
        overlap=Overlap(overlap),
        jitter=duration("jitter", jitter, most=timedelta(days=1)),
        enabled=enabled,
    )
