"""`executor: auto`: the best executor that is here and runs the function's module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from runner.contracts import FunctionExecutor, Provider
from runner.errors import EngineUnavailable, UnsupportedFeature
from runner.models import Function, InvocationContext, InvocationResult

T = TypeVar("T")

PREFERRED_EXECUTORS = ("wasmer", "wasmtime")
"""The order in which `executor: auto` looks for one that is available."""


def available_executors(providers: Mapping[str, Provider[FunctionExecutor]]) -> list[str]:
    """Those that `auto` may take, best first. Raises EngineUnavailable without any."""
    found, reasons = [], []
    for name in PREFERRED_EXECUTORS:
        if name in providers:
            available = providers[name].available()
            if available.ok:
                found.append(name)
            else:
                reasons.append(f"{name}: {available.reason}")
    if not found:
        why = "; ".join(reasons) or "no plugin provides one"
        raise EngineUnavailable("auto", why, remedy="`runner engines list` tells more")
    return found


class AutoExecutor(FunctionExecutor):
    """Takes the first of several executors; the next one for a module that it refuses.

    `names` has at least one, best first; `executor` gives the part of a name, `tell_once` says a
    sentence that need not be repeated.
    """

    def __init__(
        self, names: Sequence[str], executor: Callable[[str], FunctionExecutor], tell_once: Callable[[str], None]
    ) -> None:
        self._names, self._executor, self._tell_once = tuple(names), executor, tell_once
        self._used: dict[str, FunctionExecutor] = {}

    def execute_many(
        self, function: Function, inputs: Iterable[bytes], context: InvocationContext
    ) -> Iterator[InvocationResult]:
        """See FunctionExecutor. Which one was chosen is told once."""
        return self._chosen(function, lambda executor: executor.execute_many(function, inputs, context))

    def invoke(self, function: Function, input: bytes, context: InvocationContext) -> InvocationResult:
        """See FunctionExecutor."""
        return self._chosen(function, lambda executor: executor.invoke(function, input, context))

    def _chosen(self, function: Function, call: Callable[[FunctionExecutor], T]) -> T:
        for name, following in zip(self._names, self._names[1:], strict=False):
            try:
                return self._with(name, call)
            except UnsupportedFeature as refused:
                self._tell_once(f"{function.name}: {refused.feature} is not for {name}; {following} takes it")
        return self._with(self._names[-1], call)

    def _with(self, name: str, call: Callable[[FunctionExecutor], T]) -> T:
        executor = self._used.get(name) or self._executor(name)
        self._used[name] = executor
        called = call(executor)
        self._tell_once(f"executor: auto chose {name}")
        return called

    def stop(self, request_id: str) -> bool:
        """See FunctionExecutor. An executor that has not been started is not started for it."""
        stopped = [executor.stop(request_id) for executor in list(self._used.values())]
        return any(stopped)

    def workers(self) -> Sequence[str]:
        """See FunctionExecutor: those of all that were used."""
        return [state for executor in list(self._used.values()) for state in executor.workers()]

    def precompile(self, wasm_cid: str, wasm: bytes, *, memory_limit_mb: int = 64) -> None:
        """See FunctionExecutor."""
        self._executor(self._names[0]).precompile(wasm_cid, wasm, memory_limit_mb=memory_limit_mb)

    def invalidate(self, wasm_cid: str) -> None:
        """See FunctionExecutor."""
        for name in self._names:
            self._executor(name).invalidate(wasm_cid)

    def close(self) -> None:
        """The executors belong to whoever made them."""
