"""The same on an event loop."""

import asyncio

import pytest

from imagekit.errors import DigestMismatchError, ImageNotFoundError, UnreachableError
from imagekit.oci.descriptor import MANIFEST
from imagekit.registry import AsyncRegistry, Credential, anonymous
from tests.registry.conftest import quick
from tests.support.images import blob, image, noise
from tests.support.registry import FakeRegistry
from tests.support.registry_auth import TokenGuard

ACCOUNT = Credential.of("tester", "s3cret-p4ssword")


def connect(server: FakeRegistry, credentials: Credential | None = None) -> AsyncRegistry:
    return AsyncRegistry(server.host, credentials=credentials or anonymous, settings=quick([]))


def test_push_and_pull_with_one_token() -> None:
    guard = TokenGuard()
    made = image("linux/amd64", noise(150_000))

    async def run(server: FakeRegistry) -> None:
        async with connect(server, ACCOUNT) as registry:
            parts = (made.config, *made.layers)
            await asyncio.gather(*(registry.upload("app", p.descriptor, p.open) for p in parts))
            await registry.put_manifest("app", "1.0", made.manifest.data, MANIFEST)
            document = await registry.manifest(f"{server.host}/app:1.0")
            assert document.raw == made.manifest.data
            assert await registry.resolve(f"{server.host}/app:1.0") == document.descriptor
            assert await registry.tags("app") == ("1.0",)
            assert await registry.exists("app", made.config.descriptor)
            async with registry.open_blob("app", made.layers[0].descriptor) as stream:
                assert b"".join([data async for data in stream]) == made.layers[0].data

    with FakeRegistry(guard=guard) as server:
        asyncio.run(run(server))
    assert set(guard.asked) == {("repository:app:pull,push",)}


def test_a_download_is_taken_up_where_it_broke(server: FakeRegistry) -> None:
    part = blob(noise(200_000))
    server.add_blob("app", part.data)
    server.fault("GET", cut=50_000)

    async def run() -> bytes:
        registry = connect(server)
        async with registry, registry.open_blob("app", part.descriptor) as stream:
            return b"".join([data async for data in stream])

    assert asyncio.run(run()) == part.data
    assert server.requests[1].headers["range"] == "bytes=50000-"


def test_wrong_bytes_are_refused(server: FakeRegistry) -> None:
    part = blob(noise(100_000))
    server.blobs["app"] = {part.digest: part.data[:-1] + b"?"}

    async def run() -> None:
        registry = connect(server)
        async with registry, registry.open_blob("app", part.descriptor) as stream:
            async for _ in stream:
                pass

    with pytest.raises(DigestMismatchError):
        asyncio.run(run())


def test_errors_are_the_same(server: FakeRegistry) -> None:
    async def run() -> None:
        async with connect(server) as registry:
            await registry.manifest(f"{server.host}/app")

    with pytest.raises(ImageNotFoundError):
        asyncio.run(run())
    server.fault("", times=99, cut=-1)
    with pytest.raises(UnreachableError):
        asyncio.run(run())
