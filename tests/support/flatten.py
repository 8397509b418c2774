"""Images flattened to trees and compared entry by entry.

The reader is Python's own tarfile, used for its headers only, so that it is no kin of the code
under test. Whiteouts act on lower layers alone, as the image-spec has it (layer.md, Whiteouts).
"""

import fnmatch
import hashlib
import io
import itertools
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tests.support.layout import Image

OPAQUE = ".wh..wh..opq"
WHITEOUT = ".wh."
XATTR = "SCHILY.xattr."
NUMBERS = itertools.count()
KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.CHRTYPE: "character device",
    tarfile.BLKTYPE: "block device",
    tarfile.FIFOTYPE: "fifo",
}


class Inode(NamedTuple):
    """All of an entry but its names."""

    kind: str
    mode: int
    owner: tuple[int, int]
    size: int
    content: str
    target: str
    device: tuple[int, int]
    xattrs: tuple[tuple[str, bytes], ...]
    mtime: float


class Node(NamedTuple):
    """One path; hardlinks to an inode share its number."""

    inode: Inode
    number: int


Tree = dict[str, Node]


class Difference(NamedTuple):
    """One way in which a path differs; `what` is the part of the entry."""

    path: str
    what: str
    ours: object
    theirs: object

    def __str__(self) -> str:
        return f"{self.path}: {self.what}: ours {self.ours!r}, theirs {self.theirs!r}"


class Allowed(NamedTuple):
    """A difference with a reason; `path` is a glob in which `*` also matches `/`."""

    path: str
    what: str
    reason: str

    def covers(self, difference: Difference) -> bool:
        whats = self.what.split()
        return difference.what in whats and fnmatch.fnmatchcase(difference.path, self.path)


def flatten(image: Image) -> Tree:
    """The tree that the layers of an image make; paths have no leading slash."""
    tree: Tree = {}
    for layer in image.layers():
        lower = set(tree)
        with tarfile.open(fileobj=io.BytesIO(layer), mode="r:") as tar:
            members = [(clean(member.name), member) for member in tar]
            hidden, added = split(members)
            for path in hidden:
                remove(tree, path, lower)
            for path, member in added:
                apply(tree, path, member, tar)
    return tree


def clean(name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    assert ".." not in parts, f"a layer names {name}"
    return "/".join(parts)


def split(
    members: Iterable[tuple[str, tarfile.TarInfo]],
) -> tuple[list[str], list[tuple[str, tarfile.TarInfo]]]:
    """Paths that whiteouts hide (`x/` for what is in an opaque directory), and the rest."""
    hidden, added = [], []
    for path, member in members:
        folder, _, base = path.rpartition("/")
        prefix = f"{folder}/" if folder else ""
        if base == OPAQUE:
            hidden.append(prefix)
        elif base.startswith(WHITEOUT):
            hidden.append(prefix + base.removeprefix(WHITEOUT))
        else:
            added.append((path, member))
    return hidden, added


def remove(tree: Tree, path: str, names: Iterable[str]) -> None:
    below = path if path.endswith("/") or not path else f"{path}/"
    for name in names:
        if name == path or name.startswith(below):
            tree.pop(name, None)


def apply(tree: Tree, path: str, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
    """Put one entry into the tree, with the parents that the layer implies."""
    parent, _, _ = path.rpartition("/")
    if parent:
        known = tree.get(parent)
        if known is None:
            implied = tarfile.TarInfo(parent)
            implied.type, implied.mode = tarfile.DIRTYPE, 0o755
            apply(tree, parent, implied, tar)
        else:
            assert known.inode.kind == "directory", f"{path}: {parent} is a {known.inode.kind}"
    if member.islnk():
        target = clean(member.linkname)
        assert target in tree, f"{path}: hardlink to {target}, which is not there"
        tree[path] = tree[target]
        return
    inode = read_inode(member, tar)
    if path in tree and not (inode.kind == tree[path].inode.kind == "directory"):
        remove(tree, path, list(tree))
    tree[path] = Node(inode, next(NUMBERS))


def read_inode(member: tarfile.TarInfo, tar: tarfile.TarFile) -> Inode:
    content = ""
    if member.isreg():
        stream = tar.extractfile(member)
        assert stream is not None
        content = hashlib.file_digest(stream, "sha256").hexdigest()
    xattrs = sorted(
        (name.removeprefix(XATTR), value.encode("utf-8", "surrogateescape"))
        for name, value in member.pax_headers.items()
        if name.startswith(XATTR)
    )
    return Inode(
        kind=KINDS[member.type],
        mode=member.mode & 0o7777,
        owner=(member.uid, member.gid),
        size=member.size if member.isreg() else 0,
        content=content,
        target=member.linkname if member.issym() else "",
        device=(member.devmajor, member.devminor) if member.isdev() else (0, 0),
        xattrs=tuple(xattrs),
        mtime=member.mtime,
    )


def compare(ours: Tree, theirs: Tree, *, times: bool = False) -> list[Difference]:
    """How two trees differ, by path; the times of files count only when asked for."""
    found = []
    parts = [part for part in Inode._fields if part != "mtime"]
    for path in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(path), theirs.get(path)
        if mine is None or other is None:
            kinds = (mine and mine.inode.kind, other and other.inode.kind)
            found.append(Difference(path, "extra" if mine else "missing", *kinds))
            continue
        wanted = [*parts, "mtime"] if times and mine.inode.kind == "file" else parts
        for part in wanted:
            values = getattr(mine.inode, part), getattr(other.inode, part)
            if part == "mtime":
                values = int(values[0]), int(values[1])
            if part == "mode" and mine.inode.kind == other.inode.kind == "symlink":
                continue  # Linux has no mode of a symlink
            if values[0] != values[1]:
                found.append(Difference(path, part, *values))
    return found + compare_links(ours, theirs)


def compare_links(ours: Tree, theirs: Tree) -> list[Difference]:
    """Names that share an inode in one tree and not in the other."""
    common = ours.keys() & theirs.keys()
    mine, other = link_groups(ours, common), link_groups(theirs, common)
    return [
        Difference(path, "links", sorted(mine[path]), sorted(other[path]))
        for path in sorted(common)
        if mine[path] != other[path]
    ]


def link_groups(tree: Tree, paths: Iterable[str]) -> Mapping[str, frozenset[str]]:
    by_number: dict[int, set[str]] = defaultdict(set)
    for path in paths:
        by_number[tree[path].number].add(path)
    return {path: frozenset(group) for group in by_number.values() for path in group}
