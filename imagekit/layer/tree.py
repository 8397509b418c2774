"""Entries, and the trees that layers make of them.

A `Tree` is a root file system in memory: what every path is, and where its bytes are, with no
byte of content in it. Trees are values: `apply` (see `changes`) returns a new one that shares all
it can with the old. Paths have no leading slash, `/` between components and no `.` or `..`; the
root is the empty path. Names are bytes, decoded as UTF-8 with `surrogateescape`.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

from imagekit.errors import PathError

if TYPE_CHECKING:
    from imagekit.layer.changes import Changes

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


IMPLIED: Final = Entry(DIRECTORY, 0o755)
"""A directory that something needs and that nobody has made."""

MAX_LINKS: Final = 40
"""How many symlinks one path may pass, as on Linux (path_resolution(7))."""


class Directory:
    """A directory and what is in it; everything else in a tree is a bare `Entry`.

    `owner` is the draft that may change it; a directory that a `Tree` shares has none that lives.
    """

    __slots__ = ("children", "entry", "owner")

    def __init__(
        self, entry: Entry, children: "dict[str, Node] | None" = None, owner: object = None
    ) -> None:
        self.entry = entry
        self.children: dict[str, Node] = {} if children is None else children
        self.owner = owner


Node = Entry | Directory


class Resolved(NamedTuple):
    """Where a path leads.

    Attributes:
        path: with no symlink in it, but for the last component where links there are not followed.
        entry: what is there, or None.
        missing: the last components of `path`, which are not there; the first of them may be
            missing since what is before it is no directory.
    """

    path: str
    entry: Entry | None
    missing: tuple[str, ...] = ()


def sorted_names(names: Iterable[str]) -> "list[str]":
    """Names in the order of their bytes, which is not that of surrogate escapes."""
    ordered = sorted(names)
    if not "".join(ordered).isascii():
        ordered.sort(key=name_bytes)
    return ordered


def name_bytes(name: str) -> bytes:
    """The bytes of a name or path."""
    return name.encode("utf-8", "surrogateescape")


def entry_of(node: Node) -> Entry:
    """The entry of a node."""
    return node.entry if isinstance(node, Directory) else node


def find(root: Directory, path: str) -> Node | None:
    """The node at a path, with no symlink followed, or None."""
    if not path:
        return root
    node: Node | None = root
    for name in path.split("/"):
        if not isinstance(node, Directory):
            return None
        node = node.children.get(name)
    return node


def resolve(root: Directory, path: str, *, follow_last: bool = True, cwd: str = "/") -> Resolved:
    """Follow a path and its symlinks, never leaving the root.

    Absolute links start at the root, and `..` there stays there. What is missing is kept as it
    stands, so that a dangling link leads to what it names.

    Raises:
        PathError: more than 40 symlinks, as in a loop; code `too-many-links`.

    Spec: security.md C-1; path_resolution(7).
    """
    todo = _reversed_components(path)
    if not path.startswith("/"):
        todo += _reversed_components(cwd)
    names: list[str] = []
    nodes: list[Node] = [root]  # nodes[n] is at names[:n], as far as there is something
    links = 0
    while todo:
        name = todo.pop()
        if name == "..":
            if len(nodes) > len(names) > 0:
                nodes.pop()
            if names:
                names.pop()
            continue
        last = nodes[-1]
        there = len(nodes) > len(names) and isinstance(last, Directory)
        child = last.children.get(name) if there and isinstance(last, Directory) else None
        if isinstance(child, Entry) and child.kind == SYMLINK and (todo or follow_last):
            links += 1
            if links > MAX_LINKS:
                raise PathError(
                    f"{path}: too many levels of symlinks", path=path, code="too-many-links"
                )
            if child.link.startswith("/"):
                names, nodes = [], [root]
            todo += _reversed_components(child.link)
            continue
        names.append(name)
        if child is not None:
            nodes.append(child)
    count = len(nodes) - 1
    entry = entry_of(nodes[-1]) if count == len(names) else None
    return Resolved("/".join(names), entry, tuple(names[count:]))


def _reversed_components(path: str) -> "list[str]":
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


class Tree:
    """A root file system in memory; a value that never changes.

    `==` compares what is in two trees: entries, content by digest, and which names share an
    inode; not where the bytes are.
    """

    __slots__ = ("root",)

    EMPTY: ClassVar["Tree"]

    def __init__(self, root: Directory) -> None:
        self.root = root

    @classmethod
    def from_layers(cls, layers: "Iterable[Changes]") -> "Tree":
        """The tree that layers make, lowest first."""
        from imagekit.layer.changes import stack  # noqa: PLC0415 - it is built on this module

        return stack(cls.EMPTY, layers)

    def apply(self, changes: "Changes") -> "Tree":
        """The tree with one more layer on it, sharing what the layer leaves alone.

        Spec: image-spec layer.md, Applying Changesets.
        """
        from imagekit.layer.changes import stack  # noqa: PLC0415 - it is built on this module

        return stack(self, (changes,))

    def get(self, path: str) -> Entry | None:
        """What is at a path, or None; no symlink is followed."""
        node = find(self.root, path)
        return None if node is None else entry_of(node)

    def resolve(self, path: str, *, follow_last: bool = True, cwd: str = "/") -> Resolved:
        """Follow a path and its symlinks inside the tree; see `resolve`.

        Raises:
            PathError: more than 40 symlinks.
        """
        return resolve(self.root, path, follow_last=follow_last, cwd=cwd)

    def walk(self, path: str = "") -> Iterator[tuple[str, Entry]]:
        """What is at and below a path, parents first, names in the order of their bytes.

        The root itself is not among what a walk from the root gives.
        """
        top = find(self.root, path)
        if top is None:
            return
        if path:
            yield path, entry_of(top)
        if not isinstance(top, Directory):
            return
        prefix = f"{path}/" if path else ""
        stack = [(prefix, top.children, iter(sorted_names(top.children)))]
        while stack:
            prefix, children, names = stack[-1]
            for name in names:
                node = children[name]
                if isinstance(node, Directory):
                    yield prefix + name, node.entry
                    below = node.children
                    stack.append((f"{prefix}{name}/", below, iter(sorted_names(below))))
                    break
                yield prefix + name, node
            else:
                stack.pop()

    def list(self, path: str = "") -> tuple[str, ...]:
        """The names in a directory, in the order of their bytes.

        Raises:
            PathError: there is no directory at the path.
        """
        node = find(self.root, path)
        if not isinstance(node, Directory):
            raise PathError(f"/{path}: not a directory", path=path)
        return tuple(sorted_names(node.children))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tree):
            return NotImplemented
        if self.root is other.root:
            return True
        if not same(self.root.entry, other.root.entry):
            return False
        mine, theirs = tuple(self.walk()), tuple(other.walk())
        if len(mine) != len(theirs):
            return False
        pairs = zip(mine, theirs, strict=True)
        if not all(a == b and same(x, y) for (a, x), (b, y) in pairs):
            return False
        return link_groups(self) == link_groups(other)

    __hash__ = None  # type: ignore[assignment]  # too big to be a key

    def __repr__(self) -> str:
        return f"<Tree of {sum(1 for _ in self.walk())} entries>"


Tree.EMPTY = Tree(Directory(IMPLIED))


def same(a: Entry, b: Entry) -> bool:
    """Whether two entries are the same but for where their bytes are and for their inode.

    Content of which a digest is not known is the same only if it is in the same place.
    """
    if a is b:
        return True
    if a[:7] != b[:7] or a.xattrs != b.xattrs or a.device != b.device:
        return False
    if a.kind != FILE:
        return True
    return a.digest == b.digest if a.digest and b.digest else a.where == b.where


def link_groups(tree: Tree) -> dict[str, frozenset[str]]:
    """Path -> all the names of its file, for files that have several."""
    by_inode: dict[tuple[str, int], set[str]] = {}
    for path, entry in tree.walk():
        if entry.inode:
            source = entry.where.source if entry.where else ""
            by_inode.setdefault((source, entry.inode), set()).add(path)
    groups = (frozenset(names) for names in by_inode.values() if len(names) > 1)
    return {name: group for group in groups for name in group}
