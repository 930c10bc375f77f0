"""The zygote: a process that imports an engine once, raises the walls and forks workers from itself.

It has one thread, no file system and no network when it forks. The app talks to it over a
SEQPACKET socket. The first message tells which engine it is to have. Then `F` with two descriptors
(the worker's socket, its result area) forks a worker and answers its pid; `R` with a pid waits for
that worker and answers its wait status. When the app ends, however it ends, the socket closes, the
zygote exits, and the kernel kills its workers.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence

from runner.workers import walls
from runner.workers.engine import Engine, import_engine
from runner.workers.worker import LOST_STATUS, Worker

FORK, REAP = b"F", b"R"
PID = struct.Struct("<i")


def main(argv: Sequence[str]) -> None:
    """`argv`: the control socket's descriptor."""
    control = socket.socket(fileno=int(argv[0]))
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the app's mask and what it ignores come with exec
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # Nobody reads what dying workers and engines print: they must not wait for it.
    os.set_blocking(2, False)
    last, missing = walls.prepare_last()
    order = control.recv(65536)
    if not order:
        return  # it was started ahead, and nobody needed it
    wanted = json.loads(order)
    sys.path.insert(1, wanted["package_dir"])
    engine = import_engine(wanted["module"])
    engine.warm_up()
    walls.close_all_but(frozenset({control.fileno()}))
    missing = walls.raise_shared() | missing
    refused = sorted(set(missing) - set(wanted["allow_missing_walls"]))
    control.send(json.dumps({"missing": missing, "refused": refused, "python": sys.version.split()[0]}).encode())
    if refused:
        return
    gc.collect()
    gc.freeze()  # pages that are never written again stay shared with every worker
    _serve(control, engine, last)


def _serve(control: socket.socket, engine: Engine, last: Callable[[], None]) -> None:
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, 64, 2)
        if not request:
            return
        if request[:1] == FORK:
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                _become_worker(parent, control, engine, last, *descriptors)
            for received in descriptors:
                os.close(received)
            control.send(PID.pack(pid))
        else:
            control.send(PID.pack(_reap(*PID.unpack(request[1:]))))


def _reap(pid: int) -> int:
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return 0


def _become_worker(
    parent: int, control: socket.socket, engine: Engine, last: Callable[[], None], sock: int, area: int
) -> None:
    try:
        control.close()
        walls.die_with_parent()
        if os.getppid() != parent:  # it ended before the kernel was asked
            os._exit(0)
        engine.start()
        worker = Worker(engine, socket.socket(fileno=sock), area)
        os.close(area)  # the mapping has a descriptor of its own
        last()
        worker.serve()
        os._exit(0)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(2, f"worker: {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(LOST_STATUS)
