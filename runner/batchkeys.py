"""The keys under `batch:` of a job in jobs.yaml: what the loader, the JSON Schema and the reference are made from.

Which keys `input` and `output` have is their format's business: see runner_sources and runner_sinks in
runner.hookspecs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from runner.keytypes import Name, Value
from runner.keytypes import documented as _doc
from runner.kinds import Rule
from runner.schema import Custom

Input = Annotated[Any, Custom("source", "a mapping with `path`, or with `format` and its settings")]
Output = Annotated[Any, Custom("sink", "a mapping with `path`, or with `format` and its settings")]

PLACEHOLDER = re.compile(r"\{partition(?::([^{}]*))?\}")
"""What stands for the name of a partition, or for its day in a form of `date.strftime`."""

PartitionName = Annotated[
    str,
    Rule(pattern=r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", expected="a name (letters, digits, ., _ or -, at most 64)"),
]
"""It may become part of the name of a file."""

Isolation = Literal["record", "chunk"]
Order = Literal["input", "any"]
Action = Literal["fail", "skip", "quarantine"]
PartitionBy = Literal["day", "file", "value"]


@dataclass(frozen=True, kw_only=True)
class ChunkKeys:
    """How large the chunks of `isolation: chunk` are. A chunk ends with a record, before it passes either."""

    kb: int = field(
        default=128, metadata=_doc("Bytes of a chunk, in KiB.", minimum=1, maximum=65536, called=("size_kb", "size"))
    )
    records: int = field(
        default=1_000_000,
        metadata=_doc(
            "Records of a chunk; never more than `checkpoint.every`.", minimum=1, maximum=1_000_000, called=("lines",)
        ),
    )


@dataclass(frozen=True, kw_only=True)
class CheckpointKeys:
    """How much is done again, at the most, after the run was killed."""

    every: int = field(
        default=5000,
        metadata=_doc(
            "Records from one checkpoint to the next. Checkpoints that would follow so fast that they take more than a "
            "twentieth of the time are left out; unless the output is packed, there is one about every second, too.",
            minimum=1,
            maximum=1_000_000_000,
            called=("records", "interval"),
        ),
    )


@dataclass(frozen=True, kw_only=True)
class OnErrorKeys:
    """What happens to a record that still fails after the function's `retry_count`, or that is not what its
    format says. A bare `fail`, `skip` or `quarantine` in place of the mapping is its `action`."""

    action: Action = field(
        default="fail",
        metadata=_doc(
            "`fail` ends the run at the first one, `skip` leaves it out and counts it, `quarantine` keeps it in a file "
            "from which `runner batch JOB --only failed` runs it again."
        ),
    )
    path: Value | None = field(
        default=None,
        metadata=_doc(
            "The file of quarantined records, as JSON lines. Left out: the output's path with `.rejected.jsonl`.",
            called=("file",),
            example="data/rejected.jsonl",
        ),
    )
    max_errors: int | None = field(
        default=None,
        metadata=_doc("With more failed records than this the run ends as failed.", minimum=0, called=("max", "limit")),
    )
    max_rate: float | None = field(
        default=None,
        metadata=_doc(
            "With a larger share of failed records than this the run ends as failed. Looked at after 1,000 records "
            "and at the end.",
            minimum=0,
            maximum=1,
            called=("rate",),
            example="0.01",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class PartitionKeys:
    """Several independent parts of a batch, each with its own output, checkpoint and state. `{partition}` in
    the strings of `input`, `output` and `on_error.path` stands for the name of one."""

    by: PartitionBy = field(
        metadata=_doc(
            "`day`: one for each day, `{partition}` is 2026-11-25 and `{partition:%Y/%m/%d}` is 2026/11/25. `file`: "
            "one for each file of `input.path`, `{partition}` in the output is its name without endings. `value`: "
            "one for each of `values`."
        )
    )
    values: tuple[PartitionName, ...] = field(
        default=(), metadata=_doc("The partitions of `by: value`.", called=("names",), example="[eu, us]")
    )


@dataclass(frozen=True, kw_only=True)
class BatchKeys:
    """A function over many records: each record, or each chunk of them, is an invocation of its own."""

    function: Name = field(
        metadata=_doc("The function that gets the records.", called=("run", "fn", "call"), example="clean")
    )
    input: Input = field(
        metadata=_doc(
            "Where the records come from. `path` is a file, several by a pattern (in the order of their names), or `-` "
            "for stdin; its ending tells the format, else `format` does.",
            called=("source", "from"),
            example='{path: "data/in/*.jsonl"}',
        )
    )
    output: Output = field(
        metadata=_doc(
            "Where the output goes. It appears as a whole when the run has succeeded. `path` is a file, or `-` for "
            "stdout.",
            called=("sink", "to"),
            example="{path: data/out.jsonl}",
        )
    )
    isolation: Isolation = field(
        default="record",
        metadata=_doc(
            "`record`: fresh memory for every record. `chunk`: lines in, lines out; a chunk of records shares an "
            "instance, which is many times faster."
        ),
    )
    order: Order = field(
        default="input",
        metadata=_doc(
            "`input`: the output is in the order of the input. `any`: a record that takes long or is tried again does "
            "not keep the others waiting, and comes later."
        ),
    )
    workers: int = field(
        default=0,
        metadata=_doc("Worker processes; 0 is as many as the executor has.", minimum=0, maximum=256),
    )
    max_record_mb: int = field(
        default=16,
        metadata=_doc("The longest record, in MiB; a longer one has failed.", minimum=1, maximum=256),
    )
    chunk: ChunkKeys = field(default_factory=ChunkKeys, metadata=_doc("Sizes of chunks.", example="{kb: 64}"))
    checkpoint: CheckpointKeys = field(
        default_factory=CheckpointKeys, metadata=_doc("How often the run notes what is done.", example="{every: 5000}")
    )
    on_error: Action | OnErrorKeys = field(
        default="fail",
        metadata=_doc(
            "What a failed record means.",
            called=("errors",),
            example="{action: quarantine, path: data/rejected.jsonl, max_errors: 1000}",
        ),
    )
    partitions: PartitionKeys | None = field(
        default=None, metadata=_doc("Parts that run on their own.", called=("partition",), example="{by: day}")
    )


def on_error_of(keys: BatchKeys) -> OnErrorKeys:
    """The mapping that `on_error` means."""
    return keys.on_error if isinstance(keys.on_error, OnErrorKeys) else OnErrorKeys(action=keys.on_error)


def names_partition(settings: Any) -> bool:
    """Whether a format's settings have a text with `{partition}` in it."""
    return any(isinstance(text, str) and PLACEHOLDER.search(text) for text in vars(settings).values())
