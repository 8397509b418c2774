"""OCI image layouts read the plain way, by code that shares nothing with imagekit.

Every blob that a document names is checked for its size and digest as it is read.
"""

import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"


class Image(NamedTuple):
    """One manifest with its config; `layers` gives the tars, lowest first."""

    layout: "Layout"
    descriptor: dict[str, Any]
    manifest: dict[str, Any]
    config: dict[str, Any]

    @property
    def platform(self) -> str:
        names = (self.config["os"], self.config["architecture"], self.config.get("variant"))
        return "/".join(name for name in names if name)

    def layers(self) -> Iterator[bytes]:
        """The uncompressed tar of each layer, its diff ID checked."""
        diff_ids = self.config["rootfs"]["diff_ids"]
        for descriptor, diff_id in zip(self.manifest["layers"], diff_ids, strict=True):
            tar = decompress(self.layout.blob(descriptor), descriptor["mediaType"])
            assert sha256(tar) == diff_id, f"{descriptor['digest']}: not the bytes of {diff_id}"
            yield tar


class Layout:
    """An OCI image layout in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.marker = json.loads((folder / "oci-layout").read_bytes())
        self.top = json.loads((folder / "index.json").read_bytes())
        self.indexes = [self.top]
        self.images: list[Image] = []
        for descriptor in self.top["manifests"]:
            self.visit(descriptor)

    def visit(self, descriptor: dict[str, Any]) -> None:
        document = json.loads(self.blob(descriptor))
        if descriptor["mediaType"] == INDEX:
            self.indexes.append(document)
            for child in document["manifests"]:
                self.visit(child)
            return
        assert descriptor["mediaType"] == MANIFEST, descriptor["mediaType"]
        config = json.loads(self.blob(document["config"]))
        self.images.append(Image(self, descriptor, document, config))

    def blob(self, descriptor: dict[str, Any]) -> bytes:
        """The bytes of a descriptor, checked against it."""
        algorithm, _, name = descriptor["digest"].partition(":")
        content = (self.folder / "blobs" / algorithm / name).read_bytes()
        assert len(content) == descriptor["size"], f"{name}: size is not {descriptor['size']}"
        assert sha256(content) == descriptor["digest"], f"{name}: holds other bytes"
        return content

    @property
    def tags(self) -> list[str]:
        names = (d.get("annotations", {}).get(REF_NAME) for d in self.top["manifests"])
        return [name for name in names if name]

    def image(self, platform: str | None = None) -> Image:
        """The image of a platform, or the only one."""
        found = [i for i in self.images if platform in (None, i.platform)]
        assert len(found) == 1, f"{len(found)} images for {platform} in {self.folder}"
        return found[0]


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def decompress(blob: bytes, media_type: str) -> bytes:
    """The tar in a layer blob, by the media type that its descriptor states."""
    if media_type.endswith("+gzip"):
        return gzip.decompress(blob)
    if media_type.endswith("+zstd"):
        return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(blob)).read()
    assert media_type == "application/vnd.oci.image.layer.v1.tar", media_type
    return blob
