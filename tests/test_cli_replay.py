"""`runner replay` and `runner repro`: runs of a real daemon once more, from the store and from files."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from runner.errors import InvalidInput
from runner.recordings import Kept
from runner.repro import LIMITS, Repro
from runner.testing import guests
from tests.cli_project import CliProject, Done
from tests.cli_queue import Queue
from tests.support import ENGINE_NAMES, eventually
from tests.world_guests import ASKS, ASKS_MORE, asks

pytestmark = pytest.mark.slow

SECRET = "s3cr3t-of-tests"
SPINS = guests.command("(loop br 0)")
JOBS = """version: 1
%s
secrets: {KEY: {env: KEY}, OTHER: {env: OTHER}}
defaults: {executor: %s, timeout_seconds: 20}
functions:
  asks: {wasm: asks.wasm, env_vars: {REGION: eu}}
  tells: {wasm: host.wasm, secrets: [KEY]}
  enqueues: {wasm: enqueue.wasm, allow: {enqueue: [quiet]}}
  pure: {wasm: asks.wasm, pure: true}
  spins: {wasm: spins.wasm, timeout_seconds: 0.3}
jobs:
  asks: {run: asks}
  quiet: {run: asks}
  tells: {run: tells}
  enqueues: {run: enqueues}
  pure: {run: pure}
  spins: {run: spins}
  reads: {run: asks, input: {path: input.bin}}
  writes: {run: asks, input: {path: input.bin}, output: {path: out.bin}}
"""


class Replays(CliProject):
    """A project of guests that ask the world."""

    def __init__(self, folder: Path, engine: str) -> None:
        super().__init__(folder)
        self.engine = engine
        self.environment |= {"KEY": SECRET}
        modules = {"asks": ASKS, "host": guests.HOST, "enqueue": guests.ENQUEUE, "spins": SPINS}
        for name, text in modules.items():
            self.write(f"{name}.wasm", guests.compiled(text))
        self.keep("{keep: failures}")

    def keep(self, recording: str) -> None:
        self.write("jobs.yaml", JOBS % (f"recording: {recording}", self.engine))

    def serve(self, job: str, data: bytes = b"") -> str:
        """Let a daemon carry out a run of the job; its number."""
        self.write("data.bin", data)
        number = self.run("enqueue", job, "--input", "@data.bin").text.strip()
        with closing(Queue(self).store) as store, self.start("serve") as daemon:
            assert eventually(lambda: store.get(int(number)).status.is_terminal, seconds=60)
            daemon.terminate()
            _, told = daemon.communicate(timeout=60)
        assert daemon.returncode == 0, told
        return number

    def replay(self, *arguments: str, status: int = 0) -> dict[str, object]:
        """The facts of a replay."""
        done = self.run("replay", *arguments, "--json")
        assert done.status == status, done.err
        (facts,) = done.rows
        return facts


@pytest.fixture(params=ENGINE_NAMES)
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Replays:
    return Replays(tmp_path, request.param)


@pytest.fixture
def single(tmp_path: Path) -> Replays:
    """For what has nothing to do with the engine."""
    return Replays(tmp_path, ENGINE_NAMES[0])


@pytest.fixture
def queue(single: Replays) -> Iterator[Queue]:
    queue = Queue(single)
    yield queue
    queue.store.close()


def names(data: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.namelist()


# From the store


def test_what_fails_here_and_now_is_kept(project: Replays) -> None:
    file = ".runner/failed/asks.repro"
    project.write("input.bin", asks(3))
    done = project.run("run", "reads")
    assert done.status == 1
    assert f"asks: `runner replay {file}` runs it again, as it was" in done.err
    facts = project.replay(file)
    assert (facts["same"], facts["recording"], facts["error_class"]) == (True, "whole", "Exited")
    project.write("fails.bin", asks(4))
    assert project.run("invoke", "asks", "--input", str(project.folder / "fails.bin")).status == 1
    assert "exited with code 4" in str(project.replay(file)["message"])
    (project.folder / file).unlink()
    assert project.run("invoke", "asks", "--input", str(project.write("fine.bin", asks()))).status == 0
    project.keep("{keep: none}")
    assert project.run("run", "reads").status == 1
    assert not (project.folder / file).exists()


def test_no_secret_is_kept_of_what_fails_here(single: Replays) -> None:
    single.write("host.wasm", guests.compiled(guests.command("unreachable")))
    secret = single.run("invoke", "tells", "--input", str(single.write("in.bin", f"it is {SECRET}")))
    assert (secret.status, "runner replay" in secret.err) == (1, False)
    assert single.run("invoke", "tells", "--input", str(single.write("in.bin", "nothing"))).status == 1
    assert SECRET.encode() not in (single.folder / ".runner/failed/tells.repro").read_bytes()
    single.keep("{max_kb: 1}")
    large = single.run("invoke", "tells", "--input", str(single.write("in.bin", "x" * 2000)))
    assert (large.status, "runner replay" in large.err) == (1, False)


def test_a_failure_is_the_same_again_and_another_version_differs(project: Replays) -> None:
    run = project.serve("asks", asks(3, sleep_seconds=0.001))
    done = project.run("replay", run)
    assert (done.status, done.text.splitlines()[-1]) == (0, "same: Exited: exited with code 3")
    assert "with the recorded clock, random bytes and host answers" in done.text
    facts = project.replay(run)
    assert (facts["same"], facts["recording"], facts["executor"]) == (True, "whole", project.engine)
    project.write("asks.wasm", guests.compiled(ASKS_MORE))
    project.run("invoke", "asks", "--input", "x")
    facts = project.replay(run, "--function", "asks@2", status=1)
    assert (facts["version"], facts["error_class"]) == (2, "ReplayDiverged")
    assert "where the recording has wait" in str(facts["message"])
    assert project.replay(run, "--function", "asks@1")["same"]
    changed = ASKS_MORE.rstrip().removesuffix(")") + "(type (func (param f64))))"
    project.write("asks.wasm", guests.compiled(changed))  # and registered by nobody
    assert project.replay(run, "--function", "asks", status=1)["version"] == 3


def test_everything_is_recorded_if_asked_for(project: Replays) -> None:
    run = project.serve("asks", asks())
    facts = project.replay(run, status=1)
    assert facts["recording"] == "none"
    assert "its input again" in str(facts["notes"])
    project.keep("{keep: all}")
    run = project.serve("asks", asks())
    facts = project.replay(run)
    assert (facts["recording"], facts["same"]) == ("whole", True)
    project.keep("{keep: none}")
    run = project.serve("asks", asks(3))
    assert project.replay(run, status=1)["recording"] == "none"


def test_host_calls_are_answered_and_nothing_happens(project: Replays) -> None:
    project.keep("{keep: all}")
    run = project.serve("enqueues", guests.enqueue(b"quiet", asks()))
    before = len(project.run("runs", "list", "--json").rows)
    assert project.replay(run)["same"]
    assert len(project.run("runs", "list", "--json").rows) == before == 2


def test_a_pure_function_needs_no_recording(project: Replays) -> None:
    project.keep("{keep: none}")
    run = project.serve("pure", asks(3, sleep_seconds=1000))
    facts = project.replay(run)
    assert (facts["same"], facts["recording"], facts["notes"]) == (True, "pure", [])


def test_a_killed_run_gets_its_input_again(project: Replays) -> None:
    run = project.serve("spins")
    facts = project.replay(run)
    assert (facts["error_class"], facts["same"]) == ("TimedOut", True)
    if project.engine != "wasmtime":  # which may stop a guest by itself at the deadline, and has its recording then
        assert facts["recording"] == "none"
        assert "its input again" in str(facts["notes"])


def test_a_recording_that_was_cut_says_so(single: Replays) -> None:
    single.keep("{max_kb: 1}")
    single.write("asks.wasm", guests.compiled(ASKS.replace("(i32.const 40)", "(i32.const 1000)")))
    run = single.serve("asks", asks(3))
    facts = single.replay(run, status=1)
    assert (facts["recording"], facts["error_class"]) == ("cut", "ReplayDiverged")
    assert "cut at 1,024 bytes" in str(facts["message"])


def test_inputs_and_outputs_of_files_are_kept_or_known_again(single: Replays) -> None:
    single.keep("{keep: all, max_kb: 1}")
    single.write("input.bin", asks())
    run = single.serve("writes")
    assert single.replay(run)["same"]
    single.write("input.bin", asks(4))
    assert single.replay(run)["same"]  # the input was short enough to be kept
    single.write("out.bin", b"changed")
    assert "not known any more" in str(single.replay(run)["notes"])
    single.write("input.bin", asks(4) + b"\0" * 2000)
    run = single.serve("reads")
    assert single.replay(run)["same"]
    single.write("input.bin", b"changed")
    done = single.run("replay", run)
    assert done.status == 1
    assert "input.bin has changed" in done.err


# Files


def test_a_file_runs_in_an_empty_folder(project: Replays, tmp_path_factory: pytest.TempPathFactory) -> None:
    run = project.serve("asks", asks(3))
    assert project.run("repro", run, "crash.repro").status == 0
    assert project.run("repro", run, "again.repro").status == 0
    data = (project.folder / "crash.repro").read_bytes()
    assert data == (project.folder / "again.repro").read_bytes()
    assert names(data) == ["facts.json", "module.wasm", "input", "recording.json"]
    elsewhere = CliProject(tmp_path_factory.mktemp("elsewhere"))
    elsewhere.environment["TMPDIR"] = str(tmp_path_factory.mktemp("temporary"))
    elsewhere.write("crash.repro", data)
    done = elsewhere.run("replay", "crash.repro")
    assert (done.status, done.text.splitlines()[-1]) == (0, "same: Exited: exited with code 3"), done.err
    assert {path.name for path in elsewhere.folder.iterdir()} <= {"crash.repro", "home"}
    assert not list(Path(elsewhere.environment["TMPDIR"]).iterdir())
    refused = project.run("repro", run, "crash.repro")
    assert (refused.status, "there already" in refused.err) == (2, True)


def test_no_secret_is_in_a_file(project: Replays, tmp_path_factory: pytest.TempPathFactory) -> None:
    project.keep("{keep: all}")
    run = project.serve("tells", guests.host_call("get_secret", b"KEY"))
    assert project.replay(run)["same"]
    assert project.run("repro", run, "told.repro").status == 0
    data = (project.folder / "told.repro").read_bytes()
    assert SECRET.encode() not in data
    with closing(Queue(project).store) as store:
        recording = store.recording(int(run), 1)
    assert recording is not None
    assert SECRET.encode() not in recording
    assert "not known any more" in str(project.replay("told.repro")["notes"])
    elsewhere = Replays(tmp_path_factory.mktemp("elsewhere"), project.engine)
    (elsewhere.folder / "jobs.yaml").unlink()
    elsewhere.write("told.repro", data)
    facts = elsewhere.replay("told.repro", status=1)
    assert "a recording never has the value of a secret, and the secret 'KEY' has none here" in str(facts["message"])


def test_an_input_with_a_secret_is_not_packed(single: Replays) -> None:
    run = single.serve("asks", asks(3) + SECRET.encode())
    done = single.run("repro", run, "x.repro")
    assert (done.status, "the value of the secret 'KEY'" in done.err) == (1, True)
    assert not (single.folder / "x.repro").exists()


def test_what_is_no_repro_file_is_refused(single: Replays) -> None:
    run = single.serve("asks", asks(3))
    single.run("repro", run, "good.repro")
    data = (single.folder / "good.repro").read_bytes()
    Repro.unpack(data)
    parts = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}

    def packed(**changed: bytes | None) -> bytes:
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, part in {**parts, **{name.replace("_", "."): part for name, part in changed.items()}}.items():
                if part is not None:
                    archive.writestr(name, part)
        return target.getvalue()

    assert Repro.unpack(packed()) == Repro.unpack(data)
    facts = json.loads(parts["facts.json"])

    def with_facts(**changed: object) -> bytes:
        return packed(facts_json=json.dumps({**facts, **changed}).encode())

    for bad in (
        *(b"", b"PK", data[:100], data[:-30], packed(module_wasm=b"other"), packed(facts_json=b"[" * 99_999)),
        *(packed(facts_json=b"\xff"), packed(input=None), packed(more=b"x"), packed(module_wasm=None)),
        *(with_facts(kept={}), with_facts(kept={**facts["kept"], "version": "1"}), with_facts(expected=7)),
        *(with_facts(kept={**facts["kept"], "env_vars": {"A": 1}}), with_facts(name=7), with_facts(name="\ud800")),
        *(with_facts(kept={**facts["kept"], "timeout_seconds": -1}), with_facts(kept={**facts["kept"], "x": 1})),
        with_facts(expected={**facts["expected"], "logs": [["loud", "x"]]}),
        with_facts(kept={**facts["kept"], "format": 2}),
    ):
        with pytest.raises(InvalidInput, match="no repro file"):
            Repro.unpack(bad)
    bomb = packed(input=b"\0" * (LIMITS["input"] + 1))
    assert len(bomb) < 1 << 20
    with pytest.raises(InvalidInput, match="more than"):
        Repro.unpack(bomb)
    for at in range(0, len(data), 7):  # whatever is damaged is told as such, or does no harm
        changed = bytearray(data)
        changed[at] ^= 0x55
        try:
            Repro.unpack(bytes(changed))
        except InvalidInput:
            continue
    single.write("bad.repro", packed(recording_json=b'{"calls": 7}'))
    done = single.run("replay", "bad.repro")
    assert (done.status, "the recording cannot be read" in done.err) == (1, True)
    single.write("bad.repro", b"junk")
    done = single.run("replay", "bad.repro")
    assert (done.status, "bad.repro: this is no repro file" in done.err) == (1, True)


# What cannot be replayed


def test_what_cannot_be_replayed_is_told(single: Replays, queue: Queue) -> None:
    single.ok("invoke", "asks")
    pending = queue.put("asks")
    for arguments, status, message in (
        (["99"], 1, "no run 99"),
        ([str(pending)], 2, "is pending and no attempt of it has ended"),
        (["nothing.repro"], 3, "nothing.repro cannot be read"),
        (["jobs.yaml"], 1, "jobs.yaml: this is no repro file"),
        (["jobs.yaml", "--attempt", "1"], 2, "--attempt is for a RUN"),
        (["rejected.jsonl:1", "--attempt", "1"], 2, "--attempt is for a RUN"),
        (["rejected.jsonl:1"], 3, "rejected.jsonl"),
        (["rejected.jsonl:1", "--function", "asks"], 3, "rejected.jsonl"),
    ):
        done = single.run("replay", *arguments)
        assert (done.status, message in done.err) == (status, True), done.err
    assert queue.claim().run_id == pending
    for arguments, message in (
        ([str(pending), "--attempt", "1"], "attempt 1 of run 1 is running"),
        ([str(pending), "--attempt", "2"], "has no attempt 2"),
    ):
        done = single.run("replay", *arguments)
        assert (done.status, message in done.err) == (2, True), done.err


def batch(project: Replays, function: str, keys: str, *records: bytes) -> Done:
    """Run a batch over these records."""
    project.write("in.txt", b"".join(record + b"\n" for record in records))
    text = (project.folder / "jobs.yaml").read_text()
    ends = "input: {path: in.txt}, output: {path: out.txt}"
    project.write("jobs.yaml", f"{text}  each: {{batch: {{function: {function}, {ends}, {keys}}}}}\n")
    done = project.run("batch", "each")
    project.write("jobs.yaml", text)
    return done


def rejects(project: Replays, function: str, *records: bytes) -> list[dict[str, object]]:
    """What a batch over these records puts into its quarantine."""
    done = batch(project, function, "on_error: quarantine", *records)
    assert done.status == 0, done.err
    lines = (project.folder / "out.txt.rejected.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_quarantined_record_is_the_same_again(project: Replays) -> None:
    project.keep("{keep: all}")
    found = rejects(project, "asks", asks(3), asks(), asks(4, sleep_seconds=0.001))
    assert [entry["record"] for entry in found] == [1, 3]
    for line, code in ((1, 3), (2, 4)):
        facts = project.replay(f"out.txt.rejected.jsonl:{line}")
        assert (facts["same"], facts["recording"], facts["executor"]) == (True, "whole", project.engine)
        assert (facts["function"], facts["message"], facts["notes"]) == ("asks", f"exited with code {code}", [])
    packed = project.run("repro", "out.txt.rejected.jsonl:2", "row.repro", "--json").rows
    assert [packed[0][name] for name in ("source", "attempt", "notes")] == ["out.txt.rejected.jsonl:2", None, []]
    facts = project.replay("row.repro")
    assert (facts["same"], facts["recording"], facts["message"]) == (True, "whole", "exited with code 4")
    project.write("asks.wasm", guests.compiled(ASKS_MORE))
    project.run("invoke", "asks", "--input", "x")
    facts = project.replay("out.txt.rejected.jsonl:2", "--function", "asks", status=1)
    assert (facts["version"], facts["error_class"]) == (2, "ReplayDiverged")
    assert project.replay("out.txt.rejected.jsonl:2")["version"] == 1


def test_a_record_that_no_function_saw_is_replayed_with_a_named_one_only(single: Replays) -> None:
    single.write("in.jsonl", b"3\xff\n")
    ends = ("-i", "in.jsonl", "-o", "out.jsonl", "--on-error", "quarantine")
    assert single.run("map", "asks", *ends).status == 0
    done = single.run("replay", "out.jsonl.rejected.jsonl:1")
    assert (done.status, "was seen by no function (not UTF-8: byte 0xff" in done.err) == (2, True), done.err
    facts = single.replay("out.jsonl.rejected.jsonl:1", "--function", "asks", status=1)
    assert (facts["recording"], facts["status"]) == ("none", "failed")


def test_what_a_quarantine_keeps_of_a_record(single: Replays) -> None:
    rejects(single, "pure", asks(3))
    assert single.replay("out.txt.rejected.jsonl:1")["recording"] == "pure"
    single.keep("{keep: none}")
    (entry,) = rejects(single, "asks", asks(3))
    done = single.run("replay", "out.txt.rejected.jsonl:1")
    assert (done.status, "out.txt.rejected.jsonl:1 has no recording" in done.err) == (2, True), done.err
    assert "recording" not in entry


def test_no_secret_is_in_the_recording_of_a_record(single: Replays) -> None:
    answers = "(i64.rotl (local.get $answer) (i64.const 32))"
    assert answers in guests.HOST
    single.write("host.wasm", guests.compiled(guests.HOST.replace(answers, "unreachable")))
    rejects(single, "tells", guests.host_call("get_secret", b"KEY"))
    facts = single.replay("out.txt.rejected.jsonl:1")
    assert (facts["same"], facts["recording"], facts["error_class"]) == (True, "whole", "Trapped")
    text = (single.folder / "out.txt.rejected.jsonl").read_text()
    assert SECRET not in text
    single.write("out.txt.rejected.jsonl", text.replace('"format": 1', '"format": 2'))
    done = single.run("replay", "out.txt.rejected.jsonl:1")
    assert (done.status, "what was kept of out.txt.rejected.jsonl:1 cannot be read" in done.err) == (1, True), done.err


def test_the_record_that_ends_a_batch_is_kept(project: Replays) -> None:
    file = ".runner/failed/asks.repro"
    for keys, code in (("on_error: fail", 3), ("isolation: chunk", 4)):
        done = batch(project, "asks", keys, asks(code), asks())
        assert (done.status, "in.txt:1 " in done.err) == (1, True), done.err
        assert f"asks: `runner replay {file}` runs it again, as it was" in done.err
        facts = project.replay(file)
        assert (facts["same"], facts["recording"]) == (True, "whole")
        assert facts["message"] == f"exited with code {code}"
        (project.folder / file).unlink()
    assert batch(project, "asks", "on_error: skip", asks(3)).status == 0
    project.keep("{keep: none}")
    assert batch(project, "asks", "on_error: fail", asks(3)).status == 1
    assert not (project.folder / file).exists()


def test_records_of_a_map_need_no_jobs_yaml(single: Replays) -> None:
    (single.folder / "jobs.yaml").unlink()
    single.write("in.txt", asks(3) + b"\n")
    ends = ("-i", "in.txt", "-o", "out.txt", "--on-error", "quarantine")
    done = single.run("map", "asks", "--wasm", "asks.wasm", *ends)
    assert done.status == 0, done.err
    facts = single.replay("out.txt.rejected.jsonl:1")
    assert (facts["same"], facts["recording"], facts["version"]) == (True, "whole", 1)
    done = single.run("replay", "1")
    assert (done.status, "there is no jobs.yaml" in done.err) == (3, True), done.err


def test_records_without_a_recording_get_their_input(single: Replays) -> None:
    facts = {"source": "in.jsonl", "record": 1, "offset": 0, "attempts": 1, "error_class": "Exited"}
    facts |= {"message": "exited with code 51", "stderr_tail": "", "input": "3" + "\0" * 15, "output_offset": 0}
    single.write("rejected.jsonl", json.dumps(facts) + "\n")
    found = single.replay("rejected.jsonl:1", "--function", "asks")
    assert (found["same"], found["recording"], found["source"]) == (True, "none", "rejected.jsonl:1")
    done = single.run("replay", "rejected.jsonl:2", "--function", "asks")
    assert (done.status, "has no line 2" in done.err) == (1, True)


def test_what_was_kept_reads_back_and_nothing_else() -> None:
    facts = {"namespace": "n", "function": "f", "version": 1, "wasm_cid": "c", "executor": "auto", "pure": False}
    facts |= {"memory_limit_mb": 64, "timeout_seconds": 1.5, "request_id": "1.1", "caller_wallet": None}
    kept = Kept(**facts, secrets=("A",), env_vars={"x": "\udcff"}, input_text="\0\xff")  # type: ignore[arg-type]
    assert Kept.parse(kept.encode()) == kept
    assert kept.input == b"\0\xff"
    for bad in (b"", b"[]", b"{}", b"[" * 99_999, kept.encode().replace(b'"format":1', b'"format":2')):
        with pytest.raises(ValueError, match=":"):
            Kept.parse(bad)
