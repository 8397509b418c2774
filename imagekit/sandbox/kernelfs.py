"""/proc, /sys and /dev of a step: fresh, masked, and with no more devices than it needs.

Sources and targets of masks are fds whose file system or device number was checked; after
mounting, what is seen there is checked again (CVE-2025-31133, CVE-2025-52565, CVE-2025-52881).

Spec: security.md X-7, X-8, X-9.
"""

import errno
import os
import stat
from typing import Final

from imagekit.sandbox import syscalls
from imagekit.sandbox.failure import SetupError
from imagekit.sandbox.rootfs import Staging, clone, special_folder
from imagekit.sandbox.syscalls import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    PROC_SUPER_MAGIC,
    SYSFS_MAGIC,
    TMPFS_MAGIC,
)

MASKED_PROC: Final = (
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
)
MASKED_SYS: Final = ("firmware", "devices/virtual/powercap")
CGROUP: Final = "fs/cgroup"
READ_ONLY_PROC: Final = ("bus", "fs", "irq", "sys", "sysrq-trigger")
DEVICES: Final = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
}
LINKS: Final = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}

_NO_PROGRAMS: Final = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
_INSIDE: Final = (
    syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS
)
_TTY_GROUP: Final = 5


def open_host_devices() -> dict[str, int]:
    """O_PATH fds of the host's devices, each checked to be the one its name says.

    Raises:
        SetupError: the host's /dev/null is missing or something else.
    """
    found = {}
    for name, (major, minor) in DEVICES.items():
        try:
            fd = os.open(f"/dev/{name}", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if _is_device(fd, major, minor):
            found[name] = fd
        else:
            os.close(fd)
    if "null" not in found:
        raise SetupError("/dev/null of the host is no null device")
    return found


def open_null() -> int:
    """An fd of the step's own /dev/null, after its root was entered.

    Raises:
        SetupError: a mount has put something else there.
    """
    fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not _is_device(fd, *DEVICES["null"]):
        raise SetupError("/dev/null of the step is no null device", code="bad-mount")
    return fd


def _is_device(fd: int, major: int, minor: int) -> bool:
    status = os.fstat(fd)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(major, minor)


def mount_proc(root: int) -> int:
    """Mount a fresh procfs; an fd of its root.

    Raises:
        SetupError: the kernel refuses, as it does in containers whose own /proc is masked.
    """
    target = special_folder(root, "proc")
    try:
        tree = syscalls.new_mount("proc", _NO_PROGRAMS, {})
    except OSError as exc:
        raise SetupError(
            f"a fresh /proc: {exc.strerror}",
            hint="in a container, run it with `--security-opt systempaths=unconfined`",
        ) from exc
    syscalls.move_mount(tree, target)
    os.close(target)
    return tree


def mount_sys(root: int, host_sys: int) -> int:
    """Mount sysfs read-only, the host's where a fresh one is not allowed; an fd of its root."""
    target = special_folder(root, "sys")
    attributes = _NO_PROGRAMS | MOUNT_ATTR_RDONLY
    try:
        tree = syscalls.new_mount("sysfs", attributes, {})
    except OSError as exc:
        if exc.errno != errno.EPERM:
            raise
        if syscalls.filesystem_type(host_sys) != SYSFS_MAGIC:
            raise SetupError("/sys of the host is no sysfs") from exc
        tree = syscalls.clone_tree(host_sys, recursive=True)
        syscalls.set_mount_attributes(tree, attributes, recursive=True)
    syscalls.move_mount(tree, target)
    os.close(target)
    return tree


def mask(proc: int, sys: int, null: int, staging: Staging) -> None:
    """Hide what tells about or changes the machine, and make the rest of it read-only."""
    masks = _Masks(null, staging)
    for name in MASKED_PROC:
        masks.cover(proc, name, PROC_SUPER_MAGIC)
    for name in MASKED_SYS:
        masks.cover(sys, name, SYSFS_MAGIC)
    masks.cover(sys, CGROUP, None)
    for name in READ_ONLY_PROC:
        fd = _open_inside(proc, name, PROC_SUPER_MAGIC)
        if fd is not None:
            tree = syscalls.clone_tree(fd, recursive=True)
            syscalls.set_mount_attributes(tree, MOUNT_ATTR_RDONLY | _NO_PROGRAMS, recursive=True)
            syscalls.move_mount(tree, fd)
            os.close(tree)
            os.close(fd)


def _open_inside(base: int, name: str, magic: int | None) -> int | None:
    """An fd of `name` if there is such a thing, checked to be on the file system `magic`."""
    try:
        fd = syscalls.openat2(base, name, os.O_PATH, _INSIDE)
    except FileNotFoundError:
        return None
    if magic is not None and syscalls.filesystem_type(fd) != magic:
        os.close(fd)
        raise SetupError(f"{name} is not on the file system it should be on")
    return fd


class _Masks:
    """Covers files with the null device and folders with an empty, read-only one."""

    def __init__(self, null: int, staging: Staging) -> None:
        self.null = null
        self.staging = staging

    def cover(self, base: int, name: str, magic: int | None) -> None:
        target = _open_inside(base, name, magic)
        if target is None:
            return
        folder = stat.S_ISDIR(os.fstat(target).st_mode)
        if folder:
            tree = clone(self.staging.empty, MOUNT_ATTR_RDONLY | _NO_PROGRAMS)
        else:
            tree = syscalls.clone_tree(self.null)
        syscalls.move_mount(tree, target)
        os.close(tree)
        os.close(target)
        self._check(base, name, folder=folder)

    def _check(self, base: int, name: str, *, folder: bool) -> None:
        seen = syscalls.openat2(base, name, os.O_PATH, _INSIDE)
        try:
            if folder:
                holds = syscalls.filesystem_type(seen) == TMPFS_MAGIC
            else:
                holds = _is_device(seen, *DEVICES["null"])
        finally:
            os.close(seen)
        if not holds:
            raise SetupError(f"the mask of {name} did not hold")


def mount_dev(root: int, devices: dict[str, int], *, tty_group: bool) -> None:
    """Mount /dev: a tmpfs with the harmless devices bound from the host, pts, shm, mqueue.

    It is `nodev` itself, so that a node made by the step opens nothing.
    """
    target = special_folder(root, "dev")
    options: dict[str, str | None] = {"size": "65536k", "mode": "0755"}
    tree = syscalls.new_mount("tmpfs", _NO_PROGRAMS, options)
    syscalls.move_mount(tree, target)
    os.close(target)
    for name, source in devices.items():
        stub = os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=tree)
        node = syscalls.clone_tree(source)
        syscalls.move_mount(node, stub)
        os.close(stub)
        os.close(node)
    for name, destination in LINKS.items():
        os.symlink(destination, name, dir_fd=tree)
    pts: dict[str, str | None] = {"newinstance": None, "ptmxmode": "0666", "mode": "0620"}
    if tty_group:
        pts["gid"] = str(_TTY_GROUP)
    _mount_below(tree, "pts", "devpts", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, pts)
    _mount_below(tree, "shm", "tmpfs", _NO_PROGRAMS, {"size": "65536k", "mode": "1777"})
    _mount_below(tree, "mqueue", "mqueue", _NO_PROGRAMS, {})
    os.close(tree)


def _mount_below(
    base: int, name: str, fstype: str, attributes: int, options: dict[str, str | None]
) -> None:
    os.mkdir(name, 0o755, dir_fd=base)
    target = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=base)
    tree = syscalls.new_mount(fstype, attributes, options)
    syscalls.move_mount(tree, target)
    os.close(tree)
    os.close(target)
