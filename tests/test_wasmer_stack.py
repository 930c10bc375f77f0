"""The end of a guest's stack is told from a fault in its memory, without /proc."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from runner_wasmer import llvm

if sys.version_info[:2] != (3, 10):
    pytest.skip("wasmer has wheels for CPython 3.10 only", allow_module_level=True)

from wasmtime import wat2wasm

DEEP = """(module (memory 1 1) (func $deep (param i32)
    (if (local.get 0) (then (call $deep (i32.sub (local.get 0) (i32.const 1))))
      (else (drop (i32.load (i32.const 65536)))))
    (i32.store (i32.const 8) (local.get 0)))
  (func (export "_start") (call $deep (i32.const %s))))"""
GUESTS = {"endless": DEEP % -1, "shallow": DEEP % 0, "deep": DEEP % 3000}

# A process of its own: its stack stays limited. It prints what each guest ended with, what the stack
# said then and what it says when asked again.
SCRIPT = """
import json, sys, wasmer
from runner_wasmer.artifact import Artifact
from runner_wasmer.engine import engine
from runner_wasmer.stack import GuestStack
if sys.argv[1] == "compile":
    sys.stdout.buffer.write(engine().compile(sys.stdin.buffer.read()))
    sys.exit()
stack = GuestStack()
stack.limit()
told = []
for path in sys.argv[2:]:
    store = wasmer.Store(wasmer.engine.JIT())
    code = Artifact.unpack(open(path, "rb").read()).code
    instance = wasmer.Instance(wasmer.Module.deserialize(store, code))
    try:
        instance.exports._start()
    except RuntimeError as error:
        told.append([error.args[0].split("\\n")[0], len(error.args[0]), stack.overflowed(), stack.overflowed()])
print(json.dumps(told))
"""


def run(*arguments: str, folder: Path, stdin: bytes = b"") -> bytes:
    environment = llvm.environment(llvm.library_folder(folder))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-c", SCRIPT, *arguments]
    return subprocess.run(command, input=stdin, env=environment, check=True, capture_output=True, timeout=60).stdout


def test_an_overflow_is_seen_from_the_last_pages_of_the_stack(tmp_path: Path) -> None:
    order = ["deep", "endless", "shallow", "deep", "endless"]
    paths = {name: tmp_path / name for name in GUESTS}
    for name, text in GUESTS.items():
        paths[name].write_bytes(run("compile", folder=tmp_path, stdin=bytes(wat2wasm(text))))
    told = json.loads(run("run", *(str(paths[name]) for name in order), folder=tmp_path))
    for name, (message, size, overflowed, again) in zip(order, told, strict=True):
        assert overflowed == (name == "endless")
        assert not again
        # In this process Wasmer can read /proc, and tells the same.
        wanted = "call stack exhausted" if name == "endless" else "out of bounds memory access"
        assert message == f"RuntimeError: {wanted}"
        assert size < 4 << 20
