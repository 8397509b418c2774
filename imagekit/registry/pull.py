"""From a reference to the image of one platform: manifest and config, no layers.

Spec: registry spec section 5, platform choice; security spec N-6, N-8.
"""

from typing import Final

from attrs import evolve, frozen

from imagekit.errors import ImageNotFoundError, InvalidDocumentError
from imagekit.oci.descriptor import CONFIG_TYPES, INDEX_TYPES, MANIFEST_TYPES, Descriptor
from imagekit.oci.digest import Digest
from imagekit.oci.document import MAX_DOCUMENT, Document
from imagekit.oci.manifest import Index, Manifest
from imagekit.oci.platform import Platform, choose
from imagekit.oci.reference import Reference
from imagekit.registry.client import Registry

MAX_DEPTH: Final = 4
_DOCUMENT_TYPES: Final = INDEX_TYPES | MANIFEST_TYPES


@frozen(kw_only=True)
class PulledImage:
    """The image of one platform.

    Attributes:
        root: what the reference stands for: the manifest itself, or the index it was chosen from.
        descriptor: of the manifest, with the platform that the index states, if any.
        config: the bytes of the config, checked.
    """

    root: Descriptor
    descriptor: Descriptor
    manifest: Document[Manifest]
    config: bytes


def resolve_image(
    registry: Registry, reference: Reference | str, platform: Platform
) -> PulledImage:
    """The image that a reference stands for on a platform; layers are left where they are.

    An image that is not in an index is taken as it is: its config says what it is for.

    Raises:
        ImageNotFoundError: there is none, or none for the platform (code `platform-not-found`).
        DigestMismatchError: bytes that are not those asked for.
        InvalidDocumentError: what is there is no image.
    """
    repository, name = registry.session.read(reference)
    root = registry.document(repository, name)
    search = _Search(registry, repository, platform)
    found = search.below(root, 0, frozenset((root.descriptor.digest,)))
    if found is None:
        offers = ", ".join(sorted(search.offered)) or "none"
        raise ImageNotFoundError(
            f"{reference}: no image for {platform}; there are: {offers}",
            code="platform-not-found",
            hint="ask for one of those platforms, or for another tag",
        )
    manifest, descriptor = found
    config = _read_config(registry, repository, manifest.value.config)
    return PulledImage(
        root=root.descriptor, descriptor=descriptor, manifest=manifest, config=config
    )


class _Search:
    """One walk through an index and the indexes in it."""

    def __init__(self, registry: Registry, repository: str, platform: Platform) -> None:
        self._registry = registry
        self._repository = repository
        self._platform = platform
        self.offered: set[str] = set()

    def below(
        self, document: Document[Manifest | Index], depth: int, path: frozenset[Digest]
    ) -> tuple[Document[Manifest], Descriptor] | None:
        """The best match in a document; None if nothing in it is for the platform."""
        if isinstance(document.value, Manifest):
            manifest = Document(document.raw, document.value, document.descriptor)
            return manifest, document.descriptor
        if depth >= MAX_DEPTH:
            raise InvalidDocumentError(f"more than {MAX_DEPTH} indexes inside each other")
        entries = [d for d in document.value.manifests if d.media_type in _DOCUMENT_TYPES]
        self.offered.update(
            str(d.platform)
            for d in entries
            if d.platform is not None and d.platform.os != "unknown"
        )
        while (at := choose(self._platform, [d.platform for d in entries])) is not None:
            entry = entries.pop(at)
            if entry.digest in path:
                raise InvalidDocumentError(f"index {entry.digest} contains itself")
            child = self._fetch(entry)
            found = self.below(child, depth + 1, path | {entry.digest})
            if found is not None:
                manifest, descriptor = found
                stated = descriptor.platform or entry.platform
                return manifest, evolve(descriptor, platform=stated)
        return None

    def _fetch(self, entry: Descriptor) -> Document[Manifest | Index]:
        document = self._registry.document(self._repository, entry.digest)
        got = document.descriptor
        if (got.size, got.media_type) != (entry.size, entry.media_type):
            raise InvalidDocumentError(
                f"{entry.digest}: the index says {entry.media_type} of {entry.size} bytes, it is "
                f"{got.media_type} of {got.size}"
            )
        return document


def _read_config(registry: Registry, repository: str, descriptor: Descriptor) -> bytes:
    if descriptor.media_type not in CONFIG_TYPES:
        raise InvalidDocumentError(
            f"{repository}: not an image but an artifact: its config is {descriptor.media_type}"
        )
    if descriptor.size > MAX_DOCUMENT:
        raise InvalidDocumentError(
            f"{repository}: config of {descriptor.size} bytes, more than {MAX_DOCUMENT}"
        )
    with registry.open_blob(repository, descriptor, why="config of the base image") as stream:
        return stream.read()
