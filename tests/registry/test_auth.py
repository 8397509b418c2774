"""Credentials: what is sent, to whom, and above all what is not."""

import logging
import socket
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from imagekit.errors import AuthError, RegistryError, UnreachableError
from imagekit.oci.descriptor import MANIFEST
from imagekit.registry import Credential, Registry, anonymous
from imagekit.registry.calls import Secret
from tests.registry.conftest import quick
from tests.support.images import blob, image, noise
from tests.support.registry import Answer, FakeRegistry, error
from tests.support.registry_auth import BasicGuard, TokenGuard, basic

Connect = Callable[..., Registry]
USER, PASSWORD = "tester", "s3cret-p4ssword"
ACCOUNT = Credential.of(USER, PASSWORD)


def transcript(server: FakeRegistry) -> list[tuple[str, str]]:
    """Method and path of each request, and the kind of its Authorization."""
    return [
        (f"{r.method} {r.path}", r.headers.get("authorization", "").partition(" ")[0])
        for r in server.requests
    ]


def with_manifest(server: FakeRegistry) -> FakeRegistry:
    server.add_manifest("app", image().manifest.data, MANIFEST, "latest")
    return server


def test_a_token_is_fetched_when_asked_for_and_used_again(connect: Connect) -> None:
    guard = TokenGuard()
    with FakeRegistry(guard=guard) as server:
        with_manifest(server)
        registry = connect(server, credentials=ACCOUNT)
        registry.manifest(f"{server.host}/app")
        registry.tags("app")
    assert transcript(server) == [
        ("GET /v2/app/manifests/latest", ""),
        ("GET /token", "Basic"),
        ("GET /v2/app/manifests/latest", "Bearer"),
        ("GET /v2/app/tags/list", "Bearer"),
    ]
    assert guard.asked == [("repository:app:pull",)]
    query = server.requests[1].query
    assert query["service"] == "fake"
    assert query["account"] == USER
    assert query["client_id"] == "imagekit"


def test_an_anonymous_token_is_fetched_without_credentials(connect: Connect) -> None:
    guard = TokenGuard(anonymous=frozenset({"app:pull"}), key="access_token")
    with FakeRegistry(guard=guard) as server:
        connect(with_manifest(server)).manifest(f"{server.host}/app")
    assert [kind for _, kind in transcript(server)] == ["", "", "Bearer"]
    assert "account" not in server.requests[1].query


def test_what_needs_an_account_says_how_to_log_in(connect: Connect) -> None:
    with FakeRegistry(guard=TokenGuard()) as server, pytest.raises(AuthError) as caught:
        connect(with_manifest(server)).manifest(f"{server.host}/app")
    assert f"docker login {server.host}" in caught.value.hint
    assert len(server.requests) == 3


def test_a_push_asks_for_push_and_a_mount_for_its_source_too(connect: Connect) -> None:
    guard = TokenGuard()
    part = blob(noise(100))
    with FakeRegistry(guard=guard) as server:
        server.add_blob("base", part.data)
        registry = connect(server, credentials=ACCOUNT)
        registry.upload("app", blob(b"new").descriptor, blob(b"new").open)
        assert registry.upload("app", part.descriptor, part.open, mount_from="base") == "mounted"
    assert guard.asked == [
        ("repository:app:pull,push",),
        ("repository:app:pull,push", "repository:base:pull"),
    ]


def test_a_token_that_allows_more_is_used_for_less(connect: Connect) -> None:
    guard = TokenGuard()
    part = blob(b"bytes")
    with FakeRegistry(guard=guard) as server:
        registry = connect(server, credentials=ACCOUNT)
        registry.upload("app", part.descriptor, part.open)
        registry.exists("app", part.descriptor)
    assert len(guard.asked) == 1


def test_a_token_that_expires_in_the_middle_of_an_upload_is_renewed(connect: Connect) -> None:
    guard = TokenGuard()
    part = blob(noise(200_000))
    with FakeRegistry(guard=guard) as server:

        def expire(answer: Answer) -> Answer:
            guard.expire()
            return answer

        server.fault("PATCH", after=2, change=expire)
        connect(server, credentials=ACCOUNT).upload("app", part.descriptor, part.open)
        assert server.blobs["app"][part.digest] == part.data
    assert len(guard.asked) == 2


def test_an_expired_token_is_not_sent(connect: Connect) -> None:
    guard = TokenGuard()
    now = [0.0]
    with FakeRegistry(guard=guard) as server:
        registry = connect(with_manifest(server), credentials=ACCOUNT)
        registry.session.authority._clock = lambda: now[0]
        registry.manifest(f"{server.host}/app")
        now[0] = 0.74 * 300
        registry.manifest(f"{server.host}/app")
        now[0] = 0.76 * 300
        registry.manifest(f"{server.host}/app")
    assert len(guard.asked) == 2


def test_a_token_without_a_life_lasts_a_minute(connect: Connect) -> None:
    guard = TokenGuard(life=None)
    now = [0.0]
    with FakeRegistry(guard=guard) as server:
        registry = connect(with_manifest(server), credentials=ACCOUNT)
        registry.session.authority._clock = lambda: now[0]
        registry.manifest(f"{server.host}/app")
        now[0] = 44
        registry.manifest(f"{server.host}/app")
        assert len(guard.asked) == 1
        now[0] = 46
        registry.manifest(f"{server.host}/app")
    assert len(guard.asked) == 2


def test_a_new_token_that_is_refused_too_ends_it(connect: Connect) -> None:
    guard = TokenGuard(narrow={"other:pull"})
    with FakeRegistry(guard=guard) as server, pytest.raises(AuthError):
        connect(with_manifest(server), credentials=ACCOUNT).manifest(f"{server.host}/app")
    assert len(guard.asked) == 1


def test_a_challenge_for_more_scope_is_met_once(connect: Connect) -> None:
    guard = TokenGuard()
    with FakeRegistry(guard=guard) as server:
        with_manifest(server)
        wider = f'Bearer realm="{server.url}/token",scope="repository:app:pull,metadata"'
        server.fault(
            "GET /v2",
            after=1,
            times=1,
            instead=error(401, "UNAUTHORIZED").having(
                www_authenticate=wider + ',error="insufficient_scope"'
            ),
        )
        connect(server, credentials=ACCOUNT).manifest(f"{server.host}/app")
    assert guard.asked == [("repository:app:pull",), ("repository:app:metadata,pull",)]


def test_an_identity_token_is_exchanged_and_replaced_by_its_successor(connect: Connect) -> None:
    guard = TokenGuard(identity_tokens={"first"}, rotating=True)
    credential = Credential(username=USER, identity_token=Secret("first"))
    with FakeRegistry(guard=guard) as server:
        registry = connect(with_manifest(server), credentials=credential)
        registry.manifest(f"{server.host}/app")
        guard.expire()
        registry.manifest(f"{server.host}/app")
    posts = [r.body.decode() for r in server.requests if r.method == "POST"]
    assert [("refresh_token=first" in p, "refresh_token=refresh-" in p) for p in posts] == [
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize("status", [400, 401, 404, 405])
def test_a_server_without_post_is_asked_by_get(connect: Connect, status: int) -> None:
    guard = TokenGuard(post_status=status)
    credential = Credential(
        username=USER, password=Secret(PASSWORD), identity_token=Secret("unknown")
    )
    with FakeRegistry(guard=guard) as server:
        connect(with_manifest(server), credentials=credential).manifest(f"{server.host}/app")
    assert [line for line, _ in transcript(server)][1:3] == ["POST /token", "GET /token"]


def test_a_registry_token_is_sent_as_it_is(connect: Connect) -> None:
    guard = TokenGuard(issued={"given": frozenset({"app:pull"})})
    credential = Credential(registry_token=Secret("given"))
    with FakeRegistry(guard=guard) as server:
        connect(with_manifest(server), credentials=credential).manifest(f"{server.host}/app")
    assert [kind for _, kind in transcript(server)] == ["", "Bearer"]


def test_basic_credentials_go_out_when_asked_for_and_then_at_once(connect: Connect) -> None:
    with FakeRegistry(guard=BasicGuard(USER, PASSWORD)) as server:
        registry = connect(with_manifest(server), credentials=ACCOUNT)
        registry.manifest(f"{server.host}/app")
        registry.tags("app")
    assert [kind for _, kind in transcript(server)] == ["", "Basic", "Basic"]


def test_wrong_basic_credentials_are_tried_once(connect: Connect) -> None:
    with FakeRegistry(guard=BasicGuard(USER, PASSWORD)) as server, pytest.raises(AuthError):
        connect(with_manifest(server), credentials=Credential.of(USER, "wrong")).tags("app")
    assert len(server.requests) == 2


def test_a_wrong_password_at_the_token_server_says_so(connect: Connect) -> None:
    with FakeRegistry(guard=TokenGuard()) as server:
        registry = connect(with_manifest(server), credentials=Credential.of(USER, "no"))
        with pytest.raises(AuthError, match="token for") as caught:
            registry.tags("app")
    assert "docker login" in caught.value.hint


def test_of_several_challenges_the_one_that_can_be_met_is(connect: Connect) -> None:
    guard = TokenGuard(challenge_prefix='Negotiate abc==, Basic realm="x, y", ')
    with FakeRegistry(guard=guard) as server:
        connect(with_manifest(server), credentials=ACCOUNT).manifest(f"{server.host}/app")
    assert transcript(server)[1] == ("GET /token", "Basic")


def test_credentials_never_follow_a_redirect_to_another_origin(connect: Connect) -> None:
    part = blob(noise(100_000))
    with FakeRegistry() as storage, FakeRegistry(guard=TokenGuard()) as server:
        storage.files["/signed"] = Answer(200, (), part.data)
        server.add_blob("app", part.data)
        target = f"{storage.url}/signed?X-Amz-Signature=c4nary"
        moved = Answer(307, (("location", target), ("set-cookie", "session=1")))
        server.fault("GET /v2/app/blobs", after=1, instead=moved)
        with connect(server, credentials=ACCOUNT).open_blob("app", part.descriptor) as stream:
            assert stream.read() == part.data
    assert transcript(server) == [
        (f"GET /v2/app/blobs/{part.digest}", ""),
        ("GET /token", "Basic"),
        (f"GET /v2/app/blobs/{part.digest}", "Bearer"),
    ]
    assert transcript(storage) == [("GET /signed", "")]
    assert "cookie" not in storage.requests[0].headers


def test_a_challenge_after_a_redirect_is_not_answered(connect: Connect) -> None:
    with FakeRegistry(guard=BasicGuard(USER, PASSWORD)) as storage, FakeRegistry() as server:
        moved = Answer(307, (("location", f"{storage.url}/v2/app/manifests/latest"),))
        server.fault("GET", instead=moved)
        with pytest.raises(AuthError):
            connect(server, credentials=ACCOUNT).manifest(f"{server.host}/app")
    assert transcript(storage) == [("GET /v2/app/manifests/latest", "")]


def test_an_upload_that_goes_to_another_origin_goes_without_credentials(
    connect: Connect,
) -> None:
    part = blob(b"some bytes")
    with FakeRegistry() as storage, FakeRegistry(guard=TokenGuard()) as server:
        storage.files["/put"] = Answer(201, (("docker-content-digest", part.digest),))
        away = Answer(202, (("location", f"{storage.url}/put?key=1"),))
        server.fault("POST /v2", after=1, instead=away)
        connect(server, credentials=ACCOUNT).upload("app", part.descriptor, part.open)
    assert storage.lines == [f"PUT /put?key=1&digest={part.digest}"]
    assert transcript(storage) == [("PUT /put", "")]


def test_a_token_server_on_another_port_of_this_machine_is_not_asked(connect: Connect) -> None:
    guard = TokenGuard()
    with FakeRegistry(guard=guard) as tokens, FakeRegistry(guard=guard) as server:
        guard.realm = f"{tokens.url}/token"
        registry = connect(with_manifest(server), credentials=ACCOUNT)
        with pytest.raises(AuthError) as caught:
            registry.tags("app")
    assert caught.value.code == "realm-refused"
    assert not tokens.requests


def test_a_token_server_that_the_user_trusts_is_asked(
    connect: Connect, waits: list[float]
) -> None:
    guard = TokenGuard()
    with FakeRegistry(guard=guard) as tokens:
        guard.realm = f"{tokens.url}/token"
        with FakeRegistry(guard=guard) as server:
            settings = quick(waits, trusted_realms=frozenset({tokens.host}))
            registry = connect(with_manifest(server), credentials=ACCOUNT, settings=settings)
            registry.tags("app")
    assert transcript(tokens) == [("GET /token", "Basic")]


def test_a_token_server_that_redirects_is_not_followed(connect: Connect) -> None:
    with FakeRegistry() as other, FakeRegistry(guard=TokenGuard()) as server:
        server.fault("GET /token", instead=Answer(302, (("location", f"{other.url}/token"),)))
        with pytest.raises(AuthError):
            connect(with_manifest(server), credentials=ACCOUNT).tags("app")
    assert not other.requests


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"token": ""}', b'{"token": 7}', b'{"token": "a\\r\\nb: c"}', b"<html>"],
)
def test_what_is_no_token_is_an_error(connect: Connect, body: bytes) -> None:
    with FakeRegistry(guard=TokenGuard()) as server:
        server.fault("GET /token", instead=Answer(200, (), body))
        with pytest.raises(AuthError, match="without one"):
            connect(with_manifest(server), credentials=ACCOUNT).tags("app")


def test_a_token_server_in_trouble_is_asked_again(connect: Connect, waits: list[float]) -> None:
    with FakeRegistry(guard=TokenGuard()) as server:
        server.fault("GET /token", instead=error(503, "UNAVAILABLE"))
        connect(with_manifest(server), credentials=ACCOUNT).tags("app")
    assert waits == [0.25]


def test_an_endless_token_is_refused(connect: Connect) -> None:
    with FakeRegistry(guard=TokenGuard()) as server:
        server.fault("GET /token", instead=Answer(200, (), b" " * (2 << 20)))
        with pytest.raises(RegistryError) as caught:
            connect(with_manifest(server), credentials=ACCOUNT).tags("app")
    assert caught.value.code == "too-large"


def test_nobody_is_asked_for_credentials_that_are_not_wanted(
    server: FakeRegistry, connect: Connect
) -> None:
    def unexpected(host: str, repository: str) -> Credential | None:
        raise AssertionError(f"asked for {host}/{repository}")

    connect(with_manifest(server), credentials=unexpected).tags("app")


def test_secrets_show_up_in_no_log_message_or_traceback(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    guard = TokenGuard(identity_tokens={"r3fresh-canary"})
    credential = Credential(
        username=USER, password=Secret(PASSWORD), identity_token=Secret("r3fresh-canary")
    )
    part = blob(noise(50_000))
    with FakeRegistry() as storage, FakeRegistry(guard=guard) as server:
        server.add_blob("app", part.data)
        signed = f"{storage.url}/gone?X-Amz-Signature=s1gned-canary"
        moved = Answer(307, (("location", signed),))
        server.fault("GET /v2/app/blobs", after=1, times=9, instead=moved)
        storage.fault("GET", times=9, cut=0)
        registry = connect(server, credentials=credential)
        with pytest.raises(RegistryError) as caught:
            registry.open_blob("app", part.descriptor).read()
    shown = "\n".join(
        (
            *library_locals(caught.value),
            *(record.getMessage() for record in caplog.records),
            str(caught.value),
            repr(credential),
            repr(registry.session.authority.__dict__),
        )
    )
    assert "Bearer" not in shown
    for canary in (PASSWORD, basic(USER, PASSWORD), "r3fresh-canary", "tok3n-", "s1gned-canary"):
        assert canary not in shown


def library_locals(error: BaseException | None) -> Iterator[str]:
    """What a traceback with locals shows of the frames that are not the test's own."""
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if "/tests/" not in frame.f_code.co_filename:
                yield from (f"{name} = {value!r}" for name, value in frame.f_locals.items())
        error = error.__cause__ or error.__context__


def test_anonymous_is_nobody() -> None:
    assert anonymous("h", "r") is None


def test_a_public_name_for_an_inner_address_is_not_asked(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = TokenGuard()
    real = socket.getaddrinfo

    def pretend(host: str, *rest: Any, **options: Any) -> Any:
        return real("127.0.0.1" if host == "auth.example" else host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", pretend)
    with FakeRegistry(guard=guard) as tokens, FakeRegistry(guard=guard) as server:
        guard.realm = f"https://auth.example:{tokens.port}/token"
        registry = connect(with_manifest(server))
        with pytest.raises(UnreachableError) as caught:
            registry.tags("app")
    assert caught.value.code == "address-refused"
    assert not tokens.requests


def test_stored_credentials_do_not_go_to_another_domain(connect: Connect) -> None:
    guard = TokenGuard(realm="https://auth.example/token")
    with FakeRegistry(guard=guard) as server:
        registry = connect(with_manifest(server), credentials=ACCOUNT)
        with pytest.raises(AuthError, match="another domain") as caught:
            registry.tags("app")
    assert caught.value.code == "realm-refused"
