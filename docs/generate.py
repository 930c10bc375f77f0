"""Writes the pages of docs/ that are made from code: `python docs/generate.py`.

A page is a function that returns its text. tests/test_schema.py compares every page with its file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from runner import reference

DOCS = Path(__file__).parent


def jobs_yaml() -> str:
    """The keys of jobs.yaml."""
    return reference.reference()


PAGES: Mapping[str, Callable[[], str]] = {"jobs-yaml.md": jobs_yaml}
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
