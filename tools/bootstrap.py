"""Makes `.venv` from nothing but a Python 3.8 or newer and a network: finds or fetches uv, finds or
fetches CPython 3.10, installs `runner` and what its tests and checks need, at the pinned versions.

Run by `make`; standard library only. `--find 3.13 3.12` prints the path of the first of these Pythons
that works here (nothing is fetched for it), `--uv` the path of uv.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"
VENV = ROOT / ".venv"
READY = VENV / ".ready"
"""Touched when the environment is whole; the Makefile compares its age."""

UV_REQUIREMENT = "uv>=0.8,<1"
UV_OLDEST = (0, 8)
"""`uv pip install --group` is needed."""
UV_RELEASES = "https://github.com/astral-sh/uv/releases/latest/download"

WASMER_PYTHON = "3.10"
"""The one minor version that the wasmer packages run on."""
OTHER_PYTHONS = ("3.13", "3.12", "3.11")

PROBE = (
    "import ctypes, platform, sqlite3, ssl, sys, zlib; print(platform.python_implementation(), sys.version_info[:2])"
)
"""Prints what an interpreter is; fails where one was built without a module that we need."""


class BootstrapError(Exception):
    """The environment cannot be made; the message says what to do."""


def say(message: str) -> None:
    """One line of progress."""
    print(f"bootstrap: {message}", file=sys.stderr, flush=True)


def run(command: Sequence[str]) -> str | None:
    """What the command prints, stripped; None when it is not there, fails or prints nothing."""
    try:
        return quietly(command).strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None


def quietly(command: Sequence[str]) -> str:
    """What the command prints on standard output; what it says on standard error is in the
    CalledProcessError that a failure raises."""
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=True)
    return done.stdout.decode("utf-8", "replace")


# uv


def uv_works(path: str | None) -> bool:
    """Whether this is a uv that runs here and is new enough."""
    found = re.match(r"uv (\d+)\.(\d+)", run([path, "--version"]) or "") if path else None
    return found is not None and (int(found[1]), int(found[2])) >= UV_OLDEST


def uv_by_venv() -> Path:
    """uv from pip in an environment of its own: what an externally managed Python allows."""
    folder = TOOLS / "uv-venv"
    quietly([sys.executable, "-m", "venv", "--clear", str(folder)])
    quietly([str(folder / "bin/python"), "-m", "pip", "install", "--quiet", UV_REQUIREMENT])
    return folder / "bin/uv"


def uv_by_target() -> Path:
    """uv from pip into a folder: for a Python whose venv has been split off (Debian's)."""
    folder = TOOLS / "uv-target"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", str(folder), UV_REQUIREMENT]
    quietly(command)
    return folder / "bin/uv"


def uv_target_triple() -> str:
    """The name of uv's release for this machine. The musl build runs on every Linux."""
    system = {"Linux": "unknown-linux-musl", "Darwin": "apple-darwin"}.get(platform.system())
    machine = {"x86_64": "x86_64", "amd64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}.get(
        platform.machine().lower()
    )
    if system is None or machine is None:
        raise BootstrapError(f"no uv release is known for {platform.system()} on {platform.machine()}")
    return f"{machine}-{system}"


def uv_by_release(releases: str = UV_RELEASES) -> Path:
    """uv from its makers' release page: for a Python with neither venv nor pip."""
    name = f"uv-{uv_target_triple()}"
    archive = download(f"{releases}/{name}.tar.gz")
    expected = download(f"{releases}/{name}.tar.gz.sha256").split()[0].decode()
    if hashlib.sha256(archive).hexdigest() != expected:
        raise BootstrapError(f"{releases}/{name}.tar.gz is not what its checksum says; try again")
    path = TOOLS / "uv-release" / "uv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        member = files.extractfile(f"{name}/uv")
        if member is None:
            raise BootstrapError(f"{releases}/{name}.tar.gz holds no {name}/uv")
        path.write_bytes(member.read())
    path.chmod(0o755)
    return path


def download(url: str) -> bytes:
    """The body of a GET."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        body: bytes = answer.read()
    return body


WAYS_TO_UV: Sequence[Callable[[], Path]] = (uv_by_venv, uv_by_target, uv_by_release)


def find_uv() -> str | None:
    """The path of a working uv: `$UV`, PATH, or an earlier private copy in `.tools/`."""
    private = [str(TOOLS / place) for place in ("uv-venv/bin/uv", "uv-target/bin/uv", "uv-release/uv")]
    for candidate in [os.environ.get("UV"), shutil.which("uv"), *private]:
        if uv_works(candidate):
            return candidate
    return None


def fetch_uv(ways: Iterable[Callable[[], Path]] = WAYS_TO_UV) -> str:
    """A private copy of uv; tries each way and tells why none went."""
    TOOLS.mkdir(exist_ok=True)
    failures = []
    for way in ways:
        try:
            path = str(way())
        except (OSError, subprocess.CalledProcessError, tarfile.TarError, KeyError, BootstrapError) as error:
            failures.append(f"  {way.__name__.replace('_', ' ')}: {reason(error)}")
            continue
        if uv_works(path):
            say(f"fetched a private uv: {path}")
            return path
        failures.append(f"  {way.__name__.replace('_', ' ')}: what it fetched does not run")
    raise BootstrapError(
        "no uv on PATH, and none could be fetched:\n"
        + "\n".join(failures)
        + "\ncheck the network (proxy variables included), or install uv by hand and run make again"
    )


def reason(error: BaseException) -> str:
    """The telling line of an error: for a failed command, the last that it printed."""
    if isinstance(error, subprocess.CalledProcessError):
        lines = (error.stderr or b"").decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"exit status {error.returncode}"
    return str(error) or type(error).__name__


# Python


def python_works(path: str, version: str) -> bool:
    """Whether this really runs and is a CPython of that minor version. A pyenv shim may do neither."""
    major, minor = version.split(".")
    return run([path, "-c", PROBE]) == f"CPython ({major}, {minor})"


def python_candidates(version: str, uv: str | None) -> Iterator[str]:
    """Paths where that Python may be; most likely first, doubles and dead ones included."""
    name = f"python{version}"
    yield sys.executable
    for place in os.get_exec_path():
        if os.access(Path(place, name), os.X_OK):
            yield str(Path(place, name))
    pyenv = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    for folder, pattern in (
        (pyenv, f"versions/{version}*/bin/python"),
        ("/opt", f"*/bin/{name}"),
        ("/usr/local/bin", name),
    ):
        yield from sorted((str(path) for path in Path(folder).glob(pattern)), reverse=True)
    for preference in ("only-managed", "only-system"):
        found = uv and run([uv, "python", "find", "--no-python-downloads", "--python-preference", preference, version])
        if found:
            yield found


def find_python(versions: Iterable[str], uv: str | None) -> str | None:
    """The absolute path of the first of these Pythons that works here."""
    for version in versions:
        for candidate in python_candidates(version, uv):
            if python_works(candidate, version):
                return os.path.realpath(candidate)
    return None


def choose_python(uv: str) -> str:
    """CPython 3.10, fetched by uv if need be; else the newest other that can run `runner`."""
    found = find_python([WASMER_PYTHON], uv)
    if found:
        return found
    say(f"no CPython {WASMER_PYTHON} here; asking uv for one")
    run([uv, "python", "install", WASMER_PYTHON])
    found = find_python([WASMER_PYTHON], uv)
    if found:
        return found
    found = find_python(OTHER_PYTHONS, uv)
    if found is None:
        raise BootstrapError(
            f"no CPython {WASMER_PYTHON} to {OTHER_PYTHONS[0]} is on this machine and uv could not fetch one; "
            f"install CPython {WASMER_PYTHON} (`pyenv install {WASMER_PYTHON}`, or your system's package) "
            "and run make again"
        )
    say(
        f"no CPython {WASMER_PYTHON} to be had: functions will run on the wasmtime engine. "
        f"For Wasmer's LLVM compiler install CPython {WASMER_PYTHON} and run `make clean` and make again"
    )
    return found


# The environment


def make_environment(uv: str) -> None:
    """Brings `.venv` to what pyproject.toml and constraints.txt say; leaves it unready on failure."""
    if READY.exists():
        READY.unlink()
    python = choose_python(uv)
    version = run([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]) or ""
    inside = str(VENV / "bin/python")
    if not python_works(inside, version):
        say(f"making .venv on {python}")
        call([uv, "venv", "--quiet", "--clear", "--no-python-downloads", "--python", python, str(VENV)])
    say("installing runner and its tools (the pinned versions of constraints.txt)")
    constraints = str(ROOT / "constraints.txt")
    wanted = ["--editable", f"{ROOT}[c]", "--group", f"{ROOT / 'pyproject.toml'}:dev", "--constraints", constraints]
    call([uv, "pip", "install", "--quiet", "--no-python-downloads", "--python", inside, *wanted])
    READY.touch()


def call(command: Sequence[str]) -> None:
    """Runs one step in the open."""
    status = subprocess.run(command, cwd=ROOT).returncode
    if status:
        raise BootstrapError(f"this step failed (exit status {status}): {' '.join(command)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description="Makes the environment of this project.")
    parser.add_argument("--find", nargs="+", metavar="VERSION", help="print the first of these Pythons that works here")
    parser.add_argument("--uv", action="store_true", help="print the path of uv, fetching it if need be")
    options = parser.parse_args(arguments)
    try:
        if options.find:
            found = find_python(options.find, find_uv())
            print(found or "")
            return 0 if found else 1
        uv = find_uv() or fetch_uv()
        if options.uv:
            print(uv)
        else:
            make_environment(uv)
    except BootstrapError as error:
        say(str(error))
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
