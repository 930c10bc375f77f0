"""`runner map`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.cli.batch import check_choices, exit_status, only_option, restart_option, resume_option, shown
from runner.cli.completion import complete_function
from runner.cli.groups import ProjectCommand, json_option, no_reuse_option
from runner.cli.invoke import current_function, env_option
from runner.cli.names import FunctionName, FunctionNameType
from runner.cli.project import Project, pass_project

if TYPE_CHECKING:
    from runner.batchkeys import BatchKeys
    from runner.catalogue import Catalogue

_ON_ERROR = click.Choice(["fail", "skip", "quarantine"])


@click.command("map", cls=ProjectCommand)
@click.argument("function", metavar="FUNCTION[@VERSION]", type=FunctionNameType(), shell_complete=complete_function)
@click.option("-i", "--input", "source", metavar="PATH|-", required=True, help="Where records come from.")
@click.option("-o", "--output", "sink", metavar="PATH|-", required=True, help="Where the output goes.")
@click.option("--wasm", type=click.Path(path_type=Path), metavar="FILE", help="The function's module, or its source.")
@click.option("--input-format", metavar="NAME", help="What the input is, if its ending does not tell.")
@click.option("--output-format", metavar="NAME", help="Likewise the output.")
@click.option(
    "--isolation",
    type=click.Choice(["record", "chunk"]),
    default="record",
    show_default=True,
    help="What has fresh memory.",
)
@click.option(
    "--order", type=click.Choice(["input", "any"]), default="input", show_default=True, help="That of the output."
)
@click.option("--workers", type=click.IntRange(0, 256), default=0, help="Worker processes; one a core without it.")
@click.option("--every", type=click.IntRange(1), default=5000, show_default=True, help="Records between checkpoints.")
@click.option("--on-error", type=_ON_ERROR, default="fail", show_default=True, help="What a failed record means.")
@click.option("--rejects", metavar="FILE", help="Where quarantined records go; OUTPUT.rejected.jsonl without it.")
@click.option("--max-errors", type=click.IntRange(0), help="Fail with more failed records than this.")
@click.option("--max-rate", type=click.FloatRange(0, 1), help="Fail with a larger share of failed records.")
@env_option
@restart_option
@resume_option
@only_option
@no_reuse_option
@json_option
@pass_project
def map_records(project: Project, /, function: FunctionName, as_json: bool, **given: Any) -> int:
    """Run a function over many records, without a job.

    All that `batch:` of a job in jobs.yaml can say, `runner batch` is for; this is the same for a
    function that is registered, or declared in jobs.yaml, or that --wasm names: no jobs.yaml is needed
    then.

    --input and --output are paths, `-` for stdin or stdout, or a mapping as under `input:` and
    `output:` in jobs.yaml. A pattern in quotes means several files. The same command, given again after
    it was interrupted, goes on where it was. With --json see `runner batch`.

    \b
    Examples:
      runner map clean --input 'data/*.jsonl' --output out.jsonl
      runner map upper --wasm upper.wasm -i names.txt -o - | sort
      runner map clean -i '{path: shop.db, table: orders}' -o orders.jsonl.gz
    """
    restart, resume = given["restart"], given["resume"]
    check_choices(restart, resume)
    project.start_ahead()
    from runner.app import Runner
    from runner.batch.jobs import run_batch
    from runner.batch.mapping import job_of, with_module
    from runner.batch.running import Choices
    from runner.loading import load_if_any

    plugins = project.plugins()
    config = load_if_any(project.file, plugins.catalogue)
    if given["wasm"] is not None:
        config = with_module(config, function.name, given["wasm"])
    job, state = job_of(function.name, _keys(plugins.catalogue, function.name, given), given["env_vars"])
    with (
        shown(project, as_json) as progress,
        Runner(config, plugins, state_dir=project.state_dir, notify=progress.say) as runner,
    ):
        runner.may_reuse = not project.no_reuse
        report = run_batch(
            runner,
            job,
            current_function(runner, function, progress.say),
            state=state,
            choices=Choices(restart=restart, resume=resume),
            only_failed=given["only"] is not None,
            tell=progress.say,
            watch=progress.watch,
        )
        progress.ended(report)
    return exit_status([report])


def _keys(catalogue: Catalogue, function: str, given: dict[str, Any]) -> BatchKeys:
    """What would stand under `batch:`."""
    from runner.batch.mapping import STREAM, choice_of, stream_format
    from runner.batchkeys import BatchKeys, CheckpointKeys, OnErrorKeys

    source, sink = given["source"], given["sink"]
    source_format, sink_format = given["input_format"], given["output_format"]
    if source == STREAM and source_format is None:
        source_format = stream_format(catalogue, "input", sink, sink_format)
    if sink == STREAM and sink_format is None:
        sink_format = stream_format(catalogue, "output", source, source_format)
    return BatchKeys(
        function=function,
        input=choice_of(catalogue, "input", source, source_format),
        output=choice_of(catalogue, "output", sink, sink_format),
        isolation=given["isolation"],
        order=given["order"],
        workers=given["workers"],
        checkpoint=CheckpointKeys(every=given["every"]),
        on_error=OnErrorKeys(
            action=given["on_error"],
            path=given["rejects"],
            max_errors=given["max_errors"],
            max_rate=given["max_rate"],
        ),
    )
