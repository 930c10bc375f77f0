"""Runs code as an ordinary user when the tests run as root, for what root is never refused."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOBODY = 65534


def run_as_ordinary_user(
    code: str, *arguments: str, uid: int = NOBODY, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python code with the repository as its folder and an environment of its own, without a home.
    As `uid` when this is root, otherwise as this user; another uid is then a reason to skip."""
    command = [sys.executable, "-c", code, *arguments]
    if os.geteuid() == 0:
        command = _as_user(uid, command)
    elif uid != NOBODY:
        pytest.skip("only root can become another user")
    variables = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})}
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60)


def folder_for_all() -> Path:
    """A new folder in which every user may write. The caller removes it."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    return folder


def _as_user(uid: int, command: list[str]) -> list[str]:
    if not (shutil.which("unshare") and shutil.which("setpriv")):
        pytest.skip("util-linux is needed to become an ordinary user")
    user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--", *command]
    script = "\n".join(["set -e", *_uncover(), f"exec {shlex.join(user)}"])
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]


def _uncover() -> Iterator[str]:
    """Commands that make the interpreter and the repository reachable for everyone, in a mount namespace
    of their own: root's home may hold them, and is closed to others."""
    closed: dict[Path, list[Path]] = {}
    for needed in {Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), ROOT}:
        for above in reversed(needed.parents):
            if not above.stat().st_mode & 0o001:
                closed.setdefault(above, []).append(needed)
                break
    for folder, all_needed in closed.items():
        yield "cover=$(mktemp -d) && mount -t tmpfs -o mode=755 cover $cover"
        for needed in all_needed:
            inside = f"$cover/{shlex.quote(str(needed.relative_to(folder)))}"
            yield f"mkdir -p {inside} && mount --rbind {shlex.quote(str(needed))} {inside}"
        yield f"mount --move $cover {shlex.quote(str(folder))} && rmdir $cover"
