"""The host functions a guest may import from `env` and `host`, the same for every engine.

An engine does the marshalling: a `bytes` argument is a (ptr, len) pair of i32; a `bytes` result is
allocated through the guest's `orama_alloc` or `malloc` and returned as i64 `ptr << 32 | len`, 0 for
no value. What a function means is decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runner.errors import GrantMissing
from runner.models import LogLevel
from runner.workers.engine import Call

MODULES = ("env", "host")
"""The import modules under which host functions are found."""


@dataclass(frozen=True, slots=True)
class HostFunction:
    """`arguments` counts the (ptr, len) pairs it takes; `answers` tells whether it returns bytes."""

    arguments: int
    answers: bool
    run: Callable[..., bytes | None]
    """Called with the Call and the arguments' bytes; None is no value."""


def _text(value: str | None) -> bytes | None:
    return None if value is None else value.encode("utf-8", "replace")


def _get_env(call: Call, name: bytes) -> bytes | None:
    return _text(call.env_vars.get(name.decode("utf-8", "replace")))


def _get_secret(call: Call, name: bytes) -> bytes | None:
    wanted = name.decode("utf-8", "replace")
    if wanted not in call.secrets:
        raise GrantMissing("get_secret", f"`secrets: [{wanted}]`", stderr_tail=call.logs.tail)
    return _text(call.secrets[wanted])


def _get_request_id(call: Call) -> bytes | None:
    return call.request_id.encode()


def _get_caller_wallet(call: Call) -> bytes | None:
    return _text(call.caller_wallet)


def _log_info(call: Call, message: bytes) -> None:
    call.logs.log(LogLevel.INFO, message)


def _log_error(call: Call, message: bytes) -> None:
    call.logs.log(LogLevel.ERROR, message)


HOST_FUNCTIONS: dict[str, HostFunction] = {
    "get_env": HostFunction(1, True, _get_env),
    "get_secret": HostFunction(1, True, _get_secret),
    "get_request_id": HostFunction(0, True, _get_request_id),
    "get_caller_wallet": HostFunction(0, True, _get_caller_wallet),
    "log_info": HostFunction(1, False, _log_info),
    "log_error": HostFunction(1, False, _log_error),
}
"""Every host function by name."""
