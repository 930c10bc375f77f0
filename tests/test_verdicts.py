"""Whether what came of a test was expected, and the report of it in JUnit XML."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from runner.config import CaseConfig, Expectation, ExpectedOutput
from runner.errors import EngineUnavailable, Exited, FileUnavailable, Trapped
from runner.files import read_file
from runner.junit import junit_xml
from runner.models import LogEntry, LogLevel
from runner.verdicts import CaseReport, Outcome, is_a, judge, logged

TRAP = Outcome.of_error(Trapped("unreachable", "wasm `unreachable`", functions=["main"]), stderr="bad header\n")
EXIT = Outcome.of_error(Exited(3))
DONE = Outcome(output=b"ok\n")


def output(form: Any, value: Any) -> ExpectedOutput:
    return ExpectedOutput(form=form, value=value, line=1)


def lines(expect: Expectation, outcome: Outcome) -> list[str]:
    return list(judge(expect, outcome, read_file, Path("/p")).lines)


FAILS = Expectation(succeeds=False)


@pytest.mark.parametrize(
    ("expect", "outcome"),
    [
        (Expectation(succeeds=True), DONE),
        (FAILS, EXIT),
        (dataclasses.replace(FAILS, error="Exited", exit_code=3), EXIT),
        (dataclasses.replace(FAILS, error="InvocationError"), TRAP),
        (dataclasses.replace(FAILS, error="Trapped", trap="unreachable", message="bad head"), TRAP),
        (dataclasses.replace(FAILS, message="unreachable"), TRAP),
        (Expectation(succeeds=True, output=output("text", "ok\n")), DONE),
        (Expectation(succeeds=True, output=output("contains", "k")), DONE),
        (Expectation(succeeds=True, output=output("matches", "^ok$")), DONE),
        (Expectation(succeeds=True, output=output("json", {"a": [1]})), Outcome(output=b'{ "a":[1.0] }')),
        (
            Expectation(succeeds=True, counts={"records_in": 2}),
            Outcome(output=b"", counts={"records_in": 2, "failed": 0}),
        ),
        (FAILS, dataclasses.replace(EXIT, counts={"records_in": 2, "failed": 2})),
        (Expectation(succeeds=True, steps={"a": "skipped"}), Outcome(steps={"a": "skipped", "b": "failed"})),
    ],
)
def test_as_expected(expect: Expectation, outcome: Outcome) -> None:
    assert lines(expect, outcome) == []


@pytest.mark.parametrize(
    ("expect", "outcome", "told"),
    [
        (Expectation(succeeds=True), EXIT, ["expected it to succeed, and it failed: Exited: exited with code 3"]),
        (FAILS, DONE, ["expected it to fail, and it succeeded; its output:", "+ 1 | ok"]),
        (
            dataclasses.replace(FAILS, error="Trapped"),
            DONE,
            ["expected it to fail with Trapped, and it succeeded; its output:", "+ 1 | ok"],
        ),
        (dataclasses.replace(FAILS, error="Trapped"), EXIT, ["expected Trapped, got Exited: exited with code 3"]),
        (dataclasses.replace(FAILS, error="Exited", exit_code=4), EXIT, ["expected exit code 4, got 3"]),
        (
            dataclasses.replace(FAILS, error="Trapped", trap="integer_overflow"),
            TRAP,
            ["expected trap integer_overflow, got unreachable: Trapped: trapped: wasm `unreachable` in main"],
        ),
        (
            dataclasses.replace(FAILS, message="no such"),
            EXIT,
            ["expected 'no such' in its message, and nothing was logged; the message: Exited: exited with code 3"],
        ),
        (
            dataclasses.replace(FAILS, message="no such"),
            dataclasses.replace(EXIT, stderr="a", message="one\ntwo\x1b" + "x" * 400),
            ["expected 'no such' in its message or standard error; the message: Exited: one two␛" + "x" * 292 + "…"],
        ),
        (
            Expectation(succeeds=True, output=output("contains", "no")),
            DONE,
            ["expected 'no' somewhere in the output:", "+ 1 | ok"],
        ),
        (
            Expectation(succeeds=True, output=output("matches", "^k")),
            DONE,
            ["nothing in the output matches '^k':", "+ 1 | ok"],
        ),
        (
            Expectation(succeeds=True, output=output("json", [1])),
            Outcome(output=b"[2]"),
            ["the output differs:", "  [0]: expected 1, got 2"],
        ),
        (
            Expectation(succeeds=True, output=output("json", [])),
            Outcome(output=b"[NaN]"),
            ["the output is no JSON (NaN is no number):", "+ 1 | [NaN] (no line break at the end)"],
        ),
        (
            Expectation(succeeds=True, output=output("json", [])),
            Outcome(output=b"[" * 100_000),
            ["the output is no JSON (too many levels):", f"+ 1 | {'[' * 120}… (no line break at the end)"],
        ),
        (
            Expectation(succeeds=True, output=output("text", "a")),
            Outcome(),
            ["an output is expected, and what was run has none of its own"],
        ),
        (
            Expectation(succeeds=True, counts={"records_out": 5}),
            Outcome(output=b"", counts={"records_out": 1, "failed": 5}, failures=["a:1: Exited: x", "a:2: Exited: y"]),
            [
                "failed: expected 0, got 5",
                "  a:1: Exited: x",
                "  a:2: Exited: y",
                "  and 3 more",
                "records_out: expected 5, got 1",
            ],
        ),
        (
            Expectation(succeeds=True, steps={"a": "skipped", "b": "failed"}),
            Outcome(steps={"a": "succeeded"}),
            ["step a: expected skipped, got succeeded", "step b: expected failed, got nothing"],
        ),
    ],
)
def test_not_as_expected(expect: Expectation, outcome: Outcome, told: list[str]) -> None:
    assert lines(expect, outcome) == told


@pytest.mark.parametrize(
    ("error", "wanted", "is_one"),
    [
        ("Trapped", "Trapped", True),
        ("Trapped", "InvocationError", True),
        ("UnsupportedFeature", "InvalidModule", True),
        ("InvocationError", "Trapped", False),
        ("Trapped", "InvalidInput", False),
        ("Foreign", "InvocationError", False),
    ],
)
def test_errors_are_compared_as_they_derive(error: str, wanted: str, is_one: bool) -> None:
    assert is_a(error, wanted) is is_one


class TestFiles:
    def expect(self, path: Path) -> Expectation:
        return Expectation(succeeds=True, output=output("path", path), counts={"failed": 0})

    def test_same(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"ok\n")
        verdict = judge(self.expect(tmp_path / "a"), DONE, read_file, tmp_path)
        assert (verdict.lines, verdict.update) == ((), None)

    def test_other(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"no\n")
        verdict = judge(self.expect(tmp_path / "a"), DONE, read_file, tmp_path)
        assert verdict.lines[0] == "the output differs from a: expected 1 line (-), got 1 line (+)"
        assert verdict.update == (tmp_path / "a", b"ok\n")

    def test_not_there(self, tmp_path: Path) -> None:
        verdict = judge(self.expect(tmp_path / "b/a"), DONE, read_file, tmp_path)
        assert verdict.lines[0] == "b/a is not there yet; `runner test --update` writes it. The output:"
        assert verdict.update == (tmp_path / "b/a", b"ok\n")

    def test_not_written_when_something_else_is_wrong(self, tmp_path: Path) -> None:
        outcome = dataclasses.replace(DONE, counts={"failed": 1})
        assert judge(self.expect(tmp_path / "a"), outcome, read_file, tmp_path).update is None
        assert judge(self.expect(tmp_path / "a"), EXIT, read_file, tmp_path).update is None

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileUnavailable, match="Is a directory"):
            judge(self.expect(tmp_path), DONE, read_file, tmp_path)


def test_the_end_of_what_was_logged() -> None:
    entries = [LogEntry(LogLevel.STDERR, str(number), 0.0) for number in range(30)]
    assert logged(entries).splitlines() == [str(number) for number in range(10, 30)]
    assert logged([LogEntry(LogLevel.ERROR, "no", 0.0)]) == "[error] no"


# JUnit


def case(name: str) -> CaseConfig:
    return CaseConfig(
        name=name,
        function="f",
        job=None,
        description=None,
        input=None,
        records=None,
        env_vars={},
        secrets={},
        params={},
        mocks={},
        expect=Expectation(succeeds=True),
        line=7,
    )


def test_junit() -> None:
    reports = [
        CaseReport(case=case("good"), status="passed", duration_ms=12.3456),
        CaseReport(case=case("new"), status="updated", lines=("wrote a",)),
        CaseReport(
            case=case("bad"), status="failed", lines=("it <differs> & \x1b\0", "- \ud800\ufffe\r"), stderr="\x07]]>ü"
        ),
        CaseReport(case=case("broken"), status="error", lines=("no",), error=EngineUnavailable("e", "why")),
        CaseReport(case=case("left"), status="skipped", lines=("bad went wrong before it",)),
    ]
    data = junit_xml(
        reports,
        suite="shop",
        file="a b/jobs.yaml",
        started_at=datetime(2027, 1, 2, 3, 4, 5, 6, tzinfo=timezone.utc),
        duration_ms=2500,
    )
    root = ElementTree.fromstring(data)
    suite = root[0]
    totals = {"tests": "5", "failures": "1", "errors": "1", "skipped": "1", "time": "2.500"}
    assert (root.tag, suite.tag, len(root)) == ("testsuites", "testsuite", 1)
    assert dict(root.attrib) == {**totals, "name": "runner"}
    assert dict(suite.attrib) == {**totals, "name": "shop", "timestamp": "2027-01-02T03:04:05+00:00"}
    facts = {"name": "good", "classname": "shop.f", "time": "0.012", "file": "a b/jobs.yaml", "line": "7"}
    assert (dict(suite[0].attrib), list(suite[0])) == (facts, [])
    assert list(suite[1]) == []
    failure, stderr = suite[2]
    assert (failure.tag, failure.attrib["type"]) == ("failure", "Difference")
    assert failure.attrib["message"] == r"it <differs> & \x1b\x00"
    assert failure.text == "it <differs> & \\x1b\\x00\n- \\ud800\\ufffe\\x0d"
    assert (stderr.tag, stderr.text) == ("system-err", r"\x07]]>ü")
    assert (suite[3][0].tag, suite[3][0].attrib) == ("error", {"message": "no", "type": "EngineUnavailable"})
    assert (suite[4][0].tag, suite[4][0].attrib) == ("skipped", {"message": "bad went wrong before it"})
