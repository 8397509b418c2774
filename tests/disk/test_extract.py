"""Laying out layers: what arrives in the folder, and that nothing arrives outside it."""

import contextlib
import copy
import hashlib
import io
import os
import stat
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagekit.disk import paths
from imagekit.disk.extract import Form, extract, settle, stands_alone
from imagekit.disk.paths import Open, openat2, walk_beneath
from imagekit.errors import ImagekitError, LayerError
from imagekit.layer.changes import Changes
from imagekit.layer.tar import read_layer
from imagekit.layer.tree import CHARACTER, DIRECTORY, FILE, SYMLINK, Entry, Tree, Where
from tests.support.tools import need_root

FLAT = Form(overlay=False)


def member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def folder(name: str, **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.DIRTYPE, **{"mode": 0o755, **fields})


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def hard(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.LNKTYPE, linkname=target)


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def lay(data: bytes, dest: Path, form: Form, lower: Tree = Tree.EMPTY) -> tuple[str, ...]:
    changes = settle(read_layer(io.BytesIO(data)).changes, lower)
    dest.mkdir(exist_ok=True)
    return extract(changes, io.BytesIO(data), dest, form)


@pytest.fixture(params=[openat2, walk_beneath], ids=["openat2", "walk"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: Open = request.param
    monkeypatch.setattr(paths, "_opener", lambda: chosen)


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Path]:
    """A folder beside the destination that nothing may touch."""
    outside = tmp_path / "outside"
    (outside / "dir").mkdir(parents=True)
    (outside / "file").write_text("untouched")
    before = picture(outside)
    yield outside
    assert picture(outside) == before


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def picture(root: Path) -> dict[str, tuple[object, ...]]:
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path.relative_to(root))] = (status.st_mode, status.st_mtime_ns, content)
    return found


@pytest.mark.usefixtures("either_way")
class TestWhatArrives:
    def test_files_have_content_mode_and_time(self, tmp_path: Path) -> None:
        data = tar(folder("d", mode=0o750, mtime=7), member("d/f", b"hello", mode=0o4711, mtime=9))
        lay(data, tmp_path / "x", Form())
        found = (tmp_path / "x/d/f").stat()
        assert (tmp_path / "x/d/f").read_bytes() == b"hello"
        assert (found.st_mode & 0o7777, found.st_mtime) == (0o4711, 9)
        parent = (tmp_path / "x/d").stat()
        assert (parent.st_mode & 0o7777, parent.st_mtime) == (0o750, 7)

    def test_owners_are_set(self, tmp_path: Path) -> None:
        need_root()
        data = tar(folder("d", uid=5, gid=6), member("d/f", b"x", uid=7, gid=8), link("d/l", "f"))
        lay(data, tmp_path / "x", Form())
        ids = [
            (p.lstat().st_uid, p.lstat().st_gid) for p in (tmp_path / "x/d", tmp_path / "x/d/f")
        ]
        assert ids == [(5, 6), (7, 8)]

    def test_with_one_id_owners_are_noted(self, tmp_path: Path) -> None:
        data = tar(member("f", b"x", uid=7, gid=8))
        lay(data, tmp_path / "x", Form(single_id=True, userxattr=True))
        assert os.getxattr(tmp_path / "x/f", "user.imagekit.owner") == b"7:8"
        assert (tmp_path / "x/f").stat().st_uid == os.geteuid()

    def test_hard_links_share_an_inode(self, tmp_path: Path) -> None:
        data = tar(member("a", b"same"), folder("d"), hard("d/b", "a"), hard("c", "/a"))
        lay(data, tmp_path / "x", Form())
        inodes = {(tmp_path / "x" / name).stat().st_ino for name in ("a", "d/b", "c")}
        assert len(inodes) == 1

    def test_names_are_bytes(self, tmp_path: Path) -> None:
        name = os.fsdecode(b"\xff\n -x\\")
        lay(tar(member(name, b"1"), folder("-d")), tmp_path / "x", Form())
        assert sorted(map(os.fsencode, names(tmp_path / "x"))) == [b"-d", b"\xff\n -x\\"]

    def test_a_capability_is_kept_and_overlay_attributes_are_not(self, tmp_path: Path) -> None:
        need_root()
        cap = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
        xattrs = {
            "SCHILY.xattr.security.capability": cap.decode("latin-1"),
            "SCHILY.xattr.trusted.overlay.redirect": "/etc",
            "SCHILY.xattr.user.overlay.opaque": "y",
            "SCHILY.xattr.user.x": "1",
        }
        lay(tar(member("f", b"x", pax_headers=xattrs)), tmp_path / "x", Form())
        assert sorted(os.listxattr(tmp_path / "x/f")) == ["security.capability", "user.x"]
        assert os.getxattr(tmp_path / "x/f", "security.capability") == cap

    def test_device_nodes_are_skipped_with_a_note(self, tmp_path: Path) -> None:
        device = member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)
        notes = lay(tar(device), tmp_path / "x", Form())
        assert notes == ("/null: device nodes are not made here",)
        assert names(tmp_path / "x") == []

    def test_device_nodes_are_made_when_asked_for(self, tmp_path: Path) -> None:
        need_root()
        device = member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
        lay(tar(device), tmp_path / "x", Form(devices=True))
        found = (tmp_path / "x/null").stat()
        assert stat.S_ISCHR(found.st_mode)
        assert (found.st_rdev, found.st_mode & 0o777) == (os.makedev(1, 3), 0o666)

    def test_a_pipe_is_made(self, tmp_path: Path) -> None:
        lay(tar(member("p", type=tarfile.FIFOTYPE, mode=0o620)), tmp_path / "x", Form())
        assert stat.S_ISFIFO((tmp_path / "x/p").stat().st_mode)

    def test_a_read_only_directory_gets_its_content(self, tmp_path: Path) -> None:
        lay(tar(folder("d", mode=0o555), member("d/f", b"x")), tmp_path / "x", Form())
        assert (tmp_path / "x/d").stat().st_mode & 0o777 == 0o555
        assert (tmp_path / "x/d/f").exists()

    def test_a_stream_that_ends_early_is_an_error(self, tmp_path: Path) -> None:
        data = tar(member("f", b"x" * 5000))
        changes = settle(read_layer(io.BytesIO(data)).changes, Tree.EMPTY)
        with pytest.raises(LayerError, match="ends within /f"):
            extract(changes, io.BytesIO(data[:2000]), tmp_path, Form())


@pytest.mark.usefixtures("either_way")
class TestOverlay:
    def test_whiteouts_become_devices(self, tmp_path: Path) -> None:
        need_root()
        lower = Tree.EMPTY.apply(
            Changes(entries={"d": Entry(DIRECTORY, 0o711, 3, 4, 5), "d/gone": Entry(FILE, 0o644)})
        )
        lay(tar(member("d/.wh.gone"), member(".wh.never")), tmp_path / "x", Form(), lower)
        found = (tmp_path / "x/d/gone").lstat()
        assert stat.S_ISCHR(found.st_mode)
        assert found.st_rdev == 0
        assert not (tmp_path / "x/never").exists()

    def test_implied_directories_look_as_they_do_below(self, tmp_path: Path) -> None:
        need_root()
        lower = Tree.EMPTY.apply(Changes(entries={"d": Entry(DIRECTORY, 0o1711, 3, 4, 5)}))
        lay(tar(member("d/new/f", b"x")), tmp_path / "x", Form(), lower)
        found = (tmp_path / "x/d").stat()
        got = (found.st_mode & 0o7777, found.st_uid, found.st_gid, found.st_mtime)
        assert got == (0o1711, 3, 4, 5)
        assert (tmp_path / "x/d/new").stat().st_mode & 0o777 == 0o755

    def test_what_goes_through_a_link_below_goes_where_it_points(self, tmp_path: Path) -> None:
        lower = Tree.EMPTY.apply(
            Changes(
                entries={
                    "usr": Entry(DIRECTORY, 0o755),
                    "usr/lib": Entry(DIRECTORY, 0o755),
                    "lib": Entry(SYMLINK, 0o777, link="usr/lib"),
                }
            )
        )
        lay(tar(member("lib/f", b"x")), tmp_path / "x", Form(), lower)
        assert (tmp_path / "x/usr/lib/f").read_bytes() == b"x"
        assert not (tmp_path / "x/lib").exists()

    @pytest.mark.parametrize("userxattr", [True, False])
    def test_opaque_directories_are_marked(self, tmp_path: Path, *, userxattr: bool) -> None:
        need_root()
        form = Form(userxattr=userxattr)
        lower = Tree.EMPTY.apply(
            Changes(entries={"d": Entry(DIRECTORY, 0o755), "d/old": Entry(FILE, 0o644)})
        )
        data = tar(folder("d"), member("d/.wh..wh..opq"), member("d/f", b"x"))
        lay(data, tmp_path / "x", form, lower)
        assert os.getxattr(tmp_path / "x/d", form.opaque) == b"y"

    def test_a_directory_that_replaces_itself_is_opaque(self, tmp_path: Path) -> None:
        need_root()
        lower = Tree.EMPTY.apply(Changes(entries={"d": Entry(DIRECTORY, 0o755)}))
        lay(tar(member(".wh.d"), folder("d")), tmp_path / "x", Form(), lower)
        assert os.getxattr(tmp_path / "x/d", "trusted.overlay.opaque") == b"y"

    def test_an_opaque_root_hides_name_by_name(self, tmp_path: Path) -> None:
        need_root()
        entries = {"a": Entry(DIRECTORY, 0o755), "b": Entry(FILE, 0o644)}
        lower = Tree.EMPTY.apply(Changes(entries=entries))
        lay(tar(member(".wh..wh..opq"), folder("a")), tmp_path / "x", Form(), lower)
        assert os.getxattr(tmp_path / "x/a", "trusted.overlay.opaque") == b"y"
        assert stat.S_ISCHR((tmp_path / "x/b").lstat().st_mode)

    def test_a_layer_stands_alone_unless_it_leans_on_what_is_below(self) -> None:
        whole = read_layer(io.BytesIO(tar(folder("d"), member("d/f")))).changes
        leaning = read_layer(io.BytesIO(tar(member("d/f")))).changes
        assert stands_alone(whole, settle(whole, Tree.EMPTY))
        assert not stands_alone(leaning, settle(leaning, Tree.EMPTY))


@pytest.mark.usefixtures("either_way")
class TestOntoARoot:
    def test_whiteouts_are_carried_out(self, tmp_path: Path) -> None:
        first = tar(folder("d"), member("d/a", b"1"), member("d/b", b"2"), member("c", b"3"))
        lower = Tree.EMPTY.apply(read_layer(io.BytesIO(first)).changes)
        lay(first, tmp_path / "x", FLAT)
        lay(tar(member("d/.wh.a"), member(".wh.c"), member("e")), tmp_path / "x", FLAT, lower)
        assert names(tmp_path / "x") == ["d", "e"]
        assert names(tmp_path / "x/d") == ["b"]

    def test_opaque_empties_what_was_there_only(self, tmp_path: Path) -> None:
        first = tar(folder("d"), folder("d/sub"), member("d/sub/a"), member("d/b"))
        lower = Tree.EMPTY.apply(read_layer(io.BytesIO(first)).changes)
        lay(first, tmp_path / "x", FLAT)
        second = tar(folder("d"), member("d/new"), member("d/.wh..wh..opq"))
        lay(second, tmp_path / "x", FLAT, lower)
        assert names(tmp_path / "x/d") == ["new"]

    def test_everything_can_replace_everything(self, tmp_path: Path) -> None:
        first = tar(
            member("f2d"), folder("d2f"), member("d2f/x"), link("l2f", "/etc"), link("l2d", "q")
        )
        lower = Tree.EMPTY.apply(read_layer(io.BytesIO(first)).changes)
        lay(first, tmp_path / "x", FLAT)
        second = tar(
            folder("f2d"), member("f2d/y"), member("d2f", b"1"), member("l2f", b"2"), folder("l2d")
        )
        lay(second, tmp_path / "x", FLAT, lower)
        root = tmp_path / "x"
        assert (root / "f2d/y").is_file()
        assert (root / "d2f").read_bytes() == b"1"
        assert not (root / "l2f").is_symlink()
        assert (root / "l2d").is_dir()
        assert not (root / "l2d").is_symlink()


HOSTILE = {
    "parent through an absolute link": (link("l", "{outside}"), member("l/evil", b"x")),
    "parent through dots": (link("l", "../../../../../{outside}"), member("l/evil", b"x")),
    "file over a link out": (link("file", "{outside}/file"), member("file", b"overwritten")),
    "folder over a link out": (link("dir", "{outside}/dir"), folder("dir", mode=0o777)),
    "hard link to the outside": (hard("h", "{outside}/file"),),
    "hard link through a link": (link("l", "{outside}"), hard("h", "l/file")),
    "hard link to a link": (link("l", "{outside}/file"), hard("h", "l"), member("h", b"x")),
    "link chain": (link("a", "b"), link("b", "{outside}"), member("a/evil", b"x")),
    "link loop": (link("a", "b"), link("b", "a"), member("a/evil", b"x")),
    "whiteout through a link": (link("l", "{outside}"), member("l/.wh.file")),
    "opaque through a link": (link("l", "{outside}"), member("l/.wh..wh..opq")),
    "dots in a name": (member("../outside/evil", b"x"),),
    "absolute name": (member("{outside}/evil", b"x"),),
    "link to proc": (link("l", "/proc/self/root"), member("l/{outside}/evil", b"x")),
    "link to cwd": (link("l", "/proc/self/cwd"), member("l/evil", b"x")),
    "pipe over a link": (link("l", "{outside}/file"), member("l", type=tarfile.FIFOTYPE)),
    "dangling parent": (link("l", "{outside}/new"), member("l/evil", b"x")),
    "root as a file": (member("./", b"x"),),
}


def aimed(info: tarfile.TarInfo, sentinel: Path) -> tarfile.TarInfo:
    """The member with its names filled in; `TarInfo.replace` is younger than Debian's Python."""
    filled_in = copy.copy(info)
    filled_in.name = filled(info.name, sentinel)
    filled_in.linkname = filled(info.linkname, sentinel)
    return filled_in


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("form", [Form(), FLAT, Form(single_id=True, userxattr=True)], ids=str)
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("split", [False, True], ids=["one layer", "two layers"])
def test_nothing_is_touched_outside(
    tmp_path: Path, sentinel: Path, name: str, form: Form, *, split: bool
) -> None:
    members = [(aimed(info, sentinel), data) for info, data in HOSTILE[name]]
    dest = tmp_path / "x"
    parts = [members[:1], members[1:]] if split else [members]
    lower = Tree.EMPTY
    for part in parts:
        data = tar(*part)
        try:
            lay(data, dest, form, Tree.EMPTY if form.overlay else lower)
            lower = lower.apply(read_layer(io.BytesIO(data)).changes)
        except ImagekitError:
            return


def filled(text: str, outside: Path) -> str:
    return text.replace("{outside}", str(outside)).replace("//", "/")


@pytest.mark.usefixtures("sentinel")
def test_names_from_a_doctored_index_are_refused(tmp_path: Path) -> None:
    for path in ("../outside/evil", "a/../../outside/evil", "/abs", "a//b", "a/./b"):
        changes = Changes(entries={path: Entry(FILE, 0o644, where=Where("x", 0))})
        with pytest.raises(ImagekitError):
            extract(changes, io.BytesIO(), tmp_path, Form())
    whiteout = Changes(whiteouts=frozenset({"../outside/file"}))
    with pytest.raises(ImagekitError):
        extract(whiteout, io.BytesIO(), tmp_path, FLAT)
    device = Changes(entries={"w": Entry(CHARACTER, 0o644)})
    with pytest.raises(ImagekitError):
        extract(device, io.BytesIO(), tmp_path, Form(devices=True))


@pytest.mark.usefixtures("either_way")
def test_a_racing_renamer_leads_nothing_outside(tmp_path: Path, sentinel: Path) -> None:
    dest = tmp_path / "x"
    (dest / "d").mkdir(parents=True)
    (dest / "l").symlink_to(sentinel)
    stop = threading.Event()

    def rename() -> None:
        while not stop.is_set():
            for a, b in (("d", "t"), ("l", "d"), ("d", "l"), ("t", "d")):
                with contextlib.suppress(OSError):  # the other side makes and removes, too
                    (dest / a).rename(dest / b)

    racer = threading.Thread(target=rename)
    racer.start()
    data = tar(*(member(f"d/{i}/f", b"x") for i in range(200)))
    try:
        with contextlib.suppress(ImagekitError, OSError):  # only the outside counts
            lay(data, dest, FLAT)
    finally:
        stop.set()
        racer.join()


def test_the_bytes_are_those_of_the_layer(tmp_path: Path) -> None:
    content = {f"d{i % 7}/f{i}": os.urandom(i * 37) for i in range(200)}
    data = tar(*(member(name, body) for name, body in content.items()))
    lay(data, tmp_path / "x", Form())
    for name, body in content.items():
        found = (tmp_path / "x" / name).read_bytes()
        assert hashlib.sha256(found).digest() == hashlib.sha256(body).digest()
