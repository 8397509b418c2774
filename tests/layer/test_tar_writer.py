import hashlib
import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagekit.errors import BadWhiteoutError, DigestMismatchError, LayerError
from imagekit.layer.changes import Changes
from imagekit.layer.tar import read_layer, write_layer
from imagekit.layer.tree import CHARACTER, DIRECTORY, FILE, SYMLINK, Entry
from tests.support.strategies_layer import changes
from tests.support.tars import END, Memory, header, layer_bytes, member, pax
from tests.support.tools import need


def names(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getnames()


def test_a_layer_is_these_bytes_and_no_others() -> None:
    memory = Memory()
    data, _ = layer_bytes(
        Changes(
            entries={
                "etc/hosts": memory.file(b"127.0.0.1 localhost\n", uid=5, gid=6, mtime=7),
                "etc": Entry(DIRECTORY, 0o755, mtime=1),
                "bin": Entry(SYMLINK, 0o777, link="usr/bin"),
                "null": Entry(CHARACTER, 0o666, device=(1, 3)),
            },
            whiteouts=frozenset({"etc/motd"}),
            opaque=frozenset({"etc"}),
        ),
        memory,
    )
    assert data == b"".join(
        (
            header(b"bin", kind=b"2", mode=0o777, link=b"usr/bin"),
            header(b"etc/", kind=b"5", mode=0o755, mtime=1),
            header(b"etc/.wh..wh..opq", mode=0),
            header(b"etc/.wh.motd", mode=0),
            member(b"etc/hosts", b"127.0.0.1 localhost\n", uid=5, gid=6, mtime=7),
            header(b"null", kind=b"3", mode=0o666, major=1, minor=3),
            END,
        )
    )


def test_what_ustar_cannot_say_goes_into_sorted_pax_records() -> None:
    entry = Entry(DIRECTORY, 0o755, 0o10000000, 1, -2, xattrs=(("user.a", b"\0\n="),))
    data, _ = layer_bytes(Changes(entries={"é": entry}), Memory())
    records = {
        "SCHILY.xattr.user.a": b"\0\n=",
        "mtime": "-2",
        "path": "é/",
        "uid": "2097152",
    }
    assert pax(records)[512:] == data[512 : 512 + len(pax(records)) - 512]
    assert data.endswith(header(b"__/", kind=b"5", mode=0o755, gid=1) + END)


def test_long_names_use_the_prefix_where_they_can() -> None:
    memory = Memory()
    folder = "d" * 100
    entries = {f"{folder}/{'f' * 100}": memory.file(b""), "g" * 101: memory.file(b"")}
    data, _ = layer_bytes(Changes(entries=entries), memory)
    assert data.startswith(header(b"f" * 100, prefix=folder.encode()))
    assert data[512 + 156 : 512 + 157] == b"x"
    assert names(data) == list(entries)


def test_a_directory_comes_before_its_markers_and_they_before_its_children() -> None:
    memory = Memory()
    data, _ = layer_bytes(
        Changes(
            entries={
                "a-b": memory.file(b""),
                "a/x": memory.file(b""),
                "a": Entry(DIRECTORY, 0o755),
                "": Entry(DIRECTORY, 0o755),
                "a/x.d/y": memory.file(b""),
            },
            whiteouts=frozenset({"a/zz", "a/b", "b"}),
            opaque=frozenset({"a"}),
        ),
        memory,
    )
    want = [".", ".wh.b", "a", "a/.wh..wh..opq", "a/.wh.b", "a/.wh.zz", "a/x", "a/x.d/y", "a-b"]
    assert names(data) == want


def test_the_order_of_the_mapping_does_not_matter() -> None:
    memory = Memory()
    entries = {name: memory.file(name.encode()) for name in ("b", "a/c", "a/b", "z", "é")}
    turned = dict(reversed(entries.items()))
    assert (
        layer_bytes(Changes(entries=entries), memory)[0]
        == layer_bytes(Changes(entries=turned), memory)[0]
    )


def test_the_first_name_of_a_file_has_the_content_and_the_others_link_to_it() -> None:
    memory = Memory()
    one = memory.file(b"content", inode=9)
    data, index = layer_bytes(Changes(entries={"b": one, "a": one, "c": one}), memory)
    assert data == b"".join(
        (
            member(b"a", b"content"),
            header(b"b", kind=b"1", link=b"a"),
            header(b"c", kind=b"1", link=b"a"),
            END,
        )
    )
    entries = index.changes.entries
    assert entries["a"] == entries["b"] == entries["c"]
    assert entries["a"].inode == 512


def test_names_of_one_inode_that_differ_become_separate_files() -> None:
    memory = Memory()
    one = memory.file(b"content", inode=9)
    entries = {"a": one, "b": one._replace(uid=5)}
    data, index = layer_bytes(Changes(entries=entries), memory)
    assert data == member(b"a", b"content") + member(b"b", b"content", uid=5) + END
    assert index.changes.entries["b"].inode == 0


def test_epoch_is_the_latest_time() -> None:
    memory = Memory()
    entries = {"old": memory.file(b"", mtime=5), "new": Entry(DIRECTORY, 0o755, mtime=50)}
    _, index = layer_bytes(Changes(entries=entries), memory, epoch=10)
    assert {path: entry.mtime for path, entry in index.changes.entries.items()} == {
        "old": 5,
        "new": 10,
    }


def test_blocks_of_one_mebibyte_reach_the_sink() -> None:
    memory = Memory()
    entries = {"a": memory.file(b"a" * 3_000_000), "b": memory.file(b"b" * 500)}
    data, index = layer_bytes(Changes(entries=entries), memory)
    assert memory.blocks[:-1] == [1 << 20, 1 << 20]
    assert sum(memory.blocks) == len(data) == index.size


def test_missing_digests_are_computed_and_given_ones_are_trusted() -> None:
    memory = Memory()
    known = memory.file(b"two")._replace(digest=b"?" * 32)
    entries = {"one": memory.file(b"one"), "two": known, "big": memory.file(b"x" * (1 << 20))}
    _, index = layer_bytes(Changes(entries=entries), memory)
    got = {path: entry.digest for path, entry in index.changes.entries.items()}
    assert got == {
        "one": hashlib.sha256(b"one").digest(),
        "two": b"?" * 32,
        "big": hashlib.sha256(b"x" * (1 << 20)).digest(),
    }


@pytest.mark.parametrize("size", [3, 1 << 20])
def test_verify_checks_the_digests_that_are_given(size: int) -> None:
    memory = Memory()
    entry = memory.file(b"x" * size)._replace(digest=b"?" * 32)
    with pytest.raises(DigestMismatchError):
        write_layer(Changes(entries={"a": entry}), memory, memory, verify=True)


@pytest.mark.parametrize("actual", [0, 9, 11, 1 << 20])
@pytest.mark.parametrize("stated", [10, 1 << 20])
def test_content_of_another_size_is_an_error(stated: int, actual: int) -> None:
    memory = Memory()
    entry = memory.file(b"x" * actual)._replace(size=stated)
    if stated == actual:
        write_layer(Changes(entries={"a": entry}), memory, memory)
        return
    with pytest.raises(LayerError, match="bytes of content"):
        write_layer(Changes(entries={"a": entry}), memory, memory)


def test_names_that_would_be_whiteouts_are_refused() -> None:
    memory = Memory()
    for path in (".wh.a", "b/.wh.a", ".wh.a/b", "b/.wh..wh..opq"):
        with pytest.raises(BadWhiteoutError):
            layer_bytes(Changes(entries={path: memory.file(b"")}), memory)
    for path in (".wh.a", "a/..", "", "."):
        with pytest.raises(BadWhiteoutError):
            layer_bytes(Changes(whiteouts=frozenset({path})), memory)


def test_what_no_tar_can_carry_is_refused() -> None:
    for path, entry in (
        ("a\0b", Entry(FILE, 0)),
        ("a", Entry(FILE, 0, xattrs=(("a=b", b""),))),
        ("a", Entry(CHARACTER, 0, device=(1, 1 << 21))),
    ):
        with pytest.raises(LayerError):
            layer_bytes(Changes(entries={path: entry}), Memory())


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(changes(), st.sampled_from([None, 0, 1_000_000]))
def test_reading_what_was_written_gives_an_equal_index(
    layer: tuple[Changes, Memory], epoch: int | None
) -> None:
    value, memory = layer
    data, index = layer_bytes(value, memory, epoch=epoch)
    assert read_layer(io.BytesIO(data)) == index
    assert layer_bytes(index.changes, _Slices(data, memory), epoch=epoch) == (data, index)
    want = {path: (e.kind, e.uid, e.gid, e.size, e.xattrs) for path, e in value.entries.items()}
    got = index.changes.entries.items()
    assert {path: (e.kind, e.uid, e.gid, e.size, e.xattrs) for path, e in got} == want
    assert index.changes.whiteouts == value.whiteouts
    assert index.changes.opaque == value.opaque
    assert index.changes.implied == value.implied


class _Slices(Memory):
    """The contents of files where an index says they are."""

    def __init__(self, data: bytes, memory: Memory) -> None:
        super().__init__(memory.contents)
        self._data = data

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        assert entry.where is not None
        at = entry.where.at
        assert isinstance(at, int)
        yield self._data[at : at + entry.size]


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(layer=changes())
@pytest.mark.parametrize("program", ["tar", "bsdtar"])
def test_other_programs_list_and_extract_the_same(
    program: str, layer: tuple[Changes, Memory], tmp_path_factory: pytest.TempPathFactory
) -> None:
    need(program)
    value, memory = layer
    data, index = layer_bytes(value, memory)
    archive = tmp_path_factory.mktemp("tar") / "layer.tar"
    archive.write_bytes(data)
    listed = _output(program, "tf", archive, *(["--quoting-style=literal"] * (program == "tar")))
    entries = index.changes.entries
    count = len(entries) + len(value.whiteouts) + len(value.opaque)
    breaks = sum(path.count("\n") for path in [*entries, *value.whiteouts, *value.opaque])
    if program == "tar":  # bsdtar escapes what it lists
        assert listed.count(b"\n") == count + breaks
    files = [entry for entry in entries.values() if entry.kind == FILE]
    contents = _output(program, "xOf", archive)
    once = {entry.where: entry for entry in files}
    assert len(contents) == sum(entry.size for entry in once.values())


def _output(*command: str | Path) -> bytes:
    env = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, check=True, env=env, timeout=60)
    return done.stdout


@settings(deadline=None, max_examples=100)
@given(changes())
def test_tarfile_reads_the_same_members(layer: tuple[Changes, Memory]) -> None:
    data, index = layer_bytes(*layer)
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8") as archive:
        members = archive.getmembers()
    got = {
        member.name if member.name != "." else "": (
            member.mode,
            member.uid,
            member.gid,
            int(member.mtime),
            member.linkname if member.issym() else "",
        )
        for member in members
        if ".wh." not in member.name
    }
    assert got == {
        path: (e.mode, e.uid, e.gid, e.mtime, e.link) for path, e in index.changes.entries.items()
    }
