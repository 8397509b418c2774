"""The image of a platform: chosen out of indexes, and nothing fetched that is not needed."""

from collections.abc import Callable

import pytest
from attrs import evolve

from imagekit.errors import DigestMismatchError, ImageNotFoundError, InvalidDocumentError
from imagekit.oci.descriptor import INDEX, MANIFEST, Descriptor
from imagekit.oci.manifest import Manifest
from imagekit.oci.platform import Platform
from imagekit.registry import Registry, resolve_image
from tests.support.images import Blob, Image, blob, image, index
from tests.support.registry import FakeRegistry

Connect = Callable[..., Registry]
AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


def add(server: FakeRegistry, made: Image) -> Descriptor:
    server.add_blob("app", made.config.data)
    server.add_manifest("app", made.manifest.data, MANIFEST)
    return made.manifest.descriptor


def add_index(server: FakeRegistry, *entries: Descriptor, tag: str = "") -> Blob:
    made = index(*entries)
    server.add_manifest("app", made.data, INDEX, tag)
    return made


def for_platform(descriptor: Descriptor, text: str) -> Descriptor:
    os, architecture, *variant = text.split("/")
    return evolve(descriptor, platform=Platform(os, architecture, *variant))


def test_a_single_image_is_taken_as_it_is(server: FakeRegistry, connect: Connect) -> None:
    made = image("linux/arm64")
    add(server, made)
    server.add_manifest("app", made.manifest.data, MANIFEST, "latest")
    pulled = resolve_image(connect(server), f"{server.host}/app", AMD64)
    assert pulled.config == made.config.data
    assert pulled.descriptor == pulled.root == made.manifest.descriptor
    assert isinstance(pulled.manifest.value, Manifest)


def test_only_index_manifest_and_config_are_fetched(
    server: FakeRegistry, connect: Connect
) -> None:
    images = {name: image(name) for name in ("linux/amd64", "linux/arm64")}
    entries = [for_platform(add(server, made), name) for name, made in images.items()]
    top = add_index(server, *entries, tag="latest")
    pulled = resolve_image(connect(server), f"{server.host}/app", ARM64)
    chosen = images["linux/arm64"]
    assert pulled.root == top.descriptor
    assert pulled.descriptor == for_platform(chosen.manifest.descriptor, "linux/arm64")
    assert pulled.config == chosen.config.data
    assert server.lines == [
        "GET /v2/app/manifests/latest",
        f"GET /v2/app/manifests/{chosen.manifest.digest}",
        f"GET /v2/app/blobs/{chosen.config.digest}",
    ]


def test_attestations_are_never_chosen(server: FakeRegistry, connect: Connect) -> None:
    made = image()
    entry = add(server, made)
    add_index(server, for_platform(entry, "unknown/unknown"), tag="latest")
    with pytest.raises(ImageNotFoundError) as caught:
        resolve_image(connect(server), f"{server.host}/app", AMD64)
    assert caught.value.code == "platform-not-found"
    assert "unknown" not in str(caught.value)


def test_a_missing_platform_lists_those_there_are(server: FakeRegistry, connect: Connect) -> None:
    entry = add(server, image())
    entries = [for_platform(entry, p) for p in ("linux/amd64", "linux/arm/v7")]
    add_index(server, *entries, tag="latest")
    with pytest.raises(ImageNotFoundError, match="linux/amd64, linux/arm/v7"):
        resolve_image(connect(server), f"{server.host}/app", Platform("linux", "s390x"))


def test_an_index_inside_an_index_is_looked_into(server: FakeRegistry, connect: Connect) -> None:
    made = image("linux/arm64")
    inner = add_index(server, for_platform(add(server, made), "linux/arm64"))
    other = add_index(server, for_platform(add(server, image()), "linux/amd64"))
    add_index(server, other.descriptor, inner.descriptor, tag="latest")
    pulled = resolve_image(connect(server), f"{server.host}/app", ARM64)
    assert pulled.config == made.config.data


def test_indexes_inside_each_other_are_limited(server: FakeRegistry, connect: Connect) -> None:
    entry = add(server, image())
    for depth in range(6):
        entry = add_index(server, entry, tag=f"d{depth}").descriptor
    registry = connect(server)
    resolve_image(registry, f"{server.host}/app:d3", AMD64)
    with pytest.raises(InvalidDocumentError, match="more than 4"):
        resolve_image(registry, f"{server.host}/app:d4", AMD64)


def test_an_entry_that_is_not_what_the_index_says_is_refused(
    server: FakeRegistry, connect: Connect
) -> None:
    entry = for_platform(add(server, image()), "linux/amd64")
    add_index(server, evolve(entry, size=entry.size + 1), tag="latest")
    with pytest.raises(InvalidDocumentError, match="the index says"):
        resolve_image(connect(server), f"{server.host}/app", AMD64)


def test_a_config_of_other_bytes_is_refused(server: FakeRegistry, connect: Connect) -> None:
    made = image()
    add(server, made)
    server.add_manifest("app", made.manifest.data, MANIFEST, "latest")
    server.blobs["app"][made.config.digest] = made.config.data[:-1] + b" "
    with pytest.raises(DigestMismatchError):
        resolve_image(connect(server), f"{server.host}/app", AMD64)


def test_an_artifact_is_no_image(server: FakeRegistry, connect: Connect) -> None:
    config = blob(b"{}", "application/vnd.example.config+json").descriptor
    raw = Manifest(config=config, layers=()).encode()
    server.add_manifest("app", raw, MANIFEST, "latest")
    with pytest.raises(InvalidDocumentError, match="artifact"):
        resolve_image(connect(server), f"{server.host}/app", AMD64)


def test_a_config_that_claims_to_be_huge_is_not_fetched(
    server: FakeRegistry, connect: Connect
) -> None:
    made = image()
    config = evolve(made.config.descriptor, size=5 << 20)
    raw = Manifest(config=config, layers=()).encode()
    server.add_manifest("app", raw, MANIFEST, "latest")
    with pytest.raises(InvalidDocumentError, match="more than"):
        resolve_image(connect(server), f"{server.host}/app", AMD64)
    assert len(server.requests) == 1
