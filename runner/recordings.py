"""What is kept of an attempt so that it can be replayed: its facts, a file's input, what the world told it.

Values of secrets are never a part of it. How a replay uses it is in runner.replay.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime, timezone

from runner.errors import InvocationError
from runner.models import Function, InvocationContext, InvocationResult
from runner.wasm import content_id
from runner.workers.recording import masked

FORMAT = 1
NOT_KEPT = "nothing of what the world told it was recorded: it gets its input again, and else the world as it is now"
"""What an attempt without a recording lacks."""
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """The facts of an attempt."""

    namespace: str
    function: str
    version: int
    wasm_cid: str
    executor: str
    """What the function asks for; which engine ran it is in `calls`."""
    memory_limit_mb: int
    timeout_seconds: float
    pure: bool
    secrets: tuple[str, ...]
    """The names of those that it might ask for."""
    request_id: str
    """Empty for a pure function, which cannot ask for it: what is kept of it is the same in every run."""
    caller_wallet: str | None
    env_vars: Mapping[str, str]
    """As the guest saw them."""
    input_cid: str | None = None
    """Of an input that is not the run's payload."""
    input_text: str | None = None
    """That input, if it is short enough: bytes as latin-1."""
    output_cid: str | None = None
    """Of an output that went into a file."""
    calls: str | None = None
    """What the world told the guest; None if that was not recorded."""

    def encode(self) -> bytes:
        """What `parse` reads."""
        facts = {"format": FORMAT, **{name: getattr(self, name) for name in _NAMES}}
        return json.dumps(facts, separators=(",", ":")).encode()

    @classmethod
    def parse(cls, data: bytes) -> Kept:
        """Raises ValueError for anything but what `encode` gives."""
        try:
            facts = json.loads(data)
            if facts.pop("format") != FORMAT:
                raise ValueError("of another format, by a newer runner")
            kept = cls(**facts)
            if any(not _fits(kept, name, kinds) for name, kinds in _KINDS.items()):
                raise TypeError("a fact of another type")
            if not all(isinstance(text, str) for pair in kept.env_vars.items() for text in pair):
                raise TypeError("env_vars that are no text")
            data.decode().encode()
            return replace(kept, secrets=tuple(str(name) for name in kept.secrets))
        except _UNREADABLE as why:
            raise ValueError(f"{type(why).__name__}: {str(why)[:200]}") from None

    @property
    def input(self) -> bytes | None:
        """The input that was kept, if one was."""
        return None if self.input_text is None else self.input_text.encode("latin-1")

    def as_function(self) -> Function:
        """The function as it was then."""
        return Function(
            id=f"{self.namespace}/{self.function}@{self.version}",
            name=self.function,
            namespace=self.namespace,
            version=self.version,
            wasm_cid=self.wasm_cid,
            executor=self.executor,
            memory_limit_mb=self.memory_limit_mb,
            timeout_seconds=self.timeout_seconds,
            pure=self.pure,
            secrets=self.secrets,
            created_at=_EPOCH,
            updated_at=_EPOCH,
        )


_NAMES = [field.name for field in fields(Kept)]
_TEXT, _MAYBE = (str,), (str, type(None))
_KINDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("namespace", "function", "wasm_cid", "executor", "request_id"), _TEXT),
    **dict.fromkeys(("caller_wallet", "input_cid", "input_text", "output_cid", "calls"), _MAYBE),
    **dict.fromkeys(("version", "memory_limit_mb"), (int,)),
    "timeout_seconds": (int, float),
    "pure": (bool,),
    "secrets": (list,),
    "env_vars": (dict,),
}


def _fits(kept: Kept, name: str, kinds: tuple[type, ...]) -> bool:
    value = getattr(kept, name)
    return type(value) in kinds and not (isinstance(value, int | float) and not 0 <= value < 1 << 31)


def facts_of(function: Function, context: InvocationContext) -> Kept:
    """The facts that hold for every result of an invocation."""
    return Kept(
        namespace=function.namespace,
        function=function.name,
        version=function.version,
        wasm_cid=function.wasm_cid,
        executor=function.executor,
        memory_limit_mb=function.memory_limit_mb,
        timeout_seconds=function.timeout_seconds,
        pure=function.pure,
        secrets=function.secrets,
        request_id="" if function.pure else context.request_id,
        caller_wallet=context.caller_wallet,
        env_vars={name: _masked(value, context.secrets) for name, value in context.env_vars.items()},
    )


def with_kept(
    result: InvocationResult,
    function: Function,
    context: InvocationContext,
    *,
    file_input: bytes | None = None,
    keeps_output: bool = True,
) -> InvocationResult:
    """The result with what is to be kept of its attempt as its recording, None for nothing.

    `file_input` is what it read if that was not its payload. `keeps_output` tells whether the store keeps
    what it wrote.
    """
    record, error = context.record, result.error
    ran = error is None or isinstance(error, InvocationError)
    if record is None or not ran or (error is None and not record.keep_all):
        return result._replace(recording=None)
    kept = facts_of(function, context)
    if result.recording is not None:
        kept = replace(kept, calls=result.recording.decode())
    if file_input is not None:
        is_short = len(file_input) <= record.limit_bytes and masked(file_input, context.secrets) == file_input
        text = file_input.decode("latin-1") if is_short else None
        kept = replace(kept, input_cid=content_id(file_input), input_text=text)
    if result.output is not None and not keeps_output:
        kept = replace(kept, output_cid=content_id(result.output))
    return result._replace(recording=kept.encode())


def _masked(text: str, secrets: Mapping[str, str]) -> str:
    return masked(text.encode("utf-8", "surrogateescape"), secrets).decode("utf-8", "surrogateescape")
