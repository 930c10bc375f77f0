"""Which engine runs in which interpreter, and how its processes are started.

Engine processes are started with nothing of the app's environment, so that no secret of it can be
found in them, and with a module search path given by us: an app on one CPython may have its
engine on another.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

import runner

_BOOT = "import sys, json; sys.path[:] = json.loads(sys.argv[1]) {rest}; from {module} import main; main(sys.argv[2:])"
_ENVIRONMENT = {"LC_ALL": "C.UTF-8"}


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
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        stderr: int | IO[bytes] = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """Start `main(arguments)` of a module of ours in the engine's interpreter."""
        return subprocess.Popen(
            _command(self.python, [str(self.package_dir)], module, arguments),
            cwd="/",
            start_new_session=True,  # Ctrl-C is for the app, which ends its processes itself
            env={**_ENVIRONMENT, **environment},
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )


class ZygoteProcess(NamedTuple):
    """A zygote that waits to be told its engine, and our end of its control socket."""

    process: subprocess.Popen[bytes]
    control: socket.socket


_ahead: list[ZygoteProcess] = []


def start_zygote(python: str) -> ZygoteProcess:
    """Start a zygote in this interpreter, or take the one that was started ahead. Raises OSError."""
    if python == sys.executable:
        with contextlib.suppress(IndexError):
            return _ahead.pop()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with theirs:
            process = subprocess.Popen(
                _command(python, [], "runner.workers.zygote", [str(theirs.fileno())]),
                cwd="/",
                start_new_session=True,
                env=_ENVIRONMENT,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,  # a pipe and no file: a worker may not make a file grow
            )
    except BaseException:
        ours.close()
        raise
    return ZygoteProcess(process, ours)


def start_ahead() -> None:
    """Start a zygote before it is known what for: it loads what all engines have in common while the
    program loads the rest. For a program that will most likely need one; it is ended with the program."""
    with contextlib.suppress(OSError):
        _ahead.append(start_zygote(sys.executable))
        atexit.register(_end_ahead)


def _end_ahead() -> None:
    while _ahead:
        process, control = _ahead.pop()
        process.kill()
        process.wait()
        control.close()
        assert process.stderr is not None
        process.stderr.close()


def _command(python: str, folders: Sequence[str], module: str, arguments: Sequence[str]) -> list[str]:
    ours = [str(Path(runner.__file__).parent.parent), *folders]
    own = python == sys.executable
    # Our own interpreter is given the very path of the app and skips `site`; another one keeps what
    # its environment brings, and finds our modules before that.
    paths = [*ours, *(path for path in sys.path if path)] if own else ours
    boot = _BOOT.format(rest="" if own else "+ sys.path", module=module)
    flags = ["-I", "-S"] if own else ["-I"]
    return [python, *flags, "-c", boot, json.dumps(paths), *arguments]
