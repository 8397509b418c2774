"""Descriptors and media types (image-spec descriptor.md, media-types.md)."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from attrs import field, frozen

from imagekit.errors import InvalidDigestError, InvalidDocumentError
from imagekit.oci.digest import Digest
from imagekit.oci.platform import Platform

INDEX: Final = "application/vnd.oci.image.index.v1+json"
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
LAYER_TAR: Final = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYER_ZSTD: Final = "application/vnd.oci.image.layer.v1.tar+zstd"
EMPTY: Final = "application/vnd.oci.empty.v1+json"

DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_TAR: Final = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD: Final = "application/vnd.docker.image.rootfs.diff.tar.zstd"

INDEX_TYPES: Final = frozenset({INDEX, DOCKER_INDEX})
MANIFEST_TYPES: Final = frozenset({MANIFEST, DOCKER_MANIFEST})
CONFIG_TYPES: Final = frozenset({CONFIG, DOCKER_CONFIG})

_COMPRESSION: Final[Mapping[str, Literal["none", "gzip", "zstd"]]] = {
    LAYER_TAR: "none",
    LAYER_GZIP: "gzip",
    LAYER_ZSTD: "zstd",
    DOCKER_LAYER_TAR: "none",
    DOCKER_LAYER_GZIP: "gzip",
    DOCKER_LAYER_ZSTD: "zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "none",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "gzip",
}

LAYER_TYPES: Final[Mapping[str, str]] = {
    "none": LAYER_TAR,
    "gzip": LAYER_GZIP,
    "zstd": LAYER_ZSTD,
}
"""Compression -> the OCI media type of a layer so compressed."""


def layer_compression(media_type: str) -> Literal["none", "gzip", "zstd"] | None:
    """`none`, `gzip` or `zstd` for the media type of a layer; None for anything else."""
    return _COMPRESSION.get(media_type)


def read_annotations(value: Any, *, where: str) -> Mapping[str, str]:  # noqa: ANN401 - JSON
    """The annotations of a document or descriptor; null is none.

    Raises:
        InvalidDocumentError: not an object of strings.
    """
    found = {} if value is None else value
    if not isinstance(found, dict) or not all(isinstance(x, str) for x in found.values()):
        raise InvalidDocumentError(f"{where}: annotations must hold strings")
    return found


@frozen(kw_only=True)
class Descriptor:
    """Where some bytes are, what they are and how many (image-spec descriptor.md).

    `extra` holds the fields that this library does not know, so that they survive a copy.
    """

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(factory=dict)
    artifact_type: str = ""
    urls: tuple[str, ...] = ()
    data: str = ""
    extra: Mapping[str, Any] = field(factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The JSON form, in the specification's order of fields."""
        document: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.urls:
            document["urls"] = list(self.urls)
        if self.annotations:
            document["annotations"] = dict(sorted(self.annotations.items()))
        if self.data:
            document["data"] = self.data
        if self.platform is not None:
            document["platform"] = self.platform.to_json()
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        document.update(self.extra)
        return document

    @classmethod
    def from_json(cls, value: Any, *, where: str = "descriptor") -> "Descriptor":  # noqa: ANN401 - JSON
        """Read the JSON form.

        Raises:
            InvalidDocumentError: a field is missing or of the wrong type.
        """
        if not isinstance(value, dict):
            raise InvalidDocumentError(f"{where}: want an object, got {type(value).__name__}")
        known = dict(value)
        media_type, digest, size = (known.pop(k, None) for k in ("mediaType", "digest", "size"))
        if not isinstance(media_type, str) or not isinstance(digest, str):
            raise InvalidDocumentError(f"{where}: mediaType and digest must be strings")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 63:
            raise InvalidDocumentError(f"{where}: size must be a whole number, got {size!r}")
        annotations = read_annotations(known.pop("annotations", None), where=where)
        platform = known.pop("platform", None)
        urls = known.pop("urls", None) or []
        artifact_type, data = (known.pop(k, None) or "" for k in ("artifactType", "data"))
        if not isinstance(urls, list) or not all(
            isinstance(x, str) for x in (*urls, artifact_type, data)
        ):
            raise InvalidDocumentError(f"{where}: urls, data and artifactType hold strings")
        try:
            parsed = Digest.parse(digest)
        except InvalidDigestError as exc:
            raise InvalidDocumentError(f"{where}: {exc}") from exc
        return cls(
            media_type=media_type,
            digest=parsed,
            size=size,
            platform=None if platform is None else Platform.from_json(platform),
            annotations=annotations,
            urls=tuple(urls),
            artifact_type=artifact_type,
            data=data,
            extra=known,
        )
