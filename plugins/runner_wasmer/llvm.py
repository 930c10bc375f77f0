"""What a process needs in its environment before it can import Wasmer's LLVM compiler.

The wheel of wasmer-compiler-llvm 1.1.0 bundles a libtinfo under a name of its own, but the version
table of its shared object still asks for `libtinfo.so.5`: the loader ends the whole process when
that name is nowhere. So the compile process is started with a folder on LD_LIBRARY_PATH where that
name leads to the bundled file. Nothing here imports the compiler.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from runner.errors import EngineUnavailable

LIBRARY: Final = "libtinfo.so.5"


def library_folder(state_dir: Path, site_packages: Path | None = None) -> Path:
    """The folder under `state_dir` that holds the link; made, or mended, when it must be.

    `site_packages` is where the compile process's interpreter has the wheel, this interpreter's by
    default. Safe when several processes do it at once. Raises EngineUnavailable without the wheel.
    """
    packages = site_packages or Path(sysconfig.get_path("platlib"))
    bundled = sorted((packages / "wasmer_compiler_llvm.libs").glob("libtinfo*.so*"))
    if not bundled:
        raise EngineUnavailable(
            "wasmer",
            f"wasmer-compiler-llvm is not installed in {packages}",
            remedy="`runner engines install wasmer` makes an environment that has it",
        )
    folder = state_dir.absolute() / "llvm"
    if set(str(folder)) & set(":;"):
        raise EngineUnavailable(
            "wasmer",
            f"the loader takes no library folder with ':' or ';' in its path, and {folder} has one",
            remedy="move the project, or its state folder, to a path without",
        )
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / LIBRARY
    if not link.is_symlink() or link.readlink() != bundled[0]:
        fresh = folder / f".{LIBRARY}.{os.getpid()}"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(bundled[0])
        fresh.replace(link)
    return folder


def environment(folder: Path, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """`base` (this process's environment by default) with `folder` first on LD_LIBRARY_PATH."""
    variables = dict(os.environ if base is None else base)
    before = variables.get("LD_LIBRARY_PATH")
    variables["LD_LIBRARY_PATH"] = f"{folder}:{before}" if before else str(folder)
    return variables
