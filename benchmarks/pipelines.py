"""Pipelines through a real daemon: `python benchmarks/pipelines.py`. Single runs of the same function beside them.

Every step and item is a WebAssembly function in its own sandbox and a run of its own in the store: on the
disk (fsync) with its output before the pipeline counts it. The single runs are accepted beforehand, a
thousand at once, so that they are what the same queue does without a pipeline.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.durable import opened
from benchmarks.guests import COMMAND, INPUT
from benchmarks.measure import Row, in_rounds, median, show, wants_json
from runner.app import Runner
from runner.ledger import Run

ROUNDS = 3
ITEMS, MANY, CHAIN = 10_000, 100_000, 100
JOBS = {
    "single": {"run": "upper"},
    "fan": {
        "steps": {
            "each": {"run": "upper", "foreach": "${{ input }}", "with": ["${{ item }}", INPUT.decode()]},
        }
    },
    "bounded": {
        "steps": {
            "each": {
                "run": "upper",
                "foreach": "${{ input }}",
                "with": ["${{ item }}", INPUT.decode()],
                "max_parallel": 64,
            },
        }
    },
    "chain": {
        "steps": {
            f"s{number}": {"run": "upper", "needs": [f"s{number - 1}"] if number else []} for number in range(CHAIN)
        }
    },
}


@contextlib.contextmanager
def project() -> Iterator[Path]:
    """A folder with the jobs, in JSON, which is YAML."""
    with tempfile.TemporaryDirectory(prefix="runner-bench-") as folder:
        path = Path(folder)
        (path / "upper.wasm").write_bytes(COMMAND)
        functions = {"upper": {"wasm": "upper.wasm"}}
        file = {"version": 1, "namespace": "bench", "functions": functions, "jobs": JOBS}
        (path / "jobs.yaml").write_text(json.dumps(file))
        yield path


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon over it."""
    command = [sys.executable, "-m", "runner", "serve", "--file", str(folder / "jobs.yaml"), "--quiet"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def wait(runner: Runner, run_id: int) -> Run:
    """The run, once it has succeeded."""
    with runner.store.changes() as changes:
        while (run := runner.store.get(run_id)).finished_at is None:
            changes.wait(1)
            time.sleep(0.02)  # whoever waits must not take a core
    assert run.status.value == "succeeded", run
    return run


def seconds(run: Run) -> float:
    """From the first claim to the end."""
    assert run.started_at is not None
    assert run.finished_at is not None
    return (run.finished_at - run.started_at).total_seconds()


def pipeline(job: str, count: int) -> float:
    """Steps a second of a pipeline over so many items."""
    with project() as folder, serving(folder), opened(folder) as runner:
        wait(runner, runner.enqueue("fan", [b"[1,2,3,4,5,6,7,8,9,10]"])[0].run_id)
        payload = json.dumps(list(range(count))).encode()
        return count / seconds(wait(runner, runner.enqueue(job, [payload])[0].run_id))


def single(count: int) -> float:
    """Single runs a second."""
    with project() as folder, opened(folder) as runner:
        first = runner.enqueue("single", [INPUT])[0].run_id
        for start in range(0, count, 1000):
            runner.enqueue("single", [b'[1,"%s"]' % INPUT] * min(1000, count - start))
        with serving(folder):
            begun = wait(runner, first).started_at
            ended = wait(runner, first + count).finished_at
        assert begun is not None
        assert ended is not None
        return count / (ended - begun).total_seconds()


def chain() -> float:
    """Milliseconds from step to step, one after the other."""
    with project() as folder, serving(folder), opened(folder) as runner:
        wait(runner, runner.enqueue("single", [INPUT])[0].run_id)
        return seconds(wait(runner, runner.enqueue("chain", [INPUT])[0].run_id)) / CHAIN * 1e3


def many() -> Row:
    """A fan-out of 100,000: how fast, and how much memory the daemon had at most."""
    with project() as folder, serving(folder) as process, opened(folder) as runner:
        payload = json.dumps(list(range(MANY))).encode()
        run = wait(runner, runner.enqueue("fan", [payload])[0].run_id)
        status = Path(f"/proc/{process.pid}/status").read_text()
        size = (folder / ".runner/runner.db").stat().st_size
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return {"items": MANY, "steps_per_second": MANY / seconds(run), "daemon_mb": peak / 1024, "store_mb": size / 1e6}


def main() -> None:
    """Print the tables."""
    wanted = wants_json(__doc__)
    figures = in_rounds(
        ROUNDS,
        {
            "fan-out": lambda: pipeline("fan", ITEMS),
            "fan-out, 64 at once": lambda: pipeline("bounded", ITEMS),
            "single runs": lambda: single(ITEMS),
        },
    )
    floor = median(figures["single runs"])
    rows: list[Row] = [
        {
            "what": name,
            "median_steps_per_second": median(found),
            "best_steps_per_second": max(found),
            "by_single_runs": median(found) / floor,
        }
        for name, found in figures.items()
    ]
    show(f"{ITEMS:,} items, {ROUNDS} rounds", rows, as_json=wanted.json)
    show(f"A chain of {CHAIN} steps", [{"ms_per_step": median([chain() for _ in range(ROUNDS)])}], as_json=wanted.json)
    show("Many items", [many()], as_json=wanted.json)


if __name__ == "__main__":
    main()
