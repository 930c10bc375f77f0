"""The builder for C, C++ and Zig: the compiler of the `ziglang` package, started as a process.

The same source gives the same bytes in every folder: names are relative, no debug data is kept, and
the target's features are pinned to those that every executor runs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from runner.contracts import Availability, Builder, Host
from runner.errors import BuildError, FileUnavailable, ToolchainUnavailable
from runner_builders import zigdeps
from runner_builders.cache import BuildCache, now_ns
from runner_builders.diagnostics import from_clang, shown
from runner_builders.objects import defined_functions, keep_names_only
from runner_builders.settings import ZigSettings

TARGET = ("-target", "wasm32-wasi", "-mcpu=mvp+bulk_memory+mutable_globals+nontrapping_fptoint+sign_ext")
STACK_BYTES = 1 << 20
"""The guest's stack. Zig's own 16 MiB would be a part of every instance's memory."""
C_FLAGS = ("-O2", "-g0", "-Wall", "-fno-sanitize=all")
REACTOR_EXPORTS = ("handle", "malloc", "free")
_MAINS = frozenset({"main", "__main_void", "__main_argc_argv", "__original_main", "_start"})
EXTRA = "pip install 'runner[c]'"


def _version() -> str | None:
    try:
        return metadata.version("ziglang")
    except metadata.PackageNotFoundError:
        return None


def available() -> Availability:
    """Whether the ziglang package is here."""
    version = _version()
    if version is None:
        return Availability(ok=False, reason="the package ziglang is not installed", remedy=EXTRA)
    return Availability(ok=True, version=f"zig {version}")


class ZigBuilder(Builder):
    """Compiles `.c`, `.cpp` and `.zig`. A source that defines `main` becomes a command, one that
    defines `handle` and no `main` a reactor."""

    def __init__(self, settings: ZigSettings, host: Host) -> None:
        self._settings, self._host = settings, host
        self._folder = (host.state_dir / "build").absolute()
        self._cache = BuildCache(self._folder / "modules")

    @property
    def suffixes(self) -> tuple[str, ...]:
        """See Builder."""
        return (".c", ".cpp", ".zig")

    @property
    def version(self) -> str:
        """See Builder. Raises ToolchainUnavailable without the package."""
        version = _version()
        if version is None:
            raise ToolchainUnavailable(f"compiling C, C++ and Zig needs the package ziglang; {EXTRA}")
        return f"zig {version}"

    def build(self, source: Path) -> bytes:
        """See Builder. An unchanged source, headers included, is not compiled again."""
        source = (self._host.project_dir / source).absolute()
        recipe = " ".join((self.version, *TARGET, *C_FLAGS, str(STACK_BYTES)))
        module = self._cache.find(source, recipe)
        if module is None:
            first = "" if (self._folder / "zig").exists() else "; the first build takes half a minute"
            self._host.notify(f"compiling {source.name} with {self.version}{first}")
            started_ns = now_ns()
            with self._scratch() as scratch:
                module, inputs = self._build(source, Path(scratch))
            if not inputs:  # nobody can tell what it read: it is compiled again each time
                return module
            with contextlib.suppress(OSError):  # a state folder that is full only costs the next build its time
                self._cache.keep(source, recipe, inputs, module, started_ns=started_ns)
        return module

    def _scratch(self) -> tempfile.TemporaryDirectory[str]:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return tempfile.TemporaryDirectory(dir=self._folder, prefix="build-")
        except OSError as error:
            raise FileUnavailable(f"cannot build in {self._folder}: {error.strerror}") from error

    def _build(self, source: Path, scratch: Path) -> tuple[bytes, list[Path]]:
        if not source.is_file():
            raise FileUnavailable(f"cannot read {shown(source, self._host.project_dir)}: it is no file")
        module = scratch / "module.wasm"
        inputs = self._build_zig(source, module) if source.suffix == ".zig" else self._build_c(source, module, scratch)
        return keep_names_only(module.read_bytes()), inputs

    def _build_c(self, source: Path, module: Path, scratch: Path) -> list[Path]:
        compiler = "c++" if source.suffix == ".cpp" else "cc"
        part, rules = scratch / "part.o", scratch / "part.d"
        common = [compiler, *TARGET, *C_FLAGS, f"-ffile-prefix-map={source.parent}=."]
        self._run(source, [*common, "-MMD", "-MF", str(rules), "-c", source.name, "-o", str(part)])
        functions = defined_functions(part.read_bytes())
        model: list[str] = []
        if not functions & _MAINS:
            if "handle" not in functions:  # the linker would make a command that calls nothing
                raise self._nothing_to_call(source)
            model = ["-mexec-model=reactor", *(f"-Wl,--export={name}" for name in REACTOR_EXPORTS)]
        stack = f"-Wl,-z,stack-size={STACK_BYTES}"
        try:
            self._run(source, [*common, *model, stack, str(part), "-o", str(module)])
        except BuildError as error:
            told = error.diagnostics.replace(f"wasm-ld: error: {part}: ", f"{error.source}: error: ")
            raise BuildError(error.source, told) from error
        return [source, *_read_files(rules.read_text(), source.parent)]

    def _build_zig(self, source: Path, module: Path) -> list[Path]:
        found = zigdeps.scan(source)
        if found.kind is zigdeps.Kind.NEITHER:
            raise self._nothing_to_call(source)
        model = [] if found.kind is zigdeps.Kind.COMMAND else ["-fno-entry", "-rdynamic"]
        flags = [*TARGET, "-O", "ReleaseSmall", "-fstrip", "--stack", str(STACK_BYTES), *model, f"-femit-bin={module}"]
        self._run(source, ["build-exe", source.name, *flags])
        return list(found.inputs)

    def _nothing_to_call(self, source: Path) -> BuildError:
        name = shown(source, self._host.project_dir)
        hint = {".cpp": '`extern "C" ... handle`', ".zig": "`export fn handle`"}.get(source.suffix, "`handle`")
        main = "`pub fn main`" if source.suffix == ".zig" else "`main`"
        return BuildError(name, f"{name}:1:1: error: neither {main} nor {hint} is defined: nothing can be called")

    def _run(self, source: Path, arguments: Sequence[str]) -> None:
        environment = {
            # Not ours: CPATH and its like would make another machine's module differ.
            "PATH": os.defpath,
            "LC_ALL": "C",
            # The libc that the compiler builds at first: one for all projects, where the user keeps one.
            "ZIG_GLOBAL_CACHE_DIR": os.environ.get("ZIG_GLOBAL_CACHE_DIR") or str(self._folder / "zig"),
            "ZIG_LOCAL_CACHE_DIR": str(self._folder / "zig"),
        }
        name = shown(source, self._host.project_dir)
        with subprocess.Popen(
            [sys.executable, "-m", "ziglang", *arguments],
            cwd=source.parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # zig starts compilers of its own: they end together
        ) as process:
            try:
                output, _ = process.communicate(timeout=self._settings.timeout_seconds)
            except subprocess.TimeoutExpired as error:
                limit = self._settings.timeout_seconds
                raise BuildError(name, f"{name}: error: compiling took longer than {limit:g} s") from error
            finally:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
        told = from_clang(output.decode("utf-8", "replace"), source.parent, self._host.project_dir)
        if process.returncode != 0:
            raise BuildError(name, told or f"{name}: error: the compiler ended with status {process.returncode}")
        if told.strip():
            self._host.notify(told.rstrip())


def _read_files(rules: str, folder: Path) -> list[Path]:
    """The files under the source's own folder tree or beside it that a depfile (make rules) names;
    the toolchain's own headers are a part of its version."""
    words = rules.replace("\\\n", " ").replace("\\ ", "\0").split()
    paths = [Path(word.replace("\0", " ")) for word in words if not word.endswith(":")]
    return [folder / path for path in paths if "ziglang" not in path.parts]
