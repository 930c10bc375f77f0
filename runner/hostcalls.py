"""What the app answers when a guest asks for work: `enqueue_background` and `schedule_once`.

A grant is looked for here and not in the worker, which a guest may have taken over. How a call
travels, and how an error of ours ends the guest, is in runner.workers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from runner.errors import GrantMissing, UsageError
from runner.models import InvocationContext, TriggerType

if TYPE_CHECKING:
    from runner.runs import Enqueued

SHOWN_CHARACTERS = 100
"""How much of a guest's own text is repeated in a message."""


class Enqueuer(Protocol):
    """Who accepts runs: the Runner."""

    def enqueue(self, job: str, payloads: Sequence[bytes], **facts: Any) -> list[Enqueued]:
        """See runner.app.Runner.enqueue."""


def host_calls(
    enqueuer: Enqueuer, now: Callable[[], datetime]
) -> Mapping[str, Callable[[InvocationContext, Sequence[bytes]], bytes]]:
    """The host calls by name, for runner.contracts.Host. Each answers the id of the run that was accepted,
    as decimal text; raises GrantMissing, and what `enqueue` raises."""

    def enqueue_background(context: InvocationContext, arguments: Sequence[bytes]) -> bytes:
        job, payload = arguments
        name = _granted("enqueue_background", context, job)
        return _run_id(enqueuer.enqueue(name, [payload], trigger_type=TriggerType.JOB, parent_id=context.run_id))

    def schedule_once(context: InvocationContext, arguments: Sequence[bytes]) -> bytes:
        job, when, payload = arguments
        name = _granted("schedule_once", context, job)
        facts = {"trigger_type": TriggerType.TIMER, "parent_id": context.run_id, "run_at": moment(when, now())}
        return _run_id(enqueuer.enqueue(name, [payload], **facts))

    return {"enqueue_background": enqueue_background, "schedule_once": schedule_once}


def moment(when: bytes, now: datetime) -> datetime:
    """The moment that a guest means: RFC 3339 with an offset, or a duration from now on like `1h30m`.
    One that is past is as good as now. Raises UsageError."""
    from runner.when import MOMENT, parse_duration, parse_moment  # most invocations schedule nothing

    text = _text(when)
    looks_like_one = text[:4].isdigit() and text[4:5] == "-"
    try:
        return parse_moment(text) if looks_like_one else now + parse_duration(text)
    except ValueError as error:
        raise UsageError(str(error) if looks_like_one else f"{error}, or {MOMENT}") from None
    except OverflowError:
        raise UsageError(f"{text!r} from now is later than time lasts here") from None


def _granted(host_function: str, context: InvocationContext, job: bytes) -> str:
    name = _text(job)
    if name not in context.allow.enqueue:
        raise GrantMissing(host_function, f"`allow: {{enqueue: [{name}]}}`")
    return name


def _text(data: bytes) -> str:
    text = data[: 4 * SHOWN_CHARACTERS].decode("utf-8", "replace")
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


def _run_id(enqueued: Sequence[Enqueued]) -> bytes:
    return str(enqueued[0].run_id).encode()
