"""Whole processes, from start to end: `python benchmarks/startup.py`.

The programs in turn, medians, beside the interpreter that starts and does nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.guests import COMMAND
from benchmarks.measure import Row, in_rounds, median, show, wants_json

ROUNDS = 25
NOTHING = "python -c pass"
# An installed program has its bytecode; an environment that forbids writing it would measure compiling.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def process(*command: str, cwd: str) -> Callable[[], float]:
    """Milliseconds from start to end of a process that must succeed."""

    def measure() -> float:
        started = time.perf_counter()
        subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, check=True)
        return (time.perf_counter() - started) * 1e3

    return measure


def main() -> None:
    """Print the table."""
    wanted = wants_json(__doc__)
    runner = str(Path(sys.executable).parent / "runner")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "upper.wasm").write_bytes(COMMAND)
        Path(folder, "jobs.yaml").write_text("version: 1\nfunctions: {upper: {wasm: upper.wasm}}\n")
        measures = {
            NOTHING: process(sys.executable, "-c", "pass", cwd=folder),
            "runner --version": process(runner, "--version", cwd=folder),
            "runner --help": process(runner, "--help", cwd=folder),
            "runner invoke (cached)": process(runner, "invoke", "upper", "--input", "text", cwd=folder),
        }
        for measure in measures.values():
            measure()
        figures = in_rounds(ROUNDS, measures)
    nothing = median(figures[NOTHING])
    rows: list[Row] = [
        {"command": name, "median_ms": median(taken), "least_ms": min(taken), "by_python": median(taken) / nothing}
        for name, taken in figures.items()
    ]
    show(f"Whole processes, {ROUNDS} rounds", rows, as_json=wanted.json)


if __name__ == "__main__":
    main()
