"""`runner schema`."""

from __future__ import annotations

import json

import click

from runner.cli import console
from runner.cli.groups import ProjectCommand
from runner.cli.project import Project, pass_project


@click.command("schema", cls=ProjectCommand)
@pass_project
def schema(project: Project) -> None:
    """Print the JSON Schema of jobs.yaml.

    Editors complete and check jobs.yaml with it. The settings of the plugins that are installed are
    a part of it.

    \b
    Examples:
      runner schema > jobs.schema.json
      # and as the first line of jobs.yaml:
      # yaml-language-server: $schema=jobs.schema.json
    """
    from runner.jsonschema import json_schema

    text = json.dumps(json_schema(project.plugins().catalogue), indent=2, ensure_ascii=False)
    console.write(text.encode() + b"\n")
