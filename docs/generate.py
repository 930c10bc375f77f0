"""Writes the pages of docs/ that are made from code: `python docs/generate.py`.

A page is a function that returns its text. tests/test_schema.py compares every page with its file.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path

from runner import hookspecs, reference
from runner.cli import reference as cli_reference

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


PAGES: Mapping[str, Callable[[], str]] = {"jobs-yaml.md": jobs_yaml, "hooks.md": hooks, "cli.md": cli}
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
