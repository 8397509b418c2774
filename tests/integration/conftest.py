"""Fixtures that the integration tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.embedded import make_embedded_base
from tests.support.referees import Storage
from tests.support.registry_server import RegistryServer, registry_server
from tests.support.tools import need, need_root


@pytest.fixture(scope="session")
def embedded_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of the embedded base."""
    return make_embedded_base(tmp_path_factory.mktemp("embedded") / "base")


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry to which anybody may push."""
    with registry_server(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="session")
def locked_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry that asks for a name and a password."""
    folder = tmp_path_factory.mktemp("locked-registry")
    with registry_server(folder, user="builder", password="let me in") as server:
        yield server


@pytest.fixture(scope="session")
def storage() -> Iterator[Storage]:
    """Where buildah and podman keep images, each base imported once a worker."""
    need("buildah", "skopeo")
    need_root()
    with Storage.temporary() as place:
        yield place
