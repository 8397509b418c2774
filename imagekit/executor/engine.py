"""Run plans: decide what has to be executed, and execute it side by side.

A step is looked up by its definition first, before anything runs. If that misses, its inputs are
needed; once they are there it is looked up by their content, so that a stage that was built again
with an equal result does not make its readers run. Only then is it executed. A failure, a
cancellation or Ctrl-C stops everything that runs.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, Protocol

from attrs import frozen

from imagekit.errors import CancelledError, ImagekitError
from imagekit.events import (
    BuildStarted,
    Observer,
    StepCached,
    StepFailed,
    StepFinished,
    StepInfo,
    StepStarted,
    ignore_events,
)
from imagekit.executor.cache import BuildCache
from imagekit.executor.graph import Graph, Node, build_graph, content_record, located, name_node
from imagekit.executor.inputs import Inputs
from imagekit.executor.values import Layer, Outcome
from imagekit.oci.digest import Digest
from imagekit.plan.key import KeyRecord
from imagekit.plan.ops import Base, Fetch, Local, Plan, Step
from imagekit.sandbox.base import Cancellation

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor


_FETCHES: Final = 4
"""Downloads at a time."""


class Handlers(Protocol):
    """Whoever carries out a step (`handlers.Workshop`)."""

    def run(self, step: Step, inputs: Sequence[Outcome], info: StepInfo, plan: Plan) -> Layer:
        """Execute a step; its layer is in the store when this returns."""


@frozen(kw_only=True)
class Policy:
    """How much of the cache may be used, and how much may run at once.

    Attributes:
        no_cache: execute every step.
        no_cache_stages: names or numbers of stages whose steps are executed, in lower case.
        jobs: steps at a time; None is one a core.
    """

    no_cache: bool = False
    no_cache_stages: frozenset[str] = frozenset()
    jobs: int | None = None


class Engine:
    """Runs plans against one store."""

    def __init__(
        self,
        *,
        cache: BuildCache,
        inputs: Inputs,
        handlers: Callable[[], Handlers],
        policy: Policy | None = None,
        observer: Observer = ignore_events,
        cancellation: Cancellation | None = None,
    ) -> None:
        self._cache = cache
        self._inputs = inputs
        self._handlers = handlers
        self._made: Handlers | None = None
        self._policy = policy or Policy()
        self._observer = observer
        self._cancellation = cancellation or Cancellation()

    def run(self, plans: Sequence[Plan]) -> tuple[tuple[Layer, ...], ...]:
        """Build what the plans describe.

        Returns:
            The layers of each plan's result, lowest first, in the order of the plans.

        Raises:
            StepFailedError: a command ended with another status than 0.
            DockerfileError: a step cannot be carried out, such as a COPY of what is not there.
            CancelledError: the build was cancelled.
        """
        graph = build_graph(plans, self._inputs, self._fetch(plans))
        self._look_up(graph)
        needed = [node for node in graph.nodes if node.needed]
        self._observer(BuildStarted(steps=tuple(node.info for node in needed)))
        if any(node.runs for node in needed):
            self._execute(needed)
        else:
            for node in needed:
                self._take(node)
        self._cache.touch([n.key for n in needed if n.makes_layer and not n.runs])
        return tuple(_outcome(node).layers for node in graph.results)

    def _fetch(self, plans: Sequence[Plan]) -> dict[Fetch, Outcome]:
        """Fetch all that the plans name by URL: content is part of keys, so it comes first."""
        steps: dict[Fetch, tuple[Step, Plan]] = {}
        for plan in plans:
            for step in plan.steps:
                if isinstance(step.op, Fetch):
                    steps.setdefault(step.op, (step, plan))
        if not steps:
            return {}
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - 15 ms

        with ThreadPoolExecutor(_FETCHES, thread_name_prefix="imagekit-fetch") as pool:
            try:
                futures = {op: pool.submit(self._inputs.fetch, op) for op in steps}
                return {op: _fetched(f, *steps[op]) for op, f in futures.items()}
            except BaseException:
                self._cancellation.cancel()
                raise

    def _look_up(self, graph: Graph) -> None:
        usable = [
            n for n in graph.nodes if n.makes_layer and not n.unknown and self._may_use_cache(n)
        ]
        found = self._cache.lookup(node.key for node in usable)
        pending = list(graph.results)
        while pending:
            node = pending.pop()
            if node.needed:
                continue
            node.needed = True
            node.layer = found.get(node.key)
            node.runs = node.makes_layer and node.layer is None
            pending += node.inputs if node.runs else node.inputs[:1]

    def _may_use_cache(self, node: Node) -> bool:
        stage = node.step.stage.lower()
        return not self._policy.no_cache and stage not in self._policy.no_cache_stages

    def _take(self, node: Node) -> None:
        """Give a node that does not run its outcome."""
        match node.step.op:
            case Base() as op:
                node.outcome = Outcome(layers=base_layers(op))
            case Local(name):
                node.outcome = Outcome(context=name)
            case Fetch():
                pass  # it was fetched before the graph was made
            case _:
                if node.layer is None:
                    raise AssertionError(node.info.name)
                node.outcome = _with_layer(node, node.layer)
        if node.makes_layer or isinstance(node.step.op, Base):
            self._observer(StepCached(step=node.info))

    def _execute(self, needed: Sequence[Node]) -> None:
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - 15 ms

        self._workshop()  # made in one thread, before the others ask for it
        waiting = {node: {i for i in node.inputs if i.needed} for node in needed}
        for node in needed:
            for other in waiting[node]:
                other.dependents.append(node)
        jobs = self._policy.jobs or os.cpu_count() or 1
        with ThreadPoolExecutor(jobs, thread_name_prefix="imagekit-step") as pool:
            try:
                failure = self._schedule(pool, waiting)
            except BaseException:
                self._cancellation.cancel()
                raise
        if failure is not None:
            raise failure

    def _workshop(self) -> Handlers:
        """Who carries out steps; an unchanged build never pays for it."""
        if self._made is None:
            self._made = self._handlers()
        return self._made

    def _schedule(
        self, pool: "ThreadPoolExecutor", waiting: dict[Node, set[Node]]
    ) -> BaseException | None:
        """Run nodes as their inputs come to be; what failed first, once nothing runs any more."""
        from concurrent.futures import FIRST_COMPLETED, wait  # noqa: PLC0415 - see above

        running: dict[Future[None], Node] = {}
        failure: BaseException | None = None
        while running or (waiting and failure is None):
            ready = [] if failure else [n for n, missing in waiting.items() if not missing]
            for node in ready:
                del waiting[node]
                running[pool.submit(self._run_node, node)] = node
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                node = running.pop(future)
                error = future.exception()
                if error is not None:
                    failure = _first(failure, error)
                for dependent in node.dependents:
                    waiting[dependent].discard(node)
        return failure

    def _run_node(self, node: Node) -> None:
        try:
            self._carry_out(node)
        except BaseException:
            self._cancellation.cancel()  # here, before this thread takes the next node
            raise

    def _carry_out(self, node: Node) -> None:
        if self._cancellation.is_set():
            raise CancelledError("the build was cancelled")
        if not node.runs:
            self._take(node)
            return
        inputs = [_outcome(i) for i in node.inputs]
        try:
            self._run_step(node, inputs)
        except ImagekitError as exc:
            error = located(node.step, node.plan, exc)
            raise error from error.__cause__

    def _run_step(self, node: Node, inputs: Sequence[Outcome]) -> None:
        layer = self._run_unread(node, inputs) if node.unknown else None
        if node.unknown:
            name_node(node, self._inputs)
        if layer is None:
            layer = self._run_known(node, inputs)
        node.layer = layer
        node.outcome = _with_layer(node, layer)

    def _run_known(self, node: Node, inputs: Sequence[Outcome]) -> Layer:
        """The layer of a step, from the cache or by running it."""
        by_content = content_record(node, self._inputs.digests(node.step, inputs))
        with self._single_flight(by_content.key()):
            layer = self._find(node, by_content)
            if layer is None:
                layer = self._run_handler(node, inputs)
                self._cache.save([node.record, by_content], layer, scope=node.step.name)
            else:
                self._cache.save([node.record], layer, scope=node.step.name)
                self._observer(StepCached(step=node.info))
        return layer

    def _run_unread(self, node: Node, inputs: Sequence[Outcome]) -> Layer | None:
        """The layer of a step that is run before what it reads was digested; None if it was.

        Should the cache have it after all, what the cache has counts: equal steps give one layer.
        """
        with self._single_flight(node.key):
            if not self._inputs.is_unread(node.step, inputs):
                return None
            layer = self._run_handler(node, inputs)
            name_node(node, self._inputs)
            by_content = content_record(node, self._inputs.digests(node.step, inputs))
            layer = self._find(node, by_content) or layer
            self._cache.save([node.record, by_content], layer, scope=node.step.name)
        return layer

    def _single_flight(self, key: Digest) -> AbstractContextManager[None]:
        """Only one thread of all processes on this store is in the block of one key."""
        return self._cache.store.lock(f"step {key}", cancelled=self._cancellation.is_set)

    def _find(self, node: Node, by_content: KeyRecord) -> Layer | None:
        if not self._may_use_cache(node):
            return None
        key = by_content.key()
        return self._cache.lookup([key]).get(key)

    def _run_handler(self, node: Node, inputs: Sequence[Outcome]) -> Layer:
        began = time.monotonic()
        self._observer(StepStarted(step=node.info, at=began))
        try:
            layer = self._workshop().run(node.step, inputs, node.info, node.plan)
        except BaseException as exc:
            now = time.monotonic()
            message = str(exc) or type(exc).__name__
            self._observer(
                StepFailed(step=node.info, at=now, seconds=now - began, message=message)
            )
            raise
        now = time.monotonic()
        self._observer(
            StepFinished(
                step=node.info, at=now, seconds=now - began, layer_size=layer.descriptor.size
            )
        )
        return layer


def base_layers(op: Base) -> tuple[Layer, ...]:
    """The layers of a base image, none of which has to be here."""
    return tuple(
        Layer(diff_id=diff_id, descriptor=descriptor, content=diff_id, origin=op.origin)
        for descriptor, diff_id in zip(op.layers, op.diff_ids, strict=True)
    )


def _fetched(future: "Future[Outcome]", step: Step, plan: Plan) -> Outcome:
    try:
        return future.result()
    except ImagekitError as exc:
        error = located(step, plan, exc)
        raise error from error.__cause__


def _with_layer(node: Node, layer: Layer) -> Outcome:
    return Outcome(layers=(*_outcome(node.inputs[0]).layers, layer))


def _outcome(node: Node) -> Outcome:
    if node.outcome is None:
        raise AssertionError(node.info.name)
    return node.outcome


def _first(failure: BaseException | None, error: BaseException) -> BaseException:
    """The failure that tells most: not that of a step that was stopped because of another."""
    if failure is None or (
        isinstance(failure, CancelledError) and not isinstance(error, CancelledError)
    ):
        return error
    return failure
