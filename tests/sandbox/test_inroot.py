import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagekit.sandbox.failure import SetupError
from imagekit.sandbox.inroot import ensure, open_in


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "root").mkdir()
    fd = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "root"


def _real(fd: int, folder: Path) -> str:
    path = Path(f"/proc/self/fd/{fd}").readlink()
    os.close(fd)
    return str(path.relative_to(folder))


@pytest.mark.parametrize(
    ("links", "path", "real"),
    [
        ({}, "/a/b", "a/b"),
        ({}, "a//./b/", "a/b"),
        ({}, "/../../a", "a"),
        ({}, "/x/../a", "a"),
        ({"l": "/a/b"}, "/l", "a/b"),
        ({"l": "../../../../a"}, "/l/b", "a/b"),
        ({"l": "m", "m": "n"}, "/l", "n"),
        ({"l": "."}, "/l/l/a", "a"),
        ({"l": "/"}, "/l/a", "a"),
    ],
)
def test_what_is_missing_is_made_inside(
    root: int, folder: Path, links: dict[str, str], path: str, real: str
) -> None:
    for name, target in links.items():
        (folder / name).symlink_to(target)
    fd, made = ensure(root, path, "file" if path[-1] != "/" else "directory")
    assert _real(fd, folder) == real
    assert f"{made[-1].parent}/{made[-1].name}".lstrip("/") == real
    assert (folder / real).stat().st_mode & 0o7777 in (0o755, 0o644)


def test_what_is_there_is_found_and_nothing_is_made(root: int, folder: Path) -> None:
    (folder / "d").mkdir()
    (folder / "l").symlink_to("/d")
    fd, made = ensure(root, "/l", "directory")
    assert (_real(fd, folder), made) == ("d", [])


def test_a_loop_is_an_error(root: int, folder: Path) -> None:
    (folder / "l").symlink_to("m")
    (folder / "m").symlink_to("l")
    with pytest.raises(OSError, match="symbolic links") as info:
        ensure(root, "/l/x", "file")
    assert info.value.errno == errno.ELOOP


def test_a_chain_of_41_links_to_nothing_is_an_error(root: int, folder: Path) -> None:
    for number in range(41):
        (folder / f"l{number}").symlink_to(f"l{number + 1}")
    with pytest.raises(OSError, match="symbolic links") as info:
        ensure(root, "/l0", "file")
    assert info.value.errno == errno.ELOOP


def test_a_file_on_the_way_is_an_error(root: int, folder: Path) -> None:
    (folder / "f").write_text("")
    with pytest.raises(NotADirectoryError):
        ensure(root, "/f/x", "file")
    with pytest.raises(SetupError):
        ensure(root, "/f", "directory")


def test_a_link_out_is_followed_inside(root: int, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("")
    (folder / "l").symlink_to(tmp_path / "secret")
    with pytest.raises(FileNotFoundError):
        open_in(root, "/l")


def test_no_descriptor_is_lost(root: int, folder: Path) -> None:
    (folder / "l").symlink_to("/a/b/../c")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("/l/x/y", "/l/x/y/z", "/q/../r"):
        fd, _ = ensure(root, path, "directory")
        os.close(fd)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
