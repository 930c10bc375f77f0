"""A C program over a real libc: what programs make of our WASI layer, not what we make of the text."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from runner_builders.zig import C_FLAGS, TARGET
from runner_wasmer import llvm

from runner.errors import Exited, OutOfMemory, Trapped
from runner.wasm import cap, inspect
from runner.workers.compiler import compile_module
from runner.workers.engine import Abi, Call, Loaded, LogBuffer
from runner.workers.launch import EngineSpec

if sys.version_info[:2] != (3, 10):
    pytest.skip("wasmer has wheels for CPython 3.10 only", allow_module_level=True)

from runner_wasmer import engine as engine_module

LIMIT_MB = 32
SOURCE = r"""
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static int table(void) {
  struct stat facts;
  char byte;
  errno = 0; printf("lseek %d %d\n", (int)lseek(1, 0, SEEK_SET), errno == ESPIPE);
  errno = 0; printf("open %d %d\n", open("/etc/passwd", O_RDONLY) < 0, errno != 0);
  errno = 0; printf("read %d %d\n", (int)read(9, &byte, 1), errno == EBADF);
  printf("isatty %d %d\n", isatty(0), isatty(1));
  printf("fstat %d\n", fstat(1, &facts));
  printf("fcntl %d\n", fcntl(0, F_GETFL) == O_RDONLY);
  return 0;
}

static int clocks(void) {
  struct timespec first, last, nap = {0, 20000000};
  clock_gettime(CLOCK_MONOTONIC, &first);
  if (nanosleep(&nap, 0)) return 9;
  clock_gettime(CLOCK_MONOTONIC, &last);
  long waited = (last.tv_sec - first.tv_sec) * 1000 + (last.tv_nsec - first.tv_nsec) / 1000000;
  struct pollfd in = {0, POLLIN, 0};
  printf("%ld %d %d %ld\n", (long)time(0), waited >= 20, poll(&in, 1, -1) == 1 && in.revents == POLLIN,
         (long)(clock() < CLOCKS_PER_SEC));
  return 0;
}

static int vectors(void) {
  char a[3], b[5];
  struct iovec in[2] = {{a, 3}, {b, 5}};
  long n = readv(0, in, 2);
  struct iovec out[3] = {{b, n - 3}, {"|", 1}, {a, 3}};
  return writev(1, out, 3) == n + 1 ? 0 : 1;
}

static char *volatile last; /* or the optimizer leaves the allocations out */

static int hog(void) {
  for (;;) {
    char *block = malloc(1 << 16);
    if (!block) { fprintf(stderr, "no memory\n"); return 1; }
    memset(block, 1, 1 << 16);
    last = block;
  }
}

int main(int argc, char **argv) {
  char what[32] = "", line[4096];
  const char *mode = getenv("MODE");
  strncpy(what, mode ? mode : "", 31);
  if (!strcmp(what, "table")) return table();
  if (!strcmp(what, "clocks")) return clocks();
  if (!strcmp(what, "vectors")) return vectors();
  if (!strcmp(what, "hog")) return hog();
  if (!strcmp(what, "abort")) { fprintf(stderr, "about to abort\n"); abort(); }
  if (!strcmp(what, "exit")) { printf("flushed"); exit(7); }
  if (!strcmp(what, "random")) {
    unsigned char bytes[16];
    if (getentropy(bytes, 16)) return 1;
    for (int i = 0; i < 16; i++) printf("%02x", bytes[i]);
    return 0;
  }
  printf("%d %s %s\n", argc, argv[0], mode);
  long lines = 0, sum = 0;
  while (fgets(line, sizeof line, stdin)) { lines++; sum += atol(line); }
  fprintf(stderr, "read %ld lines\n", lines);
  printf("%ld %.3f\n", sum, (double)sum / lines);
  return 0;
}
"""

Run = Callable[..., bytes]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """SOURCE, built with the flags of our builder and compiled by our compile process."""
    folder = tmp_path_factory.mktemp("libc")
    source = folder / "program.c"
    source.write_text(SOURCE)
    command = [sys.executable, "-m", "ziglang", "cc", *TARGET, *C_FLAGS, source.name, "-o", "program.wasm"]
    subprocess.run(command, cwd=folder, check=True, timeout=300)
    wasm = (folder / "program.wasm").read_bytes()
    capped = cap(wasm, inspect(wasm), memory_limit_mb=LIMIT_MB)
    spec = EngineSpec(
        name="wasmer",
        module="runner_wasmer.engine",
        version="test",
        package_dir=Path(llvm.__file__).parent.parent,
        compile_environment=llvm.environment(llvm.library_folder(folder), {}),
    )
    artifact = compile_module(spec, capped, timeout_seconds=60)
    return engine_module.engine().load(artifact, Abi.COMMAND)


@pytest.fixture
def logs() -> LogBuffer:
    return LogBuffer(1 << 16)


@pytest.fixture
def run(program: Loaded, logs: LogBuffer) -> Run:
    """Invoke the program in a mode; its output."""

    def invoke(mode: str, stdin: bytes = b"") -> bytes:
        call = Call(
            name="prog",
            env_vars={"FIRST": "1", "MODE": mode},
            secrets={},
            request_id="r",
            caller_wallet=None,
            timeout_seconds=5,
            memory_limit_mb=LIMIT_MB,
            output_limit_bytes=1 << 20,
            logs=logs,
        )
        return program.invoke(stdin, call)[0]

    return invoke


def test_arguments_environment_streams_and_printf(run: Run, logs: LogBuffer) -> None:
    stdin = b"".join(b"%d\n" % number for number in range(20_000))
    assert run("sum up", stdin) == b"1 prog sum up\n199990000 9999.500\n"
    assert [entry.message for entry in logs.take()] == ["read 20000 lines"]


def test_what_libc_says_of_the_streams(run: Run) -> None:
    assert run("table").decode().splitlines() == [
        "lseek -1 1",
        "open 1 1",
        "read -1 1",
        "isatty 0 0",
        "fstat 0",
        "fcntl 1",
    ]


def test_clocks_sleeping_and_poll(run: Run) -> None:
    now, slept, ready, cpu = run("clocks", b"x").split()
    assert abs(int(now) - time.time()) < 5
    assert (slept, ready, cpu) == (b"1", b"1", b"1")


def test_scattered_reads_and_gathered_writes(run: Run) -> None:
    assert run("vectors", b"abcdefgh") == b"defgh|abc"


def test_random_bytes_differ_between_invocations(run: Run) -> None:
    values = {run("random") for _ in range(20)}
    assert len(values) == 20
    assert {len(value) for value in values} == {32}


def test_an_exit_code_is_told_after_the_streams_were_flushed(run: Run) -> None:
    with pytest.raises(Exited) as caught:
        run("exit")
    assert caught.value.code == 7


def test_abort_is_a_trap_with_the_end_of_stderr(run: Run) -> None:
    with pytest.raises(Trapped) as caught:
        run("abort")
    assert caught.value.trap == "unreachable"
    assert "abort" in caught.value.functions
    assert caught.value.stderr_tail == "about to abort\n"


def test_running_out_of_memory(run: Run) -> None:
    with pytest.raises(OutOfMemory) as caught:
        run("hog")
    assert caught.value.stderr_tail == "no memory\n"
    assert run("sum up", b"4\n") == b"1 prog sum up\n4 4.000\n"
