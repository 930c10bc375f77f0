"""What a pipeline does next, as tables: without a store, a clock or a process."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import LookupFailed, UsageError
from runner.expressions import Raw
from runner.pipeline import TURN_BYTES, WINDOW, Move, advance, parameters
from runner.pipeline_state import ENDED, State, load, sources, taking_over
from runner.plan import ParamPlan, Plan, Reuse, StepPlan, Target
from runner.plan import load as load_plan
from runner.runs import MAX_PAYLOAD_BYTES, NewRun, RunStatus, StepEnded

BAD = object()
"""What a step does that fails."""
Behaviour = Callable[[NewRun], Any]
Steps = Mapping[str, Mapping[str, Any]]


class FakeWorld:
    """Remembers what steps gave."""

    namespace, run_id = "shop", 7

    def __init__(self, input: bytes = b"", kept: Mapping[tuple[str, int], bytes] | None = None) -> None:
        self.given = input
        self.kept = dict(kept or {})

    def facts(self) -> Mapping[str, Any]:
        return {"id": self.run_id, "job": "nightly"}

    def input(self) -> Raw:
        return Raw(self.given, "input")

    def output(self, step: str) -> Raw:
        return Raw(self.kept[step, 0], f"steps.{step}.output")

    def outputs(self, step: str, total: int) -> Raw:
        parts = [self.kept.get((step, item), b"null") for item in range(total)]
        return Raw(b"[" + b",".join(parts) + b"]", f"steps.{step}.outputs")

    def done(self, step: str, after: int, limit: int) -> Sequence[int]:
        return sorted(item for name, item in self.kept if name == step and item > after)[: min(limit, 2)]


def plan(steps: Steps, **facts: Any) -> Plan:
    """A plan from steps as jobs.yaml has them, in order."""
    made = {}
    for name, keys in steps.items():
        keys = {"max_items": 100_000, **keys}
        renamed = {{"with": "sends", "if": "condition"}.get(key, key): value for key, value in keys.items()}
        renamed["needs"] = tuple(renamed.get("needs", ()))
        target = Target(job="nightly", function=name, function_version=3, retry_count=1)
        made[name] = StepPlan(**{"name": name, "target": target, **renamed})
    return Plan(steps=made, **facts)


class Run:
    """A whole run: what it enqueued, in order, and how it ended."""

    def __init__(self, plan: Plan, behave: Behaviour = lambda _: b"{}", input: bytes = b"", **world: Any) -> None:
        self.plan, self.behave = plan, behave
        self.world = FakeWorld(input, **world)
        self.state = State()
        self.live: list[NewRun] = []
        self.begun: list[str] = []
        self.payloads: dict[str, bytes] = {}
        self.moves: list[Move] = []
        self.ended = 0
        self.most = 0

    def turn(self, ended: Sequence[StepEnded] = ()) -> Move:
        """One advance, with a state that was stored in between."""
        self.state = load(self.state.dump())
        move = advance(load_plan(self.plan.dump()), self.state, ended, self.world)
        self.moves.append(move)
        for child in move.children:
            name = f"{child.step}" if child.item is None else f"{child.step}[{child.item}]"
            self.begun.append(name)
            self.payloads[name] = child.payload
            self.live.append(child)
        self.most = max(self.most, len(self.live))
        return move

    def end(self, index: int = 0) -> StepEnded:
        """Let one run end as its step behaves."""
        child = self.live.pop(index)
        self.ended += 1
        result = self.behave(child)
        facts = (self.ended, 100 + self.ended, child.step or "", child.item)
        if isinstance(result, RunStatus):
            return StepEnded(*facts, result, None, "stopped by hand")
        if result is BAD:
            return StepEnded(*facts, RunStatus.DEAD, "Trapped", "trapped: boom")
        self.world.kept[child.step or "", child.item or 0] = result
        return StepEnded(*facts, RunStatus.SUCCEEDED, None, None)

    def finish(self, pick: Callable[[int], int] = lambda _: 0) -> Run:
        """Let everything end, as many at a time as were asked to be waited for."""
        move = self.turn()
        while not move.is_over:
            if move.seat is not None:
                move = self.turn()
                continue
            ended: list[StepEnded] = []
            while len(ended) < max(move.wake_after, 1):
                ended.append(self.end(pick(len(self.live))))
                if ended[-1].status is not RunStatus.SUCCEEDED:
                    break
            move = self.turn(ended)
        assert not self.live
        return self

    @property
    def statuses(self) -> str:
        return " ".join(f"{name}:{state.status}" for name, state in self.state.steps.items())

    @property
    def message(self) -> str:
        failure = self.moves[-1].failure
        return "" if failure is None else f"{failure.error_class}: {failure.message}"


def failing(*names: str) -> Behaviour:
    """These fail, by step or by `step[item]`."""

    def behave(run: NewRun) -> Any:
        return BAD if run.step in names or f"{run.step}[{run.item}]" in names else b'{"n": 3}'

    return behave


DIAMOND: Steps = {
    "a": {},
    "b": {"needs": ["a"]},
    "c": {"needs": ["a"]},
    "d": {"needs": ["b", "c"]},
}


@pytest.mark.parametrize(
    ("steps", "bad", "begun", "statuses"),
    [
        ({"a": {}}, (), "a", "a:succeeded"),
        ({"a": {}, "b": {}}, (), "a b", "a:succeeded b:succeeded"),
        (DIAMOND, (), "a b c d", "a:succeeded b:succeeded c:succeeded d:succeeded"),
        (DIAMOND, ("b",), "a b c", "a:succeeded b:failed c:succeeded d:skipped"),
        (DIAMOND, ("a",), "a", "a:failed b:skipped c:skipped d:skipped"),
        ({"a": {}, "b": {"needs": ["a"], "if": "always()"}}, ("a",), "a b", "a:failed b:succeeded"),
        ({"a": {}, "b": {"needs": ["a"], "if": "failure()"}}, ("a",), "a b", "a:failed b:succeeded"),
        ({"a": {}, "b": {"needs": ["a"], "if": "failure()"}}, (), "a", "a:succeeded b:skipped"),
        (
            {"a": {}, "b": {"needs": ["a"]}, "c": {"needs": ["b"], "if": "failure()"}},
            ("a",),
            "a c",
            "a:failed b:skipped c:succeeded",
        ),
        (
            {"a": {}, "b": {"needs": ["a"], "if": "${{ steps.a.output.n }} > 2"}, "c": {"needs": ["a"], "if": "1 > 2"}},
            (),
            "a b",
            "a:succeeded b:succeeded c:skipped",
        ),
        ({"a": {}, "b": {"needs": ["a"], "if": "1 < 2"}}, ("a",), "a", "a:failed b:skipped"),
        (
            {"a": {}, "b": {"needs": ["a"], "if": "${{ steps.a.status }} == 'failed'"}},
            ("a",),
            "a b",
            "a:failed b:succeeded",
        ),
        ({"a": {"if": "1 > 2"}, "b": {"needs": ["a"]}}, (), "", "a:skipped b:skipped"),
        ({"a": {}, "on_failure": {"needs": ["a"], "if": "failure()"}}, (), "a", "a:succeeded on_failure:skipped"),
        (
            {"a": {}, "b": {}, "on_failure": {"needs": ["a", "b"], "if": "failure()"}},
            ("a",),
            "a b on_failure",
            "a:failed b:succeeded on_failure:succeeded",
        ),
    ],
)
def test_order_and_conditions(steps: Steps, bad: Sequence[str], begun: str, statuses: str) -> None:
    run = Run(plan(steps), failing(*bad)).finish()
    assert (" ".join(run.begun), run.statuses) == (begun, statuses)
    assert bool(run.message) is bool(bad)


def test_what_a_child_is() -> None:
    run = Run(plan({"a": {"with": {"n": 1}}}), input=b"in")
    (child,) = run.turn().children
    assert (child.namespace, child.job, child.function, child.function_version) == ("shop", "nightly", "a", 3)
    assert (child.step, child.item, child.parent_id, child.retry_count) == ("a", None, 7, 1)
    assert child.payload == b'{"n":1}'


def test_another_pipeline_as_a_step() -> None:
    inner = plan({"x": {}})
    target = Target(job="inner", plan=json.loads(inner.dump()), queue="slow", priority=4)
    (child,) = Run(Plan(steps={"a": StepPlan(name="a", target=target)})).turn().children
    assert (child.job, child.function, child.queue, child.priority) == ("inner", None, "slow", 4)
    assert load_plan(child.plan) == inner


# What steps get


@pytest.mark.parametrize(
    ("sends", "expected"),
    [
        (None, b"\x00in\xff"),
        ("${{ input }}", b"\x00in\xff"),
        ("text", b"text"),
        ("${{ steps.a.output }}", b' {"s":"\xc3\xbc", "n": 1.0} '),
        ("${{ steps.a.text }}", b' {"s":"\xc3\xbc", "n": 1.0} '),
        ("${{ steps.a.output.s }}", b"\xc3\xbc"),
        ("${{ steps.a.output.n }}", b"1.0"),
        ({"all": "${{ steps.a.output }}", "id": "${{ run.id }}"}, b'{"all":{"s":"\xc3\xbc", "n": 1.0},"id":7}'),
        (["${{ steps.a.status }}", None], b'["succeeded",null]'),
        ("n=${{ steps.a.output.n }}", b"n=1.0"),
    ],
)
def test_what_a_step_gets(sends: Any, expected: bytes) -> None:
    steps = {"a": {}, "b": {"needs": ["a"], **({} if sends is None else {"with": sends})}}
    run = Run(plan(steps), lambda _: b' {"s":"\xc3\xbc", "n": 1.0} ', input=b"\x00in\xff").finish()
    assert run.payloads["b"] == expected


@pytest.mark.parametrize(
    ("step", "output", "message"),
    [
        (
            {"with": "${{ steps.a.output.x }}"},
            b"{}",
            "steps.b.with: ${{ steps.a.output.x }}: steps.a.output has no 'x'",
        ),
        ({"with": "${{ steps.a.output.x }}"}, b"hello", "steps.a.output is no JSON"),
        ({"with": ["${{ steps.a.output }}"]}, b"hello", "steps.a.output is no JSON"),
        ({"with": "${{ steps.a.text }}"}, b"\xff", "steps.a.output is no text in UTF-8"),
        ({"with": "${{ input.day }}"}, b"{}", "input is no JSON"),
        ({"if": "${{ steps.a.output }} > 3"}, b"[]", "steps.b.if: a list cannot be compared"),
        ({"foreach": "${{ steps.a.output }}"}, b"{}", "steps.b.foreach is a mapping, and has to be a list"),
        ({"foreach": "${{ steps.a.output }}"}, b"3", "steps.b.foreach is a number, and has to be a list"),
        ({"foreach": "${{ steps.a.output }}", "max_items": 2}, b"[1,2,3]", "has 3 items, and max_items is 2"),
        (
            {"with": ["${{ steps.a.output }}"]},
            b'"%s"' % (b"x" * MAX_PAYLOAD_BYTES),
            "and a step gets 16,777,216 at most",
        ),
    ],
)
def test_what_a_step_cannot_get(step: Mapping[str, Any], output: bytes, message: str) -> None:
    run = Run(plan({"a": {}, "b": {"needs": ["a"], **step}}), lambda _: output).finish()
    assert run.statuses == "a:succeeded b:failed"
    assert message in run.message
    assert run.message.startswith("LookupFailed: step 'b' failed")


def test_what_did_not_succeed_gave_nothing() -> None:
    steps: Steps = {"a": {}, "b": {"needs": ["a"], "if": "always()", "with": "${{ steps.a.output }}"}}
    run = Run(plan(steps), failing("a")).finish()
    assert run.statuses == "a:failed b:failed"
    assert run.message == "Trapped: step 'a' failed: trapped: boom"
    steps = {"a": {"if": "false"}, "b": {"needs": ["a"], "if": "always()", "with": "${{ steps.a.output }}"}}
    assert "step 'a' is skipped and gave nothing" in Run(plan(steps)).finish().message


def test_on_failure_is_told_of_the_first_failure() -> None:
    sends = "${{ failure.step }}|${{ failure.error_class }}|${{ failure.message }}|${{ steps.b.status }}"
    steps: Steps = {
        "a": {},
        "b": {"needs": ["a"]},
        "on_failure": {"needs": ["a", "b"], "if": "failure()", "with": sends},
    }
    run = Run(plan(steps), failing("a")).finish()
    assert run.payloads["on_failure"] == b"a|Trapped|trapped: boom|skipped"
    assert Run(plan(steps), failing("a", "on_failure")).finish().message == run.message


def test_a_step_that_is_cancelled() -> None:
    steps: Steps = {"a": {}, "b": {"needs": ["a"]}, "c": {"needs": ["a"], "if": "failure()"}}
    run = Run(plan(steps), lambda child: RunStatus.CANCELLED if child.step == "a" else b"").finish()
    assert run.statuses == "a:cancelled b:skipped c:succeeded"
    assert run.message == "Cancelled: step 'a' failed: stopped by hand"


# Parameters and seats


PARAMS = {
    "day": ParamPlan(name="day", type="string"),
    "limit": ParamPlan(name="limit", type="integer", required=False, default=10),
    "tags": ParamPlan(name="tags", type="json", required=False, default=None),
}


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (b'{"day": "mon"}', {"day": "mon", "limit": 10, "tags": None}),
        (b'{"day": "mon", "limit": 3, "tags": [1], "other": 5}', {"day": "mon", "limit": 3, "tags": [1]}),
    ],
)
def test_parameters(given_: bytes, expected: Mapping[str, Any]) -> None:
    assert parameters(PARAMS, Raw(given_, "input")) == expected


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        (b"", "the parameter 'day' has no value; give one, of type string"),
        (b"{}", "the parameter 'day' has no value"),
        (b"[]", "input is a list; a pipeline with params takes a mapping"),
        (b"hello", "input is no JSON"),
        (b'{"day": 3}', "the parameter 'day' is a number and has to be of type string"),
        (b'{"day": "x", "limit": 3.5}', "'limit' is a number and has to be of type integer"),
        (b'{"day": "x", "limit": true}', "'limit' is a boolean and has to be of type integer"),
        (b'{"day": "x", "limit": null}', "'limit' is null and has to be of type integer"),
    ],
)
def test_what_is_no_parameter(given_: bytes, message: str) -> None:
    with pytest.raises(LookupFailed) as caught:
        parameters(PARAMS, Raw(given_, "input"))
    assert message in str(caught.value)
    run = Run(plan({"a": {}}, params=PARAMS), input=given_).finish()
    assert (run.begun, run.statuses) == ([], "")
    assert message in run.message


def test_parameters_are_looked_up() -> None:
    steps = {"a": {"with": "${{ params.day }}/${{ params.limit }}", "if": "${{ params.tags }} == null"}}
    assert Run(plan(steps, params=PARAMS), input=b'{"day": "mon"}').finish().payloads == {"a": b"mon/10"}


def test_a_seat_comes_first() -> None:
    run = Run(plan({"a": {}}, params=PARAMS, seats=2, seat="x-${{ params.day }}"), input=b'{"day": "mon"}')
    assert run.turn() == Move(seat=("x-mon", 2))
    assert [child.step for child in run.turn().children] == ["a"]
    assert Run(plan({"a": {}}, seats=1, seat="${{ run.id }}")).turn().seat == ("7", 1)
    assert "no 'x'" in Run(plan({"a": {}}, seats=1, seat="${{ run.x }}")).finish().message


def test_a_seat_of_a_run_that_waits_for_this_one() -> None:
    inner = json.loads(plan({"b": {}}, seats=3, seat="${{ input.key }}").dump())
    between = json.loads(plan({"m": {"target": Target(job="inner", plan=inner)}}).dump())
    outer = Run(
        plan({"a": {"target": Target(job="between", plan=between)}}, seats=1, seat="${{ input.key }}"),
        input=b'{"key": "same"}',
    )
    assert outer.turn().seat == ("same", 1)
    (child,) = outer.turn().children
    middle = Run(load_plan(child.plan))
    (grandchild,) = middle.turn().children
    assert (
        "its concurrency key 'same' is that of a run which waits for it"
        in Run(load_plan(grandchild.plan), input=b'{"key": "same"}').finish().message
    )
    assert Run(load_plan(grandchild.plan), input=b'{"key": "other"}').turn().seat == ("other", 3)


# Items


FAN: Steps = {
    "list": {},
    "each": {"needs": ["list"], "foreach": "${{ steps.list.output }}"},
    "all": {"needs": ["each"], "with": {"parts": "${{ steps.each.outputs }}"}},
}


def lister(count: int, *bad: int) -> Behaviour:
    def behave(run: NewRun) -> Any:
        if run.step == "list":
            return json.dumps([f"f{number}" for number in range(count)]).encode()
        return BAD if run.item in bad else b'{"of": %d}' % (run.item or 0)

    return behave


def fan(**each: Any) -> Plan:
    return plan({**FAN, "each": {**FAN["each"], **each}})


def test_each_item_is_run_once() -> None:
    run = Run(fan(), lister(3)).finish()
    assert run.begun == ["list", "each[0]", "each[1]", "each[2]", "all"]
    assert [run.payloads[f"each[{number}]"] for number in range(3)] == [b"f0", b"f1", b"f2"]
    assert run.payloads["all"] == b'{"parts":[{"of": 0},{"of": 1},{"of": 2}]}'


@pytest.mark.parametrize(
    ("foreach", "sends", "payloads"),
    [
        ([1, "two", {"three": 3}], None, [b"1", b"two", b'{"three":3}']),
        (["${{ input.x }}", "${{ input }}"], None, [b"9", b'{"x": 9}']),
        ([{"n": 4}], "${{ item.n }}@${{ index }}", [b"4@0"]),
        ([7, 8], {"item": "${{ item }}", "of": "${{ input.x }}"}, [b'{"item":7,"of":9}', b'{"item":8,"of":9}']),
        ([], None, []),
    ],
)
def test_what_items_get(foreach: Any, sends: Any, payloads: list[bytes]) -> None:
    run = Run(
        plan({"a": {"foreach": foreach, **({} if sends is None else {"with": sends})}}), input=b'{"x": 9}'
    ).finish()
    assert list(run.payloads.values()) == payloads
    assert run.statuses == "a:succeeded"


@pytest.mark.parametrize(
    ("action", "begun", "statuses", "message"),
    [
        ("stop", 3, "list:succeeded each:failed all:skipped", "step 'each' failed for 1 of 9 items: item 2: trapped"),
        ("continue", 9, "list:succeeded each:failed all:skipped", "failed for 2 of 9 items: item 2: trapped: boom"),
        ("ignore", 9, "list:succeeded each:succeeded all:succeeded", ""),
    ],
)
def test_items_that_fail(action: str, begun: int, statuses: str, message: str) -> None:
    run = Run(fan(on_item_error=action, max_parallel=1), lister(9, 2, 5)).finish()
    assert sum(name.startswith("each") for name in run.begun) == begun
    assert run.statuses == statuses
    assert message in run.message
    if action == "ignore":
        assert json.loads(run.payloads["all"])["parts"][2:6] == [None, {"of": 3}, {"of": 4}, None]


def test_every_step_that_failed_tells_why() -> None:
    steps: dict[str, dict[str, Any]] = {
        "a": {"foreach": [1, 2, 3], "on_item_error": "continue"},
        "b": {"needs": ["a"], "if": "always()", "with": "${{ steps.a.outputs }}"},
        "c": {"if": "always()"},
    }
    run = Run(plan(steps), lambda child: BAD if child.step == "a" and child.item else b"{}").finish()
    told = {name: state.message for name, state in run.state.steps.items()}
    assert told == {
        "a": "item 1: trapped: boom",
        "b": "steps.b.with: ${{ steps.a.outputs }}: step 'a' is failed and gave nothing",
        "c": "",
    }
    assert run.message == "Trapped: step 'a' failed for 2 of 3 items: item 1: trapped: boom"


@pytest.mark.parametrize(("action", "live"), [("stop", 3), ("continue", 3)])
def test_what_runs_beside_a_failure_is_waited_for(action: str, live: int) -> None:
    run = Run(fan(on_item_error=action, max_parallel=4), lister(20, 0))
    run.turn()
    run.turn([run.end()])
    move = run.turn([run.end()])
    assert len(run.live) == live + (action == "continue")
    assert move.wake_after == (live if action == "stop" else 1)
    run.turn([run.end() for _ in range(len(run.live))] if action == "stop" else [])
    assert run.moves[-1].is_over is (action == "stop")


def test_an_item_that_cannot_be_looked_up() -> None:
    sends = "${{ item.name }}"
    items = [{"name": "a"}, {}, {"name": "c"}]
    run = Run(plan({"a": {"foreach": items, "with": sends, "on_item_error": "continue"}})).finish()
    assert run.begun == ["a[0]", "a[2]"]
    assert "failed for 1 of 3 items: item 1: steps.a.with: ${{ item.name }}: item has no 'name'" in run.message
    run = Run(plan({"a": {"foreach": items, "with": sends}})).finish()
    assert run.begun == ["a[0]"]
    assert Run(plan({"a": {"foreach": [{}] * 9, "with": sends, "on_item_error": "ignore"}})).finish().message == ""


def test_no_more_than_max_parallel() -> None:
    run = Run(fan(max_parallel=3), lister(40)).finish(lambda live: live // 2)
    assert run.most == 3
    assert all(move.wake_after == 1 for move in run.moves[:35])


def test_many_items_go_through_a_window() -> None:
    count = 5 * WINDOW
    run = Run(fan(), lister(count)).finish()
    assert run.most == WINDOW
    assert run.state.steps["each"].succeeded == count
    assert len(run.begun) == len(set(run.begun)) == count + 2
    assert len(run.moves) < 20  # and not one for each item
    assert len(run.state.dump()) < 1000
    percents = [move.progress for move in run.moves]
    assert percents == sorted(percents)
    assert percents[-1] == 100


def test_large_items_come_a_few_at_a_time() -> None:
    size = TURN_BYTES // 3
    items = ["x" * size] * 9
    run = Run(plan({"a": {"foreach": items}}))
    assert len(run.turn().children) == 4
    assert len(run.turn([run.end()]).children) == 4
    assert len(run.turn([run.end()]).children) == 1


# Going on from an earlier run


def test_only_what_failed_is_run_again() -> None:
    first = Run(fan(on_item_error="continue"), lister(9, 2, 5)).finish()
    again = taking_over(first.plan, first.state, (4,))
    assert again.reuse == Reuse(runs=(4,), whole={"list": None}, items=("each",))
    second = Run(again, lister(9, 5), kept=first.world.kept).finish()
    assert second.begun == ["each[2]", "each[5]"]
    third = Run(taking_over(again, second.state, (9, 4)), lister(9), kept=second.world.kept).finish()
    assert third.begun == ["each[5]", "all"]
    assert json.loads(third.payloads["all"])["parts"] == [{"of": number} for number in range(9)]
    assert third.statuses == "list:succeeded each:succeeded all:succeeded"
    assert third.plan.reuse is not None
    assert sources(third.plan, "list", 12) == (9, 4)
    assert sources(third.plan, "each", 12) == (12, 9, 4)
    assert sources(third.plan, "all", 12) == (12,)


def test_what_comes_behind_something_that_is_run_again_is_too() -> None:
    steps: Steps = {**DIAMOND, "z": {}, "e": {"needs": ["b"], "if": "always()"}}
    first = Run(plan(steps), failing("b")).finish()
    assert first.statuses == "a:succeeded z:succeeded b:failed c:succeeded e:succeeded d:skipped"
    again = taking_over(first.plan, first.state, (4,))
    assert again.reuse is not None
    assert list(again.reuse.whole) == ["a", "c", "z"]
    assert Run(again, kept=first.world.kept).finish().begun == ["b", "d", "e"]


def test_a_skipped_step_is_decided_again() -> None:
    steps: Steps = {
        "a": {},
        "b": {"needs": ["a"], "if": "1 > 2"},
        "c": {"needs": ["b"], "if": "always()"},
        "d": {"needs": ["c"]},
    }
    first = Run(plan(steps), failing("d")).finish()
    again = Run(taking_over(first.plan, first.state, (4,)), kept=first.world.kept).finish()
    assert (again.begun, again.statuses) == (["d"], "a:succeeded b:skipped c:succeeded d:succeeded")


def test_from_a_step_on() -> None:
    first = Run(plan(DIAMOND), failing("d")).finish()
    again = Run(taking_over(first.plan, first.state, (4,), start="b"), kept=first.world.kept).finish()
    assert again.begun == ["b", "d"]
    fan_again = Run(fan(), lister(3)).finish()
    whole = taking_over(fan_again.plan, fan_again.state, (4,), start="each")
    assert Run(whole, lister(3), kept=fan_again.world.kept).finish().begun == ["each[0]", "each[1]", "each[2]", "all"]
    last = Run(taking_over(fan_again.plan, fan_again.state, (4,), start="all"), kept=fan_again.world.kept).finish()
    assert last.begun == ["all"]
    assert last.payloads["all"] == fan_again.payloads["all"]


def test_from_a_step_behind_items_whose_failures_are_ignored() -> None:
    first = Run(fan(on_item_error="ignore"), lister(4, 1, 2)).finish()
    again = taking_over(first.plan, first.state, (4,), start="all")
    second = Run(again, lister(4), kept=first.world.kept).finish()
    assert second.begun == ["all"]
    assert second.payloads["all"] == first.payloads["all"]
    state = second.state.steps["each"]
    assert (state.status, state.total, state.succeeded, state.failed) == ("succeeded", 4, 2, 2)
    third = taking_over(again, second.state, (9, 4))
    assert Run(third, lister(4), kept=second.world.kept).finish().begun == ["each[1]", "each[2]", "all"]


def test_what_comes_before_has_to_have_succeeded() -> None:
    first = Run(plan(DIAMOND), failing("b")).finish()
    with pytest.raises(
        UsageError, match="step 'b' comes before 'd' and failed in run 4; run all of it, or with --failed"
    ):
        taking_over(first.plan, first.state, (4,), start="d")
    with pytest.raises(UsageError, match="step 'a' comes before 'd' and was not run in run 4"):
        taking_over(first.plan, State(), (4,), start="d")


def test_a_step_that_has_become_another() -> None:
    first = Run(fan(), lister(3)).finish()
    changed = plan({**FAN, "each": {"needs": ["list"]}})
    again = taking_over(changed, first.state, (4,))
    assert again.reuse is not None
    assert list(again.reuse.whole) == ["list"]


# Everything together


@st.composite
def pipelines(draw: st.DrawFn) -> Plan:
    steps: dict[str, dict[str, Any]] = {}
    for number in range(draw(st.integers(1, 7))):
        needs = draw(st.sets(st.sampled_from(sorted(steps)), max_size=3)) if steps else set()
        step: dict[str, Any] = {"needs": sorted(needs)}
        step["if"] = draw(st.sampled_from(["success()", "success()", "failure()", "always()", "1 == 1"]))
        if draw(st.booleans()):
            step["foreach"] = list(range(draw(st.integers(0, 6))))
            step["max_parallel"] = draw(st.sampled_from([None, 1, 2]))
            step["on_item_error"] = draw(st.sampled_from(["stop", "continue", "ignore"]))
        steps[f"s{number}"] = step
    return plan(steps)


@given(pipelines(), st.sets(st.integers(0, 60), max_size=8), st.randoms(use_true_random=False))
def test_every_pipeline_comes_to_its_end(made: Plan, bad: set[int], random: Any) -> None:
    count = iter(range(1000))
    run = Run(made, lambda _: BAD if next(count) in bad else b"1")
    run.finish(lambda live: random.randrange(live))
    assert set(run.state.steps) == set(made.steps)
    assert all(state.status in ENDED and not state.live for state in run.state.steps.values())
    assert len(run.begun) == len(set(run.begun))
    first: dict[str, int] = {}
    for number, name in enumerate(run.begun):
        first.setdefault(name.partition("[")[0], number)
    for name in first:
        assert all(first.get(needed, -1) < first[name] for needed in made.steps[name].needs)
    failed = any(state.status == "failed" for state in run.state.steps.values())
    assert bool(run.message) is failed
    again = taking_over(made, run.state, (4,))
    second = Run(again, kept=run.world.kept).finish()
    if not any(step.condition == "failure()" for step in made.steps.values()):
        assert not second.message
    assert not failed or second.begun or second.message
