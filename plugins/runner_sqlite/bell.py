"""Telling waiters in all processes that the store has changed: a folder of datagram sockets beside it.

Each waiter binds a socket in the folder; who has committed sends a byte to every one. Nobody polls, a
full socket need not be told twice, and the socket of a killed process is removed by the next who finds
nobody behind it. No data travels here: a waiter looks into the store.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runner.run_store import Changes

_LONGEST_MS = 2**31 - 1
"""What poll takes."""


class Bell:
    """The waiters of one store. Safe for several threads."""

    def __init__(self, store: Path) -> None:
        self._folder = store.with_name(store.name + "-wake")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._besides: dict[str, str] = {}
        """Whose changes our own waiters do not want to hear of."""

    def ring(self, by: str = "") -> None:
        """Wake everybody but those who listen for what `by` does not do. Never fails: who cannot be told
        has a timer."""
        with suppress(OSError), _opened(self._folder) as folder:
            for name in os.listdir(folder):  # noqa: PTH208 - pathlib cannot
                if not by or self._besides.get(name) != by:
                    self._tell(folder, name)

    def listen(self, besides: str = "") -> Changes:
        """A new waiter, which is not told what `besides` does if that is known."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        waiter = _Waiter(self._folder, self._besides)
        if besides:
            self._besides[waiter.name] = besides
        return waiter

    def close(self) -> None:
        """Give back the socket. May be called twice."""
        self._socket.close()

    def _tell(self, folder: int, name: str) -> None:
        try:
            self._socket.sendto(b"\0", _address(folder, name))
        except ConnectionRefusedError:
            with suppress(OSError):
                os.unlink(name, dir_fd=folder)
        except OSError:
            pass  # it has been told already and has not looked yet (EAGAIN), or is going away


class _Waiter(Changes):
    def __init__(self, folder: Path, besides: dict[str, str]) -> None:
        self._path = folder / os.urandom(8).hex()
        self._besides = besides
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            with _opened(folder) as descriptor:
                self._socket.bind(_address(descriptor, self._path.name))
        except BaseException:
            self._socket.close()
            raise
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    @property
    def name(self) -> str:
        """Of its socket."""
        return self._path.name

    def wait(self, timeout_seconds: float | None = None) -> bool:
        wanted = None if timeout_seconds is None else min(max(timeout_seconds, 0) * 1000, _LONGEST_MS)
        if not self._poll.poll(wanted):
            return False
        with suppress(BlockingIOError):
            while True:
                self._socket.recv(1)
        return True

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()
        self._besides.pop(self.name, None)
        with suppress(OSError):
            self._path.unlink()


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _address(folder: int, name: str) -> str:
    """A socket's address by way of its folder's descriptor: a path may be longer than the 107 bytes that
    an address holds."""
    return f"/proc/self/fd/{folder}/{name}"
