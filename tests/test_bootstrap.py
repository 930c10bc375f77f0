"""tools/bootstrap.py: what it finds, what it passes over, and what it says when nothing can be had."""

from __future__ import annotations

import hashlib
import http.server
import io
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import bootstrap

HERE = "{}.{}".format(*sys.version_info[:2])


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def archive_of(name: str, program: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo(f"{name}/uv")
        member.size = len(program)
        archive.addfile(member, io.BytesIO(program))
    return packed.getvalue()


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private folder for tools, and no uv anywhere else."""
    monkeypatch.setattr(bootstrap, "TOOLS", tmp_path / "tools")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("UV", raising=False)
    return tmp_path / "tools"


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[str]:
    """A server of the files in tmp_path/releases."""
    folder = tmp_path / "releases"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


# uv


@pytest.mark.parametrize(
    ("says", "works"),
    [
        ("echo uv 0.13.9", True),
        ("echo uv 1.0.0 '(x86_64)'", True),
        ("echo uv 0.7.22", False),
        ("echo something else", False),
        ("echo uv 0.13.9; exit 1", False),
    ],
)
def test_a_uv_must_run_and_be_new(tools: Path, tmp_path: Path, says: str, works: bool) -> None:
    uv = script(tmp_path / "bin" / "uv", says)
    assert bootstrap.uv_works(str(uv)) is works
    assert bootstrap.find_uv() == (str(uv) if works else None)
    private = script(tools / "uv-venv" / "bin" / "uv", "echo uv 0.13.9")
    assert bootstrap.find_uv() == (str(uv) if works else str(private))


def test_a_uv_that_is_named_comes_first(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tools / "uv-venv" / "bin" / "uv", "echo uv 0.13.9")
    named = script(tmp_path / "mine", "echo uv 0.13.9")
    monkeypatch.setenv("UV", str(named))
    assert bootstrap.find_uv() == str(named)


def test_uv_from_its_release_page(tools: Path, tmp_path: Path, releases: str) -> None:
    """For a Python that has neither venv nor pip."""
    name = f"uv-{bootstrap.uv_target_triple()}"
    archive = archive_of(name, b"#!/bin/sh\necho uv 0.13.9\n")
    (tmp_path / "releases" / f"{name}.tar.gz").write_bytes(archive)
    (tmp_path / "releases" / f"{name}.tar.gz.sha256").write_text(
        f"{hashlib.sha256(archive).hexdigest()} *{name}.tar.gz\n"
    )
    uv = bootstrap.fetch_uv([lambda: bootstrap.uv_by_release(releases)])
    assert uv == str(tools / "uv-release" / "uv")
    assert bootstrap.find_uv() == uv


def test_a_release_that_does_not_match_its_checksum(tools: Path, tmp_path: Path, releases: str) -> None:
    name = f"uv-{bootstrap.uv_target_triple()}"
    (tmp_path / "releases" / f"{name}.tar.gz").write_bytes(archive_of(name, b"#!/bin/sh\necho uv 0.13.9\n")[:-9])
    (tmp_path / "releases" / f"{name}.tar.gz.sha256").write_text(f"{'0' * 64}\n")
    with pytest.raises(bootstrap.BootstrapError, match="is not what its checksum says"):
        bootstrap.fetch_uv([lambda: bootstrap.uv_by_release(releases)])
    assert not (tools / "uv-release").exists()


def test_each_way_is_tried_and_one_error_tells_of_all(tools: Path, tmp_path: Path, releases: str) -> None:
    def broken_pip() -> Path:
        bootstrap.quietly(["/bin/sh", "-c", "echo first >&2; echo no such option >&2; exit 2"])
        raise AssertionError

    def broken_program() -> Path:
        return script(tmp_path / "fetched", "exit 1")

    def missing_release() -> Path:
        return bootstrap.uv_by_release(releases)

    with pytest.raises(bootstrap.BootstrapError) as raised:
        bootstrap.fetch_uv([broken_pip, broken_program, missing_release])
    assert str(raised.value).splitlines() == [
        "no uv on PATH, and none could be fetched:",
        "  broken pip: no such option",
        "  broken program: what it fetched does not run",
        "  missing release: HTTP Error 404: File not found",
        "check the network (proxy variables included), or install uv by hand and run make again",
    ]
    assert tools.is_dir()


# Python


def test_a_python_must_really_run(tmp_path: Path) -> None:
    assert bootstrap.python_works(sys.executable, HERE)
    assert not bootstrap.python_works(sys.executable, "3.99")
    shim = script(tmp_path / "python3.10", "echo 'pyenv: version 3.10 is not installed' >&2; exit 127")
    assert not bootstrap.python_works(str(shim), "3.10")
    assert not bootstrap.python_works(str(tmp_path / "gone"), "3.10")
    other = script(tmp_path / "other", "echo 'PyPy (3, 10)'")
    assert not bootstrap.python_works(str(other), "3.10")


def test_a_shim_that_fails_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pyenv leaves on PATH for a version that is not chosen; the version itself is found."""
    script(tmp_path / "shims" / "python3.99", "exit 127")
    works = script(tmp_path / "pyenv" / "versions" / "3.99.1" / "bin" / "python", "echo 'CPython (3, 99)'")
    monkeypatch.setenv("PATH", str(tmp_path / "shims"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    assert bootstrap.find_python(["3.98", "3.99"], None) == str(works)
    assert bootstrap.find_python(["3.98"], None) is None


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wanted are Pythons that no machine has: what is found is what a test makes."""
    monkeypatch.setattr(bootstrap, "WASMER_PYTHON", "3.98")
    monkeypatch.setattr(bootstrap, "OTHER_PYTHONS", ("3.99",))


@pytest.mark.usefixtures("versions")
def test_uv_is_asked_for_the_python_that_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ready, home = script(tmp_path / "ready", "echo 'CPython (3, 98)'"), tmp_path / "home" / "python3.98"
    install = f'[ "$2" = install ] && mkdir -p {home.parent} && cp {ready} {home}'
    uv = script(tmp_path / "uv", f'{install}\n[ "$2" = find ] && [ -e {home} ] && echo {home}\nexit 0')
    assert bootstrap.choose_python(str(uv)) == str(home)
    assert "no CPython 3.98 here; asking uv for one" in capsys.readouterr().err


@pytest.mark.usefixtures("versions")
def test_without_the_wasmer_python_another_is_taken_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = script(tmp_path / "bin" / "python3.99", "echo 'CPython (3, 99)'")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    uv = script(tmp_path / "uv", "exit 2")
    assert bootstrap.choose_python(str(uv)) == str(other)
    told = capsys.readouterr().err
    assert "functions will run on the wasmtime engine" in told
    assert "install CPython 3.98" in told


@pytest.mark.usefixtures("versions")
def test_without_any_python_the_error_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(bootstrap.BootstrapError, match=r"install CPython 3\.98 \(`pyenv install 3\.98`"):
        bootstrap.choose_python(str(script(tmp_path / "uv", "exit 2")))


def test_the_command_finds_pythons() -> None:
    command = [sys.executable, bootstrap.__file__, "--find"]
    found = subprocess.run([*command, "3.99", HERE], capture_output=True, text=True)
    assert found.returncode == 0
    assert bootstrap.python_works(found.stdout.strip(), HERE)
    missing = subprocess.run([*command, "3.99"], capture_output=True, text=True)
    assert (missing.returncode, missing.stdout) == (1, "\n")
