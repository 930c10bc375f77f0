"""The numbers and layouts of the WASI preview 1 ABI: errno, rights, file types, clocks, structures.

Source: the witx document of wasi_snapshot_preview1. Plain integers and precompiled structs, because
every host call uses them; only what the host functions need is listed.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

U32_MAX: Final = 0xFFFFFFFF
U64_MAX: Final = 0xFFFFFFFFFFFFFFFF

# errno
SUCCESS: Final = 0
BADF: Final = 8
FAULT: Final = 21
INVAL: Final = 28
NOTDIR: Final = 54
NOTSOCK: Final = 57
NOTSUP: Final = 58
SPIPE: Final = 70
NOTCAPABLE: Final = 76

# rights
RIGHT_FD_READ: Final = 1 << 1
RIGHT_FD_FDSTAT_SET_FLAGS: Final = 1 << 3
RIGHT_FD_WRITE: Final = 1 << 6
RIGHT_FD_FILESTAT_GET: Final = 1 << 21
RIGHT_POLL_FD_READWRITE: Final = 1 << 27

FILETYPE_UNKNOWN: Final = 0
"""What a pipe is in preview 1, which has no file type for pipes; libc takes it for no terminal."""

FDFLAGS_ALL: Final = 0b11111
"""append, dsync, nonblock, rsync, sync."""
ADVICE_LAST: Final = 5
WHENCE_LAST: Final = 2

# clocks
CLOCK_REALTIME: Final = 0
CLOCK_MONOTONIC: Final = 1
CLOCK_PROCESS_CPUTIME: Final = 2
CLOCK_THREAD_CPUTIME: Final = 3

# poll_oneoff
EVENT_CLOCK: Final = 0
EVENT_FD_READ: Final = 1
EVENT_FD_WRITE: Final = 2
SUBSCRIPTION_CLOCK_ABSTIME: Final = 1

SIGNAL_LAST: Final = 30
SIGNALS_IGNORED: Final = frozenset({0, 16, 17, 22, 27})
"""none, chld, cont, urg, winch: POSIX's default action is to ignore them (or to go on)."""
SIGNALS_STOPPING: Final = frozenset({18, 19, 20, 21})
"""stop, tstp, ttin, ttou."""

# structures, little-endian
U32: Final = Struct("<I")
U64: Final = Struct("<Q")
TWO_U32: Final = Struct("<II")
IOVEC: Final = Struct("<II")
"""iovec and ciovec: address, length."""
FDSTAT: Final = Struct("<BxHxxxxQQ")
"""file type, flags, base rights, inheriting rights."""
FILESTAT: Final = Struct("<QQB7xQQQQQ")
"""device, inode, file type, links, size, access, modification and change time."""
SUBSCRIPTION_CLOCK: Final = Struct("<QB7xI4xQQH6x")
"""userdata, tag, clock, timeout in ns, precision in ns, flags."""
SUBSCRIPTION_FD: Final = Struct("<QB7xI28x")
"""userdata, tag, file descriptor."""
EVENT: Final = Struct("<QHB5xQH6x")
"""userdata, errno, type, bytes available, flags."""
