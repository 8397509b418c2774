"""The Linux system calls that set a process apart, which `os` does not have.

Thin: numbers and structures in, `OSError` out. Names are those of the manual pages. Needs Linux
5.12 (`mount_setattr`), the first with overlayfs in user namespaces too is 5.11.
"""

import ctypes
import os
from typing import Final

MS_REC: Final = 0x4000
MS_PRIVATE: Final = 1 << 18
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MNT_DETACH: Final = 2

CLONE_NEWTIME: Final = 0x80
CLONE_NEWNS: Final = 0x20000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

RESOLVE_NO_XDEV: Final = 1
RESOLVE_NO_MAGICLINKS: Final = 2
RESOLVE_NO_SYMLINKS: Final = 4
RESOLVE_BENEATH: Final = 8
RESOLVE_IN_ROOT: Final = 0x10

MOUNT_ATTR_RDONLY: Final = 1
MOUNT_ATTR_NOSUID: Final = 2
MOUNT_ATTR_NODEV: Final = 4
MOUNT_ATTR_NOEXEC: Final = 8

PR_SET_PDEATHSIG: Final = 1
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

PROC_SUPER_MAGIC: Final = 0x9FA0
SYSFS_MAGIC: Final = 0x62656572
TMPFS_MAGIC: Final = 0x01021994

_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_EMPTY_PATHS = 0x04 | 0x40
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_FSMOUNT_CLOEXEC = 1
_FSOPEN_CLOEXEC = 1
_CAPABILITY_VERSION_3 = 0x20080522
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_FILTER_FLAG_TSYNC = 1
_KEYCTL_JOIN_SESSION_KEYRING = 1

_NEW_NUMBERS = {  # from 424 on, all architectures have the same
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_restrict_self": 446,
}
_OLD_NUMBERS = {
    "x86_64": {"pivot_root": 155, "keyctl": 250, "seccomp": 317},
    "aarch64": {"pivot_root": 41, "keyctl": 219, "seccomp": 277},
}

MACHINE: Final = os.uname().machine
NUMBERS: Final = _NEW_NUMBERS | _OLD_NUMBERS.get(MACHINE, {})

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4

Argument = int | bytes | None | ctypes.Array[ctypes.c_char]


def _failed(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def _syscall(name: str, *arguments: Argument) -> int:
    number = NUMBERS.get(name)
    if number is None:
        raise OSError(38, f"{name}: not known for {MACHINE}")
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *wide))
    if result == -1:
        raise _failed(name)
    return result


def mount(source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
    """Mount by path, for what the newer calls cannot say (mount(2))."""
    encoded = (os.fsencode(source), os.fsencode(target), fstype.encode())
    if _libc.mount(*encoded, flags, os.fsencode(data)) == -1:
        raise _failed(f"mount {fstype or source}")


def umount2(target: str, flags: int) -> None:
    """Take a mount away (umount2(2))."""
    if _libc.umount2(os.fsencode(target), flags) == -1:
        raise _failed("umount2")


def unshare(flags: int) -> None:
    """Enter new namespaces, by CLONE_NEW* (unshare(2))."""
    if _libc.unshare(flags) == -1:
        raise _failed("unshare")


def pivot_root(new: str, old: str) -> None:
    """Swap the root of the mount namespace (pivot_root(2))."""
    _syscall("pivot_root", os.fsencode(new), os.fsencode(old))


def prctl(option: int, argument: int = 0, third: int = 0) -> None:
    """Change this process, by PR_* (prctl(2))."""
    if _libc.prctl(option, argument, third, 0, 0) == -1:
        raise _failed("prctl")


def capset(*, effective: int, permitted: int, inheritable: int) -> None:
    """Set this thread's capability sets, bit n being capability n."""
    header = ctypes.create_string_buffer(
        _CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4), size=8
    )
    words = [
        (s >> shift) & 0xFFFFFFFF for shift in (0, 32) for s in (effective, permitted, inheritable)
    ]
    packed = b"".join(word.to_bytes(4, "little") for word in words)
    if _libc.capset(header, ctypes.create_string_buffer(packed, size=24)) == -1:
        raise _failed("capset")


def openat2(dir_fd: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """A new close-on-exec fd; `resolve` is of RESOLVE_*."""
    how = b"".join(n.to_bytes(8, "little") for n in (flags | os.O_CLOEXEC, mode, resolve))
    return _syscall("openat2", dir_fd, os.fsencode(path), ctypes.create_string_buffer(how, 24), 24)


def clone_tree(fd: int, *, recursive: bool = False) -> int:
    """A detached copy of the mount tree that begins at `fd` (open_tree(2))."""
    flags = _OPEN_TREE_CLONE | _AT_EMPTY_PATH | os.O_CLOEXEC | (_AT_RECURSIVE * recursive)
    return _syscall("open_tree", fd, b"", flags)


def move_mount(tree: int, target: int) -> None:
    """Attach a detached mount on what `target` has open."""
    _syscall("move_mount", tree, b"", target, b"", _MOVE_MOUNT_EMPTY_PATHS)


def set_mount_attributes(fd: int, attributes: int, *, recursive: bool = False) -> None:
    """Add MOUNT_ATTR_* to the mount whose root is `fd`; those it has stay."""
    value = attributes.to_bytes(8, "little") + bytes(24)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE * recursive)
    _syscall("mount_setattr", fd, b"", flags, ctypes.create_string_buffer(value, 32), 32)


def new_mount(fstype: str, attributes: int, options: dict[str, str | None]) -> int:
    """A detached mount of a new file system instance; an option of None is a flag."""
    context = _syscall("fsopen", fstype.encode(), _FSOPEN_CLOEXEC)
    try:
        for key, value in options.items():
            if value is None:
                _syscall("fsconfig", context, _FSCONFIG_SET_FLAG, key.encode(), None, 0)
            else:
                text = value.encode()
                _syscall("fsconfig", context, _FSCONFIG_SET_STRING, key.encode(), text, 0)
        _syscall("fsconfig", context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return _syscall("fsmount", context, _FSMOUNT_CLOEXEC, attributes)
    finally:
        os.close(context)


def filesystem_type(fd: int) -> int:
    """The magic number of the file system that `fd` is on (fstatfs(2))."""
    answer = ctypes.create_string_buffer(256)
    if _libc.fstatfs(fd, answer) == -1:
        raise _failed("fstatfs")
    return int.from_bytes(answer.raw[: ctypes.sizeof(ctypes.c_long)], "little")


def close_range(first: int) -> None:
    """Close every fd from `first` on."""
    _syscall("close_range", first, 0xFFFFFFFF, 0)


def set_seccomp_filter(program: bytes) -> None:
    """Install a BPF program for all threads of this process (seccomp(2))."""
    code = ctypes.create_string_buffer(program, size=len(program))
    length = (len(program) // 8).to_bytes(ctypes.sizeof(ctypes.c_void_p), "little")
    address = ctypes.addressof(code).to_bytes(ctypes.sizeof(ctypes.c_void_p), "little")
    header = ctypes.create_string_buffer(length + address, size=len(length + address))
    _syscall("seccomp", _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC, header)


def scope_abstract_sockets() -> None:
    """Keep this process from abstract unix sockets made outside of it (Landlock ABI 6)."""
    attributes = bytes(16) + (1).to_bytes(8, "little")
    ruleset = _syscall(
        "landlock_create_ruleset", ctypes.create_string_buffer(attributes, size=24), 24, 0
    )
    try:
        _syscall("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)


def new_session_keyring() -> None:
    """Leave the caller's session keyring for an empty one."""
    _syscall("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, None, 0, 0, 0)
