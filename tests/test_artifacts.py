"""No artifact is loaded that this user did not write, for this module, engine and limit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.workers import artifacts
from runner.workers.artifacts import ArtifactCache

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
