"""System calls that must fail inside, tried by a Python of the host that is bound into the root.

Numbers in the names are those of the probe list of the security requirements.
"""

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from imagekit.sandbox import BindMount

MACHINE = os.uname().machine
PRELUDE = """
import ctypes, errno, json, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(*arguments):
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    ctypes.set_errno(0)
    result = libc.syscall(*wide)
    return errno.errorcode.get(ctypes.get_errno(), '') if result == -1 else 'ok'
def attempt(function, *arguments):
    try:
        function(*arguments)
    except OSError as exc:
        return errno.errorcode.get(exc.errno, str(exc))
    return 'ok'
"""

X86_64 = {
    "09_mount": ("165, b'none', b'/tmp', b'tmpfs', 0, 0", "EPERM"),
    "10_remount": ("165, b'none', b'/proc/sys', b'', 0x1020, 0", "EPERM"),
    "11_umount_of_a_mask": ("166, b'/proc/keys', 2", "EPERM"),
    "12_bind_over_a_mask": ("165, b'/tmp', b'/proc/acpi', b'', 0x1000, 0", "EPERM"),
    "13_pivot_root": ("155, b'/', b'/tmp'", "EPERM"),
    "15_open_tree": ("428, -100, b'/', 1", "EPERM"),
    "15_move_mount": ("429, -100, b'/', -100, b'/tmp', 0", "EPERM"),
    "15_fsopen": ("430, b'tmpfs', 0", "EPERM"),
    "16_setns": ("308, 0, 0", "EPERM"),
    "17_unshare_user": ("272, 0x10000000", "EPERM"),
    "44_keyctl": ("250, 0, -3, 0, 0, 0", "EPERM"),
    "45_add_key": ("248, b'user', b'x', b'y', 1, -3", "EPERM"),
    "45_request_key": ("249, b'user', b'x', 0, 0", "EPERM"),
    "46_bpf": ("321, 0, 0, 0", "EPERM"),
    "47_perf": ("298, 0, 0, -1, -1, 0", "EPERM"),
    "48_userfaultfd": ("323, 0", "EPERM"),
    "49_io_uring": ("425, 1, 0", "EPERM"),
    "50_open_by_handle_at": ("304, -100, 0, 0", "EPERM"),
    "51_kexec": ("246, 0, 0, 0, 0", "EPERM"),
    "51_kexec_file": ("320, 0, 0, 0, 0, 0", "EPERM"),
    "52_init_module": ("175, 0, 0, b''", "EPERM"),
    "52_finit_module": ("313, 0, b'', 0", "EPERM"),
    "53_personality_no_randomize": ("135, 0x0040000", "EPERM"),
    "53_personality_query": ("135, 0xffffffff", "ok"),
    "54_x32_unshare": ("0x40000000 + 272, 0x10000000", "EPERM"),
    "55_clone_newuser": ("56, 0x10000000, 0, 0, 0, 0", "EPERM"),
    "55_clone_newuser_odd": ("56, 0x10000000 | 0x20000000 | 17, 0, 0, 0, 0", "EPERM"),
    "55_clone3": ("435, 0, 0", "ENOSYS"),
    "swapon": ("167, b'/tmp/x', 0", "EPERM"),
    "reboot": ("169, 0, 0, 0, 0", "EPERM"),
    "acct": ("163, 0", "EPERM"),
    "newer_than_known": ("5000,", "ENOSYS"),
    "getpid_works": ("39,", "ok"),
}


def ask(box: Any, mounts: Any, expressions: dict[str, str], **fields: Any) -> dict[str, str]:
    table = ", ".join(f"{name!r}: {text}" for name, text in expressions.items())
    code = PRELUDE + f"print(json.dumps({{{table}}}))"
    argv = ("/usr/bin/python3", "-I", "-S", "-c", code)
    result = box.run(argv, mounts=mounts, **fields)
    assert result.code == 0, result.err
    return json.loads(result.out)  # type: ignore[no-any-return]


@pytest.mark.skipif(MACHINE != "x86_64", reason="the numbers are those of x86_64")
def test_system_calls_that_must_fail_do(box: Any, python_mounts: Any) -> None:
    got = ask(box, python_mounts, {name: f"call({text})" for name, (text, _) in X86_64.items()})
    assert got == {name: wanted for name, (_, wanted) in X86_64.items()}


def test_socket_families(box: Any, python_mounts: Any) -> None:
    got = ask(
        box,
        python_mounts,
        {
            "41_alg": "attempt(socket.socket, 38, socket.SOCK_SEQPACKET)",
            "42_vsock": "attempt(socket.socket, 40, socket.SOCK_STREAM)",
            "inet": "attempt(socket.socket, socket.AF_INET, socket.SOCK_STREAM)",
            "unix": "attempt(socket.socket, socket.AF_UNIX, socket.SOCK_STREAM)",
        },
    )
    assert got == {"41_alg": "EPERM", "42_vsock": "EPERM", "inet": "ok", "unix": "ok"}


def test_capabilities_cannot_be_raised_again(box: Any, python_mounts: Any) -> None:
    capset = (
        "libc.capset(ctypes.create_string_buffer((0x20080522).to_bytes(4, 'little') + bytes(4)),"
        " ctypes.create_string_buffer(b'\\xff' * 24))"
    )
    assert ask(box, python_mounts, {"58_capset": capset}) == {"58_capset": -1}


def test_groups_cannot_be_set_with_a_single_id(box: Any, python_mounts: Any) -> None:
    got = ask(box, python_mounts, {"57_setgroups": "attempt(os.setgroups, [5])"})
    assert got["57_setgroups"] == ("EPERM" if box.sandbox.name == "single-uid" else "ok")


def test_ids_outside_of_the_map_cannot_be_taken(box: Any, python_mounts: Any) -> None:
    if box.sandbox.name == "root":
        pytest.skip("root has all ids")
    got = ask(box, python_mounts, {"56_setuid": "attempt(os.setuid, 70000)"})
    assert got["56_setuid"] == "EINVAL"


def test_abstract_sockets_of_the_host_are_out_of_reach(box: Any, python_mounts: Any) -> None:
    name = f"\0imagekit-probe-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(name)
        server.listen()
        connect = f"attempt(socket.socket(socket.AF_UNIX).connect, {name!r})"
        for network in ("none", "default"):
            got = ask(box, python_mounts, {"59_abstract": connect}, network=network)
            if network == "default" and got["59_abstract"] == "ok":
                pytest.skip("this kernel has no Landlock scopes")
            assert got["59_abstract"] in ("EPERM", "ECONNREFUSED")


def test_files_may_be_moved_between_folders_under_the_scope(box: Any) -> None:
    assert box.run("mkdir /a /b && touch /a/f && mv /a/f /b/g && ln /b/g /a/h").code == 0


def test_the_old_root_cannot_be_found_by_chroot_and_fchdir(box: Any, python_mounts: Any) -> None:
    breakout = (
        "(lambda fd: (os.mkdir('/tmp/j'), os.chroot('/tmp/j'), os.fchdir(fd),"
        " [os.chdir('..') for _ in range(64)], os.chroot('.'), sorted(os.listdir('/')))[-1])"
        "(os.open('/', os.O_RDONLY))"
    )
    names = ask(box, python_mounts, {"14_chroot": breakout})["14_chroot"]
    assert "bin" in names
    assert "boot" not in names


def test_descriptors_of_the_first_process(box: Any, python_mounts: Any) -> None:
    got = ask(box, python_mounts, {"01_fds": "sorted(os.listdir('/proc/self/fd'))"})
    assert got["01_fds"] == ["0", "1", "2", "3"]  # 3 is the listing itself


def test_signals_and_ptrace_of_host_processes(box: Any, python_mounts: Any) -> None:
    pid = os.getpid()
    got = ask(
        box,
        python_mounts,
        {
            "07_kill": f"attempt(os.kill, {pid}, 0)",
            "08_environ": f"attempt(open, '/proc/{pid}/environ')",
        },
    )
    assert got == {"07_kill": "ESRCH", "08_environ": "ENOENT"}


def test_no_tty_can_be_typed_into(box: Any, python_mounts: Any) -> None:
    got = ask(
        box,
        python_mounts,
        {
            "39_tiocsti": "attempt(__import__('fcntl').ioctl, 0, 0x5412, b'x')",
            "39_tty": "attempt(open, '/dev/tty')",
        },
    )
    assert got == {"39_tiocsti": "ENOTTY", "39_tty": "ENOENT"}


@pytest.mark.parametrize(
    "path",
    ["/dev/fuse", "/dev/kvm", "/dev/loop-control", "/dev/net/tun", "/dev/kmsg", "/dev/mem"],
)
def test_devices_that_are_not_there(box: Any, path: str) -> None:
    assert box.run(f"[ -e {path} ]").code == 1


def test_shared_memory_is_the_steps_own(box: Any) -> None:
    assert box.run("ls -A /dev/shm").out == ""


def test_a_helper_program_in_a_script_line_cannot_be_written(box: Any, tmp_path: Path) -> None:
    """04: a script whose interpreter is /proc/self/exe executes the helper's program."""
    folder = tmp_path / "layer"
    folder.mkdir()
    script = folder / "trap"
    script.write_text("#!/proc/self/exe\n")
    script.chmod(0o755)
    helper = Path(f"/proc/{box.sandbox._helper._process.pid}/exe")
    with pytest.raises(OSError, match=r"busy|denied|permitted"):
        os.open(helper, os.O_WRONLY)
    result = box.run(("/trap",), root=box.overlay(folder, box.lower))
    assert result.code != 0


def test_host_files_are_not_reachable_through_a_bound_folder(box: Any, tmp_path: Path) -> None:
    """03: `..` of a bind ends at the root."""
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "outer" / "secret").write_text("")
    mounts = (BindMount(source=str(inner), target="/m", read_only=False),)
    assert "secret" not in box.run("cd /m; ls ..; ls -a /m/../", mounts=mounts).out
