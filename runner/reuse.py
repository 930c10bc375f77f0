"""Results of pure functions that are used again: looking for them, keeping them, saying what was done.

What a result is kept by is in recipe.py, where it is kept in results.py. Failures are never kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple, Protocol, TypeVar

from runner.config import Config
from runner.contracts import FunctionRegistry
from runner.dispatcher import Attempted
from runner.errors import NotAvailable
from runner.jobskeys import AUTO_EXECUTOR
from runner.models import Function, InvocationContext, InvocationResult
from runner.plugins import Plugins
from runner.recipe import Recipe, keys
from runner.results import Kept, NewResult, ResultCache

T = TypeVar("T")
Run = Callable[[Function, bytes, InvocationContext], T]
"""Carries out an invocation."""

REUSED, NEW, OFF, UNKNOWN = "reused", "new", "off", "unknown"
"""What is told of a result: it was used again; it was made, and kept; reuse was turned off; the executor
does not tell what its results depend on."""


class Look(NamedTuple):
    """One input of a pure function, and what is known for it."""

    state: str
    recipe: Recipe
    input: bytes
    key: bytes
    """Empty where nothing may be kept."""
    kept: Kept | None

    @property
    def result(self) -> InvocationResult | None:
        """What is to be used again; None: it has to be made."""
        kept = self.kept
        return None if kept is None else InvocationResult(kept.output, None, (), 0.0, kept.memory_peak_bytes)

    def facts(self) -> str:
        """What is kept with a run: JSON, for runner.reasons."""
        facts: dict[str, Any] = {"state": self.state, "parts": self.recipe.parts(self.input)}
        if self.kept is not None:
            made_at = datetime.fromtimestamp(self.kept.made_at, timezone.utc).isoformat()
            facts["from"] = {"run_id": self.kept.run_id, "made_at": made_at, "duration_ms": self.kept.duration_ms}
        return json.dumps(facts, separators=(",", ":"))


class Reuse:
    """The results of one project. Safe to use from several threads; `close` gives its cache back."""

    def __init__(
        self,
        *,
        enabled: Callable[[], bool],
        open_cache: Callable[[], ResultCache | None],
        identity: Callable[[Function], str | None],
        now: Callable[[], float],
    ) -> None:
        """`open_cache` is called at most once, when something may be found; `identity` tells everything of
        the executor of a function that its results depend on, None where nobody knows."""
        self._enabled, self._open_cache, self._identity, self._now = enabled, open_cache, identity, now
        self._cache: ResultCache | None = None
        self._opened = False

    def recipe(self, function: Function, env_vars: Mapping[str, str]) -> Recipe | None:
        """What its results depend on; None if they are not used again, for whatever reason."""
        if not function.pure or not self._enabled():
            return None
        identity = self._identity(function)
        return Recipe.of(function, env_vars, identity) if identity and self._ready() is not None else None

    def find(self, recipe: bytes, inputs: Sequence[bytes]) -> tuple[list[bytes], list[Kept | None]]:
        """The keys of these inputs under the digest of a recipe, and what is known for each."""
        wanted = keys(recipe, inputs)
        cache = self._ready()
        return wanted, [None] * len(wanted) if cache is None else cache.get(wanted, now=self._now())

    def put(self, function: Function, results: Sequence[NewResult]) -> None:
        """Keep results of a function."""
        cache = self._ready() if results else None
        if cache is not None:
            cache.put(function.namespace, function.name, results, now=self._now())

    def look(self, function: Function, inputs: Sequence[bytes], env_vars: Mapping[str, str]) -> list[Look]:
        """What is known for each of these inputs of a pure function, in order."""
        recipe = self.recipe(function, env_vars)
        if recipe is None:
            state = UNKNOWN if self._enabled() else OFF
            recipe = Recipe.of(function, env_vars, self._identity(function) or "")
            return [Look(state, recipe, input, b"", None) for input in inputs]
        wanted, found = self.find(recipe.digest(), inputs)
        return [
            Look(NEW if kept is None else REUSED, recipe, input, key, kept)
            for input, key, kept in zip(inputs, wanted, found, strict=True)
        ]

    def keep(self, function: Function, made: Sequence[tuple[Look, InvocationResult, int | None]]) -> None:
        """Keep what came of inputs that were looked for, each with the run that it was made in: the
        successes among them."""
        self.put(
            function,
            [
                NewResult(look.key, result.output, result.duration_ms, result.memory_peak_bytes, run_id)
                for look, result, run_id in made
                if look.key and result.output is not None
            ],
        )

    def recalled(
        self,
        function: Function,
        inputs: Sequence[bytes],
        env_vars: Mapping[str, str],
        run_ids: Sequence[int],
        make: Callable[[Sequence[bytes]], Iterator[InvocationResult]],
    ) -> Generator[InvocationResult, None, None]:
        """What is known for these inputs of a pure function and what `make` makes of the others, which is
        kept when the iterator is closed: for runs of the queue, in order. Successes tell in their `reuse`
        what was done."""
        looks = self.look(function, inputs, env_vars)
        made: list[tuple[Look, InvocationResult, int | None]] = []
        missing = [look.input for look in looks if look.kept is None]
        results = make(missing) if missing else iter(())
        try:
            for look, run_id in zip(looks, run_ids, strict=True):
                result = look.result or next(results)
                if result.output is not None:
                    if look.kept is None:
                        made.append((look, result, run_id))
                    result = result._replace(reuse=look.facts())
                yield result
        finally:
            if isinstance(results, Generator):
                results.close()
            self.keep(function, made)

    def attempted(self, run: Run[Attempted], function: Function, input: bytes, context: InvocationContext) -> Attempted:
        """What is known of the result of a pure function, or else what `run` makes of it, which is kept."""
        (look,) = self.look(function, (input,), context.env_vars)
        if look.result is not None:
            return Attempted(result=look.result, attempts=0, reused=True)
        attempted = run(function, input, context)
        self.keep(function, [(look, attempted.result, None)])
        return attempted

    def once(
        self, run: Run[InvocationResult], function: Function, input: bytes, context: InvocationContext
    ) -> InvocationResult:
        """The same for one attempt, and of any function: the result of one that is not pure is never known."""
        if not function.pure:
            return run(function, input, context)

        def attempt(*given: Any) -> Attempted:
            return Attempted(result=run(*given), attempts=1)

        return self.attempted(attempt, function, input, context).result

    @property
    def cache(self) -> ResultCache | None:
        """The cache itself, whether results are used again or not; None where there is none."""
        return self._ready()

    def close(self) -> None:
        """Give the cache back. May be called twice."""
        if self._cache is not None:
            self._cache.close()

    def _ready(self) -> ResultCache | None:
        if not self._opened:
            self._cache, self._opened = self._open_cache(), True
        return self._cache


class Project(Protocol):
    """What has results: a Runner."""

    config: Config
    may_reuse: bool
    plugins: Plugins

    @property
    def registry(self) -> FunctionRegistry:
        """What gives the cache."""

    def automatic_executors(self) -> Sequence[str]:
        """The executors that `auto` may take. Raises NotAvailable without any."""

    def tell_once(self, message: str) -> None:
        """Tell the user a sentence."""


def reuse_of(project: Project, now: Callable[[], float]) -> Reuse:
    """The results of a project. Nothing is opened before it is needed."""
    return Reuse(
        enabled=lambda: project.may_reuse and project.config.reuse.enabled,
        open_cache=lambda: project.registry.result_cache(
            max_bytes=project.config.reuse.max_mb << 20, tell=project.tell_once
        ),
        identity=lambda function: _identity(function, project),
        now=now,
    )


def _identity(function: Function, project: Project) -> str | None:
    """Everything of a function's executor that its results depend on; of `auto` that of every executor which
    it may take, in this order. None if one of them does not tell, or none is there."""
    configured = project.config.functions.get(function.name)
    choice = configured.executor if configured and configured.executor.name == function.executor else None
    try:
        names = project.automatic_executors() if function.executor == AUTO_EXECUTOR else [function.executor]
    except NotAvailable:
        return None
    told = []
    for provider in map(project.plugins.catalogue.executors.get, names):
        if provider is None or provider.identity is None:
            return None
        settings = choice.settings if choice else None
        if settings is None and provider.settings is not None:
            settings = provider.settings()
        told.append(provider.identity(settings))
    return " or ".join(told) or None
