"""The wheel: what is in it, and that it works in an environment where nothing else is."""

from __future__ import annotations

import email.message
import email.parser
import json
import sys
import zipfile
from pathlib import Path

import pytest

from tests.installed import ROOT, Environment, wheel

PLUGINS = {name: f"runner_{name}" for name in ("apscheduler", "builders", "files", "sqlite", "wasmer", "wasmtime")}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def archive() -> zipfile.ZipFile:
    return zipfile.ZipFile(wheel())


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment.make(tmp_path_factory.mktemp("wheel") / "venv", wheel())


def text_of(archive: zipfile.ZipFile, ending: str) -> str:
    (name,) = [name for name in archive.namelist() if name.endswith(ending)]
    return archive.read(name).decode()


def metadata_of(archive: zipfile.ZipFile) -> email.message.Message:
    return email.parser.Parser().parsestr(text_of(archive, ".dist-info/METADATA"))


def test_it_holds_every_module_and_nothing_else(archive: zipfile.ZipFile) -> None:
    modules = {name for name in archive.namelist() if name.endswith(".py")}
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "runner").rglob("*.py")}
    expected |= {path.relative_to(ROOT / "plugins").as_posix() for path in (ROOT / "plugins").rglob("*.py")}
    assert modules == expected
    tops = {name.partition("/")[0] for name in archive.namelist()}
    version = metadata_of(archive)["Version"]
    assert tops == {"runner", *PLUGINS.values(), f"runner-{version}.dist-info"}


def test_it_holds_what_is_no_module(archive: zipfile.ZipFile) -> None:
    names = archive.namelist()
    assert "runner/py.typed" in names
    templates = ROOT / "runner" / "cli" / "templates"
    for path in templates.rglob("*"):
        assert path.is_dir() or path.relative_to(ROOT).as_posix() in names
    assert "Apache License" in text_of(archive, ".dist-info/licenses/LICENSE")


def test_its_metadata(archive: zipfile.ZipFile) -> None:
    metadata = metadata_of(archive)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.10"
    for requirement in metadata.get_all("Requires-Dist", []):
        if requirement.startswith("wasmer"):  # its wheels load on CPython 3.10 only
            assert requirement.partition(";")[2].strip().replace('"', "'") == "python_version < '3.11'"
    points = text_of(archive, ".dist-info/entry_points.txt").split()
    for name, module in PLUGINS.items():
        assert " ".join([name, "=", module]) in " ".join(points)


def test_it_starts(environment: Environment, tmp_path: Path, archive: zipfile.ZipFile) -> None:
    version = metadata_of(archive)["Version"]
    assert environment.run("runner", "--version", cwd=tmp_path).stdout.split() == ["runner", version]
    assert environment.run("python", "-m", "runner", "--version", cwd=tmp_path).stdout.split() == ["runner", version]
    assert "Usage: runner" in environment.run("runner", "--help", cwd=tmp_path).stdout


def test_its_plugins_load(environment: Environment, tmp_path: Path) -> None:
    printed = environment.run("runner", "plugins", "list", "--json", cwd=tmp_path).stdout
    listed = [json.loads(line) for line in printed.splitlines()]
    assert {(plugin["name"], plugin["status"], plugin["error"]) for plugin in listed} == {
        (name, "loaded", None) for name in PLUGINS
    }


def test_it_runs_jobs(environment: Environment, tmp_path: Path) -> None:
    """The starter project, from nothing to a result."""
    environment.run("runner", "init", "demo", cwd=tmp_path)
    environment.run("runner", "validate", cwd=tmp_path / "demo")
    printed = environment.run("runner", "run", "--json", cwd=tmp_path / "demo").stdout
    ended = [json.loads(line) for line in printed.splitlines()]
    assert ended
    assert {job["status"] for job in ended} == {"succeeded"}
    engines = environment.run("runner", "engines", "list", "--json", cwd=tmp_path / "demo").stdout
    available = {engine["name"]: engine["available"] for engine in map(json.loads, engines.splitlines())}
    assert available["wasmtime"]
    assert available["wasmer"] or sys.version_info[:2] != (3, 10)


def test_types_are_found(environment: Environment, tmp_path: Path) -> None:
    """A user's checker sees our annotations: py.typed does what it is there for."""
    mypy = pytest.importorskip("mypy.api", reason="mypy is not installed here")
    (tmp_path / "use.py").write_text("from runner.models import LogEntry\nreveal_type(LogEntry)\nx: int = LogEntry\n")
    options = ["--python-executable", str(environment.python), "--cache-dir", str(tmp_path / "cache")]
    said, _, status = mypy.run([*options, str(tmp_path / "use.py")])
    assert status == 1
    assert "runner.models.LogEntry" in said
    assert "import-untyped" not in said
