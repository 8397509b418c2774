"""Pulling: documents and blobs, from a registry that is right, wrong or broken."""

import hashlib
import io
import json
import shutil
import threading
from collections.abc import Callable
from typing import Any

import pytest

from imagekit.errors import (
    AuthError,
    DigestMismatchError,
    ImageNotFoundError,
    InvalidDocumentError,
    RateLimitedError,
    RegistryError,
    UnreachableError,
    UsageError,
)
from imagekit.events import Transfer
from imagekit.oci.descriptor import INDEX, MANIFEST, Descriptor
from imagekit.oci.digest import Digest
from imagekit.registry import Registries, Registry, anonymous
from tests.support.images import Blob, Image, blob, image, noise
from tests.support.registry import Answer, FakeRegistry, error

Connect = Callable[..., Registry]


def add(server: FakeRegistry, name: str, made: Image, tag: str = "latest") -> Image:
    for part in (made.config, *made.layers):
        server.add_blob(name, part.data)
    server.add_manifest(name, made.manifest.data, MANIFEST, tag)
    return made


def test_a_manifest_comes_with_its_bytes_and_digest(
    server: FakeRegistry, connect: Connect
) -> None:
    made = add(server, "app", image(), "1.0")
    document = connect(server).manifest(f"{server.host}/app:1.0")
    assert document.raw == made.manifest.data
    assert document.descriptor == made.manifest.descriptor


def test_resolve_asks_by_head_only(server: FakeRegistry, connect: Connect) -> None:
    made = add(server, "app", image())
    assert connect(server).resolve(f"{server.host}/app") == made.manifest.descriptor
    assert server.lines == ["HEAD /v2/app/manifests/latest"]


@pytest.mark.parametrize("missing", ["docker-content-digest", "content-type"])
def test_resolve_reads_the_document_where_head_says_too_little(
    server: FakeRegistry, connect: Connect, missing: str
) -> None:
    made = add(server, "app", image())

    def without(answer: Answer) -> Answer:
        kept = tuple((k, v) for k, v in answer.headers if k != missing)
        return Answer(answer.status, kept, answer.body)

    server.fault("", times=9, change=without)
    assert connect(server).resolve(f"{server.host}/app") == made.manifest.descriptor
    assert server.lines == ["HEAD /v2/app/manifests/latest", "GET /v2/app/manifests/latest"]


def test_a_manifest_by_digest_must_have_that_digest(
    server: FakeRegistry, connect: Connect
) -> None:
    made = add(server, "app", image())
    other = image("linux/arm64").manifest
    lie = Answer(200, (("content-type", MANIFEST),), other.data)
    server.fault("GET", instead=lie)
    with pytest.raises(DigestMismatchError, match=f"want {made.manifest.digest}, got"):
        connect(server).manifest(f"{server.host}/app@{made.manifest.digest}")


def test_a_stated_digest_that_is_not_that_of_the_bytes_is_refused(
    server: FakeRegistry, connect: Connect
) -> None:
    add(server, "app", image())
    lie = f"sha256:{'0' * 64}"
    server.fault("GET", change=lambda a: a.having(docker_content_digest=lie))
    with pytest.raises(DigestMismatchError, match=f"want {lie}"):
        connect(server).manifest(f"{server.host}/app")


def test_a_media_type_that_the_document_contradicts_is_refused(
    server: FakeRegistry, connect: Connect
) -> None:
    add(server, "app", image())
    server.fault("GET", change=lambda a: a.having(content_type=INDEX))
    with pytest.raises(InvalidDocumentError):
        connect(server).manifest(f"{server.host}/app")


@pytest.mark.parametrize("generic", ["application/json; charset=utf-8", "text/plain", ""])
def test_a_generic_media_type_leaves_it_to_the_document(
    server: FakeRegistry, connect: Connect, generic: str
) -> None:
    made = add(server, "app", image())
    server.fault("GET", change=lambda a: a.having(content_type=generic))
    document = connect(server).manifest(f"{server.host}/app")
    assert document.descriptor == made.manifest.descriptor


def test_an_html_page_is_no_registry(server: FakeRegistry, connect: Connect) -> None:
    page = Answer(200, (("content-type", "text/html"),), b"<html>Please log in</html>")
    server.fault("", times=9, instead=page)
    with pytest.raises(RegistryError, match="HTML page") as caught:
        connect(server).manifest(f"{server.host}/app")
    assert caught.value.code == "not-a-registry"
    assert caught.value.hint


def test_a_huge_manifest_is_not_read_to_its_end(server: FakeRegistry, connect: Connect) -> None:
    huge = Answer(200, (("content-type", MANIFEST),), b" " * (5 << 20))
    server.fault("GET", instead=huge)
    with pytest.raises(RegistryError) as caught:
        connect(server).manifest(f"{server.host}/app")
    assert caught.value.code == "too-large"


def test_a_manifest_of_schema_1_is_named_as_such(server: FakeRegistry, connect: Connect) -> None:
    old = json.dumps({"schemaVersion": 1, "fsLayers": []}).encode()
    media_type = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    server.fault("GET", instead=Answer(200, (("content-type", media_type),), old))
    with pytest.raises(InvalidDocumentError) as caught:
        connect(server).manifest(f"{server.host}/app")
    assert "schema 1" in caught.value.hint


@pytest.mark.parametrize(
    ("answer", "kind", "hint"),
    [
        (error(404, "MANIFEST_UNKNOWN", "manifest unknown"), ImageNotFoundError, "spelling"),
        (error(400, "NAME_UNKNOWN"), ImageNotFoundError, "spelling"),
        (error(412, "UNKNOWN", "artifact app:1 not found"), ImageNotFoundError, "spelling"),
        (error(401, "UNAUTHORIZED"), AuthError, "docker login 127.0.0.1"),
        (error(403, "DENIED", "no"), AuthError, "may not"),
        (error(429, "TOOMANYREQUESTS", "slow down"), RateLimitedError, "docker login"),
        (Answer(418, (), b"tea\x1b[31m\npot"), RegistryError, ""),
    ],
    ids=lambda value: str(getattr(value, "status", "")),
)
def test_errors_are_typed_and_say_what_to_try(
    server: FakeRegistry, connect: Connect, answer: Answer, kind: type[RegistryError], hint: str
) -> None:
    server.fault("", times=99, instead=answer)
    with pytest.raises(RegistryError) as caught:
        connect(server).manifest(f"{server.host}/app:1")
    assert type(caught.value) is kind
    assert caught.value.status == answer.status
    assert hint in caught.value.hint
    assert "\x1b" not in str(caught.value)


def test_nobody_there_is_an_error_after_some_tries(waits: list[float], connect: Connect) -> None:
    with FakeRegistry() as server:
        registry = connect(server)
    with pytest.raises(UnreachableError, match="connection refused") as caught:
        registry.tags("app")
    assert caught.value.hint
    assert waits == [0.25, 0.5, 1.0]


def test_transient_failures_are_tried_again(
    server: FakeRegistry, connect: Connect, waits: list[float]
) -> None:
    add(server, "app", image())
    server.fault("GET", instead=error(503, "UNAVAILABLE").having(retry_after="7"))
    server.fault("GET", cut=10)
    connect(server).manifest(f"{server.host}/app")
    assert waits == [7.0, 0.5]


def test_a_wait_beyond_all_patience_is_not_begun(
    server: FakeRegistry, connect: Connect, waits: list[float]
) -> None:
    server.fault("GET", instead=error(429, "TOOMANYREQUESTS").having(retry_after="3600"))
    with pytest.raises(RateLimitedError) as caught:
        connect(server).manifest(f"{server.host}/app")
    assert caught.value.retry_after == 3600
    assert not waits


@pytest.mark.parametrize("status", [400, 403, 404])
def test_lasting_failures_are_not_tried_again(
    server: FakeRegistry, connect: Connect, status: int
) -> None:
    server.fault("GET", times=9, instead=Answer(status))
    with pytest.raises(RegistryError):
        connect(server).manifest(f"{server.host}/app")
    assert len(server.requests) == 1


def test_a_blob_is_read_whole(server: FakeRegistry, connect: Connect) -> None:
    part = blob(noise(300_000))
    server.add_blob("app", part.data)
    with connect(server).open_blob("app", part.descriptor) as stream:
        assert stream.read(5) == part.data[:5]
        assert stream.read() == part.data[5:]
        assert stream.read() == b""


def test_a_blob_that_breaks_off_is_taken_up_where_it_broke(
    server: FakeRegistry, connect: Connect
) -> None:
    part = blob(noise(200_000))
    server.add_blob("app", part.data)
    server.fault("GET /v2/app/blobs", cut=50_000)
    server.fault("GET /v2/app/blobs", cut=60_000)
    with connect(server).open_blob("app", part.descriptor) as stream:
        assert stream.read() == part.data
    ranges = [r.headers.get("range") for r in server.requests]
    assert ranges == [None, "bytes=50000-", "bytes=110000-"]
    assert server.requests[1].headers["if-range"] == f'"{part.digest}"'


def test_an_answer_from_the_start_to_a_range_is_skipped_over(
    server: FakeRegistry, connect: Connect
) -> None:
    part = blob(noise(200_000))
    server.add_blob("app", part.data)
    server.fault("GET", cut=70_000)
    server.fault("GET", instead=Answer(200, (), part.data))
    with connect(server).open_blob("app", part.descriptor) as stream:
        assert stream.read() == part.data


def test_a_range_that_was_not_asked_for_is_refused(server: FakeRegistry, connect: Connect) -> None:
    part = blob(noise(200_000))
    server.add_blob("app", part.data)
    server.fault("GET", cut=70_000)
    wrong = (("content-range", "bytes 0-199999/200000"),)
    server.fault("GET", instead=Answer(206, wrong, part.data))
    stream = connect(server).open_blob("app", part.descriptor)
    with stream, pytest.raises(RegistryError) as caught:
        stream.read()
    assert caught.value.code == "bad-range"


def test_a_blob_that_keeps_breaking_off_is_given_up(
    server: FakeRegistry, connect: Connect
) -> None:
    part = blob(noise(1_000))
    server.add_blob("app", part.data)
    server.fault("GET", times=99, cut=1)
    stream = connect(server).open_blob("app", part.descriptor)
    with stream, pytest.raises(UnreachableError):
        stream.read()


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(lambda data: data[:-1] + b"?", id="changed"),
        pytest.param(lambda data: data + b"more", id="longer"),
        pytest.param(lambda _: b"", id="empty"),
    ],
)
def test_a_blob_of_other_bytes_never_comes_out_whole(
    server: FakeRegistry, connect: Connect, lie: Callable[[bytes], bytes]
) -> None:
    part = blob(noise(100_000))
    server.blobs["app"] = {part.digest: lie(part.data)}
    got = io.BytesIO()
    stream = connect(server).open_blob("app", part.descriptor)
    with stream, pytest.raises((DigestMismatchError, RegistryError)):
        shutil.copyfileobj(stream, got, 10_000)
    assert len(got.getvalue()) < len(part.data)


def test_an_encoded_blob_is_refused(server: FakeRegistry, connect: Connect) -> None:
    part = blob(b"plain")
    server.add_blob("app", part.data)
    server.fault("GET", change=lambda a: a.having(content_encoding="gzip"))
    with pytest.raises(RegistryError, match="gzip"):
        connect(server).open_blob("app", part.descriptor)


def test_a_blob_inside_its_descriptor_needs_no_request(
    server: FakeRegistry, connect: Connect
) -> None:
    empty = Descriptor(
        media_type="application/vnd.oci.empty.v1+json",
        digest=Digest.of(b"{}"),
        size=2,
        data="e30=",
    )
    with connect(server).open_blob("app", empty) as stream:
        assert stream.read() == b"{}"
    assert not server.requests


def test_a_blob_inside_its_descriptor_that_is_another_is_fetched(
    server: FakeRegistry, connect: Connect
) -> None:
    server.add_blob("app", b"{}")
    wrong = Descriptor(media_type="x/y", digest=Digest.of(b"{}"), size=2, data="W10=")
    with connect(server).open_blob("app", wrong) as stream:
        assert stream.read() == b"{}"
    assert len(server.requests) == 1


def test_a_blob_that_is_not_there_is_said_when_it_is_opened(
    server: FakeRegistry, connect: Connect
) -> None:
    with pytest.raises(ImageNotFoundError):
        connect(server).open_blob("app", blob(b"x").descriptor)


def test_exists_tells_by_size_too(server: FakeRegistry, connect: Connect) -> None:
    part = blob(b"some bytes")
    server.add_blob("app", part.data)
    registry = connect(server)
    assert registry.exists("app", part.descriptor)
    assert not registry.exists("app", blob(b"others").descriptor)
    server.blobs["app"][part.digest] = b"short"
    assert not registry.exists("app", part.descriptor)


def test_tags_of_all_pages_come_in_order(connect: Connect) -> None:
    with FakeRegistry(page=3) as server:
        for number in range(8):
            server.add_manifest("app", image().manifest.data, MANIFEST, f"v{number}")
        assert connect(server).tags("app") == tuple(f"v{n}" for n in range(8))
        assert len(server.requests) == 3


def test_tags_that_are_none_are_left_out(server: FakeRegistry, connect: Connect) -> None:
    body = json.dumps({"name": "app", "tags": ["a", None, "sha256:abc", "b", "a"]}).encode()
    server.fault("GET", instead=Answer(200, (), body))
    assert connect(server).tags("app") == ("a", "b")
    server.fault("GET", instead=Answer(200, (), b'{"tags": null}'))
    assert connect(server).tags("app") == ()


def test_pages_in_a_circle_end(server: FakeRegistry, connect: Connect) -> None:
    link = '</v2/app/tags/list?n=1000>; rel="next"'
    server.fault("GET", times=9, instead=Answer(200, (("link", link),), b'{"tags": ["a"]}'))
    assert connect(server).tags("app") == ("a",)


def test_a_next_page_elsewhere_is_refused(server: FakeRegistry, connect: Connect) -> None:
    link = "<http://127.0.0.1:1/v2/app/tags/list>; rel=next"
    server.fault("GET", instead=Answer(200, (("link", link),), b'{"tags": ["a"]}'))
    with pytest.raises(RegistryError, match="another host"):
        connect(server).tags("app")


def test_blobs_come_to_several_threads_at_once(server: FakeRegistry, connect: Connect) -> None:
    parts = [blob(noise(50_000, seed)) for seed in range(8)]
    for part in parts:
        server.add_blob("app", part.data)
    registry = connect(server)
    got: dict[str, bytes] = {}

    def pull(part: Blob) -> None:
        with registry.open_blob("app", part.descriptor) as stream:
            got[part.digest] = stream.read()

    threads = [threading.Thread(target=pull, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {part.digest: part.data for part in parts}


def test_the_observer_sees_how_far_a_blob_has_come(server: FakeRegistry, connect: Connect) -> None:
    part = blob(noise(100_000))
    server.add_blob("app", part.data)
    seen: list[Any] = []
    with connect(server, observer=seen.append).open_blob(
        "app", part.descriptor, why="RUN reads it"
    ) as stream:
        stream.read()
    last = seen[-1]
    assert isinstance(last, Transfer)
    assert (last.direction, last.name, last.done, last.total, last.why) == (
        "pull",
        part.digest,
        100_000,
        100_000,
        "RUN reads it",
    )


def test_a_sha512_digest_names_a_manifest(server: FakeRegistry, connect: Connect) -> None:
    raw = image().manifest.data
    digest = f"sha512:{hashlib.sha512(raw).hexdigest()}"
    server.manifests["app"] = {digest: (raw, MANIFEST)}
    document = connect(server).manifest(f"{server.host}/app@{digest}")
    assert str(document.descriptor.digest) == digest


def test_a_reference_to_another_registry_is_refused() -> None:
    with pytest.raises(UsageError), Registry("127.0.0.1:1") as registry:
        registry.manifest("docker.io/library/debian")


def test_plain_http_is_for_loopback_and_listed_hosts() -> None:
    origins = {
        host: str(Registry(host).session.access.origin)
        for host in ("127.0.0.1:5000", "localhost:5000", "[::1]:5000", "reg.example", "docker.io")
    }
    assert origins == {
        "127.0.0.1:5000": "http://127.0.0.1:5000",
        "localhost:5000": "http://localhost:5000",
        "[::1]:5000": "http://[::1]:5000",
        "reg.example": "https://reg.example",
        "docker.io": "https://registry-1.docker.io",
    }
    assert (
        str(Registry("reg.example", insecure=True).session.access.origin) == "http://reg.example"
    )
    with pytest.raises(UsageError):
        Registry("http://reg.example")


def test_registries_are_made_once_for_each_host() -> None:
    with Registries(insecure=("reg.example",), credentials=anonymous) as registries:
        assert registries.at("reg.example") is registries.at("reg.example")
        assert registries.at("reg.example").session.access.origin.scheme == "http"
        assert registries.at("other.example").session.access.origin.scheme == "https"
