"""What a step changed, read back from real overlays and from plain roots."""

import io
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest

from imagekit.disk.snapshot import Form, Workbench, settle
from imagekit.layer.changes import Changes
from imagekit.layer.tar import read_layer, write_layer
from imagekit.layer.tree import Entry, Tree
from imagekit.oci.digest import Digest
from tests.support.tools import need, need_root, run

Step = Callable[[Path], None]


class HashSink:
    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> None:
        self.data += data

    def finish(self) -> Digest:
        return Digest.of(bytes(self.data))


def base(folder: Path) -> None:
    (folder / "etc").mkdir(parents=True)
    (folder / "etc/passwd").write_text("root:x:0:0\n")
    (folder / "etc/group").write_text("root:x:0:\n")
    (folder / "d/sub/deep").mkdir(parents=True)
    (folder / "d/a").write_text("a")
    (folder / "d/sub/b").write_text("b")
    (folder / "d/sub/deep/c").write_text("c")
    (folder / "l").symlink_to("d/a")
    (folder / "h1").write_text("hard")
    os.link(folder / "h1", folder / "h2")


def base_layer(tmp_path: Path) -> tuple[bytes, Tree]:
    base(tmp_path / "base")
    need("tar")
    out = tmp_path / "base.tar"
    run(["tar", "--sort=name", "--format=posix", "-C", tmp_path / "base", "-cf", out, "."])
    data = out.read_bytes()
    return data, Tree.EMPTY.apply(read_layer(io.BytesIO(data)).changes)


@pytest.fixture(params=["overlay", "overlay by helper", "plain", "plain by helper"])
def after(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Step], Changes]:
    """Runs a step on the base and gives the layer it makes, in every way there is."""
    need_root()
    data, lower = base_layer(tmp_path)
    call = in_thread if "helper" in request.param else None
    bench = Workbench(call, Form())
    settled = settle(read_layer(io.BytesIO(data)).changes, Tree.EMPTY)

    def finish(changes: Changes, folder: Path) -> Changes:
        """Write the layer and check that it makes of the base what the step did."""
        reader = bench.reader(folder)
        try:
            sink = HashSink()
            write_layer(changes, reader, sink, verify=True)
        finally:
            reader.close()
        return read_layer(io.BytesIO(bytes(sink.data))).changes

    def overlay(step: Step) -> Changes:
        bench.extract(settled, io.BytesIO(data), tmp_made(tmp_path / "lower"))
        bench.make_upper(tmp_path / "upper", lower.root.entry)
        with mounted(tmp_path) as merged:
            step(merged)
        found = bench.scan_upper(tmp_path / "upper")
        with opened(bench, tmp_path / "upper") as reader:
            changes = bench.compare(found, lower, reader)
        return finish(changes, tmp_path / "upper")

    def plain(step: Step) -> Changes:
        bench.flat().extract(settled, io.BytesIO(data), tmp_made(tmp_path / "root"))
        before = bench.record(tmp_path / "root")
        step(tmp_path / "root")
        found = bench.scan_folder(tmp_path / "root", before)
        with opened(bench, tmp_path / "root") as reader:
            changes = bench.compare(found, lower, reader)
        return finish(changes, tmp_path / "root")

    return overlay if request.param.startswith("overlay") else plain


@contextmanager
def opened(bench: Workbench, folder: Path) -> Iterator[object]:
    reader = bench.reader(folder)
    try:
        yield reader
    finally:
        reader.close()


@contextmanager
def mounted(tmp_path: Path) -> Iterator[Path]:
    merged, work = tmp_made(tmp_path / "merged"), tmp_made(tmp_path / "work")
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={work}"
    options += ",redirect_dir=off,metacopy=off"
    run(["mount", "-t", "overlay", "overlay", "-o", options, merged])
    try:
        yield merged
    finally:
        run(["umount", merged])


def tmp_made(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


def in_thread(target: str, *args: object, fds: tuple[int, ...] = ()) -> object:
    """What a sandbox's service does, in this process: only JSON and descriptors cross."""
    module, _, name = target.partition(":")
    plain = json.loads(json.dumps(args))
    copies = [os.dup(fd) for fd in fds]
    try:
        keywords = {"fds": copies} if copies else {}
        return json.loads(json.dumps(getattr(import_module(module), name)(*plain, **keywords)))
    finally:
        for fd in copies:
            os.close(fd)


def test_nothing_changed(after: Callable[[Step], Changes]) -> None:
    changes = after(lambda _: None)
    assert (dict(changes.entries), changes.whiteouts) == ({}, frozenset())


def test_a_new_file_comes_with_its_parents(after: Callable[[Step], Changes]) -> None:
    changes = after(lambda root: (root / "d/sub/new").write_text("new") and None)
    assert sorted(changes.entries) == ["d", "d/sub", "d/sub/new"]
    assert changes.entries["d/sub/new"].digest == bytes.fromhex(Digest.of(b"new").hex)


def test_a_removed_file_is_whited_out(after: Callable[[Step], Changes]) -> None:
    changes = after(lambda root: (root / "d/a").unlink())
    assert sorted(changes.entries) == ["d"]
    assert changes.whiteouts == {"d/a"}


def test_a_removed_folder_is_one_whiteout(after: Callable[[Step], Changes]) -> None:
    changes = after(lambda root: shutil.rmtree(root / "d"))
    assert changes.whiteouts == {"d"}
    assert not changes.entries


def test_a_folder_made_again_hides_name_by_name(after: Callable[[Step], Changes]) -> None:
    def step(root: Path) -> None:
        shutil.rmtree(root / "d")
        (root / "d/sub").mkdir(parents=True)
        (root / "d/sub/new").write_text("x")

    changes = after(step)
    assert changes.whiteouts == {"d/a", "d/sub/b", "d/sub/deep"}
    assert not changes.opaque
    assert "d/sub/new" in changes.entries


def test_what_was_opened_for_writing_and_left_alone_is_unchanged(
    after: Callable[[Step], Changes],
) -> None:
    def step(root: Path) -> None:
        before = (root / "etc/passwd").stat()
        with (root / "etc/passwd").open("r+") as file:
            file.write("root:x:0:0\n")
        os.utime(root / "etc/passwd", ns=(before.st_mtime_ns, before.st_mtime_ns))

    assert not after(step).entries


def test_same_size_and_time_but_other_bytes_is_a_change(after: Callable[[Step], Changes]) -> None:
    def step(root: Path) -> None:
        before = (root / "etc/passwd").stat()
        (root / "etc/passwd").write_text("toor:x:0:0\n")
        os.utime(root / "etc/passwd", ns=(before.st_mtime_ns, before.st_mtime_ns))

    assert sorted(after(step).entries) == ["etc", "etc/passwd"]


def test_a_file_made_and_removed_leaves_nothing(after: Callable[[Step], Changes]) -> None:
    def step(root: Path) -> None:
        (root / "d/tmp").write_text("x")
        (root / "d/tmp").unlink()

    changes = after(step)
    assert not changes.entries
    assert not changes.whiteouts


def test_metadata_alone_is_a_change(after: Callable[[Step], Changes]) -> None:
    def step(root: Path) -> None:
        (root / "d/sub").chmod(0o700)
        os.chown(root / "d/a", 12, 13)
        os.setxattr(root / "etc/group", "user.note", b"1")
        os.chown(root / "l", 5, 5, follow_symlinks=False)

    changes = after(step)
    assert sorted(changes.entries) == ["d", "d/a", "d/sub", "etc", "etc/group", "l"]
    assert changes.entries["d/sub"].mode == 0o700
    assert (changes.entries["d/a"].uid, changes.entries["d/a"].gid) == (12, 13)
    assert changes.entries["etc/group"].xattrs == (("user.note", b"1"),)
    assert changes.entries["l"].uid == 5


def test_setuid_survives(after: Callable[[Step], Changes]) -> None:
    def step(root: Path) -> None:
        (root / "su").write_text("x")
        os.chown(root / "su", 0, 5)
        (root / "su").chmod(0o6755)

    assert after(step).entries["su"].mode == 0o6755


def test_new_hard_links_stay_links(after: Callable[[Step], Changes]) -> None:
    def step(root: Path) -> None:
        (root / "n1").write_text("new")
        os.link(root / "n1", root / "n2")
        os.link(root / "d/a", root / "a2")

    entries = after(step).entries
    assert entries["n1"].inode == entries["n2"].inode != 0
    assert entries["d/a"].inode == entries["a2"].inode != 0


def test_kinds_can_change(after: Callable[[Step], Changes]) -> None:
    def step(root: Path) -> None:
        shutil.rmtree(root / "d")
        (root / "d").write_text("now a file")
        (root / "l").unlink()
        (root / "l").mkdir()
        os.mkfifo(root / "p")

    changes = after(step)
    kinds = {path: entry.kind for path, entry in changes.entries.items()}
    assert kinds == {"d": "f", "l": "d", "p": "p"}
    assert not changes.whiteouts


def test_sockets_are_skipped(after: Callable[[Step], Changes]) -> None:
    def step(root: Path) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(root / "s"))

    assert not after(step).entries


def test_large_and_odd_files_survive(after: Callable[[Step], Changes]) -> None:
    name = os.fsdecode(b"\xff\n odd")

    def step(root: Path) -> None:
        (root / "big").write_bytes(b"0123456789abcdef" * 200_000)
        (root / name).write_text("odd")
        (root / "empty").touch()

    entries = after(step).entries
    assert sorted(entries) == sorted(["big", "empty", name])
    assert entries["big"].size == 3_200_000


def test_with_one_id_the_noted_owner_comes_back(tmp_path: Path) -> None:
    form = Form(single_id=True, userxattr=True)
    bench = Workbench(None, form)
    tree = Tree.EMPTY.apply(
        Changes(entries={"l": Entry("l", 0o777, 3, 4, link="x"), "f": Entry("f", 0o644, 7, 8)})
    )
    upper = tmp_path / "upper"
    bench.make_upper(upper, tree.root.entry)
    (upper / "f").write_text("changed")
    os.setxattr(upper / "f", "user.imagekit.owner", b"7:8")
    (upper / "l").symlink_to("x")
    os.utime(upper / "l", (0, 0), follow_symlinks=False)
    found = bench.scan_upper(upper)
    with opened(bench, upper) as reader:
        changes = bench.compare(found, tree, reader)
    if os.geteuid() == 0:
        assert sorted(changes.entries) == ["f"]
    assert (changes.entries["f"].uid, changes.entries["f"].gid) == (7, 8)
    assert not changes.entries["f"].xattrs
