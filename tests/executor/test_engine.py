"""Scheduling: what runs, what runs side by side, and what a failure or a cancellation stops."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from imagekit.errors import CancelledError, DockerfileError, ImagekitError, Span, StepFailedError
from imagekit.events import BuildStarted, Event, StepCached, StepFailed, StepInfo, StepStarted
from imagekit.executor.engine import Engine, Policy
from imagekit.executor.values import Layer, Outcome, content_id
from imagekit.oci.config import ImageConfig
from imagekit.oci.descriptor import LAYER_TAR, Descriptor
from imagekit.oci.digest import Digest
from imagekit.oci.platform import Platform
from imagekit.plan.key import KeyRecord
from imagekit.plan.ops import Base, Exec, Plan, Step
from imagekit.sandbox.base import Cancellation

AMD64 = Platform("linux", "amd64")
WAIT_S = 30
SCRATCH = Step(op=Base(reference="", platform=AMD64), name="FROM scratch", platform=AMD64)
Act = Callable[[str], object]


def layer(content: str) -> Layer:
    digest = Digest.of(content.encode())
    descriptor = Descriptor(media_type=LAYER_TAR, digest=digest, size=len(content))
    return Layer(diff_id=digest, descriptor=descriptor, content=digest, created=1)


def step(name: str, *inputs: int, stage: str = "0", line: int = 0) -> Step:
    return Step(
        op=Exec(argv=(name,)),
        inputs=inputs or (0,),
        name=name,
        stage=stage,
        platform=AMD64,
        span=Span(line, line) if line else None,
    )


def plan(*steps: Step, result: int = -1) -> Plan:
    every = (SCRATCH, *steps)
    return Plan(
        steps=every,
        result=len(every) - 1 if result < 0 else result,
        config=ImageConfig(platform=AMD64),
        platform=AMD64,
        source="FROM scratch\nRUN x\nRUN y\n",
    )


class FakeCache:
    """A cache in memory."""

    def __init__(self) -> None:
        self.kept: dict[Digest, Layer] = {}
        self.touched: list[Digest] = []

    @property
    def store(self) -> "FakeCache":
        return self

    @contextmanager
    def lock(self, key: str, *, cancelled: Callable[[], bool]) -> Iterator[None]:
        del key, cancelled
        yield

    def lookup(self, keys: Iterable[Digest]) -> dict[Digest, Layer]:
        return {key: self.kept[key] for key in keys if key in self.kept}

    def save(self, records: Sequence[KeyRecord], made: Layer, *, scope: str) -> None:
        del scope
        self.kept.update({record.key(): made for record in records})

    def touch(self, keys: Sequence[Digest]) -> None:
        self.touched += keys


class FakeInputs:
    """What steps read: nothing of contexts, and of other steps all."""

    def local_digest(self, step: Step, position: int, name: str) -> Digest:
        raise AssertionError((step, position, name))

    def digests(self, step: Step, inputs: Sequence[Outcome]) -> list[Digest]:
        del step
        return [content_id(outcome.layers) for outcome in inputs]


class FakeHandlers:
    """Steps that call a function with their name; their layer is what it returns, or the name."""

    def __init__(self, act: Act) -> None:
        self.act = act
        self.ran: list[str] = []

    def run(self, step: Step, inputs: Sequence[Outcome], info: StepInfo, plan: Plan) -> Layer:
        del inputs, info, plan
        self.ran.append(step.name)
        return layer(str(self.act(step.name) or step.name))


class Setup:
    """An engine with its fakes."""

    def __init__(
        self, act: Act = lambda _: None, *, cache: FakeCache | None = None, **policy: object
    ) -> None:
        self.cache = cache or FakeCache()
        self.handlers = FakeHandlers(act)
        self.events: list[Event] = []
        self.cancellation = Cancellation()
        self.engine = Engine(
            cache=self.cache,  # type: ignore[arg-type]
            inputs=FakeInputs(),  # type: ignore[arg-type]
            handlers=lambda: self.handlers,
            policy=Policy(**policy),  # type: ignore[arg-type]
            observer=self.events.append,
            cancellation=self.cancellation,
        )

    @property
    def ran(self) -> list[str]:
        return sorted(self.handlers.ran)

    def run(self, *plans: Plan) -> tuple[tuple[Layer, ...], ...]:
        return self.engine.run(plans)

    def names(self, kind: type[StepCached] | type[StepStarted] | type[StepFailed]) -> list[str]:
        return sorted(event.step.name for event in self.events if isinstance(event, kind))


def test_layers_come_back_lowest_first() -> None:
    (found,) = Setup().run(plan(step("a"), step("b", 1), step("c", 2)))
    assert found == (layer("a"), layer("b"), layer("c"))


def test_steps_whose_inputs_are_ready_run_side_by_side() -> None:
    together = threading.Barrier(2, timeout=WAIT_S)

    def act(name: str) -> None:
        if name in {"a", "b"}:
            together.wait()

    setup = Setup(act, jobs=2)
    setup.run(plan(step("a"), step("b"), step("join", 1, 2)))
    assert setup.ran == ["a", "b", "join"]


def test_with_one_job_one_step_runs_at_a_time() -> None:
    running = threading.Lock()

    def act(_: str) -> None:
        assert running.acquire(blocking=False)
        running.release()

    setup = Setup(act, jobs=1)
    setup.run(plan(*(step(name) for name in "abcdef"), step("join", 1, 2, 3, 4, 5, 6)))
    assert len(setup.ran) == 7


def test_a_failure_cancels_the_rest_and_is_what_is_raised() -> None:
    setup: Setup
    other_runs = threading.Event()

    def act(name: str) -> None:
        if name == "bad":
            assert other_runs.wait(WAIT_S)
            raise StepFailedError("it broke", step=name, exit_code=3)
        other_runs.set()
        assert setup.cancellation.wait(WAIT_S)
        raise CancelledError("stopped")

    setup = Setup(act, jobs=2)
    with pytest.raises(StepFailedError, match="it broke"):
        setup.run(plan(step("bad"), step("other"), step("after", 1, 2)))
    assert setup.ran == ["bad", "other"]
    assert setup.names(StepFailed) == ["bad", "other"]


def test_nothing_is_started_after_a_failure() -> None:
    def act(name: str) -> None:
        raise StepFailedError(name, step=name)

    setup = Setup(act, jobs=1)
    with pytest.raises(StepFailedError, match="a"):
        setup.run(plan(step("a"), step("b"), step("c"), step("join", 1, 2, 3)))
    assert setup.ran == ["a"]


def test_a_failure_that_is_no_error_of_the_library_is_raised_as_it_is() -> None:
    def act(name: str) -> None:
        raise ZeroDivisionError(name)

    with pytest.raises(ZeroDivisionError):
        Setup(act).run(plan(step("a")))


def test_an_error_gets_the_place_of_its_step() -> None:
    def act(name: str) -> None:
        raise ImagekitError(f"{name} is wrong", hint="do it", code="some")

    with pytest.raises(DockerfileError) as caught:
        Setup(act).run(plan(step("a", line=2)))
    assert caught.value.place == "Dockerfile:2"
    assert caught.value.excerpt() == "2 | RUN x"
    assert (caught.value.hint, caught.value.code) == ("do it", "some")


def test_a_build_that_was_cancelled_before_runs_nothing() -> None:
    setup = Setup()
    setup.cancellation.cancel()
    with pytest.raises(CancelledError):
        setup.run(plan(step("a"), step("b", 1)))
    assert setup.ran == []


def test_a_build_that_is_cancelled_stops_after_what_runs() -> None:
    setup: Setup

    def act(_: str) -> None:
        setup.cancellation.cancel()

    setup = Setup(act)
    with pytest.raises(CancelledError):
        setup.run(plan(step("a"), step("b", 1)))
    assert setup.ran == ["a"]


def test_equal_steps_of_several_plans_run_once() -> None:
    setup = Setup()
    both = setup.run(plan(step("a"), step("b", 1)), plan(step("a"), step("c", 1)))
    assert setup.ran == ["a", "b", "c"]
    assert both == ((layer("a"), layer("b")), (layer("a"), layer("c")))


def test_what_nothing_needs_does_not_run() -> None:
    setup = Setup()
    setup.run(plan(step("a"), step("unused"), step("b", 1)))
    assert setup.ran == ["a", "b"]


def test_a_second_run_executes_nothing_and_says_what_is_cached() -> None:
    cache = FakeCache()
    first = Setup(cache=cache).run(plan(step("a"), step("b", 1)))
    again = Setup(cache=cache)
    assert again.run(plan(step("a"), step("b", 1))) == first
    assert again.ran == []
    assert again.names(StepCached) == ["FROM scratch", "a", "b"]
    assert again.names(StepStarted) == []
    assert len(cache.touched) == 2


def test_the_inputs_of_a_hit_are_not_looked_at() -> None:
    cache = FakeCache()
    made = plan(step("other", stage="other"), step("a", 0, 1))
    Setup(cache=cache).run(made)
    again = Setup(cache=cache, no_cache_stages=frozenset({"other"}))
    again.run(made)
    assert again.ran == []


def test_a_stage_that_gives_the_same_again_lets_its_readers_hit() -> None:
    cache = FakeCache()
    Setup(lambda n: "same" if n.startswith("make") else n, cache=cache).run(
        plan(step("make 1"), step("read", 0, 1))
    )
    again = Setup(lambda n: "same" if n.startswith("make") else n, cache=cache)
    again.run(plan(step("make 2"), step("read", 0, 1)))
    assert again.ran == ["make 2"]
    assert "read" in again.names(StepCached)
    third = Setup(cache=cache)
    third.run(plan(step("make 2"), step("read", 0, 1)))
    assert third.ran == []


def test_no_cache_runs_every_step_and_keeps_the_results() -> None:
    cache = FakeCache()
    Setup(cache=cache).run(plan(step("a"), step("b", 1)))
    again = Setup(cache=cache, no_cache=True)
    again.run(plan(step("a"), step("b", 1)))
    assert again.ran == ["a", "b"]
    third = Setup(cache=cache)
    third.run(plan(step("a"), step("b", 1)))
    assert third.ran == []


def test_no_cache_for_a_stage_runs_its_steps_only() -> None:
    cache = FakeCache()
    made = plan(step("a", stage="Base"), step("b", 1, stage="app"), step("c", 2, stage="app"))
    Setup(cache=cache).run(made)
    again = Setup(cache=cache, no_cache_stages=frozenset({"app"}))
    again.run(made)
    assert again.ran == ["b", "c"]
    named = Setup(cache=cache, no_cache_stages=frozenset({"base"}))
    named.run(made)
    assert "a" in named.ran


def test_only_needed_steps_are_announced() -> None:
    setup = Setup()
    setup.run(plan(step("a"), step("unused"), step("b", 1)))
    (started,) = [e for e in setup.events if isinstance(e, BuildStarted)]
    assert [info.name for info in started.steps] == ["FROM scratch", "a", "b"]
