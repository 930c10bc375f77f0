"""The short form of benchmarks/chaos.py: real daemons under load, killed again and again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli_project import Orphans

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_nothing_is_lost_when_everything_is_killed() -> None:
    orphans = Orphans()
    paths = os.pathsep.join(path for path in (str(ROOT), *sys.path) if path)
    done = subprocess.run(
        [sys.executable, "benchmarks/chaos.py", "--rounds", "16", "--jobs", "200", "--seconds", "120", "--json"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=280,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    wrong = {row["what must be 0"]: row["count"] for row in rows if row.get("what must be 0") and row["count"]}
    assert (done.returncode, wrong) == (0, {}), done.stderr
    seen = {row["what"]: row["count"] for row in rows if "what" in row}
    assert seen["runs acknowledged"] >= 200
    assert seen["killed: daemon"] >= 2
    assert seen["executions traced"] > 50
    assert orphans.left() == []
