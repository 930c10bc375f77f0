"""Whether anybody is there to carry out what is in the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.cli.project import Project

if TYPE_CHECKING:
    from runner.app import Runner


def is_served(runner: Runner) -> bool:
    """Whether a daemon of this project is at work on this machine."""
    from runner.control import daemons

    return any(
        daemon.alive and (daemon.status or {}).get("namespace", runner.config.namespace) == runner.config.namespace
        for daemon in daemons(runner.state_dir)
    )


def tell_if_unserved(project: Project, runner: Runner) -> None:
    """Tell the user that what was just enqueued has to wait for a daemon, if it has."""
    if not project.quiet and not is_served(runner):
        project.say("no daemon serves this project; `runner serve` starts one")
