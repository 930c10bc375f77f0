"""`runner replay` and `runner repro`."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.cli import console
from runner.cli.completion import complete_function
from runner.cli.groups import ProjectCommand, json_option
from runner.cli.invoke import current_function
from runner.cli.names import FunctionName, FunctionNameType
from runner.cli.project import Project, pass_project
from runner.errors import UsageError

if TYPE_CHECKING:
    from runner.app import Runner
    from runner.config import SecretReference
    from runner.models import Function
    from runner.replay import Replayed
    from runner.repro import Repro

HOW = {
    "whole": "with the recorded clock, random bytes and host answers",
    "cut": "with a recording that was cut",
    "none": "with the same input only",
    "pure": "as a pure function, whose world never differs",
}
_attempt_option = click.option(
    "--attempt", type=click.IntRange(1), metavar="N", help="This attempt; the latest that ended by itself without it."
)


@click.command("replay", cls=ProjectCommand)
@click.argument("target", metavar="RUN|FILE|QUARANTINE:LINE")
@_attempt_option
@click.option(
    "--function",
    "other",
    metavar="NAME[@VERSION]",
    type=FunctionNameType(),
    shell_complete=complete_function,
    help="Run this function, as jobs.yaml has it now, or this version.",
)
@json_option
@pass_project
def replay(project: Project, target: str, attempt: int | None, other: FunctionName | None, as_json: bool) -> int:
    """Run a past run again, offline, and compare.

    It gets its input, and from the recording the clock, random bytes and host answers of then. Nothing is
    enqueued, written or asked for anew; a secret has the value that it has now. RUN is a number from
    `runner runs list`, FILE what `runner repro` made; that needs no jobs.yaml. A record of a quarantine is
    named by its line: rejected.jsonl:3. What was not recorded gets its input only.

    With --json one object: source, attempt, function, version, executor, recorded_by, recording (whole,
    cut, none, pure), same, status (succeeded, failed), duration_ms, error_class, message, differences
    (part, lines), notes. Exit status 1 when it was different.

    \b
    Examples:
      runner replay 12
      runner replay 12 --attempt 1 --function clean@4
      runner replay crash.repro
      runner replay rejected.jsonl:3
    """
    project.start_ahead()
    from runner.replay import replay as replay_repro

    with ExitStack() as stack:
        place = _Place.open(project, target, other, stack)
        repro = place.find(target, attempt, other)
        chosen = place.chosen(other)
        names = chosen[0].secrets if chosen is not None else repro.kept.secrets
        replayed = replay_repro(
            repro,
            place.plugins(),
            other=chosen,
            secrets=place.secrets(names),
            settings=place.settings(),
            folder=place.folder,
            notify=project.say,
        )
    notes = _notes(repro, replayed)
    if as_json:
        console.show_json(_facts(repro, replayed, notes))
    else:
        _show(repro, replayed)
        for note in notes:
            project.say(note)
    return 0 if replayed.is_same else 1


@click.command("repro", cls=ProjectCommand)
@click.argument("target", metavar="RUN|QUARANTINE:LINE")
@click.argument("packed", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@_attempt_option
@json_option
@pass_project
def repro(project: Project, target: str, packed: Path, attempt: int | None, as_json: bool) -> None:
    """Pack a past run or record into a file to replay anywhere.

    The file has the module, the input, the recording and how it ended: whoever gets it can run
    `runner replay FILE`, on another machine and without a jobs.yaml. It has no value of a secret that
    this jobs.yaml declares; all else that went into the run is in it, so mind whom you give it to.

    With --json one object: source, attempt, file, file_bytes, notes.

    \b
    Examples:
      runner repro 12 crash.repro
      runner repro 12 first.repro --attempt 1
      runner repro rejected.jsonl:3 bad-row.repro
    """
    from runner.replay import resolve
    from runner.repro import write

    if not target.isdigit() and not _is_record(target):
        raise UsageError(f"{target} is no RUN and no QUARANTINE:LINE; a number or, say, rejected.jsonl:3 is")
    if packed.exists():
        raise UsageError(f"{packed} is there already; name another file, or remove it")
    with project.open(bare=_is_record(target)) as runner:
        declared = runner.config.secrets
        found = _found(runner, target, attempt).without_secrets(resolve(tuple(declared), declared))
    size = write(packed, found)
    if as_json:
        notes = [found.lacks] if found.lacks else []
        facts = {
            "source": found.name,
            "attempt": found.attempt,
            "file": str(packed),
            "file_bytes": size,
            "notes": notes,
        }
        console.show_json(facts)
        return
    project.say(f"{found.name}: {console.size(size)} in {packed}; `runner replay {packed}` runs it, anywhere")
    if found.lacks:
        project.say(found.lacks)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """Where a replay takes place: in a project, or nowhere in particular."""

    project: Project
    runner: Runner | None
    folder: Path

    @classmethod
    def open(cls, project: Project, target: str, other: FunctionName | None, stack: ExitStack) -> _Place:
        """In a project where one is needed."""
        if target.isdigit() or other is not None or _is_record(target):
            runner = stack.enter_context(project.open(bare=_is_record(target)))
            return cls(project=project, runner=runner, folder=runner.cache_dir)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runner-replay-")))
        return cls(project=project, runner=None, folder=folder)

    def plugins(self) -> Any:
        """The plugins that are loaded."""
        return self.project.plugins() if self.runner is None else self.runner.plugins

    def find(self, target: str, attempt: int | None, other: FunctionName | None) -> Repro:
        """What is to be replayed."""
        from runner.repro import read

        if target.isdigit() or _is_record(target):
            assert self.runner is not None
            chosen = self.chosen(other)
            return _found(self.runner, target, attempt, chosen and chosen[0])
        _only_for_runs(attempt)
        return read(Path(target))

    def chosen(self, other: FunctionName | None) -> Any:
        """The function that is to run in place of its own, with its module."""
        if other is None or self.runner is None:
            return None
        function = current_function(self.runner, other, self.project.say)
        return function, self.runner.registry.get_wasm_bytes(function.wasm_cid)

    def secrets(self, names: tuple[str, ...]) -> dict[str, str]:
        """The values of those secrets that have one here."""
        from runner.replay import resolve

        declared: Any = self.runner.config.secrets if self.runner is not None else self._declared(names)
        return resolve(names, declared)

    def _declared(self, names: tuple[str, ...]) -> dict[str, SecretReference]:
        if not names or not self.project.file.exists():
            return {}
        from runner.loading import load

        return dict(load(self.project.file, self.plugins().catalogue).secrets)

    def settings(self) -> dict[str, Any]:
        """Settings of executors, as the project's functions have them."""
        functions = self.runner.config.functions.values() if self.runner is not None else ()
        return {each.executor.name: each.executor.settings for each in functions}


def _is_record(target: str) -> bool:
    """Whether it names a line of a quarantine."""
    return target.rpartition(":")[2].isdigit() and ":" in target and not Path(target).exists()


def _found(runner: Runner, target: str, attempt: int | None, function: Function | None = None) -> Repro:
    """What a number or a line of a quarantine names."""
    from runner.replay import of_quarantine, of_run

    if target.isdigit():
        return of_run(runner, int(target[:20]), attempt)
    _only_for_runs(attempt)
    path, _, line = target.rpartition(":")
    return of_quarantine(runner, Path(path), int(line[:18]), function)


def _only_for_runs(attempt: int | None) -> None:
    if attempt is not None:
        raise UsageError("--attempt is for a RUN: a file and a record have one attempt")


def _notes(repro: Repro, replayed: Replayed) -> list[str]:
    notes = [repro.lacks] if repro.lacks else []
    if repro.expected.output is None and repro.expected.error_class is None:
        notes.append("its output is not known any more, and was not compared")
    by = replayed.recorded_by
    if by and by.partition(" ")[0] != replayed.executor:
        notes.append(f"{by} ran it then, {replayed.executor} now")
    return notes


def _show(repro: Repro, replayed: Replayed) -> None:
    function = replayed.function
    how = HOW[replayed.recording]
    console.show(f"{repro.name}: {function.name}@{function.version} on {replayed.executor}, {how}")
    if replayed.is_same:
        console.show(f"{click.style('same', fg='green')}: {_ending(repro)}")
        return
    parts = ", ".join(difference.part for difference in replayed.differences)
    console.show(f"{click.style('different', fg='red')}: {parts}")
    for difference in replayed.differences:
        console.show(f"{difference.part}:")
        for line in difference.lines:
            color = {"-": "green", "+": "red"}.get(line[:1])
            console.show(f"  {click.style(console.printable(line), fg=color) if color else console.printable(line)}")


def _ending(repro: Repro) -> str:
    expected = repro.expected
    if expected.error_class is not None:
        return console.printable(f"{expected.error_class}: {expected.message}")
    return "it succeeded" if expected.output is None else f"{console.counted(len(expected.output), 'byte')} of output"


def _facts(repro: Repro, replayed: Replayed, notes: list[str]) -> dict[str, Any]:
    error = replayed.result.error
    return {
        "source": repro.name,
        "attempt": repro.attempt,
        "function": replayed.function.name,
        "version": replayed.function.version,
        "executor": replayed.executor,
        "recorded_by": replayed.recorded_by or None,
        "recording": replayed.recording,
        "same": replayed.is_same,
        "status": "succeeded" if error is None else "failed",
        "duration_ms": round(replayed.result.duration_ms, 3),
        "error_class": error.error_class if error else None,
        "message": str(error) if error else None,
        "differences": [{"part": each.part, "lines": list(each.lines)} for each in replayed.differences],
        "notes": notes,
    }
