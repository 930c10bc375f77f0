"""Fresh environments for tests of what users install: a wheel built from the tree, and a venv with it.

Needs what an installation needs: a package index. uv is used if the machine has it, else venv and pip.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.bootstrap import find_uv

ROOT = Path(__file__).parent.parent
SOURCES = ("runner", "plugins", "pyproject.toml", "README.md", "LICENSE")
IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", ".runner", "out", ".*_cache")


@functools.cache
def wheel() -> Path:
    """The wheel of this tree; built once a session, in a copy, so that the tree stays clean."""
    folder = Path(tempfile.mkdtemp(prefix="runner-wheel-"))
    atexit.register(shutil.rmtree, folder)
    for name in SOURCES:
        copy(ROOT / name, folder / "tree" / name)
    return build(folder / "tree")


def copy(source: Path, target: Path) -> None:
    """Copy a file or a folder without what running it leaves there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=IGNORED)
    else:
        shutil.copy2(source, target)


def build(tree: Path) -> Path:
    """The wheel of a project folder."""
    uv = find_uv()
    builder = [uv, "build", "--python", sys.executable] if uv else [sys.executable, "-m", "build"]
    call([*builder, "--wheel", "-o", str(tree / "dist"), str(tree)])
    (built,) = (tree / "dist").glob("*.whl")
    return built


@dataclass(frozen=True)
class Environment:
    """A virtual environment of its own."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @classmethod
    def make(cls, folder: Path, *packages: str | Path) -> Environment:
        """A new one with these packages, at the versions of constraints.txt."""
        uv = find_uv()
        if uv:
            call([uv, "venv", "--no-python-downloads", "--python", sys.executable, str(folder)])
        else:
            call([sys.executable, "-m", "venv", str(folder)])
        made = cls(folder)
        pip = [uv, "pip", "install", "--python", str(made.python)] if uv else [str(made.python), "-m", "pip", "install"]
        call([*pip, "--constraint", str(ROOT / "constraints.txt"), *map(str, packages)])
        return made

    def run(self, *command: str, cwd: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run one of its commands, which must end with this status."""
        return call([str(self.folder / "bin" / command[0]), *command[1:]], cwd=cwd, status=status)


def call(command: Sequence[str], *, cwd: Path | None = None, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command outside this tree and this environment; shows what it said when its status is another."""
    ours = ("PYTHON", "VIRTUAL_ENV", "RUNNER_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(command, cwd=cwd or tempfile.gettempdir(), env=inherited, capture_output=True, text=True)
    assert done.returncode == status, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done
