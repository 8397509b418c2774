"""Checkouts from a server of repositories, and what repositories must not be able to do."""

import os
import subprocess
from pathlib import Path

import pytest

from imagekit.errors import CancelledError, FetchError
from imagekit.fetch.git import Git
from imagekit.fetch.reach import Reach
from tests.support.repositories import Repository


@pytest.fixture
def git() -> Git:
    return Git(Reach())


def checkout(
    git: Git,
    url: str,
    folder: Path,
    ref: str = "",
    *,
    submodules: bool = True,
    keep_git_dir: bool = False,
) -> Path:
    folder.mkdir()
    commit = git.commit(url, ref, pinned=False)
    git.checkout(url, ref, commit, folder, submodules=submodules, keep_git_dir=keep_git_dir)
    return folder / "tree"


def names(tree: Path) -> list[str]:
    return sorted(os.fspath(p.relative_to(tree)) for p in tree.rglob("*"))


def test_a_ref_is_a_branch_a_tag_a_full_name_or_the_default(
    git: Git, git_url: str, repository: Repository
) -> None:
    first = repository.commit({"a": "1"})
    repository.git("tag", "light")
    repository.git("tag", "--annotate", "--message=t", "heavy")
    repository.git("branch", "dir/dev")
    second = repository.commit({"a": "2"})
    expected = {
        "": second,
        "HEAD": second,
        "main": second,
        "refs/heads/main": second,
        "heads/main": second,
        "light": first,
        "heavy": first,
        "refs/tags/heavy": first,
        "tags/light": first,
        "dir/dev": first,
        first: first,
    }
    found = {ref: git.commit(git_url, ref, pinned=False) for ref in expected}
    assert found == expected


def test_a_branch_goes_before_a_tag_of_the_same_name(
    git: Git, git_url: str, repository: Repository
) -> None:
    repository.commit({"a": "1"})
    repository.git("tag", "both")
    repository.git("checkout", "--quiet", "-b", "both")
    second = repository.commit({"a": "2"})
    assert git.commit(git_url, "both", pinned=False) == second


@pytest.mark.parametrize(
    "ref", ["nope", "dev", "-x", "--upload-pack=id", "a..b", "a b", "*", "@{1}"]
)
def test_what_is_no_ref_of_the_repository_is_not_found(
    git: Git, git_url: str, repository: Repository, ref: str
) -> None:
    repository.commit({"a": "1"})
    repository.git("branch", "dir/dev")
    with pytest.raises(FetchError) as caught:
        git.commit(git_url, ref, pinned=False)
    assert caught.value.code == "git-ref-not-found"


@pytest.mark.parametrize(
    "url",
    ["-u", "--upload-pack=id", "/etc", "file:///etc", "ext::id", "ext://id", "fd::0", "http://"],
)
def test_what_is_no_repository_of_the_network_is_refused(git: Git, url: str) -> None:
    with pytest.raises(FetchError) as caught:
        git.commit(url, "", pinned=False)
    assert caught.value.code == "url-invalid"


def test_a_repository_that_is_not_there_is_told_in_the_words_of_git(
    git: Git, git_url: str, repository: Repository
) -> None:
    del repository
    with pytest.raises(FetchError) as caught:
        git.commit(git_url.replace("r.git", "other.git"), "", pinned=False)
    assert caught.value.code == "git"
    assert "other.git" in caught.value.message


def test_a_checkout_has_files_modes_and_links(
    git: Git, git_url: str, repository: Repository, tmp_path: Path
) -> None:
    repository.commit({"a": "1", "d/run": "#!", "l": "-> ../../etc"})
    repository.git("update-index", "--chmod=+x", "d/run")
    repository.git("commit", "--quiet", "--amend", "--no-edit")
    tree = checkout(git, git_url, tmp_path / "out")
    assert names(tree) == ["a", "d", "d/run", "l"]
    assert (tree / "d" / "run").stat().st_mode & 0o777 == 0o755
    assert (tree / "a").stat().st_mode & 0o777 == 0o644
    assert (tree / "l").readlink() == Path("../../etc")


def test_an_old_commit_is_fetched_by_its_id(
    git: Git, git_url: str, repository: Repository, tmp_path: Path
) -> None:
    first = repository.commit({"a": "1"})
    repository.commit({"a": "2"})
    tree = checkout(git, git_url, tmp_path / "out", first)
    assert (tree / "a").read_text() == "1"


def test_a_commit_that_no_branch_has_is_not_found(
    git: Git, git_url: str, repository: Repository, tmp_path: Path
) -> None:
    repository.commit({"a": "1"})
    with pytest.raises(FetchError) as caught:
        checkout(git, git_url, tmp_path / "out", "1" * 40)
    assert caught.value.code == "git-ref-not-found"


def test_the_time_of_the_commit_is_told(
    git: Git, git_url: str, repository: Repository, tmp_path: Path
) -> None:
    commit = repository.commit({"a": "1"})
    (tmp_path / "out").mkdir()
    time = git.checkout(git_url, "", commit, tmp_path / "out", submodules=True, keep_git_dir=False)
    assert time == 1_200_000_001


def test_a_kept_git_dir_works_and_names_nothing_of_this_machine(
    git: Git, git_url: str, repository: Repository, tmp_path: Path
) -> None:
    commit = repository.commit({"a": "1"})
    tree = checkout(git, git_url, tmp_path / "out", keep_git_dir=True)
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "status", "--porcelain"],
        cwd=tree,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    assert (tree / ".git" / "HEAD").read_text().strip() == commit
    held = b"".join(p.read_bytes() for p in tree.rglob("*") if p.is_file())
    assert os.fsencode(tmp_path) not in held
    assert not (tree / ".git" / "hooks").exists()


def with_submodule(repository: Repository, url: str) -> None:
    repository.commit({"a": "1"})
    commit = repository.git("rev-parse", "HEAD")
    (repository.folder / ".gitmodules").write_text(
        f'[submodule "sub"]\n\tpath = sub\n\turl = {url}\n'
    )
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},sub")
    repository.git("add", ".gitmodules")
    repository.git("commit", "--quiet", "-m", "sub")


def test_submodules_are_checked_out_unless_they_are_not_wanted(
    git: Git, git_url: str, repository: Repository, tmp_path: Path
) -> None:
    other = Repository(repository.folder.parent / "other.git")
    inner = other.commit({"inner": "1"})
    repository.commit({"a": "1"})
    (repository.folder / ".gitmodules").write_text(
        '[submodule "sub"]\n\tpath = sub\n\turl = ../other.git\n'
    )
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{inner},sub")
    repository.git("add", ".gitmodules")
    repository.git("commit", "--quiet", "-m", "sub")
    assert (checkout(git, git_url, tmp_path / "with") / "sub" / "inner").read_text() == "1"
    assert "sub/inner" not in names(checkout(git, git_url, tmp_path / "without", submodules=False))


def test_a_submodule_does_not_reach_this_machine(
    git: Git, git_url: str, repository: Repository, tmp_path: Path
) -> None:
    secret = Repository(tmp_path / "secret")
    secret.commit({"secret": "canary"})
    for number, url in enumerate((f"file://{secret.folder}", os.fspath(secret.folder))):
        with_submodule(repository, url)
        with pytest.raises(FetchError):
            checkout(git, git_url, tmp_path / f"out{number}")
        assert not list((tmp_path / f"out{number}").rglob("secret"))


@pytest.mark.parametrize("url", ["ext::touch canary", "-u./canary", "--upload-pack=touch canary"])
def test_a_submodule_runs_nothing(
    git: Git, git_url: str, repository: Repository, tmp_path: Path, url: str
) -> None:
    with_submodule(repository, url)
    with pytest.raises(FetchError):
        checkout(git, git_url, tmp_path / "out")
    assert not list(tmp_path.rglob("canary"))


def test_no_filter_hook_or_setting_of_the_user_counts(
    git: Git,
    git_url: str,
    repository: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository.commit({"a": "1", ".gitattributes": "* filter=evil"})
    home = tmp_path / "home"
    (home / "hooks").mkdir(parents=True)
    hook = home / "hooks" / "post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {home}/canary\n")
    hook.chmod(0o755)
    (home / ".gitconfig").write_text(
        f'[core]\n\thooksPath = {home}/hooks\n[filter "evil"]\n\tsmudge = touch {home}/canary\n'
        f'[url "file:///etc"]\n\tinsteadOf = {git_url}\n'
    )
    monkeypatch.setenv("HOME", os.fspath(home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.fspath(home / ".gitconfig"))
    monkeypatch.setenv("GIT_DIR", os.fspath(home))
    monkeypatch.setenv("GIT_SSH_COMMAND", f"touch {home}/canary")
    assert (checkout(git, git_url, tmp_path / "out") / "a").read_text() == "1"
    assert not (home / "canary").exists()


@pytest.mark.parametrize("named", [True, False])
def test_only_repositories_that_the_caller_named_are_reached_with_its_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, named: bool
) -> None:
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$SSH_AUTH_SOCK|$*" > {tmp_path}/seen\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/agent")
    url = "git@127.0.0.1:o/r.git"
    git = Git(Reach(), agent_for=frozenset([url] if named else []))
    with pytest.raises(FetchError):
        git.commit(url, "", pinned=False)
    agent, _, arguments = (tmp_path / "seen").read_text().partition("|")
    assert agent == ("/agent" if named else "")
    assert ("IdentityAgent=none" in arguments) is not named


def test_a_cancelled_checkout_stops(git_url: str, repository: Repository) -> None:
    repository.commit({"a": "1"})
    git = Git(Reach(), cancelled=lambda: True)
    stopped = repository.folder.parent / "slow"
    stopped.mkdir()
    program = stopped / "git"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{stopped}:{os.environ['PATH']}")
        with pytest.raises(CancelledError):
            git.commit(git_url, "", pinned=False)


def test_without_git_the_error_says_so(
    git: Git, git_url: str, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit({"a": "1"})
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(FetchError) as caught:
        git.commit(git_url, "", pinned=False)
    assert caught.value.code == "git-missing"
