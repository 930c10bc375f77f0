"""Guests that ask the world: clocks, chance, waiting and their host. What tests of replaying share."""

from __future__ import annotations

from typing import Final

from runner.testing import guests

_WASI: Final = "wasi_snapshot_preview1"
_IMPORTS: Final = f"""(import "{_WASI}" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import "{_WASI}" "clock_res_get" (func $resolution (param i32 i32) (result i32)))
  (import "{_WASI}" "random_get" (func $random (param i32 i32) (result i32)))
  (import "{_WASI}" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))"""
_ASK: Final = """(drop (call $read (i32.const 2048) (i32.const 16)))
  (drop (call $clock (i32.const 0) (i64.const 1) (i32.const 1024)))
  (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 1032)))
  (drop (call $clock (i32.const 2) (i64.const 1) (i32.const 1040)))
  (drop (call $resolution (i32.const 1) (i32.const 1048)))
  (drop (call $random (i32.const 1056) (i32.const 40)))"""
_SLEEP: Final = """(if (i64.ne (i64.load (i32.const 2056)) (i64.const 0)) (then
    (i32.store (i32.const 4112) (i32.const 1)) (i64.store (i32.const 4120) (i64.load (i32.const 2056)))
    (if (call $poll (i32.const 4096) (i32.const 4200) (i32.const 1) (i32.const 4300)) (then unreachable))
    (if (i32.ne (i32.load (i32.const 4300)) (i32.const 1)) (then unreachable))))"""
_TELL: Final = """(call $write (i32.const 1) (i32.const 1024) (i32.const 72))
  (call $write (i32.const 2) (i32.const 1024) (i32.const 72))
  (if (i32.load8_u (i32.const 2048)) (then (call $exit (i32.load8_u (i32.const 2048)))))"""

ASKS: Final = guests.command(_ASK + _SLEEP + _TELL, imports=_IMPORTS)
"""Asks every clock and for random bytes, sleeps, writes all that it learned to stdout and stderr: the real
time, the monotonic one, CPU time, a resolution, 40 random bytes; and exits. See `asks`."""

ASKS_MORE: Final = guests.command(
    _ASK + "(drop (call $random (i32.const 1056) (i32.const 41)))" + _SLEEP + _TELL, imports=_IMPORTS
)
"""Its next version: asks for random bytes once more."""

SAYS: Final = guests.command(
    "(i32.store (i32.const 1024) (i32.const 0x6f6c6c65))"
    "(drop (call $read (i32.const 2048) (i32.const 16)))"
    "(call $write (i32.const 1) (i32.const 1024) (i32.const 4))"
)
"""Another version, which asks nothing and ends well."""


def asks(code: int = 0, *, sleep_seconds: float = 0) -> bytes:
    """The input of ASKS: its exit code, and how long it sleeps first."""
    return code.to_bytes(8, "little") + round(sleep_seconds * 1e9).to_bytes(8, "little")
