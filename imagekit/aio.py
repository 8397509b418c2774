"""The same as `imagekit.api` for an event loop: each call runs in a thread of its own.

Cancelling the task cancels the build: its processes are ended and its temporary files removed
before the `CancelledError` of asyncio goes on.
"""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from imagekit import api
from imagekit.builder import Result
from imagekit.sandbox.base import Cancellation

P = ParamSpec("P")
T = TypeVar("T")


async def build(*args: Any, **kwargs: Any) -> Result:  # noqa: ANN401 - those of `api.build`
    """Build; arguments, result and errors are those of `imagekit.build`."""
    cancellation = kwargs.setdefault("cancellation", Cancellation())
    work = asyncio.ensure_future(asyncio.to_thread(api.build, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        cancellation.cancel()
        await asyncio.wait([work])
        work.exception()  # looked at, so that asyncio does not call it lost
        raise


def _off_the_loop(function: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    @functools.wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(function, *args, **kwargs)

    return call


inspect = _off_the_loop(api.inspect)
push = _off_the_loop(api.push)
pull = _off_the_loop(api.pull)
prune = _off_the_loop(api.prune)

__all__ = ["build", "inspect", "prune", "pull", "push"]
