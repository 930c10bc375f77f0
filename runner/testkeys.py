"""The keys under `tests:` of jobs.yaml: what the loader, the JSON Schema and the reference are made from.

What they mean together is checked in runner.cases. In code a test of jobs.yaml is a case: names that
begin with Test belong to pytest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from runner.jobskeys import InputKeys
from runner.keytypes import Name, Named, Value, Variable
from runner.keytypes import documented as _doc
from runner.schema import Custom, Partial

Records = Annotated[Any, Custom("source", "a mapping with `path`, or with `format` and its settings")]
ErrorName = Annotated[Any, Custom("error", "the name of an error's class")]
Ending = Literal["succeeded", "failed"]
StepEnding = Literal["succeeded", "failed", "skipped", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class ExpectedOutputKeys:
    """What the output has to be: exactly one of these. A plain string in place of the mapping is the whole
    output, in UTF-8, line breaks included."""

    __one_of__: ClassVar[tuple[str, ...]] = ("path", "json", "contains", "matches")

    path: Path | None = field(
        default=None,
        metadata=_doc(
            "A file that has the same bytes, relative to the folder of jobs.yaml. `runner test --update` writes it.",
            called=("file",),
            example="tests/out.csv",
        ),
    )
    json: Any = field(
        default=None,
        metadata=_doc(
            "A value; the output is JSON that stands for it, however it is written.", example="{total: 3, rows: []}"
        ),
    )
    contains: str | None = field(
        default=None,
        metadata=_doc("A text that stands somewhere in the output.", called=("includes", "has"), example="3 rows"),
    )
    matches: str | None = field(
        default=None,
        metadata=_doc(
            r"A regular expression of Python that is found in the output; `^` and `$` are the ends of a line, `\A` and "
            r"`\Z` those of the output.",
            called=("regex", "pattern"),
            example=r"'^total,\d+$'",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class ExpectKeys:
    """What has to come of it; all of it, and at least one thing. Without `error` or `status: failed` it has
    to succeed."""

    output: str | Annotated[ExpectedOutputKeys, Partial()] | None = field(
        default=None, metadata=_doc("The output.", called=("stdout", "result"), example="{path: tests/out.csv}")
    )
    status: Ending | None = field(default=None, metadata=_doc("How it ends.", example="failed"))
    error: ErrorName = field(
        default=None,
        metadata=_doc(
            "The class of the error that it ends with, such as Exited, Trapped, TimedOut or OutOfMemory; "
            "InvocationError is any of those with which a function ends.",
            called=("error_class", "raises", "exception"),
            example="Trapped",
        ),
    )
    message: str | None = field(
        default=None,
        metadata=_doc("A part of the error's message, or of what was logged to standard error.", example="bad header"),
    )
    exit_code: int | None = field(
        default=None,
        metadata=_doc(
            "The code with which it exits; `error` is Exited then.",
            minimum=1,
            maximum=0xFFFFFFFF,
            called=("exit_status", "code"),
            example="2",
        ),
    )
    trap: str | None = field(
        default=None,
        metadata=_doc("The kind of trap; `error` is Trapped then.", example="integer_divide_by_zero"),
    )
    records_in: int | None = field(
        default=None,
        metadata=_doc(
            "How many records there are. This and the next two go with `records` and with a batch.", minimum=0
        ),
    )
    records_out: int | None = field(default=None, metadata=_doc("How many records come out.", minimum=0))
    failed: int | None = field(
        default=None,
        metadata=_doc("How many records fail. Left out: none, where it has to succeed.", minimum=0),
    )
    steps: Mapping[Named, StepEnding] = field(
        default_factory=dict,
        metadata=_doc(
            "How steps of a pipeline end, by name.", called=("step",), example="{merge: succeeded, tell: skipped}"
        ),
    )


@dataclass(frozen=True, kw_only=True)
class MockKeys:
    """What a step of a pipeline comes to without being run: exactly one of `output`, `outputs` and `error`."""

    __one_of__: ClassVar[tuple[str, ...]] = ("output", "outputs", "error")

    output: str | InputKeys | None = field(
        default=None,
        metadata=_doc(
            "Its output, written as an input is: text, `path` or `json`. Of a step with `foreach`, that of each item.",
            called=("returns", "result"),
            example="{json: {files: [a, b]}}",
        ),
    )
    outputs: tuple[str | InputKeys, ...] | None = field(
        default=None,
        metadata=_doc("The outputs of a step with `foreach`, item by item.", example="[one, {json: {rows: 2}}]"),
    )
    error: ErrorName = field(
        default=None,
        metadata=_doc(
            "The class of the error with which it fails, at its last try.", called=("raises",), example="Trapped"
        ),
    )
    message: str | None = field(default=None, metadata=_doc("The error's message.", example="no such account"))


@dataclass(frozen=True, kw_only=True)
class CaseKeys:
    """A test, which `runner test` runs: what a function or a job is given, and what has to come of it.
    Exactly one of `function` and `job` says what is tested. Nothing of a test reaches the registry, the queue
    or a job's own output, no secret is looked up, and nothing is tried twice."""

    __one_of__: ClassVar[tuple[str, ...]] = ("function", "job")

    function: Name | None = field(
        default=None, metadata=_doc("The function that is called.", called=("run", "fn", "call"), example="clean")
    )
    job: Name | None = field(
        default=None,
        metadata=_doc("The job that is run: a function, a batch, a pipeline.", called=("pipeline",), example="nightly"),
    )
    description: str | None = field(default=None, metadata=_doc("What it shows, for listings."))
    input: str | InputKeys | None = field(
        default=None,
        metadata=_doc(
            "What it is given. Left out: the input of the job, or nothing.",
            called=("payload", "stdin", "with"),
            example="{path: tests/in.csv}",
        ),
    )
    records: Records = field(
        default=None,
        metadata=_doc(
            "Records in place of an input, written as the `input` of a batch: the function is called for each, with "
            "fresh memory. For a batch, in place of its own input.",
            called=("rows", "lines"),
            example="{path: tests/rows.jsonl}",
        ),
    )
    env_vars: Mapping[Variable, Value] = field(
        default_factory=dict,
        metadata=_doc(
            "The environment, over that of the job and the function.",
            called=("env", "environment", "vars"),
            example="{REGION: eu}",
        ),
    )
    secrets: Mapping[Named, Value] = field(
        default_factory=dict,
        metadata=_doc(
            "Made-up values for the secrets that its functions are granted; never real ones.",
            called=("secret",),
            example="{API_KEY: made-up}",
        ),
    )
    params: Mapping[Named, Any] = field(
        default_factory=dict,
        metadata=_doc(
            "Values of a pipeline's parameters.",
            called=("parameters", "args", "inputs", "arguments"),
            example='{day: "2027-01-01"}',
        ),
    )
    mocks: Mapping[Named, Annotated[MockKeys, Partial()]] = field(
        default_factory=dict,
        metadata=_doc(
            "Steps of a pipeline that are not run, by name, and what they come to instead.",
            called=("mock", "stubs", "fakes"),
            example="{notify: {output: ok}, charge: {error: Trapped}}",
        ),
    )
    expect: Annotated[ExpectKeys, Partial()] = field(
        metadata=_doc(
            "What has to come of it.",
            called=("expected", "expects", "assert"),
            example="{output: {path: tests/out.csv}}",
        )
    )
