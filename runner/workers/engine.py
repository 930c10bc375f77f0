"""What an engine module gives to the worker processes, and what it is given for each call.

A plugin names a module by its import path; only compile processes and workers import it, never the
app. The module has a function `engine() -> Engine`. This file is imported in those processes: it
imports the standard library, `runner.errors`, `runner.models` and `runner.workers.world` only, and any
CPython from 3.10 on can run it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from runner.models import Abi as Abi
from runner.models import LogEntry, LogLevel
from runner.workers.world import REAL, World

TAIL_BYTES = 2048
"""How much of the end of a guest's standard error goes into an error's `stderr_tail`."""
ENTRY_BYTES = 16
"""What an entry of the log counts at least: a flood of empty lines is a flood, too."""


class LogBuffer:
    """Collects what one invocation logs, up to a limit in bytes.

    Beyond the limit everything is counted and dropped, so that a flood costs neither memory nor
    time; one last entry says how much was dropped. The end of standard error is always kept.
    """

    __slots__ = ("_dropped", "_line", "_mirror", "_size", "_tail", "entries", "limit_bytes", "take_early")

    def __init__(self, limit_bytes: int, mirror: Callable[[bytes], None] | None = None) -> None:
        self.limit_bytes = limit_bytes
        self._mirror = mirror
        self.entries: list[LogEntry] = []
        self.take_early: Callable[[list[LogEntry]], bool] | None = None
        """Asked with each new entry whether it takes all there are, so that they can be read while the
        invocation still runs. They count towards the limit as the others do."""
        self._line = bytearray()
        self._tail = b""
        self._size = 0
        self._dropped = 0

    def log(self, level: LogLevel, message: bytes) -> None:
        """Add one entry; invalid UTF-8 is shown as U+FFFD."""
        room = self.limit_bytes - self._size
        if room <= 0:
            self._dropped += len(message) + 1
            return
        if len(message) > room:
            self._dropped += len(message) - room
            message = message[:room]
        self._size += max(len(message) + 1, ENTRY_BYTES)
        self.entries.append(LogEntry(level, message.decode("utf-8", "replace"), time.time()))
        if self.take_early is not None and self.take_early(self.entries):
            self.entries = []

    def write_stderr(self, data: bytes) -> None:
        """Add bytes of standard error; an entry is made of each whole line."""
        self._tail = (self._tail + data[-TAIL_BYTES:])[-TAIL_BYTES:]
        if self._mirror is not None:
            self._mirror(self._tail)
        room = self.limit_bytes - self._size - len(self._line)
        if room <= 0:
            self._dropped += len(data)
            return
        if len(data) > room:
            self._dropped += len(data) - room
            data = data[:room]
        if b"\n" not in data:
            self._line += data
            return
        *lines, rest = (bytes(self._line) + data).split(b"\n")
        for line in lines:
            self.log(LogLevel.STDERR, line)
        self._line = bytearray(rest)

    @property
    def tail(self) -> str:
        """The end of standard error, at most TAIL_BYTES of it."""
        return self._tail.decode("utf-8", "replace")

    def take(self) -> list[LogEntry]:
        """All entries that were not taken early, the unfinished last line and the note on what was dropped
        included; empties the buffer for the next invocation."""
        if self._line:
            line, self._line = bytes(self._line), bytearray()
            self.log(LogLevel.STDERR, line)
        entries = self.entries
        if self._dropped:
            note = f"[{self._dropped:,} bytes more were logged and dropped: the limit is {self.limit_bytes:,}]"
            entries.append(LogEntry(LogLevel.STDERR, note, time.time()))
            self._dropped = 0
        if self._size or self._tail:
            self.entries, self._tail, self._size = [], b"", 0
            if self._mirror is not None:
                self._mirror(b"")
        return entries


@dataclass(slots=True)
class Call:
    """What the guest may see and do. One object serves all invocations of a frame: facts stay, only
    `logs` changes between them (the worker takes its entries after each)."""

    name: str
    """The function's name: argv[0] of a command."""
    env_vars: Mapping[str, str]
    secrets: Mapping[str, str]
    request_id: str
    caller_wallet: str | None
    timeout_seconds: float
    memory_limit_mb: int
    output_limit_bytes: int
    logs: LogBuffer
    host_calls: Collection[str] = ()
    """Names of the host functions that the app answers."""
    ask_app: Callable[[str, Sequence[bytes]], bytes] = field(default=lambda _name, _arguments: b"")
    """Sends one of `host_calls` to the app and waits for its answer. Raises the InvocationError that the
    app answers with."""
    report_progress: Callable[[int], None] = field(default=lambda _percent: None)
    """Tells the app a percentage, if it wants to know and it is time."""
    world: World = REAL
    """What it learns of clocks, chance and its host."""


class Loaded(Protocol):
    """A module that is ready to be called again and again."""

    def invoke(self, input: bytes, call: Call) -> tuple[bytes, int]:
        """Run one invocation on a fresh instance; returns the output and the memory's final size in
        bytes. No state of it may be visible to the next.

        Raises Trapped, Exited, OutOfMemory, OutputTooLarge, BadOutput, GrantMissing, TimedOut, and what
        host functions raise. Exit code 0 is a normal end. Any other exception makes the worker give itself up: it is
        reported as WorkerLost and the process is replaced.
        """


class Engine(Protocol):
    """One way to compile and run modules. Made in the process that uses it."""

    def compile(self, wasm: bytes) -> bytes:
        """The artifact for `load`. Called in a compile process of its own, which may be killed.
        Raises InvalidModule when the engine's validation refuses the bytes."""

    def prepare_compile(self) -> None:
        """Import the compiler: after this a compile process loses the file system."""

    def start(self) -> None:
        """Start the threads the engine needs in a worker. Called once in each, after the fork and
        before the last wall; no thread can be started later."""

    def warm_up(self) -> None:
        """Import, allocate and open everything that later calls need: after this the process loses
        the file system, the network and most system calls. Called once, before any fork."""

    def load(self, artifact: bytes, abi: Abi) -> Loaded:
        """A module from an artifact of this very engine version; the caller has authenticated it."""


EngineFactory = Callable[[], Engine]


def import_engine(path: str) -> Engine:
    """The engine of the module with this import path.

    The packages around it are not run: a plugin's `__init__` holds hooks for the app and imports
    what only the app's interpreter has.
    """
    parents = path.split(".")[:-1]
    for end in range(1, len(parents) + 1):
        name = ".".join(parents[:end])
        if name not in sys.modules:
            spec = importlib.util.find_spec(name)
            if spec is None:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            sys.modules[name] = importlib.util.module_from_spec(spec)
    factory: Any = importlib.import_module(path).engine
    engine: Engine = factory()
    return engine
