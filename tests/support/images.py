"""Small images as descriptors and bytes, for tests that move them about."""

import hashlib
import io
import json
import random
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

from imagekit.oci.descriptor import CONFIG, INDEX, LAYER_TAR, MANIFEST, Descriptor
from imagekit.oci.digest import Digest
from imagekit.oci.manifest import Index, Manifest
from imagekit.oci.platform import Platform


class Blob(NamedTuple):
    """Some bytes and what names them."""

    data: bytes
    descriptor: Descriptor

    @property
    def digest(self) -> str:
        return str(self.descriptor.digest)

    @property
    def open(self) -> Callable[[], BinaryIO]:
        return lambda: io.BytesIO(self.data)


class Image(NamedTuple):
    """A manifest and the blobs that it names."""

    manifest: Blob
    config: Blob
    layers: tuple[Blob, ...]


def blob(data: bytes, media_type: str = LAYER_TAR, *, algorithm: str = "sha256") -> Blob:
    digest = Digest(algorithm, hashlib.new(algorithm, data).hexdigest())
    return Blob(data, Descriptor(media_type=media_type, digest=digest, size=len(data)))


def noise(size: int, seed: int = 1) -> bytes:
    """The same bytes every time, which do not compress."""
    return random.Random(seed).randbytes(size)


def image(platform: str = "linux/amd64", *layers: bytes) -> Image:
    parts = tuple(blob(data) for data in layers or (b"a layer",))
    value = Platform.parse(platform).to_json()
    diff_ids = [part.digest for part in parts]
    config = {**value, "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    config_blob = blob(json.dumps(config).encode(), CONFIG)
    manifest = Manifest(
        config=config_blob.descriptor, layers=tuple(part.descriptor for part in parts)
    )
    return Image(blob(manifest.encode(), MANIFEST), config_blob, parts)


def index(*entries: Descriptor) -> Blob:
    return blob(Index(manifests=entries).encode(), INDEX)
