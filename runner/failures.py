"""What is kept of a function that failed here and now, outside the queue: a repro file, the latest of each function."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from runner.errors import InvalidInput
from runner.files import make_state_folder, write_whole
from runner.models import Function, InvocationContext, InvocationResult
from runner.recordings import NOT_KEPT, Kept, with_kept
from runner.repro import Expected, Repro

FOLDER = "failed"
"""In the state folder."""


def keep(
    state_dir: Path,
    function: Function,
    input: bytes,
    context: InvocationContext,
    result: InvocationResult,
    *,
    wasm_of: Callable[[str], bytes],
) -> Path | None:
    """Keep a failed attempt in a file that `runner replay` reads; the file. None for nothing to keep: the
    guest never ran, recording is off, or the input has the value of a secret or more bytes than one may keep.
    Raises FileUnavailable, and StoreError for a module that cannot be read."""
    record, recording = context.record, with_kept(result, function, context).recording
    if record is None or recording is None or result.error is None or len(input) > record.limit_bytes:
        return None
    kept = Kept.parse(recording)
    logs = tuple((entry.level.value, entry.message) for entry in result.logs)
    failed = Expected(
        error_class=result.error.error_class, message=str(result.error), logs=logs, logs_are_whole=True, output=None
    )
    repro = Repro(
        name=f"{function.name}@{function.version}, request {context.request_id}",
        kept=kept,
        wasm=wasm_of(function.wasm_cid),
        input=input,
        expected=failed,
        lacks="" if kept.pure or kept.calls is not None else NOT_KEPT,
    )
    try:
        data = repro.without_secrets(context.secrets).pack()
    except InvalidInput:
        return None
    make_state_folder(state_dir)
    path = state_dir / FOLDER / f"{function.name}.repro"
    write_whole(path, data)
    return path


def shown(path: Path) -> str:
    """A file as a shell takes it, relative to where the user is if it is below."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
