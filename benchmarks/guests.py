"""The guest of the benchmarks: upper-cases its input, as a WASI command and as a reactor. And one that never ends."""

from __future__ import annotations

from wasmtime import wat2wasm

INPUT = b"the quick brown fox jumps over the lazy dog; " * 4 + b"and the dog sleeps on"
"""200 bytes."""
OUTPUT = INPUT.upper()

_UPPER = """
  (func $upper (param $at i32) (param $end i32) (local $c i32)
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
      (local.set $c (i32.load8_u (local.get $at)))
      (if (i32.lt_u (i32.sub (local.get $c) (i32.const 97)) (i32.const 26))
        (then (i32.store8 (local.get $at) (i32.sub (local.get $c) (i32.const 32)))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next))))
"""

COMMAND = bytes(
    wat2wasm(f"""(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  {_UPPER}
  (func (export "_start")
    (block $end (loop $more
      (i32.store (i32.const 0) (i32.const 1024))
      (i32.store (i32.const 4) (i32.const 65536))
      (br_if $end (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br_if $end (i32.eqz (i32.load (i32.const 8))))
      (call $upper (i32.const 1024) (i32.add (i32.const 1024) (i32.load (i32.const 8))))
      (i32.store (i32.const 4) (i32.load (i32.const 8)))
      (br_if $end (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br $more)))))""")
)
REACTOR = bytes(
    wat2wasm(f"""(module
  (memory (export "memory") 2)
  {_UPPER}
  (func (export "malloc") (param i32) (result i32) (i32.const 1024))
  (func (export "handle") (param $at i32) (param $size i32) (result i64)
    (call $upper (local.get $at) (i32.add (local.get $at) (local.get $size)))
    (i64.or (i64.extend_i32_u (local.get $at)) (i64.shl (i64.extend_i32_u (local.get $size)) (i64.const 32)))))""")
)
SPIN = bytes(wat2wasm('(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))'))
