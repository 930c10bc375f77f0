"""Recordings: what the world told a guest, noted as it was told, and told again in a replay.

A recording is bounded, and never has the value of a secret. The app takes it from a worker that a guest
may have taken over: whoever reads one finds calls in it or refuses it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from runner.errors import HostCallRefused, InvocationError, ReplayDiverged
from runner.workers.wire import UNREADABLE, decode_error, encode_error
from runner.workers.world import REAL, Alarm, Caller, PureWorld, World

SHORTEST_SECRET: Final = 4
"""Shorter values are not looked for in what is recorded: they would be found everywhere."""


class RecordingWorld(World):
    """The real world; what it tells is noted, up to a limit."""

    __slots__ = ("_calls", "_engine", "_keep_all", "_limit", "_room", "_secrets")

    def __init__(self, *, keep_all: bool, limit_bytes: int, engine: str, secrets: Mapping[str, str]) -> None:
        """Keeps every recording, or those of invocations that failed. `limit_bytes` is for one of them as it
        is kept; `secrets` are the values that it must not have."""
        self._keep_all, self._limit, self._engine = keep_all, limit_bytes, engine
        self._secrets = secrets
        self._calls: list[tuple[Any, ...]] = []
        self._room = limit_bytes

    def begin(self, input: bytes) -> None:  # noqa: ARG002
        """Forget the invocation before."""
        if self._calls:
            self._calls = []
        self._room = self._limit - _HEAD_BYTES - len(self._engine)

    def recording(self, *, failed: bool) -> bytes:
        """What `Recorded.parse` reads."""
        if not (failed or self._keep_all):
            return b""
        cut = self._limit if self._room < 0 else 0
        data = _encode({"engine": self._engine, "cut_bytes": cut, "calls": [_packed(call) for call in self._calls]})
        return data if len(data) <= self._limit else b""

    def _note(self, size: int, *call: Any) -> None:
        """Note a call that takes `size` bytes; none after the first for which there is no room."""
        if self._room >= 0:
            self._room -= size
            if self._room >= 0:
                self._calls.append(call)

    def realtime_ns(self) -> int:
        """See World."""
        now = time.time_ns()
        self._note(_NUMBER_BYTES, "realtime", now)
        return now

    def monotonic_ns(self) -> int:
        """See World."""
        now = time.monotonic_ns()
        self._note(_NUMBER_BYTES, "monotonic", now)
        return now

    def cpu_ns(self, start: int) -> int:
        """See World."""
        used = super().cpu_ns(start)
        self._note(_NUMBER_BYTES, "cpu", used)
        return used

    def resolution_ns(self, clock: int) -> int:
        """See World."""
        resolution = super().resolution_ns(clock)
        self._note(_NUMBER_BYTES, "resolution", resolution)
        return resolution

    def random(self, size: int) -> bytes:
        """See World."""
        data = os.urandom(size)
        self._note(_base64_size(size) + 16, "random", data)
        return data

    def wait(self, alarms: Sequence[Alarm], *, at_once: bool) -> list[bool]:
        """See World."""
        due = super().wait(alarms, at_once=at_once)
        self._note(12 + 6 * len(due), "wait", due)
        return due

    def ask(self, call: Caller, name: str, arguments: Sequence[bytes]) -> bytes:
        """See World."""
        digests = _digests(arguments, self._secrets)
        size = 40 + len(name) + 90 * len(digests)
        try:
            answer = super().ask(call, name, arguments)
        except InvocationError as error:
            error_facts = _masked_error(error, self._secrets)
            self._note(size + len(_encode(error_facts)), "host", name, digests, "error", error_facts)
            raise
        told = masked(answer, self._secrets)
        self._note(size + _base64_size(len(told)), "host", name, digests, "answer", told)
        return answer


class Recorded(NamedTuple):
    """A recording that was read."""

    engine: str
    """What ran it."""
    cut_bytes: int
    """The limit at which it ends before the invocation did; 0 if it is whole."""
    calls: Sequence[Sequence[Any]]

    @classmethod
    def parse(cls, data: bytes) -> Recorded:
        """Raises ValueError for bytes that are no recording."""
        try:
            facts = json.loads(data)
            engine, cut, calls = facts["engine"], facts["cut_bytes"], facts["calls"]
            if type(engine) is not str or type(cut) is not int or type(calls) is not list:
                raise TypeError("a fact of another type")
            engine.encode()
            return cls(engine, cut, [_unpacked(*call) for call in calls])
        except UNREADABLE as why:
            raise ValueError(f"it is no recording ({type(why).__name__}: {str(why)[:100]})") from None


class ReplayingWorld(World):
    """Tells what a recording has, in order, and nothing else: whatever a guest asks otherwise ends it."""

    __slots__ = ("_absent", "_place", "_recorded", "_secrets")

    def __init__(self, recorded: Recorded, *, absent: Sequence[str], secrets: Mapping[str, str]) -> None:
        """`absent` names secrets that were granted and have no value here."""
        self._recorded, self._absent, self._secrets = recorded, absent, secrets
        self._place = 0

    def begin(self, input: bytes) -> None:  # noqa: ARG002
        """Start the recording again."""
        self._place = 0

    def _next(self, kind: str) -> Any:
        return self._expect((kind,), kind)[-1]

    def _expect(self, call: tuple[Any, ...], told: str) -> Sequence[Any]:
        """The next call of the recording, which must begin as this one."""
        calls, place = self._recorded.calls, self._place
        self._place += 1
        if place == len(calls):
            cut = self._recorded.cut_bytes
            end = f"was cut at {cut:,} bytes (`recording: {{max_kb: ...}}` allows more)" if cut else "ends"
            raise ReplayDiverged(place + 1, f"it is {told}, and the recording {end} before it")
        recorded = calls[place]
        if tuple(recorded[: len(call)]) != call:
            raise ReplayDiverged(place + 1, f"it is {told}, where the recording has {_shown(recorded)}")
        return recorded

    def realtime_ns(self) -> int:
        """See World."""
        return int(self._next("realtime"))

    def monotonic_ns(self) -> int:
        """See World."""
        return int(self._next("monotonic"))

    def cpu_ns(self, start: int) -> int:  # noqa: ARG002
        """See World."""
        return int(self._next("cpu"))

    def resolution_ns(self, clock: int) -> int:  # noqa: ARG002
        """See World."""
        return int(self._next("resolution"))

    def random(self, size: int) -> bytes:
        """See World."""
        data = bytes(self._next("random"))
        if len(data) != size:
            raise ReplayDiverged(self._place, f"it is random of {size} bytes, where the recording has {len(data)}")
        return data

    def wait(self, alarms: Sequence[Alarm], *, at_once: bool) -> list[bool]:  # noqa: ARG002
        """Waits for nothing."""
        due: list[bool] = self._next("wait")
        if len(due) != len(alarms):
            raise ReplayDiverged(self._place, f"it waits for {len(alarms)} clocks, in the recording for {len(due)}")
        return due

    def ask(self, call: Caller, name: str, arguments: Sequence[bytes]) -> bytes:  # noqa: ARG002
        """Does nothing but answer."""
        digests = _digests(arguments, self._secrets)
        told = _shown(("host", name, digests))
        *_, kind, answer = self._expect(("host", name, digests), told)
        if kind == "error":
            raise decode_error(_encode(answer))
        return bytes(answer)

    def no_secret(self, call: Caller, name: str) -> InvocationError:
        """See World."""
        if name not in self._absent:
            return super().no_secret(call, name)
        reason = f"a recording never has the value of a secret, and the secret {name!r} has none here"
        return HostCallRefused("get_secret", "NotAvailable", reason, stderr_tail=call.logs.tail)


def world_of(facts: Mapping[str, Any], secrets: Mapping[str, str]) -> World:
    """The world that the facts of a frame ask for: `replay` before `pure` before `record`, else the real one."""
    replay, record = facts.get("replay"), facts.get("record")
    if replay is not None:
        recorded = Recorded.parse(replay["recording"].encode())
        return ReplayingWorld(recorded, absent=replay["absent"], secrets=secrets)
    if facts.get("pure"):
        return PureWorld()
    if record is not None:
        return RecordingWorld(**record, secrets=secrets)
    return REAL


# The written form: JSON, a list for each call, its kind first and what was told last.

_HEAD_BYTES: Final = 64
_NUMBER_BYTES: Final = 40
_NUMBERS: Final = frozenset({"realtime", "monotonic", "cpu", "resolution"})
_encoder: Final = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"))


def _encode(value: Any) -> bytes:
    return _encoder.encode(value).encode()


def _base64_size(size: int) -> int:
    return (size + 2) // 3 * 4


def _packed(call: Sequence[Any]) -> list[Any]:
    return [*call[:-1], base64.b64encode(call[-1]).decode() if isinstance(call[-1], bytes) else call[-1]]


def _unpacked(kind: str, *rest: Any) -> tuple[Any, ...]:
    """A call as it was noted. Raises one of UNREADABLE for anything else."""
    if kind in _NUMBERS:
        (number,) = rest
        if type(number) is not int or not 0 <= number < 1 << 63:
            raise ValueError(f"{kind} of {str(number)[:30]}")
        return kind, number
    if kind == "random":
        return kind, base64.b64decode(rest[0], validate=True)
    if kind == "wait":
        return kind, [bool(due) for due in rest[0]]
    if kind != "host":
        raise ValueError(f"an unknown kind of call: {str(kind)[:30]!r}")
    name, digests, how, answer = rest
    if type(name) is not str or how not in ("answer", "error"):
        raise ValueError("a malformed host call")
    name.encode()
    if how == "error":
        decode_error(_encode(answer))
    else:
        answer = base64.b64decode(answer, validate=True)
    return kind, name, [[str(digest), int(size)] for digest, size in digests], how, answer


def _shown(call: Sequence[Any]) -> str:
    """A call, for people."""
    if call[0] == "random":
        return f"random of {len(call[1])} bytes"
    if call[0] != "host":
        return str(call[0])
    _, name, digests, *_ = call
    return f"{name}({', '.join(f'{size} bytes {digest[:8]}' for digest, size in digests)})"


def _digests(arguments: Sequence[bytes], secrets: Mapping[str, str]) -> list[list[Any]]:
    """What is kept of arguments: enough to compare them. Secrets count by their name."""
    told = (masked(argument, secrets) for argument in arguments)
    return [[hashlib.sha256(argument).hexdigest(), len(argument)] for argument in told]


def masked(data: bytes, secrets: Mapping[str, str]) -> bytes:
    """The data with the names of secrets in place of their values."""
    for name, value in secrets.items():
        if len(value) >= SHORTEST_SECRET:
            data = data.replace(value.encode(), f"<secret {name}>".encode())
    return data


def _masked_error(error: InvocationError, secrets: Mapping[str, str]) -> Any:
    """The error as `encode_error` tells it, without its tail: that comes anew with a replay."""
    name, fields, _ = json.loads(encode_error(error))
    told = {
        key: masked(value.encode("utf-8", "replace"), secrets).decode() if isinstance(value, str) else value
        for key, value in fields.items()
    }
    return [name, told, ""]
