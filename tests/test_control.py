"""How processes find a daemon, ask it, and see that it is dead."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from runner import control
from runner.control import Control, ask, daemons, forget, is_dead, new_owner, owners
from tests.support import open_descriptors


@contextmanager
def answering(state: Path, owner: str, status: object = None) -> Iterator[Control]:
    """A daemon's socket, answered in a thread."""
    with closing(Control(state, owner, {"status": lambda: status, "alive": lambda: True})) as it:
        stopped = threading.Event()

        def answer() -> None:
            while not stopped.is_set():
                it.answer()
                stopped.wait(0.001)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield it
        finally:
            stopped.set()
            thread.join()


def path_of(state: Path, owner: str) -> Path:
    return state / "daemons" / f"{owner}.sock"


def test_it_is_found_and_tells_of_itself(tmp_path: Path) -> None:
    assert daemons(tmp_path) == []
    with answering(tmp_path, "one", {"lanes": 2}), answering(tmp_path, "two", {"text": "é" * 100_000}):
        first, second = daemons(tmp_path)
        assert (first.owner, first.alive, first.status) == ("one", True, {"lanes": 2})
        assert second.status == {"text": "é" * 100_000}
        assert not is_dead(tmp_path, "one")
        assert owners(tmp_path) == ["one", "two"]
    assert daemons(tmp_path) == []
    assert not is_dead(tmp_path, "one"), "nothing is known of one that put its socket away"


def test_names_are_unlike() -> None:
    names = {new_owner() for _ in range(100)}
    assert len(names) == 100
    assert all(str(os.getpid()) in name for name in names)


LISTEN = """
import sys
from pathlib import Path
from runner.control import Control
it = Control(Path(sys.argv[1]), "killed", {})
print("ready", flush=True)
sys.stdin.read()
"""


def test_one_that_was_killed_is_dead(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LISTEN, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert not is_dead(tmp_path, "killed")
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert is_dead(tmp_path, "killed")
    (found,) = daemons(tmp_path)
    assert (found.owner, found.alive, found.status) == ("killed", False, None)
    forget(tmp_path, "killed")
    forget(tmp_path, "killed")
    assert owners(tmp_path) == []


def test_one_that_does_not_answer_is_alive(tmp_path: Path) -> None:
    with closing(Control(tmp_path, "busy", {})):
        assert ask(path_of(tmp_path, "busy"), {"ask": "status"}, seconds=0.05) == (True, None)
        assert not is_dead(tmp_path, "busy")


def test_one_whose_queue_is_full_is_alive(tmp_path: Path) -> None:
    with closing(Control(tmp_path, "busy", {})):
        asking = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) for _ in range(40)]
        for one in asking:
            one.connect_ex(str(path_of(tmp_path, "busy")))
        assert ask(path_of(tmp_path, "busy"), {"ask": "status"}, seconds=0.05) == (True, None)
        for one in asking:
            one.close()


def test_it_can_be_left_to_tell_of_a_death(tmp_path: Path) -> None:
    it = Control(tmp_path, "one", {})
    it.close(leave=True)
    assert is_dead(tmp_path, "one")
    it.close()
    assert owners(tmp_path) == []


def test_a_folder_of_any_length(tmp_path: Path) -> None:
    state = tmp_path / ("long" * 30) / ("longer" * 30)
    with answering(state, "one", {"lanes": 2}):
        assert [found.status for found in daemons(state)] == [{"lanes": 2}]


def test_nobody_is_waited_for(tmp_path: Path) -> None:
    with closing(Control(tmp_path, "one", {"status": lambda: 1})) as it, socket.socket(socket.AF_UNIX) as slow:
        it.answer()  # nobody asks
        slow.connect(str(path_of(tmp_path, "one")))
        slow.sendall(b'{"ask": ')
        it.answer()
        assert slow.recv(1) == b"", "it was sent away"


def test_questions_that_are_none(tmp_path: Path) -> None:
    with answering(tmp_path, "one"):
        path = path_of(tmp_path, "one")
        questions: list[Any] = [[], {"ask": "nothing"}, {"ask": 5}, "status", {}]
        for question in questions:
            alive, answer = ask(path, question)
            assert alive
            assert list(answer) == ["error"]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"\xff\n")
            assert "error" in json.loads(client.recv(65536))


def test_it_keeps_no_descriptor(tmp_path: Path) -> None:
    with answering(tmp_path, "one"):
        daemons(tmp_path)
        before = open_descriptors()
        for _ in range(20):
            daemons(tmp_path)
            is_dead(tmp_path, "one")
        assert open_descriptors() <= before + 1  # the one that is being answered


def test_a_name_that_is_taken_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "daemons").mkdir()
    (tmp_path / "daemons" / ".one").write_text("in the way")
    before = open_descriptors()
    try:
        Control(tmp_path, "one", {})
    except OSError:
        assert open_descriptors() == before
    else:
        raise AssertionError("it must not be made")
    assert control.owners(tmp_path) == []
