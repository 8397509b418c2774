"""Images and indexes as documents: what names what, in one family of media types."""

import json
from typing import Any

import pytest
from attrs import evolve

from imagekit.oci.config import ImageConfig
from imagekit.oci.descriptor import (
    CONFIG,
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_LAYER_GZIP,
    DOCKER_LAYER_TAR,
    DOCKER_MANIFEST,
    INDEX,
    LAYER_GZIP,
    LAYER_TAR,
    LAYER_ZSTD,
    MANIFEST,
    Descriptor,
)
from imagekit.oci.digest import Digest
from imagekit.oci.manifest import Index, Manifest, decode_manifest
from imagekit.oci.platform import Platform
from imagekit.packer.image import image, layer_descriptor
from imagekit.packer.index import index
from tests.support.schemas import Schemas
from tests.support.tools import reference_folder

FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


def layer(media_type: str = LAYER_GZIP, **more: Any) -> Descriptor:
    return Descriptor(media_type=media_type, digest=Digest.of(b"l"), size=1, **more)


def config(platform: str = "linux/amd64") -> ImageConfig:
    return ImageConfig(platform=Platform.parse(platform), diff_ids=(Digest.of(b"d"),))


def types(document: Manifest) -> set[str]:
    return {
        document.media_type,
        document.config.media_type,
        *(d.media_type for d in document.layers),
    }


def test_a_manifest_names_its_config_and_layers() -> None:
    made = image(config(), [layer()], annotations={"a": "1"})
    assert made.manifest.value.config.digest == Digest.of(made.config.raw)
    assert made.config.raw == config().encode()
    assert made.manifest.value.layers == (layer(),)
    assert made.manifest.value.annotations == {"a": "1"}
    assert made.manifest.descriptor.digest == Digest.of(made.manifest.raw)
    assert decode_manifest(made.manifest.raw).value == made.manifest.value


def test_the_same_image_has_the_same_bytes() -> None:
    assert image(config(), [layer()]).manifest.raw == image(config(), [layer()]).manifest.raw


@pytest.mark.parametrize(
    "media_type", [LAYER_GZIP, DOCKER_LAYER_GZIP, LAYER_TAR, DOCKER_LAYER_TAR]
)
def test_media_types_are_of_one_family(media_type: str) -> None:
    oci = image(config(), [layer(media_type), layer(DOCKER_LAYER_GZIP), layer()])
    docker = image(config(), [layer(media_type), layer(DOCKER_LAYER_GZIP), layer()], docker=True)
    assert types(oci.manifest.value) <= {MANIFEST, CONFIG, LAYER_GZIP, LAYER_TAR}
    assert types(docker.manifest.value) <= {
        DOCKER_MANIFEST,
        DOCKER_CONFIG,
        DOCKER_LAYER_GZIP,
        DOCKER_LAYER_TAR,
    }


def test_layers_that_docker_has_no_type_for_make_the_image_an_oci_one() -> None:
    made = image(config(), [layer(DOCKER_LAYER_GZIP), layer(LAYER_ZSTD)], docker=True)
    assert types(made.manifest.value) == {MANIFEST, CONFIG, LAYER_GZIP, LAYER_ZSTD}


def test_layers_that_are_fetched_from_elsewhere_keep_their_descriptor() -> None:
    foreign = layer(FOREIGN, urls=("https://example.com/x",))
    assert layer_descriptor(foreign, docker=False) == foreign
    unknown = layer("application/x")
    assert layer_descriptor(unknown, docker=True) == unknown


def test_a_layer_keeps_its_annotations_and_nothing_else() -> None:
    given = layer(DOCKER_LAYER_GZIP, annotations={"a": "1"}, data="bA==", extra={"x": 1})
    assert layer_descriptor(given, docker=False) == layer(annotations={"a": "1"})


def test_docker_manifests_have_no_annotations() -> None:
    made = image(config(), [layer(DOCKER_LAYER_GZIP)], annotations={"a": "1"}, docker=True)
    assert "annotations" not in json.loads(made.manifest.raw)


def test_an_index_names_images_by_platform_in_the_order_given() -> None:
    images = [image(config(p), [layer()]) for p in ("linux/arm64", "linux/amd64", "linux/arm/v6")]
    made = index(images, annotations={"a": "1"})
    assert made.descriptor.media_type == INDEX
    found = json.loads(made.raw)
    assert [d["platform"] for d in found["manifests"]] == [
        {"architecture": "arm64", "os": "linux"},
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm", "os": "linux", "variant": "v6"},
    ]
    assert found["annotations"] == {"a": "1"}
    assert [d["digest"] for d in found["manifests"]] == [
        str(i.manifest.descriptor.digest) for i in images
    ]


def test_an_index_of_docker_images_is_a_manifest_list() -> None:
    made = index([image(config(), [layer(DOCKER_LAYER_GZIP)], docker=True)], docker=True)
    assert made.descriptor.media_type == DOCKER_INDEX
    assert isinstance(made.value, Index)
    assert made.value.manifests[0].media_type == DOCKER_MANIFEST
    assert "annotations" not in json.loads(made.raw)


def test_an_index_of_mixed_images_is_an_oci_one() -> None:
    mixed = [image(config(), [layer(LAYER_ZSTD)], docker=True)]
    assert index(mixed, docker=True).descriptor.media_type == INDEX


def test_documents_match_the_schemas() -> None:
    schemas = Schemas(reference_folder() / "image-spec-schema")
    made = image(evolve(config(), created="2026-01-01T00:00:00Z"), [layer(), layer(LAYER_ZSTD)])
    assert schemas.problems("manifest", json.loads(made.manifest.raw)) == []
    assert schemas.problems("config", json.loads(made.config.raw)) == []
    assert schemas.problems("index", json.loads(index([made]).raw)) == []
