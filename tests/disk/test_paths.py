"""Opening beneath a root, by the kernel and by the walk: one corpus, the same answers."""

import errno
import os
import re
from pathlib import Path

import pytest

from imagekit.disk.paths import (
    FOLDER,
    Folders,
    Open,
    open_root,
    openat2,
    remove_tree,
    walk_beneath,
)
from imagekit.errors import PathError
from tests.support.tools import need_root, run

BOTH = pytest.mark.parametrize("open_in_root", [openat2, walk_beneath])

FOUND = {
    "file": "file",
    "/file": "file",
    "./d//sub/../sub/./file": "d/sub/file",
    "../../file": "file",
    "d/../../../file": "file",
    "to-file": "file",
    "absolute": "file",
    "d/up": "file",
    "d/far-up": "file",
    "to-d/sub/file": "d/sub/file",
    "chain/sub/file": "d/sub/file",
    "d/sub/abs-d/sub/file": "d/sub/file",
}
MISSING = {
    "nothing": errno.ENOENT,
    "dangling": errno.ENOENT,
    "outside": errno.ENOENT,
    "file/x": errno.ENOTDIR,
    "to-file/x": errno.ENOTDIR,
    "loop": errno.ELOOP,
    "loop/x": errno.ELOOP,
    "chain41": errno.ELOOP,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    top = tmp_path / "root"
    (top / "d/sub").mkdir(parents=True)
    (tmp_path / "secret").write_text("outside")
    for name in ("file", "d/sub/file"):
        (top / name).write_text(name)
    links = {
        "to-file": "file",
        "absolute": "/file",
        "d/up": "../file",
        "d/far-up": "../../../../../../file",
        "to-d": "d",
        "chain": "to-d",
        "d/sub/abs-d": "/d",
        "dangling": "nowhere",
        "outside": str(tmp_path / "secret"),
        "loop": "loop2",
        "loop2": "loop",
        **{f"chain{n}": f"chain{n - 1}" for n in range(2, 42)},
        "chain1": "file",
    }
    for name, target in links.items():
        (top / name).symlink_to(target)
    return top


@BOTH
@pytest.mark.parametrize("path", FOUND)
def test_paths_lead_to_what_they_name(root: Path, path: str, open_in_root: Open) -> None:
    top = open_root(root)
    fd = open_in_root(top, path, os.O_RDONLY)
    assert os.read(fd, 100).decode() == FOUND[path]
    os.close(fd)
    os.close(top)


@BOTH
@pytest.mark.parametrize("path", MISSING)
def test_paths_that_lead_nowhere_say_why(root: Path, path: str, open_in_root: Open) -> None:
    top = open_root(root)
    with pytest.raises(OSError, match=re.escape(os.strerror(MISSING[path]))):
        open_in_root(top, path, os.O_RDONLY)
    os.close(top)


@BOTH
def test_forty_links_are_followed(root: Path, open_in_root: Open) -> None:
    top = open_root(root)
    os.close(open_in_root(top, "chain40", os.O_RDONLY))
    os.close(top)


@BOTH
def test_a_last_link_can_be_refused(root: Path, open_in_root: Open) -> None:
    top = open_root(root)
    with pytest.raises(OSError, match=re.escape(os.strerror(errno.ELOOP))):
        open_in_root(top, "to-d/../to-file", os.O_RDONLY | os.O_NOFOLLOW)
    os.close(top)


@BOTH
def test_the_root_itself_can_be_opened(root: Path, open_in_root: Open) -> None:
    top = open_root(root)
    for path in ("", ".", "/", ".."):
        fd = open_in_root(top, path, FOLDER)
        assert os.path.sameopenfile(fd, top)
        os.close(fd)
    os.close(top)


@BOTH
def test_missing_folders_are_made_inside(root: Path, open_in_root: Open) -> None:
    top = open_root(root)
    with Folders(top, open_in_root=open_in_root) as folders:
        for path in ("a/b/c", "dangling/x", "d/far-new/y"):
            folders.fd(path)
        made = folders.made
    os.close(top)
    assert {"a", "a/b", "a/b/c", "nowhere", "d/far-new"} <= made
    assert (root / "nowhere/x").is_dir()


@BOTH
def test_too_deep_is_refused(root: Path, open_in_root: Open) -> None:
    top = open_root(root)
    with Folders(top, open_in_root=open_in_root) as folders, pytest.raises(PathError):
        folders.fd("/".join("x" * 514))
    os.close(top)


def test_many_folders_keep_few_descriptors(root: Path) -> None:
    top = open_root(root)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with Folders(top) as folders:
        for n in range(300):
            folders.fd(f"many/{n}")
        assert len(list(Path("/proc/self/fd").iterdir())) < before + 80
    os.close(top)


class TestRemoveTree:
    def test_links_are_removed_not_followed(self, root: Path, tmp_path: Path) -> None:
        (root / "d/out").symlink_to(tmp_path / "secret")
        remove_tree(root)
        assert not root.exists()
        assert (tmp_path / "secret").read_text() == "outside"

    def test_what_is_not_there_is_fine(self, tmp_path: Path) -> None:
        remove_tree(tmp_path / "nothing")

    def test_folders_without_rights_go_too(self, root: Path) -> None:
        (root / "d/sub").chmod(0)
        (root / "d").chmod(0o500)
        remove_tree(root)
        assert not root.exists()

    def test_trees_may_be_deeper_than_there_are_descriptors(self, tmp_path: Path) -> None:
        top = tmp_path / "deep"
        top.mkdir()
        fd = os.open(top, FOLDER)
        for _ in range(1500):
            os.mkdir("x" * 4, dir_fd=fd)
            below = os.open("x" * 4, FOLDER, dir_fd=fd)
            os.close(fd)
            fd = below
        os.close(fd)
        remove_tree(top)
        assert not top.exists()

    def test_a_mount_is_not_entered(self, root: Path) -> None:
        need_root()
        run(["mount", "-t", "tmpfs", "none", root / "d/sub"])
        try:
            (root / "d/sub/kept").write_text("x")
            with pytest.raises(OSError, match="mounted"):
                remove_tree(root)
            assert (root / "d/sub/kept").exists()
        finally:
            run(["umount", root / "d/sub"])
