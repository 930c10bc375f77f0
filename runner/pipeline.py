"""What a pipeline does next: from its plan, its state and what has ended to the runs that are due now.

Pure: nothing here knows a store or a clock. What steps gave is asked of a World, whose answers never change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from runner.errors import LookupFailed
from runner.expressions import Raw, encode, fill, find, holds, kind, parse_condition, plain, sole
from runner.graph import reached
from runner.pipeline_state import BAD, ENDED, MESSAGE_CHARACTERS, State, StepState
from runner.plan import ON_FAILURE, ParamPlan, Plan, StepPlan
from runner.runs import MAX_PAYLOAD_BYTES, Failure, NewRun, RunStatus, StepEnded
from runner.stepkeys import fits

WINDOW = 2_000
"""So many items of a step are in the queue at once, unless its max_parallel says otherwise."""
TURN_BYTES = 8 * 1024 * 1024
"""One turn enqueues payloads of about so many bytes."""


class World(Protocol):
    """What a pipeline's run can look at."""

    namespace: str
    run_id: int

    def facts(self) -> Mapping[str, Any]:
        """What `run.` can be followed by."""

    def input(self) -> Raw:
        """Its own input. Raises RunnerError if it cannot be read."""

    def output(self, step: str) -> Raw:
        """What a step that succeeded gave."""

    def outputs(self, step: str, total: int) -> Raw:
        """What the items of a step that succeeded gave, as a list with null for those that failed.
        Raises LookupFailed for one that is no JSON, or when they are too much together."""

    def done(self, step: str, after: int, limit: int) -> Sequence[int]:
        """The items of a step, those after one, that need not be run again; in order."""


class Move(NamedTuple):
    """What is to be done now."""

    children: Sequence[NewRun] = ()
    """Runs to enqueue."""
    wake_after: int = 1
    """Look again when so many more of them have ended; see Parked."""
    progress: int = 0
    seat: tuple[str, int] | None = None
    """Wait for a seat, and look again then."""
    is_over: bool = False
    """There is nothing left to do."""
    failure: Failure | None = None
    """Of one that is over: why it has failed."""


def advance(plan: Plan, state: State, ended: Sequence[StepEnded], world: World) -> Move:
    """Take account of what has ended and find what is due; changes the state accordingly."""
    return _Turn(plan, state, world).take(ended)


def parameters(params: Mapping[str, ParamPlan], given: Raw) -> dict[str, Any]:
    """The value of every parameter, from the keys of an input or by default. Raises LookupFailed."""
    if not params:
        return {}
    values = given.value() if given.text.strip() else {}
    if not isinstance(values, Mapping):
        raise LookupFailed(f"{given.place} is {kind(values)}; a pipeline with params takes a mapping of them")
    found = {}
    for name, param in params.items():
        if name not in values and param.required:
            raise LookupFailed(f"the parameter {name!r} has no value; give one, of type {param.type}")
        value = values.get(name, param.default)
        if name in values and not fits(param.type, value):
            raise LookupFailed(f"the parameter {name!r} is {kind(value)} and has to be of type {param.type}")
        found[name] = value
    return found


class _Turn:
    """One advance."""

    def __init__(self, plan: Plan, state: State, world: World) -> None:
        self._plan, self._state, self._world = plan, state, world
        self._children: list[NewRun] = []
        self._room = TURN_BYTES
        self._scope: dict[str, Any] = {
            "steps": _Steps(plan, state, world),
            "run": world.facts(),
            "failure": state.failure or {},
        }

    def take(self, ended: Sequence[StepEnded]) -> Move:
        try:
            seat = self._open()
        except LookupFailed as error:
            return Move(is_over=True, failure=Failure.of(error))
        if seat is not None:
            return Move(seat=seat)
        for end in ended:
            self._absorb(end)
        for step in self._plan.steps.values():
            state = self._state.steps.get(step.name)
            if state is None and all(self._status(name) in ENDED for name in step.needs):
                state = self._begin(step)
            if state is not None and state.status == "running":
                self._fill(step, state)
        return self._move()

    def _open(self) -> tuple[str, int] | None:
        """Find the parameters; the seat that is needed, on the first turn if one is."""
        params = parameters(self._plan.params, self._world.input()) if self._plan.params else {}
        self._scope["params"] = params
        if self._state.is_open or self._plan.seats is None:
            self._state.is_open = True
            return None
        self._state.is_open = True
        name = fill({"key": self._plan.seat}, _With(self._scope, self._world), "concurrency")["key"]
        self._state.seat = seat = name if isinstance(name, str) else encode(name).decode()
        if seat in self._plan.held:
            raise LookupFailed(
                f"its concurrency key {seat!r} is that of a run which waits for it, so that neither could end; "
                "give one of the two jobs another key, or none"
            )
        return seat, self._plan.seats

    def _absorb(self, end: StepEnded) -> None:
        state, step = self._state.steps[end.step], self._plan.steps[end.step]
        self._state.seen = end.number
        state.live -= 1
        if end.status is RunStatus.SUCCEEDED:
            state.succeeded += 1
        else:
            state.failed += 1
            self._note(step, end.error_class or end.status.value.capitalize(), end.message or "", end.item)
        if state.total is None:
            ways = {RunStatus.SUCCEEDED: "succeeded", RunStatus.CANCELLED: "cancelled"}
            state.status = ways.get(end.status, "failed")
        else:
            self._close(step, state)

    def _note(self, step: StepPlan, error_class: str, message: str, item: int | None = None) -> None:
        """Remember the first failure, of the step and of all."""
        place = message if item is None else f"item {item}: {message}"
        state = self._state.steps[step.name]
        state.message = state.message or place[:MESSAGE_CHARACTERS]
        if self._state.failure is None and step.name != ON_FAILURE:
            self._state.failure = {"step": step.name, "error_class": error_class, "message": place}
            self._scope["failure"] = self._state.failure

    def _status(self, name: str) -> str:
        state = self._state.steps.get(name)
        return "" if state is None else state.status

    def _begin(self, step: StepPlan) -> StepState:
        state = self._state.steps[step.name] = StepState()
        reuse = self._plan.reuse
        try:
            if reuse is not None and step.name in reuse.whole:
                state.status, state.total = "succeeded", reuse.whole[step.name]
                state.failed = reuse.failed.get(step.name, 0)
                state.succeeded = 1 if state.total is None else state.total - state.failed
            elif not self._is_wanted(step):
                state.status = "skipped"
            elif step.foreach is None:
                self._enqueue(step, state, self._scope)
            else:
                self._open_items(step, state)
        except LookupFailed as error:
            self._fail(step, state, error)
        return state

    def _fail(self, step: StepPlan, state: StepState, error: LookupFailed) -> None:
        state.status = "failed"
        self._note(step, error.error_class, str(error))

    def _is_wanted(self, step: StepPlan) -> bool:
        condition = parse_condition(step.condition)
        if condition.function == "always":
            return True
        if condition.function == "failure":
            graph = {name: other.needs for name, other in self._plan.steps.items()}
            return any(self._status(name) in BAD for name in reached(graph, [step.name]))
        decides = any(lookup.path[0] == "steps" and lookup.path[2:3] == ("status",) for lookup in condition.lookups())
        if not decides and any(self._status(name) != "succeeded" for name in step.needs):
            return False
        where = f"steps.{step.name}.if"
        return bool(condition.function) or holds(condition, _With(self._scope, self._world), where)

    # Items

    def _open_items(self, step: StepPlan, state: StepState) -> None:
        total = len(self._items(step))
        if total > step.max_items:
            raise LookupFailed(f"steps.{step.name}.foreach has {total:,} items, and max_items is {step.max_items:,}")
        state.total = total
        self._close(step, state)

    def _items(self, step: StepPlan) -> Sequence[Any]:
        where = f"steps.{step.name}.foreach"
        found = plain(fill(step.foreach, _With(self._scope, self._world), where))
        if not isinstance(found, list):
            raise LookupFailed(f"{where} is {kind(found)}, and has to be a list")
        return found

    def _fill(self, step: StepPlan, state: StepState) -> None:
        """Enqueue items as long as there is room."""
        limit = step.max_parallel or WINDOW
        if state.total is None or state.next >= state.total or _is_stopping(step, state) or state.live >= limit:
            return
        items = self._items(step)
        done = self._done(step, state.next)
        skipped = next(done, None)
        while state.next < state.total and state.live < limit and self._room > 0 and not _is_stopping(step, state):
            number = state.next
            state.next += 1
            while skipped is not None and skipped < number:
                skipped = next(done, None)
            if skipped == number:
                state.succeeded += 1
                continue
            try:
                self._enqueue(step, state, {**self._scope, "item": items[number], "index": number}, number)
            except LookupFailed as error:
                state.failed += 1
                self._note(step, error.error_class, str(error), number)
        self._close(step, state)

    def _done(self, step: StepPlan, first: int) -> Iterator[int]:
        if self._plan.reuse is None or step.name not in self._plan.reuse.items:
            return
        after = first - 1
        while found := self._world.done(step.name, after, 1000):
            yield from found
            after = found[-1]

    def _close(self, step: StepPlan, state: StepState) -> None:
        """End a step of which no item runs any more and none is left to run."""
        if state.live or state.total is None or (state.next < state.total and not _is_stopping(step, state)):
            return
        state.status = "failed" if state.failed and step.on_item_error != "ignore" else "succeeded"

    def _enqueue(self, step: StepPlan, state: StepState, scope: Mapping[str, Any], item: int | None = None) -> None:
        payload = self._payload(step, _With(scope, self._world), f"steps.{step.name}.with")
        world, seat = self._world, self._state.seat
        held = self._plan.held if seat is None else (*self._plan.held, seat)
        target = step.target
        self._children.append(
            target.new_run(world.namespace, payload, step=step.name, item=item, parent_id=world.run_id, held=held)
        )
        self._room -= len(payload)
        state.live += 1

    def _payload(self, step: StepPlan, scope: Mapping[str, Any], where: str) -> bytes:
        if step.sends is None:
            found = scope["item"] if step.foreach is not None else scope["input"]
        else:
            lookup = sole(step.sends)
            found = fill(step.sends, scope, where) if lookup is None else find(lookup, scope, where)
        if isinstance(found, Raw):
            payload = found.text
        else:
            payload = found.encode(errors="surrogatepass") if isinstance(found, str) else encode(found)
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise LookupFailed(
                f"{where} has {len(payload):,} bytes, and a step gets {MAX_PAYLOAD_BYTES:,} at most; let steps leave "
                "what is large in files or a database, and pass on where it is"
            )
        return payload

    # The end of the turn

    def _move(self) -> Move:
        steps = self._state.steps
        running = [(self._plan.steps[name], state) for name, state in steps.items() if state.status == "running"]
        if running:
            wake_after = min(_endings(step, state) for step, state in running)
            return Move(self._children, wake_after, self._progress())
        bad = [name for name, state in steps.items() if state.status in BAD and name != ON_FAILURE]
        return Move(is_over=True, progress=100, failure=self._failure(bad[0]) if bad else None)

    def _failure(self, first: str) -> Failure:
        told = self._state.failure or {"step": first, "error_class": "", "message": "it failed"}
        state = self._state.steps[told["step"]]
        count = f" for {state.failed:,} of {state.total:,} items" if state.total is not None else ""
        return Failure(told["error_class"], f"step {told['step']!r} failed{count}: {told['message']}")

    def _progress(self) -> int:
        parts = [_share(self._state.steps.get(name)) for name in self._plan.steps]
        return min(99, int(100 * sum(parts) / len(parts)))


def _is_stopping(step: StepPlan, state: StepState) -> bool:
    """Whether no more items are begun."""
    return state.failed > 0 and step.on_item_error == "stop"


def _endings(step: StepPlan, state: StepState) -> int:
    """After how many more endings there is something to do about a step."""
    if state.total is None:
        return 1
    if state.next >= state.total or _is_stopping(step, state):
        return state.live
    return WINDOW // 2 if step.max_parallel is None and state.live >= WINDOW else 1


def _share(state: StepState | None) -> float:
    """How much of a step is done, from 0 to 1."""
    if state is None or (state.status == "running" and not state.total):
        return 0.0
    return 1.0 if state.status != "running" or not state.total else (state.succeeded + state.failed) / state.total


class _With(Mapping[str, Any]):
    """A scope to which the input is added; it is read only if it is looked up."""

    def __init__(self, scope: Mapping[str, Any], world: World) -> None:
        self._scope, self._world = scope, world

    def __getitem__(self, name: str) -> Any:
        return self._world.input() if name == "input" else self._scope[name]

    def __contains__(self, name: object) -> bool:
        return name == "input" or name in self._scope

    def __iter__(self) -> Iterator[str]:
        return iter([*self._scope, "input"])

    def __len__(self) -> int:
        return len(self._scope) + 1


class _Steps(Mapping[str, Any]):
    """What `steps.` can be followed by."""

    def __init__(self, plan: Plan, state: State, world: World) -> None:
        self._plan, self._state, self._world = plan, state, world

    def __getitem__(self, name: str) -> Any:
        return _Facts(self._plan.steps[name], self._state.steps.get(name), self._world)

    def __iter__(self) -> Iterator[str]:
        return iter(self._plan.steps)

    def __len__(self) -> int:
        return len(self._plan.steps)

    def __contains__(self, name: object) -> bool:
        return name in self._plan.steps


class _Facts(Mapping[str, Any]):
    """What `steps.NAME.` can be followed by."""

    def __init__(self, step: StepPlan, state: StepState | None, world: World) -> None:
        self._step, self._state, self._world = step, state, world
        self._names = ("status", "output", "text") if step.foreach is None else ("status", "outputs")

    def __getitem__(self, name: str) -> Any:
        status = "waiting" if self._state is None else self._state.status
        if name == "status":
            return status
        if self._state is None or status != "succeeded":
            raise LookupFailed(f"step {self._step.name!r} is {status} and gave nothing")
        if name == "outputs":
            return self._world.outputs(self._step.name, self._state.total or 0)
        output = self._world.output(self._step.name)
        return output if name == "output" else _decoded(output)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _decoded(output: Raw) -> str:
    try:
        return output.text.decode()
    except UnicodeDecodeError as error:
        raise LookupFailed(f"{output.place} is no text in UTF-8: {error}") from error
