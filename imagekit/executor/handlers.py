"""One function an operation: the layer that a step writes."""

import time
from collections.abc import Callable, Sequence

from imagekit.errors import UsageError
from imagekit.events import StepInfo
from imagekit.executor.archives import Archives
from imagekit.executor.contents import Bytes, Sources
from imagekit.executor.contexts import (
    PATTERNS,
    Contexts,
    as_source,
    refuse_special,
)
from imagekit.executor.layers import LayerContents, Layers
from imagekit.executor.run import Runner
from imagekit.executor.values import Layer, Outcome
from imagekit.layer.changes import Changes
from imagekit.layer.copying import CopyOptions, Readers, copy, inline_file, mkdir
from imagekit.layer.selection import Source
from imagekit.layer.tree import FILE, Tree, Where
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

    def _copy(self, op: Copy, inputs: Sequence[Outcome], *, twice: bool = False) -> Layer:
        """Copy; files that nobody has digested are read once, unless `twice`."""
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
                    self._copy_sources(op, inputs, sources, now, twice=twice),
                    root,
                    now=now,
                    readers=Readers(
                        read_file=sources.read, unpack=archives.unpack, patterns=PATTERNS
                    ),
                )
                if not twice and root is not None and _may_be_there(changes, root):
                    return self._copy(op, inputs, twice=True)
                layer = self._layers.write(changes, sources)
            finally:
                archives.close()
        self._learn(inputs, changes, layer)
        return layer

    def _learn(self, inputs: Sequence[Outcome], changes: Changes, layer: Layer) -> None:
        """Note what was seen of files that were digested only as they were packed."""
        unread = [p for p, e in changes.entries.items() if e.kind == FILE and not e.digest]
        if unread:
            written = self._layers.index(layer).changes.entries
            pairs = [(changes.entries[path], written[path]) for path in unread]
            for name in {o.context for o in inputs if o.context is not None}:
                self._contexts.learn(name, pairs)

    def _copy_sources(
        self, op: Copy, inputs: Sequence[Outcome], sources: Sources, now: int, *, twice: bool
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
                name, position = outcome.context, source.input
                paths = self._contexts.files_of(name, op, position)
                if not twice and self._contexts.is_unread(name, op, position):
                    tree = self._contexts.tree(name)
                    refuse_special(tree, paths)
                else:
                    tree = self._contexts.tree_for(name, paths)
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


def _may_be_there(changes: Changes, root: Tree) -> bool:
    """Whether a file that was not digested may be one that the root has already."""
    for path, entry in changes.entries.items():
        if entry.kind == FILE and not entry.digest:
            there = root.get(path)
            if there is not None and there.kind == FILE and there.size == entry.size:
                return True
    return False
