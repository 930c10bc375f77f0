"""The conformance suite of a cache of results. Subclass it in your plugin's tests:

    from runner.testing import ResultCacheContract

    class TestMyResultCache(ResultCacheContract):
        def make_cache(self, folder, max_bytes):
            return MyResultCache(folder / "results", max_bytes)

pytest finds the inherited tests. They speak the ResultCache contract and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest

from runner.results import Kept, NewResult, ResultCache

NOW = 1_800_000_000.0
HOUR = 3600.0
ROOM = 1 << 20
"""How much a cache of these tests may take."""


def key(seed: object) -> bytes:
    """A key, the same for the same seed."""
    return hashlib.sha256(repr(seed).encode()).digest()


def new(seed: object, output: bytes = b"out") -> NewResult:
    """A result that is to be kept under the key of its seed."""
    return NewResult(key(seed), output, 1.5, 65536, 7)


class ResultCacheContract:
    """What every ResultCache promises. A subclass says how one is made, and sets `durable = False` for one
    that forgets when it is closed."""

    durable: ClassVar[bool] = True

    def make_cache(self, folder: Path, max_bytes: int) -> ResultCache:
        """An open cache that keeps what it keeps in `folder`. The same folder means the same content,
        within a test also for a second cache at once."""
        raise NotImplementedError("a subclass of ResultCacheContract implements make_cache(folder, max_bytes)")

    @pytest.fixture
    def cache(self, tmp_path: Path) -> Iterator[ResultCache]:
        """A fresh, empty cache, closed after the test."""
        cache = self.make_cache(tmp_path, ROOM)
        yield cache
        cache.close()

    @pytest.mark.parametrize("output", [b"", b"\0\xff", "ü".encode(), bytes(range(256)) * 900], ids=len)
    def test_what_is_put_is_got_to_the_byte(self, cache: ResultCache, output: bytes) -> None:
        cache.put("shop", "clean", [new(1, output)], now=NOW)
        assert cache.get([key(1)], now=NOW + 1) == [Kept(output, 1.5, 65536, 7, NOW)]

    def test_facts_may_be_missing(self, cache: ResultCache) -> None:
        cache.put("shop", "clean", [NewResult(key(1), b"x", 0.0, 0)], now=NOW)
        assert cache.get([key(1)], now=NOW) == [Kept(b"x", 0.0, 0, None, NOW)]

    def test_answers_are_in_the_order_of_the_keys(self, cache: ResultCache) -> None:
        cache.put("shop", "clean", [new(n, str(n).encode()) for n in range(3000)], now=NOW)
        asked = [*range(2999, -1, -7), 5000, 3, 3, 5001]
        found = cache.get([key(n) for n in asked], now=NOW)
        expected = [str(n).encode() if n < 3000 else None for n in asked]
        assert [None if kept is None else kept.output for kept in found] == expected

    def test_nothing_is_asked_and_nothing_put(self, cache: ResultCache) -> None:
        assert cache.get([], now=NOW) == []
        cache.put("shop", "clean", [], now=NOW)
        assert cache.stats().results == 0

    def test_only_a_whole_key_finds(self, cache: ResultCache) -> None:
        cache.put("shop", "clean", [new(1)], now=NOW)
        whole = key(1)
        others = [bytes([*whole[:n], whole[n] ^ 1, *whole[n + 1 :]]) for n in range(len(whole))]
        assert cache.get(others, now=NOW) == [None] * len(others)

    def test_a_key_that_is_put_again_has_the_later_result(self, cache: ResultCache) -> None:
        cache.put("shop", "clean", [new(1, b"a"), new(1, b"b")], now=NOW)
        cache.put("shop", "clean", [new(1, b"c")], now=NOW + 1)
        assert cache.get([key(1)], now=NOW) == [Kept(b"c", 1.5, 65536, 7, NOW + 1)]
        assert cache.stats().results == 1

    # Room

    def test_it_keeps_to_its_size_and_forgets_the_oldest(self, cache: ResultCache) -> None:
        for n in range(300):
            cache.put("shop", "clean", [new(n, bytes(20_000))], now=NOW + n * HOUR)
            assert cache.stats().bytes <= ROOM
        found = [n for n in range(300) if cache.get([key(n)], now=NOW + 300 * HOUR)[0]]
        assert found == list(range(found[0], 300))
        assert len(found) > 20

    def test_what_is_used_stays(self, cache: ResultCache) -> None:
        for n in range(300):
            cache.put("shop", "clean", [new(n, bytes(20_000))], now=NOW + n * HOUR)
            assert cache.get([key(0)], now=NOW + n * HOUR)[0] is not None
        assert cache.get([key(1)], now=NOW) == [None]

    def test_many_at_once_pass_its_size_as_little(self, cache: ResultCache) -> None:
        cache.put("shop", "clean", [new(n, bytes(100)) for n in range(20_000)], now=NOW)
        stats = cache.stats()
        assert 0 < stats.bytes <= ROOM
        assert stats.results > 1000
        assert cache.get([key(19_999)], now=NOW)[0] is not None

    def test_what_is_too_large_is_not_kept(self, cache: ResultCache) -> None:
        cache.put("shop", "clean", [new(1), new(2, bytes(ROOM // 2)), new(3)], now=NOW)
        assert [kept is not None for kept in cache.get([key(n) for n in (1, 2, 3)], now=NOW)] == [True, False, True]

    # Looking and clearing

    def test_stats_and_clear(self, cache: ResultCache) -> None:
        cache.put("shop", "clean", [new(n, b"four") for n in range(3)], now=NOW)
        cache.put("shop", "report", [new("r", b"12")], now=NOW)
        cache.put("lab", "clean", [new("l", b"")], now=NOW + HOUR)
        stats = cache.stats()
        assert (stats.results, stats.max_bytes) == (5, ROOM)
        assert stats.bytes > 14
        assert [tuple(each) for each in stats.functions] == [
            ("lab", "clean", 1, 0, NOW + HOUR),
            ("shop", "clean", 3, 12, NOW),
            ("shop", "report", 1, 2, NOW),
        ]
        assert cache.clear("shop", "unknown") == 0
        assert cache.clear("shop", "clean") == 3
        assert cache.get([key(0), key("r"), key("l")], now=NOW).count(None) == 1
        assert cache.clear("lab") == 1
        assert cache.clear() == 1
        assert (cache.stats().results, cache.stats().functions) == (0, ())
        cache.put("shop", "clean", [new(1)], now=NOW)
        assert cache.stats().results == 1

    # Many at once, and the end

    def test_threads_and_a_second_cache_share_it(self, cache: ResultCache, tmp_path: Path) -> None:
        beside = self.make_cache(tmp_path, ROOM)

        def work(n: int) -> None:
            mine = cache if n % 2 else beside
            for round_ in range(20):
                mine.put(
                    "shop", f"f{n}", [new((n, round_, i), f"{n} {round_} {i}".encode()) for i in range(5)], now=NOW
                )
                found = mine.get([key((n, round_, i)) for i in range(5)], now=NOW)
                assert [kept and kept.output for kept in found] == [f"{n} {round_} {i}".encode() for i in range(5)]

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(6)))
        assert cache.stats().results == 600
        if self.durable:
            assert beside.stats().results == 600
        beside.close()

    def test_what_was_kept_is_there_for_the_next(self, cache: ResultCache, tmp_path: Path) -> None:
        if not self.durable:
            pytest.skip("this cache is not durable")
        cache.put("shop", "clean", [new(1)], now=NOW)
        cache.close()
        cache.close()
        again = self.make_cache(tmp_path, ROOM)
        assert again.get([key(1)], now=NOW) == [Kept(b"out", 1.5, 65536, 7, NOW)]
        again.close()
