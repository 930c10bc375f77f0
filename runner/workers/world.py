"""What a guest learns of the world outside its input: clocks, random bytes, waiting, answers of its host.

Everything of that kind that a guest may call goes through the World of its Call: the real one, or one in
which nothing ever differs, for pure functions. Those that note what they tell and tell it again are in
recording.py. Imported in workers: only the standard library and runner.errors.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple, Protocol

from runner.errors import GrantMissing, HostCallRefused, InvocationError

PURE_REALTIME_NS: Final = 946_684_800_000_000_000
"""What a pure function's clock shows, always: 2000-01-01T00:00:00Z."""
PURE_MONOTONIC_NS: Final = 1_000_000_000
"""What its monotonic clock shows: not 0, which some language's runtimes take for a broken clock."""
PURE_RESOLUTION_NS: Final = 1
PURE_RANDOM: Final = b"runner pure 1"
"""Block n of a pure function's random bytes is SHA-256 of this, of SHA-256 of its input, and of n as 8
bytes, little-endian; n counts from 0 in each invocation."""
_LONGEST_SLEEP_SECONDS: Final = 86_400.0


class Alarm(NamedTuple):
    """A clock that is waited for: until `ns` of the realtime or of the monotonic clock, or that much from
    now on."""

    realtime: bool
    ns: int
    relative: bool


class Log(Protocol):
    """What a guest has logged."""

    @property
    def tail(self) -> str:
        """The end of standard error."""


class Caller(Protocol):
    """What a world looks at of a Call."""

    @property
    def host_calls(self) -> Collection[str]:
        """Names of the host functions that the app answers."""

    @property
    def ask_app(self) -> Callable[[str, Sequence[bytes]], bytes]:
        """Sends one of them to the app and waits for its answer."""

    @property
    def logs(self) -> Log:
        """What it has logged."""


class World:
    """The world as it is."""

    __slots__ = ()

    def begin(self, input: bytes) -> None:
        """An invocation begins."""

    def recording(self, *, failed: bool) -> bytes:  # noqa: ARG002
        """What is to be kept of the invocation that has ended; nothing."""
        return b""

    def realtime_ns(self) -> int:
        """Since the epoch."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """Since some moment."""
        return time.monotonic_ns()

    def cpu_ns(self, start: int) -> int:
        """CPU time used since this process had used `start`."""
        return time.process_time_ns() - start

    def resolution_ns(self, clock: int) -> int:
        """Of a clock of this machine."""
        return max(1, round(time.clock_getres(clock) * 1e9))

    def random(self, size: int) -> bytes:
        """So many random bytes."""
        return os.urandom(size)

    def wait(self, alarms: Sequence[Alarm], *, at_once: bool) -> list[bool]:
        """Sleep until one of them is due, unless `at_once`; which of them are due then."""
        begun = time.monotonic_ns()
        while True:
            rest = [_remaining_ns(alarm, begun) for alarm in alarms]
            if at_once or min(rest) <= 0:
                return [left <= 0 for left in rest]
            time.sleep(min(min(rest) / 1e9, _LONGEST_SLEEP_SECONDS))

    def ask(self, call: Caller, name: str, arguments: Sequence[bytes]) -> bytes:
        """The app's answer to a host call. Raises the InvocationError that it answers with."""
        if name not in call.host_calls:
            raise HostCallRefused(name, "NotAvailable", "nothing here answers it", stderr_tail=call.logs.tail)
        return call.ask_app(name, arguments)

    def check(self, call: Caller, name: str) -> None:
        """Raise the InvocationError with which a guest ends that asks its host what it may not."""

    def no_secret(self, call: Caller, name: str) -> InvocationError:
        """How a guest ends that asks for a secret of which there is no value."""
        return GrantMissing("get_secret", f"`secrets: [{name}]`", stderr_tail=call.logs.tail)


REAL: Final = World()


class PureWorld(World):
    """Tells the same in every invocation of the same input. The clocks stand still and nothing waits."""

    __slots__ = ("_block", "_input", "_left", "_seed")

    def __init__(self) -> None:
        self.begin(b"")

    def begin(self, input: bytes) -> None:
        """Start the random bytes again."""
        self._input = input
        self._seed = self._left = b""
        self._block = 0

    def realtime_ns(self) -> int:
        """PURE_REALTIME_NS."""
        return PURE_REALTIME_NS

    def monotonic_ns(self) -> int:
        """PURE_MONOTONIC_NS."""
        return PURE_MONOTONIC_NS

    def cpu_ns(self, start: int) -> int:  # noqa: ARG002
        """None was used."""
        return 0

    def resolution_ns(self, clock: int) -> int:  # noqa: ARG002
        """PURE_RESOLUTION_NS."""
        return PURE_RESOLUTION_NS

    def random(self, size: int) -> bytes:
        """The next bytes of the generator that PURE_RANDOM tells."""
        if not self._seed:
            self._seed = PURE_RANDOM + hashlib.sha256(self._input).digest()
        parts, have = [self._left], len(self._left)
        while have < size:
            parts.append(hashlib.sha256(self._seed + self._block.to_bytes(8, "little")).digest())
            self._block += 1
            have += 32
        found = b"".join(parts)
        self._left = found[size:]
        return found[:size]

    def wait(self, alarms: Sequence[Alarm], *, at_once: bool) -> list[bool]:
        """Those that would be due first."""
        rest = [_left_ns(alarm, PURE_REALTIME_NS, PURE_MONOTONIC_NS, PURE_MONOTONIC_NS) for alarm in alarms]
        due = 0 if at_once else max(0, min(rest))
        return [left <= due for left in rest]

    def ask(self, call: Caller, name: str, arguments: Sequence[bytes]) -> bytes:  # noqa: ARG002
        """Never answers."""
        raise _impure(call, name)

    def check(self, call: Caller, name: str) -> None:
        """Always raises."""
        raise _impure(call, name)


def _impure(call: Caller, name: str) -> InvocationError:
    reason = "a pure function may ask its host for nothing"
    return HostCallRefused(name, "NotAvailable", reason, stderr_tail=call.logs.tail)


def _remaining_ns(alarm: Alarm, begun: int) -> int:
    return _left_ns(alarm, time.time_ns(), time.monotonic_ns(), begun)


def _left_ns(alarm: Alarm, realtime_ns: int, monotonic_ns: int, begun: int) -> int:
    """Until it is due. A relative wait is not moved by someone who sets the clock."""
    if alarm.relative:
        return begun + alarm.ns - monotonic_ns
    return alarm.ns - (realtime_ns if alarm.realtime else monotonic_ns)
