"""The app's answers to what workers ask while a guest runs: host calls, log lines, progress.

A worker may have been taken over by its guest: what ours never asks is a Violation.
"""

from __future__ import annotations

from collections.abc import Sequence

from runner.contracts import Host
from runner.errors import HostCallFailed, HostCallRefused, InvocationError, RunnerError
from runner.models import InvocationContext
from runner.workers.frame import Frame
from runner.workers.hostcalls import HOST_FUNCTIONS
from runner.workers.protocol import ANSWERED, LOGS, PROGRESS, REFUSED, Violation, parse_ask
from runner.workers.wire import UNREADABLE, decode_logs, encode_error


class Answers:
    """Answers for one run of invocations."""

    __slots__ = ("_context", "_host", "_log_bytes")

    def __init__(self, host: Host, context: InvocationContext, *, log_bytes: int) -> None:
        self._host, self._context, self._log_bytes = host, context, log_bytes

    def __call__(self, frame: Frame, body: bytes) -> bytes:
        """The body of the answer to an ASK of the worker that has this frame. Raises Violation, and what a
        host call raises that is no RunnerError."""
        name, arguments = parse_ask(body)
        try:
            return ANSWERED + self._answer(frame, name, arguments)
        except InvocationError as error:
            return REFUSED + encode_error(error)
        except RunnerError as error:
            kind = HostCallFailed if error.retryable else HostCallRefused
            reason = str(error).encode("utf-8", "replace").decode()
            return REFUSED + encode_error(kind(name, error.error_class, reason))

    def _answer(self, frame: Frame, name: str, arguments: Sequence[bytes]) -> bytes:
        if name == LOGS:
            return self._take_logs(frame, arguments)
        if name == PROGRESS:
            return self._take_progress(arguments)
        call, known = self._host.host_calls.get(name), HOST_FUNCTIONS.get(name)
        if call is None:
            raise Violation(f"it asks for {name[:100]!r}, which is not answered here")
        if known is not None and len(arguments) != len(known.parameters):
            raise Violation(f"it asks for {name} with {len(arguments)} arguments")
        return call(self._context, arguments)

    def _take_logs(self, frame: Frame, arguments: Sequence[bytes]) -> bytes:
        """Bounded like logs that come with results: no more than all inputs of the frame may log."""
        if self._host.on_logs is None or self._context.run_id is None or len(arguments) != 1:
            raise Violation("it hands over log lines that nobody wants")
        logged = frame.logged + len(arguments[0])
        if logged > self._log_bytes * len(frame.inputs):
            raise Violation("it logs more than any guest may")
        try:
            entries = decode_logs(arguments[0])
        except UNREADABLE as why:
            raise Violation(f"it hands over unreadable log lines ({type(why).__name__})") from None
        self._host.on_logs(self._context, entries)
        frame.logged = logged  # not before they were taken: those that were not come again
        return b""

    def _take_progress(self, arguments: Sequence[bytes]) -> bytes:
        if self._host.on_progress is None or len(arguments) != 1 or len(arguments[0]) != 1 or arguments[0][0] > 100:
            raise Violation("it reports a progress that is none")
        self._host.on_progress(self._context, arguments[0][0])
        return b""
