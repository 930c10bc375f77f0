"""`poll_oneoff` of WASI preview 1: waiting for clocks and for the standard streams.

Streams in memory are always ready, so waiting is only ever for a clock, and the business of the guest's
world. Nothing bounds a sleep here: the app kills the worker at the invocation's deadline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from runner.workers.wasi import abi
from runner.workers.wasi.abi import BADF, INVAL, NOTCAPABLE, NOTSUP, SUCCESS
from runner.workers.world import Alarm

if TYPE_CHECKING:
    from runner.workers.wasi.streams import Streams
    from runner.workers.world import World

_STRIDE: Final = abi.SUBSCRIPTION_CLOCK.size
_TAG_OFFSET: Final = 8


class Event(NamedTuple):
    """What is told of one subscription, in the order of its structure."""

    userdata: int
    errno: int
    kind: int
    available: int = 0
    """Bytes that can be read or written at once; of a clock 0."""
    flags: int = 0


class Timer(NamedTuple):
    """A clock subscription that can fire."""

    userdata: int
    alarm: Alarm


def poll(streams: Streams, world: World, subscriptions: int, events: int, count: int, stored: int) -> int:
    """Wait until one of `count` subscriptions is due, then store an event for each that is, in the
    order of the subscriptions. An error of a subscription is an event at once."""
    if not count:
        return INVAL
    result = streams.at(stored, 4)
    start = streams.at(subscriptions, count * _STRIDE)
    target = streams.at(events, count * abi.EVENT.size)
    # A copy: events may be stored over the subscriptions.
    asked = bytes(streams.view[start : start + count * _STRIDE])
    told = 0
    for event in _due(_look(streams, asked), world):
        abi.EVENT.pack_into(streams.view, target + told * abi.EVENT.size, *event)
        told += 1
    abi.U32.pack_into(streams.view, result, told)
    return SUCCESS


def _due(found: list[Event | Timer], world: World) -> list[Event]:
    alarms = [entry.alarm for entry in found if isinstance(entry, Timer)]
    due = iter(world.wait(alarms, at_once=len(alarms) < len(found)) if alarms else ())
    events = []
    for entry in found:
        if isinstance(entry, Event):
            events.append(entry)
        elif next(due):
            events.append(Event(entry.userdata, SUCCESS, abi.EVENT_CLOCK))
    return events


def _look(streams: Streams, asked: bytes) -> list[Event | Timer]:
    found: list[Event | Timer] = []
    for at in range(0, len(asked), _STRIDE):
        kind = asked[at + _TAG_OFFSET]
        if kind == abi.EVENT_CLOCK:
            found.append(_clock(*abi.SUBSCRIPTION_CLOCK.unpack_from(asked, at)))
        else:
            found.append(_stream(streams, *abi.SUBSCRIPTION_FD.unpack_from(asked, at)))
    return found


def _clock(userdata: int, kind: int, clock: int, timeout: int, precision: int, flags: int) -> Event | Timer:  # noqa: ARG001
    if clock in (abi.CLOCK_PROCESS_CPUTIME, abi.CLOCK_THREAD_CPUTIME):
        return Event(userdata, NOTSUP, kind)  # a sleeping process uses none: it would wait for ever
    if clock not in (abi.CLOCK_REALTIME, abi.CLOCK_MONOTONIC):
        return Event(userdata, INVAL, kind)
    if flags & ~abi.SUBSCRIPTION_CLOCK_ABSTIME:
        return Event(userdata, INVAL, kind)
    absolute = bool(flags & abi.SUBSCRIPTION_CLOCK_ABSTIME)
    return Timer(userdata, Alarm(clock == abi.CLOCK_REALTIME, timeout, relative=not absolute))


def _stream(streams: Streams, userdata: int, kind: int, fd: int) -> Event:
    if kind not in (abi.EVENT_FD_READ, abi.EVENT_FD_WRITE):
        return Event(userdata, INVAL, kind)
    descriptor = streams.descriptors.get(fd)
    if descriptor is None:
        return Event(userdata, BADF, kind)
    reads = kind == abi.EVENT_FD_READ
    wanted = abi.RIGHT_POLL_FD_READWRITE | (abi.RIGHT_FD_READ if reads else abi.RIGHT_FD_WRITE)
    if descriptor.rights & wanted != wanted:
        return Event(userdata, NOTCAPABLE, kind)
    return Event(userdata, SUCCESS, kind, streams.unread if reads else _WRITE_ROOM_BYTES)


_WRITE_ROOM_BYTES: Final = 1 << 16
"""What a write event tells as room; any amount is taken."""
