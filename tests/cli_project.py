"""The program as its users have it: a process in a folder with a jobs.yaml. What tests/test_cli_*.py share."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wasmtime

EXECUTOR = "wasmer" if sys.version_info[:2] == (3, 10) else "wasmtime"
PR_SET_CHILD_SUBREAPER = 36

_COPY = """(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (func (export "_start")
    (loop $more
      (i32.store (i32.const 0) (i32.const 1024))
      (i32.store (i32.const 4) (i32.const 60000))
      (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (if (i32.load (i32.const 8)) (then
        (i32.store (i32.const 4) (i32.load (i32.const 8)))
        (drop (call $write (i32.const {descriptor}) (i32.const 0) (i32.const 1) (i32.const 8)))
        {after}
        (br $more))))))"""
_PLAIN = '(module (memory (export "memory") 1) (func $inner {body}) (func (export "_start") call $inner))'

WAT = {
    "echo": _COPY.format(descriptor=1, after=""),  # stdin to stdout
    "log": _COPY.format(descriptor=2, after=""),  # stdin to stderr
    "complain": _COPY.format(descriptor=2, after="unreachable"),  # the same, and traps
    "trap": _PLAIN.format(body="unreachable"),
    "loop": _PLAIN.format(body="(loop br 0)"),
    "env": """(module
      (import "env" "get_env" (func $get (param i32 i32) (result i64)))
      (memory (export "memory") 1)
      (global $next (mut i32) (i32.const 1024))
      (data (i32.const 0) "NAME")
      (func (export "malloc") (param $size i32) (result i32)
        (global.get $next)
        (global.set $next (i32.add (global.get $next) (local.get $size))))
      (func (export "handle") (param i32 i32) (result i64)
        (i64.rotl (call $get (i32.const 0) (i32.const 4)) (i64.const 32))))""",
}
"""Functions by name."""

FUNCTIONS = "version: 1\ndefaults: {{executor: {executor}}}\nfunctions:\n{functions}\n"


@dataclass(frozen=True)
class Done:
    """How a call of the program ended."""

    status: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Its stdout as text."""
        return self.out.decode()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Its stdout as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


class CliProject:
    """A folder in which `runner` is called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "home"),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }

    def write(self, name: str, data: str | bytes) -> Path:
        """A file of the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def declare(self, jobs: str, **settings: str) -> None:
        """Write jobs.yaml with every function of WAT, `settings` on top of each by name, and these jobs."""
        lines = []
        for name, text in WAT.items():
            self.write(f"functions/{name}.wasm", bytes(wasmtime.wat2wasm(text)))
            lines.append(f"  {name}: {{wasm: functions/{name}.wasm{settings.get(name, '')}}}")
        functions = FUNCTIONS.format(executor=EXECUTOR, functions="\n".join(lines))
        self.write("jobs.yaml", functions + f"jobs: {jobs}\n")

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start the program in a session of its own, as a terminal would."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        command = [sys.executable, "-m", "runner", *arguments]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            start_new_session=True,
            # Tests that were started in a shell's background ignore Ctrl-C, and a child would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            **pipes,
        )

    def run(self, *arguments: str, input: bytes | None = None, **options: Any) -> Done:
        """Run it to its end."""
        with self.start(
            *arguments, stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL, **options
        ) as it:
            out, err = it.communicate(input, timeout=60)
        return Done(it.returncode, out or b"", (err or b"").decode())

    def ok(self, *arguments: str, input: bytes | None = None) -> Done:
        """Run it and expect status 0."""
        done = self.run(*arguments, input=input)
        assert done.status == 0, f"{arguments} ended with {done.status}:\n{done.err}"
        return done

    def on_terminal(self, *arguments: str, typed: bytes = b"", **environment: str) -> str:
        """What the program shows on a terminal, from start to end. `typed` is what somebody types ahead."""
        ours, theirs = os.openpty()
        self.environment |= {"TERM": "xterm", **environment}
        process = self.start(*arguments, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        os.write(ours, typed)
        shown = b""
        with contextlib.suppress(OSError):  # the last process on the other side has closed it
            while piece := os.read(ours, 65536):
                shown += piece
        os.close(ours)
        process.wait(30)
        return shown.decode()


class Orphans:
    """Sees what a process leaves behind: it becomes a child of ours.

    Make one before the process starts.
    """

    def __init__(self) -> None:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._known = set(_children())

    def left(self, seconds: float = 2.0) -> Sequence[str]:
        """The command lines of those still running after so many seconds of grace."""
        until = time.monotonic() + seconds
        while (found := self._running()) and time.monotonic() < until:
            time.sleep(0.02)
        return found

    def _running(self) -> list[str]:
        found = []
        for pid in set(_children()) - self._known:
            if os.waitpid(pid, os.WNOHANG)[0] == 0:
                found.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode())
        return found


def _children() -> Iterator[int]:
    for task in Path("/proc/self/task").iterdir():
        yield from map(int, (task / "children").read_text().split())
