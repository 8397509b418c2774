import os
import re
from pathlib import Path
from typing import Any

import pytest

from imagekit.errors import SandboxError
from imagekit.sandbox import Folder, TmpfsMount
from imagekit.sandbox.caps import DOCKER_MASK
from tests.support.busybox import make_root


def _status(box: Any, **fields: Any) -> dict[str, str]:
    out = box.run(("/bin/cat", "/proc/self/status"), **fields).out
    return {k: v.strip() for k, v in (line.split(":", 1) for line in out.splitlines())}


def test_root_has_dockers_capabilities_and_no_others(box: Any) -> None:
    status = _status(box)
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(status[name], 16) == DOCKER_MASK == 0xA80425FB
    assert int(status["CapInh"], 16) == 0
    assert int(status["CapAmb"], 16) == 0


def test_another_user_has_none_but_the_bounding_set(box: Any) -> None:
    if box.sandbox.name == "single-uid":
        pytest.skip("a single id has no other user")
    status = _status(box, user="app")
    for name in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        assert int(status[name], 16) == 0
    assert int(status["CapBnd"], 16) == DOCKER_MASK
    assert status["Uid"].split() == ["1000"] * 4
    assert status["Gid"].split() == ["1001"] * 4
    assert status["Groups"].split() == ["10", "50", "1001"]


def test_no_new_privileges_only_where_set_uid_tools_cannot_work_anyway(box: Any) -> None:
    expected = "1" if box.sandbox.name == "single-uid" else "0"
    assert _status(box)["NoNewPrivs"] == expected
    assert _status(box, security="restricted")["NoNewPrivs"] == "1"


def test_the_filter_is_on_and_off_only_when_insecure(box: Any) -> None:
    assert _status(box)["Seccomp"] == "2"
    status = _status(box, security="insecure")
    assert status["Seccomp"] == "0"
    assert int(status["CapEff"], 16) & ~DOCKER_MASK
    assert status["CapEff"] == status["CapPrm"]


def test_dev_has_the_harmless_devices_only(box: Any) -> None:
    result = box.run("ls /dev; ls -A /dev/shm /dev/mqueue; readlink /dev/ptmx; readlink /dev/fd")
    names = set(result.out.split("/dev/", 1)[0].split())
    assert names == {
        *("null", "zero", "full", "random", "urandom"),
        *("ptmx", "pts", "shm", "mqueue", "fd", "stdin", "stdout", "stderr"),
    }
    assert "pts/ptmx" in result.out
    assert "/proc/self/fd" in result.out


def test_devices_work(box: Any) -> None:
    result = box.run("echo x > /dev/null; head -c 3 /dev/zero | wc -c; echo x > /dev/full")
    assert result.out == "3\n"
    assert "No space" in result.err
    assert box.run("head -c 8 /dev/urandom | wc -c; echo s > /dev/shm/x; cat /dev/shm/x").out == (
        "8\ns\n"
    )


def test_masked_files_are_empty_and_folders_are_empty_and_read_only(box: Any) -> None:
    result = box.run(
        "for f in kcore keys timer_list; do [ ! -e /proc/$f ] || wc -c < /proc/$f; done;"
        "ls -A /sys/firmware /sys/fs/cgroup /proc/acpi /proc/scsi 2>/dev/null | grep -v :"
        " | tr -d '\\n'; touch /sys/firmware/x /sys/fs/cgroup/x"
    )
    assert set(result.out.split()) <= {"0"}
    assert result.err.count("Read-only") >= 1


@pytest.mark.parametrize(
    "path",
    [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sysrq-trigger",
        "/proc/sys/vm/swappiness",
        "/proc/bus/x",
        "/sys/kernel/uevent_helper",
        "/sys/fs/cgroup/x",
        "/sys/x",
    ],
)
def test_nothing_of_the_kernel_can_be_written(box: Any, path: str) -> None:
    result = box.run(f"echo x > {path}")
    assert result.code != 0
    assert re.search(r"Read-only|ermission|nonexistent", result.err)


def test_processes_of_the_host_are_not_seen(box: Any) -> None:
    out = box.run("ls /proc | sort -n | tail -1; ls -d /proc/[0-9]*").out
    assert len(out.split("\n")) < 8
    assert str(os.getpid()) not in out.split("\n")


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
@pytest.mark.parametrize("kind", ["link", "file", "dangling"])
def test_a_root_whose_special_folders_are_none_is_refused(
    box: Any, tmp_path: Path, name: str, kind: str
) -> None:
    root = make_root(tmp_path / "trap", bare=True)
    if kind == "file":
        (root / name).write_text("")
    else:
        (root / name).symlink_to("/tmp" if kind == "link" else "/nowhere")
    with pytest.raises(SandboxError) as info:
        box.run("true", root=box.overlay(root))
    assert info.value.code == "bad-root"
    assert sorted(p.name for p in root.iterdir()) == sorted(["bin", name])


def test_no_working_folder_leads_out_by_a_descriptor(box: Any) -> None:
    for number in range(3, 24):
        with pytest.raises(SandboxError) as info:
            box.run("true", cwd=f"/proc/self/fd/{number}")
        assert info.value.code == "bad-cwd"


def test_a_working_folder_link_to_a_descriptor_leads_nowhere(box: Any, tmp_path: Path) -> None:
    link = tmp_path / "layer"
    link.mkdir()
    for number in range(3, 12):
        (link / f"w{number}").symlink_to(f"/proc/self/fd/{number}")
    for number in range(3, 12):
        with pytest.raises(SandboxError):
            box.run("true", cwd=f"/w{number}/..", root=box.overlay(link, box.lower))


def test_the_helpers_program_is_a_sealed_copy(box: Any) -> None:
    box.sandbox.ready()
    program = Path(f"/proc/{box.sandbox._helper._process.pid}/exe").readlink()
    assert str(program).startswith("/memfd:imagekit-helper")


def test_a_command_that_is_the_helper_itself_cannot_change_the_host(box: Any) -> None:
    """CVE-2019-5736: what runs then is a copy in memory, sealed against writing."""
    result = box.run(("/proc/self/exe", "-c", "open('/proc/self/exe', 'r+b')"))
    assert result.code != 0


def test_network_none_has_a_loopback_that_is_up(box: Any) -> None:
    interfaces = box.run("cat /proc/net/dev", network="none").out
    assert re.findall(r"^\s*(\w+):", interfaces, re.MULTILINE) == ["lo"]
    assert "UP" in box.run("ifconfig lo", network="none").out


def test_network_none_reaches_nothing(box: Any) -> None:
    assert box.run("nc -w 1 169.254.169.254 80 < /dev/null", network="none").code != 0


def test_default_network_is_the_hosts(box: Any) -> None:
    here = set(re.findall(r"^\s*(\w+):", Path("/proc/net/dev").read_text(), re.MULTILINE))
    out = box.run("cat /proc/net/dev").out
    assert set(re.findall(r"^\s*(\w+):", out, re.MULTILINE)) == here


def test_a_device_node_made_by_the_step_opens_nothing(box: Any) -> None:
    if box.sandbox.name != "root":
        pytest.skip("device nodes cannot be made in a user namespace")
    result = box.run("mknod /kmsg c 1 11 && mknod /dev/m c 1 1 && cat /kmsg; cat /dev/m")
    assert result.out == ""
    assert result.err.count("ermission denied") == 2


def test_a_device_node_in_the_image_opens_nothing(box: Any, tmp_path: Path) -> None:
    if box.sandbox.name != "root":
        pytest.skip("only root can make the image")
    root = make_root(tmp_path / "root")
    os.mknod(root / "null", 0o20666, os.makedev(1, 3))
    assert "ermission" in box.run("cat /null", root=Folder(str(root))).err


def test_mounting_is_refused(box: Any) -> None:
    result = box.run("mount -t tmpfs none /tmp; umount /proc/keys; mount -o remount,rw /proc/sys")
    assert result.code != 0
    assert len(result.err.strip().split("\n")) >= 3


def test_set_uid_tools_work_where_ids_exist(box: Any) -> None:
    if box.sandbox.name == "single-uid":
        pytest.skip("a single id has no other user")
    result = box.run(
        "cp /bin/busybox /tmp/su && chmod 4755 /tmp/su && /bin/busybox su app -c '/tmp/su id -u'"
        " || true; stat -c %a /tmp/su"
    )
    assert "4755" in result.out


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", "0 0 0"),
        ("root", "0 0 0"),
        ("0", "0 0 0"),
        ("app", "1000 1001 1001 10 50"),
        ("1000", "1000 1001 1001 10 50"),
        ("app:staff", "1000 50 50"),
        ("1000:50", "1000 50 50"),
        ("7", "7 0 0"),
        ("7:8", "7 8 8"),
        (":staff", "0 50 50"),
    ],
)
def test_user_forms(box: Any, user: str, expected: str) -> None:
    if box.sandbox.name == "single-uid" and expected != "0 0 0":
        with pytest.raises(SandboxError) as info:
            box.run("true", user=user)
        assert info.value.code == "id-unmapped"
        return
    out = box.run("id -u; id -g; id -G", user=user).out.split()
    want = expected.split()
    assert out[:2] == want[:2]
    assert sorted(out[2:]) == sorted(want[2:])


@pytest.mark.parametrize(
    ("user", "code"),
    [
        ("ghost", "user-unknown"),
        ("app:ghosts", "user-unknown"),
        ("4294967296", "id-out-of-range"),
        ("2147483648", "id-out-of-range"),
        ("-1", "id-out-of-range"),
        ("0:-1", "id-out-of-range"),
        ("0:99999999999999999999999", "id-out-of-range"),
    ],
)
def test_users_that_cannot_be(box: Any, user: str, code: str) -> None:
    with pytest.raises(SandboxError) as info:
        box.run("true", user=user)
    assert info.value.code == code


def test_home_comes_from_passwd(box: Any) -> None:
    assert box.run('echo "$HOME"').out == "/root\n"
    if box.sandbox.name != "single-uid":
        assert box.run('echo "$HOME"', user="app").out == "/home/app\n"
        assert box.run('echo "$HOME"', user="77").out == "/\n"


def test_an_id_outside_of_the_range_is_an_error(box: Any) -> None:
    if box.sandbox.name == "root":
        pytest.skip("root has all ids")
    with pytest.raises(SandboxError) as info:
        box.run("true", user="70000")
    assert info.value.code == "id-unmapped"


def test_a_passwd_that_is_a_device_or_a_link_out_is_not_followed(box: Any, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    (layer / "etc").mkdir(parents=True)
    (layer / "etc" / "passwd").symlink_to("/dev/zero")
    with pytest.raises(SandboxError) as info:
        box.run("true", user="app", root=box.overlay(layer, box.lower))
    assert info.value.code == "bad-root"
    (layer / "etc" / "passwd").unlink()
    (layer / "etc" / "passwd").symlink_to("../../../../../../etc/group")
    with pytest.raises(SandboxError) as info:
        box.run("true", user="ghost", root=box.overlay(layer, box.lower))
    assert info.value.code == "user-unknown"


def test_the_host_is_not_reachable_by_chroot_tricks(box: Any) -> None:
    result = box.run(
        "cd /; ls ../../../../..; ls /proc/1/root/", mounts=(TmpfsMount(target="/m"),)
    )
    assert set(result.out.split()) <= {
        *("bin", "dev", "etc", "m", "proc", "root", "run", "sys", "tmp")
    }
