"""ADD from URLs and repositories: what the layer has, and when it is made again."""

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagekit.errors import DockerfileError
from imagekit.events import Transfer
from tests.support.building import Built, Project
from tests.support.git_server import git_server
from tests.support.repositories import Repository
from tests.support.web import Page, Web, versioned, web_server


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as running:
        yield running


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "served" / "r.git")


@pytest.fixture
def git_url(repository: Repository) -> Iterator[str]:
    with git_server(repository.folder.parent) as url:
        yield f"{url}/r.git"


def tar_of(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content.encode()))
    return out.getvalue()


def pulled(built: Built) -> list[str]:
    """What a build fetched."""
    return [event.name for event in built.having(Transfer) if event.direction == "pull"]


# Files.


def test_an_unchanged_file_is_a_hit_and_is_not_sent_again(project: Project, web: Web) -> None:
    web.pages["/f"] = versioned(b"one", '"1"')
    text = f"FROM scratch\nADD {web.url}/f /f\n"
    first = project.build(text)
    again = project.build(text)
    assert first.ran == [f"ADD {web.url}/f /f"]
    assert (again.ran, again.result.digest) == ([], first.result.digest)
    assert (pulled(first), pulled(again)) == ([f"{web.url}/f"], [])
    assert web.asked("if-none-match") == ['"1"']


def test_a_changed_file_is_a_miss(project: Project, web: Web) -> None:
    text = f"FROM scratch\nADD {web.url}/f /f\n"
    web.pages["/f"] = versioned(b"one", '"1"')
    project.build(text)
    web.pages["/f"] = versioned(b"two", '"2"')
    again = project.build(text)
    assert again.ran == [f"ADD {web.url}/f /f"]
    assert again.text("f") == "two"


def test_only_content_counts_where_the_server_gives_no_version(project: Project, web: Web) -> None:
    web.pages["/f"] = Page(body=b"one")
    text = f"FROM scratch\nADD {web.url}/f /f\n"
    project.build(text)
    assert project.build(text).ran == []
    assert len(web.requests) == 2


def test_the_time_alone_is_no_change(project: Project, web: Web) -> None:
    text = f"FROM scratch\nADD {web.url}/f /f\n"
    for date in ("Wed, 21 Oct 2015 07:28:00 GMT", "Thu, 22 Oct 2015 07:28:00 GMT"):
        web.pages["/f"] = Page(body=b"one", headers={"Last-Modified": date})
        built = project.build(text)
    assert built.ran == []


def test_what_a_checksum_pins_is_not_asked_for_again(project: Project, web: Web) -> None:
    web.pages["/f"] = Page(body=b"one")
    digest = hashlib.sha256(b"one").hexdigest()
    text = f"FROM scratch\nADD --checksum=sha256:{digest} {web.url}/f /f\n"
    project.build(text)
    project.build(text)
    assert len(web.requests) == 1


def test_another_body_than_the_checksum_says_fails_at_its_line(project: Project, web: Web) -> None:
    web.pages["/f"] = Page(body=b"one")
    with pytest.raises(DockerfileError) as caught:
        project.build(f"FROM scratch\nADD --checksum=sha256:{'0' * 64} {web.url}/f /f\n")
    assert caught.value.code == "checksum-mismatch"
    assert caught.value.span is not None
    assert caught.value.span.line == 2


def test_a_checksum_is_checked_of_what_is_here_already(project: Project, web: Web) -> None:
    web.pages["/f"] = versioned(b"one", '"1"')
    project.build(f"FROM scratch\nADD {web.url}/f /f\n")
    with pytest.raises(DockerfileError) as caught:
        project.build(f"FROM scratch\nADD --checksum=sha256:{'0' * 64} {web.url}/f /f\n")
    assert caught.value.code == "checksum-mismatch"


def test_a_host_without_tls_has_to_be_listed(project: Project) -> None:
    with pytest.raises(DockerfileError) as caught:
        project.build("FROM scratch\nADD http://h.invalid/f /f\n")
    assert caught.value.code == "insecure-url"
    assert "--insecure-source" in caught.value.hint
    with pytest.raises(DockerfileError) as caught:
        project.build("FROM scratch\nADD http://h.invalid/f /f\n", insecure_sources=["h.invalid"])
    assert caught.value.code == "unknown-host"


def test_a_name_that_is_no_name_is_refused(project: Project, web: Web) -> None:
    web.pages["/a%00b"] = Page(body=b"one")
    with pytest.raises(DockerfileError) as caught:
        project.build(f"FROM scratch\nADD {web.url}/a%00b /x/\n")
    assert caught.value.code == "url-invalid"


def test_two_stages_that_read_one_url_fetch_it_once(project: Project, web: Web) -> None:
    web.pages["/f"] = Page(body=b"one")
    project.build(
        f"FROM scratch AS a\nADD {web.url}/f /a\n"
        f"FROM scratch\nADD {web.url}/f /b\nCOPY --from=a /a /a\n"
    )
    assert len(web.requests) == 1


# Repositories.


def test_a_repository_is_added_with_its_files_and_without_git(
    project: Project, git_url: str, repository: Repository
) -> None:
    repository.commit({"a": "1", "d/b": "2"})
    built = project.build(f"FROM scratch\nADD {git_url} /src\n")
    assert sorted(built.tree) == ["src", "src/a", "src/d", "src/d/b"]


def test_an_unchanged_commit_is_a_hit_without_a_checkout(
    project: Project, git_url: str, repository: Repository
) -> None:
    repository.commit({"a": "1"})
    text = f"FROM scratch\nADD {git_url}#main /src\n"
    first, again = project.build(text), project.build(text)
    assert len(pulled(first)) == 1
    assert (again.ran, pulled(again)) == ([], [])
    repository.commit({"a": "2"})
    changed = project.build(text)
    assert changed.text("src/a") == "2"


def test_a_commit_with_the_same_files_is_a_hit(
    project: Project, git_url: str, repository: Repository
) -> None:
    repository.commit({"a": "1"})
    text = f"FROM scratch\nADD {git_url} /src\n"
    project.build(text)
    repository.commit({})
    assert project.build(text).ran == []


def test_a_folder_of_a_repository_is_found_inside_it(
    project: Project, git_url: str, repository: Repository
) -> None:
    repository.commit({"d/b": "2", "l": "-> d", "up": "-> ../../../../../d"})
    for folder in ("d", "l", "up", "../d", "/d/"):
        built = project.build(f"FROM scratch\nADD {git_url}#main:{folder} /src\n")
        assert sorted(built.tree) == ["src", "src/b"], folder


@pytest.mark.parametrize("target", ["/etc", "../../../../../../etc", "a"])
def test_a_folder_that_is_a_link_out_of_the_repository_is_not_there(
    project: Project, git_url: str, repository: Repository, target: str
) -> None:
    repository.commit({"a": "1", "l": f"-> {target}"})
    with pytest.raises(DockerfileError) as caught:
        project.build(f"FROM scratch\nADD {git_url}#main:l /src\n")
    assert caught.value.code == "source-not-found"


@pytest.mark.parametrize("length", [7, 40])
def test_a_checksum_is_the_commit_whole_or_in_part(
    project: Project, git_url: str, repository: Repository, length: int
) -> None:
    commit = repository.commit({"a": "1"})
    project.build(f"FROM scratch\nADD --checksum={commit[:length]} {git_url}#main /src\n")
    repository.commit({"a": "2"})
    with pytest.raises(DockerfileError) as caught:
        project.build(f"FROM scratch\nADD --checksum={commit[:length]} {git_url}#main /src\n")
    assert caught.value.code == "checksum-mismatch"


def test_files_have_the_time_of_the_commit_if_asked(
    project: Project, git_url: str, repository: Repository
) -> None:
    repository.commit({"a": "1"})
    built = project.build(f"FROM scratch\nADD {git_url}?mtime=commit /src/\n")
    (layer,) = built.image.layers()
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        assert tar.getmember("src/a").mtime == 1_200_000_001


def test_the_git_dir_is_kept_if_asked(
    project: Project, git_url: str, repository: Repository
) -> None:
    commit = repository.commit({"a": "1"})
    built = project.build(f"FROM scratch\nADD --keep-git-dir {git_url} /src\n")
    assert built.text("src/.git/HEAD").strip() == commit
    for layer in built.image.layers():
        assert os.fsencode(project.folder) not in layer


# Named contexts.


def test_a_named_context_is_a_repository(
    project: Project, git_url: str, repository: Repository
) -> None:
    repository.commit({"d/b": "2"})
    contexts = {"src": f"{git_url}#main:d"}
    copied = project.build("FROM scratch\nCOPY --from=src / /x/\n", build_contexts=contexts)
    assert copied.text("x/b") == "2"
    based = project.build("FROM src\nCOPY --from=src b /c\n", build_contexts=contexts)
    assert (based.text("b"), based.text("c")) == ("2", "2")


def test_a_named_context_is_an_archive_to_download(project: Project, web: Web) -> None:
    web.pages["/c.tar.gz"] = Page(body=tar_of({"a": "1", "../b": "2"}))
    built = project.build(
        "FROM scratch\nCOPY --from=src / /x/\n",
        build_contexts={"src": f"{web.url}/c.tar.gz"},
    )
    assert sorted(built.tree) == ["x", "x/a", "x/b"]


def test_a_named_context_that_is_no_archive_is_a_file(project: Project, web: Web) -> None:
    web.pages["/f"] = Page(body=b"one")
    built = project.build(
        "FROM scratch\nCOPY --from=src /context /f\n", build_contexts={"src": f"{web.url}/f"}
    )
    assert built.text("f") == "one"
