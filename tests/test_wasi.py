"""WASI preview 1 function by function, against the words of its specification."""

from __future__ import annotations

import struct
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import OutputTooLarge
from runner.models import LogLevel
from runner.workers.engine import Call, LogBuffer
from runner.workers.signatures import SIGNATURES, WASI_MODULE
from runner.workers.wasi import abi
from runner.workers.wasi.abi import BADF, FAULT, INVAL, NOTCAPABLE, NOTDIR, NOTSOCK, NOTSUP, SPIPE, SUCCESS
from runner.workers.wasi.preview1 import ProcExit, Wasi

SIZE = 1 << 16
"""One page of guest memory."""
OUT = 0x8000
"""Where functions are told to store their results."""
ALIEN = -8
"""An i32 pointer far outside: 0xfffffff8 as Wasmer passes it."""
COUNTS = {name: len(parameters) for (module, name), (parameters, _) in SIGNATURES.items() if module == WASI_MODULE}


class Guest:
    """A guest that has a page of memory and calls WASI functions."""

    def __init__(self, stdin: bytes = b"", **facts: Any) -> None:
        given: dict[str, Any] = {"name": "shout", "env_vars": {}, "output_limit_bytes": 1 << 20, **facts}
        self.logs = LogBuffer(given.pop("log_limit_bytes", 1 << 16))
        self.call = Call(
            secrets={},
            request_id="r-1",
            caller_wallet=None,
            timeout_seconds=1,
            memory_limit_mb=1,
            logs=self.logs,
            **given,
        )
        self.wasi = Wasi()
        self.wasi.counts_cpu_time = True
        self._addresses = memoryview(bytearray(16 * SIZE))  # as Wasmer does: growing moves nothing
        self.memory = SimpleNamespace(buffer=self._addresses[:SIZE], data_size=SIZE)
        self.wasi.begin(self.call, stdin)
        self.wasi.attach(None, self.memory)

    def __call__(self, name: str, *parameters: int) -> int | None:
        return self.wasi.function(name)(*parameters)

    def store(self, at: int, data: bytes) -> int:
        self.memory.buffer[at : at + len(data)] = data
        return at

    def vectors(self, *vectors: tuple[int, int], at: int = 64) -> tuple[int, int]:
        self.store(at, b"".join(struct.pack("<II", *vector) for vector in vectors))
        return at, len(vectors)

    def load(self, at: int, size: int) -> bytes:
        return bytes(self.memory.buffer[at : at + size])

    def u32(self, at: int = OUT) -> int:
        return int.from_bytes(self.load(at, 4), "little")

    def u64(self, at: int = OUT) -> int:
        return int.from_bytes(self.load(at, 8), "little")

    def grow(self, size: int) -> None:
        self.memory.buffer = self._addresses[:size]
        self.memory.data_size = size

    def write(self, fd: int, data: bytes) -> int | None:
        self.store(0x1000, data)
        return self("fd_write", fd, *self.vectors((0x1000, len(data))), OUT)


def test_every_function_of_preview_1_is_there_with_its_arity() -> None:
    guest = Guest()
    assert len(COUNTS) == 46
    for name, count in COUNTS.items():
        if name in ("proc_exit", "sched_yield"):
            continue
        assert isinstance(guest(name, *[77] * count), int), name


@pytest.mark.parametrize("name", [name for name in COUNTS if name.startswith(("fd_", "path_", "sock_"))])
def test_a_descriptor_that_is_not_open_is_ebadf(name: str) -> None:
    assert Guest()(name, *[99] * COUNTS[name]) == BADF


@pytest.mark.parametrize("name", [name for name in COUNTS if name.startswith("path_")])
def test_a_path_below_a_stream_is_enotdir(name: str) -> None:
    assert Guest()(name, *[0] * COUNTS[name]) == NOTDIR


@pytest.mark.parametrize("name", [name for name in COUNTS if name.startswith("sock_")])
def test_a_stream_is_no_socket(name: str) -> None:
    assert Guest()(name, *[0] * COUNTS[name]) == NOTSOCK


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("args_sizes_get", (ALIEN, OUT)),
        ("args_sizes_get", (OUT, SIZE - 3)),
        ("args_get", (ALIEN, OUT)),
        ("args_get", (OUT, SIZE - 1)),
        ("environ_sizes_get", (OUT, ALIEN)),
        ("environ_get", (SIZE, OUT)),
        ("clock_res_get", (0, SIZE - 7)),
        ("clock_time_get", (0, 0, ALIEN)),
        ("fd_fdstat_get", (1, SIZE - 23)),
        ("fd_filestat_get", (1, SIZE - 63)),
        ("fd_read", (0, ALIEN, 1, OUT)),
        ("fd_read", (0, 64, 1, SIZE - 3)),
        ("fd_read", (0, 64, -1, OUT)),
        ("fd_write", (1, SIZE - 7, 1, OUT)),
        ("fd_write", (1, 64, 1, ALIEN)),
        ("fd_write", (2, 64, 1 << 29, OUT)),
        ("poll_oneoff", (ALIEN, OUT, 1, OUT)),
        ("poll_oneoff", (64, SIZE - 31, 1, OUT)),
        ("poll_oneoff", (64, OUT, -1, OUT)),
        ("poll_oneoff", (64, OUT, 1, SIZE)),
        ("random_get", (ALIEN, 16)),
        ("random_get", (16, -1)),
    ],
)
def test_a_pointer_outside_the_memory_is_efault_and_nothing_is_written(name: str, parameters: tuple[int, ...]) -> None:
    guest = Guest(b"input", env_vars={"A": "b"})
    guest.vectors((128, 4))
    before = bytes(guest.memory.buffer)
    assert guest(name, *parameters) == FAULT
    assert guest.memory.buffer == before
    assert guest.wasi.output == b""


def test_arguments_are_the_functions_name() -> None:
    guest = Guest(name="clean")
    assert guest("args_sizes_get", OUT, OUT + 4) == SUCCESS
    assert (guest.u32(), guest.u32(OUT + 4)) == (1, 6)
    assert guest("args_get", 16, 32) == SUCCESS
    assert guest.u32(16) == 32
    assert guest.load(32, 6) == b"clean\0"


def test_environment_is_utf_8_in_its_order() -> None:
    guest = Guest(env_vars={"REGION": "eu", "GRÜSSE": "日本", "EMPTY": ""})
    strings = b"REGION=eu\0" + "GRÜSSE=日本\0".encode() + b"EMPTY=\0"
    assert guest("environ_sizes_get", OUT, OUT + 4) == SUCCESS
    assert (guest.u32(), guest.u32(OUT + 4)) == (3, len(strings))
    assert guest("environ_get", 16, 64) == SUCCESS
    assert guest.load(64, len(strings)) == strings
    assert [guest.u32(16 + 4 * n) - 64 for n in range(3)] == [0, 10, strings.index(b"EMPTY")]


def test_text_that_no_encoding_has_does_not_reach_the_guest_as_an_error() -> None:
    guest = Guest(env_vars={"A": "\ud800"})
    assert guest("environ_sizes_get", OUT, OUT + 4) == SUCCESS
    assert guest("environ_get", 16, 64) == SUCCESS
    assert guest.load(64, 4) == b"A=?\0"


def test_clocks() -> None:
    guest = Guest()
    for clock, host in ((0, time.time_ns), (1, time.monotonic_ns)):
        before = host()
        assert guest("clock_time_get", clock, 0, OUT) == SUCCESS
        assert before <= guest.u64() <= host()
        assert guest("clock_res_get", clock, OUT) == SUCCESS
        assert 1 <= guest.u64() <= 10_000_000


@pytest.mark.parametrize("clock", [2, 3])
def test_cpu_time_counts_from_the_start_of_the_invocation(clock: int) -> None:
    deadline = time.process_time_ns() + 20_000_000
    while time.process_time_ns() < deadline:
        pass
    guest = Guest()
    assert guest("clock_time_get", clock, 0, OUT) == SUCCESS
    assert 0 <= guest.u64() < 15_000_000
    assert guest("clock_res_get", clock, OUT) == SUCCESS


@pytest.mark.parametrize("clock", [4, -1, 1 << 30])
def test_an_unknown_clock_is_einval(clock: int) -> None:
    guest = Guest()
    assert guest("clock_time_get", clock, 0, OUT) == INVAL
    assert guest("clock_res_get", clock, OUT) == INVAL


def test_random_bytes_fill_the_buffer_to_its_end_and_differ() -> None:
    guest = Guest()
    assert guest("random_get", 0, SIZE) == SUCCESS
    first = guest.load(0, SIZE)
    assert len(set(first[-64:])) > 16
    assert guest("random_get", 0, SIZE) == SUCCESS
    assert guest.load(0, SIZE) != first
    assert guest("random_get", SIZE, 0) == SUCCESS


def test_reading_in_pieces_until_the_end() -> None:
    guest = Guest(b"hello, world")
    vectors = guest.vectors((256, 5))
    pieces = []
    for _ in range(4):
        assert guest("fd_read", 0, *vectors, OUT) == SUCCESS
        pieces.append(guest.load(256, guest.u32()))
    assert pieces == [b"hello", b", wor", b"ld", b""]


@given(stdin=st.binary(max_size=300), sizes=st.lists(st.integers(0, 40), max_size=12))
def test_any_iovecs_are_filled_in_order(stdin: bytes, sizes: list[int]) -> None:
    guest = Guest(stdin)
    places = [(0x1000 + 64 * index, size) for index, size in enumerate(sizes)]
    assert guest("fd_read", 0, *guest.vectors(*places), OUT) == SUCCESS
    assert guest.u32() == min(sum(sizes), len(stdin))
    joined = b"".join(guest.load(*place) for place in places)
    assert joined[: guest.u32()] == stdin[: guest.u32()]
    assert set(joined[guest.u32() :]) <= {0}


@given(pieces=st.lists(st.binary(max_size=40), max_size=12), stream=st.sampled_from([1, 2]))
def test_any_iovecs_are_written_in_order(pieces: list[bytes], stream: int) -> None:
    guest = Guest()
    places = [(guest.store(0x1000 + 64 * index, piece), len(piece)) for index, piece in enumerate(pieces)]
    assert guest("fd_write", stream, *guest.vectors(*places), OUT) == SUCCESS
    joined = b"".join(pieces)
    assert guest.u32() == len(joined)
    if stream == 1:
        assert bytes(guest.wasi.output) == joined
    else:
        assert guest.logs.tail == joined.decode("utf-8", "replace")


def test_reading_over_the_iovecs_themselves_keeps_to_what_they_said() -> None:
    hostile = struct.pack("<II", 0xFFFFFF00, 64) * 2
    guest = Guest(hostile + b"rest")
    at, count = guest.vectors((64, 16), (256, 4))
    assert guest("fd_read", 0, at, count, OUT) == SUCCESS
    assert guest.u32() == 20
    assert guest.load(256, 4) == b"rest"


def test_one_bad_iovec_refuses_all_and_reads_nothing() -> None:
    guest = Guest(b"abcd")
    assert guest("fd_read", 0, *guest.vectors((256, 2), (SIZE - 1, 2)), OUT) == FAULT
    assert guest("fd_write", 1, *guest.vectors((256, 2), (SIZE - 1, 2)), OUT) == FAULT
    assert guest.wasi.output == b""
    assert guest("fd_read", 0, *guest.vectors((256, 4)), OUT) == SUCCESS
    assert guest.load(256, 4) == b"abcd"


def test_lengths_that_add_up_to_more_than_a_size_can_hold_are_einval() -> None:
    guest = Guest(output_limit_bytes=1 << 40)
    count = 4096  # iovecs of a 1 MiB memory each: 4 GiB in all
    guest.grow(1 << 20)
    vectors = guest.vectors(*[(0, 1 << 20)] * count)
    assert guest("fd_write", 1, *vectors, OUT) == INVAL
    assert guest("fd_read", 0, *vectors, OUT) == INVAL


def test_memory_that_grew_is_seen() -> None:
    guest = Guest(b"abc")
    guest.grow(2 * SIZE)
    guest.vectors((SIZE + 100, 3))
    assert guest("fd_read", 0, 64, 1, SIZE + 4) == SUCCESS
    assert guest.load(SIZE + 100, 3) == b"abc"
    assert guest("fd_write", 1, 64, 1, SIZE + 4) == SUCCESS
    assert guest.wasi.output == b"abc"


def test_output_over_the_limit_ends_the_guest_at_once() -> None:
    guest = Guest(output_limit_bytes=10)
    assert guest.write(1, b"0123456789") == SUCCESS
    assert guest.write(1, b"") == SUCCESS
    with pytest.raises(OutputTooLarge) as caught:
        guest.write(1, b"!")
    assert caught.value.limit_bytes == 10


def test_standard_error_becomes_log_lines() -> None:
    guest = Guest()
    assert guest.write(2, b"one\ntw") == SUCCESS
    assert guest.write(2, b"o\n\xff") == SUCCESS
    assert [(entry.level, entry.message) for entry in guest.logs.take()] == [
        (LogLevel.STDERR, "one"),
        (LogLevel.STDERR, "two"),
        (LogLevel.STDERR, "\ufffd"),
    ]


def test_standard_output_of_a_reactor_becomes_info_lines() -> None:
    guest = Guest(log_limit_bytes=1 << 20)
    guest.wasi.log_output()
    assert guest.write(1, b"one\ntw") == SUCCESS
    assert guest.write(1, b"o\n" + b"x" * 20_000) == SUCCESS
    assert guest.write(1, b"end") == SUCCESS
    guest.wasi.end()
    entries = guest.logs.take()
    assert {entry.level for entry in entries} == {LogLevel.INFO}
    assert [entry.message for entry in entries][:2] == ["one", "two"]
    assert "".join(entry.message for entry in entries[2:]) == "x" * 20_000 + "end"


def test_streams_have_one_direction() -> None:
    guest = Guest(b"abc")
    assert guest.write(0, b"x") == NOTCAPABLE
    assert guest("fd_read", 1, *guest.vectors((256, 1)), OUT) == NOTCAPABLE
    assert guest("fd_pread", 2, 64, 1, 0, OUT) == NOTCAPABLE
    assert guest("fd_pwrite", 0, 64, 1, 0, OUT) == NOTCAPABLE


@pytest.mark.parametrize(
    ("name", "parameters", "errno"),
    [
        ("fd_seek", (0, 0, 0, OUT), SPIPE),
        ("fd_seek", (1, -4, 2, OUT), SPIPE),
        ("fd_seek", (1, 0, 3, OUT), INVAL),
        ("fd_tell", (1, OUT), SPIPE),
        ("fd_pread", (0, 64, 1, 0, OUT), SPIPE),
        ("fd_pwrite", (1, 64, 1, 0, OUT), SPIPE),
        ("fd_advise", (0, 0, 0, 0), SPIPE),
        ("fd_advise", (0, 0, 0, 6), INVAL),
        ("fd_allocate", (1, 0, 10), SPIPE),
        ("fd_sync", (1,), INVAL),
        ("fd_datasync", (1,), INVAL),
        ("fd_filestat_set_size", (1, 0), INVAL),
        ("fd_filestat_set_times", (1, 0, 0, 0), NOTCAPABLE),
        ("fd_readdir", (0, 256, 64, 0, OUT), NOTDIR),
        ("fd_prestat_get", (0, OUT), BADF),
        ("fd_prestat_get", (3, OUT), BADF),
        ("fd_prestat_dir_name", (3, 256, 64), BADF),
    ],
)
def test_what_a_stream_cannot_do(name: str, parameters: tuple[int, ...], errno: int) -> None:
    assert Guest()(name, *parameters) == errno


def fdstat(guest: Guest, fd: int) -> tuple[int, int, int, int]:
    assert guest("fd_fdstat_get", fd, OUT) == SUCCESS
    kind, flags, rights, inheriting = struct.unpack("<BxHxxxxQQ", guest.load(OUT, 24))
    return kind, flags, rights, inheriting


def test_descriptor_facts_flags_and_rights() -> None:
    guest = Guest()
    kind, flags, rights, inheriting = fdstat(guest, 0)
    assert (kind, flags, inheriting) == (abi.FILETYPE_UNKNOWN, 0, 0)
    assert rights & abi.RIGHT_FD_READ
    assert not rights & abi.RIGHT_FD_WRITE
    assert guest("fd_fdstat_set_flags", 0, 4) == SUCCESS
    assert fdstat(guest, 0)[1] == 4
    assert guest("fd_fdstat_set_flags", 0, 32) == INVAL
    assert guest("fd_fdstat_set_flags", 0, -1) == INVAL


def test_rights_only_ever_shrink() -> None:
    guest = Guest(b"abc")
    rights = fdstat(guest, 0)[2]
    assert guest("fd_fdstat_set_rights", 0, rights | abi.RIGHT_FD_WRITE, 0) == NOTCAPABLE
    assert guest("fd_fdstat_set_rights", 0, rights, 1) == NOTCAPABLE
    assert guest("fd_fdstat_set_rights", 0, -1, 0) == NOTCAPABLE
    assert guest("fd_fdstat_set_rights", 0, 0, 0) == SUCCESS
    assert fdstat(guest, 0)[2] == 0
    assert guest("fd_read", 0, *guest.vectors((256, 1)), OUT) == NOTCAPABLE
    assert guest("fd_fdstat_set_flags", 0, 0) == NOTCAPABLE
    assert guest("fd_filestat_get", 0, OUT) == NOTCAPABLE
    assert guest("fd_fdstat_set_rights", 0, rights, 0) == NOTCAPABLE


def test_file_facts_of_a_stream() -> None:
    guest = Guest(b"abc")
    assert guest("fd_filestat_get", 1, OUT) == SUCCESS
    _, _, kind, links, size, *_ = struct.unpack("<QQB7xQQQQQ", guest.load(OUT, 64))
    assert (kind, links, size) == (abi.FILETYPE_UNKNOWN, 1, 0)


def test_closing_and_renumbering() -> None:
    guest = Guest(b"abc")
    assert guest("fd_renumber", 1, 7) == BADF
    assert guest("fd_renumber", 7, 1) == BADF
    assert guest("fd_renumber", 1, 1) == SUCCESS
    assert guest("fd_renumber", 1, 2) == SUCCESS
    assert guest.write(1, b"x") == BADF
    assert guest.write(2, b"out") == SUCCESS
    assert guest.wasi.output == b"out"
    assert guest("fd_close", 2) == SUCCESS
    assert guest("fd_close", 2) == BADF
    assert guest.write(2, b"x") == BADF


def test_an_invocation_starts_with_everything_as_it_was() -> None:
    guest = Guest(b"first")
    guest("fd_read", 0, *guest.vectors((256, 2)), OUT)
    guest.write(1, b"out")
    guest("fd_close", 1)
    guest("fd_fdstat_set_rights", 0, 0, 0)
    guest.wasi.end()
    assert guest.wasi.size == len(guest.wasi.view) == len(guest.wasi.output) == 0
    guest.wasi.begin(guest.call, b"second")
    guest.wasi.attach(None, guest.memory)
    assert guest("fd_read", 0, *guest.vectors((256, 64)), OUT) == SUCCESS
    assert guest.load(256, guest.u32()) == b"second"
    assert guest.write(1, b"new") == SUCCESS
    assert guest.wasi.output == b"new"


def test_exits_and_signals() -> None:
    guest = Guest()
    assert guest("sched_yield") == SUCCESS
    for code, told in ((0, 0), (3, 3), (-1, 0xFFFFFFFF)):
        with pytest.raises(ProcExit) as caught:
            guest("proc_exit", code)
        assert caught.value.code == told
    assert guest("proc_raise", 0) == SUCCESS
    assert guest("proc_raise", 16) == SUCCESS
    assert guest("proc_raise", 18) == NOTSUP
    assert guest("proc_raise", 31) == INVAL
    with pytest.raises(ProcExit) as caught:
        guest("proc_raise", 6)
    assert caught.value.code == 134


def clock(userdata: int, timeout: int, *, number: int = 1, flags: int = 0) -> bytes:
    return struct.pack("<QB7xI4xQQH6x", userdata, 0, number, timeout, 0, flags)


def stream(userdata: int, fd: int, kind: int) -> bytes:
    return struct.pack("<QB7xI28x", userdata, kind, fd)


def poll(guest: Guest, *subscriptions: bytes) -> list[tuple[int, int, int, int]]:
    guest.store(256, b"".join(subscriptions))
    assert guest("poll_oneoff", 256, 0x4000, len(subscriptions), OUT) == SUCCESS
    found = [struct.unpack("<QHB5xQH6x", guest.load(0x4000 + 32 * n, 32)) for n in range(guest.u32())]
    return [event[:4] for event in found]


def test_waiting_for_nothing_is_einval() -> None:
    assert Guest()("poll_oneoff", 64, 256, 0, OUT) == INVAL


def test_the_first_clock_that_fires_ends_the_wait() -> None:
    started = time.monotonic()
    events = poll(Guest(), clock(1, 10_000_000_000), clock(2, 20_000_000), clock(3, 10_000_000_000, number=0))
    assert events == [(2, SUCCESS, abi.EVENT_CLOCK, 0)]
    assert 0.02 <= time.monotonic() - started < 5


@pytest.mark.parametrize(("number", "now"), [(0, time.time_ns), (1, time.monotonic_ns)])
def test_absolute_times(number: int, now: Any) -> None:
    due = now() + 20_000_000
    assert poll(Guest(), clock(5, due, number=number, flags=1)) == [(5, SUCCESS, abi.EVENT_CLOCK, 0)]
    assert now() >= due
    assert poll(Guest(), clock(5, 1, number=number, flags=1)) == [(5, SUCCESS, abi.EVENT_CLOCK, 0)]


def test_streams_are_ready_at_once_and_told_in_order() -> None:
    guest = Guest(b"abc")
    events = poll(guest, stream(1, 1, 2), clock(2, 60_000_000_000), stream(3, 0, 1), clock(4, 0))
    assert [event[0] for event in events] == [1, 3, 4]
    assert events[1] == (3, SUCCESS, abi.EVENT_FD_READ, 3)
    assert events[0][3] > 0


def test_the_end_of_input_is_ready_too() -> None:
    assert poll(Guest(), stream(1, 0, 1)) == [(1, SUCCESS, abi.EVENT_FD_READ, 0)]


def test_a_bad_subscription_is_an_event_with_its_error() -> None:
    asked = [stream(1, 9, 1), stream(2, 0, 2), stream(3, 0, 7), clock(4, 1, number=2), clock(5, 1, number=9)]
    assert [(event[0], event[1]) for event in poll(Guest(), *asked, clock(6, 1, flags=2))] == [
        (1, BADF),
        (2, NOTCAPABLE),
        (3, INVAL),
        (4, NOTSUP),
        (5, INVAL),
        (6, INVAL),
    ]


def test_events_may_be_stored_over_the_subscriptions() -> None:
    guest = Guest()
    guest.store(256, clock(1, 0) + clock(2, 0) + clock(3, 0))
    assert guest("poll_oneoff", 256, 256, 3, OUT) == SUCCESS
    assert [guest.u64(256 + 32 * n) for n in range(3)] == [1, 2, 3]
