"""An instance between its making and its end, and how many of them a process keeps for reuse."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from runner_wasmer.artifact import Artifact
from runner_wasmer.linear_memory import LinearMemory
from runner_wasmer.restore import restorer

_KEPT_LIMIT: Final = 8
"""Modules that keep their instance: each holds 6 GiB of addresses and the memory it starts with."""


class Guest:
    """One instance and what of it is called. It holds everything that keeps the instance alive."""

    __slots__ = ("_instance", "_restorer", "exports", "functions", "memory", "view")

    def __init__(
        self, instance: Any, called: tuple[str, ...], memory: str | None, artifact: Artifact, *, reuse: bool
    ) -> None:
        self._instance = instance
        self.exports = exports = instance.exports
        self.functions: tuple[Callable[..., int], ...] = tuple([getattr(exports, name) for name in called])
        self.memory: Any = None if memory is None else getattr(exports, memory)
        self.view: memoryview | None = None
        if artifact.memory is not None:
            self.memory = LinearMemory(self.memory)
            self.view = self.memory.view
        self._restorer = restorer(exports, self.memory, artifact) if reuse else None

    @property
    def was_refused_memory(self) -> bool:
        """Whether growing the memory failed; of a module that grows by itself, whether it is full."""
        memory = self.memory
        if memory is None or isinstance(memory, LinearMemory):
            return memory is not None and memory.refused
        maximum: int | None = memory.type.maximum
        return maximum is not None and memory.size >= maximum

    @property
    def can_be_restored(self) -> bool:
        """Whether `restore` may succeed."""
        return self._restorer is not None

    def restore(self) -> bool:
        """Undo an invocation that ended well; False: drop this guest."""
        return self._restorer is not None and self._restorer.restore()


class Keeper(Protocol):
    """Something that keeps a guest, and can do without."""

    def forget(self) -> None:
        """Drop the guest."""


class KeptGuests:
    """Holds the number of kept guests down: the keeper that began longest ago forgets its own."""

    def __init__(self) -> None:
        self._keepers: deque[weakref.ref[Keeper]] = deque()

    def add(self, keeper: Keeper) -> None:
        """Note that `keeper` has a new guest."""
        found = weakref.ref(keeper)
        if found in self._keepers:
            self._keepers.remove(found)
        self._keepers.append(found)
        while len(self._keepers) > _KEPT_LIMIT:
            oldest = self._keepers.popleft()()
            if oldest is not None:
                oldest.forget()
