"""Contexts that are no folder: archives, standard input, URLs, repositories."""

import gzip
import io
import lzma
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import imagekit
from imagekit.errors import ContextError, DockerfileError, ImagekitError, UsageError
from tests.support.building import Built, Project
from tests.support.git_server import git_server
from tests.support.repositories import Repository
from tests.support.web import Page, Web, web_server

TEXT = "FROM scratch\nCOPY a d /x/\n"


def tar_of(files: dict[str, str | tarfile.TarInfo]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                tar.addfile(content)
                continue
            member = tarfile.TarInfo(name)
            member.size, member.uid, member.mtime = len(content.encode()), 7, 1_100_000_000
            tar.addfile(member, io.BytesIO(content.encode()))
    return out.getvalue()


def link(target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo("x")
    info.type, info.linkname = kind, target
    return info


ARCHIVE = tar_of({"Dockerfile": TEXT, "a": "1", "d/b": "2"})


def build(project: Project, context: Any, **options: Any) -> Built:
    layout = project.folder / "image"
    result = imagekit.build(context, output=f"oci:{layout}", store=project.store, **options)
    return Built(result, [], layout)


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as running:
        yield running


@pytest.mark.parametrize("squeeze", [bytes, gzip.compress, lzma.compress])
def test_an_archive_is_read_from_an_open_file(project: Project, squeeze: Any) -> None:
    built = build(project, io.BytesIO(squeeze(ARCHIVE)))
    assert (built.text("x/a"), built.text("x/b")) == ("1", "2")
    assert not list((project.store / "temp").iterdir())


def test_an_archive_is_a_file(project: Project) -> None:
    path = project.folder / "context.tar"
    path.write_bytes(ARCHIVE)
    assert build(project, path).text("x/b") == "2"
    assert build(project, os.fspath(path)).text("x/b") == "2"


def test_owners_of_an_archive_are_kept_as_those_of_a_stage(project: Project) -> None:
    (layer,) = build(project, io.BytesIO(ARCHIVE)).image.layers()
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        assert tar.getmember("x/a").uid == 7


def test_an_unchanged_archive_is_a_hit(project: Project) -> None:
    first = build(project, io.BytesIO(ARCHIVE)).result.digest
    assert build(project, io.BytesIO(gzip.compress(ARCHIVE))).result.digest == first


def test_the_dockerfile_has_any_name_in_the_archive(project: Project) -> None:
    archive = tar_of({"sub/Other": "FROM scratch\nCOPY a /b\n", "a": "1"})
    assert build(project, io.BytesIO(archive), dockerfile="sub/Other").text("b") == "1"
    with pytest.raises(DockerfileError) as caught:
        build(project, io.BytesIO(archive))
    assert caught.value.code == "dockerfile-not-found"


def test_the_dockerfile_may_come_beside_the_archive(project: Project) -> None:
    archive, text = tar_of({"a": "1"}), b"FROM scratch\nCOPY a /b\n"
    built = build(project, io.BytesIO(archive), dockerfile=io.BytesIO(text))
    assert built.text("b") == "1"


def test_an_ignore_file_of_an_archive_is_a_file_like_any_other(project: Project) -> None:
    archive = tar_of({"Dockerfile": "FROM scratch\nCOPY a /b\n", "a": "1", ".dockerignore": "*"})
    assert build(project, io.BytesIO(archive)).text("b") == "1"


def test_what_is_no_archive_is_a_dockerfile_without_a_context(project: Project) -> None:
    built = build(project, io.BytesIO(b"FROM scratch\nCOPY <<E /f\nhere\nE\n"))
    assert built.text("f") == "here\n"
    with pytest.raises(DockerfileError) as caught:
        build(project, io.BytesIO(b"FROM scratch\nCOPY a /f\n"))
    assert caught.value.code == "source-not-found"


def test_a_dockerfile_from_a_stream_has_a_limit(project: Project) -> None:
    with pytest.raises(DockerfileError):
        build(project, io.BytesIO(b"#" * ((1 << 20) + 1)))


def test_one_stream_is_not_both(project: Project) -> None:
    stream = io.BytesIO(ARCHIVE)
    with pytest.raises(UsageError):
        build(project, stream, dockerfile=stream)
    with pytest.raises(UsageError):
        build(project, io.BytesIO(b"FROM scratch\n"), dockerfile="Other")


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(b"no archive"),
        gzip.compress(ARCHIVE)[:-50],
        ARCHIVE[:700],
        ARCHIVE[:512] + b"\xff" * 1024,
    ],
    ids=["no-tar", "cut-gzip", "cut-tar", "bad-header"],
)
def test_a_damaged_archive_is_a_typed_error(project: Project, data: bytes) -> None:
    with pytest.raises(ImagekitError):
        build(project, io.BytesIO(data))
    assert not list((project.store / "temp").iterdir())


@pytest.mark.parametrize("source", ["out", "abs", "chain/x", "hard"])
def test_nothing_in_an_archive_reaches_out_of_it(project: Project, source: str) -> None:
    secret = project.folder / "secret"
    secret.write_text("canary")
    archive = tar_of(
        {
            "Dockerfile": f"FROM scratch\nCOPY {source} /f\n",
            "out": link(f"../../../../../../../..{secret}"),
            "abs": link(os.fspath(secret)),
            "chain": link(os.fspath(project.folder)),
        }
        | ({"hard": link(os.fspath(secret), tarfile.LNKTYPE)} if source == "hard" else {})
    )
    with pytest.raises(ImagekitError) as caught:
        build(project, io.BytesIO(archive))
    assert caught.value.code == "source-not-found"


def test_names_stop_at_the_root_of_an_archive(project: Project) -> None:
    archive = tar_of(
        {"../../Dockerfile": "FROM scratch\nCOPY . /x/\n", "/etc/f": "1", "a/../../b": "2"}
    )
    assert sorted(build(project, io.BytesIO(archive)).tree) == [
        "x",
        "x/Dockerfile",
        "x/b",
        "x/etc",
        "x/etc/f",
    ]


def test_a_named_context_is_an_archive(project: Project) -> None:
    path = project.folder / "named.tar"
    path.write_bytes(tar_of({"a": "named"}))
    built = project.build(
        "FROM scratch\nCOPY --from=n a /a\n", build_contexts={"n": os.fspath(path)}
    )
    assert built.text("a") == "named"


def test_a_file_that_is_no_archive_is_no_context(project: Project) -> None:
    path = project.folder / "plain"
    path.write_text("FROM scratch\n")
    with pytest.raises(ContextError):
        build(project, path)


# URLs.


def test_an_archive_is_downloaded(project: Project, web: Web) -> None:
    web.pages["/c.tar.gz"] = Page(body=gzip.compress(ARCHIVE), headers={"ETag": '"1"'})
    assert build(project, f"{web.url}/c.tar.gz").text("x/b") == "2"


def test_a_download_that_is_no_archive_is_the_dockerfile(project: Project, web: Web) -> None:
    web.pages["/Dockerfile"] = Page(body=b"FROM scratch\nCOPY context /f\n")
    assert build(project, f"{web.url}/Dockerfile").text("f").startswith("FROM")


def test_a_context_that_is_not_there_is_a_typed_error(project: Project, web: Web) -> None:
    with pytest.raises(ImagekitError) as caught:
        build(project, f"{web.url}/nope.tar")
    assert caught.value.code == "http-status"


def test_a_repository_is_a_context(project: Project, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "served" / "r.git")
    repository.commit({"sub/Dockerfile": TEXT, "sub/a": "1", "sub/d/b": "2"})
    with git_server(repository.folder.parent) as url:
        built = build(project, f"{url}/r.git#main:sub")
        assert (built.text("x/a"), built.text("x/b")) == ("1", "2")
        again = build(project, f"{url}/r.git#main:sub")
        assert again.result.digest == built.result.digest


def test_the_git_dir_is_part_of_the_context_if_asked(project: Project, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "served" / "r.git")
    commit = repository.commit({"Dockerfile": "FROM scratch\nCOPY .git/HEAD /f\n"})
    with git_server(repository.folder.parent) as url:
        built = build(
            project,
            f"{url}/r.git",
            build_args={"BUILDKIT_CONTEXT_KEEP_GIT_DIR": "1"},
        )
    assert built.text("f").strip() == commit


# The command line.


@pytest.mark.parametrize("data", [ARCHIVE, b"FROM scratch\nCOPY <<E /x/b\n2\nE\n"])
def test_a_dash_is_standard_input(project: Project, data: bytes) -> None:
    layout = project.folder / "image"
    command = [sys.executable, "-m", "imagekit", "build", "--store", project.store]
    done = subprocess.run(
        [*command, "--quiet", "-o", f"oci:{layout}", "-"],
        input=data,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert Built(None, [], layout).text("x/b").strip() == "2"  # type: ignore[arg-type]


def test_a_dash_twice_is_a_mistake(project: Project) -> None:
    command = [sys.executable, "-m", "imagekit", "build", "--store", project.store]
    done = subprocess.run(
        [*command, "-f", "-", "-"], input=ARCHIVE, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert b"standard input" in done.stderr
