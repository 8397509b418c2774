"""JSON documents: strict reading, one way of writing, and the raw bytes kept beside the value."""

import json
from typing import Any, Final, Generic, TypeVar

from attrs import frozen

from imagekit.errors import InvalidDocumentError
from imagekit.oci.descriptor import Descriptor
from imagekit.oci.digest import Digest

MAX_DOCUMENT: Final = 4 << 20
"""The most bytes that a manifest, index or config may have (security spec N-6)."""

T = TypeVar("T")


@frozen
class Document(Generic[T]):
    """A parsed document and the bytes it was parsed from; the digest is theirs."""

    raw: bytes
    value: T
    descriptor: Descriptor


def parse_json(raw: bytes, *, what: str = "document", limit: int = MAX_DOCUMENT) -> Any:  # noqa: ANN401 - JSON
    """Read JSON strictly: UTF-8, one value, no key twice, no NaN, at most `limit` bytes.

    Raises:
        InvalidDocumentError: anything else.
    """
    if len(raw) > limit:
        raise InvalidDocumentError(f"{what}: {len(raw)} bytes, more than the limit of {limit}")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            raise InvalidDocumentError(f"{what}: a key occurs twice")
        return value

    def refuse(constant: str) -> None:
        raise InvalidDocumentError(f"{what}: {constant} is not JSON")

    try:
        return json.loads(raw.decode(), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as exc:
        raise InvalidDocumentError(f"{what}: not JSON: {exc}") from exc


def encode_json(value: Any) -> bytes:  # noqa: ANN401 - JSON
    """Write JSON in its one form: fields in the order given, UTF-8, no space, slashes bare."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def parse_object(raw: bytes, *, what: str) -> dict[str, Any]:
    """Read JSON that must be an object.

    Raises:
        InvalidDocumentError: not JSON, or another type.
    """
    value = parse_json(raw, what=what)
    if not isinstance(value, dict):
        raise InvalidDocumentError(f"{what}: want an object, got {type(value).__name__}")
    return value


def describe(raw: bytes, media_type: str) -> Descriptor:
    """The descriptor of these bytes."""
    return Descriptor(media_type=media_type, digest=Digest.of(raw), size=len(raw))
