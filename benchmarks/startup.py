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
from benchmarks.measure import describe_machine, in_rounds, median, print_table

ROUNDS = 25
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
    runner = str(Path(sys.executable).parent / "runner")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "upper.wasm").write_bytes(COMMAND)
        Path(folder, "jobs.yaml").write_text("version: 1\nfunctions: {upper: {wasm: upper.wasm}}\n")
        measures = {
            "python -c pass": process(sys.executable, "-c", "pass", cwd=folder),
            "runner --version": process(runner, "--version", cwd=folder),
            "runner --help": process(runner, "--help", cwd=folder),
            "runner invoke (cached)": process(runner, "invoke", "upper", "--input", "text", cwd=folder),
        }
        for measure in measures.values():
            measure()
        figures = in_rounds(ROUNDS, **measures)
    print(f"# Whole processes: {describe_machine()}, {ROUNDS} rounds\n")
    nothing = median(figures["python -c pass"])
    rows = [
        [name, f"{median(taken):.0f} ms", f"{min(taken):.0f} ms", f"{median(taken) / nothing:.1f}"]
        for name, taken in figures.items()
    ]
    print_table(["command", "median", "least", "times python"], rows)


if __name__ == "__main__":
    main()
