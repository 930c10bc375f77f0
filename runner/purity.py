"""What a pure function's module may import: calls that tell it nothing but its input and its env_vars.

How the clock is fixed and random bytes are seeded is the workers' business; here is only looked at what a
module could ask. Pure, like wasm.py.
"""

from __future__ import annotations

from typing import Final

from runner.errors import InvalidModule
from runner.wasm_binary import shown
from runner.wasm_module import Import, Module

_WASI: Final = "wasi_snapshot_preview1"
_HOST: Final = ("env", "host")

INERT_WASI: Final = frozenset(
    {
        # What it is given.
        *("args_get", "args_sizes_get", "environ_get", "environ_sizes_get"),
        # Fixed and seeded where the function is pure.
        *("clock_res_get", "clock_time_get", "random_get"),
        # Its own end, and doing nothing.
        *("proc_exit", "proc_raise", "sched_yield"),
        # The standard streams: there are no other descriptors.
        *("fd_advise", "fd_allocate", "fd_close", "fd_datasync", "fd_fdstat_get", "fd_fdstat_set_flags"),
        *("fd_fdstat_set_rights", "fd_filestat_get", "fd_filestat_set_size", "fd_filestat_set_times"),
        *("fd_pread", "fd_prestat_dir_name", "fd_prestat_get", "fd_pwrite", "fd_read", "fd_readdir"),
        *("fd_renumber", "fd_seek", "fd_sync", "fd_tell", "fd_write"),
        # Paths: C libraries import them unasked. Without a folder every one is refused, in the same way.
        *("path_create_directory", "path_filestat_get", "path_filestat_set_times", "path_link", "path_open"),
        *("path_readlink", "path_remove_directory", "path_rename", "path_symlink", "path_unlink_file"),
        # Waiting for a clock that stands still, or for streams that are always ready.
        "poll_oneoff",
    }
)
"""WASI preview 1 without sockets."""
INERT_HOST: Final = frozenset({"get_env", "log_info", "log_error"})
"""Of `env` and `host`: env_vars are a part of what its results are kept by, and nothing reads a log line."""


def check_pure(module: Module) -> None:
    """Raises InvalidModule for a module that could ask more of the world than a pure function may: the
    message names the first such import and what to do."""
    for wanted in module.imports:
        if not _is_inert(wanted):
            raise InvalidModule(
                f"a pure function may not import {shown(wanted.module)}.{shown(wanted.name)}: "
                f"{_reason(wanted)}; take the call out of its source, or `pure: true` out of jobs.yaml"
            )


def _is_inert(wanted: Import) -> bool:
    if wanted.module == _WASI:
        return wanted.name in INERT_WASI
    return wanted.module in _HOST and wanted.name in INERT_HOST


def _reason(wanted: Import) -> str:
    if wanted.module == _WASI and wanted.name.startswith("sock_"):
        return "it talks to nobody"
    if wanted.module in _HOST:
        return "of its host it may ask " + ", ".join(sorted(INERT_HOST)) + " and nothing else"
    return "its results depend on its input and env_vars alone"
