"""WASI preview 1 for one guest at a time: arguments, environment, clocks, random bytes, process.

Source: the witx document of wasi_snapshot_preview1. Streams are in streams.py, waiting is in
poll.py. There are no preopened directories: every path is refused.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from typing import Final

from runner.workers.engine import Call
from runner.workers.wasi import abi
from runner.workers.wasi.abi import BADF, FAULT, INVAL, NOTDIR, NOTSOCK, NOTSUP, SUCCESS, U32_MAX
from runner.workers.wasi.memory import PointerFault
from runner.workers.wasi.poll import poll
from runner.workers.wasi.streams import Streams
from runner.workers.world import REAL, World

_CHUNK_BYTES: Final = 1 << 16
"""How many random bytes are made at once: a guest may ask for its whole memory."""

_HOST_CLOCKS: Final = {
    abi.CLOCK_REALTIME: time.CLOCK_REALTIME,
    abi.CLOCK_MONOTONIC: time.CLOCK_MONOTONIC,
    abi.CLOCK_PROCESS_CPUTIME: time.CLOCK_PROCESS_CPUTIME_ID,
    abi.CLOCK_THREAD_CPUTIME: time.CLOCK_THREAD_CPUTIME_ID,
}


class ProcExit(Exception):
    """Ends the guest: it called proc_exit, or raised a signal that ends a process."""

    def __init__(self, code: int) -> None:
        self.code = code


class Wasi(Streams):
    """Every WASI function as a method of its import name, over the state of one invocation.

    Parameters are the i32 and i64 as engines pass them: signed. The methods raise PointerFault for
    a pointer outside the memory; `function` gives them as the guest is to see them.
    """

    __slots__ = ("_cpu_start", "counts_cpu_time", "world")

    def __init__(self) -> None:
        super().__init__()
        self.counts_cpu_time = False
        """Whether the guest can ask for CPU time, which must count from its own start."""
        self._cpu_start = 0
        self.world: World = REAL
        """Where clocks, chance and waiting come from."""

    def begin(self, call: Call, stdin: bytes) -> None:
        """Start an invocation afresh."""
        self.open_streams(call, stdin)
        self.world = call.world
        if self.counts_cpu_time:
            self._cpu_start = time.process_time_ns()

    def end(self) -> None:
        """Forget the invocation: its memory, its input, its output."""
        self.close_streams()
        self.detach()

    def function(self, name: str) -> Callable[..., int | None]:
        """The function that the guest calls for this import: no Python error for a bad pointer."""
        method: Callable[..., int | None] = getattr(self, name)

        @functools.wraps(method)
        def guarded(*parameters: int) -> int | None:
            try:
                return method(*parameters)
            except PointerFault:
                return FAULT

        return guarded

    def args_sizes_get(self, count: int, size: int) -> int:
        return self._put_sizes(self._arguments(), count, size)

    def args_get(self, pointers: int, buffer: int) -> int:
        return self._put_strings(self._arguments(), pointers, buffer)

    def environ_sizes_get(self, count: int, size: int) -> int:
        return self._put_sizes(self._environment(), count, size)

    def environ_get(self, pointers: int, buffer: int) -> int:
        return self._put_strings(self._environment(), pointers, buffer)

    def _arguments(self) -> list[bytes]:
        return [] if self.call is None else _c_strings([self.call.name])

    def _environment(self) -> list[bytes]:
        return [] if self.call is None else _c_strings(map("=".join, self.call.env_vars.items()))

    def _put_sizes(self, strings: list[bytes], count: int, size: int) -> int:
        self.at(size, 4)  # refuse before anything is stored
        self.put_u32(count, len(strings))
        self.put_u32(size, sum(map(len, strings)))
        return SUCCESS

    def _put_strings(self, strings: list[bytes], pointers: int, buffer: int) -> int:
        pointers, buffer = pointers & U32_MAX, buffer & U32_MAX
        self.at(pointers, 4 * len(strings))
        for index, string in enumerate(strings):
            self.write(buffer, string)
            self.put_u32(pointers + 4 * index, buffer)
            buffer += len(string)
        return SUCCESS

    def clock_res_get(self, clock: int, resolution: int) -> int:
        host_clock = _HOST_CLOCKS.get(clock)
        if host_clock is None:
            return INVAL
        self.put_u64(resolution, self.world.resolution_ns(host_clock))
        return SUCCESS

    def clock_time_get(self, clock: int, precision: int, moment: int) -> int:  # noqa: ARG002
        if clock == abi.CLOCK_REALTIME:
            now = self.world.realtime_ns()
        elif clock == abi.CLOCK_MONOTONIC:
            now = self.world.monotonic_ns()
        elif clock in _HOST_CLOCKS:
            # A worker has one thread that computes: both CPU clocks tell the same. From the start
            # of this invocation, or it would see how much earlier ones used.
            now = self.world.cpu_ns(self._cpu_start)
        else:
            return INVAL
        self.put_u64(moment, now)
        return SUCCESS

    def random_get(self, buffer: int, size: int) -> int:
        size &= U32_MAX
        start = self.at(buffer, size)
        for position in range(start, start + size, _CHUNK_BYTES):
            end = min(position + _CHUNK_BYTES, start + size)
            self.view[position:end] = self.world.random(end - position)
        return SUCCESS

    def sched_yield(self) -> int:
        return SUCCESS

    def proc_exit(self, code: int) -> int:
        raise ProcExit(code & U32_MAX)

    def proc_raise(self, signal: int) -> int:
        if not 0 <= signal <= abi.SIGNAL_LAST:
            return INVAL
        if signal in abi.SIGNALS_IGNORED:
            return SUCCESS
        if signal in abi.SIGNALS_STOPPING:
            return NOTSUP
        raise ProcExit(128 + signal)

    def poll_oneoff(self, subscriptions: int, events: int, count: int, stored: int) -> int:
        return poll(self, self.world, subscriptions, events, count & U32_MAX, stored)

    def _refuse_path(self, fd: int, *rest: int) -> int:  # noqa: ARG002
        return self.refuse(fd, NOTDIR)

    path_create_directory = path_filestat_get = path_filestat_set_times = path_open = _refuse_path
    path_readlink = path_remove_directory = path_unlink_file = _refuse_path

    def path_link(self, fd: int, flags: int, path: int, size: int, new_fd: int, *rest: int) -> int:  # noqa: ARG002
        return BADF if new_fd not in self.descriptors else self.refuse(fd, NOTDIR)

    def path_rename(self, fd: int, path: int, size: int, new_fd: int, *rest: int) -> int:  # noqa: ARG002
        return BADF if new_fd not in self.descriptors else self.refuse(fd, NOTDIR)

    def path_symlink(self, target: int, target_size: int, fd: int, path: int, size: int) -> int:  # noqa: ARG002
        return self.refuse(fd, NOTDIR)

    def _refuse_socket(self, fd: int, *rest: int) -> int:  # noqa: ARG002
        return self.refuse(fd, NOTSOCK)

    sock_accept = sock_recv = sock_send = sock_shutdown = _refuse_socket


def _c_strings(texts: Iterable[str]) -> list[bytes]:
    return [text.encode("utf-8", "replace") + b"\0" for text in texts]
