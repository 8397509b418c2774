"""The steps of all plans as one graph, in which equal steps are one node."""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from attrs import define, field

from imagekit.errors import CancelledError, DockerfileError, ImagekitError
from imagekit.events import StepInfo
from imagekit.executor.values import Layer, Outcome
from imagekit.oci.digest import Digest
from imagekit.plan.key import KeyRecord, cache_key
from imagekit.plan.ops import Base, Fetch, Local, Plan, Step

_UNREAD: Final = Digest.of(b"not read yet")


class Reads(Protocol):
    """Whoever knows what steps read (`inputs.Inputs`)."""

    def local_digest(self, step: Step, position: int, name: str) -> Digest | None:
        """The digest of what a step reads of a local context, its input at a position.

        None where it is better to read it once, when the step runs.
        """

    def layer_digest(self, step: Step, position: int, outcome: Outcome) -> Digest:
        """The digest of what a step reads of layers, its input at a position."""


@define(eq=False, kw_only=True)
class Node:
    """A step of the graph, and what becomes of it.

    Attributes:
        inputs: the nodes that give its inputs.
        record: what its key is made of: its definition, known before anything runs, unless...
        unknown: ...something that it reads, or that an input reads, was not looked into yet. The
            key then only tells the node from others, until `name_node` gives the real one.
        info: as events name it.
        layer: the layer it was found to give.
        needed: whether something that runs, or the result, needs it.
        runs: whether it has to be executed.
        outcome: what it gave, when it has.
    """

    step: Step
    plan: Plan
    inputs: tuple["Node", ...]
    record: KeyRecord
    key: Digest
    unknown: bool = False
    info: StepInfo
    layer: Layer | None = None
    needed: bool = False
    runs: bool = False
    outcome: Outcome | None = None
    dependents: list["Node"] = field(factory=list)

    @property
    def makes_layer(self) -> bool:
        """Whether the step adds a layer, rather than bring in what is there already."""
        return not isinstance(self.step.op, Base | Local | Fetch)


@define(kw_only=True)
class Graph:
    """All nodes, inputs before those that use them, and the node of each plan's result."""

    nodes: list[Node]
    results: list[Node]


def build_graph(plans: Sequence[Plan], reads: Reads, fetched: Mapping[Fetch, Outcome]) -> Graph:
    """Join plans into one graph.

    Args:
        plans: of one build; equal steps of different plans become one node.
        reads: asked for the content that is read of local contexts and of what was fetched.
        fetched: what was.

    Raises:
        DockerfileError: what a step reads of a context is not there, or cannot be read. Where
            several steps fail it is the last one's, as BuildKit has it; notes name the others.
    """
    by_key: dict[Digest, Node] = {}
    results = []
    failures: dict[str, ImagekitError] = {}
    for plan in plans:
        nodes: list[Node] = []
        for step in plan.steps:
            inputs = tuple(nodes[i] for i in step.inputs)
            try:
                record, unknown = _definition(step, inputs, reads)
            except ImagekitError as exc:
                failures.setdefault(str(step.span or step.name), located(step, plan, exc))
                record, unknown = cache_key(step.op, step.platform, [i.key for i in inputs]), True
            key = record.key()
            node = by_key.get(key)
            if node is None:
                info = StepInfo(
                    id=len(by_key) + 1, name=_name(step, several=len(plans) > 1), span=step.span
                )
                node = Node(
                    step=step,
                    plan=plan,
                    inputs=inputs,
                    record=record,
                    key=key,
                    unknown=unknown,
                    info=info,
                )
                if isinstance(step.op, Fetch):
                    node.outcome = fetched[step.op]
                by_key[key] = node
            nodes.append(node)
        results.append(nodes[plan.result])
    if failures:
        raise _last(list(failures.values()))
    return Graph(nodes=list(by_key.values()), results=results)


def _last(failures: Sequence[ImagekitError]) -> ImagekitError:
    *others, error = failures
    for other in others:
        place = f"{other.place}: " if isinstance(other, DockerfileError) else ""
        error.add_note(f"{place}{other.message}")
    return error


def name_node(node: Node, reads: Reads) -> None:
    """Give a node its real key, now that all it reads is known."""
    node.record, node.unknown = _definition(node.step, node.inputs, reads)
    node.key = node.record.key()


def _definition(step: Step, inputs: Sequence[Node], reads: Reads) -> tuple[KeyRecord, bool]:
    """The record of a step, and whether something in it is not known yet."""
    parents = [_input_digest(step, n, node, reads) for n, node in enumerate(inputs)]
    unknown = None in parents or any(node.unknown for node in inputs)
    fields = cache_key(step.op, step.platform, [p or _UNREAD for p in parents])
    if unknown:
        fields = KeyRecord((("known", "no"), *fields.fields))
    return fields, unknown


def _input_digest(step: Step, position: int, node: Node, reads: Reads) -> Digest | None:
    """What is known of an input before anything runs: its content, or else its key."""
    match node.step.op:
        case Local(name):
            return reads.local_digest(step, position, name)
        case Fetch() if node.outcome is not None and position:
            return reads.layer_digest(step, position, node.outcome)
        case _:
            return node.key


def _name(step: Step, *, several: bool) -> str:
    if not several or not step.name.startswith("["):
        return step.name
    return f"[{step.platform} {step.name[1:]}"


def content_record(node: Node, contents: Sequence[Digest]) -> KeyRecord:
    """The record of a step by what it really reads, once that is known."""
    record = cache_key(node.step.op, node.step.platform, contents)
    return KeyRecord((("by", "content"), *record.fields))


def located(step: Step, plan: Plan, error: ImagekitError) -> ImagekitError:
    """The error with the place of the step in the Dockerfile, where it has one.

    A new one has the error as its cause.
    """
    if step.span is None or isinstance(error, CancelledError):
        return error
    found = error if isinstance(error, DockerfileError) else None
    if found is None:
        found = DockerfileError(error.message, hint=error.hint, code=error.code)
        found.__cause__ = error
    if found.span is None:
        found.span = step.span
        found.filename, found.source = plan.filename, plan.source
    return found
