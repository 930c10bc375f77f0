"""The colours of statuses, the same wherever one is shown."""

from __future__ import annotations

import click

COLORS = {
    **{"running": "cyan", "succeeded": "green", "ran": "green", "caught_up": "green"},
    **{"failed": "red", "dead": "bright_red", "lost": "magenta"},
    **{"cancelled": "yellow", "skipped": "yellow", "released": "yellow"},
}


def colored(status: str) -> str:
    """The status of a job, a run, an attempt or a slot in its colour."""
    return click.style(status, fg=COLORS.get(status))
