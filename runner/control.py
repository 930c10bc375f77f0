"""How processes on one machine find a daemon, ask it, and see that it is dead: a socket for each.

`STATE/daemons/OWNER.sock`, where OWNER is the name under which it leases runs. A question is one line of
JSON, the answer one line. A socket that refuses belongs to a daemon that was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = "daemons"
SUFFIX = ".sock"
ANSWER_SECONDS = 5.0
"""A daemon that does not answer for so long is told as such."""
RUN_PREFIX = "run-"
"""Owners that are no daemons but carry out one run of their own begin so."""
QUESTION_SECONDS = 0.5
"""Who has connected and does not ask for so long is not waited for."""
_LINE_BYTES = 1 << 20


def new_owner() -> str:
    """A name that no other daemon has or had."""
    return f"{platform.node() or 'localhost'}-{os.getpid()}-{os.urandom(4).hex()}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A daemon's socket that was found."""

    owner: str
    alive: bool
    """False: its process is gone."""
    status: Mapping[str, Any] | None
    """What it tells of itself; None when it is gone or does not answer."""


def owners(state_dir: Path) -> list[str]:
    """The name of every daemon that has run on this state folder and did not put its socket away."""
    return sorted(path.name.removesuffix(SUFFIX) for path in (state_dir / FOLDER).glob(f"*{SUFFIX}"))


def daemons(state_dir: Path) -> list[Found]:
    """The same, with what each tells of itself, and without those that carry out one run of their own."""
    found = []
    for owner in owners(state_dir):
        if owner.startswith(RUN_PREFIX):
            continue
        alive, answer = ask(state_dir / FOLDER / f"{owner}{SUFFIX}", {"ask": "status"})
        found.append(Found(owner=owner, alive=alive, status=answer))
    return found


def is_dead(state_dir: Path, owner: str) -> bool:
    """Whether a daemon of this machine is known to be gone. False also means: nothing is known."""
    path = state_dir / FOLDER / f"{owner}{SUFFIX}"
    return path.exists() and not ask(path, {"ask": "alive"}, seconds=0.5)[0]


def queue_of(state_dir: Path, owner: str) -> str | None:
    """The queue of one that carries out one run of its own; None for others, and when it is gone."""
    _, answer = ask(state_dir / FOLDER / f"{owner}{SUFFIX}", {"ask": "queue"}, seconds=QUESTION_SECONDS)
    return answer if isinstance(answer, str) else None


def forget(state_dir: Path, owner: str) -> None:
    """Put the socket of a dead daemon away."""
    with contextlib.suppress(OSError):
        (state_dir / FOLDER / f"{owner}{SUFFIX}").unlink()


def ask(path: Path, question: Mapping[str, Any], *, seconds: float = ANSWER_SECONDS) -> tuple[bool, Any]:
    """Whether somebody listens there, and the answer; None without one in time."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(seconds)
        try:
            with _address(path) as address:
                sock.connect(address)
        except (ConnectionRefusedError, FileNotFoundError):
            return False, None
        except OSError:
            return True, None
        try:
            sock.sendall(json.dumps(question).encode() + b"\n")
            return True, json.loads(_read_line(sock, seconds))
        except (OSError, ValueError):
            return True, None


class Control:
    """The daemon's own socket."""

    def __init__(self, state_dir: Path, owner: str, answers: Mapping[str, Callable[[], Any]]) -> None:
        """`answers` by the word that is asked; each gives what JSON can hold."""
        self._path = state_dir / FOLDER / f"{owner}{SUFFIX}"
        self._answers = answers
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        hidden = self._path.with_name(f".{owner}")
        try:
            with _address(hidden) as address:
                self._socket.bind(address)
            self._socket.listen(16)
            hidden.rename(self._path)  # found before it listens, it would be taken for dead
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Readable when somebody asks."""
        return self._socket.fileno()

    def answer(self) -> None:
        """Answer one who asks. Never waits long, never raises for what a client does."""
        with contextlib.suppress(OSError):
            client, _ = self._socket.accept()
            with client:
                answer = self._answer(_read_line(client, QUESTION_SECONDS))
                client.settimeout(QUESTION_SECONDS)
                client.sendall(json.dumps(answer).encode() + b"\n")

    def _answer(self, line: bytes) -> Any:
        try:
            word = json.loads(line)["ask"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return {"error": 'ask with one line of JSON: {"ask": "status"}'}
        known = self._answers.get(word) if isinstance(word, str) else None
        return {"error": f"unknown; there are {', '.join(self._answers)}"} if known is None else known()

    def close(self, *, leave: bool = False) -> None:
        """Stop listening, and put the socket away unless `leave`: then it tells the next daemon that this
        one is gone. May be called twice."""
        self._socket.close()
        if not leave:
            with contextlib.suppress(OSError):
                self._path.unlink()


def _read_line(sock: socket.socket, seconds: float) -> bytes:
    """What comes up to a line's end, or until the other side closes. Raises OSError after so many seconds."""
    until = time.monotonic() + seconds
    data = b""
    while not data.endswith(b"\n") and len(data) < _LINE_BYTES:
        sock.settimeout(max(0.001, until - time.monotonic()))
        piece = sock.recv(65536)
        if not piece:
            break
        data += piece
    return data


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """A path may be longer than the 107 bytes that a socket's address holds: by way of its folder."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)
