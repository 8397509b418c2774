"""Everything below a manifest or index, in the order in which it can be stored."""

from collections.abc import Sequence
from typing import Final

from attrs import evolve, frozen

from imagekit.errors import InvalidDocumentError
from imagekit.oci.descriptor import INDEX_TYPES, MANIFEST_TYPES, Descriptor
from imagekit.oci.digest import Digest
from imagekit.oci.document import MAX_DOCUMENT, Document
from imagekit.oci.manifest import Index, Manifest, decode_manifest
from imagekit.oci.platform import Platform, choose
from imagekit.store.roles import Source, read_blob

MAX_DEPTH: Final = 4
_ATTESTED: Final = "vnd.docker.reference.digest"


@frozen(kw_only=True)
class Graph:
    """What hangs together below a root; nothing occurs twice.

    Attributes:
        blobs: configs and layers, in the order in which manifests name them.
        documents: manifests and indexes, what is named before what names it; the root is last.
    """

    blobs: tuple[Descriptor, ...]
    documents: tuple[Document[Manifest | Index], ...]


def read_graph(
    source: Source, root: Descriptor, *, platforms: Sequence[Platform] | None = None
) -> Graph:
    """Read all documents below a root.

    Args:
        source: where they are.
        root: a manifest or an index.
        platforms: of an index, only the images that run on these, and what is said about them;
            None for all.

    Raises:
        InvalidDocumentError: one is malformed, or indexes are nested deeper than 4.
        NotFoundError: one is missing.
    """
    reader = _Reader(source, None if platforms is None else tuple(platforms))
    reader.visit(root, 0)
    return Graph(
        blobs=tuple(reader.blobs.values()),
        documents=tuple(reader.documents.values()),
    )


def is_document(descriptor: Descriptor) -> bool:
    """Whether a descriptor names a manifest or an index."""
    return descriptor.media_type in INDEX_TYPES | MANIFEST_TYPES


def is_foreign(descriptor: Descriptor) -> bool:
    """Whether a layer is to be had from elsewhere and not to be pushed (image-spec layer.md)."""
    kind = descriptor.media_type
    return bool(descriptor.urls) and ("nondistributable" in kind or ".foreign." in kind)


class _Reader:
    def __init__(self, source: Source, platforms: Sequence[Platform] | None) -> None:
        self.blobs: dict[Digest, Descriptor] = {}
        self.documents: dict[Digest, Document[Manifest | Index]] = {}
        self._source = source
        self._platforms = platforms

    def visit(self, descriptor: Descriptor, depth: int) -> None:
        if descriptor.digest in self.documents:
            return
        if depth > MAX_DEPTH:
            raise InvalidDocumentError(f"indexes are nested deeper than {MAX_DEPTH}")
        if descriptor.size > MAX_DOCUMENT:
            raise InvalidDocumentError(f"{descriptor.digest} has {descriptor.size} bytes")
        raw = read_blob(self._source, descriptor)
        document = decode_manifest(raw, descriptor.media_type)
        named = evolve(document.descriptor, digest=descriptor.digest)
        document = evolve(document, descriptor=named)
        if isinstance(document.value, Index):
            for child in self._chosen(document.value):
                self._visit_child(child, depth + 1)
        else:
            for blob in (document.value.config, *document.value.layers):
                if not is_foreign(blob):
                    self.blobs.setdefault(blob.digest, blob)
        self.documents[descriptor.digest] = document

    def _visit_child(self, child: Descriptor, depth: int) -> None:
        if is_document(child):
            self.visit(child, depth)
        else:
            self.blobs.setdefault(child.digest, child)

    def _chosen(self, index: Index) -> Sequence[Descriptor]:
        if self._platforms is None:
            return index.manifests
        offered = [d.platform for d in index.manifests]
        wanted = {choose(platform, offered) for platform in self._platforms}
        chosen = {index.manifests[i].digest for i in wanted if i is not None}
        return [
            d
            for d in index.manifests
            if d.digest in chosen or _names(chosen, d.annotations.get(_ATTESTED))
        ]


def _names(chosen: set[Digest], text: str | None) -> bool:
    return text is not None and any(str(digest) == text for digest in chosen)
