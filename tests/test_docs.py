"""What the documents show is run: files are written, commands typed, their output compared.

In a fenced block the word after the language is the file that it holds. Of a `console` block each
line behind `$ ` is a command; the lines below it must be found in what it prints, in order.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DOCUMENTS = (
    "README.md",
    "docs/functions.md",
    "docs/plugins.md",
    "docs/pipelines.md",
    "docs/runs.md",
    "docs/daemon.md",
    "docs/triggers.md",
    "docs/batch.md",
    "docs/testing.md",
    "docs/reuse.md",
    "docs/replay.md",
)


class Reader:
    """Someone who does what a document says, in an empty folder."""

    def __init__(self, folder: Path, state: Path) -> None:
        self._folder = folder
        self._here = folder
        self._state = state

    def follow(self, text: str) -> int:
        """Write the files and type the commands; returns how many commands there were."""
        commands = 0
        for language, name, body in BLOCK.findall(text):
            if language == "console":
                commands += self._type(body)
            elif name:
                path = self._folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(body)
        return commands

    def _type(self, body: str) -> int:
        parts = [part.splitlines() for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]]
        for command, *expected in parts:
            printed = self._run(command)
            place = 0
            for line in expected:
                found = printed.find(line, place)
                assert found >= 0, f"`{command}` did not print {line!r} there:\n{printed}"
                place = found + len(line)
        return len(parts)

    def _run(self, command: str) -> str:
        program, *arguments = shlex.split(command)
        if program == "cd":
            self._here = self._here / arguments[0]
            return ""
        if program == "runner":
            # The builder's own compiler cache is shared, or each document would build a libc.
            arguments = ["-m", "runner", *arguments]
            program = sys.executable
        done = subprocess.run(
            [program, *arguments],
            cwd=self._here,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(self._state),
                "RUNNER_STATE_DIR": str(self._state / self._folder.name),
                "ZIG_GLOBAL_CACHE_DIR": os.environ.get("ZIG_GLOBAL_CACHE_DIR", str(self._state / "zig")),
            },
        )
        assert done.returncode == 0, f"`{command}` ended with {done.returncode}:\n{done.stdout}"
        return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_says_works(document: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.getbasetemp() / "reader"
    home.mkdir(exist_ok=True)
    commands = Reader(tmp_path, home).follow((ROOT / document).read_text())
    assert commands or document == "docs/plugins.md"


@pytest.mark.parametrize("document", sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md")))
def test_links_lead_somewhere(document: str) -> None:
    self_and_readme = [ROOT / document, ROOT / "README.md"]
    for path in self_and_readme:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}, which is not there"


@pytest.mark.parametrize("document", ["docs/plugins.md", "docs/triggers.md"])
def test_python_in_documents_compiles(document: str) -> None:
    blocks = [body for language, _, body in BLOCK.findall((ROOT / document).read_text()) if language == "python"]
    assert blocks
    for body in blocks:
        compile(body, document, "exec")
