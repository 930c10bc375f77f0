"""What the tests of the executor suite stand on: one executor of a class, and modules for it.

The tests are in the files beside this one; executor.py puts them together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from runner.contracts import FunctionExecutor, Host
from runner.errors import RunnerError, UnsupportedFeature
from runner.models import Function, InvocationContext, InvocationResult, LogEntry
from runner.testing.guests import compiled
from runner.wasm import content_id

E = TypeVar("E", bound=RunnerError)


class Bench:
    """An executor, the modules it finds, and short ways to call it.

    A guest is WebAssembly text or a module's bytes. Keyword arguments are settings of the Function.
    """

    def __init__(self, suite: type[ExecutorSuite], folder: Path) -> None:
        self.modules: dict[str, bytes] = {}
        self.asked_for: list[str] = []
        """Every wasm_cid that the executor looked up."""
        self.host_calls: list[tuple[InvocationContext, str, list[bytes]]] = []
        """Every call of a host function that the host answers: whose, its name and its arguments."""
        self.answer: Callable[[], bytes] = lambda: b"1"
        """What such a call is answered with; it may raise."""
        self.progress: list[tuple[InvocationContext, int]] = []
        """What guests reported."""
        self.early_logs: list[tuple[InvocationContext, LogEntry]] = []
        """Log lines that did not wait for the result."""
        self.executor = suite.make_executor(
            Host(
                project_dir=folder,
                state_dir=folder / "state",
                get_wasm_bytes=self._look_up,
                host_calls={name: self._host_call(name) for name in ("enqueue_background", "schedule_once")},
                on_progress=lambda context, percent: self.progress.append((context, percent)),
                on_logs=lambda context, entries: self.early_logs.extend((context, entry) for entry in entries),
            )
        )

    def _host_call(self, name: str) -> Callable[[InvocationContext, Sequence[bytes]], bytes]:
        def answer(context: InvocationContext, arguments: Sequence[bytes]) -> bytes:
            self.host_calls.append((context, name, list(arguments)))
            return self.answer()

        return answer

    def _look_up(self, wasm_cid: str) -> bytes:
        self.asked_for.append(wasm_cid)
        return self.modules[wasm_cid]

    def module(self, guest: str | bytes) -> tuple[str, bytes]:
        """Put a guest where the executor finds it; its wasm_cid and bytes."""
        wasm = compiled(guest) if isinstance(guest, str) else guest
        wasm_cid = content_id(wasm)
        self.modules[wasm_cid] = wasm
        return wasm_cid, wasm

    def function(self, guest: str | bytes, **settings: Any) -> Function:
        """A registered function of this guest; 20 seconds, 16 MB."""
        now = datetime.now(timezone.utc)
        facts: dict[str, Any] = {"timeout_seconds": 20.0, "memory_limit_mb": 16, **settings}
        return Function(
            id="function-1",
            name="probe",
            namespace="suite",
            version=1,
            wasm_cid=self.module(guest)[0],
            created_at=now,
            updated_at=now,
            **facts,
        )

    def many(
        self, guest: str | bytes, inputs: Iterable[bytes], facts: InvocationContext | None = None, **settings: Any
    ) -> Iterator[InvocationResult]:
        """`execute_many`; skips the test when the executor refuses a feature that the guest needs."""
        function = self.function(guest, **settings)
        try:
            return self.executor.execute_many(function, inputs, facts or context())
        except UnsupportedFeature as refused:
            pytest.skip(str(refused))

    def invoke(
        self, guest: str | bytes, input: bytes = b"", facts: InvocationContext | None = None, **settings: Any
    ) -> InvocationResult:
        """One invocation."""
        (result,) = self.many(guest, (input,), facts, **settings)
        return result

    def output(
        self, guest: str | bytes, input: bytes = b"", facts: InvocationContext | None = None, **settings: Any
    ) -> bytes:
        """The output of one invocation, which must end well."""
        return self.invoke(guest, input, facts, **settings).unwrap()

    def error(self, kind: type[E], guest: str | bytes, input: bytes = b"", **settings: Any) -> E:
        """The error of one invocation, which must be of this kind and told in its result."""
        result = self.invoke(guest, input, **settings)
        assert isinstance(result.error, kind), f"wanted {kind.__name__}, got {result!r}"
        assert result.output is None
        return result.error


def context(**facts: Any) -> InvocationContext:
    """An InvocationContext with defaults for whatever a test does not care about."""
    defaults: dict[str, Any] = {
        "request_id": "request-1",
        "function_id": "function-1",
        "function_name": "probe",
        "namespace": "suite",
    }
    return InvocationContext(**{**defaults, **facts})


def descendants() -> set[int]:
    """The ids of all processes that this one started and that theirs started."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text()
        except OSError:
            continue  # it has ended
        state, parent = status.rpartition(")")[2].split()[:2]
        if state != "Z":  # it has ended, and only waits for whoever inherited it to take notice
            children.setdefault(int(parent), []).append(int(folder.name))
    found: set[int] = set()
    waiting = [os.getpid()]
    while waiting:
        new = children.get(waiting.pop(), [])
        found.update(new)
        waiting.extend(new)
    return found


class ExecutorSuite:
    """What every part of the suite has: the factory a subclass gives, and the fixture made with it."""

    output_limit_bytes: ClassVar[int] = 1 << 20
    """The most output that an invocation of the executor made here may have."""
    log_limit_bytes: ClassVar[int] = 16 << 10
    """The most that an invocation of the executor made here may log."""

    @classmethod
    def make_executor(cls, host: Host) -> FunctionExecutor:
        """An executor with the limits above and two workers, if it has workers. `host` is what the
        runner would hand to your provider's `create`; its state_dir does not exist yet. Called for
        the class and again in some tests: several may be open at once, on folders of their own.
        Skip from here when your engine is not available."""
        raise NotImplementedError("a subclass of ExecutorContract implements the classmethod make_executor(host)")

    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
        """One executor for all tests of the class: what one test does to it the next must not feel."""
        bench = Bench(cls, tmp_path_factory.mktemp("executor"))
        yield bench
        bench.executor.close()
