"""Build contexts: what is in them, what they cost the second time, what changes under a build."""

import hashlib
import os
import socket
import threading
from pathlib import Path

import pytest

from imagekit.disk.context import ContextLimits, FolderContext, find_ignore
from imagekit.disk.stats import decode, encode
from imagekit.dockerfile.ignore import Matcher
from imagekit.errors import ContextError
from imagekit.layer.tree import Entry
from tests.support.tools import need_root

OLD = 1_600_000_000


class Cache:
    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.saves = 0

    def load(self, key: str) -> bytes | None:
        return self.data.get(key)

    def save(self, key: str, data: bytes) -> None:
        self.data[key] = data
        self.saves += 1


@pytest.fixture
def root(tmp_path: Path) -> Path:
    top = tmp_path / "ctx"
    (top / "src/deep").mkdir(parents=True)
    (top / "src/a.c").write_text("int a;")
    (top / "src/deep/b.c").write_text("int b;")
    (top / "run.sh").write_text("#!/bin/sh\n")
    (top / "run.sh").chmod(0o4755)
    (top / "link").symlink_to("../outside")
    (tmp_path / "outside").write_text("secret")
    os.utime(top / "run.sh", (OLD, OLD + 0.75))
    return top


def entry(context: FolderContext, path: str) -> Entry:
    found = context.scan().get(path)
    assert found is not None
    return context.digest([found])[0]


def paths(context: FolderContext) -> list[str]:
    return [path for path, _ in context.scan().walk()]


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def test_what_is_there(root: Path) -> None:
    with FolderContext(root) as context:
        assert paths(context) == ["link", "run.sh", "src", "src/a.c", "src/deep", "src/deep/b.c"]
        script = entry(context, "run.sh")
        assert (script.mode, script.uid, script.gid, script.mtime) == (0o4755, 0, 0, OLD)
        assert script.digest == sha(b"#!/bin/sh\n")
        link = context.scan().get("link")
        assert link is not None
        assert (link.kind, link.link, link.mode) == ("l", "../outside", 0o777)


def test_ignored_folders_are_not_entered(root: Path) -> None:
    need_root()
    (root / "node_modules").mkdir()
    (root / "node_modules/x").write_text("x")
    before = (root / "node_modules").stat().st_atime_ns
    with FolderContext(
        root, ignore=Matcher(["node_modules", "**/*.c", "!src/deep/b.c"])
    ) as context:
        assert paths(context) == ["link", "run.sh", "src", "src/deep", "src/deep/b.c"]
    assert (root / "node_modules").stat().st_atime_ns == before


def test_an_excluded_folder_is_there_for_what_is_taken_back(root: Path) -> None:
    with FolderContext(root, ignore=Matcher(["src", "!src/deep/b.c"])) as context:
        assert paths(context) == ["link", "run.sh", "src", "src/deep", "src/deep/b.c"]
    with FolderContext(root, ignore=Matcher(["src", "!src/deep/other"])) as context:
        assert paths(context) == ["link", "run.sh"]


def test_hard_links_share_an_inode(root: Path) -> None:
    os.link(root / "src/a.c", root / "src/hard.c")
    with FolderContext(root) as context:
        first, second = entry(context, "src/a.c"), entry(context, "src/hard.c")
    assert first.inode == second.inode != 0


def test_attributes_by_policy(root: Path) -> None:
    need_root()
    os.setxattr(root / "src/a.c", "user.note", b"1")
    os.setxattr(root / "src/a.c", "trusted.secret", b"1")
    os.setxattr(root / "src", "user.dir", b"2")
    cache = Cache()
    for _ in range(2):
        with FolderContext(root, stat_cache=cache) as context:
            assert entry(context, "src/a.c").xattrs == (("user.note", b"1"),)
            folder = context.scan().get("src")
            assert folder is not None
            assert folder.xattrs == (("user.dir", b"2"),)


def test_names_are_bytes(root: Path) -> None:
    name = os.fsdecode(b"\xff\n\\ -x")
    (root / name).write_text("odd")
    with FolderContext(root) as context:
        assert entry(context, name).digest == sha(b"odd")


class TestSpecialFiles:
    def test_a_pipe_is_refused_when_it_is_copied_and_never_waited_for(self, root: Path) -> None:
        os.mkfifo(root / "pipe")
        with FolderContext(root) as context:
            found = context.scan().get("pipe")
            assert found is not None
            with pytest.raises(ContextError, match="named pipe") as caught:
                context.digest([found])
        assert caught.value.code == "context-special-file"

    def test_a_socket_is_refused_when_it_is_copied(self, root: Path) -> None:
        with socket.socket(socket.AF_UNIX) as server, FolderContext(root) as context:
            server.bind(str(root / "s"))
            found = context.scan().get("s")
            assert found is not None
            with pytest.raises(ContextError, match="a socket"):
                context.digest([found])

    def test_a_file_that_became_a_pipe_is_not_waited_for(self, root: Path) -> None:
        with FolderContext(root) as context:
            found = entry(context, "src/a.c")
            (root / "src/a.c").unlink()
            os.mkfifo(root / "src/a.c")
            with pytest.raises(ContextError) as caught:
                context.read_small(found)
        assert caught.value.code == "context-changed"

    def test_a_file_that_became_a_link_is_not_followed(self, root: Path, tmp_path: Path) -> None:
        with FolderContext(root) as context:
            found, below = entry(context, "src/a.c"), context.scan().get("src/deep/b.c")
            assert below is not None
            (root / "src/a.c").unlink()
            (root / "src/a.c").symlink_to(tmp_path / "outside")
            (root / "src/deep").rename(tmp_path / "moved")
            (root / "src/deep").symlink_to(tmp_path / "moved")
            for read in (lambda: context.read_small(found), lambda: context.digest([below])):
                with pytest.raises(ContextError) as caught:
                    read()
                assert caught.value.code == "context-changed"


class TestStatCache:
    def test_unchanged_content_is_not_read_and_nothing_written(self, root: Path) -> None:
        cache = Cache()
        with FolderContext(root, stat_cache=cache) as context:
            context._looked_ns = 0
            context.scan()
            context._looked_ns = 1 << 62  # as if the files were old
            entry(context, "src/a.c")
        assert cache.saves == 1
        with FolderContext(root, stat_cache=cache) as context:
            found = context.scan().get("src/a.c")
            assert found is not None
            assert found.digest == sha(b"int a;")
        assert cache.saves == 1

    def test_what_was_just_written_is_read_again(self, root: Path) -> None:
        cache = Cache()
        (root / "fresh").write_text("one")
        with FolderContext(root, stat_cache=cache) as context:
            entry(context, "fresh")
        (root / "fresh").write_text("two")
        with FolderContext(root, stat_cache=cache) as context:
            assert entry(context, "fresh").digest == sha(b"two")

    def test_a_change_that_keeps_size_and_mtime_is_seen(self, root: Path) -> None:
        cache = Cache()
        with FolderContext(root, stat_cache=cache) as context:
            context.scan()
            context._looked_ns = 1 << 62
            before = entry(context, "run.sh")
        (root / "run.sh").write_text("#!/bin/ls\n")
        os.utime(root / "run.sh", (OLD, OLD + 0.75))
        with FolderContext(root, stat_cache=cache) as context:
            assert entry(context, "run.sh").digest != before.digest

    def test_damaged_bytes_are_no_cache(self) -> None:
        for data in (b"", b"junk", encode({})[:-1], encode({})[:30] + b"\xff" * 40):
            assert decode(data) == {}


class TestChanges:
    @pytest.mark.parametrize("size", [10, 3 << 20])
    @pytest.mark.parametrize("how", ["grow", "shrink", "rewrite", "replace", "remove", "chmod"])
    def test_a_change_after_the_digest_is_an_error(self, root: Path, how: str, size: int) -> None:
        path = root / "data"
        path.write_bytes(b"x" * size)
        with FolderContext(root) as context:
            found = entry(context, "data")
            change(path, how, size)
            with pytest.raises(ContextError) as caught:
                read(context, found)
        assert caught.value.code == "context-changed"

    def test_a_writer_never_makes_a_torn_read(self, root: Path) -> None:
        path = root / "data"
        path.write_bytes(b"0" * 4096)
        stop = threading.Event()

        def write() -> None:
            n = 0
            while not stop.is_set():
                n += 1
                change(path, ("rewrite", "grow", "shrink", "replace")[n % 4], 4096)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(100):
                with FolderContext(root) as context:
                    check_whole(context)
        finally:
            stop.set()
            writer.join()


def check_whole(context: FolderContext) -> None:
    """Whatever is read is what was hashed, or an error."""
    try:
        found = entry(context, "data")
        data = read(context, found)
    except (ContextError, AssertionError):
        return
    assert sha(data) == found.digest


def read(context: FolderContext, found: Entry) -> bytes:
    data = context.read_small(found)
    return b"".join(context.chunks(found)) if data is None else data


def change(path: Path, how: str, size: int) -> None:
    match how:
        case "grow":
            with path.open("ab") as file:
                file.write(b"more")
        case "shrink":
            os.truncate(path, size // 2)
        case "rewrite":
            path.write_bytes(os.urandom(size))
        case "replace":
            path.with_suffix(".new").write_bytes(b"y" * size)
            path.with_suffix(".new").replace(path)
        case "remove":
            path.unlink()
        case "chmod":
            path.chmod(0o600)


class TestLimits:
    def test_too_many_entries(self, root: Path) -> None:
        with (
            FolderContext(root, limits=ContextLimits(entries=4)) as context,
            pytest.raises(ContextError) as caught,
        ):
            context.scan()
        assert caught.value.code == "context-limit"

    def test_too_deep(self, root: Path) -> None:
        with (
            FolderContext(root, limits=ContextLimits(depth=1)) as context,
            pytest.raises(ContextError, match="in each other"),
        ):
            context.scan()

    def test_too_large(self, root: Path) -> None:
        with (
            FolderContext(root, limits=ContextLimits(size=10)) as context,
            pytest.raises(ContextError, match="more than 10 bytes"),
        ):
            context.scan()

    def test_the_store_is_never_part_of_it(self, root: Path) -> None:
        (root / "src/store").mkdir()
        (root / "src/store/blob").write_text("x")
        with FolderContext(root, skip=[root / "src/store", root / "none"]) as context:
            assert "src/store" not in paths(context)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ContextError, match="cannot open the build context"):
        FolderContext(tmp_path / "none")


class TestIgnoreFile:
    @pytest.fixture(autouse=True)
    def files(self, tmp_path: Path) -> None:
        (tmp_path / "ctx").mkdir()
        (tmp_path / "ctx/.dockerignore").write_text("from the context")

    def test_the_one_beside_the_dockerfile_wins_even_empty(self, tmp_path: Path) -> None:
        (tmp_path / "Prod.dockerignore").touch()
        assert find_ignore(tmp_path / "Prod", tmp_path / "ctx") == ("Prod.dockerignore", b"")

    def test_else_the_one_of_the_context(self, tmp_path: Path) -> None:
        found = find_ignore(tmp_path / "Dockerfile", tmp_path / "ctx")
        assert found == (".dockerignore", b"from the context")

    def test_a_link_stays_inside(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("outside")
        (tmp_path / "ctx/.dockerignore").unlink()
        (tmp_path / "ctx/.dockerignore").symlink_to("../secret")
        assert find_ignore(None, tmp_path / "ctx") is None

    def test_none_is_fine(self, tmp_path: Path) -> None:
        assert find_ignore(None, tmp_path) is None


def test_folders_deeper_than_python_goes_are_too_many(root: Path) -> None:
    folder = os.open(root, os.O_RDONLY)
    for _ in range(505):
        os.mkdir("d", dir_fd=folder)
        below = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    with FolderContext(root) as context, pytest.raises(ContextError) as caught:
        context.scan()
    assert caught.value.code == "context-limit"
