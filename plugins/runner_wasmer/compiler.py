"""Compiling with LLVM, in a compile process that was started with `llvm.environment`."""

from __future__ import annotations

import ctypes
from typing import Any, Final

import wasmer  # type: ignore[import-untyped]
from wasmer import engine as wasmer_engines

from runner.errors import EngineUnavailable, InvalidModule
from runner_wasmer.artifact import Artifact
from runner_wasmer.instrument import instrument
from runner_wasmer.llvm import LIBRARY
from runner_wasmer.traps import message_of

MAGIC: Final = b"\0asm\x01\0\0\0"
"""How every core module begins; alone it is the empty module."""


class Compiler:
    """LLVM, loaded. Raises EngineUnavailable when it does not load."""

    def __init__(self) -> None:
        try:
            ctypes.CDLL(LIBRARY)  # by this very name: the loader then takes it for the compiler's
            import wasmer_compiler_llvm  # type: ignore[import-untyped]
        except (ImportError, OSError) as error:
            reason = f"its LLVM compiler does not load: {error}"
            raise EngineUnavailable("wasmer", reason, remedy="`runner doctor` shows what is missing") from error
        self._llvm: Any = wasmer_compiler_llvm.Compiler
        self.compile(MAGIC)  # starts LLVM's threads

    def compile(self, wasm: bytes) -> bytes:
        """The artifact of a module. Raises InvalidModule for what Wasmer refuses."""
        if wasm[: len(MAGIC)] != MAGIC:  # Wasmer would take anything else for WebAssembly text
            raise InvalidModule(
                f"these {len(wasm):,} bytes are no WebAssembly module: they do not begin with its magic"
            )
        store = wasmer.Store(wasmer_engines.JIT(self._llvm))
        if not wasmer.Module.validate(store, wasm):
            # Before it is instrumented, or it could name what is added. Compiling tells why.
            self._build(store, wasm)
            raise InvalidModule("the module is invalid")
        instrumented = instrument(wasm)
        return Artifact.of(instrumented, self._build(store, instrumented.wasm)).pack()

    def _build(self, store: Any, wasm: bytes) -> bytes:
        try:
            return bytes(wasmer.Module(store, wasm).serialize())
        except RuntimeError as error:
            raise InvalidModule(f"the module is invalid: {message_of(error)}") from None
