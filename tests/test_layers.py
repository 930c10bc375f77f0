"""The house: what may be imported, that every public name is documented, and how long things may be.

The layer table itself is in pyproject.toml (import-linter, run by `make check`); here it is made sure
that nothing escapes it.
"""

from __future__ import annotations

import ast
import importlib
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner import hookspecs

ROOT = Path(__file__).parent.parent
CODE = [
    path
    for folder in ("runner", "plugins", "tools", "examples/plugin/runner_command")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

FILE_LINES = 400
FUNCTION_LINES = 40
LONG_FILES: dict[str, str] = {"runner/errors.py": "one tree in one file, so that all of it can be seen"}
"""Files that may have more lines, each with the reason."""
LONG_FUNCTIONS: dict[str, str] = {}
"""Functions (`path:Class.name`) that may have more lines, each with the reason."""


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Every class and function below a node with its dotted name, nested ones included."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            yield f"{prefix}{child.name}", child
            yield from definitions(child, f"{prefix}{child.name}.")
        else:
            yield from definitions(child, prefix)


def imported_by(statement: str) -> set[str]:
    """The modules in a fresh interpreter after a statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


# Imports


def test_every_plugin_is_in_the_layer_table() -> None:
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")  # pytest brings tomli
    settings = toml.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    plugins = sorted(path.parent.name for path in ROOT.glob("plugins/*/__init__.py"))
    assert settings["root_packages"] == ["runner", *plugins]
    contracts = {contract["id"]: contract for contract in settings["contracts"]}
    assert contracts["plugins"]["modules"] == plugins
    assert set(plugins) <= set(contracts["core"]["forbidden_modules"])
    assert settings["root_packages"] == contracts["cycles"]["ancestors"]


HEAVY = {
    *("wasmer", "wasmer_compiler_llvm", "wasmtime", "ziglang"),  # engines and compilers
    *("sqlite3", "_sqlite3", "sqlite_utils"),  # databases
    *("apscheduler", "asyncio", "concurrent.futures.process", "multiprocessing"),  # schedulers, pools
    *("pytest", "numpy", "pandas"),
}


@pytest.mark.parametrize(
    ("module", "also"),
    [
        ("runner", {"click", "pluggy", "yaml", "runner.models"}),
        ("runner.models", {"click", "pluggy", "yaml", "runner.contracts"}),
        ("runner.contracts", {"click", "pluggy", "yaml"}),
        ("runner.plugins", {"click", "yaml", "runner.loading", "importlib.metadata"}),
        ("runner.loading", {"click", "runner.workers"}),
        ("runner.workers.zygote", {"click", "pluggy", "yaml", "runner.contracts"}),
        ("runner.app", {"click"}),
        ("runner.cli.main", {"yaml", "pluggy", "runner.app", "runner.loading", "runner.plugins", "importlib.metadata"}),
    ],
)
def test_importing_pulls_in_nothing_heavy(module: str, also: set[str]) -> None:
    assert imported_by(f"import {module}") & (HEAVY | also) == set()


# Documentation


SPECIFIED = {
    "Wasi": "its methods are the functions of the WASI preview 1 specification, by their names there",
    "Streams": "the same",
    "Catalogue": "a protocol of four mappings, told by its own docstring",
}
"""Classes whose methods are documented elsewhere, each with where."""


def base_names(node: ast.AST | None) -> list[str]:
    bases = node.bases if isinstance(node, ast.ClassDef) else []
    return [ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in bases]


def documented_methods() -> dict[str, set[str]]:
    """By class name, the methods that have a docstring there or in a base: an override may rely on it."""
    classes = [node for path in CODE for _, node in definitions(parsed(path)) if isinstance(node, ast.ClassDef)]
    found: dict[str, set[str]] = {}
    for node in classes:
        methods = [child.name for child in node.body if isinstance(child, Definition) and ast.get_docstring(child)]
        found.setdefault(node.name, set()).update(methods)
    for _ in range(4):  # deep enough for every tree of ours
        for node in classes:
            found[node.name].update(*(found.get(base, ()) for base in base_names(node)))
    return found


def is_public(dotted: str) -> bool:
    return not any(part.startswith("_") for part in dotted.split("."))


def undocumented(path: Path, inherited: dict[str, set[str]]) -> Iterator[str]:
    tree = parsed(path)
    if not ast.get_docstring(tree) and path.read_text().strip():
        yield name_of(path)
    found = dict(definitions(tree))
    for name, node in found.items():
        owner = found.get(name.rpartition(".")[0])
        if not is_public(name) or ast.get_docstring(node) or isinstance(owner, ast.FunctionDef):
            continue
        if isinstance(owner, ast.ClassDef) and (owner.name in SPECIFIED or node.name.startswith("test_")):
            continue
        if not any(node.name in inherited.get(base, ()) for base in base_names(owner)):
            yield f"{name_of(path)}: {name}"


def test_every_public_name_is_documented() -> None:
    inherited = documented_methods()
    assert [name for path in CODE for name in undocumented(path, inherited)] == []


def test_every_hook_is_documented_and_tested() -> None:
    tests = [name for path in ROOT.glob("tests/*.py") for name, _ in definitions(parsed(path))]
    names = hookspecs.spec_names()
    assert len(names) >= 6
    for name in names:
        lines = (getattr(hookspecs, name).__doc__ or "").strip().splitlines()
        assert len(lines) >= 3, f"{name}: say what, when, how often, what it returns and what None means"
        assert f"test_hook_{name}" in tests


# Sizes


def length(node: Definition) -> int:
    """Lines of a definition without its docstring."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node):
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def function_lengths() -> dict[str, int]:
    return {
        f"{name_of(path)}:{name}": length(node)
        for path in CODE
        for name, node in definitions(parsed(path))
        if not isinstance(node, ast.ClassDef)
    }


def test_files_are_short() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in CODE}
    long = {name: lines for name, lines in lengths.items() if lines > FILE_LINES}
    assert {name: lines for name, lines in long.items() if name not in LONG_FILES} == {}
    assert set(LONG_FILES) <= set(long), "an exception that is no longer needed"


def test_functions_are_short() -> None:
    lengths = function_lengths()
    long = {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES}
    assert {name: lines for name, lines in long.items() if name not in LONG_FUNCTIONS} == {}
    assert set(LONG_FUNCTIONS) <= set(long), "an exception that is no longer needed"
    assert statistics.median(lengths.values()) < 10


# The repository


def committed() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_package_registry() -> None:
    """Where packages come from is the machine's business."""
    hosts = [b"pypi" + b".org", b"python" + b"hosted.org", b"--index" + b"-url", b"--find" + b"-links"]
    guilty = [name_of(path) for path in committed() if any(host in path.read_bytes() for host in hosts)]
    assert guilty == []


def test_the_bootstrap_script_speaks_python_3_8() -> None:
    source = (ROOT / "tools" / "bootstrap.py").read_text()
    ast.parse(source, feature_version=(3, 8))
    assert "\nfrom __future__ import annotations\n" in source  # its annotations are newer
