"""A repository in the roles of a store."""

from collections.abc import Callable

import pytest

from imagekit.errors import DigestMismatchError, NotFoundError
from imagekit.oci.descriptor import MANIFEST
from imagekit.registry import Registry, Repository
from imagekit.store.copy import copy
from imagekit.store.roles import MemoryStore, read_blob
from tests.support.images import Image, blob, image, index, noise
from tests.support.registry import FakeRegistry

Connect = Callable[..., Registry]


def in_memory(*images: Image) -> MemoryStore:
    store = MemoryStore()
    for made in images:
        for part in (made.config, *made.layers, made.manifest):
            store.write(part.descriptor, part.open)
    return store


def test_copying_into_a_repository_is_pushing(server: FakeRegistry, connect: Connect) -> None:
    made = image("linux/amd64", b"one", noise(100_000))
    target = Repository(connect(server), f"{server.host}/app")
    copy(in_memory(made), made.manifest.descriptor, target, tag="1.0")
    assert server.manifests["app"]["1.0"] == (made.manifest.data, MANIFEST)
    assert set(server.blobs["app"]) == {p.digest for p in (made.config, *made.layers)}


def test_pushing_again_uploads_nothing(server: FakeRegistry, connect: Connect) -> None:
    made = image()
    for _ in range(2):
        target = Repository(connect(server), f"{server.host}/app")
        before = len(server.requests)
        copy(in_memory(made), made.manifest.descriptor, target, tag="1.0")
    assert {r.method for r in server.requests[before:]} == {"HEAD"}


def test_a_tag_comes_last(server: FakeRegistry, connect: Connect) -> None:
    images = [image(p) for p in ("linux/amd64", "linux/arm64")]
    top = index(*(made.manifest.descriptor for made in images))
    store = in_memory(*images)
    store.write(top.descriptor, top.open)
    target = Repository(connect(server), f"{server.host}/app")
    copy(store, top.descriptor, target, tag="1.0")
    puts = [r.path for r in server.requests if r.method == "PUT" and "/manifests/" in r.path]
    assert puts[-2:] == [f"/v2/app/manifests/{top.digest}", "/v2/app/manifests/1.0"]


def test_copying_out_of_a_repository_is_pulling(server: FakeRegistry, connect: Connect) -> None:
    made = image("linux/amd64", noise(50_000))
    for part in (made.config, *made.layers):
        server.add_blob("app", part.data)
    server.add_manifest("app", made.manifest.data, MANIFEST, "1.0")
    source = Repository(connect(server), f"{server.host}/app")
    store = MemoryStore()
    copy(source, source.resolve("1.0"), store, tag="1.0")
    assert store.tags["1.0"] == made.manifest.descriptor
    assert store.blobs[made.layers[0].descriptor.digest] == made.layers[0].data
    assert server.lines.count("GET /v2/app/manifests/1.0") == 1


def test_copying_between_repositories_of_a_registry_moves_no_blob(
    server: FakeRegistry, connect: Connect
) -> None:
    made = image("linux/amd64", noise(50_000))
    for part in (made.config, *made.layers):
        server.add_blob("base", part.data)
    server.add_manifest("base", made.manifest.data, MANIFEST, "1.0")
    registry = connect(server)
    source = Repository(registry, f"{server.host}/base")
    target = Repository(registry, f"{server.host}/app")
    copy(source, source.resolve("1.0"), target, tag="1.0")
    assert not [line for line in server.lines if line.startswith("GET /v2/base/blobs")]
    assert server.blobs["app"] == server.blobs["base"]


def test_a_hint_says_where_blobs_may_be_mounted_from(
    server: FakeRegistry, connect: Connect
) -> None:
    part = blob(b"bytes")
    server.add_blob("base", part.data)
    target = Repository(connect(server), f"{server.host}/app", mount_from=("base",))
    target.write(part.descriptor, part.open)
    assert server.lines == [f"POST /v2/app/blobs/uploads/?mount={part.digest}&from=base"]


def test_what_is_not_there_is_said_in_the_words_of_stores(
    server: FakeRegistry, connect: Connect
) -> None:
    view = Repository(connect(server), f"{server.host}/app")
    with pytest.raises(NotFoundError):
        view.resolve("1.0")
    with pytest.raises(NotFoundError):
        view.open(blob(b"x").descriptor)
    with pytest.raises(NotFoundError):
        view.open(image().manifest.descriptor)
    with pytest.raises(NotFoundError):
        view.tag(image().manifest.descriptor, "1.0")


def test_a_manifest_of_other_bytes_is_not_sent(server: FakeRegistry, connect: Connect) -> None:
    view = Repository(connect(server), f"{server.host}/app")
    with pytest.raises(DigestMismatchError):
        view.write(image().manifest.descriptor, image("linux/arm64").manifest.open)
    assert not server.requests


def test_blobs_and_manifests_are_read_alike(server: FakeRegistry, connect: Connect) -> None:
    made = image()
    server.add_blob("app", made.config.data)
    server.add_manifest("app", made.manifest.data, MANIFEST)
    view = Repository(connect(server), f"{server.host}/app")
    for part in (made.config, made.manifest):
        assert view.exists(part.descriptor)
        assert read_blob(view, part.descriptor) == part.data
