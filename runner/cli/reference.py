"""docs/cli.md, made from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from runner.cli.groups import Group
from runner.cli.main import root

_RAW = "\b\n"
"""click's mark for a paragraph that is to stay as it is."""


def reference() -> str:
    """The page, in Markdown: every command with usage, options and examples."""
    context = click.Context(root, info_name="runner")
    parts = ["# Command line", "Made from the commands' own help, which `runner COMMAND --help` shows."]
    for section in _sections(context, root):
        parts += section
    return "\n\n".join(parts) + "\n"


def _sections(context: click.Context, command: click.Command) -> Iterator[list[str]]:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield [f"## {context.command_path}", f"```\n{usage}\n```", *_text(command), *_options(context, command)]
    if isinstance(command, Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from _sections(click.Context(child, info_name=name, parent=context), child)


def _text(command: click.Command) -> list[str]:
    """The help's paragraphs; one that click leaves as it is becomes a block of code."""
    parts = []
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if not paragraph.startswith(_RAW):
            parts.append(" ".join(paragraph.split()).replace("[", r"\[").replace("<", r"\<"))
            continue
        title, *lines = paragraph.removeprefix(_RAW).split("\n")
        parts += [title, "```sh\n" + inspect.cleandoc("\n".join(lines)) + "\n```"]
    return parts


def _options(context: click.Context, command: click.Command) -> list[str]:
    options = [param for param in command.get_params(context) if isinstance(param, click.Option)]
    records = [record for option in options if (record := option.get_help_record(context))]
    rows = [f"| `{names.replace('|', chr(92) + '|')}` | {' '.join(text.split())} |" for names, text in records]
    rows = [row for row in rows if not row.endswith("| Show this message and exit. |")]
    return ["\n".join(["| Option | |", "|---|---|", *rows])] if rows else []
