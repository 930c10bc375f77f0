"""Writes the pages of docs/ that are made from code: `python docs/generate.py`.

A page is a function that returns its text. tests/test_schema.py compares every page with its file.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path

from runner import hookspecs, reference
from runner.cli import reference as cli_reference
from runner.plugins import load
from runner.schema import model_of

DOCS = Path(__file__).parent


def jobs_yaml() -> str:
    """The keys of jobs.yaml."""
    return reference.reference()


def hooks() -> str:
    """The hooks, from the hookspecs' own signatures and docstrings."""
    parts = [
        "# Hooks",
        "Made from `runner/hookspecs.py`. A plugin implements those it needs, marked with `@hookimpl`.",
    ]
    for name in hookspecs.spec_names():
        spec = getattr(hookspecs, name)
        signature = str(inspect.signature(spec)).replace("'", "")
        parts += [f"## {name}", f"```python\ndef {name}{signature}\n```", inspect.cleandoc(spec.__doc__ or "")]
    return "\n\n".join(parts) + "\n"


def cli() -> str:
    """The commands with their options and examples."""
    return cli_reference.reference()


def trigger_keys() -> str:
    """The keys of every kind of trigger that ships with runner."""
    parts = [
        "# Keys of triggers",
        "Made from the settings of the triggers that ship with `runner`; [triggers.md](triggers.md) tells of them.",
    ]
    for name, provider in load(no_plugins=True).catalogue.triggers.items():
        parts += [f"## `{name}`", f"{provider.summary}."]
        if provider.settings is not None:
            one_of = model_of(provider.settings).one_of
            parts += [f"Exactly one of {' and '.join(f'`{key}`' for key in one_of)}."] if one_of else []
            parts += [reference.settings_table(provider.settings).rstrip("\n")]
    return "\n\n".join(parts) + "\n"


def format_keys() -> str:
    """The keys of every source and sink of batches that ships with runner."""
    parts = [
        "# Keys of formats",
        "Made from the settings of the sources and sinks that ship with `runner`; [batch.md](batch.md) tells of them. "
        "`format` names one where the ending of `path` does not.",
    ]
    catalogue = load(no_plugins=True).catalogue
    for key, providers in (("input", catalogue.sources), ("output", catalogue.sinks)):
        for name, provider in providers.items():
            endings = ", ".join(f"`{ending}`" for ending in provider.suffixes)
            parts += [f"## `{key}`, format `{name}`", f"{provider.summary}{f' ({endings})' if endings else ''}."]
            assert provider.settings is not None
            parts += [" ".join((provider.settings.__doc__ or "").split())]
            parts += [reference.settings_table(provider.settings).rstrip("\n")]
    return "\n\n".join(parts) + "\n"


PAGES: Mapping[str, Callable[[], str]] = {
    "jobs-yaml.md": jobs_yaml,
    "hooks.md": hooks,
    "cli.md": cli,
    "trigger-keys.md": trigger_keys,
    "format-keys.md": format_keys,
}
"""Every generated page by its file name."""


def main() -> None:
    """Write every page that has changed."""
    for name, page in PAGES.items():
        path, text = DOCS / name, page()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
