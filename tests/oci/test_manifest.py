"""Manifests, indexes and descriptors: read with suspicion, written by the schema."""

import json
from typing import Any

import pytest

from imagekit.errors import InvalidDocumentError
from imagekit.oci.descriptor import (
    CONFIG,
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    INDEX,
    LAYER_GZIP,
    LAYER_ZSTD,
    MANIFEST,
    Descriptor,
    layer_compression,
)
from imagekit.oci.digest import Digest
from imagekit.oci.manifest import MAX_LAYERS, Index, Manifest, decode_manifest
from imagekit.oci.platform import Platform
from tests.support.schemas import Schemas
from tests.support.tools import reference_folder

DIGEST = str(Digest.of(b"x"))


def descriptor(media_type: str = LAYER_GZIP, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": DIGEST, "size": 1, **more}


def manifest(**changes: Any) -> dict[str, Any]:
    found = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG),
        "layers": [descriptor()],
        **changes,
    }
    return {k: v for k, v in found.items() if v is not ...}


def index(**changes: Any) -> dict[str, Any]:
    found = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [descriptor(MANIFEST)],
        **changes,
    }
    return {k: v for k, v in found.items() if v is not ...}


def raw(document: Any) -> bytes:
    return json.dumps(document).encode()


def test_a_manifest_is_read() -> None:
    found = decode_manifest(raw(manifest(annotations={"a": "b"})), MANIFEST)
    assert isinstance(found.value, Manifest)
    assert found.value.annotations == {"a": "b"}
    assert found.descriptor.digest == Digest.of(found.raw)
    assert found.descriptor.media_type == MANIFEST


def test_an_index_is_read() -> None:
    found = decode_manifest(raw(index()))
    assert isinstance(found.value, Index)
    assert found.value.manifests[0].media_type == MANIFEST


@pytest.mark.parametrize(
    ("document", "outside", "kind"),
    [
        (manifest(), "", MANIFEST),
        (manifest(), "text/plain", MANIFEST),
        (manifest(), "application/json", MANIFEST),
        (manifest(mediaType=...), MANIFEST, MANIFEST),
        (manifest(mediaType=...), DOCKER_MANIFEST, DOCKER_MANIFEST),
        (manifest(mediaType=...), "", MANIFEST),
        (manifest(mediaType=..., config=descriptor(DOCKER_CONFIG)), "", DOCKER_MANIFEST),
        (manifest(mediaType=DOCKER_MANIFEST), "", DOCKER_MANIFEST),
        (index(mediaType=...), "", INDEX),
        (index(mediaType=...), DOCKER_INDEX, DOCKER_INDEX),
        (index(mediaType=DOCKER_INDEX), DOCKER_INDEX, DOCKER_INDEX),
    ],
)
def test_the_type_comes_from_the_document_its_source_or_its_shape(
    document: dict[str, Any], outside: str, kind: str
) -> None:
    assert decode_manifest(raw(document), outside).descriptor.media_type == kind


@pytest.mark.parametrize(
    ("document", "outside", "why"),
    [
        (manifest(manifests=[]), "", "want either layers and config or manifests"),
        (index(layers=[]), "", "want either"),
        (index(config={}), "", "want either"),
        ({"schemaVersion": 2}, "", "want either"),
        (manifest(mediaType=INDEX), "", "not of the type"),
        (index(mediaType=MANIFEST), "", "not of the type"),
        (manifest(mediaType="application/json"), "", "not of the type"),
        (manifest(), INDEX, "not of the type"),
        (manifest(), DOCKER_MANIFEST, "its source says"),
        (index(mediaType=...), MANIFEST, "not of the type"),
        (manifest(schemaVersion=1), "", "schemaVersion is 1, want 2"),
        (manifest(schemaVersion=...), "", "schemaVersion is None"),
        (manifest(schemaVersion="2"), "", "schemaVersion is '2'"),
        (manifest(mediaType=7), "", "schemaVersion|mediaType"),
        (manifest(config=...), "", "manifest config: want an object"),
        (manifest(config=[]), "", "manifest config: want an object"),
        (manifest(layers={}), "", "layers must be a list"),
        (manifest(layers=[descriptor()] * (MAX_LAYERS + 1)), "", "at most 1000"),
        (manifest(layers=["x"]), "", r"layers\[0\]: want an object"),
        (manifest(layers=[descriptor(), descriptor(size=-1)]), "", r"layers\[1\]: size"),
        (manifest(annotations=[]), "", "annotations must hold strings"),
        (manifest(annotations={"a": 1}), "", "annotations must hold strings"),
        (manifest(subject="x"), "", "subject: want an object"),
        (manifest(artifactType=7), "", "artifactType"),
        ([], "", "want an object"),
    ],
)
def test_a_malformed_manifest_is_refused(document: Any, outside: str, why: str) -> None:
    with pytest.raises(InvalidDocumentError, match=why):
        decode_manifest(raw(document), outside)


def test_schema_1_is_refused_with_what_to_do() -> None:
    with pytest.raises(InvalidDocumentError) as caught:
        decode_manifest(raw({"schemaVersion": 1, "fsLayers": []}))
    assert "schema 1 is not supported" in caught.value.hint


@pytest.mark.parametrize(
    "change",
    [
        {"mediaType": 1},
        {"mediaType": None},
        {"digest": None},
        {"digest": "sha256:abc"},
        {"digest": 7},
        {"size": "1"},
        {"size": 1.0},
        {"size": True},
        {"size": -1},
        {"size": 1 << 63},
        {"size": None},
        {"annotations": ["a"]},
        {"annotations": {"a": None}},
        {"urls": [1]},
        {"urls": 7},
        {"urls": "text"},
        {"urls": {"a": "b"}},
        {"data": 7},
        {"artifactType": ["x"]},
        {"artifactType": 7},
        {"platform": "linux/amd64"},
    ],
    ids=str,
)
def test_a_malformed_descriptor_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidDocumentError):
        Descriptor.from_json(descriptor(**change))


def test_all_fields_of_a_descriptor_survive() -> None:
    value = descriptor(
        urls=["https://example.com/x"],
        annotations={"a": "1"},
        data="eA==",
        platform={"architecture": "amd64", "os": "linux"},
        artifactType="application/x",
        newField={"deep": [1]},
    )
    assert Descriptor.from_json(value).to_json() == value


@pytest.mark.parametrize(
    ("media_type", "compression"),
    [
        ("application/vnd.oci.image.layer.v1.tar", "none"),
        (LAYER_GZIP, "gzip"),
        (LAYER_ZSTD, "zstd"),
        (DOCKER_LAYER_GZIP, "gzip"),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "gzip"),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", "zstd"),
        (CONFIG, None),
        ("application/vnd.oci.image.layer.v1.tar+encrypted", None),
        ("", None),
    ],
)
def test_the_compression_of_a_layer_is_in_its_type(
    media_type: str, compression: str | None
) -> None:
    assert layer_compression(media_type) == compression


def full_manifest() -> Manifest:
    return Manifest(
        config=Descriptor.from_json(descriptor(CONFIG)),
        layers=(Descriptor.from_json(descriptor()),),
        artifact_type="application/x",
        subject=Descriptor.from_json(descriptor(MANIFEST)),
        annotations={"b": "2", "a": "1"},
    )


def full_index() -> Index:
    child = Descriptor.from_json(
        descriptor(MANIFEST, platform=Platform("linux", "arm", "v7").to_json())
    )
    return Index(manifests=(child,), annotations={"a": "1"}, artifact_type="application/x")


@pytest.mark.parametrize("value", [full_manifest(), full_index()], ids=["manifest", "index"])
def test_reading_what_was_written_gives_the_same(value: Manifest | Index) -> None:
    found = decode_manifest(value.encode())
    assert found.value == value
    assert found.value.encode() == found.raw


def test_written_documents_match_the_schemas() -> None:
    schemas = Schemas(reference_folder() / "image-spec-schema")
    assert schemas.problems("manifest", json.loads(full_manifest().encode())) == []
    assert schemas.problems("index", json.loads(full_index().encode())) == []
    bare = Manifest(config=Descriptor.from_json(descriptor(CONFIG)), layers=())
    assert json.loads(bare.encode())["layers"] == []


def test_the_written_form_is_pinned() -> None:
    bare = Manifest(config=Descriptor.from_json(descriptor(CONFIG)), layers=())
    assert (
        bare.encode()
        == (
            f'{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"{CONFIG}",'
            f'"digest":"{DIGEST}","size":1}},"layers":[]}}'
        ).encode()
    )
