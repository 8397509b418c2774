"""Entries, and the trees that layers make of them.

A `Tree` is a root file system in memory: what every path is, and where its bytes are, with no
byte of content in it. Trees are values: `apply` (see `changes`) returns a new one that shares all
it can with the old. Paths have no leading slash, `/` between components and no `.` or `..`; the
root is the empty path. Names are bytes, decoded as UTF-8 with `surrogateescape`.
"""

from typing import Final, NamedTuple

FILE: Final = "f"
DIRECTORY: Final = "d"
SYMLINK: Final = "l"
CHARACTER: Final = "c"
BLOCK: Final = "b"
FIFO: Final = "p"


class Where(NamedTuple):
    """Where the bytes of a file are.

    `source` names something that a `Contents` can read: the diff ID of a layer, and then `at` is
    the offset of the content in the uncompressed tar; or a context, and then `at` is the path in
    it.
    """

    source: str
    at: int | str


class Entry(NamedTuple):
    """What is at one path.

    A NamedTuple, not an attrs class: there are tens of thousands of these in an image.

    Attributes:
        kind: one of FILE, DIRECTORY, SYMLINK, CHARACTER, BLOCK, FIFO.
        mode: permission bits with setuid, setgid and sticky; 0o777 for symlinks.
        mtime: whole seconds since the epoch.
        size: bytes of content, 0 for anything but a file.
        link: the target of a symlink, as it stands.
        digest: SHA-256 of the content of a file; empty where it is not known yet.
        where: where the content of a file is.
        inode: files with equal `where.source` and equal non-zero `inode` are names of one file.
        xattrs: (name, value) pairs, sorted by name.
        device: (major, minor) of a device node.
    """

    kind: str
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    link: str = ""
    digest: bytes = b""
    where: Where | None = None
    inode: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()
    device: tuple[int, int] = (0, 0)
