"""Servers of files and repositories."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.git_server import git_server
from tests.support.repositories import Repository
from tests.support.web import Web, web_server


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as running:
        yield running


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "served" / "r.git")


@pytest.fixture
def git_url(repository: Repository) -> Iterator[str]:
    """The URL of `repository`."""
    with git_server(repository.folder.parent) as url:
        yield f"{url}/r.git"
