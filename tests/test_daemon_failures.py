"""What a daemon does when its store fails under it: it says so, loses nothing that was accepted, goes on as
soon as it can, and ends where it never can."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from runner_sqlite.bell import Bell
from runner_sqlite.runs import SqliteRunStore

from runner.errors import StoreFull
from runner.ledger import RunFilter
from runner.runs import NewRun, RunStatus
from tests.daemon_project import SAY, DaemonProject, Serving, spin
from tests.disks import FaultyDisk, build_faults, fill, read_only_folder, small_disk
from tests.support import eventually, steps

pytestmark = pytest.mark.slow

IMPATIENT = "registry: {sqlite: {busy_timeout_seconds: 0.2}}"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[DaemonProject]:
    with closing(DaemonProject(tmp_path)) as made:
        made.jobs(more=IMPATIENT)
        yield made


def ended_well(project: DaemonProject, *run_ids: int) -> bool:
    """Whether these runs end with one attempt each."""
    return {(run.status, run.attempts) for run in project.ended(*run_ids)} == {(RunStatus.SUCCEEDED, 1)}


# What passes


def test_a_store_that_another_process_keeps_busy(project: DaemonProject) -> None:
    with project.serving("--lanes", "2") as daemon:
        (run_id,) = project.enqueue(spin(1))
        project.begun(daemon)
        with closing(sqlite3.connect(project.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            told = daemon.told("the store refused, trying again: ")
            assert (told["level"], told["error_class"]) == ("error", "StoreLocked")
            assert "another process has been writing" in told["message"]
            (row,) = project.ok("status", "--json").rows
            assert row["state"] == "serving"
            other.execute("ROLLBACK")
        daemon.told("the store works again")
        assert ended_well(project, run_id, *project.enqueue(SAY))
        assert daemon.stop() == 0


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_faults(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize(
    ("fault", "error_class", "words"),
    [
        ("write", "StoreError", "fails (disk I/O error); look at the system's log"),
        ("sync", "StoreError", "fails (disk I/O error); look at the system's log"),
        ("short", "StoreFull", "no room is left for the store"),
    ],
)
def test_a_disk_that_fails(project: DaemonProject, library: Path, fault: str, error_class: str, words: str) -> None:
    disk = FaultyDisk(library, project.folder / "fault")
    project.environment |= disk.environment
    with project.serving("--lanes", "2") as daemon:
        (run_id,) = project.enqueue(spin(1))
        project.begun(daemon)
        disk.fail(fault)
        waiting = project.enqueue(*[SAY] * 10)
        told = daemon.told("the store refused, trying again: ")
        assert told["error_class"] == error_class
        assert words in told["message"]
        eventually(lambda: not any(ticks for ticks in project.cpu_used(daemon)), seconds=30)
        assert project.store.get(run_id).status is RunStatus.RUNNING
        disk.fail("")
        daemon.told("the store works again")
        assert ended_well(project, run_id, *waiting)
        assert daemon.stop() == 0
    with closing(sqlite3.connect(project.database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_full_disk_and_then_room_again(project: DaemonProject, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "2m") as disk:
        options = ("--state-dir", str(disk), "--lanes", "1")
        with closing(SqliteRunStore.open(disk / "runner.db")) as store, project.serving(*options) as daemon:
            new = NewRun("shop", "work", "guest", 1, payload=SAY)
            store.enqueue([new._replace(payload=spin(1))], now=project.now())
            project.begun(daemon)
            fill(disk / "filler")
            accepted = 1
            with suppress(StoreFull):
                while True:
                    accepted = store.enqueue([new], now=project.now())[0].run_id
            daemon.told("the store refused, trying again: ", "no room is left for the store")
            (disk / "filler").unlink()
            daemon.told("the store works again")
            eventually(lambda: not store.depth(now=project.now()).ready and not store.owners(), seconds=30)
            runs = store.list_runs(RunFilter(), limit=100_000)
            assert [run.run_id for run in runs] == list(range(accepted, 0, -1))
            assert {(run.status, run.attempts) for run in runs} == {(RunStatus.SUCCEEDED, 1)}
            assert daemon.stop() == 0


def test_an_output_that_has_no_room(project: DaemonProject, tmp_path: Path) -> None:
    project.jobs("{work: {run: guest, output: {path: disk/out.bin}}}", guest=", retry_delay_seconds: 0.1")
    with small_disk(tmp_path / "disk", "1m") as disk, project.serving() as daemon:
        (run_id,) = project.enqueue(steps(["bytes", 100_000]), retry_count=100)
        project.ended(run_id)
        fill(disk / "filler")
        (run_id,) = project.enqueue(steps(["bytes", 300_000]), retry_count=100)
        told = daemon.told(f"run {run_id} of work tries again in ")
        assert told["error_class"] == "FileUnavailable"
        assert (disk / "out.bin").stat().st_size == 100_000, "the old one stays"
        assert {entry.name for entry in disk.iterdir()} == {"out.bin", "filler"}
        (disk / "filler").unlink()
        (run,) = project.ended(run_id)
        assert run.status is RunStatus.SUCCEEDED
        assert (disk / "out.bin").stat().st_size == 300_000


def test_stopped_while_the_store_refuses(project: DaemonProject) -> None:
    with project.serving("--lanes", "1", "--grace", "1", "--lease", "100000") as daemon:
        (run_id,) = project.enqueue(spin(0.5))
        project.begun(daemon)
        with closing(sqlite3.connect(project.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            daemon.told("the store refused, trying again: ")
            assert daemon.stop() == 0
            other.execute("ROLLBACK")
    assert project.store.get(run_id).status is RunStatus.RUNNING
    with project.serving("--lease", "100000") as daemon:
        daemon.told("took back 1 runs of a daemon that is gone")
        (run,) = project.ended(run_id)
    assert (run.status, project.attempts(run_id)) == (RunStatus.SUCCEEDED, ["lost", "succeeded"])


@pytest.mark.parametrize("signals", [2, 3])
def test_ended_while_a_store_hangs(project: DaemonProject, signals: int) -> None:
    project.jobs(more="registry: {sqlite: {busy_timeout_seconds: 100000}}")
    with project.serving("--lanes", "1", "--grace", "1000") as daemon:
        (run_id,) = project.enqueue(spin(0.5))
        project.begun(daemon)
        with closing(sqlite3.connect(project.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            eventually(lambda: project.ok("status", "--json").rows[0]["running"] == [], seconds=30)
            daemon.send(signal.SIGTERM)
            daemon.told("stopping: ")
            assert project.ok("status", "--json").rows[0]["state"] == "draining"
            for _ in range(signals - 2):
                daemon.send(signal.SIGTERM)
                time.sleep(0.2)  # or the kernel makes one of two
            assert daemon.stop() == 143
            other.execute("ROLLBACK")
    assert project.store.get(run_id).status is RunStatus.RUNNING
    with project.serving() as daemon:
        daemon.told("took back 1 runs of a daemon that is gone")
        (run,) = project.ended(run_id)
        assert run.status is RunStatus.SUCCEEDED


# What does not pass


def delete(path: Path) -> None:
    path.unlink()


def move(path: Path) -> None:
    path.rename(path.with_name("moved.db"))


def replace(path: Path) -> None:
    shutil.copy(path, path.with_name("copy.db"))
    path.with_name("copy.db").rename(path)


def delete_log(path: Path) -> None:
    path.with_name("runner.db-wal").unlink()


def delete_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


VANISHING = [delete, move, replace, delete_log, delete_folder]


def ends_because_it_is_gone(daemon: Serving) -> bool:
    told = daemon.told("was deleted or replaced while it was open")
    assert (told["level"], told["error_class"]) == ("error", "StoreGone")
    return daemon.wait() == 4 and daemon.other == []


@pytest.mark.parametrize("vanish", VANISHING)
def test_a_store_that_vanishes_under_running_work(project: DaemonProject, vanish: Callable[[Path], None]) -> None:
    with project.serving("--lanes", "1") as daemon:
        project.enqueue(spin(1), SAY)
        project.begun(daemon)
        vanish(project.database)
        assert ends_because_it_is_gone(daemon)


@pytest.mark.parametrize("vanish", [delete, move, replace])
def test_a_store_that_vanishes_under_an_idle_daemon(project: DaemonProject, vanish: Callable[[Path], None]) -> None:
    with project.serving() as daemon:
        project.ended(*project.enqueue(SAY))
        vanish(project.database)
        with closing(Bell(project.database)) as bell:  # as the next who comes does
            bell.ring()
        assert ends_because_it_is_gone(daemon)


def test_what_was_accepted_is_in_the_store_that_was_moved(project: DaemonProject) -> None:
    ids = project.enqueue(*[SAY] * 20, spin(1), *[SAY] * 20)
    with project.serving("--lanes", "1") as daemon:
        project.begun(daemon)
        move(project.database)
        assert ends_because_it_is_gone(daemon)
    project.close_store()
    for entry in project.database.parent.glob("runner.db*"):
        if entry.is_file():
            entry.rename(entry.with_name(entry.name.replace("runner", "left")))
    project.database.with_name("moved.db").rename(project.database)
    for end in ("-wal", "-shm"):
        left = project.database.with_name(f"left.db{end}")
        if left.exists():
            left.rename(project.database.with_name(f"runner.db{end}"))
    with project.serving("--drain") as daemon:
        assert daemon.wait() == 0
    assert {run.status for run in project.ended(*ids)} == {RunStatus.SUCCEEDED}


def test_a_store_that_is_damaged_ends_it(project: DaemonProject) -> None:
    with project.serving() as daemon:
        project.ended(*project.enqueue(*[SAY] * 100))
        project.damage()
        told = daemon.told("is damaged")
        assert (told["level"], told["error_class"]) == ("error", "StoreDamaged")
        assert daemon.wait() == 4


def test_a_read_only_store_is_not_served(project: DaemonProject, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    SqliteRunStore.open(tmp_path / "state/runner.db").close()
    with (
        read_only_folder(tmp_path / "state") as folder,
        project.serving("--state-dir", str(folder), ready=False) as daemon,
    ):
        assert daemon.wait() == 4
        assert daemon.told("read-only")["error_class"] == "StoreReadOnly"
