"""The conformance suite of `runner`, with a script in the place of each of its WebAssembly guests.

A guest that only WebAssembly can be, with tables and an instance's memory, has no script: its tests
are skipped.
"""

from __future__ import annotations

from typing import ClassVar

import pytest
from runner_command.executor import CommandExecutor
from runner_command.settings import CommandSettings

from runner.contracts import Host
from runner.errors import InvalidModule
from runner.testing import ExecutorContract, guests
from runner.wasm import entry_point, inspect

MOODY = r"""
input=$(cat)
case $input in
  [0-9]) kill -ABRT $$ ;;
  L) while :; do :; done ;;
  X) printf 'bye\n\377' >&2; exit 3 ;;
  Z) printf 'bye\n'; exit 0 ;;
  F) exec yes ;;
  E) head -c 67108864 /dev/zero | tr '\0' x >&2 ;;
  *) printf %s "$input" ;;
esac
"""
UPPER = "LC_ALL=C exec tr a-z A-Z"
SCRIPTS = {
    guests.compiled(guest): f"#!/bin/sh\n{script}\n".encode()
    for guest, script in {
        guests.ECHO: "exec cat",
        guests.UPPER: UPPER,
        guests.UPPER_REACTOR: UPPER,
        guests.IGNORES_INPUT: "printf ok",
        guests.MOODY: MOODY,
    }.items()
}
BY_SIGNAL = pytest.mark.skip(reason="a command does not trap: it is ended by a signal, and has no frames to show")


class ScriptExecutor(CommandExecutor):
    """Runs the script that stands for a guest."""

    def precompile(self, wasm_cid: str, wasm: bytes, *, memory_limit_mb: int = 64) -> None:
        super().precompile(wasm_cid, SCRIPTS.get(wasm) or without_script(wasm), memory_limit_mb=memory_limit_mb)


def without_script(wasm: bytes) -> bytes:
    """The bytes, if they are no module and so refused by anyone."""
    try:
        entry_point(inspect(wasm))
    except InvalidModule:
        return wasm
    pytest.skip("no command can stand for this WebAssembly guest")


class TestCommandExecutor(ExecutorContract):
    output_limit_bytes: ClassVar[int] = 1 << 20
    log_limit_bytes: ClassVar[int] = 16 << 10

    @classmethod
    def make_executor(cls, host: Host) -> CommandExecutor:
        settings = CommandSettings(output_limit_mb=cls.output_limit_bytes >> 20, log_limit_kb=cls.log_limit_bytes >> 10)
        return ScriptExecutor(settings, host)

    @pytest.mark.skip(reason="a command that is refused memory ends as it likes")
    def test_a_reactor_whose_allocator_refuses_is_out_of_memory(self) -> None:  # type: ignore[override]
        pass

    @BY_SIGNAL
    def test_a_trap_is_told_by_its_name(self) -> None:  # type: ignore[override]
        pass

    @BY_SIGNAL
    def test_a_trap_names_the_functions_innermost_first(self) -> None:  # type: ignore[override]
        pass

    @BY_SIGNAL
    def test_the_frames_of_a_stack_overflow_are_bounded(self) -> None:  # type: ignore[override]
        pass
