"""One function an operation: the layer that a step writes."""

import time
from collections.abc import Callable, Sequence

from imagekit.errors import UsageError
from imagekit.events import StepInfo
from imagekit.executor.archives import Archives
from imagekit.executor.contents import Bytes, Sources
from imagekit.executor.contexts import PATTERNS, Contexts, as_source, selected_files
from imagekit.executor.layers import LayerContents, Layers
from imagekit.executor.run import Runner
from imagekit.executor.values import Layer, Outcome
from imagekit.layer.copying import CopyOptions, Readers, copy, inline_file, mkdir
from imagekit.layer.selection import Source
from imagekit.layer.tree import Tree, Where
from imagekit.plan.ops import Copy, Exec, InlineFile, Mkdir, Plan, Step

_INLINE = "inline:"


class Workshop:
    """Carries out steps: everything that they need is here."""

    def __init__(
        self,
        *,
        layers: Layers,
        contexts: Contexts,
        runner: Runner,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._layers = layers
        self._store = layers.store
        self._contexts = contexts
        self._runner = runner
        self._clock = clock

    def run(self, step: Step, inputs: Sequence[Outcome], info: StepInfo, plan: Plan) -> Layer:
        """Execute a step; its layer is in the store when this returns.

        Raises:
            ImagekitError: it cannot be carried out, or its command failed.
        """
        match step.op:
            case Copy() as op:
                return self._copy(op, inputs)
            case Mkdir() as op:
                return self._mkdir(op, inputs)
            case Exec() as op:
                return self._runner.run(op, step, inputs, info, plan)
            case _:
                raise UsageError(f"{step.name}: makes no layer")

    def _copy(self, op: Copy, inputs: Sequence[Outcome]) -> Layer:
        now = int(self._clock()) if op.epoch is None else op.epoch
        root = None if op.link else self._root(inputs[0])  # not to fetch what is not read
        with Sources(LayerContents(self._layers)) as sources:
            archives = Archives(sources, self._store.path / "temp")
            try:
                changes = copy(
                    CopyOptions(
                        dest=op.dest,
                        chown=op.chown,
                        chmod=op.chmod,
                        exclude=op.exclude,
                        link=op.link,
                    ),
                    self._copy_sources(op, inputs, sources, now),
                    root,
                    now=now,
                    readers=Readers(
                        read_file=sources.read, unpack=archives.unpack, patterns=PATTERNS
                    ),
                )
                return self._layers.write(changes, sources)
            finally:
                archives.close()

    def _copy_sources(
        self, op: Copy, inputs: Sequence[Outcome], sources: Sources, now: int
    ) -> list[Source]:
        inline = {s.name: s.content for s in op.sources if isinstance(s, InlineFile)}
        sources.add(_INLINE, Bytes(inline))
        found = []
        for source in op.sources:
            if isinstance(source, InlineFile):
                tree = inline_file(
                    source.name,
                    source.content,
                    mode=source.mode,
                    now=now,
                    where=Where(_INLINE, source.name),
                )
                found.append(Source(tree=tree, path=f"/{source.name}"))
                continue
            outcome = inputs[source.input]
            if outcome.context is None:
                tree = self._layers.tree(outcome.layers)
            else:
                tree = self._contexts.tree(outcome.context)
                paths = list(selected_files(as_source(source, tree), op))
                tree = self._contexts.tree_for(outcome.context, paths)
                sources.add_context(self._contexts.context(outcome.context))
            found.append(as_source(source, tree))
        return found

    def _mkdir(self, op: Mkdir, inputs: Sequence[Outcome]) -> Layer:
        now = int(self._clock()) if op.epoch is None else op.epoch
        with Sources(LayerContents(self._layers)) as sources:
            changes = mkdir(
                self._root(inputs[0]), op.path, op.owner, now=now, read_file=sources.read
            )
            return self._layers.write(changes, sources)

    def _root(self, outcome: Outcome) -> Tree | None:
        """The root file system of a step; None where there is none yet, as in scratch."""
        return self._layers.tree(outcome.layers) if outcome.layers else None
