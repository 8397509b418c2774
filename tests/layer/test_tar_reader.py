import contextlib
import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagekit.errors import BadArchiveError, BadWhiteoutError, EscapesRootError, LayerError
from imagekit.layer.index import LayerIndex
from imagekit.layer.tar import Limits, iter_members, read_archive, read_layer
from imagekit.layer.tree import DIRECTORY, FILE, SYMLINK
from imagekit.oci.digest import Digest
from tests.support.tars import END, gnu_long, header, member, pax
from tests.support.tools import need


def layer(*parts: bytes, end: bytes = END, **options: bool) -> LayerIndex:
    return read_layer(io.BytesIO(b"".join(parts) + end), **options)


LONG = b"x" * 2000
BAD_ARCHIVES: dict[str, bytes] = {
    # L-2: names
    "a-file-as-the-root": header(b"./"[:1]),
    "an-empty-name": header(b""),
    "a-name-of-a-nul-in-pax": pax({"path": b"a\0b"}) + header(),
    "a-link-of-a-nul-in-pax": pax({"linkpath": b"a\0b"}) + header(kind=b"2", link=b"x"),
    "a-symlink-to-nowhere": header(kind=b"2"),
    "too-long-a-name": gnu_long(b"a" * 4097) + header(),
    "too-long-a-link": gnu_long(b"a" * 4097, b"K") + header(kind=b"2", link=b"x"),
    "too-deep-a-name": gnu_long(b"a/" * 512 + b"a") + header(),
    # L-3: hard links
    "a-hard-link-to-itself": header(b"a") + header(b"a", kind=b"1", link=b"a"),
    "a-hard-link-to-a-directory": header(b"a/", kind=b"5") + header(b"b", kind=b"1", link=b"a"),
    "a-hard-link-to-the-root": header(b"b", kind=b"1", link=b"/"),
    "a-hard-link-without-a-target": header(b"b", kind=b"1"),
    "a-hard-link-with-content": header(b"a") + member(b"b", b"x", kind=b"1", link=b"a"),
    "a-hard-link-as-the-root": header(b"a") + header(b"/", kind=b"1", link=b"a"),
    # L-4, L-5: parents
    "a-member-below-a-file": header(b"a") + header(b"a/b"),
    "a-member-below-a-lost-link": header(b"a", kind=b"1", link=b"z") + header(b"a/b"),
    "a-loop-of-links": (
        header(b"a", kind=b"2", link=b"b") + header(b"b", kind=b"2", link=b"a") + header(b"a/c")
    ),
    # L-8: headers
    "a-wrong-checksum": header(summed=False),
    "a-wrong-checksum-beside-bytes-above-127": header(b"\xff", checksum=b"000001\0 "),
    "a-checksum-that-is-no-number": header(checksum=b"zzzzzz\0 "),
    "a-size-with-a-sign": header(size=b"-0000000001\0"),
    "a-size-with-an-8": header(size=b"00000000008\0"),
    "a-size-with-an-underscore": header(size=b"0000000_001\0"),
    "a-size-with-garbage-after-nul": header(size=b"0\0000000000x"),
    "a-negative-size-in-base-256": header(size=b"\xff" * 12),
    "a-huge-size-in-base-256": header(size=b"\xbf" + b"\xff" * 11),
    "a-negative-mode": header(mode=b"\xff" * 8),
    "a-negative-uid": header(uid=b"\xff" * 8),
    "a-uid-beyond-32-bits": pax({"uid": "4294967295"}) + header(),
    "a-pax-size-with-a-sign": pax({"size": "-1"}) + header(),
    "a-pax-size-of-letters": pax({"size": "0x1"}) + header(),
    "a-pax-size-past-the-end": pax({"size": "100000"}) + header(),
    "a-pax-mtime-of-letters": pax({"mtime": "1e9"}) + header(),
    "a-pax-length-too-short": member(b"x", b"5 path=abc\n", kind=b"x") + header(),
    "a-pax-length-too-long": member(b"x", b"99 path=abc\n", kind=b"x") + header(),
    "a-pax-length-with-a-zero": member(b"x", b"012 path=abc\n", kind=b"x") + header(),
    "a-pax-record-without-equals": member(b"x", b"8 patha\n", kind=b"x") + header(),
    "a-pax-record-without-key": member(b"x", b"5 =a\n", kind=b"x") + header(),
    "an-unknown-character-set": pax({"hdrcharset": "KOI8-R"}) + header(),
    "a-global-path": pax({"path": "a"}, b"g") + header(),
    "a-global-size": pax({"size": "1"}, b"g") + header(),
    "a-global-sparse": pax({"GNU.sparse.major": "1"}, b"g") + header(),
    "two-long-names": gnu_long(b"a" * 200) + pax({"path": "b"}) + header(),
    "an-extension-before-the-end": pax({"path": "b"}),
    "an-unknown-type": header(kind=b"V"),
    "a-type-in-letters": header(kind=b"Z"),
    "gnu-sparse": header(kind=b"S"),
    "pax-sparse-0": pax({"GNU.sparse.map": "0,1"}) + header(),
    "pax-sparse-1": pax({"GNU.sparse.major": "1"}) + header(),
    "a-directory-with-content": member(b"a/", b"x", kind=b"5"),
    "a-symlink-with-content": member(b"a", b"x", kind=b"2", link=b"b"),
    "a-fifo-with-content": member(b"a", b"x", kind=b"6"),
    "text": b"#!/bin/sh\n" + bytes(600),
    # L-9: limits
    "too-large-a-header": member(b"x", b"a" * ((1 << 20) + 1), kind=b"L") + header(),
    "too-many-records": pax({f"VENDOR.{i}": "" for i in range(1025)}) + header(),
    "too-many-extensions": pax({"path": "b"}) * 17 + header(),
    "too-large-attributes": pax({"SCHILY.xattr.user.a": b"x" * 65536}) + header(),
    "an-attribute-without-a-name": pax({"SCHILY.xattr.": b"x"}) + header(),
    "a-header-size-never-read-at-once": header(kind=b"x", size=b"\x80" + b"\0" * 3 + b"\x7f" * 8),
    # L-10: devices
    "an-overlay-whiteout": header(kind=b"3"),
    # archives that end too soon
    "cut-in-content": member(content=b"x" * 2000)[:1000],
}


@pytest.mark.parametrize("name", sorted(BAD_ARCHIVES))
def test_bad_archives_are_refused(name: str) -> None:
    end = b"" if name.startswith("cut") else END
    with pytest.raises(BadArchiveError):
        layer(BAD_ARCHIVES[name], end=end)


@pytest.mark.parametrize("name", sorted(BAD_ARCHIVES))
def test_bad_archives_are_refused_when_they_arrive_byte_by_byte(name: str) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 100))

    data = BAD_ARCHIVES[name] + (b"" if name.startswith("cut") else END)
    with pytest.raises(BadArchiveError):
        read_layer(Slow(data))


@pytest.mark.parametrize(
    "name", [b".wh.", b"a/.wh.", b".wh..", b".wh...", b".wh..wh.", b".wh..wh.x", b".wh.a/b"]
)
def test_markers_that_hide_nothing_are_refused(name: bytes) -> None:
    with pytest.raises(BadWhiteoutError):
        layer(header(name))


@pytest.mark.parametrize("name", [b"..", b"../a", b"a/../../b", b"a/..", b"/../a", b"a/../.wh.b"])
def test_names_above_the_root_are_refused_or_cut_off(name: bytes) -> None:
    with pytest.raises(EscapesRootError):
        layer(header(name, kind=b"5"))
    index = layer(header(name, kind=b"5"), lenient=True)
    assert not any(".." in path for path in index.changes.entries)


def test_hard_link_targets_above_the_root_are_refused_or_cut_off() -> None:
    parts = header(b"a"), header(b"b", kind=b"1", link=b"../../a")
    with pytest.raises(EscapesRootError):
        layer(*parts)
    assert set(layer(*parts, lenient=True).changes.entries) == {"a", "b"}


@pytest.mark.parametrize("cut", [1, 511, 513, 600, 1023, 1500, 1999])
def test_archives_cut_short_are_refused(cut: int) -> None:
    whole = member(b"a", b"x" * 1000) + member(b"b", b"y" * 1000)
    with pytest.raises(BadArchiveError):
        layer(whole[:cut], end=b"")


@pytest.mark.parametrize("end", [b"", bytes(512), bytes(1024), bytes(10240), bytes(1 << 20)])
def test_archives_end_with_zeros_or_where_they_stop(end: bytes) -> None:
    assert layer(header(b"a"), end=end).size == 512 + len(end)


@pytest.mark.parametrize(
    "end", [bytes(512) + header(b"b"), END + b"x", END + header(b"b"), bytes((1 << 20) + 2048)]
)
def test_nothing_may_follow_the_end(end: bytes) -> None:
    with pytest.raises(BadArchiveError):
        layer(header(b"a"), end=end)


def test_limits_hold() -> None:
    data = member(b"a/b", b"x" * 600) + header(b"c") + END
    for limits in (Limits(size=1000), Limits(entries=1), Limits(depth=1), Limits(name=2)):
        with pytest.raises(BadArchiveError):
            read_layer(io.BytesIO(data), limits=limits)
    assert read_layer(io.BytesIO(data), limits=Limits(size=len(data), entries=2, depth=2))


def test_replacing_folders_again_and_again_is_limited() -> None:
    turn = header(b"a/b") + header(b"a", kind=b"2", link=b"c") + header(b"a/", kind=b"5")
    with pytest.raises(BadArchiveError, match="replaced"):
        read_layer(io.BytesIO(turn * 6 + END), limits=Limits(replaced=5))


def test_a_layer_becomes_entries_whiteouts_and_opaque_directories() -> None:
    index = layer(
        header(b"./", kind=b"5", mode=0o755),
        header(b"./etc/", kind=b"5", mode=0o755),
        header(b"etc/.wh.motd"),
        member(b"/etc//hosts", b"one", uid=1, gid=2, mtime=3),
        header(b"usr/.wh..wh..opq"),
        header(b"usr/bin/vi", kind=b"2", link=b"/etc/alternatives/vi"),
    )
    changes = index.changes
    assert set(changes.entries) == {"", "etc", "etc/hosts", "usr/bin/vi"}
    assert changes.whiteouts == {"etc/motd"}
    assert changes.opaque == {"usr"}
    assert changes.implied == {"usr", "usr/bin"}
    hosts = changes.entries["etc/hosts"]
    assert (hosts.uid, hosts.gid, hosts.mtime, hosts.size) == (1, 2, 3, 3)
    assert hosts.where == (str(index.diff_id), 2048)
    assert hosts.digest.hex() == Digest.of(b"one").hex
    assert changes.entries["usr/bin/vi"].link == "/etc/alternatives/vi"


def test_the_diff_id_is_the_one_given_or_that_of_the_bytes() -> None:
    data = header(b"a") + END
    assert read_layer(io.BytesIO(data)).diff_id == Digest.of(data)
    given_id = Digest.of(b"checked by the caller")
    index = read_layer(io.BytesIO(data), diff_id=given_id)
    assert index.diff_id == given_id
    assert index.changes.entries["a"].where == (str(given_id), 512)


def test_of_equal_names_the_last_counts() -> None:
    index = layer(member(b"a", b"1"), member(b"./a", b"22"), header(b"a/", kind=b"5"))
    assert index.changes.entries["a"].kind == DIRECTORY
    assert index.duplicates == 2


def test_a_directory_given_twice_keeps_its_children() -> None:
    index = layer(header(b"a/", kind=b"5"), header(b"a/b"), header(b"a/", kind=b"5", mode=0o700))
    assert set(index.changes.entries) == {"a", "a/b"}
    assert index.changes.entries["a"].mode == 0o700


def test_a_directory_that_turns_into_a_file_loses_its_children() -> None:
    index = layer(header(b"a/b"), header(b"a/.wh.c"), header(b"a/l", kind=b"1", link=b"z"))
    assert index.unresolved == (("a/l", "z"),)
    index = layer(
        header(b"a/b"),
        header(b"a/.wh.c"),
        header(b"a/l", kind=b"1", link=b"z"),
        header(b"a"),
        header(b"ab"),
    )
    assert set(index.changes.entries) == {"a", "ab"}
    assert index.changes.whiteouts == index.changes.opaque == frozenset()
    assert index.unresolved == ()


def test_members_below_a_symlink_go_where_it_points_inside_the_root() -> None:
    index = layer(
        header(b"lib", kind=b"2", link=b"../../usr/lib"),
        header(b"abs", kind=b"2", link=b"/lib/x"),
        header(b"lib/a"),
        header(b"abs/b"),
        header(b"lib/.wh.c"),
        header(b"d", kind=b"1", link=b"abs/b"),
    )
    assert set(index.changes.entries) == {"lib", "abs", "usr/lib/a", "usr/lib/x/b", "d"}
    assert index.changes.whiteouts == {"usr/lib/c"}
    assert index.changes.entries["d"] == index.changes.entries["usr/lib/x/b"]


def test_a_directory_over_a_symlink_takes_its_place() -> None:
    index = layer(
        header(b"a", kind=b"2", link=b"b"),
        header(b"a/1"),
        header(b"a/", kind=b"5"),
        header(b"a/2"),
    )
    assert set(index.changes.entries) == {"a", "b/1", "a/2"}


def test_hard_links_share_an_inode_with_what_they_link_to() -> None:
    index = layer(
        member(b"a", b"1"),
        header(b"b", kind=b"1", link=b"/a"),
        member(b"a", b"22"),
        header(b"s", kind=b"2", link=b"x"),
        header(b"t", kind=b"1", link=b"s"),
    )
    entries = index.changes.entries
    assert entries["b"].size == 1
    assert entries["b"].inode == 512
    assert entries["a"].inode == 0
    assert entries["t"] == entries["s"]


def test_hard_links_to_what_the_layer_does_not_carry_are_named() -> None:
    index = layer(
        header(b"b", kind=b"1", link=b"/low/a"),
        header(b"c", kind=b"1", link=b"b"),
        header(b"d", kind=b"1", link=b"b"),
        header(b"d"),
    )
    assert index.unresolved == (("b", "low/a"), ("c", "low/a"))
    assert set(index.changes.entries) == {"d"}


def test_what_aufs_left_is_passed_over_and_its_links_are_found() -> None:
    index = layer(
        header(b".wh..wh.aufs"),
        header(b".wh..wh.plnk/", kind=b"5"),
        member(b".wh..wh.plnk/1.2", b"linked"),
        header(b"a", kind=b"1", link=b".wh..wh.plnk/1.2"),
        header(b".wh..wh.orph/", kind=b"5"),
    )
    assert {path: entry.size for path, entry in index.changes.entries.items()} == {"a": 6}
    assert index.changes.implied == frozenset()


def test_numbers_are_octal_or_base_256_and_pax_overrides_both() -> None:
    index = layer(
        header(b"a", uid=b"\x80" + (3_000_000).to_bytes(7, "big"), mtime=b"\xff" * 12),
        header(b"b", uid=b"    12 \0", gid=bytes(8), mode=b"0100644\0"),
        pax({"uid": "7", "mtime": "-1.5", "size": "3", "VENDOR.key": "", "atime": "1.0"}),
        header(b"c", uid=8, size=b"\xff" * 12) + b"abc" + bytes(509),
        pax({"mtime": "99999999999999.25"}),
        header(b"d"),
    )
    got = {p: (e.uid, e.gid, e.mode, e.mtime, e.size) for p, e in index.changes.entries.items()}
    assert got == {
        "a": (3_000_000, 0, 0o644, -1, 0),
        "b": (10, 0, 0o644, 0, 0),
        "c": (7, 0, 0o644, -2, 3),
        "d": (0, 0, 0o644, 2**33 - 1, 0),
    }


def test_old_and_gnu_archives_are_understood() -> None:
    name = b"g" * 200
    index = layer(
        header(b"v7/", magic=bytes(8), kind=b"\0"),
        header(b"v7/file", magic=bytes(8), kind=b"\0", prefix=b"not a prefix"),
        gnu_long(name) + gnu_long(b"t" * 150, b"K"),
        header(name[:100], magic=b"ustar  \0", kind=b"2", link=b"t" * 100),
        header(b"p" * 100, prefix=b"q" * 155),
        header(b"star", prefix=b"p" * 131 + b"0000000000 ")[:508].ljust(508, b"\0") + bytes(4),
        member(b"contiguous", b"x", kind=b"7"),
    )
    kinds = {path: entry.kind for path, entry in index.changes.entries.items() if path[0] in "vgc"}
    assert kinds == {"v7": DIRECTORY, "v7/file": FILE, "g" * 200: SYMLINK, "contiguous": FILE}
    assert index.changes.entries["g" * 200].link == "t" * 150
    assert "q" * 155 + "/" + "p" * 100 in index.changes.entries


def test_checksums_of_signed_bytes_are_accepted() -> None:
    block = bytearray(header(b"\xff\xfe"))
    total = sum(block[:148]) + sum(block[156:]) + 256 - 512
    block[148:156] = b"%06o\0 " % total
    assert layer(bytes(block)).changes.entries


def test_global_records_apply_until_they_change() -> None:
    index = layer(
        pax({"comment": "0123", "mtime": "5"}, b"g"),
        header(b"a"),
        pax({"mtime": "6"}),
        header(b"b"),
        header(b"c"),
    )
    assert [entry.mtime for entry in index.changes.entries.values()] == [5, 6, 5]


def test_the_last_of_several_pax_headers_counts() -> None:
    index = layer(pax({"path": "x", "uid": "5"}), pax({"path": "y"}), header(b"a"))
    assert {p: e.uid for p, e in index.changes.entries.items()} == {"y": 0}


def test_extended_attributes_are_sorted_by_name() -> None:
    index = layer(pax({"SCHILY.xattr.user.b": b"\0\n", "SCHILY.xattr.user.a": "="}), header(b"a"))
    assert index.changes.entries["a"].xattrs == (("user.a", b"="), ("user.b", b"\0\n"))


def test_an_archive_is_a_list_of_members_with_cleaned_names() -> None:
    data = b"".join(
        (
            header(b".wh.kept"),
            member(b"../../a", b"1"),
            header(b"/b", kind=b"1", link=b"./a"),
            member(b"a", b"22"),
            header(b"c", kind=b"1", link=b"elsewhere"),
            header(b"./", kind=b"5"),
            header(b"l", kind=b"2", link=b"dir"),
            header(b"l/x"),
            END,
        )
    )
    members = read_archive(io.BytesIO(data), source="ctx")
    assert [member.path for member in members] == [".wh.kept", "a", "b", "a", "c", "", "l", "l/x"]
    assert [member.target for member in members if member.target] == ["elsewhere"]
    assert members[1].entry == members[2].entry
    assert members[1].entry.inode == members[1].entry.where.at == 1024  # type: ignore[union-attr]
    assert members[3].entry.where == ("ctx", 2560)


def test_members_carry_no_digest_unless_asked() -> None:
    data = member(b"a", b"1") + END
    assert [m.digest for m in iter_members(io.BytesIO(data), digests=False)] == [b""]


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_every_format_of_gnu_tar_reads_alike(form: str, tmp_path: Path) -> None:
    need("tar")
    (tmp_path / "in/d").mkdir(parents=True)
    (tmp_path / "in/d/file").write_bytes(b"content" * 1000)
    (tmp_path / "in/d/link").symlink_to("file")
    (tmp_path / "in/d/hard").hardlink_to(tmp_path / "in/d/file")
    if form not in {"v7", "ustar"}:
        (tmp_path / "in" / ("n" * 180)).write_bytes(b"long")
    command = ["tar", "-C", str(tmp_path / "in"), f"--format={form}", "-cf", "-", "."]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    entries = read_layer(io.BytesIO(data)).changes.entries
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        want = {m.name.removeprefix(".").lstrip("/"): int(m.mtime) for m in archive}
    assert {path: entry.mtime for path, entry in entries.items()} == want
    assert entries["d/hard"] == entries["d/file"]
    assert entries["d/file"].inode


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_damaged_archives_raise_typed_errors_only(data: st.DataObject) -> None:
    whole = bytearray(
        pax({"path": "long", "SCHILY.xattr.user.a": "b"})
        + member(b"a", b"x" * 700)
        + gnu_long(b"n" * 150)
        + header(b"n", kind=b"2", link=b"a")
        + header(b"h", kind=b"1", link=b"long")
        + END
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
        block = at // 512 * 512
        if data.draw(st.booleans()):  # get past the checksum
            whole[block + 148 : block + 156] = b" " * 8
            total = sum(whole[block : block + 512])
            whole[block + 148 : block + 156] = b"%06o\0 " % total
    with contextlib.suppress(LayerError):
        read_layer(io.BytesIO(bytes(whole)))
