"""ADD of archives: told by their content, whatever they are called, and unpacked exactly."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable

import pytest
import zstandard

from imagekit.errors import DockerfileError
from tests.support.building import Project
from tests.support.tars import END, member, pax

TIME = 1_000_000_000
FILE = {"mode": 0o4755, "uid": 1000, "gid": 2**31}
TEXT = "FROM scratch\nADD archive /x/\n"

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
    "gz in two members": lambda data: (
        gzip.compress(data[:700], mtime=0) + gzip.compress(data[700:])
    ),
}


def archive(**sizes: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for kind, name, more in (
            (tarfile.DIRTYPE, "d", {"mode": 0o2750, "uid": 7, "gid": 8}),
            (tarfile.REGTYPE, "d/file", FILE),
            (tarfile.LNKTYPE, "hard", {"linkname": "d/file", **FILE}),
            (tarfile.SYMTYPE, "soft", {"linkname": "/anywhere"}),
            (tarfile.FIFOTYPE, "pipe", {"mode": 0o600}),
            (tarfile.CHRTYPE, "null", {"devmajor": 1, "devminor": 3}),
            (tarfile.REGTYPE, "large", {}),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mtime = kind, TIME
            for field, value in more.items():
                setattr(entry, field, value)
            if name == "d/file":
                entry.pax_headers = {"SCHILY.xattr.user.note": "kept"}
            content = b"c" * sizes.get(
                name.replace("/", "_"), 10 if kind == tarfile.REGTYPE else 0
            )
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize("compression", COMPRESSORS)
def test_an_archive_is_unpacked_with_all_it_says(project: Project, compression: str) -> None:
    tree = project.write({"archive": COMPRESSORS[compression](archive())}).build(TEXT).tree
    assert set(tree) == {"x", "x/d", "x/d/file", "x/hard", "x/soft", "x/pipe", "x/null", "x/large"}
    file = tree["x/d/file"]
    assert (file.inode.mode, file.inode.owner) == (0o4755, (1000, 2**31))
    assert file.inode.xattrs == (("user.note", b"kept"),)
    assert file.inode.mtime == TIME
    assert tree["x/hard"].number == file.number
    assert tree["x/soft"].inode.target == "/anywhere"
    assert (tree["x/d"].inode.mode, tree["x/d"].inode.owner) == (0o2750, (7, 8))
    assert tree["x/pipe"].inode.kind == "fifo"
    assert tree["x/null"].inode.device == (1, 3)


def test_a_large_member_is_unpacked(project: Project) -> None:
    data = gzip.compress(archive(large=5 << 20))
    tree = project.write({"archive": data}).build(TEXT).tree
    assert tree["x/large"].inode.size == 5 << 20


def test_copy_leaves_an_archive_as_it_is(project: Project) -> None:
    tree = project.write({"archive": archive()}).build("FROM scratch\nCOPY archive /x/\n").tree
    assert set(tree) == {"x", "x/archive"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text\n",
        bytes(512),
        END,
        gzip.compress(b"text\n", mtime=0),
        gzip.compress(b"", mtime=0),
        b"\x1f\x8b no gzip",
        b"BZh no bzip2",
        b"\xfd7zXZ\0 no xz",
        b"\x28\xb5\x2f\xfd no zstd",
        archive()[:100],
        b"x" * 512 + END,
        b"PK\x03\x04 a zip",
        b"A text as people write it, longer than a block.\n" * 20,
    ],
    ids=lambda data: repr(data[:12]),
)
def test_what_is_no_archive_is_copied(project: Project, data: bytes) -> None:
    built = project.write({"archive": data}).build(TEXT)
    assert set(built.tree) == {"x", "x/archive"}
    assert built.tree["x/archive"].inode.size == len(data)


@pytest.mark.parametrize(
    "data",
    [
        archive(large=3000)[:-4000],
        gzip.compress(archive(large=100_000) + os.urandom(20_000))[:-9_000],
        member(b"file", b"x" * 600)[:700],
        member(b"ok", b"y") + b"junk" * 128 + END,
        member(b"hard", kind=b"1", link=b"missing") + END,
    ],
    ids=["cut", "cut gzip", "cut in a file", "junk", "hard link to nothing"],
)
def test_an_archive_that_does_not_go_on_as_one_is_an_error_with_its_line(
    project: Project, data: bytes
) -> None:
    project.write({"archive": data})
    with pytest.raises(DockerfileError) as caught:
        project.build(TEXT)
    assert caught.value.place == str(project.context / "Dockerfile") + ":2:1"


@pytest.mark.parametrize("name", [b"../out", b"/../../out", b"d/../../../out"])
def test_members_stay_below_the_destination(project: Project, name: bytes) -> None:
    data = member(b"d/", kind=b"5") + member(name, b"x") + END
    project.write({"archive": data})
    try:
        tree = project.build(TEXT).tree
    except DockerfileError:
        return
    assert all(path == "x" or path.startswith("x/") for path in tree)


def test_a_link_in_an_archive_leads_nowhere_else(project: Project) -> None:
    data = member(b"l", kind=b"2", link=b"/etc") + member(b"l/passwd", b"x") + END
    project.write({"archive": data})
    try:
        tree = project.build(TEXT).tree
    except DockerfileError:
        return
    assert "etc/passwd" not in tree


def test_chown_and_chmod_apply_to_what_is_unpacked(project: Project) -> None:
    text = "FROM scratch\nADD --chown=5:6 archive /x/\n"
    tree = project.write({"archive": archive()}).build(text).tree
    assert {node.inode.owner for path, node in tree.items() if path != "x"} == {(5, 6)}


def test_global_headers_and_unknown_members_are_left_out(project: Project) -> None:
    data = pax({"comment": "abc"}, kind=b"g") + member(b"file", b"x") + END
    assert set(project.write({"archive": data}).build(TEXT).tree) == {"x", "x/file"}


def test_an_archive_in_the_cache_is_not_read_again(project: Project) -> None:
    project.write({"archive": archive()}).build(TEXT)
    assert project.build().ran == []
    assert project.write({"archive": archive(large=11)}).build().ran == ["ADD archive /x/"]
