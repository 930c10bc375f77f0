"""`runner simulate`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

import click

from runner.cli import console
from runner.cli.completion import complete_job
from runner.cli.groups import ProjectCommand, json_option
from runner.cli.moments import now
from runner.cli.project import Project, pass_project
from runner.errors import UsageError

if TYPE_CHECKING:
    from runner.config import Config
    from runner.simulation import Firing, Scenario
    from runner.triggers import Trigger

_BLOCK = 1_000
"""Rows of a table that are aligned together, so that a long one is shown while it is made."""

_YEARS = (1900, 9000)


@click.command("simulate", cls=ProjectCommand)
@click.argument("jobs", nargs=-1, metavar="[JOB]...", shell_complete=complete_job)
@click.option("--from", "begin", metavar="WHEN", default="now", help="The first moment; now unless told otherwise.")
@click.option("--to", "end", metavar="WHEN", default="+1d", help="The end; one day after --from unless told otherwise.")
@click.option("--down", metavar="A..B", multiple=True, help="No daemon is awake from A to B; several times.")
@click.option(
    "--duration",
    metavar="[JOB=]TIME",
    multiple=True,
    help="How long runs take, of one job or of all that are not named; several times.",
)
@click.option(
    "-n", "--limit", type=click.IntRange(0), default=1_000, show_default=True, help="Rows at most; 0 for all."
)
@json_option
@pass_project
def simulate(
    project: Project,
    jobs: Sequence[str],
    begin: str,
    end: str,
    down: Sequence[str],
    duration: Sequence[str],
    limit: int,
    as_json: bool,
) -> None:
    """Show when jobs would run, and run nothing.

    Every due time of every time trigger, or of those of the named jobs: whether it fires, is skipped
    or caught up, and why, with the changes of the clocks in its time zone. The daemon decides in the
    same way. Triggers count as seen for the first time at --from.

    WHEN is a moment like 2027-03-28T00:00:00Z, a date (midnight UTC), `now`, or a duration from now
    like +12h or -7d; of --to, and of both ends of --down, the duration counts from --from.

    With --json: job, trigger, slot, local (the slot in the trigger's time zone; null where that is
    UTC), outcome (fires, skipped, caught_up), reason.

    \b
    Examples:
      runner simulate --to +7d
      runner simulate nightly --from 2027-03-27 --to 2027-03-30
      runner simulate --down +2h..+9h --duration 20m --duration nightly=3h
    """
    from runner.simulation import simulate as simulated

    with project.open() as runner:
        for job in jobs:
            runner.config.job(job)
        triggers = [trigger for trigger in runner.triggers() if not jobs or trigger.job in jobs]
        scenario = _scenario(begin, end, down, duration, runner.config)
        firings = simulated(
            triggers, lambda trigger: runner.trigger_source(trigger.kind).schedule(trigger.settings), scenario
        )
        _show(project, firings, {trigger.id: trigger for trigger in triggers}, limit, as_json)


def _scenario(begin: str, end: str, down: Sequence[str], duration: Sequence[str], config: Config) -> Scenario:
    from runner.simulation import Scenario

    start = _moment("--from", begin, now())
    durations: dict[str, timedelta] = {}
    for text in duration:
        job, _, length = text.rpartition("=")
        if job:
            config.job(job)
        durations[job] = _duration("--duration", length)
    rest = durations.pop("", timedelta(0))
    scenario = Scenario(
        begin=start,
        end=_moment("--to", end, start),
        down=[_span(text, start) for text in down],
        durations=durations,
        duration=rest,
    )
    if scenario.end <= scenario.begin:
        raise UsageError(f"--to {end} is not after --from {begin}")
    return scenario


def _moment(option: str, text: str, base: datetime) -> datetime:
    from runner.when import DURATION, parse_moment

    try:
        if text == "now":
            moment = now()
        elif text[:1] in ("+", "-"):
            length = _duration(option, text[1:])
            moment = base + length if text[0] == "+" else base - length
        else:
            moment = parse_moment(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}; or `now`, or + or - and {DURATION}") from error
    except OverflowError:
        moment = datetime.max
    if not _YEARS[0] <= moment.year <= _YEARS[1]:
        raise UsageError(f"{option} {text} is beyond what can be simulated: the years {_YEARS[0]} to {_YEARS[1]}")
    return moment


def _duration(option: str, text: str) -> timedelta:
    from runner.when import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error


def _span(text: str, base: datetime) -> tuple[datetime, datetime]:
    begin, dots, end = text.partition("..")
    if not dots:
        raise UsageError(f"--down {text}: expected two moments and dots between them, like +2h..+9h")
    span = _moment("--down", begin, base), _moment("--down", end, base)
    if span[1] <= span[0]:
        raise UsageError(f"--down {text} ends before it begins")
    return span


def _show(project: Project, firings: Iterator[Firing], triggers: dict[str, Trigger], limit: int, as_json: bool) -> None:
    counts: Counter[str] = Counter()
    wanted = islice(firings, limit) if limit else firings
    while block := list(islice(wanted, 1 if as_json else _BLOCK)):
        counts.update(firing.outcome for firing in block)
        if as_json:
            for firing in block:
                console.show_json(_facts(firing))
        else:
            _show_table(block, triggers)
    more = next(firings, None) if limit else None
    if more is not None:
        slot = console.plain(more.slot)
        project.say(f"stopped after {console.counted(limit, 'row')}; go on with --from {slot}, or --limit 0 for all")
    elif counts:
        project.say(f"{counts['fires']:,} fire, {counts['skipped']:,} skipped, {counts['caught_up']:,} caught up")
    elif any(trigger.kind != "job" for trigger in triggers.values()):
        project.say("nothing is due in this time")
    else:
        project.say("no time triggers here; docs/triggers.md tells how a job gets one")


def _facts(firing: Firing) -> dict[str, object]:
    return {
        "job": firing.job,
        "trigger": firing.trigger,
        "slot": console.plain(firing.slot),
        "local": firing.local.isoformat() if firing.local else None,
        "outcome": firing.outcome,
        "reason": firing.reason,
    }


def _show_table(block: Sequence[Firing], triggers: dict[str, Trigger]) -> None:
    from runner.when import format_moment

    headers = ["slot", "local", "job", "trigger", "outcome", "reason"]
    rows = []
    for firing in block:
        trigger = triggers[firing.trigger]
        key = firing.trigger.partition(f"/{trigger.job}/{trigger.kind}")[2].removeprefix("/")
        local = firing.local.isoformat(sep=" ") if firing.local else ""
        rows.append(
            [
                format_moment(firing.slot),
                local,
                firing.job,
                f"{trigger.kind} {key}",
                _colored(firing.outcome),
                firing.reason,
            ]
        )
    if not any(row[1] for row in rows):
        headers.remove("local")
        for row in rows:
            del row[1]
    console.show_table(headers, rows)


def _colored(outcome: str) -> str:
    return click.style(outcome, fg={"fires": "green", "caught_up": "yellow", "skipped": "red"}[outcome])
