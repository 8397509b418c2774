import ctypes
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from imagekit.errors import SandboxError
from imagekit.sandbox import BindMount, FileMount, TmpfsMount


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "f").write_text("host\n")
    (folder / "sub" / "g").write_text("deep\n")
    return folder


def test_a_bind_is_read_only(box: Any, source: Path) -> None:
    mounts = (BindMount(source=str(source), target="/src"),)
    result = box.run("cat /src/f; echo x > /src/f; touch /src/new", mounts=mounts)
    assert result.out == "host\n"
    assert result.err.count("Read-only") == 2
    assert (source / "f").read_text() == "host\n"


def test_writes_to_a_copy_are_gone_with_the_step(box: Any, source: Path) -> None:
    mounts = (BindMount(source=str(source), target="/src", writable_copy=True),)
    result = box.run(
        "cat /src/f; echo x > /src/f && rm -r /src/sub && touch /src/new && cat /src/f",
        mounts=mounts,
    )
    assert result.out == "host\nx\n"
    assert sorted(p.name for p in source.iterdir()) == ["f", "sub"]
    assert (source / "f").read_text() == "host\n"
    assert result.changes() == set()


def test_a_writable_copy_of_a_file(box: Any, source: Path) -> None:
    mounts = (BindMount(source=str(source / "f"), target="/one", writable_copy=True),)
    assert box.run("echo x > /one && cat /one", mounts=mounts).out == "x\n"
    assert (source / "f").read_text() == "host\n"


def test_a_cache_keeps_what_is_written(box: Any, source: Path) -> None:
    mounts = (BindMount(source=str(source), target="/c", read_only=False),)
    assert box.run("echo kept > /c/new", mounts=mounts).code == 0
    assert (source / "new").read_text() == "kept\n"


def test_a_file_can_be_bound(box: Any, source: Path) -> None:
    mounts = (BindMount(source=str(source / "f"), target="/deep/er/one"),)
    result = box.run("cat /deep/er/one", mounts=mounts)
    assert result.out == "host\n"
    assert result.changes() == set()


def test_layers_are_merged_and_a_part_of_them_is_mounted(box: Any, tmp_path: Path) -> None:
    top, bottom = tmp_path / "top", tmp_path / "bottom"
    for layer, name in ((top, "a"), (bottom, "b")):
        (layer / "d").mkdir(parents=True)
        (layer / "d" / name).write_text(name)
        (layer / "d" / "both").write_text(name)
    stack = (str(top), str(bottom))
    mounts = (BindMount(source=stack, target="/m", subpath="/d"),)
    result = box.run("ls /m; cat /m/both; touch /m/x", mounts=mounts)
    assert result.out == "a\nb\nboth\na"
    assert "Read-only" in result.err
    mounts = (BindMount(source=stack[:1], target="/m", subpath="d/a", writable_copy=True),)
    assert box.run("echo +>> /m; cat /m", mounts=mounts).out == "a+\n"


@pytest.mark.parametrize("escape", ["/link", "/../../etc/passwd", "link/../sub"])
def test_a_subpath_stays_in_its_source(
    box: Any, source: Path, tmp_path: Path, escape: str
) -> None:
    (tmp_path / "outside").write_text("secret")
    (source / "link").symlink_to(tmp_path / "outside")
    mounts = (BindMount(source=str(source), subpath=escape, target="/m"),)
    with pytest.raises(SandboxError) as info:
        box.run("cat /m", mounts=mounts)
    assert info.value.code == "bad-mount"


def test_a_tmpfs_is_empty_sized_and_gone(box: Any) -> None:
    mounts = (TmpfsMount(target="/t", size=65536, mode=0o750),)
    result = box.run("stat -c %a /t; head -c 100000 /dev/zero > /t/x; ls /t", mounts=mounts)
    assert result.out == "750\nx\n"
    assert "I/O error" in result.err
    assert result.changes() == set()


def test_a_file_mount_is_seen_by_the_step_only(box: Any, tmp_path: Path) -> None:
    canary = b"canary-8c1f"
    mounts = (FileMount(target="/run/secrets/s", content=canary),)
    result = box.run(
        "stat -c '%a %u %g' /run/secrets/s; cat /run/secrets/s; echo x > /run/secrets/s",
        mounts=mounts,
    )
    assert result.out == "400 0 0\ncanary-8c1f"
    assert "Read-only" in result.err
    assert result.changes() == set()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or canary not in path.read_bytes()


def test_owner_and_mode_of_a_file_mount(box: Any) -> None:
    ids = (0, 0) if box.sandbox.name == "single-uid" else (3, 4)
    mount = FileMount(
        target="/x/y", content=b"#!/bin/sh\necho ran\n", mode=0o555, uid=ids[0], gid=ids[1]
    )
    result = box.run("stat -c '%a %u %g' /x/y; /x/y", mounts=(mount,))
    assert result.out == f"555 {ids[0]} {ids[1]}\nran\n"


def test_a_file_below_dev_can_be_mounted(box: Any) -> None:
    mounts = (FileMount(target="/dev/pipes/EOF", content=b"#!/bin/sh\necho hi\n", mode=0o755),)
    assert box.run("/bin/sh -c /dev/pipes/EOF", mounts=mounts).out == "hi\n"


def test_a_large_file_mount_arrives_whole(box: Any) -> None:
    content = os.urandom(3 << 20)
    mounts = (FileMount(target="/big", content=content),)
    assert box.run("wc -c < /big", mounts=mounts).out == f"{3 << 20}\n"


def test_stubs_leave_no_trace_in_the_layer(box: Any, bare_root: Path, tmp_path: Path) -> None:
    (bare_root / "etc").mkdir()
    os.utime(bare_root / "etc", (1_000_000_000, 1_000_000_000))
    (tmp_path / "v").mkdir()
    mounts = (
        BindMount(source=str(tmp_path / "v"), target="/a/b/c"),
        FileMount(target="/etc/deep/secret", content=b"x"),
    )
    result = box.run("ls /etc", root=box.overlay(bare_root), mounts=mounts)
    assert result.out.split() == ["deep", "hosts", "resolv.conf"]
    assert result.changes() == {"dev", "proc", "sys"}


def test_what_a_step_puts_beside_a_stub_stays(box: Any, bare_root: Path) -> None:
    mounts = (FileMount(target="/run/secrets/s", content=b"x"),)
    result = box.run("touch /run/mine /etc/mine", root=box.overlay(bare_root), mounts=mounts)
    assert result.changes() >= {"run", "run/mine", "etc", "etc/mine"}
    assert not (result.upper / "etc" / "hosts").exists()
    assert not (result.upper / "run" / "secrets").exists()


def test_a_folder_that_the_step_changed_is_kept(box: Any, bare_root: Path) -> None:
    (bare_root / "etc").mkdir()
    result = box.run("chmod 700 /etc", root=box.overlay(bare_root))
    assert stat.S_IMODE((result.upper / "etc").stat().st_mode) == 0o700


def test_times_of_a_plain_folder_are_as_before(box: Any, bare_root: Path) -> None:
    from imagekit.sandbox import Folder  # noqa: PLC0415

    (bare_root / "etc").mkdir()
    os.utime(bare_root / "etc", ns=(5, 1_000_000_007))
    assert box.run("true", root=Folder(str(bare_root))).code == 0
    assert (bare_root / "etc").stat().st_mtime_ns == 1_000_000_007
    assert list((bare_root / "etc").iterdir()) == []


def test_clean_up_does_not_follow_what_a_step_put_in_its_way(
    box: Any, bare_root: Path, tmp_path: Path
) -> None:
    """CVE-2024-23652: the parent of a stub becomes a link to a folder of the host."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "s").write_text("")
    mounts = (FileMount(target="/run/secrets/s", content=b"x"),)
    result = box.run(
        f"mv /run /gone; ln -s {victim.parent} /run; ln -s {victim} /link; ls -la /",
        root=box.overlay(bare_root),
        mounts=mounts,
    )
    assert (victim / "s").exists(), result.out


def test_etc_files_are_generated_and_the_images_stay(box: Any, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    (layer / "etc").mkdir(parents=True)
    for name in ("hosts", "resolv.conf", "hostname"):
        (layer / "etc" / name).write_text("mine\n")
    result = box.run(
        "cat /etc/hosts /etc/hostname; echo x > /etc/hosts; rm /etc/resolv.conf",
        root=box.overlay(layer, box.lower),
        hostname="zork",
        extra_hosts=(("db", "10.1.2.3"),),
    )
    assert "10.1.2.3\tdb\n" in result.out
    assert "localhost zork\n" in result.out
    assert result.out.endswith("zork\n")
    assert "Read-only" in result.err
    assert "busy" in result.err
    assert result.changes() == set()


def test_a_root_without_a_hostname_file_gets_none(box: Any) -> None:
    assert "hostname" not in box.run("ls /etc").out


def test_a_resolv_conf_that_dangles_is_made_inside(box: Any, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    (layer / "etc").mkdir(parents=True)
    (layer / "etc" / "resolv.conf").symlink_to("../../../run/systemd/resolve/stub.conf")
    result = box.run(
        "cat /run/systemd/resolve/stub.conf > /copy; readlink /etc/resolv.conf",
        root=box.overlay(layer, box.lower),
    )
    assert result.code == 0, result.err
    assert result.changes() == {"copy"}


@pytest.mark.parametrize(
    "trap", ["/proc/sys/kernel/core_pattern", "/proc/self/exe", "/sys/kernel/uevent_helper"]
)
def test_a_mount_point_that_leads_into_the_kernels_files_is_refused(
    box: Any, tmp_path: Path, trap: str
) -> None:
    layer = tmp_path / "layer"
    (layer / "etc").mkdir(parents=True)
    (layer / "etc" / "resolv.conf").symlink_to(trap)
    with pytest.raises(SandboxError) as info:
        box.run("true", root=box.overlay(layer, box.lower))
    assert info.value.code == "bad-mount"


@pytest.mark.parametrize("path", ["dev/null", "dev/console", "dev/pts", "dev/shm"])
def test_device_names_that_are_links_in_the_image_are_harmless(
    box: Any, tmp_path: Path, path: str
) -> None:
    layer = tmp_path / "layer"
    (layer / "dev").mkdir(parents=True)
    (layer / path).symlink_to("/proc/sys/kernel/core_pattern")
    result = box.run("echo x > /dev/null; cat /proc/keys", root=box.overlay(layer, box.lower))
    assert (result.code, result.out) == (0, "")


def test_mount_points_through_links_stay_in_the_root(box: Any, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    layer = tmp_path / "layer"
    layer.mkdir()
    (layer / "run2").symlink_to(outside)
    (layer / "up").symlink_to("../../../../..")
    mounts = (
        FileMount(target="/run2/s", content=b"1"),
        FileMount(target="/up/t", content=b"2"),
    )
    result = box.run(f"cat {outside}/s /t", root=box.overlay(layer, box.lower), mounts=mounts)
    assert result.out == "12"
    assert list(outside.iterdir()) == []
    assert result.changes() == set()


def test_a_mount_point_that_changes_during_set_up_never_leads_out(
    box: Any, tmp_path: Path
) -> None:
    """CVE-2021-30465: a folder shared with another step flips to a link and back."""
    shared, outside = tmp_path / "shared", tmp_path / "outside"
    (shared / "t").mkdir(parents=True)
    outside.mkdir()
    (shared / "l").symlink_to(outside)
    done = threading.Event()

    libc = ctypes.CDLL(None)
    names = (os.fsencode(shared / "t"), os.fsencode(shared / "l"))

    def flip() -> None:
        while not done.is_set():
            libc.renameat2(-100, names[0], -100, names[1], 2)  # RENAME_EXCHANGE

    renamer = threading.Thread(target=flip)
    renamer.start()
    mounts = (
        BindMount(source=str(shared), target="/c", read_only=False),
        FileMount(target="/c/t/deep/s", content=b"secret"),
    )
    try:
        for _ in range(30):
            try:
                box.run("true", mounts=mounts)
            except SandboxError as exc:
                assert exc.code == "bad-mount"  # noqa: PT017 - either outcome is right
    finally:
        done.set()
        renamer.join()
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("target", ["/", "/.", "//", "/proc/x", "/sys/firmware"])
def test_targets_that_cannot_be(box: Any, target: str) -> None:
    with pytest.raises(SandboxError) as info:
        box.run("true", mounts=(TmpfsMount(target=target),))
    assert info.value.code == "bad-mount"


def test_a_file_over_a_folder_is_an_error(box: Any) -> None:
    with pytest.raises(SandboxError) as info:
        box.run("true", mounts=(FileMount(target="/etc", content=b""),))
    assert info.value.code == "bad-mount"


def test_a_missing_source_is_an_error(box: Any, tmp_path: Path) -> None:
    with pytest.raises(SandboxError) as info:
        box.run("true", mounts=(BindMount(source=str(tmp_path / "no"), target="/m"),))
    assert info.value.code == "bad-mount"


def test_devices_in_a_mount_open_nothing(box: Any, source: Path) -> None:
    if box.sandbox.name != "root":
        pytest.skip("only root can make the node")
    os.mknod(source / "null", 0o20666, os.makedev(1, 3))
    mounts = (BindMount(source=str(source), target="/m"),)
    assert "ermission" in box.run("cat /m/null", mounts=mounts).err
