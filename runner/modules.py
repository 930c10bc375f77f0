"""What can be told of the modules that a jobs.yaml names without compiling or running them."""

from __future__ import annotations

from runner import wasm
from runner.config import Config, FunctionConfig
from runner.errors import InvalidModule, Problem
from runner.plugins import Providers
from runner.purity import check_pure
from runner.workers.executor import TABLE_LIMIT


def module_problems(config: Config, catalogue: Providers, *, file: str) -> tuple[Problem, ...]:
    """Every module that could never run, in the order of the file, at the line of its function; `file` is
    the name under which it is told.

    What a builder will make of a source file is not looked at, nor a module for an executor that takes
    other things than WebAssembly.
    """
    judged = (it for it in config.functions.values() if catalogue.takes_wasm(it.executor.name))
    found = ((function, _problem(function)) for function in judged)
    return tuple(_located(file, function, message) for function, message in found if message)


def _problem(function: FunctionConfig) -> str:
    if function.wasm is None:
        return ""
    try:
        data = function.wasm.read_bytes()
        module = wasm.inspect(data)
        wasm.entry_point(module)
        if function.definition.pure:
            check_pure(module)
        wasm.cap(data, module, memory_limit_mb=function.definition.memory_limit_mb, table_limit=TABLE_LIMIT)
    except InvalidModule as error:
        return str(error)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return ""


def _located(file: str, function: FunctionConfig, message: str) -> Problem:
    assert function.wasm is not None
    return Problem(
        file=file,
        line=function.line,
        column=1,
        where=f"functions.{function.definition.name}.wasm",
        message=f"{function.wasm.name}: {message}",
    )
