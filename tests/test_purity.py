"""What a pure function may import: every import that an engine answers is one or the other, and an impure
module is refused before anything runs it, whichever the engine."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import wasmtime

from runner.errors import InvalidModule
from runner.purity import INERT_HOST, INERT_WASI, check_pure
from runner.wasm import inspect
from runner.workers.signatures import HOST, SIGNATURES, WASI, WASI_MODULE
from tests.cli_project import CliProject

ENGINES = ("wasmer", "wasmtime")
IMPURE_WASI = {"sock_accept", "sock_recv", "sock_send", "sock_shutdown"}
IMPURE_HOST = {
    *("get_secret", "get_request_id", "get_caller_wallet"),
    *("enqueue_background", "schedule_once", "report_progress"),
}


def importing(*imports: tuple[str, str]) -> bytes:
    """A command with these imports, in the types that engines answer, or without any."""
    lines = []
    for module, name in imports:
        params, results = SIGNATURES.get((module, name), ((), ()))
        kind = f"(func (param {' '.join(params)}) (result {' '.join(results)}))"
        lines.append(f'(import "{module}" "{name}" {kind})')
    return bytes(wasmtime.wat2wasm(f'(module {" ".join(lines)} (memory (export "memory") 1) (func (export "_start")))'))


def test_every_import_that_is_answered_is_judged() -> None:
    """A new host function has to be put on one side or the other, here and there."""
    assert set(WASI) - INERT_WASI == IMPURE_WASI
    assert set(WASI) >= INERT_WASI
    assert set(HOST) - INERT_HOST == IMPURE_HOST
    assert set(HOST) >= INERT_HOST


@pytest.mark.parametrize("plugin", ENGINES)
def test_engines_answer_what_is_judged_and_nothing_else(plugin: str) -> None:
    signatures = importlib.import_module(f"runner_{plugin}.signatures").SIGNATURES
    assert {name for module, name in signatures if module == WASI_MODULE} == INERT_WASI | IMPURE_WASI
    assert {name for module, name in signatures if module in ("env", "host")} == INERT_HOST | IMPURE_HOST


def test_inert_imports_pass() -> None:
    check_pure(inspect(importing()))
    check_pure(inspect(importing(*((WASI_MODULE, name) for name in sorted(INERT_WASI)))))
    check_pure(inspect(importing(*((module, name) for module in ("env", "host") for name in sorted(INERT_HOST)))))


@pytest.mark.parametrize(
    ("module", "name", "reason"),
    [
        ("env", "get_request_id", "of its host it may ask get_env, log_error, log_info and nothing else"),
        ("host", "enqueue_background", "of its host it may ask get_env, log_error, log_info and nothing else"),
        (WASI_MODULE, "sock_send", "it talks to nobody"),
        ("other", "get_env", "its results depend on its input and env_vars alone"),
        ("env", "random_get", "of its host it may ask"),
    ],
)
def test_an_impure_import_is_refused_by_name(module: str, name: str, reason: str) -> None:
    with pytest.raises(InvalidModule) as caught:
        check_pure(inspect(importing((WASI_MODULE, "fd_read"), (module, name))))
    message = str(caught.value)
    assert f"a pure function may not import {module}.{name}: {reason}" in message
    assert message.endswith("take the call out of its source, or `pure: true` out of jobs.yaml")


@pytest.mark.parametrize("engine", ENGINES)
def test_an_impure_module_is_neither_valid_nor_registered_nor_run(tmp_path: Path, engine: str) -> None:
    (tmp_path / "ask.wasm").write_bytes(importing(("env", "get_request_id")))
    cli = CliProject(tmp_path)
    text = "version: 1\nfunctions:\n  ask: {{wasm: ask.wasm, executor: {0}{1}}}\njobs: {{j: {{run: ask}}}}\n"
    (tmp_path / "jobs.yaml").write_text(text.format(engine, ", pure: true"))
    for arguments, status in ((("validate",), 2), (("run",), 1), (("invoke", "ask"), 1)):
        done = cli.run(*arguments, input=b"")
        assert done.status == status, (arguments, done)
        assert "a pure function may not import env.get_request_id" in done.text + done.err, (arguments, done)
    assert cli.run("functions", "list").text.count("ask") == 0
    (tmp_path / "jobs.yaml").write_text(text.format(engine, ""))
    assert cli.run("validate").status == 0


def test_the_error_names_function_and_source(tmp_path: Path) -> None:
    call = '(import "env" "get_request_id" (func (result i64)))'
    (tmp_path / "ask.wat").write_text(f'(module {call} (memory (export "memory") 1) (func (export "_start")))')
    cli = CliProject(tmp_path)
    (tmp_path / "jobs.yaml").write_text(
        "version: 1\nfunctions:\n  ask: {source: ask.wat, pure: true}\njobs: {j: {run: ask}}\n"
    )
    for command in (("run",), ("invoke", "ask"), ("enqueue", "j")):
        done = cli.run(*command, input=b"")
        assert (done.status, done.err.count("jobs.yaml:3: function 'ask', ask.wat: a pure function")) == (1, 1), (
            done.err
        )


def test_what_was_registered_is_looked_at_again_when_it_is_to_be_pure(tmp_path: Path) -> None:
    (tmp_path / "ask.wasm").write_bytes(importing(("env", "get_caller_wallet")))
    cli = CliProject(tmp_path)
    text = "version: 1\nfunctions: {{ask: {{wasm: ask.wasm{0}}}}}\njobs: {{j: {{run: ask}}}}\n"
    (tmp_path / "jobs.yaml").write_text(text.format(""))
    assert cli.run("run").status == 0
    (tmp_path / "jobs.yaml").write_text(text.format(", pure: true"))
    done = cli.run("run")
    assert done.status == 1
    assert "a pure function may not import env.get_caller_wallet" in done.err
