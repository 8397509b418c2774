"""Pushing: blobs whole, in chunks and mounted, and manifests; on a good day and on bad ones."""

import io
from collections.abc import Callable
from typing import BinaryIO

import pytest

from imagekit.errors import AuthError, DigestMismatchError, RegistryError, UnreachableError
from imagekit.oci.descriptor import MANIFEST
from imagekit.registry import Registry
from tests.support.images import Blob, blob, image, noise
from tests.support.registry import Answer, FakeRegistry, error

Connect = Callable[..., Registry]
SMALL, LARGE = noise(10_000), noise(150_000)


def methods(server: FakeRegistry) -> list[str]:
    return [request.method for request in server.requests]


def push(registry: Registry, part: Blob, **options: str) -> str:
    return registry.upload("app", part.descriptor, part.open, **options)


def test_a_small_blob_goes_in_one_piece(server: FakeRegistry, connect: Connect) -> None:
    part = blob(SMALL)
    assert push(connect(server), part) == "uploaded"
    assert methods(server) == ["POST", "PUT"]
    assert server.blobs["app"] == {part.digest: SMALL}


def test_an_empty_blob_can_be_stored(server: FakeRegistry, connect: Connect) -> None:
    push(connect(server), blob(b""))
    assert list(server.blobs["app"].values()) == [b""]


def test_a_large_blob_goes_in_chunks(server: FakeRegistry, connect: Connect) -> None:
    part = blob(LARGE)
    push(connect(server), part)
    assert methods(server) == ["POST", *["PATCH"] * 5, "PUT"]
    ranges = [r.headers.get("content-range") for r in server.requests[1:3]]
    assert ranges == ["0-32767", "32768-65535"]
    assert server.blobs["app"] == {part.digest: LARGE}


def test_chunks_are_as_large_as_the_registry_wants(connect: Connect) -> None:
    with FakeRegistry(chunk_minimum=100_000) as server:
        push(connect(server), blob(LARGE))
        assert methods(server) == ["POST", "PATCH", "PATCH", "PUT"]


def test_a_sha512_blob_is_announced_as_such(server: FakeRegistry, connect: Connect) -> None:
    part = blob(SMALL, algorithm="sha512")
    push(connect(server), part)
    assert server.lines[0] == "POST /v2/app/blobs/uploads/?digest-algorithm=sha512"
    assert part.digest in server.blobs["app"]


def test_a_chunk_that_is_lost_is_sent_again_from_where_the_registry_is(
    server: FakeRegistry, connect: Connect
) -> None:
    part = blob(LARGE)
    server.fault("PATCH", after=2, cut_request=100)
    server.fault("PATCH", after=2, cut=-1)
    push(connect(server), part)
    assert server.blobs["app"] == {part.digest: LARGE}
    assert methods(server).count("GET") == 2
    assert methods(server).count("POST") == 1


def test_a_session_that_is_lost_begins_anew(server: FakeRegistry, connect: Connect) -> None:
    part = blob(LARGE)
    server.fault("PATCH", after=1, instead=error(404, "BLOB_UPLOAD_UNKNOWN"))
    push(connect(server), part)
    assert methods(server).count("POST") == 2
    assert server.blobs["app"] == {part.digest: LARGE}


def test_a_registry_that_refuses_chunks_gets_the_whole(
    server: FakeRegistry, connect: Connect
) -> None:
    part = blob(LARGE)
    server.fault("PATCH", times=99, instead=error(416, "RANGE_INVALID"))
    push(connect(server), part)
    assert methods(server) == ["POST", "PATCH", "POST", "PUT"]
    assert server.blobs["app"] == {part.digest: LARGE}


def test_a_registry_that_refuses_the_whole_gets_small_chunks(
    server: FakeRegistry, connect: Connect
) -> None:
    part = blob(SMALL)
    server.fault("PUT", instead=error(413, "SIZE_INVALID"))
    push(connect(server), part)
    assert methods(server) == ["POST", "PUT", "POST", "PATCH", "PATCH", "PUT"]
    assert server.blobs["app"] == {part.digest: SMALL}


def test_too_large_in_every_way_is_an_error_with_the_size(
    server: FakeRegistry, connect: Connect
) -> None:
    server.fault("(PUT|PATCH)", times=9, instead=error(413, "SIZE_INVALID"))
    with pytest.raises(RegistryError) as caught:
        push(connect(server), blob(SMALL))
    assert caught.value.status == 413
    assert caught.value.hint


@pytest.mark.parametrize("range_", ["0-0", ""])
def test_a_range_that_says_nothing_is_not_minded(
    server: FakeRegistry, connect: Connect, range_: str
) -> None:
    server.fault("PATCH", times=99, change=lambda a: a.having(range=range_))
    push(connect(server), blob(LARGE))
    assert methods(server) == ["POST", *["PATCH"] * 5, "PUT"]


def test_a_range_that_says_less_is_gone_back_to(server: FakeRegistry, connect: Connect) -> None:
    part = blob(LARGE)

    def lose_some(answer: Answer) -> Answer:
        upload = next(iter(server.uploads.values()))
        del upload.data[40_000:]
        return answer.having(range="0-39999")

    server.fault("PATCH", after=1, change=lose_some)
    push(connect(server), part)
    ranges = [r.headers["content-range"] for r in server.requests if r.method == "PATCH"]
    assert ranges[2] == "40000-72767"
    assert server.blobs["app"] == {part.digest: LARGE}


def test_a_range_that_stands_still_is_believed_only_once(
    server: FakeRegistry, connect: Connect
) -> None:
    part = blob(LARGE)

    def forget(answer: Answer) -> Answer:
        upload = next(iter(server.uploads.values()))
        if len(upload.data) == 65_536 and methods(server).count("PATCH") == 2:
            del upload.data[32_768:]
        return answer.having(range="0-32767")

    server.fault("PATCH", times=99, change=forget)
    push(connect(server), part)
    assert methods(server) == ["POST", *["PATCH"] * 6, "PUT"]
    assert server.blobs["app"] == {part.digest: LARGE}


def test_a_range_beyond_what_was_sent_is_an_error(server: FakeRegistry, connect: Connect) -> None:
    server.fault("PATCH", change=lambda a: a.having(range="0-99999999"))
    with pytest.raises(RegistryError, match="claims"):
        push(connect(server), blob(LARGE))


def test_a_whole_upload_that_breaks_begins_anew(
    server: FakeRegistry, connect: Connect, waits: list[float]
) -> None:
    part = blob(SMALL)
    server.fault("PUT", cut_request=5_000)
    server.fault("PUT", instead=error(500, "UNKNOWN"))
    push(connect(server), part)
    assert server.blobs["app"] == {part.digest: SMALL}
    assert methods(server).count("POST") == 3
    assert waits == [0.25, 0.5]


def test_an_upload_whose_answer_is_lost_is_not_repeated(
    server: FakeRegistry, connect: Connect
) -> None:
    server.fault("PUT", cut=-1)
    push(connect(server), blob(SMALL))
    assert methods(server) == ["POST", "PUT", "HEAD"]


def test_an_upload_that_always_breaks_is_given_up(server: FakeRegistry, connect: Connect) -> None:
    server.fault("PUT", times=99, cut_request=10)
    with pytest.raises(UnreachableError):
        push(connect(server), blob(SMALL))
    assert methods(server).count("PUT") == 4


def test_an_upload_that_is_refused_is_not_repeated_and_cleared_away(
    server: FakeRegistry, connect: Connect
) -> None:
    server.fault("PUT", instead=error(403, "DENIED", "quota"))
    with pytest.raises(AuthError):
        push(connect(server), blob(SMALL))
    assert methods(server) == ["POST", "PUT", "DELETE"]
    assert not server.uploads


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(lambda data: data[:-1] + b"?", id="changed"),
        pytest.param(lambda data: data + b"more", id="longer"),
        pytest.param(lambda data: data[:-1], id="shorter"),
    ],
)
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["whole", "chunks"])
def test_a_source_of_other_bytes_stores_nothing(
    server: FakeRegistry, connect: Connect, lie: Callable[[bytes], bytes], data: bytes
) -> None:
    part = blob(data)
    with pytest.raises(DigestMismatchError, match=part.digest):
        connect(server).upload("app", part.descriptor, lambda: io.BytesIO(lie(data)))
    assert not server.blobs.get("app")


def test_what_the_registry_stored_must_be_what_was_sent(
    server: FakeRegistry, connect: Connect
) -> None:
    other = f"sha256:{'1' * 64}"
    server.fault("PUT", change=lambda a: a.having(docker_content_digest=other))
    with pytest.raises(DigestMismatchError, match=other):
        push(connect(server), blob(SMALL))


def test_a_registry_that_states_no_digest_is_asked_for_the_blob(
    server: FakeRegistry, connect: Connect
) -> None:
    server.fault("PUT", change=lambda _: Answer(201))
    push(connect(server), blob(SMALL))
    assert methods(server) == ["POST", "PUT", "HEAD"]


def test_a_mounted_blob_is_not_opened(server: FakeRegistry, connect: Connect) -> None:
    part = blob(SMALL)
    server.add_blob("base", SMALL)

    def never() -> BinaryIO:
        raise AssertionError

    registry = connect(server)
    assert registry.upload("app", part.descriptor, never, mount_from="base") == "mounted"
    assert server.lines == [f"POST /v2/app/blobs/uploads/?mount={part.digest}&from=base"]


def test_a_mount_that_becomes_a_session_is_used(server: FakeRegistry, connect: Connect) -> None:
    assert push(connect(server), blob(SMALL), mount_from="base") == "uploaded"
    assert methods(server) == ["POST", "PUT"]


def test_a_mount_that_is_refused_becomes_an_upload(server: FakeRegistry, connect: Connect) -> None:
    server.fault("POST", instead=error(400, "UNSUPPORTED"))
    assert push(connect(server), blob(SMALL), mount_from="base") == "uploaded"
    assert methods(server) == ["POST", "POST", "PUT"]


def test_a_blob_that_was_pulled_is_mounted_from_where_it_was(
    server: FakeRegistry, connect: Connect
) -> None:
    made = image()
    server.add_blob("base", made.layers[0].data)
    server.add_manifest("base", made.manifest.data, MANIFEST, "latest")
    registry = connect(server)
    registry.manifest(f"{server.host}/base")
    assert push(registry, made.layers[0]) == "mounted"


def test_a_manifest_is_stored_as_its_very_bytes(server: FakeRegistry, connect: Connect) -> None:
    made = image()
    registry = connect(server)
    for part in (made.config, *made.layers):
        push(registry, part)
    registry.put_manifest("app", "1.0", made.manifest.data, MANIFEST)
    assert server.manifests["app"]["1.0"] == (made.manifest.data, MANIFEST)


def test_a_blob_that_the_registry_does_not_see_yet_is_waited_for(
    server: FakeRegistry, connect: Connect, waits: list[float]
) -> None:
    made = image()
    registry = connect(server)
    for part in (made.config, *made.layers):
        push(registry, part)
    server.fault("PUT", instead=error(404, "MANIFEST_BLOB_UNKNOWN"))
    registry.put_manifest("app", "1.0", made.manifest.data, MANIFEST)
    assert waits == [1.0]


def test_a_manifest_that_names_a_missing_blob_is_refused(
    server: FakeRegistry, connect: Connect
) -> None:
    with pytest.raises(RegistryError) as caught:
        connect(server).put_manifest("app", "1.0", image().manifest.data, MANIFEST)
    assert caught.value.codes == ("MANIFEST_BLOB_UNKNOWN",)


def test_a_manifest_that_is_stored_as_another_is_an_error(
    server: FakeRegistry, connect: Connect
) -> None:
    lie = (("docker-content-digest", f"sha256:{'2' * 64}"),)
    server.fault("PUT", instead=Answer(201, lie))
    with pytest.raises(DigestMismatchError):
        connect(server).put_manifest("app", "1.0", image().manifest.data, MANIFEST)
