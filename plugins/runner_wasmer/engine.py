"""The Wasmer engine: compiles with LLVM in a compile process, runs headless in the workers.

Imported only by processes that the executor starts: importing it imports wasmer, which exists for
CPython 3.10 alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import wasmer  # type: ignore[import-untyped]
from wasmer import engine as wasmer_engines

from runner.errors import InvalidModule
from runner.workers.engine import Abi, Engine, Loaded
from runner_wasmer.artifact import Artifact
from runner_wasmer.guest import KeptGuests
from runner_wasmer.module import CommandModule, ReactorModule
from runner_wasmer.stack import GuestStack

if TYPE_CHECKING:
    from runner_wasmer.compiler import Compiler


class WasmerEngine:
    """Wasmer 2.1 with LLVM, as `runner.workers.engine.Engine`."""

    def __init__(self) -> None:
        self._compiler: Compiler | None = None
        self._kept = KeptGuests()
        self._stack: GuestStack | None = None

    def prepare_compile(self) -> None:
        """Load LLVM and start its threads."""
        from runner_wasmer.compiler import Compiler  # the workers do without

        self._compiler = Compiler()

    def compile(self, wasm: bytes) -> bytes:
        """The artifact of a module. The process must have been started with `llvm.environment`."""
        if self._compiler is None:
            self.prepare_compile()
        assert self._compiler is not None
        return self._compiler.compile(wasm)

    def warm_up(self) -> None:
        """Make a store once, so that everything it imports and opens is there."""
        wasmer.Store(wasmer_engines.JIT())
        self._stack = GuestStack()

    def start(self) -> None:
        """Limit the stack that guests run on. The headless engine has no threads."""
        if self._stack is not None:
            self._stack.limit()

    def load(self, artifact: bytes, abi: Abi) -> Loaded:
        """The module of an artifact, with a store of its own so that dropping it frees it."""
        try:
            unpacked = Artifact.unpack(artifact)
        except ValueError as error:
            raise InvalidModule(str(error)) from error
        store = wasmer.Store(wasmer_engines.JIT())
        module = wasmer.Module.deserialize(store, unpacked.code)
        return (CommandModule if abi is Abi.COMMAND else ReactorModule)(
            store, module, unpacked, self._kept, self._stack
        )


def engine() -> Engine:
    """The factory that `runner.workers.engine.import_engine` calls."""
    return WasmerEngine()
