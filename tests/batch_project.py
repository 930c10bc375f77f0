"""Batches as their users run them, and without processes. What tests/test_batch_*.py share."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from wasmtime import wat2wasm

from runner.testing import guests
from tests.cli_project import CliProject, Done

PICKY = guests.command(
    """(local $size i32)
    (block $done (loop $next
      (local.set $size (call $read (i32.const 1024) (i32.const 65536)))
      (br_if $done (i32.eqz (local.get $size)))
      (call $judge (i32.const 1024) (i32.add (i32.const 1024) (local.get $size)))
      (call $write (i32.const 1) (i32.const 1024) (local.get $size))
      (br $next)))""",
    """(data (i32.const 16) "no marks, please\\n")
    (func $judge (param $at i32) (param $end i32)
      (loop $next
        (if (i32.lt_u (local.get $at) (local.get $end)) (then
          (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 33)) (then
            (call $write (i32.const 2) (i32.const 16) (i32.const 17)) unreachable))
          (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 94)) (then (loop $ever (br $ever))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br $next)))))""",
)
"""Writes its input; traps if there is an exclamation mark in it, and says so; never ends if there is a caret."""

MODULES = {
    "echo": guests.ECHO,
    "upper": guests.UPPER,
    "picky": PICKY,
    "upper_reactor": guests.UPPER_REACTOR,
}


class BatchProject(CliProject):
    """A folder with functions for batches."""

    def declare_batch(self, keys: str, *, function: str = "upper", settings: str = "", more: str = "") -> None:
        """Write jobs.yaml with the job `b`: these keys of its batch, this function, these settings of it."""
        self.write(f"functions/{function}.wasm", bytes(wat2wasm(MODULES[function])))
        self.write(
            "jobs.yaml",
            "version: 1\n"
            f"functions:\n  {function}: {{wasm: functions/{function}.wasm{settings}}}\n"
            f"jobs:\n  b:\n    batch: {{function: {function}, {keys}}}\n{more}",
        )

    def batch(self, *arguments: str, input: bytes | None = None) -> Done:
        """`runner batch b --json`."""
        return self.run("batch", "b", "--json", *arguments, input=input)

    def data(self, name: str) -> bytes:
        """A file of the folder."""
        return (self.folder / name).read_bytes()

    def killed_when(self, happens: Callable[[], bool], *arguments: str) -> bool:
        """Start the batch and kill it as soon as something happens; False if it ended before."""
        with self.start("batch", "b", "-q", *arguments, stderr=subprocess.PIPE) as process:
            while process.poll() is None:
                if happens():
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    return True
                time.sleep(0.0005)
            error = process.stderr.read() if process.stderr else b""
            assert process.returncode == 0, error.decode()
            return False


def json_lines(count: int) -> bytes:
    """So many JSON lines, each with a length of its own."""
    lines = (
        json.dumps({"id": number, "name": f"customer {number}", "pad": "x" * (number % 97)}) for number in range(count)
    )
    return "".join(f"{line}\n" for line in lines).encode()


def size_of(path: Path) -> int:
    """The size of a file, 0 without one."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def sizes(data: bytes, count: int) -> Iterator[int]:
    """So many places in the data, not evenly spread."""
    return (len(data) * (number * number + 1) // (count * count + 1) for number in range(1, count + 1))
