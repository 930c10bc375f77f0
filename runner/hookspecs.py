"""Every hook of `runner`. A plugin implements those it needs with `@hookimpl`.

Hooks put the parts together at start-up and mark moments in the life of a run. They are no road for
data: an invocation itself is plain method calls. The reference in docs/ is generated from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pluggy

from runner.contracts import Builder, FunctionExecutor, FunctionRegistry, Provider
from runner.models import Function, InvocationContext, InvocationResult

if TYPE_CHECKING:
    from runner.records import Sink, Source
    from runner.triggers import TriggerSource  # many commands never need a queue

PROJECT = "runner"
"""The entry point group and pluggy's project name."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def runner_registries() -> Sequence[Provider[FunctionRegistry]]:  # type: ignore[empty-body]
    """Registry backends: what `registry:` in jobs.yaml can name.

    Called once when a Runner is put together or a listing needs names, in the main thread. Return a
    list of providers; keep imports of your backend inside their `create`, so that listing stays
    fast. An empty list is fine. A name that another plugin has taken disables your plugin, with an
    error that names both.
    """


@hookspec
def runner_executors() -> Sequence[Provider[FunctionExecutor]]:  # type: ignore[empty-body]
    """Executors: what `executor:` in jobs.yaml can name.

    Called once, like runner_registries, and under the same rules. `available` of the provider is
    what `runner engines list` shows and what `executor: auto` asks; it must neither import the
    engine nor start a process that outlives it.
    """


@hookspec
def runner_builders() -> Sequence[Provider[Builder]]:  # type: ignore[empty-body]
    """Builders: what compiles the file that `source:` in jobs.yaml names, chosen by its suffix.

    Called once, like runner_registries, and under the same rules. The provider's name must be its
    suffixes joined by a comma (`.c,.cpp`), so that a source file finds its builder without creating
    any other.
    """


@hookspec
def runner_triggers() -> Sequence[Provider[TriggerSource]]:  # type: ignore[empty-body]
    """Triggers: the kinds that a job's `triggers:` in jobs.yaml can name (`- cron: {...}`).

    Called once, like runner_registries, and under the same rules. The provider's name is the key of
    the list item and its `settings` the keys under it: the loader checks, documents and builds them,
    so that a job never starts with settings you have not accepted. `create` is given no settings: one
    source serves all triggers of its kind (see runner.triggers).
    """


@hookspec
def runner_sources() -> Sequence[Provider[Source]]:  # type: ignore[empty-body]
    """Sources of records: the formats that `input:` of a batch in jobs.yaml can have.

    Called once, like runner_registries, and under the same rules. A mapping under `input:` belongs to
    the provider that its key `format` names, or else whose `suffixes` has the ending of its `path`; the
    other keys are those of the provider's `settings`, in which `path` is a string. Strings in settings
    have `{partition}` replaced before `create` is called. See Source in runner.records.
    """


@hookspec
def runner_sinks() -> Sequence[Provider[Sink]]:  # type: ignore[empty-body]
    """Sinks of records: the formats that `output:` of a batch in jobs.yaml can have.

    Called once, like runner_registries, and under the same rules; chosen as runner_sources are. See Sink
    in runner.records: output may not be seen by others before it is published, and as a whole.
    """


@hookspec
def runner_before_invocation(function: Function, context: InvocationContext) -> None:
    """An attempt is about to start: called by the dispatcher once for each attempt of a single
    invocation and once for each batch of records, in the thread that runs it.

    The return value is ignored. An exception is reported on stderr once and does not stop the
    attempt. Be quick: the guest waits.
    """


@hookspec
def runner_after_invocation(function: Function, context: InvocationContext, result: InvocationResult) -> None:
    """An attempt has ended, well or not; called as often and where runner_before_invocation is.

    `result` holds output or error, logs and measures. The return value is ignored, an exception is
    reported once and changes nothing.
    """


def spec_names() -> tuple[str, ...]:
    """The names of all hooks, in the order of this file."""
    return tuple(name for name, value in globals().items() if name.startswith("runner_") and callable(value))


Plugin = Any
"""A module or an object with hook implementations."""
