"""Pipelines of jobs.yaml: from their keys to frozen configuration, with located errors.

Which keys there are is declared in runner.stepkeys. Here is what they mean together: that names are
declared, that `needs` makes no cycle and covers every look-up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from runner.config import ParamConfig, StepConfig
from runner.expressions import Lookup, lookups, parse_condition, sole
from runner.graph import find_cycle, inverted, reached
from runner.kinds import INVALID, is_x, show
from runner.plan import ON_FAILURE
from runner.schema import Given
from runner.stepkeys import ConcurrencyKeys, fits
from runner.yamlnodes import Entries, Items, Node, Scalar, join

RUN_FACTS = ("id", "job", "namespace", "trigger_type", "trigger", "slot")
"""What `run.` can be followed by."""
FAILURE_FACTS = ("step", "error_class", "message")
"""Likewise `failure.`."""
ONE_FACTS = ("status", "output", "text")
"""What `steps.NAME.` can be followed by for a step that is run once."""
MANY_FACTS = ("status", "outputs")
"""And for one with a `foreach`."""
_FOREACH_KEYS = ("max_parallel", "max_items", "on_item_error")
_FUNCTION_KEYS = ("retry_count", "retry_delay_seconds", "timeout_seconds")


class PipelineReader:
    """Reads what makes one job a pipeline. What is wrong goes to the job's reader, and the result may
    only be used if nothing is."""

    def __init__(self, job: Given, functions: Mapping[str, int], jobs: Mapping[str, int]) -> None:
        """`functions` and `jobs` are the declared names, with their lines."""
        self._job, self._functions, self._jobs = job, functions, jobs
        self._reader = job.reader
        self._steps: Mapping[str, Given] = job.values.get("steps") or {}
        self._params: Mapping[str, Any] = job.values.get("params", {})
        self._needs: dict[str, list[str]] = {}
        self._is_ordered = True
        node = job.nodes.get("steps")
        self._lines: dict[Any, int] = {}
        if isinstance(node, Entries):
            self._lines = {key.value: key.line for key, _ in node.entries if not is_x(key)}

    def read(self) -> dict[str, Any]:
        """The pipeline's fields of a JobConfig."""
        if not self._lines:
            self._job.report("steps", "a pipeline has at least one step")
        self._read_needs()
        steps = {name: self._step(name, given) for name, given in self._steps.items()}
        self._check_output()
        return {
            "params": MappingProxyType(self._read_params()),
            "steps": MappingProxyType(steps),
            "on_failure": self._read_on_failure(),
            "concurrency": self._read_concurrency(),
        }

    # The steps

    def _read_needs(self) -> None:
        for name, given in self._steps.items():
            node = given.nodes.get("needs")
            known = self._needs[name] = []
            for index, item in enumerate(node.items if isinstance(node, Items) else ()):
                needed = item.value if isinstance(item, Scalar) else None
                if not isinstance(needed, str) or needed not in given.values["needs"]:
                    continue  # reported already
                place = f"{join(given.where, 'needs')}[{index}]"
                if needed not in self._steps:
                    hint = self._reader.guess(needed, [other for other in self._steps if other != name])
                    self._reader.report(item, place, f"no step {needed!r} in this pipeline{hint}")
                elif needed in known:
                    self._reader.report(item, place, f"{needed!r} stands here twice")
                else:
                    known.append(needed)
        cycle = find_cycle(self._needs)
        if cycle:
            self._steps[cycle[0]].report("needs", f"a cycle: {_path(cycle, 'needs')}")
            self._is_ordered = False

    def _step(self, name: str, given: Given) -> StepConfig:
        if name == ON_FAILURE and ON_FAILURE in self._job.keys:
            self._reader.report(given.node, given.where, f"{ON_FAILURE!r} is the name of what runs on failure")
        self._check_target(given)
        many = "foreach" in given.nodes
        if many:
            self._check_foreach(name, given)
        for key in () if many else _FOREACH_KEYS:
            if key in given.keys:
                given.report(key, f"{key!r} goes with a `foreach`, and there is none")
        condition = given.values.get("if_", "success()")
        self._check_condition(name, given, condition)
        roots = {"params", "input", "run", "steps"} | ({"item", "index"} if many else set())
        self._check_texts(given, "with", roots | ({"failure"} if condition == "failure()" else set()), name)
        return self._config(name, given, condition=condition)

    def _config(self, name: str, given: Given, **facts: Any) -> StepConfig:
        names = ("needs", "foreach", "max_parallel", "max_items", "on_item_error", "description", *_FUNCTION_KEYS)
        values = {key: given.values[key] for key in names if key in given.values}
        values |= {"run": given.values.get("run"), "job": given.values.get("job"), "sends": given.values.get("with_")}
        line = self._lines[name] if name in self._steps else self._job.keys[name].line
        return StepConfig(name=name, line=line, **{**values, **facts})

    def _check_target(self, given: Given) -> None:
        run, job = given.values.get("run"), given.values.get("job")
        if run is not None and run not in self._functions:
            hint = self._reader.guess(run, self._functions)
            if run in self._jobs:
                hint = f"; there is a job of that name: write `job: {run}`"
            given.report("run", f"no function {run!r} is declared{hint or '; declare it under `functions`'}")
        if job is not None and job not in self._jobs:
            hint = self._reader.guess(job, self._jobs)
            if job in self._functions:
                hint = f"; there is a function of that name: write `run: {job}`"
            given.report("job", f"no job {job!r} is declared{hint}")
        for key in _FUNCTION_KEYS if "job" in given.keys else ():
            if key in given.keys:
                given.report(key, f"{key!r} goes with `run`; a job that is started has its own")
        if "with" in given.nodes and given.values.get("with_", INVALID) is None:
            given.report("with", "expected a value, got nothing; leave the key out if nothing is meant")

    def _check_foreach(self, name: str, given: Given) -> None:
        node, value = given.nodes["foreach"], given.values.get("foreach", INVALID)
        if value is INVALID:
            return
        expected = "a list, or a text that is one look-up such as ${{ steps.NAME.output }}"
        if not isinstance(value, list | str):
            given.reader.mismatch(node, join(given.where, "foreach"), expected)
            return
        if isinstance(value, str):
            try:
                found = sole(value)
            except ValueError:
                found = None  # reported with the other texts
            else:
                if found is None:
                    given.reader.mismatch(node, join(given.where, "foreach"), expected)
            if found is not None and found.path[0] == "params" and len(found.path) == 2:
                kind = self._type_of(str(found.path[1]))
                if kind not in ("json", ""):
                    given.report("foreach", f"{found.text} is of type {kind}, and a list is needed; declare it as json")
        self._check_texts(given, "foreach", {"params", "input", "run", "steps"}, name)

    def _check_condition(self, name: str, given: Given, text: str) -> None:
        try:
            condition = parse_condition(text)
        except ValueError as error:
            given.report("if", str(error))
            return
        for lookup in condition.lookups():
            self._check_lookup(
                lookup, given.nodes["if"], join(given.where, "if"), {"params", "input", "run", "steps"}, name
            )

    # Look-ups

    def _check_texts(self, given: Given, key: str, roots: set[str], step: str | None) -> None:
        node = given.nodes.get(key)
        for at, where in _texts(node, join(given.where, key)) if node is not None else ():
            try:
                found = list(lookups(at.value))
            except ValueError as error:
                self._reader.report(at, where, str(error))
                continue
            for lookup in found:
                self._check_lookup(lookup, at, where, roots, step)
        for at, where in _keys(node, join(given.where, key)) if node is not None else ():
            self._reader.report(at, where, "a look-up cannot stand in a key")

    def _check_lookup(self, lookup: Lookup, at: Node, where: str, roots: set[str], step: str | None) -> None:
        problem = self._problem(lookup, roots, step)
        if problem:
            self._reader.report(at, where, f"`${{{{ {lookup.text} }}}}`: {problem}")

    def _problem(self, lookup: Lookup, roots: set[str], step: str | None) -> str:
        """Why a look-up can find nothing, whatever happens; empty if it can."""
        root, *rest = lookup.path
        if root not in roots:
            if root in ("item", "index"):
                return f"there is no {root!r} without a `foreach`, nor in `if` and `foreach` themselves"
            return f"there is no {root!r} here{self._reader.guess(root, roots)}"
        if root == "steps":
            return self._problem_of_step(rest, step)
        if root == "params":
            return self._problem_of_fact(rest, "params", self._params) if rest else ""
        if root in ("run", "failure"):
            return self._problem_of_fact(rest, root, RUN_FACTS if root == "run" else FAILURE_FACTS)
        return ""

    def _problem_of_fact(self, rest: list[Any], root: str, known: Any) -> str:
        if not rest:
            return f"{root!r} alone says nothing; it has {', '.join(known)}"
        return "" if rest[0] in known else f"{root} has no {rest[0]!r}{self._reader.guess(rest[0], known)}"

    def _problem_of_step(self, rest: list[Any], step: str | None) -> str:
        if not rest:
            return "which step? Write steps.NAME.output"
        name = str(rest[0])
        if name not in self._steps:
            others = [other for other in self._steps if other != step]
            return f"no step {name!r} in this pipeline{self._reader.guess(name, others)}"
        if name == step:
            return "a step cannot look itself up"
        if step is not None and not self._is_covered(step, name):
            return f"it may not have ended by then; add {name!r} to `needs`"
        facts = MANY_FACTS if "foreach" in self._steps[name].keys else ONE_FACTS
        fact = rest[1] if len(rest) > 1 else None
        if fact in facts:
            return ""
        if fact == "outputs":
            return f"{name!r} has no `foreach`, so it has one output: steps.{name}.output"
        if fact in ("output", "text"):
            return f"{name!r} has a `foreach`, so it has many outputs: steps.{name}.outputs"
        return f"steps.{name} has {', '.join(facts)}{self._reader.guess(fact, facts) if fact is not None else ''}"

    def _is_covered(self, step: str, name: str) -> bool:
        if not self._is_ordered or name in self._needs[step]:
            return True
        return name in reached(self._needs, [step])

    # What belongs to the pipeline as a whole

    def _read_params(self) -> dict[str, ParamConfig]:
        found = {}
        for name, given in self._params.items():
            if isinstance(given, str):
                found[name] = ParamConfig(name=name, type=given, required=True)  # type: ignore[arg-type]
            elif "type" in given.values:
                type, default = given.values["type"], given.values.get("default")
                required = "default" not in given.keys
                if not required and not fits(type, default):
                    self._reader.mismatch(
                        given.nodes["default"], join(given.where, "default"), f"a default of type {type}"
                    )
                found[name] = ParamConfig(
                    name=name,
                    type=type,
                    default=default,
                    required=required,
                    description=given.values.get("description"),
                )
        return found

    def _type_of(self, name: str) -> str:
        given = self._params.get(name, "")
        return given if isinstance(given, str) else given.values.get("type", "")

    def _read_concurrency(self) -> ConcurrencyKeys | None:
        keys = self._job.values.get("concurrency")
        if isinstance(keys, int):
            return ConcurrencyKeys(limit=keys)
        node = self._job.nodes.get("concurrency")
        at = node.get("key") if isinstance(node, Entries) else None
        if keys is not None and isinstance(at, Scalar) and isinstance(at.value, str):
            where = join(join(self._job.where, "concurrency"), "key")
            try:
                for lookup in lookups(at.value):
                    self._check_lookup(lookup, at, where, {"params", "input", "run"}, None)
            except ValueError as error:
                self._reader.report(at, where, str(error))
        return keys

    def _read_on_failure(self) -> StepConfig | None:
        given = self._job.values.get("on_failure")
        if given is None:
            return None
        self._check_target(given)
        self._check_texts(given, "with", {"params", "input", "run", "steps", "failure"}, None)
        return self._config(ON_FAILURE, given, needs=tuple(self._steps), condition="failure()")

    def _check_output(self) -> None:
        last = [name for name, needing in inverted(self._needs).items() if not needing]
        if "output" in self._job.keys and len(last) > 1 and self._job.valid:
            names = " and ".join(map(repr, last))
            message = f"the steps {names} are all last, so there is no one output; let one of them need the others"
            self._job.report("output", message)


def check_cycles(jobs: Mapping[str, Given]) -> None:
    """Report a cycle of jobs that start each other by their steps."""
    started: dict[str, dict[str, Given]] = {}
    for name, job in jobs.items():
        tasks = [*(job.values.get("steps") or {}).values(), job.values.get("on_failure")]
        targets = {task.values.get("job"): task for task in tasks if task is not None}
        started[name] = {target: task for target, task in targets.items() if target in jobs}
    cycle = find_cycle(started)
    if cycle:
        started[cycle[0]][cycle[1]].report("job", f"a cycle: {_path(cycle, 'starts')}")
    else:
        _check_seats(jobs, started)


def _check_seats(jobs: Mapping[str, Given], started: Mapping[str, Mapping[str, Given]]) -> None:
    """Report `concurrency` keys whose runs could wait for each other for ever, as far as they hold no look-ups:
    a run keeps its place until the runs that it starts have ended."""
    keys = {name: key for name, job in jobs.items() if (key := _seat(name, job)) is not None}
    inner: dict[str, dict[str, tuple[str, str]]] = {key: {} for key in keys.values()}
    for name, key in keys.items():
        for other in sorted(reached(started, [name]) & keys.keys()):
            inner[key].setdefault(keys[other], (name, other))
    cycle = find_cycle(inner)
    if cycle:
        links = [(one, inner[one][other]) for one, other in pairwise(cycle)]
        told = " and ".join(
            f"{outer!r} has the key {key!r} while it waits for {other!r}" for key, (outer, other) in links
        )
        message = f"runs would wait for each other for ever: {told}, which has the key {cycle[-1]!r}; "
        jobs[links[0][1][0]].report("concurrency", f"{message}give one of them another key, or none")


def _seat(name: str, job: Given) -> str | None:
    """The key that the runs of a job share; None without any, or when it holds look-ups."""
    keys = job.values.get("concurrency")
    if keys is None:
        return None
    key = None if isinstance(keys, int) else keys.key
    return name if key is None else None if "${{" in key else key


def refuse_without_steps(job: Given) -> None:
    """Report the keys of a pipeline in a job that is none."""
    for key in ("params", "concurrency", "on_failure"):
        if key in job.keys:
            job.report(key, f"{key!r} belongs to a pipeline, which has `steps`")


def _path(cycle: list[str], verb: str) -> str:
    """`'a' needs 'b' and 'b' needs 'a'`."""
    return " and ".join(f"{one!r} {verb} {other!r}" for one, other in pairwise(cycle))


def _texts(node: Node, where: str) -> Iterator[tuple[Scalar, str]]:
    """Every text in a value, with its place."""
    if isinstance(node, Scalar) and isinstance(node.value, str):
        yield node, where
    elif isinstance(node, Items):
        for index, item in enumerate(node.items):
            yield from _texts(item, f"{where}[{index}]")
    elif isinstance(node, Entries):
        for key, item in node.entries:
            yield from _texts(item, join(where, key.value))


def _keys(node: Node, where: str) -> Iterator[tuple[Scalar, str]]:
    """Every key in a value that looks like a look-up, with its place."""
    if isinstance(node, Items):
        for index, item in enumerate(node.items):
            yield from _keys(item, f"{where}[{index}]")
    elif isinstance(node, Entries):
        for key, item in node.entries:
            if "${{" in show(key):
                yield key, where
            yield from _keys(item, join(where, key.value))
