"""Groups of commands that are imported when they are used, and the options that stand anywhere.

`runner --help` has to answer before a plugin, YAML or a database could even be imported: a group
knows where its commands are and what they do in one line, and a test holds both to be true.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from runner.cli.project import Project


class Lazy(NamedTuple):
    """A command that is not imported yet."""

    module: str
    """The import path of its file."""
    attribute: str
    help: str
    """Its line in listings: the first sentence of its own help."""


class ProjectCommand(click.Command):
    """A command that works on a project: the global options may stand behind its name too, but for a
    short one that means something of its own there.

    What its function returns is the exit status; None is 0.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = {name for param in self.params for name in param.opts}
        for option in global_options(hidden=True):
            option.opts = [name for name in option.opts if name not in own]
            self.params.append(option)


class Group(click.Group):
    """A group of commands, listed in the order of declaration: those of `lazy`, then others."""

    command_class = ProjectCommand

    def __init__(self, *args: Any, lazy: Mapping[str, Lazy] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy or {}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """See click.Group."""
        return [*self.lazy, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See click.Group; this is where a command's file is imported."""
        where = self.lazy.get(cmd_name)
        if where is None:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(importlib.import_module(where.module), where.attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """See click.Group; imports nothing."""
        rows = [(name, where.help) for name, where in self.lazy.items()]
        rows += [(name, command.get_short_help_str(200)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See click.Group; a name that is not there is told with the nearest that is."""
        name = args[0]
        known = self.list_commands(ctx)
        if name not in known and not name.startswith("-") and not ctx.resilient_parsing:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            ctx.fail(f"no command {name!r}; {hint}")
        return super().resolve_command(ctx, args)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
"""`--json`, the same for every command that lists or measures."""


def _keep_no_reuse(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.ensure_object(Project).no_reuse = value


no_reuse_option = click.option(
    "--no-reuse",
    is_flag=True,
    expose_value=False,
    callback=_keep_no_reuse,
    help="Run pure functions also where their results are known, and keep no results.",
)
"""`--no-reuse`, the same for every command that carries out work."""


def global_options(*, hidden: bool) -> list[click.Parameter]:
    """The options of every command. They fill the Project; no command sees them as arguments.

    Hidden ones take no part in help, nor in reading the environment.
    """

    def option(declarations: list[str], attribute: str, help: str, **facts: Any) -> click.Option:
        def keep(ctx: click.Context, _: click.Parameter, value: Any) -> None:
            if value in (None, False):
                return
            setattr(ctx.ensure_object(Project), attribute, value)
            if attribute == "no_color":
                ctx.color = ctx.find_root().color = False

        return click.Option(declarations, help=help, hidden=hidden, expose_value=False, callback=keep, **facts)

    path = click.Path(path_type=Path)

    def variable(name: str) -> dict[str, Any]:
        return {} if hidden else {"envvar": name, "show_envvar": True}

    return [
        option(["-f", "--file"], "file", "The jobs.yaml to use.", type=path, metavar="FILE", **variable("RUNNER_FILE")),
        option(
            ["--state-dir"],
            "state_dir",
            "The folder for registry, logs and compiled modules; .runner beside jobs.yaml unless told otherwise.",
            type=path,
            metavar="FOLDER",
            **variable("RUNNER_STATE_DIR"),
        ),
        option(["--no-plugins"], "no_plugins", "Load no plugins but those that ship with runner.", is_flag=True),
        option(["-q", "--quiet"], "quiet", "Say nothing but results and errors.", is_flag=True),
        option(["--no-color"], "no_color", "No colours; so does a variable NO_COLOR.", is_flag=True),
    ]
