"""Plugin loading: what is found, what is taken up, and that a broken plugin harms nobody else.

Plugins here are really installed: a module and a dist-info folder on sys.path.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from textwrap import dedent

import pytest

from runner import entry_points, plugins
from runner.errors import PluginUnavailable
from runner.hookspecs import PROJECT
from runner.models import Function, InvocationContext, InvocationResult
from runner.plugins import PluginInfo, Plugins

HEAD = """
from runner.contracts import Provider
from runner.hookspecs import hookimpl

def provider(name):
    return Provider(name=name, summary="for a test", create=lambda settings, host: (name, settings, host))
"""
EXECUTOR = """
@hookimpl
def runner_executors():
    return [provider({name!r})]
"""
SHIPPED = ("apscheduler", "builders", "files", "sqlite", "wasmer", "wasmtime")

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a package `name` 1.5 whose plugin module has `code`; gone when the test ends."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv(plugins.ONLY_VARIABLE, raising=False)

    def install_one(name: str, code: str, *, plugin: str | None = None, head: str = HEAD, value: str = "") -> None:
        module = f"{name}_module_of_a_test"
        monkeypatch.delitem(sys.modules, module, raising=False)
        (tmp_path / f"{module}.py").write_text(head + dedent(code))
        info = tmp_path / f"{name}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n\nText\n")
        (info / "entry_points.txt").write_text(f"[{PROJECT}]\n{plugin or name} = {value or module}\n")
        importlib.invalidate_caches()

    return install_one


def info_of(loaded: Plugins, name: str) -> PluginInfo:
    (info,) = [info for info in loaded.infos if info.name == name]
    return info


def error_of(loaded: Plugins, name: str) -> str:
    """The error of a plugin that must have failed, alone."""
    assert [info.name for info in loaded.failures] == [name]
    assert {info.name for info in loaded.infos if info.is_shipped} == set(SHIPPED)
    return info_of(loaded, name).error or ""


# Finding


def test_the_shipped_plugins_load_first_and_whole(install: Install) -> None:
    install("aaa", EXECUTOR.format(name="aaa"))
    loaded = plugins.load()
    assert [info.name for info in loaded.infos] == [*SHIPPED, "aaa"]
    assert loaded.failures == ()
    assert list(loaded.catalogue.executors) == ["wasmer", "wasmtime", "aaa"]
    assert list(loaded.catalogue.registries) == ["sqlite"]
    assert set(loaded.catalogue.builders) == {".c,.cpp,.zig", ".wat"}


def test_a_plugin_is_described(install: Install) -> None:
    install("shout", EXECUTOR.format(name="loud"), plugin="bell")
    info = info_of(plugins.load(), "bell")
    assert info == PluginInfo(
        name="bell",
        distribution="shout",
        version="1.5",
        module="shout_module_of_a_test",
        hooks=("runner_executors",),
        provides={"executors": ("loud",)},
    )
    assert str(info) == "bell (shout 1.5)"


def test_an_entry_point_may_name_an_object(install: Install) -> None:
    code = """
    class Bell:
        @hookimpl
        def runner_executors(self):
            return [provider("bell")]

    bell = Bell()
    """
    install("bell", code, value="bell_module_of_a_test:bell")
    assert plugins.load().catalogue.get("executors", "bell").name == "bell"


def test_no_plugins_leaves_the_shipped_ones(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("aaa", "raise AssertionError('must not be imported')")
    assert [info.name for info in plugins.load(no_plugins=True).infos] == list(SHIPPED)
    monkeypatch.setenv(plugins.ONLY_VARIABLE, "aaa")
    assert [info.name for info in plugins.load(no_plugins=True).infos] == list(SHIPPED)


@pytest.mark.parametrize(("value", "expected"), [("", []), ("bbb", ["bbb"]), (" bbb , aaa,", ["aaa", "bbb"])])
def test_the_variable_chooses(
    install: Install, monkeypatch: pytest.MonkeyPatch, value: str, expected: list[str]
) -> None:
    for name in ("aaa", "bbb"):
        install(name, EXECUTOR.format(name=name))
    monkeypatch.setenv(plugins.ONLY_VARIABLE, value)
    loaded = plugins.load()
    assert [info.name for info in loaded.infos] == [*SHIPPED, *expected]
    assert loaded.failures == ()


def test_only_comes_before_the_variable(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("aaa", EXECUTOR.format(name="aaa"))
    monkeypatch.setenv(plugins.ONLY_VARIABLE, "")
    assert "aaa" in plugins.load(only=["aaa"]).catalogue.executors


def test_a_plugin_asked_for_but_not_installed_is_told(install: Install) -> None:
    install("shout", EXECUTOR.format(name="shout"))
    install("other", "raise AssertionError('must not be imported')")
    error = error_of(plugins.load(only=["shout", "shuot"]), "shuot")
    assert error == "RUNNER_PLUGINS names it, but it is not installed; did you mean 'shout'?"


# Broken plugins


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("import a_package_that_is_not_there", "ModuleNotFoundError: No module named 'a_package_that_is_not_there'"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("def broken(:", "SyntaxError"),
        ("raise KeyError", "KeyError"),
    ],
)
def test_a_plugin_that_raises_on_import(install: Install, code: str, error: str) -> None:
    install("bad", code)
    install("good", EXECUTOR.format(name="good"))
    loaded = plugins.load()
    assert f"importing bad_module_of_a_test failed: {error}" in error_of(loaded, "bad")
    assert "good" in loaded.catalogue.executors


def test_an_entry_point_to_nothing(install: Install) -> None:
    install("bad", "", value="bad_module_of_a_test:gone")
    assert "AttributeError" in error_of(plugins.load(), "bad")


def test_a_name_that_another_plugin_has(install: Install) -> None:
    install("mine", "raise AssertionError('must not be imported')", plugin="sqlite")
    loaded = plugins.load()
    (failed,) = loaded.failures
    version = metadata.version("runner")
    assert str(failed) == (
        f"sqlite (mine 1.5) is disabled: the name 'sqlite' is taken by plugin sqlite (runner {version})"
    )
    assert list(loaded.catalogue.registries) == ["sqlite"]


def test_two_plugins_of_one_module(install: Install) -> None:
    install("first", EXECUTOR.format(name="one"))
    install("second", "", value="first_module_of_a_test")
    loaded = plugins.load()
    assert "its hooks do not fit" in error_of(loaded, "second")
    assert "one" in loaded.catalogue.executors


def test_a_provider_name_that_is_taken(install: Install) -> None:
    code = EXECUTOR.format(name="wasmer") + "\n@hookimpl\ndef runner_registries():\n    return [provider('new')]\n"
    install("rival", code)
    loaded = plugins.load()
    assert error_of(loaded, "rival").startswith("executor 'wasmer' is already provided by plugin wasmer (runner ")
    assert "new" not in loaded.catalogue.registries  # all of it is disabled
    assert info_of(loaded, "rival").provides == {"registries": ("new",), "executors": ("wasmer",)}


def test_each_suffix_of_a_builder_can_be_taken(install: Install) -> None:
    install("rival", "@hookimpl\ndef runner_builders():\n    return [provider('.rs,.c')]\n")
    assert "builder '.c' is already provided by plugin builders" in error_of(plugins.load(), "rival")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (
            "@hookimpl\ndef runner_executers(): ...",
            "there is no hook 'runner_executers'; did you mean 'runner_executors'?",
        ),
        ("@hookimpl\ndef quite_different(): ...", "there is no hook 'quite_different'; hooks are runner_registries, "),
        ("def runner_executors(): ...", "runner_executors is not marked with @hookimpl and would never be called"),
        ("@hookimpl\ndef runner_executors(engine): ...", "its hooks do not fit: PluginValidationError: "),
        ("@hookimpl(wrapper=True)\ndef runner_executors():\n    return (yield)", "runner_executors is a wrapper"),
        ("@hookimpl\ndef runner_executors(): 1 / 0", "runner_executors failed: ZeroDivisionError: division by zero"),
        (
            "@hookimpl\ndef runner_executors(): ...",
            "runner_executors returned NoneType; a list of Provider is",
        ),
        ("@hookimpl\ndef runner_executors(): return 'aaa'", "runner_executors returned str; a list of Provider"),
        ("@hookimpl\ndef runner_executors(): return provider('a')", "runner_executors returned Provider; a list"),
        ("@hookimpl\ndef runner_executors(): return [provider('a'), 'b']", "returned a list with str at 1; Provider"),
        ("@hookimpl\ndef runner_executors(): return [provider('')]", "a provider named ''; a name is expected"),
        ("@hookimpl\ndef runner_executors(): return [provider(7)]", "a provider named 7; a name is expected"),
        ("@hookimpl\ndef runner_executors(): return [provider('a'), provider('a')]", "returned 'a' twice"),
    ],
)
def test_a_hook_that_is_wrong(install: Install, code: str, error: str) -> None:
    install("bad", code)
    install("good", EXECUTOR.format(name="good"))
    loaded = plugins.load()
    assert error in error_of(loaded, "bad")
    assert list(loaded.catalogue.executors) == ["wasmer", "wasmtime", "good"]


def test_a_refused_plugin_hears_nothing(install: Install) -> None:
    install("bad", "@hookimpl\ndef runner_before_invocation(): ...\n@hookimpl\ndef runner_executors(): return 1\n")
    assert plugins.load().before_invocation is None


# The catalogue


def test_an_unknown_name_gets_the_nearest_and_the_suspects(install: Install) -> None:
    with pytest.raises(
        PluginUnavailable, match=r"^no installed plugin provides executor 'wasmr'; did you mean 'wasmer'\?$"
    ):
        plugins.load().catalogue.get("executors", "wasmr")
    install("gpu", "raise RuntimeError('no driver')")
    install("other", EXECUTOR.format(name="other") + "\n@hookimpl\ndef runner_triggers(): 1 / 0\n")
    install("store", "@hookimpl\ndef runner_registries(): 1 / 0\n")
    with pytest.raises(PluginUnavailable) as raised:
        plugins.load().catalogue.get("executors", "gpu")
    message = str(raised.value)
    assert "gpu (gpu 1.5): importing gpu_module_of_a_test failed: RuntimeError: no driver" in message
    assert "other (other 1.5)" in message  # it failed before its executors were known
    assert "store" not in message  # it has no executors
    assert "there is wasmer, wasmtime;" in message


def test_the_catalogue_cannot_be_changed_from_outside() -> None:
    executors = plugins.load(no_plugins=True).catalogue.executors
    with pytest.raises(TypeError):
        executors["x"] = executors["wasmer"]  # type: ignore[index]


def test_each_load_has_its_own_state(install: Install) -> None:
    before = plugins.load()
    install("late", EXECUTOR.format(name="late"))
    assert "late" in plugins.load().catalogue.executors
    assert "late" not in before.catalogue.executors


# Every hook, one test each


def provides(loaded: Plugins, kind: str, name: str) -> bool:
    provider = loaded.catalogue.get(kind, name)
    return loaded.catalogue.of(kind)[name] is provider and provider.summary == "for a test"


def test_hook_runner_registries(install: Install) -> None:
    install("new", "@hookimpl\ndef runner_registries():\n    return [provider('cloud')]")
    loaded = plugins.load()
    assert provides(loaded, "registries", "cloud")
    assert "cloud" in loaded.catalogue.registries


def test_hook_runner_executors(install: Install) -> None:
    install("new", "@hookimpl\ndef runner_executors():\n    return (provider('farm'), provider('moon'))")
    loaded = plugins.load()
    assert provides(loaded, "executors", "farm")
    assert "moon" in loaded.catalogue.executors


def test_hook_runner_builders(install: Install) -> None:
    install("new", "@hookimpl\ndef runner_builders():\n    return [provider('.rs,.go')]")
    loaded = plugins.load()
    assert provides(loaded, "builders", ".rs,.go")
    assert (loaded.catalogue.owner("builders", ".go") or "").startswith("new (")


def test_hook_runner_triggers(install: Install) -> None:
    install("new", "@hookimpl\ndef runner_triggers():\n    return [provider('moonrise')]")
    loaded = plugins.load()
    assert provides(loaded, "triggers", "moonrise")
    assert "moonrise" in loaded.catalogue.triggers


def test_hook_runner_sources(install: Install) -> None:
    install("new", "@hookimpl\ndef runner_sources():\n    return [provider('tape')]")
    loaded = plugins.load()
    assert provides(loaded, "sources", "tape")
    assert "tape" in loaded.catalogue.sources


def test_hook_runner_sinks(install: Install) -> None:
    install("new", "@hookimpl\ndef runner_sinks():\n    return [provider('printer')]")
    loaded = plugins.load()
    assert provides(loaded, "sinks", "printer")
    assert "printer" in loaded.catalogue.sinks


LISTENER = """
heard = []

@hookimpl
def runner_before_invocation(context):
    heard.append(context.request_id)

@hookimpl
def runner_after_invocation(result, function):
    heard.append((function.name, result.output))
"""
SORE = """
@hookimpl
def runner_before_invocation(function, context): raise ValueError(context.request_id)

@hookimpl
def runner_after_invocation(function): raise OSError("disk gone")
"""


def an_invocation() -> tuple[Function, InvocationContext, InvocationResult]:
    now = datetime(2027, 1, 15, tzinfo=timezone.utc)
    function = Function(
        id="f1", name="clean", namespace="shop", version=1, wasm_cid="b", created_at=now, updated_at=now
    )
    context = InvocationContext(request_id="r1", function_id="f1", function_name="clean", namespace="shop")
    return function, context, InvocationResult(output=b"out", error=None)


def heard_by(name: str) -> list[object]:
    heard: list[object] = sys.modules[f"{name}_module_of_a_test"].heard
    return heard


def test_hook_runner_before_invocation(install: Install) -> None:
    assert plugins.load().before_invocation is None  # an invocation pays nothing for nobody
    install("ear", LISTENER)
    loaded = plugins.load()
    function, context, _ = an_invocation()
    assert loaded.before_invocation is not None
    loaded.before_invocation(function, context)
    assert heard_by("ear") == ["r1"]


def test_hook_runner_after_invocation(install: Install) -> None:
    assert plugins.load().after_invocation is None
    install("ear", LISTENER)
    loaded = plugins.load()
    assert loaded.after_invocation is not None
    loaded.after_invocation(*an_invocation())
    assert heard_by("ear") == [("clean", b"out")]


def test_what_a_moment_raises_is_told_once_and_stops_nobody(install: Install) -> None:
    install("ear", LISTENER)
    install("sore", SORE)
    told: list[str] = []
    loaded = plugins.load(notify=told.append)
    function, context, result = an_invocation()
    assert loaded.before_invocation is not None
    assert loaded.after_invocation is not None
    for _ in range(3):
        loaded.before_invocation(function, context)
        loaded.after_invocation(function, context, result)
    assert heard_by("ear") == ["r1", ("clean", b"out")] * 3
    assert told == [
        "plugin sore: runner_before_invocation failed: ValueError: r1",
        "plugin sore: runner_after_invocation failed: OSError: disk gone",
    ]


def test_without_a_listener_it_is_told_on_stderr(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("sore", SORE)
    before = plugins.load().before_invocation
    assert before is not None
    before(*an_invocation()[:2])
    assert capsys.readouterr().err == "plugin sore: runner_before_invocation failed: ValueError: r1\n"


# Entry points


def test_entry_points_are_those_of_importlib() -> None:
    for group in ("runner", "console_scripts", "pytest11"):
        ours = {(found.name, found.value, found.distribution) for found in entry_points.find(group)}
        theirs = {
            (found.name, found.value, found.dist and found.dist.name) for found in metadata.entry_points(group=group)
        }
        assert ours == theirs
        assert ours


def test_entry_points_in_odd_files(tmp_path: Path) -> None:
    egg = tmp_path / "old.egg-info"
    egg.mkdir()
    (egg / "PKG-INFO").write_text("Name: Old.Thing\nVersion: 3\n")
    (egg / "entry_points.txt").write_text("[other]\nx = y\n[ours]\n# a = comment\n; b = comment\n\n a = m:f [extra] \n")
    again = tmp_path / "two" / "old_thing-4.dist-info"
    again.mkdir(parents=True)
    (again / "entry_points.txt").write_text("[ours]\nb = m\n")
    (found,) = entry_points.find("ours", [str(tmp_path), str(tmp_path / "gone"), str(again.parent)])
    assert found == entry_points.EntryPoint(name="a", value="m:f [extra]", distribution="Old.Thing", version="3")
    (other,) = entry_points.find("ours", [str(again.parent)])
    assert (other.distribution, other.version) == ("old_thing", "4")


def test_entry_point_with_attributes_and_extras() -> None:
    point = entry_points.EntryPoint(name="x", value="os : path.join [posix]", distribution="", version="")
    assert point.load() is importlib.import_module("os").path.join


# Cost


def test_loading_is_light() -> None:
    """Loading the shipped plugins imports none of what they work with."""
    code = "import sys; from runner.plugins import load; load(no_plugins=True); print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    engines = {"sqlite3", "sqlite_utils", "wasmer", "wasmtime", "ziglang"}
    heavy = {"yaml", "asyncio", "email", "importlib.metadata"}
    assert (engines | heavy) & set(printed.split()) == set()
