"""File systems that are small, full or read-only, for tests of what is kept in files."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def fill(path: Path) -> None:
    """Make a file that takes up all the room there is."""
    with path.open("wb", buffering=0) as file:
        while _fits(file):
            pass


def _fits(file: io.FileIO) -> bool:
    """Whether another 4 KiB could be written."""
    try:
        return file.write(bytes(4096)) == 4096
    except OSError:
        return False


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of this size, mounted at `folder`; skips the test where that is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.getuid() != 0 or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root and the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def read_only_folder(folder: Path) -> Iterator[Path]:
    """`folder` with what is in it when the block starts. Root may write wherever the modes say no, so
    that it needs a mount."""
    if os.getuid() != 0:
        modes = {entry: entry.stat().st_mode for entry in (*folder.iterdir(), folder)}
        for entry, mode in modes.items():
            entry.chmod(mode & 0o555)
        try:
            yield folder
        finally:
            for entry, mode in reversed(modes.items()):
                entry.chmod(mode)
        return
    with small_disk(folder / "mounted", "4m") as disk:
        for entry in folder.glob("*.db*"):
            shutil.copy(entry, disk)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        yield disk
