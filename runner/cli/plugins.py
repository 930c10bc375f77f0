"""`runner plugins`."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import click

from runner.cli import console
from runner.cli.groups import Group, json_option
from runner.cli.project import Project, pass_project
from runner.errors import PluginUnavailable

if TYPE_CHECKING:
    from runner.plugins import PluginInfo, Providers


@click.group("plugins", cls=Group)
def plugins() -> None:
    """The plugins that are installed.

    Any installed package with an entry point in the group `runner` is one. --no-plugins leaves out
    all that do not ship with runner; RUNNER_PLUGINS=NAME,NAME all that it does not name.
    """


@plugins.command("list")
@json_option
@pass_project
def list_plugins(project: Project, as_json: bool) -> None:
    """List every plugin, also those that are broken.

    With --json: name, distribution, version, status (loaded, failed), hooks, provides, error.
    """
    rows = []
    for info in project.load_plugins().infos:
        if as_json:
            console.show_json(_facts(info))
        else:
            what = "; ".join(f"{kind} {', '.join(names)}" for kind, names in info.provides.items() if names)
            rows.append((info.name, info.version, _status(info), console.printable(info.error or what)))
    if rows:
        console.show_table(("name", "version", "status", "provides"), rows)


@plugins.command("show")
@click.argument("name")
@json_option
@pass_project
def show(project: Project, name: str, as_json: bool) -> int:
    """Show one plugin: its hooks, what it provides with which settings, or why it failed.

    Exit status 3 for one that is not installed or failed.
    """
    loaded = project.load_plugins()
    infos = {info.name: info for info in loaded.infos}
    info = infos.get(name)
    if info is None:
        close = difflib.get_close_matches(name, infos, 1)
        hint = f"did you mean {close[0]!r}?" if close else "`runner plugins list` shows what is installed"
        raise PluginUnavailable(f"no plugin {name!r} is installed; {hint}")
    if as_json:
        console.show_json(_facts(info))
    else:
        for key, value in _lines(info):
            console.show(f"{key:10}  {console.printable(value)}".rstrip())
        if not info.error:
            _show_settings(info, loaded.catalogue)
    return PluginUnavailable.exit_status if info.error else 0


def _status(info: PluginInfo) -> str:
    return click.style("failed", fg="red") if info.error else click.style("loaded", fg="green")


def _lines(info: PluginInfo) -> list[tuple[str, str]]:
    provided = [(kind, ", ".join(names)) for kind, names in info.provides.items() if names]
    return [
        ("name", info.name),
        ("package", f"{info.distribution} {info.version}"),
        ("module", info.module),
        ("hooks", ", ".join(info.hooks)),
        *provided,
        *([("error", info.error)] if info.error else []),
    ]


def _show_settings(info: PluginInfo, catalogue: Providers) -> None:
    from runner.reference import settings_lines

    for kind, names in info.provides.items():
        for name in names:
            provider = catalogue.get(kind, name)
            console.show(f"\n{click.style(name, bold=True)}: {console.printable(provider.summary)}")
            for key, meaning in settings_lines(provider.settings) if provider.settings else []:
                console.show(click.wrap_text(key, 100, "  ", "      "))
                console.show(click.wrap_text(meaning, 100, "      ", "      "))


def _facts(info: PluginInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "distribution": info.distribution,
        "version": info.version,
        "status": "failed" if info.error else "loaded",
        "hooks": list(info.hooks),
        "provides": {kind: list(names) for kind, names in info.provides.items()},
        "error": info.error,
    }
