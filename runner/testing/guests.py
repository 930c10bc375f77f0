"""WebAssembly guests of the executor suite: small modules in text form, each made to do one thing.

`compiled` makes their bytes with the text compiler of `wasmtime`, which runner depends on; the engine
in that package is not used.
"""

from __future__ import annotations

from functools import cache
from typing import Final

_WASI: Final = "wasi_snapshot_preview1"
_READ: Final = f'(import "{_WASI}" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))'
_WRITE: Final = f'(import "{_WASI}" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))'
_EXIT: Final = f'(import "{_WASI}" "proc_exit" (func $exit (param i32)))'

# Addresses 0 to 15 hold one iovec and its result; $read and $write return the bytes that passed.
_STREAMS: Final = """
  (func $read (param $to i32) (param $size i32) (result i32)
    (i32.store (i32.const 0) (local.get $to)) (i32.store (i32.const 4) (local.get $size))
    (if (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))
    (i32.load (i32.const 8)))
  (func $write (param $fd i32) (param $from i32) (param $size i32)
    (i32.store (i32.const 0) (local.get $from)) (i32.store (i32.const 4) (local.get $size))
    (if (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))
    (if (i32.ne (i32.load (i32.const 8)) (local.get $size)) (then unreachable)))
"""
_UPPER: Final = """
  (func $upper (param $at i32) (param $end i32)
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
      (if (i32.lt_u (i32.sub (i32.load8_u (local.get $at)) (i32.const 97)) (i32.const 26))
        (then (i32.store8 (local.get $at) (i32.sub (i32.load8_u (local.get $at)) (i32.const 32)))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next))))
"""
_BUMP_ALLOCATOR: Final = """
  (global $free (mut i32) (i32.const 8192))
  (func (export "malloc") (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $free))
    (global.set $free (i32.add (local.get $at) (local.get $size)))
    (if (i32.gt_u (global.get $free) (i32.shl (memory.size) (i32.const 16)))
      (then (if (i32.eq (i32.const -1) (memory.grow (i32.add (i32.shr_u (local.get $size) (i32.const 16))
                                                             (i32.const 1))))
        (then (return (i32.const 0))))))
    (local.get $at))
"""


@cache
def compiled(wat: str) -> bytes:
    """The module of this WebAssembly text."""
    from wasmtime import wat2wasm

    return bytes(wat2wasm(wat))


def command(body: str, *parts: str, imports: str = "", memory: str = "2") -> str:
    """A WASI command: `body` is that of `_start`, `$main` in traces; `parts` come after the imports.

    It may use `$read(to, size)`, `$write(fd, from, size)` and `$exit(code)`; the memory from 16 on is
    its own.
    """
    start = f'(func $main (export "_start") {body})'
    memory = f'(memory (export "memory") {memory})'
    return f"(module {_READ} {_WRITE} {_EXIT} {imports} {memory} {_STREAMS} {' '.join(parts)} {start})"


def reactor(body: str, *parts: str, imports: str = "", memory: str = "2") -> str:
    """A reactor: `body` is that of `handle`, with `$ptr` and `$len`; `malloc` never gives back."""
    handle = f'(func $main (export "handle") (param $ptr i32) (param $len i32) (result i64) {body})'
    memory = f'(memory (export "memory") {memory})'
    return f"(module {imports} {memory} {_BUMP_ALLOCATOR} {' '.join(parts)} {handle})"


_PACKED: Final = (
    "(i64.or (i64.extend_i32_u (local.get $ptr)) (i64.shl (i64.extend_i32_u (local.get $len)) (i64.const 32)))"
)
_COPY_LOOP: Final = """
  (local $size i32)
  (block $done (loop $next
    (local.set $size (call $read (i32.const 1024) (i32.const 65536)))
    (br_if $done (i32.eqz (local.get $size)))
    %s
    (call $write (i32.const 1) (i32.const 1024) (local.get $size))
    (br $next)))
"""

ECHO: Final = command(_COPY_LOOP % "")
"""Writes its input, in pieces of at most 64 KiB."""

UPPER: Final = command(
    _COPY_LOOP % "(call $upper (i32.const 1024) (i32.add (i32.const 1024) (local.get $size)))", _UPPER
)
"""Writes its input with the letters a to z in upper case."""

UPPER_REACTOR: Final = reactor(
    f"(call $upper (local.get $ptr) (i32.add (local.get $ptr) (local.get $len))) {_PACKED}", _UPPER
)
"""The same as a reactor."""

IGNORES_INPUT: Final = command("(call $write (i32.const 1) (i32.const 16) (i32.const 2))", '(data (i32.const 16) "ok")')
"""Writes `ok`."""

STATE: Final = command(
    """
    (global.set $count (i32.add (global.get $count) (i32.const 1)))
    (i32.store8 (i32.const 16) (global.get $count))
    (i32.store8 (i32.const 17) (i32.add (i32.load8_u (i32.const 17)) (i32.const 1)))
    (i32.store8 (i32.const 18) (memory.grow (i32.const 1)))
    (call $write (i32.const 1) (i32.const 16) (i32.const 3))""",
    "(global $count (mut i32) (i32.const 0))",
)
"""Counts in a global and in its memory, grows its memory by a page, and writes both counts and how many
pages there were as bytes: 1, 1 and 2 in a fresh instance."""

TABLE_STATE: Final = command(
    """
    (i32.store8 (i32.const 16) (ref.is_null (table.get 0 (i32.const 0))))
    (i32.store8 (i32.const 17) (table.grow 0 (ref.null func) (i32.const 1)))
    (table.set 0 (i32.const 0) (ref.func $main))
    (call $write (i32.const 1) (i32.const 16) (i32.const 2))""",
    "(table 1 funcref) (elem declare func $main)",
)
"""Writes whether the table's element is null and how many elements there were as bytes, 1 and 1 in a
fresh instance, and changes both."""

_COUNTED: Final = "(call $write (i32.const 1) (i32.const 16) (i32.const 4))"
_GROW: Final = "(loop $more (br_if $more (i32.ne (i32.const -1) (memory.grow (i32.const 1)))))"

GROW: Final = command(f"{_GROW} (i32.store (i32.const 16) (memory.size)) {_COUNTED}", memory="1")
"""Grows its memory by single pages until it is refused, and writes its size as a little-endian u32."""

GROW_AND_ABORT: Final = command(f"{_GROW} unreachable", memory="1")
"""Grows its memory until it is refused, and traps as a C program's `abort`."""

GROW_AND_EXIT: Final = command(f"{_GROW} (call $exit (i32.const 1))", memory="1")
"""Grows its memory until it is refused, and exits with 1."""

GROW_TABLE: Final = command(
    f"""(loop $more (br_if $more (i32.ne (i32.const -1) (table.grow 0 (ref.null func) (i32.const 1000)))))
    (i32.store (i32.const 16) (table.size 0)) {_COUNTED}""",
    "(table 1 funcref)",
)
"""Grows its table by 1,000 elements at a time until it is refused, and writes its size as a u32."""

_TRAPS: Final = {
    "unreachable": "(call $middle)",
    "integer_divide_by_zero": "(drop (i32.div_s (i32.const 1) (global.get $zero)))",
    "integer_overflow": "(drop (i32.div_s (i32.const 0x80000000) (i32.sub (global.get $zero) (i32.const 1))))",
    "bad_conversion": "(drop (i32.trunc_f32_s (f32.div (f32.const 0) (f32.convert_i32_s (global.get $zero)))))",
    "out_of_bounds_memory": "(i32.store (i32.const 0x7fffffff) (i32.const 1))",
    "out_of_bounds_table": "(call_indirect (type $nothing) (i32.const 9))",
    "indirect_call_to_null": "(call_indirect (type $nothing) (i32.const 0))",
    "indirect_call_type_mismatch": "(call_indirect (type $number) (i32.const 1)) drop",
    "stack_overflow": "(drop (call $deep (i32.const 1)))",
}
TRAPS: Final = tuple(_TRAPS)
"""The kinds of traps that MOODY knows, as `Trapped.trap` names them."""

_FLOOD: Final = "(call $write (i32.const %d) (i32.const 1024) (i32.const 65536))"
_MOODS: Final = {
    **{chr(ord("0") + number): body for number, body in enumerate(_TRAPS.values())},
    "L": "(loop $for_ever (br $for_ever))",
    "X": "(call $write (i32.const 2) (i32.const 16) (i32.const 5)) (call $exit (i32.const 3))",
    "Z": "(call $write (i32.const 1) (i32.const 16) (i32.const 4)) (call $exit (i32.const 0))",
    "F": f"(loop $for_ever {_FLOOD % 1} (br $for_ever))",
    "E": f"""(loop $more {_FLOOD % 2}
              (local.set $times (i32.add (local.get $times) (i32.const 1)))
              (br_if $more (i32.lt_u (local.get $times) (i32.const 1024))))""",
}
_MOOD_CASES: Final = "".join(
    f"(if (i32.eq (i32.load8_u (i32.const 1024)) (i32.const {ord(letter)})) (then {body} (return)))"
    for letter, body in _MOODS.items()
)

MOODY: Final = command(
    f"""(local $size i32) (local $times i32)
    (local.set $size (call $read (i32.const 1024) (i32.const 65536)))
    (if (i32.eq (local.get $size) (i32.const 1)) (then {_MOOD_CASES}))
    (call $write (i32.const 1) (i32.const 1024) (local.get $size))""",
    """(type $nothing (func)) (type $number (func (result i32)))
    (table 2 funcref) (elem (i32.const 1) func $inner) (global $zero (mut i32) (i32.const 0))
    (func $inner unreachable) (func $middle (call $inner))
    (func $deep (param i32) (result i32) (i32.add (call $deep (i32.add (local.get 0) (i32.const 1))) (local.get 0)))
    (data (i32.const 16) "bye\\n\\ff")""",
    memory="4",
)
"""Behaves as the one letter of its input says; echoes any other input (of at most 64 KiB).

The digit of a kind in TRAPS: traps so. L: loops for ever. X: writes `bye`, a line end and a byte that
is no UTF-8 on stderr and exits with 3. Z: writes `bye` and a line end and exits with 0. F: writes
output for ever. E: writes 64 MiB on stderr and ends well.
"""


def mood(trap: str) -> bytes:
    """The input that makes MOODY trap in this way."""
    return str(TRAPS.index(trap)).encode()


_ANSWERS: Final = (("get_env", 1), ("get_secret", 1), ("get_request_id", 0), ("get_caller_wallet", 0))
_LOGS: Final = ("log_info", "log_error")
HOST_FUNCTIONS: Final = (*(name for name, _ in _ANSWERS), *_LOGS)
"""The host functions that HOST calls."""


def _host(module: str) -> str:
    pair = "(local.get $ptr) (local.get $len)"
    imports = [
        f'(import "{module}" "{name}" (func ${name} (param {"i32 i32" * count}) (result i64)))'
        for name, count in _ANSWERS
    ] + [f'(import "{module}" "{name}" (func ${name} (param i32 i32)))' for name in _LOGS]
    bodies = [f"(local.set $answer (call ${name} {pair * count}))" for name, count in _ANSWERS]
    bodies += [f"(call ${name} {pair})" for name in _LOGS]
    cases = "".join(
        f"(if (i32.eq (local.get $case) (i32.const {ord('0') + number})) (then {body}))"
        for number, body in enumerate(bodies)
    )
    body = f"""(local $answer i64) (local $case i32)
    (local.set $case (i32.load8_u (local.get $ptr)))
    (local.set $ptr (i32.add (local.get $ptr) (i32.const 1)))
    (local.set $len (i32.sub (local.get $len) (i32.const 1)))
    {cases}
    (if (i64.eqz (local.get $answer)) (then (return (i64.const 0x400000010))))
    (i64.rotl (local.get $answer) (i64.const 32))"""
    return reactor(body, '(data (i32.const 16) "none")', imports=" ".join(imports))


HOST: Final = _host("env")
"""Calls the host function of the number (in HOST_FUNCTIONS) that its input begins with, with the rest
of the input as argument; returns the answer, or `none` where there is no value."""

HOST_MODULE: Final = _host("host")
"""The same over the import module `host`."""


def host_call(name: str, argument: bytes = b"") -> bytes:
    """The input that makes HOST call this function."""
    return str(HOST_FUNCTIONS.index(name)).encode() + argument


def _enqueues(module: str) -> str:
    pair = "(local.get $%s) (local.get $%s_len)"
    job, when, payload = (pair % (name, name) for name in ("job", "when", "payload"))
    imports = f"""(import "{module}" "enqueue_background" (func $enqueue (param i32 i32 i32 i32) (result i64)))
      (import "{module}" "schedule_once" (func $schedule (param i32 i32 i32 i32 i32 i32) (result i64)))"""
    body = f"""(local $job i32) (local $job_len i32) (local $when i32) (local $when_len i32)
    (local $payload i32) (local $payload_len i32) (local $answer i64)
    (local.set $job_len (i32.load8_u (local.get $ptr)))
    (local.set $when_len (i32.load8_u (i32.add (local.get $ptr) (i32.const 1))))
    (local.set $job (i32.add (local.get $ptr) (i32.const 2)))
    (local.set $when (i32.add (local.get $job) (local.get $job_len)))
    (local.set $payload (i32.add (local.get $when) (local.get $when_len)))
    (local.set $payload_len (i32.sub (i32.add (local.get $ptr) (local.get $len)) (local.get $payload)))
    (if (local.get $when_len)
      (then (local.set $answer (call $schedule {job} {when} {payload})))
      (else (local.set $answer (call $enqueue {job} {payload}))))
    (i64.rotl (local.get $answer) (i64.const 32))"""
    return reactor(body, imports=imports)


ENQUEUE: Final = _enqueues("env")
"""Enqueues or schedules what its input says (see `enqueue`) and returns the answer."""

ENQUEUE_MODULE: Final = _enqueues("host")
"""The same over the import module `host`."""


def enqueue(job: bytes, payload: bytes = b"", *, when: bytes = b"") -> bytes:
    """The input that makes ENQUEUE call enqueue_background, or schedule_once with `when`."""
    return bytes((len(job), len(when))) + job + when + payload


def _progresses(module: str) -> str:
    imports = f'(import "{module}" "report_progress" (func $report (param i32)))'
    body = f"""(local $at i32) (local $end i32)
    (local.set $at (local.get $ptr)) (local.set $end (i32.add (local.get $ptr) (local.get $len)))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
      (call $report (i32.load8_s (local.get $at)))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next)))
    {_PACKED}"""
    return reactor(body, imports=imports)


PROGRESS: Final = _progresses("env")
"""Reports each byte of its input, signed, as its progress, one after the other; returns its input."""

PROGRESS_MODULE: Final = _progresses("host")
"""The same over the import module `host`."""

TICKS: Final = command(
    """(local $left i32) (local $until i64)
    (drop (call $read (i32.const 1024) (i32.const 1)))
    (local.set $left (i32.load8_u (i32.const 1024)))
    (i32.store8 (i32.const 17) (i32.const 10))
    (loop $next
      (i32.store8 (i32.const 16) (i32.add (i32.const 64) (local.get $left)))
      (call $write (i32.const 2) (i32.const 16) (i32.const 2))
      (local.set $until (i64.add (call $now) (i64.const 30000000)))
      (loop $wait (br_if $wait (i64.lt_u (call $now) (local.get $until))))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $next (local.get $left)))""",
    """(func $now (result i64)
      (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 24))) (i64.load (i32.const 24)))""",
    imports=f'(import "{_WASI}" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))',
)
"""Writes as many lines on stderr as the byte of its input says, each a letter, 30 ms apart: from the one
at that place of the alphabet down to A."""


def _strings(kind: str) -> str:
    imports = "".join(
        f'(import "{_WASI}" "{kind}_{name}" (func ${name} (param i32 i32) (result i32)))'
        for name in ("sizes_get", "get")
    )
    body = """(func (export "_start")
      (drop (call $sizes_get (i32.const 16) (i32.const 20)))
      (drop (call $get (i32.const 32) (i32.const 4096)))
      (i32.store (i32.const 0) (i32.const 4096)) (i32.store (i32.const 4) (i32.load (i32.const 20)))
      (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))"""
    return f'(module {imports} {_WRITE} (memory (export "memory") 2) {body})'


ENVIRON: Final = _strings("environ")
"""Writes its environment as WASI gives it: `NAME=value` with a zero byte behind each."""

ARGUMENTS: Final = _strings("args")
"""Writes its arguments, with a zero byte behind each."""

INITIALIZED: Final = reactor(
    f"(i32.store8 (local.get $ptr) (global.get $ready)) {_PACKED}",
    """(global $ready (mut i32) (i32.const 110))
    (func (export "_initialize") (global.set $ready (i32.const 121)))""",
)
"""A reactor that returns its input with the first byte `y` if `_initialize` was called, `n` if not."""

LARGE_ANSWER: Final = reactor("(i64.const 0x1000000000000000)", memory="1")
"""A reactor whose `handle` returns a length of 256 MiB."""

OUTSIDE_ANSWER: Final = reactor("(i64.const 0x40fffffff0)", memory="1")
"""A reactor whose `handle` returns 64 bytes at the very end of the address space."""


def importing(module: str, name: str) -> str:
    """A command that imports a function `() -> ()`."""
    return f'(module (import "{module}" "{name}" (func)) (func (export "_start")))'
