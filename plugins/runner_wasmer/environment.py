"""Which CPython can run the Wasmer engine, and how one is made where the app's own cannot.

The wasmer wheels are for CPython 3.7 to 3.10. On 3.10 the app's own interpreter serves; elsewhere an
environment of its own does, kept in the user's data folder and shared by all projects.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from runner.errors import EngineUnavailable

VERSION = "1.1.0"
"""Of both wheels."""
REQUIREMENTS = (f"wasmer=={VERSION}", f"wasmer-compiler-llvm=={VERSION}", "landlockpy>=0.2", "seccompy>=0.2")
INSTALL_COMMAND = "runner engines install wasmer"
_INSTALL_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Home:
    """An interpreter that has the engine, and where its packages are."""

    python: str
    site_packages: Path


def find() -> Home | None:
    """The interpreter to use: the app's own if it can, else the environment that `install` made."""
    if sys.version_info[:2] == (3, 10):
        own = Path(sysconfig.get_path("platlib"))
        if _complete(own):
            return Home(sys.executable, own)
    folder = environment_folder()
    packages = folder / "lib" / "python3.10" / "site-packages"
    python = folder / "bin" / "python"
    return Home(str(python), packages) if (folder / "ready").exists() and _complete(packages) else None


def _complete(packages: Path) -> bool:
    return any((packages / "wasmer").glob("wasmer*.so")) and (packages / "wasmer_compiler_llvm.libs").is_dir()


def environment_folder() -> Path:
    """Where `install` keeps its environment: XDG_DATA_HOME, or ~/.local/share, and there `runner/`."""
    base = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser()
    return base / "runner" / "engines" / f"wasmer-{VERSION}"


def install(notify: Callable[[str], None]) -> None:
    """Make the environment, unless the engine is here already. What fails leaves nothing behind.

    Raises EngineUnavailable when no CPython 3.10 can be had or the wheels cannot be installed.
    """
    home = find()
    if home is not None:
        notify(f"wasmer {VERSION} is here already: {home.python}")
        return
    folder = environment_folder()
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        _make(folder, notify)
        _run([str(folder / "bin" / "python"), "-c", "import wasmer"], "the wheel does not import")
        (folder / "ready").touch()
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    notify(f"wasmer {VERSION} is installed in {folder}")


def _make(folder: Path, notify: Callable[[str], None]) -> None:
    uv = _find_uv()
    python = next(_pythons(), None)
    if uv is not None:
        # Without one here, uv may bring a CPython 3.10 of its own.
        notify(f"making an environment on {python or 'CPython 3.10, which uv brings,'} with uv")
        _run([*uv, "venv", "--quiet", "--python", python or "3.10", str(folder)], "uv cannot make an environment")
        target = ["--python", str(folder / "bin" / "python")]
        _run([*uv, "pip", "install", "--quiet", *target, *REQUIREMENTS], "uv cannot install the wheels")
        return
    if python is None:
        raise EngineUnavailable(
            "wasmer",
            "its wheels need CPython 3.10, and none was found",
            remedy="install python3.10, or `pip install uv`, which brings one; then try again",
        )
    notify(f"making an environment on {python}")
    _run([python, "-m", "venv", str(folder)], "the environment cannot be made")
    _run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *REQUIREMENTS], "pip cannot install")


def _find_uv() -> list[str] | None:
    found = shutil.which("uv")
    if found:
        return [found]
    return [sys.executable, "-m", "uv"] if _works([sys.executable, "-m", "uv", "--version"]) else None


def _pythons() -> Iterator[str]:
    """Paths of CPython 3.10 that really run: a name on PATH may be a shim that does not."""
    candidates = [
        shutil.which("python3.10"),
        shutil.which("python3"),
        "/usr/bin/python3.10",
        "/usr/local/bin/python3.10",
    ]
    pyenv = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    candidates += [str(path) for path in sorted((pyenv / "versions").glob("3.10*/bin/python"), reverse=True)]
    probe = "import sys; sys.exit(sys.version_info[:2] != (3, 10) or sys.implementation.name != 'cpython')"
    for candidate in candidates:
        if candidate and _works([candidate, "-c", probe]):
            yield candidate


def _works(command: list[str]) -> bool:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(command, capture_output=True, timeout=30).returncode == 0
    return False


def _run(command: list[str], what: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineUnavailable("wasmer", f"{what}: {error}") from error
    if done.returncode:
        raise EngineUnavailable("wasmer", f"{what}: {(done.stderr or done.stdout).strip()[-1000:]}")
