"""The keys of a pipeline: its steps, parameters and how many runs of it may go at once.

Declared like those in runner.jobskeys; what they mean together is checked in runner.steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from runner.keytypes import Name, documented
from runner.schema import Partial

MAX_ITEMS = 100_000
"""A `foreach` over more items than this needs a `max_items` of its own."""

ParamType = Literal["string", "integer", "number", "boolean", "json"]
ItemError = Literal["stop", "continue", "ignore"]


@dataclass(frozen=True, kw_only=True)
class ParamKeys:
    """A parameter of a pipeline. A type alone in place of the mapping is a parameter without a default."""

    type: ParamType = field(
        metadata=documented("What its value is; `json` takes any value.", called=("kind",), example="integer")
    )
    default: Any = field(
        default=None,
        metadata=documented("The value when none is given. Left out: one has to be given.", example="10"),
    )
    description: str | None = field(default=None, metadata=documented("What it is for, for listings."))


@dataclass(frozen=True, kw_only=True)
class ConcurrencyKeys:
    """How many runs of a pipeline may go at once; the others wait. An integer alone in place of the
    mapping is the `limit`."""

    limit: int = field(
        metadata=documented("How many at once.", minimum=1, maximum=1_000_000, called=("max_parallel", "max"))
    )
    key: str | None = field(
        default=None,
        metadata=documented(
            "Runs with the same key share the limit; it may hold look-ups into `params`, `input` and `run`, and other "
            "jobs of the namespace may use it too. Left out: the job's name.",
            called=("group",),
            example='"deploy-${{ params.region }}"',
        ),
    )


@dataclass(frozen=True, kw_only=True)
class TaskKeys:
    """What is run when a step before has failed and the pipeline is at its end otherwise. Its look-ups may
    also be `failure.step`, `failure.error_class` and `failure.message`, which tell of the first failure."""

    __one_of__: ClassVar[tuple[str, ...]] = ("run", "job")

    run: Name | None = field(
        default=None, metadata=documented("The function it calls.", called=("function", "fn", "call"), example="clean")
    )
    job: Name | None = field(
        default=None,
        metadata=documented(
            "The job of this file that it starts, whatever that is: a function, a batch, a pipeline. The step ends "
            "when that does.",
            example="clean_orders",
        ),
    )
    with_: Any = field(
        default=None,
        metadata=documented(
            "What it gets: any value, with look-ups. A string is sent as it is, anything else as compact JSON, and "
            "what is `${{ steps.NAME.output }}` as a whole is sent as the bytes that came out there. Left out: the "
            "item of its `foreach`, or else the pipeline's own input.",
            key="with",
            called=("input", "inputs", "args", "payload", "params"),
            example="{parts: '${{ steps.enrich.outputs }}'}",
        ),
    )
    retry_count: int | None = field(
        default=None,
        metadata=documented(
            "Attempts after the first, in place of the function's.",
            minimum=0,
            maximum=100,
            called=("retries", "retry", "max_retries"),
        ),
    )
    retry_delay_seconds: float | None = field(
        default=None,
        metadata=documented(
            "In place of the function's.", minimum=0, maximum=86400, called=("retry_delay", "backoff", "delay")
        ),
    )
    timeout_seconds: float | None = field(
        default=None,
        metadata=documented("Of one attempt, in place of the function's.", above=0, maximum=86400, called=("timeout",)),
    )
    description: str | None = field(default=None, metadata=documented("What it is for, for listings."))


@dataclass(frozen=True, kw_only=True)
class StepKeys(TaskKeys):
    """A step of a pipeline. Exactly one of `run` and `job` says what it runs."""

    needs: tuple[Name, ...] = field(
        default=(),
        metadata=documented(
            "The steps that have to end before it begins. Only what they did, and those before them, can be looked up.",
            called=("depends_on", "after", "requires", "need"),
            example="[shards]",
        ),
    )
    if_: str | None = field(
        default=None,
        metadata=documented(
            "When it is run, else it is `skipped`: `success()`, all it needs succeeded; `failure()`, a step before it "
            "failed; `always()`; or a comparison of look-ups and values with ==, !=, <, <=, >, >=, in or not in, which "
            "asks for `success()` as well unless it compares a step's `status`. Left out: `success()`.",
            key="if",
            called=("when", "condition", "only_if"),
            example='"${{ steps.count.output.rows }} > 0"',
        ),
    )
    foreach: Any = field(
        default=None,
        metadata=documented(
            "A list, or a look-up that finds one: it is run once for each item, which its `with` sees as `item`, and "
            "the item's place, from 0, as `index`.",
            called=("for_each", "map", "matrix", "loop", "with_items"),
            example="'${{ steps.shards.output.files }}'",
        ),
    )
    max_parallel: int | None = field(
        default=None,
        metadata=documented(
            "How many items are in the queue at once, at most. Left out: no limit but that of the workers.",
            minimum=1,
            maximum=1_000_000,
            called=("parallel", "concurrency", "parallelism"),
        ),
    )
    max_items: int = field(
        default=MAX_ITEMS,
        metadata=documented("With more items than this the step fails before the first.", minimum=1),
    )
    on_item_error: ItemError = field(
        default="stop",
        metadata=documented(
            "What a failed item means. `stop`: no other is begun, and the step fails. `continue`: all are run, and the "
            "step fails. `ignore`: all are run, and the step succeeds with null among its outputs.",
            called=("on_error", "continue_on_error", "fail_fast"),
        ),
    )


_PARAM_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "json": (object,),
}


def fits(type: str, value: Any) -> bool:
    """Whether a JSON value is one for a parameter of that type; true is no integer."""
    return isinstance(value, _PARAM_TYPES[type]) and (type in ("boolean", "json") or not isinstance(value, bool))


Params = ParamType | Annotated[ParamKeys, Partial()]
Concurrency = int | ConcurrencyKeys
