"""`runner status`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import click

from runner.cli import console
from runner.cli.groups import ProjectCommand, json_option
from runner.cli.project import Project, pass_project

if TYPE_CHECKING:
    from runner.control import Found


@click.command("status", cls=ProjectCommand)
@json_option
@pass_project
def status(project: Project, as_json: bool) -> int:
    """Tell which daemons serve and how much waits.

    Exit status 0 if a daemon serves, 1 if none does. With --json one object a daemon, or one with
    owner null if there is none: owner, state (serving, draining, silent, gone), pid, namespace, lanes,
    running (run_id, job, function, runs, seconds), ready, waiting, dead_letters, and counts since its
    start (succeeded, failed, dead, cancelled).

    \b
    Examples:
      runner status
      runner status --json
    """
    from runner.control import daemons

    with project.open() as runner:
        found = daemons(runner.state_dir)
        depth = runner.store.depth(runner.config.namespace, now=datetime.now(timezone.utc))
    waiting = {"ready": depth.ready, "waiting": depth.waiting, "dead_letters": depth.dead_letters}
    if as_json:
        for daemon in found:
            console.show_json(_facts(daemon, waiting))
        if not found:
            console.show_json({"owner": None, "state": "gone", "running": [], **waiting})
    else:
        _show(found)
        words = (f"{depth.ready} ready", f"{depth.waiting} wait for their moment", f"{depth.running} running")
        console.show(f"runs:    {', '.join(words)}, {console.counted(depth.dead_letters, 'dead letter')}")
    return 0 if any(daemon.alive for daemon in found) else 1


def _facts(daemon: Found, waiting: Mapping[str, int]) -> dict[str, Any]:
    known = {"owner": daemon.owner, "state": _state(daemon), "running": [], **waiting}
    return {**known, **(daemon.status or {})}


def _state(daemon: Found) -> str:
    if daemon.status is not None:
        return str(daemon.status.get("state"))
    return "silent" if daemon.alive else "gone"


def _show(found: list[Found]) -> None:
    if not any(daemon.alive for daemon in found):
        console.show("no daemon serves this project; `runner serve` starts one")
    for daemon in found:
        facts = daemon.status
        if facts is None:
            why = "it does not answer" if daemon.alive else "it was killed; the next to start takes back what it held"
            console.show(f"daemon:  {daemon.owner}: {click.style(why, fg='red')}")
            continue
        age = _length((datetime.now(timezone.utc) - datetime.fromisoformat(facts["started_at"])).total_seconds())
        state = click.style(facts["state"], fg="green" if facts["state"] == "serving" else "yellow")
        console.show(f"daemon:  process {facts['pid']}, {state} for {age}")
        has = f"{console.counted(facts['jobs'], 'job')}, {console.counted(facts['triggers'], 'trigger')}"
        console.show(f"         {has}, {_ended(facts)}")
        for index in range(facts["lanes"]):
            console.show(f"lane {index + 1}:  {_lane(facts['running'], index)}")


def _ended(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{facts[name]:,} {name}" for name in ("succeeded", "failed", "dead", "cancelled"))


def _lane(running: list[dict[str, Any]], index: int) -> str:
    if index >= len(running):
        return click.style("waits", dim=True)
    busy = running[index]
    more = f" and {busy['runs'] - 1} more" if busy["runs"] > 1 else ""
    return f"run {busy['run_id']} of {busy['job']}{more}, {_length(busy['seconds'])}"


def _length(seconds: float) -> str:
    """`3.9 s`, and `2h5m` from a minute on."""
    from runner.when import format_duration

    return console.duration(seconds * 1e3) if seconds < 60 else format_duration(timedelta(seconds=int(seconds)))
