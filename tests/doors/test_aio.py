"""The same API on an event loop."""

import asyncio
import sys
import threading
from pathlib import Path

import pytest

import imagekit
from imagekit import aio
from imagekit.errors import CancelledError, DockerfileError
from imagekit.events import Event, StepLog
from imagekit.sandbox.base import Cancellation
from tests.support.building import Project
from tests.support.tools import need_root

SLEEPING = "FROM busybox\nRUN echo started; sleep 600; echo never\n"


def test_a_build_gives_what_the_blocking_one_gives(project: Project) -> None:
    project.write({"a": "a"}).dockerfile("FROM scratch\nCOPY a /\n")
    result = asyncio.run(aio.build(project.context, store=project.store, tags=["app"]))
    assert result.digest == imagekit.build(project.context, store=project.store).digest
    shown = asyncio.run(aio.inspect("app", store=project.store))
    assert str(shown.document.descriptor.digest) == result.digest
    assert asyncio.run(aio.prune(store=project.store)).count >= 0


def test_several_builds_at_once_share_a_store(project: Project) -> None:
    project.write({"a": "a"}).dockerfile("FROM scratch\nARG N\nCOPY a /$N\n")

    async def build_all() -> set[str]:
        builds = [
            aio.build(project.context, store=project.store, build_args={"N": str(n % 3)})
            for n in range(6)
        ]
        return {result.digest for result in await asyncio.gather(*builds)}

    assert len(asyncio.run(build_all())) == 3


def test_an_error_is_raised_as_it_is(project: Project) -> None:
    project.dockerfile("FROM scratch\nCOPY missing /\n")
    with pytest.raises(DockerfileError, match="missing"):
        asyncio.run(aio.build(project.context, store=project.store))


def test_cancelling_the_task_ends_the_build(busybox: Project) -> None:
    need_root()
    busybox.dockerfile(SLEEPING)

    async def start_and_cancel() -> None:
        loop = asyncio.get_running_loop()
        started = asyncio.Event()

        def watch(event: Event) -> None:
            if isinstance(event, StepLog):
                loop.call_soon_threadsafe(started.set)

        task = asyncio.create_task(
            aio.build(
                busybox.context,
                build_contexts=busybox.contexts,
                store=busybox.store,
                observer=watch,
            )
        )
        await asyncio.wait_for(started.wait(), 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(start_and_cancel())
    assert left(busybox.store) == []
    assert busybox.build("FROM busybox\nRUN echo again\n").log == "again\n"


def left(store: Path) -> list[str]:
    return [path.name for name in ("temp", "ingest") for path in (store / name).iterdir()]


def test_a_cancellation_ends_a_blocking_build(busybox: Project) -> None:
    need_root()
    cancellation = Cancellation()

    def watch(event: Event) -> None:
        if isinstance(event, StepLog):
            cancellation.cancel()

    with pytest.raises(CancelledError):
        busybox.build(SLEEPING, observer=watch, cancellation=cancellation)
    assert left(busybox.store) == []


def test_a_failure_does_not_cancel_what_else_the_caller_does(project: Project) -> None:
    cancellation = Cancellation()
    with pytest.raises(DockerfileError):
        project.build("FROM scratch\nCOPY missing /\n", cancellation=cancellation)
    with pytest.raises(DockerfileError):
        project.write({"a": "a"}).build(
            "FROM scratch\nCOPY a /a/\nCOPY a /a/a/b\n", cancellation=cancellation
        )
    assert not cancellation.is_set()
    project.build("FROM scratch\nCOPY a /\n", cancellation=cancellation)


def test_a_build_with_a_cancellation_that_was_made_before_does_nothing(project: Project) -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    with pytest.raises(CancelledError):
        project.write({"a": "a"}).build("FROM scratch\nCOPY a /\n", cancellation=cancellation)


def test_an_observer_is_called_for_one_event_at_a_time(project: Project) -> None:
    inside = threading.Lock()
    overlaps = 0

    def watch(event: Event) -> None:
        nonlocal overlaps
        del event
        free = inside.acquire(blocking=False)
        overlaps += not free
        sum(range(1_000))
        if free:
            inside.release()

    stages = "".join(f"FROM scratch AS s{n}\nCOPY a /{n}\n" for n in range(12))
    copies = "".join(f"COPY --from=s{n} /{n} /{n}\n" for n in range(12))
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        text = f"{stages}FROM scratch\n{copies}"
        project.write({"a": "a"}).build(text, observer=watch, jobs=4)
    finally:
        sys.setswitchinterval(switching)
    assert overlaps == 0
