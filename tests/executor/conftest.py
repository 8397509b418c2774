"""Projects to build, with and without the embedded base."""

from pathlib import Path

import pytest

from tests.support.building import Project
from tests.support.embedded import make_embedded_base


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
