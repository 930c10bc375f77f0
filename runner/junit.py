"""Reports of tests as JUnit XML, the form that CI systems read. Pure.

The elements are those of Jenkins' schema (https://llg.cubic.org/docs/junit/): a `testsuite` with a
`testcase` for each, in it `failure`, `error` or `skipped`, and `system-err`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from runner.verdicts import CaseReport

# What XML 1.0 has no way to write, not even as a reference. A carriage return it has, but readers change it.
_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]")


def junit_xml(
    reports: Sequence[CaseReport], *, suite: str, file: str, started_at: datetime, duration_ms: float
) -> bytes:
    """The whole document. `suite` is what tests are grouped under, `file` the jobs.yaml as the user would
    write it, `duration_ms` the wall-clock time of all together. Characters that XML cannot hold are written
    as `\\x1b`."""
    root = Element("testsuites", _totals(reports, duration_ms), name="runner")
    started = started_at.isoformat(timespec="seconds")
    element = SubElement(root, "testsuite", _totals(reports, duration_ms), name=_clean(suite), timestamp=started)
    for report in reports:
        _add(element, report, suite, file)
    indent(root)
    text: str = tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'.encode()


def _totals(reports: Sequence[CaseReport], duration_ms: float) -> dict[str, str]:
    def count(status: str) -> str:
        return str(sum(report.status == status for report in reports))

    counts = {"failures": count("failed"), "errors": count("error"), "skipped": count("skipped")}
    return {"tests": str(len(reports)), **counts, "time": _seconds(duration_ms)}


def _add(suite: Element, report: CaseReport, namespace: str, file: str) -> None:
    tested = report.case
    target = f"{namespace}.{tested.function or tested.job}"
    facts = {"name": tested.name, "classname": target, "time": _seconds(report.duration_ms)}
    place = {"file": file, "line": str(tested.line)}
    case = SubElement(suite, "testcase", {name: _clean(value) for name, value in {**facts, **place}.items()})
    if report.status in ("failed", "error", "skipped"):
        tag = {"failed": "failure", "error": "error", "skipped": "skipped"}[report.status]
        told = SubElement(case, tag, message=_clean(report.lines[0] if report.lines else ""))
        if report.status != "skipped":
            told.set("type", report.error.error_class if report.error is not None else "Difference")
            told.text = _clean("\n".join(report.lines))
    if report.stderr:
        SubElement(case, "system-err").text = _clean(report.stderr)


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds / 1e3:.3f}"


def _clean(text: str) -> str:
    return _FORBIDDEN.sub(_written, text)


def _written(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
