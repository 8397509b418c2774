"""Against Debian's registry and skopeo: what one side pushes, the other pulls."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagekit.errors import AuthError
from imagekit.oci.platform import Platform
from imagekit.registry import Credential, Registry, Repository, anonymous, resolve_image
from imagekit.store.copy import copy
from imagekit.store.roles import MemoryStore
from tests.registry.conftest import quick
from tests.support.images import Image, image, index, noise
from tests.support.registry_server import RegistryServer, registry_server
from tests.support.tools import need, run

COPY = ("skopeo", "copy", "--quiet", "--preserve-digests")
AMD64 = Platform("linux", "amd64")


@pytest.fixture(scope="module", params=["open", "password"])
def peer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RegistryServer]:
    need("docker-registry", "skopeo")
    account = {"user": "tester", "password": "s3cret"} if request.param == "password" else {}
    with registry_server(tmp_path_factory.mktemp("peer"), **account) as server:
        yield server


@pytest.fixture
def registry(peer: RegistryServer) -> Iterator[Registry]:
    account = Credential.of(peer.user, peer.password) if peer.user else anonymous
    with Registry(peer.host, credentials=account) as registry:
        yield registry


def skopeo(peer: RegistryServer, side: str) -> list[str]:
    login = [f"--{side}creds", f"{peer.user}:{peer.password}"] if peer.user else []
    return [f"--{side}tls-verify=false", *login]


def memory(*images: Image) -> MemoryStore:
    store = MemoryStore()
    for made in images:
        for part in (made.config, *made.layers, made.manifest):
            store.write(part.descriptor, part.open)
    return store


def test_skopeo_pulls_what_we_push(
    peer: RegistryServer, registry: Registry, tmp_path: Path
) -> None:
    images = [image(p, noise(70_000), b"top") for p in ("linux/amd64", "linux/arm64")]
    top = index(*(made.manifest.descriptor for made in images))
    store = memory(*images)
    store.write(top.descriptor, top.open)
    reference = peer.reference("ours", "1.0")
    copy(store, top.descriptor, Repository(registry, reference), tag="1.0")
    login = skopeo(peer, "src-")
    target = f"oci:{tmp_path}/pulled:1.0"
    run([*COPY, "--all", *login, f"docker://{reference}", target])
    pulled = json.loads((tmp_path / "pulled/index.json").read_bytes())
    assert pulled["manifests"][0]["digest"] == top.digest


def test_we_pull_what_skopeo_pushes(peer: RegistryServer, registry: Registry) -> None:
    made = image("linux/amd64", noise(70_000, 2))
    copy(
        memory(made), made.manifest.descriptor, Repository(registry, peer.reference("a")), tag="1"
    )
    source = f"docker://{peer.reference('a', '1')}"
    there, back = skopeo(peer, "src-"), skopeo(peer, "dest-")
    run([*COPY, *there, *back, source, f"docker://{peer.reference('b', '2')}"])
    pulled = resolve_image(registry, peer.reference("b", "2"), AMD64)
    assert pulled.descriptor.digest == made.manifest.descriptor.digest
    with registry.open_blob("b", made.layers[0].descriptor) as stream:
        assert stream.read() == made.layers[0].data


def test_blobs_are_mounted_across_repositories(registry: Registry, peer: RegistryServer) -> None:
    made = image("linux/amd64", noise(70_000, 3))
    source = Repository(registry, peer.reference("from"))
    copy(memory(made), made.manifest.descriptor, source, tag="1")
    part = made.layers[0]

    def never() -> None:
        raise AssertionError("opened")

    assert registry.upload("onto", part.descriptor, never, mount_from="from") == "mounted"
    assert registry.exists("onto", part.descriptor)


def test_chunks_arrive_whole(peer: RegistryServer, registry: Registry) -> None:
    part = image("linux/amd64", noise(400_000, 4)).layers[0]
    account = Credential.of(peer.user, peer.password) if peer.user else anonymous
    with Registry(peer.host, credentials=account, settings=quick([])) as chunked:
        assert chunked.upload("chunks", part.descriptor, part.open) == "uploaded"
    assert registry.exists("chunks", part.descriptor)


def test_without_the_password_there_is_no_way_in(peer: RegistryServer) -> None:
    if not peer.user:
        pytest.skip("an open registry")
    with Registry(peer.host, credentials=anonymous) as nobody, pytest.raises(AuthError):
        nobody.tags("app")
