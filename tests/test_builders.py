"""Builders compile real sources with the real compilers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from runner_builders import runner_builders, zig
from runner_builders.settings import ZigSettings

from runner import wasm
from runner.contracts import Builder, Host
from runner.errors import BuildError, FileUnavailable, ToolchainUnavailable
from runner.models import Abi

C_HELLO = '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n'
C_HANDLE = "unsigned long long handle(char *in, unsigned n) { return (unsigned long long)n << 32 | (unsigned)in; }\n"

BuilderFor = Callable[[Path, str], Builder]


@pytest.fixture(scope="session")
def zig_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One state folder for all: the compiler builds its libc there once."""
    return tmp_path_factory.mktemp("zig-state")


@pytest.fixture
def notices() -> list[str]:
    """What the builders tell the user."""
    return []


@pytest.fixture
def builder_for(zig_state: Path, notices: list[str]) -> BuilderFor:
    def make(project: Path, suffix: str) -> Builder:
        host = Host(project_dir=project, state_dir=zig_state, get_wasm_bytes=lambda _: b"", notify=notices.append)
        provider = next(one for one in runner_builders() if suffix in one.name.split(","))
        builder: Builder = provider.create(provider.settings() if provider.settings else None, host)
        return builder

    return make


def _written(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    # An edit within the clock's grain could be missed by anyone who compares times.
    old = time.time() - 60
    os.utime(path, (old, old))
    return path


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_same_source_gives_the_same_bytes_in_every_folder(tmp_path: Path, builder_for: BuilderFor) -> None:
    modules = set()
    for folder in (tmp_path / "a", tmp_path / "a longer name"):
        _written(folder, "say.h", '#define SAY __FILE__ " says hello"\n')
        _written(folder, "hello.c", '#include "say.h"\n#include <stdio.h>\nint main(void) { puts(SAY); return 0; }\n')
        modules.add(builder_for(folder, ".c").build(Path("hello.c")))
    (module,) = modules
    assert str(tmp_path).encode() not in module
    assert wasm.entry_point(wasm.inspect(module)) is Abi.COMMAND


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_source_with_handle_and_no_main_is_a_reactor(tmp_path: Path, builder_for: BuilderFor) -> None:
    _written(tmp_path, "echo.c", C_HANDLE)
    module = wasm.inspect(builder_for(tmp_path, ".c").build(Path("echo.c")))
    assert wasm.entry_point(module) is Abi.REACTOR
    assert module.features <= {"bulk-memory", "mutable-globals", "saturating-float-to-int", "sign-extension"}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_edited_header_is_noticed_and_an_unchanged_source_is_not_compiled(
    tmp_path: Path, builder_for: BuilderFor, notices: list[str]
) -> None:
    _written(tmp_path, "word.h", '#define WORD "one"\n')
    _written(tmp_path, "word.c", '#include "word.h"\n#include <stdio.h>\nint main(void) { puts(WORD); return 0; }\n')
    builder = builder_for(tmp_path, ".c")
    first = builder.build(Path("word.c"))
    assert len(notices) == 1
    assert builder.build(Path("word.c")) == first
    assert len(notices) == 1  # a compilation is told
    _written(tmp_path, "word.h", '#define WORD "two"\n')
    assert b"two" in builder.build(Path("word.c"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_compiler_errors_name_file_and_line(tmp_path: Path, builder_for: BuilderFor) -> None:
    _written(tmp_path / "src", "bad.c", "int main(void) {\n  return missing;\n}\n")
    with pytest.raises(BuildError, match=r"src/bad\.c:2:10: error: use of undeclared identifier 'missing'"):
        builder_for(tmp_path, ".c").build(Path("src/bad.c"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_cpp_source(tmp_path: Path, builder_for: BuilderFor) -> None:
    text = "#include <cstdio>\n#include <string>\nint main() { std::puts((std::string(3, 'c') + \"pp\").c_str()); }\n"
    _written(tmp_path, "say.cpp", text)
    module = wasm.inspect(builder_for(tmp_path, ".cpp").build(Path("say.cpp")))
    assert wasm.entry_point(module) is Abi.COMMAND
    assert module.features <= {"bulk-memory", "mutable-globals", "saturating-float-to-int", "sign-extension"}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_zig_source(tmp_path: Path, builder_for: BuilderFor) -> None:
    _written(tmp_path, "empty.zig", "pub fn main() void {}\n")
    module = builder_for(tmp_path, ".zig").build(Path("empty.zig"))
    assert wasm.entry_point(wasm.inspect(module)) is Abi.COMMAND


@pytest.mark.timeout(300)
def test_a_build_over_its_deadline_is_ended(tmp_path: Path) -> None:
    _written(tmp_path, "hello.c", C_HELLO)
    host = Host(project_dir=tmp_path, state_dir=tmp_path / "state", get_wasm_bytes=lambda _: b"")
    with pytest.raises(BuildError, match=r"took longer than 0\.05 s"):
        zig.ZigBuilder(ZigSettings(timeout_seconds=0.05), host).build(Path("hello.c"))


def test_a_missing_compiler_names_the_extra(
    tmp_path: Path, builder_for: BuilderFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    _written(tmp_path, "hello.c", C_HELLO)
    builder = builder_for(tmp_path, ".c")
    monkeypatch.setattr(zig, "_version", lambda: None)  # the package cannot be taken away for one test
    with pytest.raises(ToolchainUnavailable, match=r"runner\[c\]"):
        builder.build(Path("hello.c"))


def test_wat(tmp_path: Path, builder_for: BuilderFor) -> None:
    _written(tmp_path, "start.wat", '(module (memory (export "memory") 1) (func (export "_start")))')
    builder = builder_for(tmp_path, ".wat")
    module = builder.build(Path("start.wat"))
    assert wasm.entry_point(wasm.inspect(module)) is Abi.COMMAND
    assert builder.build(Path("start.wat")) == module


@pytest.mark.parametrize(
    ("text", "message"),
    [("(module (func (export 3)))", r"bad\.wat:1:\d+: error"), ("(module\n  (nonsense))", r"bad\.wat:2:\d+: error")],
)
def test_wat_errors_name_file_and_line(tmp_path: Path, builder_for: BuilderFor, text: str, message: str) -> None:
    _written(tmp_path, "bad.wat", text)
    with pytest.raises(BuildError, match=message):
        builder_for(tmp_path, ".wat").build(Path("bad.wat"))


@pytest.mark.parametrize("name", ["gone.c", "gone.wat"])
def test_a_missing_source_is_said(tmp_path: Path, builder_for: BuilderFor, name: str) -> None:
    with pytest.raises(FileUnavailable, match=name):
        builder_for(tmp_path, Path(name).suffix).build(Path(name))


def test_a_damaged_cache_entry_is_built_again(tmp_path: Path, builder_for: BuilderFor, zig_state: Path) -> None:
    _written(tmp_path, "start.wat", '(module (memory (export "memory") 1) (func (export "_start")))')
    builder = builder_for(tmp_path, ".wat")
    module = builder.build(Path("start.wat"))
    for entry in (zig_state / "build" / "modules").iterdir():
        entry.write_bytes(entry.read_bytes()[:-3] + b"xyz")
    assert builder.build(Path("start.wat")) == module


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "text"),
    [("nothing.c", "int helper(void) { return 1; }\n"), ("nothing.zig", "pub fn helper() u8 { return 1; }\n")],
)
def test_a_source_without_entry_point_says_what_is_missing(
    name: str, text: str, tmp_path: Path, builder_for: BuilderFor
) -> None:
    _written(tmp_path, name, text)
    with pytest.raises(BuildError, match=rf"{name}.*main.*handle"):
        builder_for(tmp_path, Path(name).suffix).build(Path(name))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_edited_import_of_a_zig_source_is_noticed(tmp_path: Path, builder_for: BuilderFor) -> None:
    _written(tmp_path / "sub", "part.zig", "pub const value = 1;\n")
    text = 'const part = @import("sub/part.zig");\nexport fn handle(_: usize, _: usize) u64 { return part.value; }\n'
    _written(tmp_path, "whole.zig", text)
    builder = builder_for(tmp_path, ".zig")
    first = builder.build(Path("whole.zig"))
    _written(tmp_path / "sub", "part.zig", "pub const value = 2;\n")
    assert first != builder.build(Path("whole.zig"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_environment_does_not_reach_the_compiler(
    tmp_path: Path, builder_for: BuilderFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    _written(tmp_path / "elsewhere", "hidden.h", "#define HIDDEN 1\n")
    monkeypatch.setenv("CPATH", str(tmp_path / "elsewhere"))
    _written(tmp_path, "uses.c", '#include "hidden.h"\nint main(void) { return HIDDEN; }\n')
    with pytest.raises(BuildError, match=r"'hidden\.h' file not found"):
        builder_for(tmp_path, ".c").build(Path("uses.c"))
