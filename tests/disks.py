"""File systems that are small, full or read-only, for tests of what is kept in files."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
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


FAULTS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_wanted(const char *fault, int fd) {
  char link[64], path[4096], told[64] = "";
  const char *name = getenv("FAULT_FILE");
  FILE *file = name ? fopen(name, "r") : NULL;
  if (!file) return 0;
  if (!fgets(told, sizeof told, file)) told[0] = 0;
  fclose(file);
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(link, path, sizeof path - 1);
  path[size < 0 ? 0 : size] = 0;
  return !strcmp(told, fault) && strstr(path, "runner.db");
}

#define REAL(name) ((__typeof__(&name)) dlsym(RTLD_NEXT, #name))
#define WRITE(name) ssize_t name(int fd, const void *data, size_t size, off64_t at) { \\
  if (is_wanted("write", fd)) { errno = EIO; return -1; } \\
  if (is_wanted("short", fd)) { REAL(name)(fd, data, size / 2, at); errno = ENOSPC; return -1; } \\
  return REAL(name)(fd, data, size, at); \\
}
#define SYNC(name) int name(int fd) { \\
  if (is_wanted("sync", fd)) { errno = EIO; return -1; } \\
  return REAL(name)(fd); \\
}
WRITE(pwrite)
WRITE(pwrite64)
SYNC(fsync)
SYNC(fdatasync)
"""
"""Calls of the C library that fail as long as the file FAULT_FILE says so, for the files of a store."""


class FaultyDisk:
    """Makes the disk fail under the store of a process that was started with `environment`."""

    def __init__(self, library: Path, flag: Path) -> None:
        self._flag = flag
        self.environment = {"LD_PRELOAD": str(library), "FAULT_FILE": str(flag)}

    def fail(self, fault: str) -> None:
        """From now on: `write` (EIO), `short` (half is written, then no room), `sync` (EIO), or '' for none."""
        beside = self._flag.with_name("fault.new")
        beside.write_text(fault)
        beside.rename(self._flag)


def build_faults(folder: Path) -> Path:
    """The library that FaultyDisk puts before the C library; skips the test where nothing compiles it."""
    pytest.importorskip("ziglang")
    source, library = folder / "faults.c", folder / "faults.so"
    source.write_text(FAULTS)
    command = [sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC", "-o", str(library), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return library
