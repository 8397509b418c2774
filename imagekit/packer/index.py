"""Images by platform, as one index."""

from collections.abc import Mapping, Sequence

from imagekit.oci.descriptor import DOCKER_INDEX, DOCKER_MANIFEST, INDEX
from imagekit.oci.document import Document, describe
from imagekit.oci.manifest import Index
from imagekit.packer.image import Image


def index(
    images: Sequence[Image],
    *,
    annotations: Mapping[str, str] | None = None,
    docker: bool = False,
) -> Document[Index]:
    """Pack images into an index, in the order given.

    It is a manifest list of Docker's only if all its images are Docker's too.
    """
    docker = docker and all(i.manifest.value.media_type == DOCKER_MANIFEST for i in images)
    media_type = DOCKER_INDEX if docker else INDEX
    document = Index(
        manifests=tuple(i.descriptor for i in images),
        media_type=media_type,
        annotations={} if docker else dict(annotations or {}),
    )
    raw = document.encode()
    return Document(raw, document, describe(raw, media_type))
