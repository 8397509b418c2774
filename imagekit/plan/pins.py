"""Image names with their digests, put where a Dockerfile names images.

Rewritten are FROM, COPY --from and RUN --mount from=, each name once as it is written. A name with
variables stays, since its digest would hold for one value only; so do stages, `scratch`, and names
that have a digest.
"""

from collections.abc import Callable, Iterator

from attrs import evolve, frozen

from imagekit.dockerfile.flags import split_csv
from imagekit.dockerfile.instructions import (
    Command,
    Copy,
    Dockerfile,
    From,
    Instruction,
    Run,
    Stage,
)
from imagekit.dockerfile.printer import print_dockerfile
from imagekit.errors import InvalidReferenceError
from imagekit.oci.digest import Digest
from imagekit.oci.reference import Reference


@frozen(kw_only=True)
class Pin:
    """An image's name before and after, and the line of its instruction."""

    line: int
    before: str
    after: str


@frozen(kw_only=True)
class Pinned:
    """A file with digests.

    Attributes:
        text: of the file, as `print_dockerfile` gives it.
        pins: what was changed.
        skipped: (line, name) of what has variables and was left.
    """

    text: str
    pins: tuple[Pin, ...]
    skipped: tuple[tuple[int, str], ...]


def pin(file: Dockerfile, resolve: Callable[[Reference, Instruction], Digest]) -> Pinned:
    """Give the images of a file their digests.

    Args:
        file: as parsed.
        resolve: says what a name with a tag stands for at an instruction; what it raises is
            passed on.
    """
    pinning = _Pinning(resolve)
    stages = tuple(
        evolve(
            stage,
            from_=pinning.from_(stage.from_),
            commands=tuple(pinning.command(command) for command in stage.commands),
        )
        for stage in pinning.known(file)
    )
    return Pinned(
        text=print_dockerfile(evolve(file, stages=stages)),
        pins=tuple(pinning.pins),
        skipped=tuple(pinning.skipped),
    )


class _Pinning:
    def __init__(self, resolve: Callable[[Reference, Instruction], Digest]) -> None:
        self._resolve = resolve
        self._above: set[str] = set()
        self._all: set[str] = set()
        self.pins: list[Pin] = []
        self.skipped: list[tuple[int, str]] = []

    def known(self, file: Dockerfile) -> Iterator[Stage]:
        """The stages, with the names that are known at each."""
        self._all = {stage.name for stage in file.stages if stage.name}
        for stage in file.stages:
            yield stage
            self._above.add(stage.name)

    def from_(self, node: From) -> From:
        if node.image in self._above:
            return node
        return evolve(node, image=self._pinned(node, node.image))

    def command(self, node: Command) -> Command:
        match node:
            case Copy() if node.from_ and not self._is_stage(node.from_):
                return evolve(node, from_=self._pinned(node, node.from_))
            case Run() if node.mounts:
                return evolve(node, mounts=tuple(self._mount(node, m) for m in node.mounts))
            case _:
                return node

    def _mount(self, node: Run, mount: str) -> str:
        for field in split_csv(mount):
            key, _, name = field.partition("=")
            if key.lower() == "from" and name and not self._is_stage(name):
                return mount.replace(field, f"{key}={self._pinned(node, name)}", 1)
        return mount

    def _is_stage(self, name: str) -> bool:
        return name.lower() in self._all or name.lstrip("+-").isdecimal()

    def _pinned(self, node: Instruction, name: str) -> str:
        if "$" in name:
            self.skipped.append((node.span.line, name))
            return name
        try:
            reference = Reference.parse(name)
        except InvalidReferenceError:
            return name  # An error of its own, where the file is built.
        if name.lower() == "scratch" or reference.digest is not None:
            return name
        tagged = reference.with_default_tag()
        digest = self._resolve(tagged, node)
        after = f"{name}{'' if reference.tag else f':{tagged.tag}'}@{digest}"
        self.pins.append(Pin(line=node.span.line, before=name, after=after))
        return after
