"""What steps read, as digests: the part of cache keys that is not in a plan."""

from collections.abc import Callable, Sequence

from imagekit.errors import UsageError
from imagekit.executor.contexts import Contexts, copy_content, mounts_content
from imagekit.executor.layers import Layers
from imagekit.executor.values import Layer, Outcome, content_id
from imagekit.oci.digest import Digest
from imagekit.plan.ops import BindMount, Copy, Exec, Fetch, Step


class Inputs:
    """Digests of what steps read of contexts and of other steps."""

    def __init__(
        self,
        layers: Layers,
        contexts: Contexts,
        fetch: Callable[[Fetch], Layer] | None = None,
    ) -> None:
        """Prepare to read.

        Args:
            layers: of the store.
            contexts: of the build.
            fetch: gets what URLs name (`fetching.Fetches.fetch`); None where no plan names any.
        """
        self._layers = layers
        self._contexts = contexts
        self._fetch = fetch

    def fetch(self, op: Fetch) -> Outcome:
        """What an operation fetches; a build asks for all of it before it makes its keys.

        Raises:
            FetchError: it cannot be had.
        """
        if self._fetch is None:
            raise UsageError(f"nobody is there to fetch {op.shown}")
        return Outcome(layers=(self._fetch(op),))

    def local_digest(self, step: Step, position: int, name: str) -> Digest | None:
        """The digest of what a step reads of a local context, its input at a position.

        None for a copy of much that was never digested, in a store that has no result of the step:
        a hit is unlikely then, and to read everything twice would take longest.
        """
        match step.op:
            case Copy() as op:
                if self._contexts.is_unread(name, op, position) and not self._was_run(step):
                    return None
                return self._contexts.copy_digest(name, op, position)
            case Exec() as op:
                return self._contexts.mount_digest(name, _mounts_of(op, position))
            case _:
                raise UsageError(f"{step.name}: reads no local context")

    def is_unread(self, step: Step, inputs: Sequence[Outcome]) -> bool:
        """Whether a step is still better run than looked up."""
        return any(
            outcome.context is not None
            and self.local_digest(step, position, outcome.context) is None
            for position, outcome in enumerate(inputs)
        )

    def _was_run(self, step: Step) -> bool:
        return bool(self._layers.store.database.recent_records(step.name, 1))

    def digests(self, step: Step, inputs: Sequence[Outcome]) -> list[Digest]:
        """Digests of what a step reads of each input, now that they are there."""
        digests = []
        for position, outcome in enumerate(inputs):
            if outcome.context is not None:
                name = outcome.context
                known = self.local_digest(step, position, name)
                if known is None and isinstance(step.op, Copy):
                    known = self._contexts.copy_digest(name, step.op, position)
                if known is not None:
                    digests.append(known)
            elif position == 0:
                digests.append(content_id(outcome.layers))
            else:
                digests.append(self.layer_digest(step, position, outcome))
        return digests

    def layer_digest(self, step: Step, position: int, outcome: Outcome) -> Digest:
        """The digest of what a step reads of layers, its input at a position."""
        tree = self._layers.tree(outcome.layers)
        match step.op:
            case Copy() as op:
                return copy_content(op, position, tree)
            case Exec() as op if binds := _mounts_of(op, position):
                return mounts_content(binds, tree)
            case _:
                return content_id(outcome.layers)


def _mounts_of(op: Exec, position: int) -> list[BindMount]:
    return [m for m in op.mounts if isinstance(m, BindMount) and m.input == position]
