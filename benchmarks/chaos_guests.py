"""The project that benchmarks/chaos.py kills: its jobs.yaml and functions."""

from __future__ import annotations

import sys
from pathlib import Path

from wasmtime import wat2wasm

from benchmarks.guests import COMMAND

EXECUTOR = "wasmer" if sys.version_info[:2] == (3, 10) else "wasmtime"
TRACE_JOB, TRACE_DELAY = "trace", "365d"
TRIGGER = "chaos/slot/cron/* * * * * * UTC"

TRACED = bytes(
    wat2wasm(f"""(module
  (import "env" "get_request_id" (func $id (result i64)))
  (import "env" "schedule_once" (func $schedule (param i32 i32 i32 i32 i32 i32) (result i64)))
  (memory (export "memory") 2)
  (data (i32.const 0) "{TRACE_JOB}{TRACE_DELAY}")
  (global $next (mut i32) (i32.const 4096))
  (func (export "malloc") (param $size i32) (result i32)
    (global.get $next)
    (global.set $next (i32.add (global.get $next) (i32.add (local.get $size) (i32.const 16)))))
  (func $spin (param $loops i32) (local $x i32)
    (local.set $x (i32.const 1))
    (loop $more
      (local.set $x (i32.xor (local.get $x) (i32.shl (local.get $x) (i32.const 13))))
      (local.set $x (i32.xor (local.get $x) (i32.shr_u (local.get $x) (i32.const 17))))
      (local.set $loops (i32.sub (local.get $loops) (i32.const 1)))
      (br_if $more (i32.gt_s (local.get $loops) (i32.const 0))))
    (i32.store (i32.const 2048) (local.get $x)))
  (func (export "handle") (param $at i32) (param $size i32) (result i64) (local $mine i64)
    (local.set $mine (call $id))
    (drop (call $schedule
      (i32.const 0) (i32.const {len(TRACE_JOB)}) (i32.const {len(TRACE_JOB)}) (i32.const {len(TRACE_DELAY)})
      (i32.wrap_i64 (i64.shr_u (local.get $mine) (i64.const 32))) (i32.wrap_i64 (local.get $mine))))
    (call $spin (i32.load (local.get $at)))
    (i64.rotl (local.get $mine) (i64.const 32))))""")
)
"""Leaves a trace with its request id, spins as often as the first four bytes of its input say, and answers
its request id."""
BAD = bytes(wat2wasm('(module (memory (export "memory") 1) (func (export "_start") unreachable))'))

JOBS = f"""version: 1
namespace: chaos
defaults: {{executor: {EXECUTOR}, retry_delay_seconds: 0.2}}
functions:
  plain: {{wasm: plain.wasm}}
  bad: {{wasm: bad.wasm, retry_count: 1, dlq_topic: chaos.dead}}
  traced: {{wasm: traced.wasm, allow: {{enqueue: [{TRACE_JOB}]}}}}
jobs:
  plain: {{run: plain}}
  bad: {{run: bad}}
  traced: {{run: traced}}
  {TRACE_JOB}: {{run: plain}}
  slot: {{run: plain, triggers: [{{cron: {{schedule: "* * * * * *", catchup: all}}}}]}}
"""


def write_project(folder: Path) -> None:
    """Write it all into an empty folder."""
    for name, module in {"plain": COMMAND, "bad": BAD, "traced": TRACED}.items():
        (folder / f"{name}.wasm").write_bytes(module)
    (folder / "jobs.yaml").write_text(JOBS)
