"""Manifests and indexes (image-spec manifest.md, image-index.md)."""

from collections.abc import Mapping
from typing import Any, Final

from attrs import field, frozen

from imagekit.errors import InvalidDocumentError
from imagekit.oci.descriptor import (
    DOCKER_MANIFEST,
    INDEX,
    INDEX_TYPES,
    MANIFEST,
    MANIFEST_TYPES,
    Descriptor,
    read_annotations,
)
from imagekit.oci.document import Document, describe, encode_json, parse_object

MAX_LAYERS: Final = 1_000
MAX_INDEX_ENTRIES: Final = 1_000


@frozen(kw_only=True)
class Manifest:
    """Config and layers of one image."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = MANIFEST
    artifact_type: str = ""
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(factory=dict)

    def encode(self) -> bytes:
        """The bytes to store."""
        document: dict[str, Any] = {"schemaVersion": 2, "mediaType": self.media_type}
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        document["config"] = self.config.to_json()
        document["layers"] = [d.to_json() for d in self.layers]
        if self.subject is not None:
            document["subject"] = self.subject.to_json()
        if self.annotations:
            document["annotations"] = dict(sorted(self.annotations.items()))
        return encode_json(document)


@frozen(kw_only=True)
class Index:
    """Images by platform, and what is said about them."""

    manifests: tuple[Descriptor, ...]
    media_type: str = INDEX
    artifact_type: str = ""
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(factory=dict)

    def encode(self) -> bytes:
        """The bytes to store."""
        document: dict[str, Any] = {"schemaVersion": 2, "mediaType": self.media_type}
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        document["manifests"] = [d.to_json() for d in self.manifests]
        if self.subject is not None:
            document["subject"] = self.subject.to_json()
        if self.annotations:
            document["annotations"] = dict(sorted(self.annotations.items()))
        return encode_json(document)


def decode_manifest(raw: bytes, media_type: str = "") -> Document[Manifest | Index]:
    """Read a manifest or an index, whichever the bytes are.

    Args:
        raw: the document.
        media_type: what the outside said it is (Content-Type or descriptor), without parameters;
            empty or a generic type leaves it to the document.

    Raises:
        InvalidDocumentError: neither; both at once; or another type than the outside said.
    """
    value = parse_object(raw, what="manifest")
    stated = value.get("mediaType") or ""
    is_index, is_manifest = "manifests" in value, "layers" in value or "config" in value
    if not isinstance(stated, str) or value.get("schemaVersion") != 2:
        raise _not_a_manifest(value)
    if is_index == is_manifest:
        raise InvalidDocumentError("manifest: want either layers and config or manifests")
    kinds = INDEX_TYPES if is_index else MANIFEST_TYPES
    known = INDEX_TYPES | MANIFEST_TYPES
    for claim in (stated, media_type if media_type in known else ""):
        if claim and claim not in kinds:
            raise InvalidDocumentError(f"manifest: its content is not of the type {claim}")
    if stated and media_type in known and stated != media_type:
        raise InvalidDocumentError(f"manifest: it says {stated}, its source says {media_type}")
    kind = stated or (media_type if media_type in known else _default_type(value, is_index))
    common = _common_fields(value)
    if is_index:
        entries = _descriptors(value, "manifests", MAX_INDEX_ENTRIES)
        parsed: Manifest | Index = Index(manifests=entries, media_type=kind, **common)
    else:
        parsed = Manifest(
            config=Descriptor.from_json(value.get("config"), where="manifest config"),
            layers=_descriptors(value, "layers", MAX_LAYERS),
            media_type=kind,
            **common,
        )
    return Document(raw, parsed, describe(raw, kind))


def _not_a_manifest(value: Mapping[str, Any]) -> InvalidDocumentError:
    version = value.get("schemaVersion")
    hint = "push it again with a current client: schema 1 is not supported" if version == 1 else ""
    return InvalidDocumentError(f"manifest: schemaVersion is {version!r}, want 2", hint=hint)


def _default_type(value: Mapping[str, Any], is_index: bool) -> str:  # noqa: FBT001 - private
    if is_index:
        return INDEX
    config = value.get("config")
    inner = config.get("mediaType", "") if isinstance(config, dict) else ""
    return DOCKER_MANIFEST if str(inner).startswith("application/vnd.docker.") else MANIFEST


def _common_fields(value: Mapping[str, Any]) -> dict[str, Any]:
    subject = value.get("subject")
    artifact_type = value.get("artifactType") or ""
    if not isinstance(artifact_type, str):
        raise InvalidDocumentError("manifest: artifactType must be a string")
    return {
        "annotations": read_annotations(value.get("annotations"), where="manifest"),
        "artifact_type": artifact_type,
        "subject": None if subject is None else Descriptor.from_json(subject, where="subject"),
    }


def _descriptors(value: Mapping[str, Any], key: str, limit: int) -> tuple[Descriptor, ...]:
    found = value.get(key)
    if found is None:
        found = []
    if not isinstance(found, list) or len(found) > limit:
        raise InvalidDocumentError(f"manifest: {key} must be a list of at most {limit}")
    return tuple(Descriptor.from_json(d, where=f"{key}[{i}]") for i, d in enumerate(found))


__all__ = ["MAX_INDEX_ENTRIES", "MAX_LAYERS", "Index", "Manifest", "decode_manifest"]
