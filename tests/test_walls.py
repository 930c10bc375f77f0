"""What a worker cannot do, tried from inside one: as root and as an ordinary user, and what happens
where a wall cannot be raised."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.workers import walls
from runner.workers.executor import WorkerExecutor
from tests.engines.puppet_engine import ATTEMPTS
from tests.ordinary_user import ROOT, folder_for_all, run_as_ordinary_user
from tests.support import (
    ECHO,
    ENGINE_NAMES,
    children,
    context,
    eventually,
    function,
    memory_kib,
    puppets,
    real_executor,
    say,
    steps,
    zygotes,
)

HARMLESS = {"mmap"}
FORBIDDEN = sorted(set(ATTEMPTS) - HARMLESS)
"""What must be refused, by the name of the attempt."""


@pytest.fixture(scope="module")
def puppet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerExecutor]:
    """Puppets on one worker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("A_SECRET", "correct horse")
        executor = puppets(tmp_path_factory.mktemp("state"), workers=1)
        yield executor
        executor.close()


def processes() -> list[int]:
    """The newest zygote and its workers."""
    zygote = zygotes()[-1]
    return [zygote, *eventually(lambda: children(zygote))]


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status by field."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


# From inside


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_worker_cannot(puppet: WorkerExecutor, name: str) -> None:
    result = puppet.invoke(function(), steps(["attempt", name]), context())
    assert result.output is not None, result.error
    assert result.output.startswith(b"refused: "), result.output


def test_a_worker_may_use_memory(puppet: WorkerExecutor) -> None:
    assert puppet.execute(function(), steps(["attempt", "mmap"]), context()) == b"got 'fine'"


def test_a_worker_that_tried_everything_still_works(puppet: WorkerExecutor) -> None:
    before = puppet.execute(function(), steps(["pid"]), context())
    puppet.execute(function(), steps(*(["attempt", name] for name in FORBIDDEN)), context())
    assert puppet.execute(function(), steps(["pid"]), context()) == before


ORDINARY = """
import json, sys
from pathlib import Path
from tests.support import *
from tests.engines.puppet_engine import ATTEMPTS
executor = puppets(Path(sys.argv[1]), workers=1)
names = sorted(ATTEMPTS)
results = executor.execute_many(function(), [steps(["attempt", name]) for name in names], context())
answers = [(result.output or str(result.error).encode()).decode() for result in results]
print(json.dumps(dict(zip(names, answers))))
executor.close()
"""


def test_a_worker_of_an_ordinary_user_cannot_either() -> None:
    state = folder_for_all()
    try:
        done = run_as_ordinary_user(ORDINARY, str(state))
        assert done.returncode == 0, done.stderr
        answers = json.loads(done.stdout)
        assert answers.pop("mmap") == "got 'fine'"
        assert sorted(answers) == FORBIDDEN
        assert {name: answer for name, answer in answers.items() if not answer.startswith("refused: ")} == {}
    finally:
        shutil.rmtree(state)


REAL = """
import sys
from pathlib import Path
from tests.support import *
for name in ENGINE_NAMES:
    executor = real_executor(name, Path(sys.argv[1]), workers=1)
    print(executor.execute(function(ECHO), name.encode(), context()).decode())
    executor.close()
"""


def test_an_ordinary_user_runs_the_real_engines() -> None:
    state = folder_for_all()
    try:
        done = run_as_ordinary_user(REAL, str(state))
        assert done.stdout.split() == list(ENGINE_NAMES), done.stderr
    finally:
        shutil.rmtree(state)


# From outside


def test_no_secret_of_the_app_is_in_its_processes(puppet: WorkerExecutor) -> None:
    puppet.execute(function(), say(1), context())
    assert os.environ["A_SECRET"] == "correct horse"
    for pid in processes():
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"correct horse" not in environment
        assert {line.partition(b"=")[0] for line in environment.split(b"\0") if line} <= {b"LC_ALL", b"LC_CTYPE"}


def test_a_worker_has_no_privilege_left(puppet: WorkerExecutor) -> None:
    puppet.execute(function(), say(1), context())
    zygote, worker = processes()
    for pid in (zygote, worker):
        facts = status(pid)
        uid = os.geteuid() or walls.NOBODY
        assert facts["Uid"].split() == [str(uid)] * 4
        assert facts["NoNewPrivs"] == "1"
        assert facts["Groups"] == "" or os.geteuid() != 0
        for kind in ("user", "net", "mnt", "ipc", "uts"):
            assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")  # noqa: PTH115
        assert list(Path(f"/proc/{pid}/root").iterdir()) == []
    assert status(worker)["Seccomp"] == "2"


def test_a_worker_has_no_file_of_the_app(puppet: WorkerExecutor) -> None:
    puppet.execute(function(), say(1), context())
    secret = os.open(__file__, os.O_RDONLY)
    os.set_inheritable(secret, True)
    try:
        _, worker = processes()
        files = [os.readlink(path) for path in Path(f"/proc/{worker}/fd").iterdir()]  # noqa: PTH115
        kinds = sorted(name.split(":")[0] for name in files)
        assert kinds == ["/dev/null", "/dev/null", "/memfd", "pipe", "socket"]
    finally:
        os.close(secret)


def test_a_worker_cannot_be_read_by_its_neighbours(puppet: WorkerExecutor) -> None:
    # Another process of the same user: what nobody may attach to, only root may look into.
    if os.geteuid() != 0:
        pytest.skip("needs two users of which one is root")
    puppet.execute(function(), say(1), context())
    for pid in processes():
        code = f"print(open('/proc/{pid}/environ', 'rb').read())"
        done = run_as_ordinary_user(code, uid=walls.NOBODY)
        assert "PermissionError" in done.stderr, done.stdout


@pytest.mark.parametrize("engine", ENGINE_NAMES)
def test_a_worker_takes_less_than_40_mb(tmp_path: Path, engine: str) -> None:
    executor = real_executor(engine, tmp_path)
    try:
        list(executor.execute_many(function(ECHO), [b"x"] * 1000, context()))
        sizes = [memory_kib(pid) / 1024 for pid in processes()]
        own = [memory_kib(pid, "RssAnon") / 1024 for pid in processes()]
        print(f"{engine}: resident MB of zygote and workers {sizes}, not shared at most {own}")
        assert max(sizes) < 40
    finally:
        executor.close()


# Where a wall is missing


def test_every_wall_stands_here(puppet: WorkerExecutor) -> None:
    assert dict(puppet.walls()) == dict.fromkeys(walls.WALLS, "")


# In a user namespace of one's own, further ones are forbidden: as on a system that has turned them off.
WITHOUT_NAMESPACES = """
import ctypes, os, sys
from pathlib import Path
libc = ctypes.CDLL(None, use_errno=True)
uid, gid = os.geteuid(), os.getegid()
assert libc.unshare(0x10000000) == 0, os.strerror(ctypes.get_errno())
Path("/proc/self/setgroups").write_text("deny")
Path("/proc/self/uid_map").write_text(f"{uid or 1} {uid} 1")
Path("/proc/self/gid_map").write_text(f"{gid or 1} {gid} 1")
Path("/proc/sys/user/max_user_namespaces").write_text("0")
"""
START = """
from runner.errors import EngineUnavailable
from tests.support import *
executor = puppets(Path(sys.argv[1]), workers=1, **eval(sys.argv[2]))
print({name for name, why in executor.walls().items() if why})
try:
    print(executor.execute(function(), say("it runs"), context()).decode())
except EngineUnavailable as error:
    print(type(error).__name__, error)
if sys.argv[3:]:
    tries = [steps(["attempt", name]) for name in ("open_passwd", "socket_inet", "fork")]
    print([result.output for result in executor.execute_many(function(), tries, context())])
executor.close()
"""


def without_namespaces(
    settings: str = "{}", *more: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    state = folder_for_all()
    try:
        code = WITHOUT_NAMESPACES + START
        return run_as_ordinary_user(code, str(state), settings, *more, environment=environment)
    finally:
        shutil.rmtree(state, ignore_errors=True)


def test_without_a_wall_it_does_not_start_and_names_the_flag() -> None:
    done = without_namespaces()
    assert done.returncode == 0, done.stderr
    assert "EngineUnavailable" in done.stdout
    assert "namespaces" in done.stdout
    assert "RUNNER_ALLOW_MISSING_WALLS=empty_root,namespaces" in done.stdout
    assert "it runs" not in done.stdout


@pytest.mark.parametrize("how", ["setting", "environment"])
def test_without_a_wall_it_runs_when_it_is_told_to(how: str) -> None:
    if how == "setting":
        done = without_namespaces("{'allow_missing_walls': ('namespaces', 'empty_root')}", "more")
    else:
        flag = {"RUNNER_ALLOW_MISSING_WALLS": "namespaces,empty_root"}
        done = without_namespaces("{}", "more", environment=flag)
    assert done.returncode == 0, done.stderr
    assert "it runs" in done.stdout
    assert done.stdout.count("refused") == 3, "the other walls stand all the same"


# Root that can neither unshare nor give up its identity. Should the walls be raised all the same, it is
# in a mount namespace that this process has for itself.
HELPLESS_ROOT = """
import ctypes, os, sys
from seccompy import Action, Filter
from runner.workers import walls
assert ctypes.CDLL(None).unshare(0x00020000) == 0
deny = Filter(Action.ALLOW)
for call in ("unshare", "setresuid", "setresgid", "setgroups"):
    deny.errno(call, 1)
deny.load()
before = os.stat("/")
missing = walls.raise_shared()
print(*sorted(missing))
print(os.stat("/") == before)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root could harm the machine")
def test_without_its_namespace_the_root_of_the_machine_is_left_alone() -> None:
    done = subprocess.run([sys.executable, "-c", HELPLESS_ROOT], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    missing, same = done.stdout.splitlines()
    assert missing.split() == ["empty_root", "namespaces", "unprivileged"]
    assert same == "True"
