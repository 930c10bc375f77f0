"""What the result of a pure function depends on, and the key that is made of all of it.

Pure: nothing is looked up here. A result is used again only under the same key, so whatever a guest can
see, and whatever decides how it ends, has to be a part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from runner.models import Function

ABI_VERSION = 1
"""Of what a pure function sees of its host, as docs/reuse.md tells it: the moment that its clock shows,
its random bytes, what the calls that it may import answer. To be raised with any change of these, which
makes every result that was kept before one of another key."""
PARTS = ("module", "input", "env_vars", "limits", "name", "executor", "abi")
"""The parts of a key, in the order in which they are told."""
SHOWN_DIGITS = 16
"""How much of a digest is kept with a run, to tell which part has changed. Never compared for reuse."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything that a result depends on but the input. Every field counts; none has a default, so that
    none is forgotten. How the module is called is read from its exports: the module decides it."""

    module: str
    """Its wasm_cid."""
    env_vars: Mapping[str, str]
    """What the guest sees: those of the function with those of the job."""
    memory_limit_mb: int
    timeout_seconds: float
    name: str
    """The function's: its first argument."""
    executor: str
    """The engine with its version, and those of its settings that a result may depend on."""
    abi: int

    @classmethod
    def of(cls, function: Function, env_vars: Mapping[str, str], executor: str) -> Recipe:
        """That of a function with these variables on that executor."""
        return cls(
            module=function.wasm_cid,
            env_vars=env_vars,
            memory_limit_mb=function.memory_limit_mb,
            timeout_seconds=function.timeout_seconds,
            name=function.name,
            executor=executor,
            abi=ABI_VERSION,
        )

    def digest(self) -> bytes:
        """32 bytes: the same for equal recipes, and for no others."""
        facts = (
            self.module,
            sorted(self.env_vars.items()),
            self.memory_limit_mb,
            float(self.timeout_seconds),
            self.name,
            self.executor,
            self.abi,
        )
        # JSON: where one text ends and the next begins can be taken in one way only.
        return hashlib.sha256(json.dumps(facts).encode()).digest()

    def parts(self, input: bytes) -> dict[str, str]:
        """What is kept with a run, by PARTS: as text where it is short, or else a piece of its digest."""
        return {
            "module": self.module[-SHOWN_DIGITS:],
            "input": hashlib.sha256(input).hexdigest()[:SHOWN_DIGITS],
            "env_vars": hashlib.sha256(json.dumps(sorted(self.env_vars.items())).encode()).hexdigest()[:SHOWN_DIGITS],
            "limits": f"{self.memory_limit_mb} MiB, {self.timeout_seconds:g} s",
            "name": self.name,
            "executor": self.executor,
            "abi": str(self.abi),
        }


def keys(recipe: bytes, inputs: Iterable[bytes]) -> list[bytes]:
    """The keys, of 32 bytes, under which the results for these inputs are kept. `recipe` is the digest of
    one: of two digests, each as long as any other, no pair runs together into the bytes of another pair."""
    sha256 = hashlib.sha256
    return [sha256(recipe + sha256(input).digest()).digest() for input in inputs]
