"""From what a name stands for to the image of one platform, whichever store it is in."""

from collections.abc import Iterator
from typing import Final

from attrs import frozen

from imagekit.errors import InvalidDocumentError, NotFoundError
from imagekit.oci.config import ImageConfig
from imagekit.oci.descriptor import CONFIG_TYPES, Descriptor
from imagekit.oci.document import MAX_DOCUMENT, Document
from imagekit.oci.manifest import Index, Manifest, decode_manifest
from imagekit.oci.platform import Platform, choose
from imagekit.store.roles import Source, read_blob

MAX_DEPTH: Final = 4
"""How deep indexes may be nested (security spec N-6)."""

_ATTESTATION: Final = "vnd.docker.reference.type"


@frozen(kw_only=True)
class FoundImage:
    """An image that was looked up: nothing but two documents was read."""

    manifest: Document[Manifest]
    config: Document[ImageConfig]


def read_document(source: Source, descriptor: Descriptor) -> Document[Manifest | Index]:
    """The manifest or index of a descriptor, checked.

    Raises:
        InvalidDocumentError: it is neither, or too large.
        NotFoundError: it is not there.
    """
    if descriptor.size > MAX_DOCUMENT:
        raise InvalidDocumentError(f"manifest {descriptor.digest}: {descriptor.size} bytes")
    return decode_manifest(read_blob(source, descriptor), descriptor.media_type)


def select_image(source: Source, root: Descriptor, platform: Platform, *, name: str) -> FoundImage:
    """The image that runs on a platform.

    Args:
        source: where the documents are.
        root: a manifest, which is taken whatever its platform, or an index, from which the best
            match is.
        platform: that is wanted.
        name: what the image is called, for messages.

    Raises:
        NotFoundError: an index without an image for the platform; the hint lists those it has.
        InvalidDocumentError: a document that is malformed, or no image.
    """
    document = read_document(source, root)
    seen = {root.digest}
    while isinstance(document.value, Index):
        offers = [d for d in document.value.manifests if _ATTESTATION not in d.annotations]
        position = choose(platform, [d.platform for d in offers])
        if position is None:
            have = sorted({str(d.platform) for d in offers if d.platform is not None})
            raise NotFoundError(
                f"{name}: no image for {platform}",
                hint=f"it has {', '.join(have)}; ask for one of these with --platform",
                code="platform-not-found",
            )
        if offers[position].digest in seen or len(seen) > MAX_DEPTH:
            raise InvalidDocumentError(f"{name}: indexes nested more than {MAX_DEPTH} deep")
        seen.add(offers[position].digest)
        document = read_document(source, offers[position])
    return _read_image(source, document, document.value, name)


def _read_image(
    source: Source, document: Document[Manifest | Index], manifest: Manifest, name: str
) -> FoundImage:
    if manifest.config.media_type not in CONFIG_TYPES:
        raise InvalidDocumentError(
            f"{name}: not a container image but {manifest.config.media_type}"
        )
    if manifest.config.size > MAX_DOCUMENT:
        raise InvalidDocumentError(f"{name}: its config has {manifest.config.size} bytes")
    raw = read_blob(source, manifest.config)
    config = ImageConfig.decode(raw)
    if len(config.diff_ids) != len(manifest.layers):
        raise InvalidDocumentError(
            f"{name}: {len(manifest.layers)} layers, but {len(config.diff_ids)} diff IDs"
        )
    return FoundImage(
        manifest=Document(document.raw, manifest, document.descriptor),
        config=Document(raw, config, manifest.config),
    )


def images(source: Source, root: Descriptor) -> Iterator[FoundImage]:
    """Every image below a manifest or index, attestations left out, in order.

    Raises:
        InvalidDocumentError: a document that is malformed or nested too deep.
    """
    yield from _images(source, root, 0)


def _images(source: Source, root: Descriptor, depth: int) -> Iterator[FoundImage]:
    if depth > MAX_DEPTH:
        raise InvalidDocumentError(f"{root.digest}: indexes nested more than {MAX_DEPTH} deep")
    document = read_document(source, root)
    if isinstance(document.value, Manifest):
        if document.value.config.media_type in CONFIG_TYPES:
            yield _read_image(source, document, document.value, str(root.digest))
        return
    for descriptor in document.value.manifests:
        if _ATTESTATION not in descriptor.annotations:
            yield from _images(source, descriptor, depth + 1)
