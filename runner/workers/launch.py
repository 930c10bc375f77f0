"""Which engine runs in which interpreter, and how its processes are started.

Engine processes are started with nothing of the app's environment, so that no secret of it can be
found in them, and with a module search path given by us: an app on one CPython may have its
engine on another.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import runner

_BOOT = "import sys, json; sys.path[:] = json.loads(sys.argv[1]) {rest}; from {module} import main; main(sys.argv[2:])"


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSpec:
    """An engine as the app knows it, without importing it."""

    name: str
    """The executor's name, as users write it."""
    module: str
    """Import path of the engine module."""
    version: str
    """Version of engine and compiler together: a part of every artifact's key."""
    package_dir: Path
    """The folder to search for the engine module."""
    python: str = sys.executable
    """The interpreter that can import it."""
    compile_environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that the compile process needs to load the compiler."""

    def popen(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        pass_fds: Sequence[int] = (),
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        stderr: int | IO[bytes] = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """Start `main(arguments)` of a module of ours in the engine's interpreter."""
        ours = [str(Path(runner.__file__).parent.parent), str(self.package_dir)]
        own = self.python == sys.executable
        # Our own interpreter is given the very path of the app and skips `site`; another one keeps
        # what its environment brings, and finds our modules after that.
        paths = [*ours, *(path for path in sys.path if path)] if own else ours
        boot = _BOOT.format(rest="" if own else "+ sys.path", module=module)
        flags = ["-I", "-S"] if own else ["-I"]
        return subprocess.Popen(
            [self.python, *flags, "-c", boot, json.dumps(paths), *arguments],
            cwd="/",
            start_new_session=True,  # Ctrl-C is for the app, which ends its processes itself
            env={"LC_ALL": "C.UTF-8", **environment},
            pass_fds=tuple(pass_fds),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )
