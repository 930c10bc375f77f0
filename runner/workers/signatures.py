"""The imports that every engine answers, with their types: WASI preview 1 and our host functions.

The app reads this to refuse a module before it is compiled, so nothing here imports an engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from runner.workers.hostcalls import BYTES, HOST_FUNCTIONS, MODULES, HostFunction

WASI_MODULE: Final = "wasi_snapshot_preview1"
"""The import module of WASI preview 1. Its forerunner `wasi_unstable` lays out some structures
differently and is not answered."""

Signature = tuple[tuple[str, ...], tuple[str, ...]]
"""Parameter types and result types, each `i32`, `i64`, `f32` or `f64`."""

# One letter a parameter: i for i32, I for i64. All but proc_exit return an errno as i32. Order and
# types are those of the C ABI that the witx document of wasi_snapshot_preview1 defines.
_WASI_PARAMETERS = {
    "args_get": "ii",
    "args_sizes_get": "ii",
    "environ_get": "ii",
    "environ_sizes_get": "ii",
    "clock_res_get": "ii",
    "clock_time_get": "iIi",
    "fd_advise": "iIIi",
    "fd_allocate": "iII",
    "fd_close": "i",
    "fd_datasync": "i",
    "fd_fdstat_get": "ii",
    "fd_fdstat_set_flags": "ii",
    "fd_fdstat_set_rights": "iII",
    "fd_filestat_get": "ii",
    "fd_filestat_set_size": "iI",
    "fd_filestat_set_times": "iIIi",
    "fd_pread": "iiiIi",
    "fd_prestat_get": "ii",
    "fd_prestat_dir_name": "iii",
    "fd_pwrite": "iiiIi",
    "fd_read": "iiii",
    "fd_readdir": "iiiIi",
    "fd_renumber": "ii",
    "fd_seek": "iIii",
    "fd_sync": "i",
    "fd_tell": "ii",
    "fd_write": "iiii",
    "path_create_directory": "iii",
    "path_filestat_get": "iiiii",
    "path_filestat_set_times": "iiiiIIi",
    "path_link": "iiiiiii",
    "path_open": "iiiiiIIii",
    "path_readlink": "iiiiii",
    "path_remove_directory": "iii",
    "path_rename": "iiiiii",
    "path_symlink": "iiiii",
    "path_unlink_file": "iii",
    "poll_oneoff": "iiii",
    "proc_exit": "i",
    "proc_raise": "i",
    "random_get": "ii",
    "sched_yield": "",
    "sock_accept": "iii",
    "sock_recv": "iiiiii",
    "sock_send": "iiiii",
    "sock_shutdown": "ii",
}


def _wasi(name: str, parameters: str) -> Signature:
    types = tuple("i32" if letter == "i" else "i64" for letter in parameters)
    return types, () if name == "proc_exit" else ("i32",)


def _host(function: HostFunction) -> Signature:
    numbers = sum(2 if kind == BYTES else 1 for kind in function.parameters)
    return ("i32",) * numbers, ("i64",) if function.answers else ()


WASI: Final[Mapping[str, Signature]] = {name: _wasi(name, parameters) for name, parameters in _WASI_PARAMETERS.items()}
"""The functions of WASI preview 1, by name."""

HOST: Final[Mapping[str, Signature]] = {name: _host(function) for name, function in HOST_FUNCTIONS.items()}
"""The host functions of hostcalls.py, by name; each is found under every module of `MODULES`."""

SIGNATURES: Final[Mapping[tuple[str, str], Signature]] = {
    (WASI_MODULE, name): types for name, types in WASI.items()
} | {(module, name): types for module in MODULES for name, types in HOST.items()}
"""Every import answered, by (module, name)."""
