"""`runner graph`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from runner.cli import console
from runner.cli.completion import complete_job
from runner.cli.groups import ProjectCommand, json_option
from runner.cli.project import Project, pass_project

if TYPE_CHECKING:
    from runner.app import Runner
    from runner.diagrams.diagram import Diagram


@click.command("graph", cls=ProjectCommand)
@click.argument("job", shell_complete=complete_job)
@click.option(
    "--format",
    "form",
    type=click.Choice(("text", "mermaid", "svg")),
    default="text",
    show_default=True,
    help="How it is drawn.",
)
@json_option
@pass_project
def graph(project: Project, job: str, form: str, as_json: bool) -> None:
    """Draw the steps of a job and what each of them needs.

    As text, one line a step: first what is needed, below it what needs it. Mermaid is for Markdown
    that GitHub, GitLab or an editor shows; an SVG stands alone.

    With --json one object a step: step, runs, needs, is_many (it is run for each item of a list),
    is_conditional, facts.

    \b
    Examples:
      runner graph nightly
      runner graph nightly --format svg > nightly.svg
    """
    from runner.diagrams.diagram import diagram_of

    with project.open() as runner:
        diagram = diagram_of(runner.config.job(job), _triggers(runner, job))
    if as_json:
        for name, node in diagram.nodes.items():
            facts = {"is_many": node.is_many, "is_conditional": node.is_conditional, "facts": node.facts}
            console.show_json({"step": name, "runs": node.runs, "needs": diagram.needs[name], **facts})
    elif form == "text":
        for line in _text(diagram):
            console.show(line)
    elif form == "mermaid":
        from runner.diagrams.mermaid import mermaid

        console.write(mermaid(diagram).encode())
    else:
        from runner.diagrams.svg import svg

        console.write(svg(diagram).encode())


def _triggers(runner: Runner, job: str) -> Iterator[str]:
    """What starts the job, as people would say it."""
    for trigger in runner.triggers():
        if trigger.job == job:
            after = getattr(trigger.settings, "after", None)  # of a trigger that follows other jobs: their names
            key = trigger.id.removeprefix(f"{runner.config.namespace}/{job}/{trigger.kind}").removeprefix("/")
            yield (
                f"after {', '.join(after)}" if after and isinstance(after, tuple) else f"{trigger.kind} {key}".rstrip()
            )


def _text(diagram: Diagram) -> Iterator[str]:
    from runner.diagrams.lanes import ASCII, rows

    yield "  ".join([click.style(diagram.title, bold=True), *diagram.facts])
    yield ""
    drawn = rows(diagram.needs, frozenset(name for name, node in diagram.nodes.items() if node.is_many))
    plain = not (sys.stdout.encoding or "").lower().startswith("utf")
    names = max(map(len, diagram.nodes))
    runs = max(len(node.runs) for node in diagram.nodes.values())
    for row in drawn:
        lines = row.lines.translate(ASCII) if plain else row.lines
        if not row.name:
            yield f"  {lines}".rstrip()
            continue
        node = diagram.nodes[row.name]
        name = click.style(node.name, bold=True) + " " * (names - len(node.name))
        facts = click.style(", ".join(node.facts), dim=True) if node.facts else ""
        yield f"  {lines} {name}  {node.runs:{runs}}  {facts}".rstrip()
