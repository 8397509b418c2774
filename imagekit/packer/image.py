"""One image: a config and its layers, as the documents that name each other."""

from collections.abc import Mapping, Sequence

from attrs import frozen

from imagekit.oci.config import ImageConfig
from imagekit.oci.descriptor import (
    CONFIG,
    DOCKER_CONFIG,
    DOCKER_LAYER_GZIP,
    DOCKER_LAYER_TAR,
    DOCKER_MANIFEST,
    LAYER_TYPES,
    MANIFEST,
    Descriptor,
    layer_compression,
)
from imagekit.oci.document import Document, describe
from imagekit.oci.manifest import Manifest
from imagekit.oci.platform import Platform

_DOCKER_LAYERS: Mapping[str, str] = {"none": DOCKER_LAYER_TAR, "gzip": DOCKER_LAYER_GZIP}


@frozen(kw_only=True)
class Image:
    """A finished image; its digest is that of the manifest, its ID that of the config."""

    config: Document[ImageConfig]
    manifest: Document[Manifest]

    @property
    def platform(self) -> Platform:
        """What it runs on."""
        return self.config.value.platform

    @property
    def descriptor(self) -> Descriptor:
        """Of the manifest, with the platform, as an index holds it."""
        found = self.manifest.descriptor
        return Descriptor(
            media_type=found.media_type,
            digest=found.digest,
            size=found.size,
            platform=self.platform,
        )


def image(
    config: ImageConfig,
    layers: Sequence[Descriptor],
    *,
    annotations: Mapping[str, str] | None = None,
    docker: bool = False,
) -> Image:
    """Pack a config and its layers.

    Args:
        config: finished: `diff_ids` in step with `layers`.
        layers: lowest first.
        annotations: of the manifest.
        docker: use Docker's media types instead of OCI's, unless a layer has none there.
    """
    docker = docker and all(_has_docker_type(layer) for layer in layers)
    raw = config.encode()
    types = (DOCKER_CONFIG, DOCKER_MANIFEST) if docker else (CONFIG, MANIFEST)
    manifest = Manifest(
        config=describe(raw, types[0]),
        layers=tuple(layer_descriptor(d, docker=docker) for d in layers),
        media_type=types[1],
        annotations={} if docker else dict(annotations or {}),
    )
    packed = manifest.encode()
    return Image(
        config=Document(raw, config, manifest.config),
        manifest=Document(packed, manifest, describe(packed, types[1])),
    )


def _has_docker_type(layer: Descriptor) -> bool:
    compression = layer_compression(layer.media_type)
    return compression is None or compression in _DOCKER_LAYERS


def layer_descriptor(layer: Descriptor, *, docker: bool) -> Descriptor:
    """The descriptor of a layer in a new manifest: one family of media types, nothing else kept.

    A manifest never mixes Docker's and OCI's types; zstd layers have OCI's only, so `image` makes
    one with such a layer an OCI manifest.
    """
    compression = layer_compression(layer.media_type)
    if compression is None or layer.urls:
        return layer
    types = _DOCKER_LAYERS if docker else LAYER_TYPES
    return Descriptor(
        media_type=types.get(compression, LAYER_TYPES[compression]),
        digest=layer.digest,
        size=layer.size,
        annotations=layer.annotations,
    )
