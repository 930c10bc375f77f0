"""The project a command works on: what the global options say, and the parts they lead to.

Parts are imported and made when a command asks for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.cli import console

if TYPE_CHECKING:
    from runner.app import Runner
    from runner.plugins import Plugins

DEFAULT_FILE = Path("jobs.yaml")


def _color_is_unwanted() -> bool:
    return bool(os.environ.get("NO_COLOR"))


@dataclass
class Project:
    """Filled by the global options, before and behind the command's name."""

    file: Path = DEFAULT_FILE
    state_dir: Path | None = None
    no_plugins: bool = False
    quiet: bool = False
    no_reuse: bool = False
    no_color: bool = field(default_factory=_color_is_unwanted)

    def say(self, message: str) -> None:
        """Tell the user something that is no result: a line on stderr, unless they want quiet."""
        if not self.quiet:
            console.tell(message)

    def load_plugins(self) -> Plugins:
        """The plugins that this call may use, and those that are broken."""
        from runner.plugins import load

        return load(no_plugins=self.no_plugins, notify=console.tell)

    def plugins(self) -> Plugins:
        """The same; one that is broken is told of, however quiet they want it."""
        plugins = self.load_plugins()
        for failure in plugins.failures:
            console.tell(f"plugin {console.printable(str(failure))}")
        return plugins

    def start_ahead(self) -> None:
        """Let a process of an engine start while the program loads: for commands that will need one."""
        from runner.workers.launch import start_ahead

        start_ahead()

    def open(self, *, notify: Callable[[str], None] | None = None, bare: bool = False) -> Runner:
        """The Runner of jobs.yaml; close it. Raises ConfigError and what stands in its way, such as that there
        is none: with `bare` it may be missing, as for `runner map`."""
        from runner.app import Runner
        from runner.loading import load, load_if_any

        plugins = self.plugins()
        config = (load_if_any if bare else load)(self.file, plugins.catalogue)
        runner = Runner(config, plugins, state_dir=self.state_dir, notify=notify or self.say)
        runner.may_reuse = not self.no_reuse
        return runner


pass_project = click.make_pass_decorator(Project, ensure=True)
"""Gives a command its Project as the first argument."""
