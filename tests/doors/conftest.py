"""Projects to build, the command line in a process of its own, and a real registry."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builders import AS_NOBODY, NOBODY
from tests.support.building import Project
from tests.support.commands import Command
from tests.support.embedded import make_embedded_base
from tests.support.registry_server import RegistryServer, registry_server
from tests.support.tools import need, need_root


@pytest.fixture(scope="session")
def embedded_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of the embedded base."""
    return make_embedded_base(tmp_path_factory.mktemp("embedded") / "base")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project for builds on scratch."""
    return Project(tmp_path / "project")


@pytest.fixture
def busybox(tmp_path: Path, embedded_base: Path) -> Project:
    """A project for builds on the embedded base."""
    return Project(tmp_path / "project", embedded_base)


@pytest.fixture
def command(project: Project) -> Command:
    """The command line for `project`."""
    return Command(project)


@pytest.fixture
def nobody(embedded_base: Path) -> Iterator[Command]:
    """The command line for a project of an ordinary user, outside root's temporary files."""
    need_root()
    need("setpriv")
    with tempfile.TemporaryDirectory(prefix="imagekit-nobody-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        base = folder / "base"
        shutil.copytree(embedded_base, base)
        os.chown(folder, NOBODY, NOBODY)
        command = Command(Project(folder, base), prefix=AS_NOBODY)
        probe = command.run("--version")
        if probe.code != 0:
            pytest.skip(f"an ordinary user cannot run this Python: {probe.err[-200:]}")
        yield command


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
