"""Trying again: which failures pass by themselves, and how long to wait for that.

Spec: security spec N-9.
"""

import random
from collections.abc import Callable
from typing import Final

from attrs import evolve, frozen

from imagekit.errors import RegistryError, UnreachableError
from imagekit.registry.calls import Call, Exchange, Flow, Reply, T, through
from imagekit.registry.problems import retry_after

TRANSIENT: Final = frozenset((408, 425, 429, 500, 502, 503, 504))
LASTING: Final = frozenset(("unknown-host", "tls", "address-refused"))
"""Codes of the UnreachableErrors that another try would only repeat."""


@frozen(kw_only=True)
class RetryPolicy:
    """How often and how patiently; waits grow exponentially, with full jitter.

    Attributes:
        tries: the most times that one call is sent.
        first_delay: upper bound of the first wait, in seconds; each next one doubles it.
        longest_delay: upper bound of any wait of ours.
        longest_wait: the longest that a registry may ask us to wait; asked for more, we give up.
        patience: the most seconds that the waits of one call may add up to.
        jitter: a random number from 0 up to 1.
    """

    tries: int = 6
    first_delay: float = 0.25
    longest_delay: float = 20.0
    longest_wait: float = 60.0
    patience: float = 180.0
    jitter: Callable[[], float] = random.random

    def delay(self, tried: int, asked: float | None = None) -> float | None:
        """Seconds to wait after try number `tried` failed; None to give up.

        Args:
            tried: how many tries there were, from 1.
            asked: what the registry asked for, if it did.
        """
        if tried >= self.tries or (asked is not None and asked > self.longest_wait):
            return None
        bound: float = min(self.longest_delay, self.first_delay * 2 ** (tried - 1))
        return max(asked or 0.0, bound * self.jitter())


def is_transient(failure: Reply | RegistryError) -> bool:
    """Whether the same may succeed later."""
    if isinstance(failure, UnreachableError):
        return failure.code not in LASTING
    return failure.status in TRANSIENT


def wait_after(failure: Reply | RegistryError, policy: RetryPolicy, tried: int) -> float | None:
    """Seconds to wait before the next try, or None if there is to be none."""
    if not is_transient(failure):
        return None
    asked = failure.retry_after if isinstance(failure, RegistryError) else retry_after(failure)
    return policy.delay(tried, asked)


def retry_exchange(policy: RetryPolicy) -> Exchange:
    """An exchange that repeats repeatable calls after transient failures."""

    def exchange(call: Call) -> Flow[Reply]:
        waited = 0.0
        for tried in range(1, policy.tries + 1):
            failure: Reply | UnreachableError
            try:
                failure = reply = yield call
            except UnreachableError as exc:
                failure = exc
            else:
                if not is_transient(reply):
                    return reply
            delay = wait_after(failure, policy, tried) if call.repeatable else None
            if delay is None or waited + delay > policy.patience:
                break
            waited += delay
            call = evolve(call, delay=delay)
        if isinstance(failure, UnreachableError):
            raise failure
        return failure

    return exchange


def retrying(flow: Flow[T], policy: RetryPolicy) -> Flow[T]:
    """The flow with its repeatable calls tried again after transient failures."""
    return through(flow, retry_exchange(policy))
