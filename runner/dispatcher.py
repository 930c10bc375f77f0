"""The one road of an invocation: attempt, logs, retry, result. Every job takes it.

The dispatcher knows contracts only. Time and chance are given to it, so that tests need not wait.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from runner.contracts import FunctionExecutor, FunctionRegistry
from runner.errors import StoreError
from runner.models import Function, InvocationContext, InvocationResult, Recording
from runner.retry import delay_seconds, should_retry


class Moments(Protocol):
    """The life-cycle hooks, as the plugins give them; None where no plugin listens."""

    @property
    def before_invocation(self) -> Callable[[Function, InvocationContext], None] | None:
        """Called before each attempt."""

    @property
    def after_invocation(self) -> Callable[[Function, InvocationContext, InvocationResult], None] | None:
        """Called after each attempt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempted:
    """How work ended: its last result and how many tries it took."""

    result: InvocationResult
    attempts: int
    reused: bool = False
    """Whether it was not tried at all: the result is that of an earlier invocation of a pure function."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dispatcher:
    """Runs single invocations. Safe to use from several threads."""

    open_registry: Callable[[], FunctionRegistry]
    """The registry that keeps logs; asked for with the first line there is."""
    executor_for: Callable[[Function], FunctionExecutor]
    moments: Moments
    notify: Callable[[str], None]
    """Tells the user one sentence."""
    record: Recording | None = None
    """What executors are to record of attempts."""
    failed: Callable[[Function, bytes, InvocationContext, InvocationResult], None] = lambda *_: None
    """Is told of every attempt that failed."""
    sleep: Callable[[float], None] = field(default=time.sleep)
    chance: Callable[[], float] = field(default=random.random)

    def run(self, function: Function, input: bytes, context: InvocationContext) -> Attempted:
        """Try until it succeeds, may not be tried again, or has used up retry_count.

        What stands in the way of any attempt (a refused module, no engine) is raised.
        """
        attempts = 0
        while True:
            attempts += 1
            result = self.attempt(function, input, context)
            error = result.error
            if error is None or not should_retry(error, attempts=attempts, retry_count=function.retry_count):
                return Attempted(result=result, attempts=attempts)
            wait = delay_seconds(
                attempts=attempts, retry_delay_seconds=function.retry_delay_seconds, chance=self.chance()
            )
            self.notify(
                f"{function.name}: attempt {attempts} of {function.retry_count + 1} failed ({error}); "
                f"the next in {wait:.1f} s"
            )
            self.sleep(wait)

    def attempt(self, function: Function, input: bytes, context: InvocationContext) -> InvocationResult:
        """One attempt, its logs kept."""
        context = replace(context, record=self.record)
        result = self.try_once(self.executor_for(function), function, input, context)
        if result.logs:
            self._keep_logs(function, context, result)
        if result.error is not None:
            self.failed(function, input, context, result)
        return result

    def try_once(
        self, executor: FunctionExecutor, function: Function, input: bytes, context: InvocationContext
    ) -> InvocationResult:
        """One attempt between its life-cycle hooks; its logs are the caller's business."""
        moments = self.moments
        if moments.before_invocation is not None:
            moments.before_invocation(function, context)
        result = executor.invoke(function, input, context)
        if moments.after_invocation is not None:
            moments.after_invocation(function, context, result)
        return result

    @property
    def has_moments(self) -> bool:
        """Whether a plugin listens to single invocations."""
        return self.moments.before_invocation is not None or self.moments.after_invocation is not None

    def _keep_logs(self, function: Function, context: InvocationContext, result: InvocationResult) -> None:
        try:
            self.open_registry().add_logs(function, context.request_id, result.logs)
        except StoreError as error:
            # The work is done and its result is in hand: losing it over its log would be worse.
            self.notify(f"the log lines of {function.name} could not be kept: {error}")
