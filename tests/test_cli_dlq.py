"""`runner dlq`: dead letters are listed, shown, run again and forgotten."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.bulk import PAGE
from runner.runs import Claimant, Dead
from tests.cli_project import CliProject
from tests.cli_queue import BOOM, RFC_3339, Queue, now


@pytest.fixture
def project(tmp_path: Path) -> CliProject:
    project = CliProject(tmp_path)
    project.declare("{echo: {run: echo}, trap: {run: trap}}")
    return project


@pytest.fixture
def queue(project: CliProject) -> Iterator[Queue]:
    queue = Queue(project)
    yield queue
    queue.store.close()


def letters(queue: Queue) -> list[int]:
    return [letter.dead_letter_id for letter in queue.store.dead_letters(limit=10_000)]


# list and show


def test_list_in_json(project: CliProject, queue: Queue) -> None:
    first, second = queue.fail(job="trap"), queue.fail()
    queue.fail(namespace="default", job="gone")
    rows = project.ok("dlq", "list", "--json").rows
    assert [row["dead_letter_id"] for row in rows] == [3, second, first]
    assert re.fullmatch(RFC_3339, rows[2].pop("failed_at"))
    assert rows[2] == {
        **{"dead_letter_id": first, "run_id": first, "job": "trap", "function": "trap", "error_class": "Trapped"},
        **{"message": BOOM.message, "attempts": 1},
    }
    assert list(rows[0])[:7] == ["dead_letter_id", "run_id", "job", "function", "error_class", "message", "failed_at"]
    assert [row["run_id"] for row in project.ok("dlq", "list", "--json", "--job", "echo").rows] == [second]
    assert [row["run_id"] for row in project.ok("dlq", "list", "--json", "--before", "3", "-n", "1").rows] == [second]


def test_list_as_a_table(project: CliProject, queue: Queue) -> None:
    queue.fail(job="trap")
    done = project.ok("dlq", "list", "-n", "1")
    head, row = done.text.splitlines()
    assert head.split() == ["id", "job", "function", "attempts", "failed", "why"]
    assert re.fullmatch(r" 1  trap  trap +1  (just now|\d s ago)  trapped: unreachable in \\x1b\[31minner", row)
    assert done.err == "older ones: --before 1\n"


def test_nothing_to_list(project: CliProject) -> None:
    done = project.ok("dlq", "list")
    assert (done.out, done.err) == (b"", "no dead letters\n")
    assert project.ok("dlq", "list", "--job", "echo").err == "no dead letters\n"
    assert "did you mean 'echo'?" in project.run("dlq", "list", "--job", "ech").err


def test_show(project: CliProject, queue: Queue) -> None:
    run_id = queue.fail(job="trap")
    text = project.ok("dlq", "show", str(run_id)).text
    assert re.search(r"^status +dead$", text, re.MULTILINE)
    assert text.endswith("the end of the standard error of attempt 1:\n  the last \\x1b[2Jwords\n")
    (row,) = project.ok("dlq", "show", str(run_id), "--json").rows
    assert (row["dead_letter_id"], row["attempt_list"][0]["stderr_tail"]) == (run_id, BOOM.stderr_tail)


@pytest.mark.parametrize("command", ["show", "redrive", "drop"])
def test_a_letter_that_is_not_there(project: CliProject, queue: Queue, command: str) -> None:
    live = queue.put()
    for number in (live, 99):
        done = project.run("dlq", command, str(number))
        assert (done.status, done.out) == (1, b"")
        assert f"no dead letter {number}; `runner dlq list` shows those there are" in done.err


# redrive


def test_redrive_by_number(project: CliProject, queue: Queue) -> None:
    first, second, third = queue.fail(), queue.fail(job="trap"), queue.fail()
    done = project.run("dlq", "redrive", str(third), "99", str(first), "--json")
    assert done.status == 1
    assert [row["parent_id"] for row in done.rows] == [first, third]
    assert "no dead letter 99" in done.err
    assert letters(queue) == [second]
    text = project.ok("dlq", "redrive", str(second)).text
    assert queue.store.get(int(text)).parent_id == second


def test_redrive_in_bulk_and_no_more_than_there_were(project: CliProject, queue: Queue) -> None:
    queue.put(count=PAGE + 5)
    claims = queue.store.claim(Claimant(owner="one", namespace="default"), 10_000, now=now())
    queue.store.finish([Dead(*claim[:2], BOOM) for claim in claims], now=now())
    other = queue.fail(job="trap")
    foreign = queue.put(namespace="elsewhere")
    assert len(project.ok("dlq", "redrive", "--job", "echo").text.split()) == PAGE + 5
    assert letters(queue) == [other]
    assert len(project.ok("dlq", "redrive", "--all").text.split()) == 1
    assert project.ok("dlq", "redrive", "--all").err == "no dead letters\n"
    assert queue.store.get(foreign).status.value == "pending"


def test_redrive_leaves_what_is_live_again(project: CliProject, queue: Queue) -> None:
    dead, free = queue.fail(unique_key="k"), queue.fail()
    queue.put(unique_key="k")
    done = project.run("dlq", "redrive", "--all")
    assert (done.status, len(done.text.split())) == (1, 1)
    assert "1 dead letter stayed: a live run has the same unique key" in done.err
    assert letters(queue) == [dead]
    assert free not in letters(queue)


# drop


def test_drop(project: CliProject, queue: Queue) -> None:
    first, second, third = queue.fail(), queue.fail(job="trap"), queue.fail()
    assert project.ok("dlq", "drop", str(first), str(first)).err == "dropped 1 dead letter\n"
    assert letters(queue) == [third, second]
    assert project.ok("dlq", "drop", "--job", "trap", "--json").rows == [{"dropped": 1}]
    assert project.ok("dlq", "drop", "--all").err == "dropped 1 dead letter\n"
    assert project.ok("dlq", "drop", "--all").err == "dropped 0 dead letters\n"
    assert [queue.store.get(run_id).status.value for run_id in (first, second, third)] == ["dead"] * 3


@pytest.mark.parametrize("command", ["redrive", "drop"])
@pytest.mark.parametrize("arguments", [[], ["1", "--all"], ["--all", "--job", "echo"], ["1", "--job", "echo"]])
def test_it_must_be_said_which(project: CliProject, queue: Queue, command: str, arguments: list[str]) -> None:
    queue.fail()
    done = project.run("dlq", command, *arguments)
    assert done.status == 2
    assert "say which: numbers, or --job, or --all" in done.err
    assert letters(queue) == [1]


def test_on_a_terminal_it_asks_first(project: CliProject, queue: Queue) -> None:
    queue.fail()
    queue.fail()
    assert "forget 2 dead letters? [y/N]" in project.on_terminal("dlq", "drop", "--all", typed=b"n\n")
    assert "run 2 dead letters again? [y/N]" in project.on_terminal("dlq", "redrive", "--all", typed=b"n\n")
    assert len(letters(queue)) == 2
    assert "dropped 2 dead letters" in project.on_terminal("dlq", "drop", "--all", "--yes")
