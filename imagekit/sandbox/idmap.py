"""User namespaces: which ids a user without privileges may have, and how they get there.

With `newuidmap` and a range of subordinate ids, root inside is the caller outside and 1 onwards
are the range; else root inside is the caller and no other id exists.

Spec: security.md X-14.
"""

import os
from typing import Final, NamedTuple

from imagekit.sandbox import syscalls
from imagekit.sandbox.failure import SetupError

LEAST_IDS: Final = 65536
_TOOL_FOLDERS: Final = ("/usr/bin", "/bin", "/usr/local/bin", "/sbin", "/usr/sbin")


class Extent(NamedTuple):
    """`size` ids from `inside` on are those from `outside` on."""

    inside: int
    outside: int
    size: int


def find_tool(name: str) -> str | None:
    """Where a set-uid tool is; PATH is not asked, a caller's folder has no say here."""
    for folder in _TOOL_FOLDERS:
        path = f"{folder}/{name}"
        if os.access(path, os.X_OK):
            return path
    return None


def read_text(path: str) -> str:
    """A small text file of the host; empty if there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        chunks = []
        while chunk := os.read(fd, 1 << 16):
            chunks.append(chunk)
    finally:
        os.close(fd)
    return b"".join(chunks).decode("utf-8", "surrogateescape")


def user_name(uid: int, passwd: str) -> str:
    """The name of `uid` in the text of a passwd file; empty if it has none."""
    for line in passwd.split("\n"):
        fields = line.split(":")
        if len(fields) > 2 and fields[2] == str(uid):
            return fields[0]
    return ""


def parse_subordinate(text: str, uid: int, name: str) -> tuple[tuple[int, int], ...]:
    """The (start, count) ranges that subuid(5) text gives to a user, by name or number."""
    ranges = []
    for line in text.split("\n"):
        fields = line.strip().split(":")
        owner_matches = fields[0] == str(uid) or (name and fields[0] == name)
        if len(fields) == 3 and owner_matches and fields[1].isdecimal() and fields[2].isdecimal():
            ranges.append((int(fields[1]), int(fields[2])))
    return tuple(ranges)


def extents(own: int, ranges: tuple[tuple[int, int], ...]) -> tuple[Extent, ...]:
    """The map: 0 is `own`, and from 1 on the ranges one after the other."""
    result = [Extent(0, own, 1)]
    inside = 1
    for start, count in ranges:
        result.append(Extent(inside, start, count))
        inside += count
    return tuple(result)


def subordinate(kind: str) -> tuple[tuple[int, int], ...]:
    """The caller's ranges in /etc/subuid or /etc/subgid (`kind` is "uid" or "gid").

    Raises:
        SetupError: fewer than 65,536 ids; the hint is the command that gives them.
    """
    uid = os.getuid()
    name = user_name(uid, read_text("/etc/passwd"))
    ranges = parse_subordinate(read_text(f"/etc/sub{kind}"), uid, name)
    if sum(count for _, count in ranges) < LEAST_IDS:
        who = name or str(uid)
        raise SetupError(
            f"/etc/sub{kind} has no {LEAST_IDS} ids for {who}",
            hint=f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {who}",
        )
    return ranges


def enter_with_ranges() -> None:
    """Enter a user namespace with the caller's subordinate ids.

    The tools must run outside of it, so a child is forked before and waits until we are inside.

    Raises:
        SetupError: no ranges, no tools, or they failed.
    """
    maps = {
        "uid": extents(os.getuid(), subordinate("uid")),
        "gid": extents(os.getgid(), subordinate("gid")),
    }
    tools = {kind: find_tool(f"new{kind}map") for kind in maps}
    if None in tools.values():
        raise SetupError(
            "newuidmap and newgidmap are not installed",
            hint="install the package `uidmap` (on some systems `shadow-utils`)",
        )
    owner = os.getpid()
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        os._exit(_map_parent(ready, owner, tools, maps))
    os.close(ready)
    try:
        enter_namespace()
        os.write(go, b"1")
    finally:
        os.close(go)
        _, status = os.waitpid(child, 0)
    if status != 0:
        raise SetupError(
            "newuidmap or newgidmap refused the ranges of /etc/subuid and /etc/subgid",
            hint="check that both are set-uid root and that the ranges do not overlap",
        )


def _map_parent(
    ready: int,
    owner: int,
    tools: dict[str, str | None],
    maps: dict[str, tuple[Extent, ...]],
) -> int:
    if os.read(ready, 1) != b"1":
        return 1
    for kind, tool in tools.items():
        numbers = [str(n) for extent in maps[kind] for n in extent]
        pid = os.posix_spawn(str(tool), [f"new{kind}map", str(owner), *numbers], {})
        _, status = os.waitpid(pid, 0)
        if status != 0:
            return 1
    return 0


def enter_with_one() -> None:
    """Enter a user namespace in which only the caller exists, as root.

    Raises:
        SetupError: user namespaces are not allowed here.
    """
    uid, gid = os.getuid(), os.getgid()
    enter_namespace()
    map_one(uid, gid)


def map_one(uid: int, gid: int) -> None:
    """Make `uid` and `gid`, the caller's before, root of the user namespace it is in."""
    for path, text in (
        ("setgroups", "deny"),
        ("uid_map", f"0 {uid} 1"),
        ("gid_map", f"0 {gid} 1"),
    ):
        fd = os.open(f"/proc/self/{path}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        except OSError as exc:
            raise SetupError(f"the ids of the user namespace: {exc.strerror}") from exc
        finally:
            os.close(fd)


def enter_namespace() -> None:
    """unshare(CLONE_NEWUSER), with what is in the way named."""
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER)
    except OSError as exc:
        raise SetupError(f"no user namespace: {exc.strerror}", hint=_remedy()) from exc


def _remedy() -> str:
    if read_text("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").strip() == "1":
        return "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    if read_text("/proc/sys/kernel/unprivileged_userns_clone").strip() == "0":
        return "sysctl -w kernel.unprivileged_userns_clone=1"
    if read_text("/proc/sys/user/max_user_namespaces").strip() == "0":
        return "sysctl -w user.max_user_namespaces=15000"
    return "in a container, run it with `--security-opt seccomp=unconfined` or as root outside"


def is_mapped(number: int, map_text: str) -> bool:
    """Whether an id exists inside, by the text of /proc/self/uid_map or gid_map."""
    for line in map_text.split("\n"):
        fields = line.split()
        if len(fields) == 3 and int(fields[0]) <= number < int(fields[0]) + int(fields[2]):
            return True
    return False
