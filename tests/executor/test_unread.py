"""Contexts that nobody has digested: packed in one pass, with the result of two."""

import os
from pathlib import Path

import pytest

from imagekit.disk.context import FolderContext
from imagekit.errors import ImagekitError
from imagekit.executor import contexts
from imagekit.oci.descriptor import Descriptor
from tests.support.building import Built, Project

DOCKERFILE = "FROM scratch\nCOPY . /app/\nCOPY a /b\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(contexts, "MUCH", 1)
    made = Project(tmp_path)
    made.write({"a": b"one", "folder/b": b"two", "large": os.urandom(3 << 20), "empty": b""})
    made.write({".dockerignore": "Dockerfile"})
    return made


@pytest.fixture
def digested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were read to be digested alone."""
    seen: list[str] = []
    hash_file = FolderContext._hash

    def note(self: FolderContext, path: str) -> object:
        seen.append(path)
        return hash_file(self, path)

    monkeypatch.setattr(FolderContext, "_hash", note)
    return seen


def layers(built: Built) -> tuple[Descriptor, ...]:
    return built.result.image.manifest.value.layers


def test_files_are_read_once(project: Project, digested: list[str]) -> None:
    built = project.build(DOCKERFILE)
    assert digested == []
    assert built.text("app/folder/b") == "two"
    assert built.text("b") == "one"


def test_what_was_packed_is_known_to_the_next_build(
    project: Project, digested: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagekit.disk.context.is_racy", lambda *_: False)  # not a moment ago
    project.build(DOCKERFILE)
    again = project.build(DOCKERFILE)
    assert again.ran == []
    assert digested == []


def test_the_layers_are_those_of_two_passes(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    os.setxattr(project.context / "a", "user.colour", b"blue")
    os.link(project.context / "a", project.context / "same")
    once = project.build("FROM scratch\nCOPY . /app/\n", epoch=0)
    monkeypatch.setattr(contexts, "MUCH", 1 << 60)
    twice = project.build("FROM scratch\nCOPY . /app/\n", epoch=0, store=tmp_path / "other")
    assert once.result.digest == twice.result.digest
    assert once.tree["app/a"].inode.xattrs == (("user.colour", b"blue"),)


def test_a_key_that_turns_out_to_be_known_gives_the_layer_that_is_known(
    project: Project, tmp_path: Path
) -> None:
    first = project.build("FROM scratch\nCOPY . /app/\n")
    elsewhere = tmp_path / "elsewhere"
    project.context.rename(elsewhere)
    project.context.mkdir()
    for path in sorted(elsewhere.rglob("*")):
        target = project.context / path.relative_to(elsewhere)
        target.mkdir() if path.is_dir() else target.write_bytes(path.read_bytes())
    second = project.build("FROM scratch AS other\nCOPY . /app/\nFROM other\n")
    assert layers(second) == layers(first)


def test_files_that_the_root_may_have_already_are_compared(project: Project) -> None:
    built = project.build("FROM scratch\nCOPY a /a\nCOPY a /a\n")
    assert layers(built)[1].size < 100


def test_a_pipe_is_refused_before_anything_is_read(project: Project) -> None:
    os.mkfifo(project.context / "pipe")
    with pytest.raises(ImagekitError, match="a named pipe"):
        project.build(DOCKERFILE)
