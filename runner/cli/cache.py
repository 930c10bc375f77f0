"""`runner cache`: the results of pure functions that are kept to be used again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from runner.cli import console
from runner.cli.groups import Group, json_option
from runner.cli.project import Project, pass_project
from runner.errors import NotAvailable

if TYPE_CHECKING:
    from runner.app import Runner
    from runner.results import ResultCache


@click.group("cache", cls=Group)
def cache() -> None:
    """The results of pure functions, kept to be used again."""


@cache.command("stats")
@json_option
@pass_project
def stats(project: Project, as_json: bool) -> None:
    """Tell how many results are kept, and how much they take.

    With --json one object: results, bytes (all that they take on the disk), max_bytes, enabled (whether
    results are used again), functions (namespace, function, results, bytes of outputs, used_at to the
    hour).

    \b
    Example:
      runner cache stats
    """
    with project.open() as runner:
        found, enabled = _cache(runner).stats(), runner.config.reuse.enabled
    functions = [{**each._asdict(), "used_at": console.moment(each.used_at)} for each in found.functions]
    if as_json:
        facts = {"results": found.results, "bytes": found.bytes, "max_bytes": found.max_bytes, "enabled": enabled}
        console.show_json({**facts, "functions": functions})
        return
    results = console.counted(found.results, "result")
    off = "" if enabled else "; `reuse: {enabled: false}` keeps them from being used"
    console.show(f"{results}, {console.size(found.bytes)} of {console.size(found.max_bytes)}{off}")
    rows = [
        (
            console.printable(f"{each.namespace}/{each.function}"),
            f"{each.results:,}",
            console.size(each.bytes),
            console.moment(each.used_at),
        )
        for each in found.functions
    ]
    if rows:
        console.show_table(("function", "results", "output", "used"), rows, right=("results", "output"))


@cache.command("clear")
@click.option("--function", metavar="NAME", help="Forget the results of this function of the project only.")
@json_option
@pass_project
def clear(project: Project, function: str | None, as_json: bool) -> None:
    """Forget results: they are made again when they are needed.

    Without --function all that are kept in the project's store. With --json one object: cleared, the
    number of results.

    \b
    Examples:
      runner cache clear
      runner cache clear --function clean
    """
    with project.open() as runner:
        namespace = None if function is None else runner.config.namespace
        gone = _cache(runner).clear(namespace, function)
    if as_json:
        console.show_json({"cleared": gone})
    else:
        project.say(f"{console.counted(gone, 'result')} forgotten")


def _cache(runner: Runner) -> ResultCache:
    found = runner.reuse.cache
    if found is None:
        raise NotAvailable(f"the registry backend {runner.config.registry.name!r} keeps no results")
    return found
