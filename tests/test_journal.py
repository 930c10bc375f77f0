"""The daemon's log: lines for people, lines for programs, and never a flood."""

from __future__ import annotations

import io
import json
import os
import threading
from pathlib import Path

from runner.journal import BURST, Journal

MOMENT = 1_800_000_000.123
STAMP = "2027-01-15T08:00:00.123Z"


class Clock:
    def __init__(self) -> None:
        self.now = MOMENT

    def __call__(self) -> float:
        return self.now


def test_lines_for_people() -> None:
    stream = io.StringIO()
    journal = Journal(stream, clock=Clock(), clean=lambda text: text.replace("\x1b", "?"))
    journal.tell("info", "serving", jobs=2, owner="one")
    journal.tell("error", "a guest said \x1b[31m")
    journal.tell("debug", "not worth telling")
    assert stream.getvalue() == (
        f"{STAMP}  info     serving  jobs=2  owner=one\n{STAMP}  error    a guest said ?[31m\n"
    )


def test_painted() -> None:
    stream = io.StringIO()
    Journal(stream, clock=Clock(), paint=lambda level, text: f"<{level}:{text.strip()}>").tell("info", "x", a=1)
    assert stream.getvalue() == f"<moment:{STAMP}>  <info:info>  x  <fact:a=1>\n"


def test_lines_for_programs() -> None:
    stream = io.StringIO()
    journal = Journal(stream, as_json=True, clock=Clock(), level="debug")
    journal.tell("debug", "odd: \x1b \ud800 é\n", run_id=5, kind="odd")
    (line,) = stream.getvalue().splitlines()
    told = json.loads(line)
    assert told == {"timestamp": STAMP, "level": "debug", "message": "odd: \x1b \ud800 é\n", "run_id": 5}


def test_a_flood_of_one_kind_is_counted() -> None:
    stream, clock = io.StringIO(), Clock()
    journal = Journal(stream, clock=clock)
    for number in range(BURST + 1234):
        journal.tell("info", f"failed {number}", kind="failures")
        journal.tell("info", f"another {number}", kind="others" if number < BURST else "")
    clock.now += 1
    journal.tell("info", "later", kind="failures")
    lines = [line.split(None, 2)[2] for line in stream.getvalue().splitlines()]
    assert sum(line.startswith("failed") for line in lines) == BURST
    assert sum(line.startswith("another") for line in lines) == BURST + 1234
    assert lines[-2:] == ["and 1,234 more lines about failures", "later"]


def test_quiet_levels_are_not_counted() -> None:
    stream, clock = io.StringIO(), Clock()
    journal = Journal(stream, clock=clock, level="warning")
    for _ in range(100):
        journal.tell("info", "x", kind="failures")
    clock.now += 1
    journal.tell("error", "y", kind="failures")
    assert len(stream.getvalue().splitlines()) == 1


def test_nobody_reads_it() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        journal = Journal(stream)
        for _ in range(3):
            journal.tell("info", "x" * 100_000)
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # what is left in its buffer goes there
    journal.tell("info", "after it was closed")


def test_a_full_disk_is_no_error() -> None:
    if Path("/dev/full").exists():
        with open("/dev/full", "w") as stream:
            Journal(stream).tell("info", "x")
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def test_lines_of_threads_stay_whole() -> None:
    stream = io.StringIO()
    journal = Journal(stream, as_json=True)

    def tell() -> None:
        for number in range(200):
            journal.tell("info", "x" * 200, number=number)

    threads = [threading.Thread(target=tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([json.loads(line) for line in stream.getvalue().splitlines()]) == 800
