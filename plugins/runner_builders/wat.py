"""The builder for WebAssembly text: `wat2wasm` of the wasmtime package."""

from __future__ import annotations

import contextlib
from importlib import metadata
from pathlib import Path

from runner.contracts import Builder, Host
from runner.errors import BuildError, FileUnavailable, ToolchainUnavailable
from runner_builders.cache import BuildCache, now_ns
from runner_builders.diagnostics import from_wat, shown


class WatBuilder(Builder):
    """Compiles `.wat`. The same text gives the same bytes, identifiers kept as the name section."""

    def __init__(self, host: Host) -> None:
        self._project_dir = host.project_dir
        self._cache = BuildCache(host.state_dir / "build" / "modules")

    @property
    def suffixes(self) -> tuple[str, ...]:
        """See Builder."""
        return (".wat",)

    @property
    def version(self) -> str:
        """See Builder. Raises ToolchainUnavailable without wasmtime."""
        try:
            return f"wasmtime {metadata.version('wasmtime')}"
        except metadata.PackageNotFoundError as error:
            raise ToolchainUnavailable("compiling .wat needs wasmtime; pip install 'wasmtime>=45'") from error

    def build(self, source: Path) -> bytes:
        """See Builder. An unchanged source is not compiled again."""
        source = (self._project_dir / source).absolute()
        recipe = self.version
        module = self._cache.find(source, recipe)
        if module is None:
            started_ns = now_ns()
            module = self._compile(source)
            with contextlib.suppress(OSError):  # a state folder that is full only costs the next build its time
                self._cache.keep(source, recipe, [source], module, started_ns=started_ns)
        return module

    def _compile(self, source: Path) -> bytes:
        from wasmtime import WasmtimeError, wat2wasm

        name = shown(source, self._project_dir)
        try:
            return bytes(wat2wasm(source.read_text(encoding="utf-8")))
        except OSError as error:
            raise FileUnavailable(f"cannot read {name}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise BuildError(name, f"{name}: error: byte {error.start} is not UTF-8; save the file as UTF-8") from error
        except WasmtimeError as error:
            raise BuildError(name, from_wat(str(error), name)) from error
