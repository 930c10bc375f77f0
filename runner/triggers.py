"""The contract of trigger sources: what starts jobs while a daemon runs.

A plugin provides one source for each kind of trigger (`- cron: {...}` is kind `cron`). The daemon
gives it the triggers of that kind and an Intake, through which everything it starts becomes durable.
`runner.timetable` does for every time trigger what does not depend on its kind: ledger, catch-up, overlap.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone, tzinfo
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner.run_store import RunStore
    from runner.runs import Follower, NewRun


@dataclass(frozen=True, kw_only=True, slots=True)
class Trigger:
    """One trigger of one job, as a running daemon knows it."""

    id: str
    """`namespace/job/kind`, then what its source's `key` adds: unique in the store, and the same as long
    as the trigger means the same. It names the trigger in runs and in the ledger of slots."""
    job: str
    kind: str
    settings: Any
    """An instance of the provider's settings class. Its attributes `queue` (a name) and `priority` (an
    integer), if it has them, hold for the runs that the trigger starts."""
    line: int
    """Where it stands in jobs.yaml."""


class Schedule(ABC):
    """The due times of one time trigger. Immutable, and without a clock: time is an argument."""

    relative: bool = False
    """Whether it counts from the moment at which it was first seen, and then is due once."""
    zone: tzinfo = timezone.utc
    """The time zone in which people think of its due times."""

    @abstractmethod
    def next_after(self, moment: datetime) -> datetime | None:
        """The earliest due time later than `moment`; None when there will be none. Aware, in UTC. No two
        are closer than a second."""

    def remark(self, slot: datetime) -> str:  # noqa: ARG002
        """What people should know about a due time: that the clocks change, for one. Mostly nothing."""
        return ""


class Intake(ABC):
    """The way by which a source starts runs. Safe to use from several threads."""

    store: RunStore
    """Where runs and slots go."""

    @abstractmethod
    def now(self) -> datetime:
        """The daemon's clock: aware, in UTC."""

    @abstractmethod
    def new_run(self, trigger: Trigger, payload: bytes = b"") -> NewRun:
        """A run of the trigger's job, with the function's version as it is now; to be given to the store.
        Without a payload the job's `input` is read when the run begins."""

    @abstractmethod
    def follow(self, followers: Sequence[Follower]) -> None:
        """From now on these are enqueued after runs that end in this daemon; replaces what was given."""

    @abstractmethod
    def tell(self, level: str, message: str, **facts: Any) -> None:
        """A line in the daemon's log. `level` is info, warning or error; facts are JSON values."""


class TriggerSource(ABC):
    """Starts the jobs of one kind of trigger. Made when it is needed: by a daemon, or to look at schedules."""

    def key(self, settings: Any) -> str:  # noqa: ARG002
        """What tells a trigger from the others of its job and kind, readable: `15 2 * * * Europe/Athens`.
        Another key is another trigger, with a history of its own. Empty: a job has one of this kind."""
        return ""

    def schedule(self, settings: Any) -> Schedule | None:  # noqa: ARG002
        """The due times that these settings mean; None for what is no time trigger."""
        return None

    def limits(self, triggers: Sequence[Trigger]) -> Mapping[str, int]:  # noqa: ARG002
        """Queues of its own, by name, with how many of their runs may be running at once."""
        return {}

    @abstractmethod
    def start(self, triggers: Sequence[Trigger], intake: Intake) -> None:
        """Begin to start jobs, and return: waiting is done in a thread of yours. Called once. What
        happened before and is not in the store yet (slots that were missed) is made up for first."""

    @abstractmethod
    def replace(self, triggers: Sequence[Trigger]) -> None:
        """From now on these are the triggers: jobs.yaml was loaded again. What did not change goes on."""

    @abstractmethod
    def stop(self) -> None:
        """Start nothing any more; on return no thread of yours is left. May be called twice."""
