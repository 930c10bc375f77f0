"""No artifact is loaded that this user did not write, for this module, engine and limit."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from runner.workers import artifacts, executor
from runner.workers.artifacts import ArtifactCache
from runner.workers.compiler import compile_module
from tests.ordinary_user import folder_for_all, run_as_ordinary_user
from tests.support import (
    ECHO,
    ENGINE_NAMES,
    FOREVER,
    MODULES,
    context,
    function,
    marked,
    puppets,
    real_executor,
    say,
)

ARTIFACT = b"native code" * 20
CID = "bafkreimodule"


@pytest.fixture(autouse=True)
def _own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))


@pytest.fixture
def cache(tmp_path: Path) -> ArtifactCache:
    made = ArtifactCache(tmp_path / "artifacts", "engine-1")
    made.put(CID, "64mb", ARTIFACT)
    return made


def _file(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "artifacts").glob("*/*")
    return path


def test_what_was_put_is_found_by_the_next_process_too(tmp_path: Path, cache: ArtifactCache) -> None:
    assert cache.get(CID, "64mb") == ARTIFACT
    assert ArtifactCache(tmp_path / "artifacts", "engine-1").get(CID, "64mb") == ARTIFACT
    assert cache.get(CID, "32mb") is None
    assert ArtifactCache(tmp_path / "artifacts", "engine-2").get(CID, "64mb") is None


def test_a_changed_bit_anywhere_is_noticed(tmp_path: Path, cache: ArtifactCache) -> None:
    path = _file(tmp_path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        assert cache.get(CID, "64mb") is None


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 100])
def test_a_truncated_artifact_is_noticed(tmp_path: Path, cache: ArtifactCache, size: int) -> None:
    path = _file(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    assert cache.get(CID, "64mb") is None


def test_one_artifact_cannot_stand_in_for_another(tmp_path: Path, cache: ArtifactCache) -> None:
    path = _file(tmp_path)
    path.rename(path.with_name("bafkreiother-64mb"))
    assert cache.get("bafkreiother", "64mb") is None


def test_artifacts_under_another_key_are_foreign(
    tmp_path: Path, cache: ArtifactCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "someone else"))
    assert ArtifactCache(tmp_path / "artifacts", "engine-1").get(CID, "64mb") is None
    assert cache.get(CID, "64mb") == ARTIFACT


@pytest.mark.usefixtures("cache")
def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    assert artifacts.key_path().stat().st_mode & 0o777 == 0o600
    artifacts.key_path().chmod(0o644)
    assert ArtifactCache(tmp_path / "artifacts", "engine-1").get(CID, "64mb") is None


def test_a_key_of_another_length_is_not_used(cache: ArtifactCache) -> None:
    assert cache.get(CID, "64mb") == ARTIFACT
    artifacts.key_path().write_bytes(b"short")
    assert len(artifacts.load_key()) == artifacts.KEY_BYTES


def test_remove_takes_all_limits_of_a_module(cache: ArtifactCache) -> None:
    cache.put(CID, "32mb", ARTIFACT)
    cache.put("bafkreiother", "32mb", ARTIFACT)
    cache.remove(CID)
    assert cache.get(CID, "64mb") is None
    assert cache.get(CID, "32mb") is None
    assert cache.get("bafkreiother", "32mb") == ARTIFACT


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = ArtifactCache(tmp_path / "file", "engine-1")
    cache.put(CID, "64mb", ARTIFACT)
    assert cache.get(CID, "64mb") is None


def test_two_processes_that_write_at_once_leave_one_whole(tmp_path: Path, cache: ArtifactCache) -> None:
    pids = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            for _ in range(50):
                cache.put(CID, "64mb", ARTIFACT)
            os._exit(0)
        pids.append(pid)
    while any(os.waitpid(pid, os.WNOHANG) == (0, 0) for pid in pids[-1:]):
        assert cache.get(CID, "64mb") == ARTIFACT
    for pid in pids[:-1]:
        os.waitpid(pid, 0)
    assert cache.get(CID, "64mb") == ARTIFACT
    assert len(list(_file(tmp_path).parent.iterdir())) == 1


def test_processes_that_need_a_key_at_once_agree_on_one() -> None:
    read, write = os.pipe()
    pids = []
    for _ in range(8):
        pid = os.fork()
        if pid == 0:
            os.write(write, artifacts.load_key())
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    os.close(write)
    with open(read, "rb") as pipe:
        keys = pipe.read()
    assert len({keys[start : start + artifacts.KEY_BYTES] for start in range(0, len(keys), artifacts.KEY_BYTES)}) == 1
    assert [path.name for path in artifacts.key_path().parent.iterdir()] == ["artifact.key"]


def test_a_key_that_came_first_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = bytes(range(artifacts.KEY_BYTES))

    def another_process_is_faster(size: int) -> bytes:
        artifacts.key_path().parent.mkdir(parents=True)
        artifacts.key_path().write_bytes(theirs)
        artifacts.key_path().chmod(0o600)
        return bytes(size)

    monkeypatch.setattr(secrets, "token_bytes", another_process_is_faster)
    assert artifacts.load_key() == theirs


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_of_someone_else_is_not_used(tmp_path: Path, cache: ArtifactCache) -> None:
    assert cache.get(CID, "64mb") == ARTIFACT
    os.chown(artifacts.key_path(), 1000, 1000)
    assert ArtifactCache(tmp_path / "artifacts", "engine-1").get(CID, "64mb") is None


def test_a_user_without_a_home_has_no_key_and_no_trouble() -> None:
    code = "from runner.workers import artifacts; print(len(artifacts.load_key()))"
    done = run_as_ordinary_user(code, uid=54321)  # a uid that nobody has, as in a container
    assert done.stdout == "32\n", done.stderr


# With executors around it


class Compiled:
    """Counts what is really compiled."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        original: Callable[..., bytes] = compile_module

        def counting(*arguments: Any, **settings: Any) -> bytes:
            self.count += 1
            return original(*arguments, **settings)

        monkeypatch.setattr(executor, "compile_module", counting)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Compiled:
    return Compiled(monkeypatch)


@pytest.mark.parametrize("engine", ENGINE_NAMES)
def test_what_is_damaged_is_compiled_again(tmp_path: Path, engine: str, compiled: Compiled) -> None:
    def run() -> bytes:
        made = real_executor(engine, tmp_path, workers=1)
        try:
            return made.execute(function(ECHO), b"right", context())
        finally:
            made.close()

    assert (run(), compiled.count) == (b"right", 1)
    assert (run(), compiled.count) == (b"right", 1)
    (path,) = (tmp_path / "artifacts").glob("*/*")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert (run(), compiled.count) == (b"right", 2)
    assert path.read_bytes()[32:] == whole[32:]
    path.write_bytes(whole[:100] + bytes([whole[100] ^ 4]) + whole[101:])
    assert (run(), compiled.count) == (b"right", 3)
    artifacts.key_path().chmod(0o644)
    assert (run(), compiled.count) == (b"right", 4)


@pytest.mark.parametrize("engine", ENGINE_NAMES)
def test_an_artifact_of_another_module_is_not_run(tmp_path: Path, engine: str, compiled: Compiled) -> None:
    made = real_executor(engine, tmp_path, workers=1)
    try:
        made.precompile(MODULES.add(FOREVER), FOREVER)
        (theirs,) = (tmp_path / "artifacts").glob("*/*")
        cid = MODULES.add(ECHO)
        theirs.rename(theirs.with_name(theirs.name.replace(MODULES.add(FOREVER), cid)))
        assert made.execute(function(ECHO), b"right", context()) == b"right"
        assert compiled.count == 2
    finally:
        made.close()


def test_a_state_folder_that_is_read_only_costs_time_only() -> None:
    # In a process of an ordinary user: root may write everywhere.
    state = folder_for_all()
    state.chmod(0o555)
    code = (
        "import sys; from pathlib import Path; from tests.support import *\n"
        "made = puppets(Path(sys.argv[1]))\n"
        "print(made.execute(function(), say('fine'), context()).decode()); made.close()"
    )
    try:
        done = run_as_ordinary_user(code, str(state))
        assert done.stdout == "fine\n", done.stderr
        assert list(state.iterdir()) == []
    finally:
        state.rmdir()


def test_executors_that_compile_the_same_at_once(tmp_path: Path, compiled: Compiled) -> None:
    wasm = marked("compile-slow")
    pair = [puppets(tmp_path), puppets(tmp_path)]
    try:
        with ThreadPoolExecutor(6) as threads:
            runs = [threads.submit(pair[n % 2].execute, function(wasm), say(n), context()) for n in range(6)]
            assert [run.result() for run in runs] == [b"%d" % n for n in range(6)]
        assert compiled.count == 2, "threads of one executor share what they compile"
        (path,) = (tmp_path / "artifacts").glob("*/*")
        assert path.read_bytes()[32:].endswith(wasm)
    finally:
        for made in pair:
            made.close()


def test_invalidate_forgets_memory_and_disk(tmp_path: Path, compiled: Compiled) -> None:
    made = puppets(tmp_path)
    try:
        for _ in range(2):
            made.execute(function(), say(1), context())
            made.execute(function(memory_limit_mb=32), say(1), context())
        assert compiled.count == 2
        made.invalidate(function().wasm_cid)
        assert list((tmp_path / "artifacts").glob("*/*")) == []
        made.execute(function(), say(1), context())
        assert compiled.count == 3
    finally:
        made.close()
