"""The one walk behind push, pull, save and load.

Blobs go first, then manifests, then the indexes that name them, then the tag, so that a target
never has a name for something that is not whole (security spec S-3). What is there already is not
sent.
"""

import io
from collections.abc import Callable, Sequence
from typing import BinaryIO, TypeVar

from imagekit.errors import UsageError
from imagekit.events import Observer, Transfer
from imagekit.oci.descriptor import Descriptor
from imagekit.oci.document import Document
from imagekit.oci.manifest import Index, Manifest
from imagekit.oci.platform import Platform
from imagekit.store.layout import Layout
from imagekit.store.roles import Source, Tagger, Target
from imagekit.store.walk import read_graph

T = TypeVar("T")


def copy(
    source: Source,
    root: Descriptor,
    target: Target,
    *,
    tag: str | None = None,
    jobs: int = 4,
    observer: Observer | None = None,
    platforms: Sequence[Platform] | None = None,
) -> None:
    """Copy a manifest or an index, with all that it names, byte for byte.

    Args:
        source: where it is; read from several threads.
        root: what to copy.
        target: where to; written to from several threads.
        tag: the name that it gets there, if any; the target must then be a Tagger.
        jobs: how many blobs move at once.
        observer: told of blobs that were written to a layout; a registry tells its own.
        platforms: of an index, only these images; the index stays as it is and names the others
            too, which not every registry takes.

    Raises:
        NotFoundError: the source lacks something.
        DigestMismatchError: the source has other bytes than a descriptor says.
        InvalidDocumentError: a manifest is malformed.
        StoreError, RegistryError: the target does not take it.
    """
    if tag is not None and not hasattr(target, "tag"):
        raise UsageError(f"{type(target).__name__} cannot give names")
    graph = read_graph(source, root, platforms=platforms)
    step = _Step(source, target, observer)
    _all(step.blob, graph.blobs, jobs)
    _all(step.document, [d for d in graph.documents if isinstance(d.value, Manifest)], jobs)
    for document in graph.documents:
        if isinstance(document.value, Index):
            step.document(document)
    if tag is not None:
        _tag(target, root, tag)


def _tag(target: object, root: Descriptor, tag: str) -> None:
    tagger: Tagger = target  # type: ignore[assignment] # `copy` has looked
    tagger.tag(root, tag)


class _Step:
    """Moves one thing."""

    def __init__(self, source: Source, target: Target, observer: Observer | None) -> None:
        self._source = source
        self._target = target
        self._observer = observer

    def blob(self, descriptor: Descriptor) -> None:
        if self._target.exists(descriptor):
            return
        self._target.write(descriptor, lambda: self._source.open(descriptor))
        if self._observer is not None and isinstance(self._target, Layout):
            name, size = descriptor.digest.short, descriptor.size
            self._observer(Transfer(direction="export", name=name, done=size, total=size))

    def document(self, document: Document[Manifest | Index]) -> None:
        if not self._target.exists(document.descriptor):
            self._target.write(document.descriptor, _opener(document.raw))


def _opener(data: bytes) -> Callable[[], BinaryIO]:
    return lambda: io.BytesIO(data)


def _all(do: Callable[[T], None], things: Sequence[T], jobs: int) -> None:
    """Do all of them, several at once; the first failure stops what has not begun."""
    if len(things) <= 1 or jobs <= 1:
        for thing in things:
            do(thing)
        return
    from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait  # noqa: PLC0415 - 7 ms

    with ThreadPoolExecutor(max_workers=min(jobs, len(things))) as pool:
        futures = [pool.submit(do, thing) for thing in things]
        done, pending = wait(futures, return_when=FIRST_EXCEPTION)
        for future in pending:
            future.cancel()
        for future in done:
            future.result()
