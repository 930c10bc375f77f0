"""The conformance suite of a registry backend. Subclass it in your plugin's tests:

    from runner.testing import RegistryContract

    class TestMyRegistry(RegistryContract):
        def make_registry(self, folder):
            return MyRegistry(folder / "registry.db")

pytest finds the inherited tests. They speak the FunctionRegistry contract and nothing else.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from runner.contracts import FunctionRegistry
from runner.errors import FunctionNotFound, InvalidInput, UsageError
from runner.models import Function, FunctionDefinition, FunctionStatus, LogEntry, LogLevel, Rights
from runner.wasm import content_id

EMPTY_MODULE = b"\0asm\x01\0\0\0"
"""The smallest valid module: the magic number and the version."""


def module(seed: str, size_bytes: int = 64) -> bytes:
    """A valid module of this size at least whose bytes follow from `seed`: a custom section of noise."""
    block = hashlib.sha256(seed.encode()).digest()
    noise = b"\x01n" + block * (size_bytes // len(block) + 1)
    return EMPTY_MODULE + b"\0" + _leb128(len(noise)) + noise


def _leb128(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def definition(name: str = "clean", namespace: str = "shop", **settings: Any) -> FunctionDefinition:
    """A FunctionDefinition with defaults for whatever a test does not care about."""
    return FunctionDefinition(name=name, namespace=namespace, **settings)


def in_threads(count: int, task: Callable[[int], Any]) -> list[Any]:
    """Call `task(0)` to `task(count - 1)` at the same moment, each in a thread; their results in order."""
    barrier = threading.Barrier(count)

    def start(number: int) -> Any:
        barrier.wait()
        return task(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(start, range(count)))


class RegistryContract:
    """What every FunctionRegistry promises. A subclass says how one is made.

    Set `durable = False` for a backend that forgets when it is closed. Each test has a registry of
    its own, fresh and empty, as the fixture `registry`; yours may use it in tests of your own.
    """

    durable: ClassVar[bool] = True
    """Whether what was registered is still there for the next registry made from the same folder."""

    def make_registry(self, folder: Path) -> FunctionRegistry:
        """An open registry that keeps what it keeps in `folder`, an existing folder of this test.
        The same folder means the same content, within a test also for a second registry at once."""
        raise NotImplementedError("a subclass of RegistryContract implements make_registry(folder)")

    @pytest.fixture
    def registry(self, tmp_path: Path) -> Iterator[FunctionRegistry]:
        """A fresh, empty registry, closed after the test."""
        registry = self.make_registry(tmp_path)
        yield registry
        registry.close()

    # Registering and versions

    def test_a_new_function_has_no_previous_and_is_version_1(self, registry: FunctionRegistry) -> None:
        assert registry.register(definition(), module("a")) is None
        function = registry.get("shop", "clean")
        assert (function.name, function.namespace, function.version) == ("clean", "shop", 1)
        assert function.status is FunctionStatus.ACTIVE
        assert function.wasm_cid == content_id(module("a"))

    def test_every_setting_comes_back(self, registry: FunctionRegistry) -> None:
        settings: dict[str, Any] = {
            "memory_limit_mb": 128,
            "timeout_seconds": 2.5,
            "is_public": True,
            "retry_count": 3,
            "retry_delay_seconds": 0.25,
            "dlq_topic": "clean.dead",
            "env_vars": {"REGION": "eu", "EMPTY": ""},
            "executor": "wasmtime",
            "secrets": ("PAYMENTS_KEY", "OTHER"),
            "allow": Rights(enqueue=("notify", "resize")),
            "pure": True,
        }
        registry.register(definition(**settings), module("a"), source_cid="bafksource")
        function = registry.get("shop", "clean")
        assert {name: getattr(function, name) for name in settings} == settings
        assert function.source_cid == "bafksource"
        assert function.is_public is True

    def test_an_update_returns_the_previous_and_keeps_it_runnable(self, registry: FunctionRegistry) -> None:
        registry.register(definition(), module("a"))
        first = registry.get("shop", "clean")
        assert registry.register(definition(), module("b")) == first
        second = registry.get("shop", "clean")
        assert (second.version, second.wasm_cid) == (2, content_id(module("b")))
        assert registry.get("shop", "clean", 1) == first
        assert registry.get_wasm_bytes(first.wasm_cid) == module("a")
        assert registry.get_wasm_bytes(second.wasm_cid) == module("b")
        assert first.id != second.id

    def test_an_unchanged_registration_changes_nothing(self, registry: FunctionRegistry) -> None:
        registry.register(definition(env_vars={"A": "1", "B": "2"}), module("a"))
        first = registry.get("shop", "clean")
        assert registry.register(definition(env_vars={"B": "2", "A": "1"}), module("a")) == first
        assert list(registry.versions("shop", "clean")) == [first]

    @pytest.mark.parametrize(
        "change",
        [
            {"memory_limit_mb": 65},
            {"timeout_seconds": 31},
            {"is_public": True},
            {"retry_count": 1},
            {"retry_delay_seconds": 6},
            {"dlq_topic": "dead"},
            {"env_vars": {"REGION": "us"}},
            {"env_vars": {}},
            {"executor": "wasmtime"},
            {"secrets": ("KEY",)},
            {"allow": Rights(enqueue=("notify",))},
            {"pure": True},
        ],
        ids=str,
    )
    def test_a_changed_setting_makes_a_version(self, registry: FunctionRegistry, change: dict[str, Any]) -> None:
        before = definition(env_vars={"REGION": "eu"})
        registry.register(before, module("a"))
        registry.register(replace(before, **change), module("a"))
        newest, oldest = registry.versions("shop", "clean")
        assert (newest.version, oldest.version) == (2, 1)
        assert newest.wasm_cid == oldest.wasm_cid

    def test_going_back_to_older_bytes_is_a_new_version(self, registry: FunctionRegistry) -> None:
        for seed in "aba":
            registry.register(definition(), module(seed))
        assert [f.version for f in registry.versions("shop", "clean")] == [3, 2, 1]
        assert registry.get("shop", "clean").wasm_cid == content_id(module("a"))

    def test_the_next_version_may_be_asked_for_and_no_other(self, registry: FunctionRegistry) -> None:
        registry.register(definition(version=1), module("a"))
        registry.register(definition(version=2), module("b"))
        for version in (1, 2, 4, -1):
            with pytest.raises(UsageError, match="3"):
                registry.register(definition(version=version), module("c"))
        assert [f.version for f in registry.versions("shop", "clean")] == [2, 1]

    def test_times_are_aware_and_do_not_run_backwards(self, registry: FunctionRegistry) -> None:
        registry.register(definition(), module("a"))
        registry.register(definition(), module("b"))
        second, first = registry.versions("shop", "clean")
        assert first.created_at.tzinfo is not None
        assert first.created_at == first.updated_at <= second.created_at

    # Looking up

    def test_an_unknown_name_suggests_the_nearest(self, registry: FunctionRegistry) -> None:
        registry.register(definition("clean"), module("a"))
        registry.register(definition("report"), module("a"))
        with pytest.raises(FunctionNotFound) as caught:
            registry.get("shop", "claen")
        assert caught.value.suggestion == "clean"
        with pytest.raises(FunctionNotFound) as caught:
            registry.get("shop", "zzz")
        assert caught.value.suggestion is None

    def test_an_unknown_version_is_not_found(self, registry: FunctionRegistry) -> None:
        registry.register(definition(), module("a"))
        for version in (2, -1):
            with pytest.raises(FunctionNotFound, match=f"clean@{version}"):
                registry.get("shop", "clean", version)

    def test_namespaces_are_apart(self, registry: FunctionRegistry) -> None:
        registry.register(definition(namespace="shop"), module("a"))
        registry.register(definition(namespace="lab"), module("b"))
        assert registry.get("shop", "clean").version == registry.get("lab", "clean").version == 1
        assert registry.get("shop", "clean").id != registry.get("lab", "clean").id
        registry.delete("shop", "clean")
        assert [f.namespace for f in registry.list("lab")] == ["lab"]
        assert list(registry.list("shop")) == []

    def test_list_shows_the_newest_active_of_each_by_name(self, registry: FunctionRegistry) -> None:
        for name, seed in [("b", "1"), ("c", "1"), ("a", "1"), ("b", "2"), ("c", "2"), ("gone", "1")]:
            registry.register(definition(name), module(seed))
        registry.delete("shop", "c", 2)
        registry.delete("shop", "gone")
        assert [(f.name, f.version) for f in registry.list("shop")] == [("a", 1), ("b", 2), ("c", 1)]
        assert list(registry.list("nowhere")) == []

    def test_versions_of_an_unknown_name_is_an_error(self, registry: FunctionRegistry) -> None:
        with pytest.raises(FunctionNotFound):
            registry.versions("shop", "clean")

    @pytest.mark.parametrize(
        ("namespace", "name"),
        [("Straße", "größe"), ("店", "清掃"), ("shop", "🧹"), ("shop", 'it\'s "x"; --'), ("shop", "%_"), ("", "a")],
    )
    def test_any_text_is_a_name(self, registry: FunctionRegistry, namespace: str, name: str) -> None:
        registry.register(definition(name, namespace, env_vars={"ключ": "значение\0 \n 🧹"}), module("a"))
        function = registry.get(namespace, name)
        assert (function.namespace, function.name) == (namespace, name)
        assert function.env_vars == {"ключ": "значение\0 \n 🧹"}
        assert list(registry.list(namespace)) == [function]
        assert registry.delete(namespace, name) == 1

    def test_names_differ_by_case_and_accent(self, registry: FunctionRegistry) -> None:
        for name in ("cafe", "Cafe", "caf\u00e9", "cafe\u0301"):
            registry.register(definition(name), module(name))
        assert len(registry.list("shop")) == 4

    def test_a_name_that_is_no_text_is_the_callers_fault(self, registry: FunctionRegistry) -> None:
        """A command line in another encoding gives lone surrogates."""
        with pytest.raises(InvalidInput):
            registry.get("shop", "clean\udcff")

    # Deleting

    def test_delete_is_soft(self, registry: FunctionRegistry) -> None:
        registry.register(definition(), module("a"))
        registry.register(definition(), module("b"))
        assert registry.delete("shop", "clean") == 2
        for version in (0, 1, 2):
            with pytest.raises(FunctionNotFound):
                registry.get("shop", "clean", version)
        kept = registry.versions("shop", "clean")
        assert [(f.version, f.status) for f in kept] == [(2, FunctionStatus.INACTIVE), (1, FunctionStatus.INACTIVE)]
        assert registry.get_wasm_bytes(kept[1].wasm_cid) == module("a")
        assert kept[0].updated_at >= kept[0].created_at

    def test_deleting_the_newest_version_brings_the_one_before_back(self, registry: FunctionRegistry) -> None:
        for seed in "abc":
            registry.register(definition(), module(seed))
        assert registry.delete("shop", "clean", 3) == 1
        assert registry.get("shop", "clean").version == 2
        assert registry.delete("shop", "clean", 1) == 1
        assert registry.get("shop", "clean").version == 2
        previous = registry.register(definition(), module("d"))
        assert previous is not None
        assert previous.version == 2
        assert registry.get("shop", "clean").version == 4

    def test_a_deleted_name_starts_anew_and_no_version_is_used_twice(self, registry: FunctionRegistry) -> None:
        registry.register(definition(), module("a"))
        registry.delete("shop", "clean")
        assert registry.register(definition(), module("a")) is None
        assert registry.get("shop", "clean").version == 2

    def test_deleting_what_is_not_there_is_an_error(self, registry: FunctionRegistry) -> None:
        registry.register(definition(), module("a"))
        for name, version in (("clear", 0), ("clean", 2)):
            with pytest.raises(FunctionNotFound):
                registry.delete("shop", name, version)
        registry.delete("shop", "clean")
        with pytest.raises(FunctionNotFound) as caught:
            registry.delete("shop", "clean")
        assert caught.value.suggestion is None

    # Modules

    @pytest.mark.parametrize("wasm", [b"", EMPTY_MODULE, module("large", 10_000_000)], ids=["none", "tiny", "10 MB"])
    def test_module_bytes_come_back(self, registry: FunctionRegistry, wasm: bytes) -> None:
        registry.register(definition(), wasm)
        assert registry.get_wasm_bytes(registry.get("shop", "clean").wasm_cid) == wasm

    def test_functions_may_share_a_module(self, registry: FunctionRegistry) -> None:
        registry.register(definition("a"), module("x"))
        registry.register(definition("b"), module("x"))
        registry.delete("shop", "a")
        assert registry.get_wasm_bytes(registry.get("shop", "b").wasm_cid) == module("x")

    @pytest.mark.parametrize("wasm_cid", ["", "bafkunknown", content_id(b"never registered")])
    def test_an_unknown_module_is_the_callers_fault(self, registry: FunctionRegistry, wasm_cid: str) -> None:
        with pytest.raises(InvalidInput):
            registry.get_wasm_bytes(wasm_cid)

    # Logs

    def test_logs_keep_their_order_and_limit(self, registry: FunctionRegistry) -> None:
        function = self._registered(registry)
        lines = [LogEntry(level, f"line {n} ✓", 1000.25 - n) for n in range(10) for level in LogLevel]
        for start in range(0, len(lines), 7):
            registry.add_logs(function, f"request-{start}", lines[start : start + 7])
        assert list(registry.get_logs("shop", "clean")) == lines
        assert list(registry.get_logs("shop", "clean", limit=4)) == lines[-4:]
        assert list(registry.get_logs("shop", "clean", limit=0)) == []

    def test_logs_are_of_all_versions_and_outlive_the_function(self, registry: FunctionRegistry) -> None:
        first = self._registered(registry)
        registry.register(definition(), module("b"))
        entries = [LogEntry(LogLevel.INFO, text, 1.5) for text in ("old", "new", "")]
        registry.add_logs(first, "1", entries[:1])
        registry.add_logs(registry.get("shop", "clean"), "2", entries[1:])
        registry.add_logs(first, "3", [])
        registry.delete("shop", "clean")
        assert list(registry.get_logs("shop", "clean")) == entries

    def test_logs_of_an_unknown_function_is_an_error(self, registry: FunctionRegistry) -> None:
        function = self._registered(registry)
        registry.add_logs(function, "1", [LogEntry(LogLevel.STDERR, "mine", 1.0)])
        registry.register(definition("quiet"), module("a"))
        assert list(registry.get_logs("shop", "quiet")) == []
        with pytest.raises(FunctionNotFound):
            registry.get_logs("lab", "clean")

    # Many at once

    def test_threads_that_register_one_name_get_a_version_each(self, registry: FunctionRegistry) -> None:
        previous = in_threads(8, lambda n: registry.register(definition(), module(str(n))))
        versions = registry.versions("shop", "clean")
        assert [f.version for f in versions] == [8, 7, 6, 5, 4, 3, 2, 1]
        assert {f.wasm_cid for f in versions} == {content_id(module(str(n))) for n in range(8)}
        assert sorted(f.version if f else 0 for f in previous) == list(range(8))

    def test_threads_that_register_the_same_make_one_version(self, registry: FunctionRegistry) -> None:
        previous = in_threads(8, lambda _: registry.register(definition(), module("a")))
        assert len(registry.versions("shop", "clean")) == 1
        assert previous.count(None) == 1

    def test_threads_may_read_and_write_at_once(self, registry: FunctionRegistry) -> None:
        function = self._registered(registry)

        def work(n: int) -> None:
            for round_ in range(5):
                registry.register(definition(f"f{n}"), module(f"{n} {round_}"))
                registry.add_logs(function, str(n), [LogEntry(LogLevel.INFO, f"{n} {round_}", 0.0)])
                newest = registry.get("shop", f"f{n}")
                assert newest.version == round_ + 1
                assert registry.get_wasm_bytes(newest.wasm_cid) == module(f"{n} {round_}")
                assert len(registry.list("shop")) >= 2

        in_threads(6, work)
        messages = [entry.message for entry in registry.get_logs("shop", "clean")]
        for n in range(6):
            assert [m for m in messages if m.startswith(f"{n} ")] == [f"{n} {r}" for r in range(5)]

    # The end

    def test_close_may_be_called_twice(self, registry: FunctionRegistry) -> None:
        self._registered(registry)
        registry.close()
        registry.close()

    def test_what_was_registered_is_there_for_the_next(self, tmp_path: Path) -> None:
        if not self.durable:
            pytest.skip("this registry is not durable")
        first = self.make_registry(tmp_path)
        function = self._registered(first)
        first.add_logs(function, "1", [LogEntry(LogLevel.INFO, "kept", 1.0)])
        beside = self.make_registry(tmp_path)
        assert beside.get("shop", "clean") == function
        beside.close()
        first.close()
        second = self.make_registry(tmp_path)
        assert second.get("shop", "clean") == function
        assert second.get_wasm_bytes(function.wasm_cid) == module("a")
        assert [entry.message for entry in second.get_logs("shop", "clean")] == ["kept"]
        assert second.register(definition(), module("a")) == function
        second.close()

    def _registered(self, registry: FunctionRegistry) -> Function:
        registry.register(definition(), module("a"))
        return registry.get("shop", "clean")
