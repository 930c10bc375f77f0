"""The program `runner`: its commands by name, and the one place where an error becomes a message and
an exit status.

A command returns its exit status, None for 0, and raises what went wrong.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import TextIO

import click

import runner
from runner.cli import console
from runner.cli.groups import Group, Lazy, global_options
from runner.cli.project import Project
from runner.errors import FileUnavailable, RunnerError

INTERRUPTED = 130
TERMINATED = 143
"""The exit status after Ctrl-C: 128 and the number of SIGINT, as shells have it."""
NOBODY_READS = 141
"""Likewise for SIGPIPE: the reader of stdout went away, and that is its good right."""
BUG = 70
"""An error that nobody foresaw; EX_SOFTWARE of sysexits.h."""

COMMANDS = {
    "init": Lazy("runner.cli.init", "init", "Make a starter project that is ready to run."),
    "validate": Lazy("runner.cli.validate", "validate", "Check jobs.yaml and the modules it names."),
    "run": Lazy("runner.cli.run", "run", "Run jobs, once and here."),
    "test": Lazy("runner.cli.test", "test", "Run the tests of jobs.yaml."),
    "graph": Lazy("runner.cli.graph", "graph", "Draw the steps of a job and what each of them needs."),
    "batch": Lazy("runner.cli.batch", "batch", "Run batch jobs: a function over many records."),
    "backfill": Lazy("runner.cli.backfill", "backfill", "Run the partitions of a batch job that are missing."),
    "map": Lazy("runner.cli.map", "map_records", "Run a function over many records, without a job."),
    "invoke": Lazy("runner.cli.invoke", "invoke", "Call one function."),
    "enqueue": Lazy("runner.cli.enqueue", "enqueue", "Put a run of a job into the queue, for a daemon to carry out."),
    "simulate": Lazy("runner.cli.simulate", "simulate", "Show when jobs would run, and run nothing."),
    "serve": Lazy("runner.cli.serve", "serve", "Serve the jobs, until told to end."),
    "status": Lazy("runner.cli.status", "status", "Tell which daemons serve and how much waits."),
    "runs": Lazy("runner.cli.runs", "runs", "The runs in the queue, and those that have ended."),
    "replay": Lazy("runner.cli.replay", "replay", "Run a past run again, offline, and compare."),
    "repro": Lazy("runner.cli.replay", "repro", "Pack a past run or record into a file to replay anywhere."),
    "why": Lazy("runner.cli.why", "why", "Tell why a run is what it is, or what became of a slot."),
    "dlq": Lazy("runner.cli.dlq", "dlq", "Dead letters: runs that used up their attempts."),
    "functions": Lazy("runner.cli.functions", "functions", "The functions in the registry."),
    "cache": Lazy("runner.cli.cache", "cache", "The results of pure functions, kept to be used again."),
    "logs": Lazy("runner.cli.logs", "logs", "Show what functions have logged."),
    "plugins": Lazy("runner.cli.plugins", "plugins", "The plugins that are installed."),
    "engines": Lazy("runner.cli.engines", "engines", "The engines that run functions."),
    "schema": Lazy("runner.cli.schema", "schema", "Print the JSON Schema of jobs.yaml."),
    "doctor": Lazy("runner.cli.doctor", "doctor", "Tell what works on this machine and what does not."),
}


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"runner {runner.__version__}")
        ctx.exit()


_version_option = click.Option(
    ["--version"],
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit.",
)


@click.command(
    "runner",
    cls=Group,
    lazy=COMMANDS,
    params=[*global_options(hidden=False), _version_option],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.pass_context
def root(ctx: click.Context) -> None:
    """Run the jobs of a repository's jobs.yaml, each invocation in its own sandbox.

    \b
    Begin:
      runner init demo && cd demo
      runner run

    The options below may also stand behind the command. Exit status: 0 all went well, 1 a job or
    function failed, 2 wrong usage or an invalid jobs.yaml, 3 something needed is not here, 4 the
    store refused, 130 interrupted.

    \b
    Completion of commands, jobs and functions, for ~/.bashrc (zsh and fish likewise):
      eval "$(_RUNNER_COMPLETE=bash_source runner)"
    """
    if ctx.ensure_object(Project).no_color:
        ctx.color = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status. `arguments` are those behind the program's name."""
    _prepare_streams()
    signal.signal(signal.SIGTERM, _terminate)
    if "_RUNNER_COMPLETE" in os.environ:
        root.main(prog_name="runner")  # completes and exits
    status = _ended(sys.argv[1:] if arguments is None else list(arguments))
    for stream in (sys.stdout, sys.stderr):
        if console.failure(stream) is not None:
            _forget(stream)
    return status


def _ended(arguments: list[str]) -> int:
    try:
        return _run(arguments)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        console.tell("interrupted")
        exec("")  # makes Python forget that it interrupted an `exec` of a dataclass: it would end itself by SIGINT
        return INTERRUPTED
    except SystemExit as end:
        if end.code == TERMINATED:
            console.tell("terminated")
        raise
    except BrokenPipeError:
        return NOBODY_READS
    except Exception as error:
        if isinstance(error, OSError) and console.failure(sys.stdout) is not None:
            console.tell_error(console.cannot_write(error))  # click was writing a help text
            return FileUnavailable.exit_status
        import traceback

        traceback.print_exc()
        console.tell("This is a bug in runner, or in a plugin that stands above: please report it with these lines.")
        return BUG


def _run(arguments: list[str]) -> int:
    with root.make_context("runner", arguments) as context:  # the context knows whether colours are wanted
        try:
            status: int | None = root.invoke(context)
            console.flush()
        except RunnerError as error:
            console.tell_error(error)
            return error.exit_status
    return status or 0


def _prepare_streams() -> None:
    """A character that the locale cannot write is shown escaped, and is no reason to end."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _terminate(_number: int, _: FrameType | None) -> None:
    raise SystemExit(TERMINATED)  # an exception, so that workers are ended and files put in order


def _forget(stream: TextIO) -> None:
    """What could not be written stays in the buffer, and Python flushes it once more as it ends: that
    must not complain again."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, stream.fileno())
