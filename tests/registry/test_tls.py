"""TLS: checked against the given authority, never left for plain HTTP."""

from collections.abc import Callable
from pathlib import Path

import pytest

from imagekit.errors import RegistryError, UnreachableError, UsageError
from imagekit.oci.descriptor import MANIFEST
from imagekit.registry import Registry
from tests.support.images import image
from tests.support.registry import Answer, FakeRegistry
from tests.support.registry_auth import make_tls

Connect = Callable[..., Registry]


def test_a_given_authority_is_trusted(tmp_path: Path, connect: Connect) -> None:
    context, ca = make_tls(tmp_path)
    with FakeRegistry(tls=context) as server:
        server.add_manifest("app", image().manifest.data, MANIFEST, "latest")
        registry = connect(server, ca=ca)
        assert registry.manifest(f"{server.host}/app").raw == image().manifest.data


def test_an_unknown_authority_is_refused_at_once(
    tmp_path: Path, connect: Connect, waits: list[float]
) -> None:
    context, _ = make_tls(tmp_path)
    with FakeRegistry(tls=context) as server:
        registry = connect(server)
        with pytest.raises(UnreachableError, match="certificate refused") as caught:
            registry.tags("app")
    assert caught.value.code == "tls"
    assert not waits
    assert not server.requests


def test_plain_http_where_tls_is_meant_is_not_fallen_back_to(
    server: FakeRegistry,
) -> None:
    registry = Registry(f"https://{server.host}")
    with registry, pytest.raises(UnreachableError) as caught:
        registry.tags("app")
    assert caught.value.code == "tls"
    assert not server.requests


def test_a_redirect_from_tls_to_plain_http_is_refused(
    tmp_path: Path, server: FakeRegistry, connect: Connect
) -> None:
    context, ca = make_tls(tmp_path)
    with FakeRegistry(tls=context) as secure:
        secure.fault("GET", instead=Answer(307, (("location", f"{server.url}/v2/x"),)))
        registry = connect(secure, ca=ca)
        with pytest.raises(RegistryError, match="from TLS to plain HTTP"):
            registry.tags("app")
    assert not server.requests


def test_a_file_without_certificates_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with (
        pytest.raises(UsageError, match=r"ca\.pem"),
        Registry("https://127.0.0.1:1", ca=tmp_path / "ca.pem") as registry,
    ):
        registry.tags("app")
