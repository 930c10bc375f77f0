"""An engine that does what its input says, to try the worker layer with every kind of guest.

An input is a JSON list of steps, each a list of a verb and its arguments. A module is any bytes:
words in it make compiling or loading it go wrong. It runs behind the same walls as a real engine,
so it may also try to get out.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import mmap
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runner import errors
from runner.models import LogLevel
from runner.workers.area import HEADER_BYTES, ResultWriter
from runner.workers.engine import Abi, Call, Engine, Loaded

_libc = ctypes.CDLL(None, use_errno=True)


class PuppetEngine:
    """Compiles to the module itself."""

    def prepare_compile(self) -> None:
        """Nothing."""

    def compile(self, wasm: bytes) -> bytes:
        """The module, unless a word in it asks for trouble."""
        if b"compile-refuse" in wasm:
            raise errors.InvalidModule("the puppet does not like it")
        if b"compile-crash" in wasm:
            ctypes.string_at(0)
        if b"compile-raise" in wasm:
            raise RuntimeError("the compiler has a bug")
        if b"compile-greedy" in wasm:
            hoard = [bytes(1 << 30) for _ in range(64)]
            return bytes(len(hoard))
        if b"compile-slow" in wasm:
            time.sleep(1)
        if b"compile-hang" in wasm:
            time.sleep(1000)
        return wasm

    def warm_up(self) -> None:
        """Imported above."""

    def start(self) -> None:
        """One idle thread, as an engine has that watches deadlines."""
        threading.Thread(target=threading.Event().wait, daemon=True).start()

    def load(self, artifact: bytes, abi: Abi) -> Loaded:
        """A puppet on the strings of its inputs."""
        if b"load-raise" in artifact:
            raise RuntimeError(f"{abi.value} does not load")
        if b"load-crash" in artifact:
            ctypes.string_at(0)
        if b"load-slow" in artifact:
            time.sleep(0.5)
        return _Puppet(artifact)


class _Puppet:
    def __init__(self, artifact: bytes) -> None:
        self._artifact = artifact

    def invoke(self, input: bytes, call: Call) -> tuple[bytes, int]:
        output: list[bytes] = []
        for verb, *arguments in json.loads(input) if input else []:
            answer = VERBS[verb](call, *arguments)
            if answer is not None:
                output.append(answer)
        return b"".join(output) if input else self._artifact[-64:], 65536


def engine() -> Engine:
    """The factory that `runner.workers.engine.import_engine` calls."""
    return PuppetEngine()


def _fail(_: Call, name: str, *arguments: Any) -> None:
    raise getattr(errors, name)(*arguments)


def _raise(_: Call, name: str, message: str) -> None:
    kinds: dict[str, type[BaseException]] = {
        "RuntimeError": RuntimeError,
        "SystemExit": SystemExit,
        "KeyboardInterrupt": KeyboardInterrupt,
        "MemoryError": MemoryError,
    }
    raise kinds[name](message)


def _hang(_: Call) -> None:
    while True:
        pass


def _spin(_: Call, seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def _flood(call: Call, times: int, size: int) -> None:
    block = b"x" * size
    for _ in range(times):
        call.logs.write_stderr(block)


def _app_socket() -> int:
    return next(fd for fd in range(3, 64) if _is_socket(fd))


def _is_socket(descriptor: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def _area() -> memoryview:
    found: memoryview = next(thing for thing in gc.get_objects() if isinstance(thing, ResultWriter))._map
    return found


def _forge(_: Call, committed: int, content: str) -> None:
    """Write into the area whatever is wanted, as a guest would that has taken over the worker."""
    area, data = _area(), bytes.fromhex(content)
    area[HEADER_BYTES : HEADER_BYTES + len(data)] = data
    area[:8] = committed.to_bytes(8, "little")


def _pretend_start(_: Call, nanoseconds: int) -> None:
    _area()[8:16] = nanoseconds.to_bytes(8, "little")


def _send(_: Call, content: str) -> None:
    os.write(_app_socket(), bytes.fromhex(content))


def _listen(_: Call) -> None:
    os.read(_app_socket(), 12)


def _bytes(_: Call, size: int) -> bytes:
    return b"o" * size


def _log(call: Call, message: str, times: int = 1) -> None:
    for _ in range(times):
        call.logs.log(LogLevel.INFO, message.encode())


def _complain(_: Call, times: int) -> None:
    """What a panicking engine prints to the process's own standard error."""
    for _each in range(times):
        try:
            os.write(2, b"thread panicked\n" * 256)
        except BlockingIOError:
            return


def _attempt(_: Call, name: str) -> bytes:
    """`refused: WHY` when the walls stop it, else what it got."""
    try:
        return f"got {ATTEMPTS[name]()!r}".encode()
    except OSError as error:
        return f"refused: {error.strerror}".encode()


def _system(function: str, *arguments: Any) -> int:
    result = int(getattr(_libc, function)(*arguments))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _seen_by_stat() -> list[str]:
    seen = []
    for path in ("/etc/passwd", "/proc/self", "/proc/1", "/tmp", "/home", "/root", "/dev/null", "/usr", sys.executable):
        with contextlib.suppress(OSError):
            Path(path).stat()
            seen.append(path)
    if not seen:
        raise PermissionError(1, "nothing is there")
    return seen


def _map_code() -> str:
    with mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE) as memory:
        memory[:4] = b"fine"
        return memory[:4].decode()


ATTEMPTS: dict[str, Callable[[], Any]] = {
    "open_passwd": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "open_maps": lambda: os.open("/proc/self/maps", os.O_RDONLY),
    "open_environ": lambda: os.open(f"/proc/{os.getpid()}/environ", os.O_RDONLY),
    "open_root": lambda: os.open("/", os.O_RDONLY),
    "list_root": lambda: list(Path("/").iterdir()),
    "create": lambda: os.open("/created", os.O_CREAT | os.O_WRONLY),
    "create_tmp": lambda: os.open("/tmp/created", os.O_CREAT | os.O_WRONLY),
    "stat": _seen_by_stat,
    "readlink": lambda: Path("/proc/self/exe").readlink(),
    "chdir": lambda: os.chdir("/proc"),
    "unlink": lambda: Path("/etc/hostname").unlink(),
    "socket_inet": lambda: socket.socket(socket.AF_INET).fileno(),
    "socket_unix": lambda: socket.socket(socket.AF_UNIX).fileno(),
    "socketpair": lambda: socket.socketpair()[0].fileno(),
    "connect": lambda: _system("connect", 0, b"\2\0\0\x50\x7f\0\0\1" + bytes(8), 16),
    "fork": lambda: _system("fork"),
    "thread": lambda: _thread(),
    "exec": lambda: os.execv(sys.executable, [sys.executable]),
    "ptrace": lambda: _system("ptrace", 16, os.getppid(), 0, 0),
    "kill_parent": lambda: os.kill(os.getppid(), signal.SIGKILL),
    "kill_all": lambda: os.kill(-1, signal.SIGKILL),
    "kill_init": lambda: os.kill(1, 0),
    "read_other_memory": lambda: _system("process_vm_readv", os.getppid(), None, 0, None, 0, 0),
    "mount": lambda: _system("mount", b"none", b"/", b"tmpfs", 0, None),
    "unshare": lambda: _system("unshare", 0x10000000),
    "setns": lambda: _system("setns", 0, 0),
    "chroot": lambda: os.chroot("/"),
    "setuid": lambda: os.setuid(0),
    "pidfd": lambda: os.pidfd_open(os.getppid()),
    "io_uring": lambda: _system("syscall", 425, 8, ctypes.create_string_buffer(256)),
    "bpf": lambda: _system("syscall", 321, 0, None, 0),
    "keyctl": lambda: _system("syscall", 250, 0, 0),
    "perf": lambda: _system("syscall", 298, None, 0, 0, 0, 0),
    "userfaultfd": lambda: _system("syscall", 323, 0),
    "prlimit": lambda: _system("syscall", 302, os.getppid(), 7, None, None),
    "mmap": _map_code,
}
"""What a guest may try once it runs native code of its own in the worker."""


def _thread() -> str:
    try:
        threading.Thread(target=lambda: None).start()
    except RuntimeError as error:
        raise PermissionError(1, str(error)) from None
    return "a thread"


VERBS: dict[str, Callable[..., bytes | None]] = {
    "say": lambda _, text: str(text).encode(),
    "bytes": _bytes,
    "pid": lambda _: str(os.getpid()).encode(),
    "env": lambda call, name: call.env_vars[name].encode("utf-8", "surrogatepass"),
    "secret": lambda call, name: call.secrets[name].encode(),
    "environ": lambda _: json.dumps(dict(os.environ)).encode(),
    "stderr": lambda call, text: call.logs.write_stderr(text.encode()),
    "log": _log,
    "flood": _flood,
    "complain": _complain,
    "sleep": lambda _, seconds: time.sleep(seconds),
    "hang": _hang,
    "spin": _spin,
    "fail": _fail,
    "raise": _raise,
    "exit": lambda _, status: os._exit(status),
    "crash": lambda _: ctypes.string_at(0) and None,
    "ask": lambda call, name, *arguments: call.ask_app(name, [str(each).encode() for each in arguments]),
    "ask_bytes": lambda call, name, size: call.ask_app(name, [bytes(size)]),
    "progress": lambda call, percent: call.report_progress(percent),
    "send": _send,
    "listen": _listen,
    "forge": _forge,
    "pretend_start": _pretend_start,
    "attempt": _attempt,
}
"""Every step by its verb."""
