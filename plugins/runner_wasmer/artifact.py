"""The artifact of a module: its native code, and what instrument.py found out for running it."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from runner_wasmer.instrument import Instrumented  # workers do without

FORMAT: Final = 2
"""Changes whenever the layout or the instrumentation does; a part of the artifact's key."""

_HEAD: Final = struct.Struct("<8sI")
_MAGIC: Final = b"runnerW%d" % FORMAT
_FACTS: Final = ("inserted", "memory", "globals", "data", "restorable", "shrinkable")


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """`code` is Wasmer's; the other fields are those of Instrumented."""

    code: bytes
    inserted: int | None
    memory: str | None
    globals: tuple[str, ...]
    data: tuple[tuple[int, int], ...]
    restorable: bool
    shrinkable: bool

    @classmethod
    def of(cls, module: Instrumented, code: bytes) -> Artifact:
        """The artifact of a module that was compiled to `code`."""
        return cls(
            code=code,
            inserted=module.inserted,
            memory=module.memory,
            globals=module.globals,
            data=module.data,
            restorable=module.restorable,
            shrinkable=module.shrinkable,
        )

    def pack(self) -> bytes:
        """The bytes that `unpack` reads."""
        facts = {name: getattr(self, name) for name in _FACTS}
        text = json.dumps(facts).encode()
        return _HEAD.pack(_MAGIC, len(text)) + text + self.code

    @classmethod
    def unpack(cls, data: bytes) -> Artifact:
        """Read what `pack` wrote. The caller has authenticated it; ValueError for another format."""
        if data[: len(_MAGIC)] != _MAGIC:
            raise ValueError("this is no artifact of this version of the Wasmer engine")
        size = _HEAD.unpack_from(data)[1]
        facts = json.loads(data[_HEAD.size : _HEAD.size + size])
        return cls(
            code=data[_HEAD.size + size :],
            inserted=facts["inserted"],
            memory=facts["memory"],
            globals=tuple(facts["globals"]),
            data=tuple((first, end) for first, end in facts["data"]),
            restorable=facts["restorable"],
            shrinkable=facts["shrinkable"],
        )
