"""Whether and when to try again. Pure: attempts and chance are arguments, nobody sleeps here."""

from __future__ import annotations

from runner.errors import RunnerError

CEILING_SECONDS = 300.0
"""No delay is longer."""


def should_retry(error: RunnerError, *, attempts: int, retry_count: int) -> bool:
    """Whether work that failed with `error` after `attempts` tries has another one.

    What is the caller's fault, a missing right or a missing part is not tried again: it would end
    the same way.
    """
    return error.retryable and attempts <= retry_count


def delay_seconds(*, attempts: int, retry_delay_seconds: float, chance: float) -> float:
    """How long to wait after the `attempts`-th try: full jitter over an exponential delay.

    `chance` is uniform in [0, 1). The delay is `chance * min(CEILING_SECONDS, retry_delay_seconds *
    2 ** (attempts - 1))`: see "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    # 2 ** 64 seconds is past every ceiling, and a float holds it.
    longest = min(CEILING_SECONDS, retry_delay_seconds * 2.0 ** min(attempts - 1, 64))
    return chance * longest
