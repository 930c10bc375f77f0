"""The host functions a guest may import from `env` and `host`, the same for every engine.

An engine does the marshalling: a `bytes` argument is a (ptr, len) pair of i32; a `bytes` result is
allocated through the guest's `orama_alloc` or `malloc` and returned as i64 `ptr << 32 | len`, 0 for
no value. What a function means is decided here, or by the app: see runner.hostcalls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from runner.models import LogLevel
from runner.workers.engine import Call

MODULES = ("env", "host")
"""The import modules under which host functions are found."""
BYTES, NUMBER = "b", "i"
"""What a parameter may be: a (ptr, len) pair, an i32."""


@dataclass(frozen=True, slots=True)
class HostFunction:
    """What a guest may call. `answers` tells whether it returns bytes."""

    parameters: str
    """A letter each: BYTES or NUMBER."""
    answers: bool
    run: Callable[..., bytes | None]
    """Called with the Call and its arguments, each bytes or a signed integer; None is no value."""
    acts: bool = False
    """Whether it does something that must not be done for a guest that cannot take the answer."""


def _text(value: str | None) -> bytes | None:
    return None if value is None else value.encode("utf-8", "replace")


def _get_env(call: Call, name: bytes) -> bytes | None:
    return _text(call.env_vars.get(name.decode("utf-8", "replace")))


def _get_secret(call: Call, name: bytes) -> bytes | None:
    call.world.check(call, "get_secret")
    wanted = name.decode("utf-8", "replace")
    if wanted not in call.secrets:
        raise call.world.no_secret(call, wanted)
    return _text(call.secrets[wanted])


def _get_request_id(call: Call) -> bytes | None:
    call.world.check(call, "get_request_id")
    return call.request_id.encode()


def _get_caller_wallet(call: Call) -> bytes | None:
    call.world.check(call, "get_caller_wallet")
    return _text(call.caller_wallet)


def _log_info(call: Call, message: bytes) -> None:
    call.logs.log(LogLevel.INFO, message)


def _log_error(call: Call, message: bytes) -> None:
    call.logs.log(LogLevel.ERROR, message)


def _report_progress(call: Call, percent: int) -> None:
    call.report_progress(max(0, min(percent, 100)))


def _asked(name: str, parameters: str) -> HostFunction:
    """A host function that the app answers, in bytes."""

    def ask(call: Call, *arguments: bytes) -> bytes:
        return call.world.ask(call, name, arguments)

    return HostFunction(parameters, True, ask, acts=True)


HOST_FUNCTIONS: Final[dict[str, HostFunction]] = {
    "get_env": HostFunction("b", True, _get_env),
    "get_secret": HostFunction("b", True, _get_secret),
    "get_request_id": HostFunction("", True, _get_request_id),
    "get_caller_wallet": HostFunction("", True, _get_caller_wallet),
    "log_info": HostFunction("b", False, _log_info),
    "log_error": HostFunction("b", False, _log_error),
    "enqueue_background": _asked("enqueue_background", "bb"),
    "schedule_once": _asked("schedule_once", "bbb"),
    "report_progress": HostFunction("i", False, _report_progress),
}
"""Every host function by name."""
