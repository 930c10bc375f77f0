"""What a worker gives up before it touches a guest: privileges, file system, network, system calls.

The zygote raises the walls that forked workers inherit (`raise_shared`), each worker the rest
(`prepare_last`). Linux only; the numbers are those of the kernel's uapi headers, the rules those of
capabilities(7), user_namespaces(7), pivot_root(2), landlock(7) and seccomp(2). Nothing here knows
what an engine is.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from collections.abc import Callable, Mapping
from ctypes import util

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWNET = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x40000000,
)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 32, 0x4000, 0x40000
MNT_DETACH = 2
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
NOBODY = 65534
SIGKILL = 9
DATA_LIMIT_BYTES = 16 << 30
OPEN_FILES_LIMIT = 64
COMPILER_DATA_LIMIT_BYTES = 4 << 30
"""Many times what compilers need for the largest modules, and less than what would hurt a machine."""

SHARED_WALLS = ("rlimits", "no_new_privs", "unprivileged", "namespaces", "empty_root", "landlock")
LAST_WALLS = ("seccomp",)
WALLS = SHARED_WALLS + LAST_WALLS
"""Every wall by name, in the order in which they rise."""

ALLOWED_SYSCALLS = (
    "read write readv writev recvfrom recvmsg sendto sendmsg poll ppoll select pselect6 close fstat newfstatat lseek "
    "mmap munmap mprotect mremap madvise mincore brk memfd_create ftruncate fcntl "
    "rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall "
    "futex sched_yield sched_getaffinity membarrier rseq set_robust_list get_robust_list "
    "clock_gettime clock_getres clock_nanosleep nanosleep setitimer gettimeofday getrandom getrusage getpid gettid "
    "exit exit_group"
).split()
"""All that a warm worker may ask of the kernel. Everything else answers EPERM: the first stack
overflow of a guest opens /proc/self/maps and bears being refused, while a kill would end the worker."""

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, value, 0, 0, 0), f"prctl({option})")


def _rlimits() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES_LIMIT, OPEN_FILES_LIMIT))
    resource.setrlimit(resource.RLIMIT_DATA, (DATA_LIMIT_BYTES, DATA_LIMIT_BYTES))


def _no_new_privs() -> None:
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def _unprivileged() -> None:
    """Root becomes nobody; an ordinary user stays who they are."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    # A change of user makes the process undumpable, and then its own /proc/self/uid_map is root's.
    _prctl(PR_SET_DUMPABLE, 1)


def _namespaces() -> None:
    uid, gid = os.geteuid(), os.getegid()
    flags = CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS
    _check(_libc.unshare(flags), "unshare")
    for name, line in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    def encode(text: str | None) -> bytes | None:
        return None if text is None else text.encode()

    arguments = (encode(source), encode(target), encode(kind), ctypes.c_ulong(flags), encode(options))
    _check(_libc.mount(*arguments), f"mount {target}")


def _empty_root() -> None:
    """Make an empty, read-only tmpfs the root. Needs the mount namespace of `_namespaces`."""
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    _mount("empty", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0,nr_inodes=1,mode=555")
    os.chdir("/tmp")
    _check(_libc.syscall(SYS_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", MNT_DETACH), "umount the old root")
    _mount(None, "/", None, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    os.chdir("/")


def _landlock() -> None:
    from landlockpy import Ruleset

    with Ruleset() as ruleset:  # it handles every right the kernel knows and allows none
        ruleset.restrict()


def _seccomp_program() -> Callable[[], None]:
    from seccompy import Action, Filter, FilterFlag, syscall_nr

    seccomp = Filter(Action.ERRNO | 1, flags=FilterFlag.TSYNC)
    for name in ALLOWED_SYSCALLS:
        try:
            syscall_nr(name)
        except (KeyError, ValueError, LookupError):
            continue  # not every architecture has every call
        seccomp.allow(name)
    _ = seccomp.program  # compiled here, once, for all workers that are forked later

    def load() -> None:
        seccomp.load()

    return load


_SHARED: Mapping[str, Callable[[], None]] = {
    "rlimits": _rlimits,
    "no_new_privs": _no_new_privs,
    "unprivileged": _unprivileged,
    "namespaces": _namespaces,
    "empty_root": _empty_root,
    "landlock": _landlock,
}


def _not_searched(name: str) -> str | None:  # noqa: ARG001
    return None


def _prepare_packages() -> None:
    """Import and try what later walls need: once the root is empty, nothing can be imported any more.

    At their first call both packages search for libc with programs that they run and files that they
    make; it is in this process already, and a worker can do neither.
    """
    search, util.find_library = util.find_library, _not_searched
    try:
        with contextlib.suppress(ImportError, OSError):
            import landlockpy

            landlockpy.abi_version()
        with contextlib.suppress(ImportError, OSError):
            import seccompy

            seccompy.supported()
    finally:
        util.find_library = search


def raise_shared(*, but: frozenset[str] = frozenset()) -> dict[str, str]:
    """Raise every wall that children inherit. Returns why, for each wall that does not stand.

    The process must have one thread only and must have imported and opened all it will ever need.
    """
    _prepare_packages()
    missing: dict[str, str] = {}
    for name, raise_wall in _SHARED.items():
        if name in but:
            continue
        try:
            if name == "empty_root" and "namespaces" in missing:
                # Raised by root that could not be held, it would empty the root of the machine.
                raise PermissionError("it needs the namespaces")
            raise_wall()
        except (OSError, ImportError, KeyError) as error:
            missing[name] = str(error)
    with contextlib.suppress(OSError):
        make_undumpable()
    return missing


def prepare_last() -> tuple[Callable[[], None], dict[str, str]]:
    """What a forked worker calls last of all, and why, for each wall that cannot stand here. Must be
    called before the root is empty."""
    _prepare_packages()
    try:
        seccomp = _seccomp_program()
    except (OSError, ImportError) as error:
        return (lambda: None), {"seccomp": str(error)}
    return seccomp, {}


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends. Does not survive a change of user."""
    _prctl(PR_SET_PDEATHSIG, SIGKILL)


def make_undumpable() -> None:
    """No core file, no ptrace by others of the same user."""
    _prctl(PR_SET_DUMPABLE, 0)


def close_all_but(keep: frozenset[int]) -> None:
    """Close every file descriptor from 3 on that is not in `keep`."""
    last = 2
    for descriptor in sorted(keep):
        if descriptor > 2:
            os.closerange(last + 1, descriptor)
            last = descriptor
    os.closerange(last + 1, 4096)


def raise_compiler() -> None:
    """Raise what a compile process can bear: it starts threads, so system calls stay as they are.

    Best effort: the artifact it makes runs behind every wall, and its own end is under a deadline.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (COMPILER_DATA_LIMIT_BYTES, COMPILER_DATA_LIMIT_BYTES))
    raise_shared(but=frozenset({"rlimits"}))  # its pipe is fed to the end however large the module is
