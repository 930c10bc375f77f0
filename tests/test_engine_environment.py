"""`runner engines install wasmer`: an app on a newer Python runs LLVM code in workers on CPython 3.10."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import wasmtime

JOBS = """\
version: 1
namespace: newer
functions:
  hello: {wasm: hello.wasm, executor: wasmer}
"""
HELLO = """\
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 8) "hello from LLVM")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 8))
    (i32.store (i32.const 4) (i32.const 15))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 100)))))
"""


@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.version_info < (3, 11), reason="CPython 3.10 runs Wasmer in its own environment")
def test_an_app_on_a_newer_python_runs_llvm_code(tmp_path: Path) -> None:
    (tmp_path / "jobs.yaml").write_text(JOBS)
    (tmp_path / "hello.wasm").write_bytes(bytes(wasmtime.wat2wasm(HELLO)))
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path / "data")}

    def runner(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "runner", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)

    before = runner("invoke", "hello")
    assert before.returncode == 3
    assert "runner engines install wasmer" in before.stderr

    installed = runner("engines", "install", "wasmer")
    if "needs CPython 3.10, and none was found" in installed.stderr:
        pytest.skip("no CPython 3.10 on this machine, and none to be had")
    assert installed.returncode == 0, installed.stderr

    done = runner("invoke", "hello")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "hello from LLVM"
    assert list((tmp_path / ".runner" / "artifacts").glob("wasmer-*/*"))
    listed = runner("engines", "list")
    assert "wasmer" in listed.stdout


def test_an_environment_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    from runner_wasmer import environment

    from runner.errors import EngineUnavailable

    folder = tmp_path / "engine"
    with pytest.raises(EngineUnavailable, match="does not exist"):
        environment._run([str(folder / "bin" / "python"), "-c", "import wasmer"], "the interpreter does not exist")
    assert not folder.exists()
