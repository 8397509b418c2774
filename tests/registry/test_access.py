"""Redirects, realms and origins: which URLs are gone to."""

from collections.abc import Callable

import pytest

from imagekit.errors import AuthError, RegistryError
from imagekit.oci.descriptor import MANIFEST
from imagekit.registry import Registry
from imagekit.registry.access import Access, Origin
from imagekit.registry.calls import Call, Reply, drive, redact_url
from imagekit.registry.realm import check_realm, may_have_secrets, same_domain
from tests.support.images import blob, image
from tests.support.registry import Answer, FakeRegistry

Connect = Callable[..., Registry]
SECURE = Access.to("reg.example")
LOOPBACK = Access.to("127.0.0.1:5000")


def moved(url: str, status: int = 307) -> Answer:
    return Answer(status, (("location", url),))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_reading_follows_redirects(server: FakeRegistry, connect: Connect, status: int) -> None:
    made = image()
    server.add_manifest("real", made.manifest.data, MANIFEST, "latest")
    server.fault("GET", instead=moved("/v2/real/manifests/latest", status))
    assert connect(server).manifest(f"{server.host}/app").raw == made.manifest.data


def test_redirects_end(server: FakeRegistry, connect: Connect) -> None:
    server.fault("GET", times=99, instead=moved("/v2/app/tags/list"))
    with pytest.raises(RegistryError, match="more than 5"):
        connect(server).tags("app")
    assert len(server.requests) == 6


def test_a_blob_may_be_written_to_another_host(server: FakeRegistry, connect: Connect) -> None:
    part = blob(b"bytes")
    with FakeRegistry() as storage:
        storage.files["/put"] = Answer(201, (("docker-content-digest", part.digest),))
        server.fault("PUT", instead=moved(f"{storage.url}/put"))
        connect(server).upload("app", part.descriptor, part.open)
        assert [r.body for r in storage.requests] == [part.data]


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_what_changes_a_repository_goes_to_no_other_host(
    server: FakeRegistry, connect: Connect, method: str
) -> None:
    part = blob(b"bytes")
    with FakeRegistry() as other:
        server.fault(method, instead=moved(f"{other.url}/v2/app/"))
        registry = connect(server)
        write: dict[str, Callable[[], object]] = {
            "POST": lambda: registry.upload("app", part.descriptor, part.open),
            "PUT": lambda: registry.put_manifest("app", "latest", image().manifest.data, MANIFEST),
        }
        with pytest.raises(RegistryError, match="may not be sent"):
            write[method]()
        assert not other.requests


@pytest.mark.parametrize(
    ("access", "target", "allowed"),
    [
        (SECURE, "https://cdn.example/x", True),
        (SECURE, "/v2/other", True),
        (SECURE, "http://cdn.example/x", False),
        (SECURE, "http://127.0.0.1/x", False),
        (SECURE, "http://reg.example/x", False),
        (LOOPBACK, "http://127.0.0.1:9/x", True),
        (LOOPBACK, "https://cdn.example/x", True),
        (LOOPBACK, "http://cdn.example/x", False),
        (LOOPBACK, "http://169.254.169.254/latest", False),
        (LOOPBACK, "ftp://127.0.0.1/x", False),
        (LOOPBACK, "http://user:pw@127.0.0.1/x", False),
        (LOOPBACK, "http://127.0.0.1:99999/", False),
        (LOOPBACK, "//127.0.0.1:7/x", True),
        (Access.to("reg.example", insecure=True), "http://cdn.example/x", False),
        (Access.to("reg.example", insecure=True), "http://reg.example/x", True),
    ],
)
def test_a_redirect_never_lowers_security(access: Access, target: str, allowed: bool) -> None:  # noqa: FBT001
    asked: list[str] = []

    def send(call: Call) -> Reply:
        asked.append(call.url)
        status, headers = (200, ()) if len(asked) > 1 else (307, (("location", target),))
        return Reply(status=status, url=call.url, headers=headers)

    flow = access.redirecting(Call(method="GET", url="/v2/app/tags/list"))
    if allowed:
        assert drive(flow, send).status == 200
    else:
        with pytest.raises(RegistryError):
            drive(flow, send)
        assert len(asked) == 1


@pytest.mark.parametrize(
    ("realm", "access", "reach"),
    [
        ("https://auth.example/token", SECURE, "public"),
        ("https://reg.example/token", SECURE, "any"),
        ("https://listed.example:8443/t", SECURE, "any"),
        ("http://auth.example/token", SECURE, None),
        ("http://reg.example/token", SECURE, None),
        ("https://127.0.0.1/token", SECURE, None),
        ("https://10.0.0.1/token", SECURE, None),
        ("https://[::1]/token", SECURE, None),
        ("https://[::ffff:10.0.0.1]/token", SECURE, None),
        ("https://169.254.169.254/token", SECURE, None),
        ("https://0.0.0.0/token", SECURE, None),
        ("https://224.0.0.1/token", SECURE, None),
        ("https://localhost/token", SECURE, None),
        ("https://u:p@auth.example/token", SECURE, None),
        ("https://auth.example/token#x", SECURE, None),
        ("/token", SECURE, None),
        ("", SECURE, None),
        ("javascript:alert(1)", SECURE, None),
        ("http://127.0.0.1:5000/token", LOOPBACK, "any"),
        ("http://127.0.0.1:5001/token", LOOPBACK, None),
        ("https://auth.example/token", LOOPBACK, "public"),
    ],
)
def test_realms_are_where_token_servers_may_be(
    realm: str, access: Access, reach: str | None
) -> None:
    trusted = frozenset({"listed.example:8443"})
    if reach is not None:
        assert check_realm(realm, access, trusted) == reach
    else:
        with pytest.raises(AuthError) as caught:
            check_realm(realm, access, trusted)
        assert caught.value.code == "realm-refused"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("auth.example.com", "reg.example.com", True),
        ("example.com", "reg.example.com", True),
        ("example.com", "example.org", False),
        ("a.co.uk", "b.co.uk", False),
        ("x.a.co.uk", "y.a.co.uk", True),
        ("com", "reg.com", False),
        ("10.0.0.1", "9.0.0.1", False),
    ],
)
def test_domains_are_told_apart(one: str, other: str, same: bool) -> None:  # noqa: FBT001
    assert same_domain(one, other) is same
    assert same_domain(other, one) is same


@pytest.mark.parametrize(
    ("realm", "host", "allowed"),
    [
        ("https://auth.docker.io/token", "docker.io", True),
        ("https://auth.docker.io/token", "reg.example", True),
        ("https://evil.test/token", "reg.example", False),
        ("https://auth.reg.example/token", "reg.example", True),
        ("https://listed.test/token", "reg.example", True),
    ],
)
def test_secrets_stay_in_the_domain(realm: str, host: str, allowed: bool) -> None:  # noqa: FBT001
    access = Access.to(host)
    assert may_have_secrets(realm, access, frozenset({"listed.test"})) is allowed


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h/p?X-Amz-Signature=abc&n=3", "https://h/p?X-Amz-Signature=***&n=3"),
        ("https://user:pw@h:8/p", "https://h:8/p"),
        ("/v2/app/tags/list?n=5", "/v2/app/tags/list?n=5"),
        ("https://h/p?sig=a%26b", "https://h/p?sig=***"),
        ("https://[bad", "(malformed URL)"),
    ],
)
def test_urls_are_shown_without_their_secrets(url: str, shown: str) -> None:
    assert redact_url(url) == shown
    assert "abc" not in repr(Call(method="GET", url=url))


def test_origins_know_the_default_port() -> None:
    assert Origin.of("https://h/x") == Origin.of("https://h:443/y")
    assert Origin.of("http://h") != Origin.of("https://h")
    assert str(Origin.of("http://[::1]:5000/")) == "http://[::1]:5000"
