"""Collects the steps of a plan and gives each its position."""

from collections.abc import Hashable

from attrs import evolve

from imagekit.errors import Span
from imagekit.oci.platform import Platform
from imagekit.plan.ops import Base, Exec, Op, Step


class Steps:
    """Steps in the order in which they were added; sources that are equal are one step."""

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._sources: dict[Hashable, int] = {}

    def add(
        self,
        op: Op,
        inputs: tuple[int, ...] = (),
        *,
        name: str,
        stage: str,
        platform: Platform,
        span: Span | None = None,
    ) -> int:
        """Append a step and return its position."""
        step = Step(op=op, inputs=inputs, name=name, span=span, stage=stage, platform=platform)
        self._steps.append(step)
        return len(self._steps) - 1

    def source(
        self, op: Op, *, name: str, stage: str, platform: Platform, span: Span | None = None
    ) -> int:
        """The position of a step without inputs; an earlier one of the same operation if any."""
        key = _identity(op)
        if key not in self._sources:
            self._sources[key] = self.add(op, name=name, stage=stage, platform=platform, span=span)
        return self._sources[key]

    def describe(self, position: int) -> str:
        """What BuildKit calls the layer that a step makes."""
        step = self._steps[position]
        if isinstance(step.op, Exec):
            return f"mount / from exec {' '.join(step.op.argv)}"
        return step.name

    def needed_by(self, result: int) -> tuple[Step, ...]:
        """The steps that `result` needs, renumbered; `result` is the last."""
        needed = {result}
        for position in range(result, -1, -1):
            if position in needed:
                needed.update(self._steps[position].inputs)
        moved = {old: new for new, old in enumerate(sorted(needed))}
        steps = (self._steps[old] for old in sorted(needed))
        return tuple(evolve(s, inputs=tuple(moved[i] for i in s.inputs)) for s in steps)


def _identity(op: Op) -> Hashable:
    """What two operations have in common if they are equal; descriptors cannot be hashed."""
    if isinstance(op, Base):
        manifest = op.manifest.digest if op.manifest else None
        return (op.reference, op.origin, op.platform, manifest, op.diff_ids)
    return op
