"""The triggers `cron`, `interval`, `timer` and `job`.

Hook implementations only; the sources are imported when they are created.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.contracts import Host, Provider
from runner.hookspecs import hookimpl
from runner_apscheduler.settings import CronSettings, IntervalSettings, JobSettings, TimerSettings

if TYPE_CHECKING:
    from runner.triggers import TriggerSource


@hookimpl
def runner_triggers() -> list[Provider[TriggerSource]]:
    """The providers of the four kinds."""
    kinds = {
        "cron": ("CronSource", CronSettings, "Due by a cron expression, in a time zone"),
        "interval": ("IntervalSource", IntervalSettings, "Due every so often"),
        "timer": ("TimerSource", TimerSettings, "Due once, at a moment or some time after it was first seen"),
        "job": ("JobSource", JobSettings, "Enqueued by people, programs and guests, or after other jobs"),
    }
    return [
        Provider(name=kind, summary=summary, create=_creator(source), settings=settings)
        for kind, (source, settings, summary) in kinds.items()
    ]


def _creator(source: str) -> Any:
    def create(_settings: Any, _host: Host) -> TriggerSource:
        from runner_apscheduler import sources

        made: TriggerSource = getattr(sources, source)()
        return made

    return create
