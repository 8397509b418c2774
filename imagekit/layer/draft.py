"""A tree while it is being changed.

A `Draft` starts as some tree, takes changes in place, and gives the tree they make. A directory is
copied when it is first changed and then belongs to the draft, so the cost is that of the changes.
"""

from collections.abc import Iterable

from imagekit.errors import PathError
from imagekit.layer.tree import (
    DIRECTORY,
    IMPLIED,
    Directory,
    Entry,
    Resolved,
    Tree,
    entry_of,
    find,
    resolve,
)


class Draft:
    """A tree that can be changed; no symlink is followed but by `resolve`."""

    __slots__ = ("_open", "_owner", "_root")

    def __init__(self, tree: Tree) -> None:
        self._owner = object()
        self._root = tree.root
        self._open: dict[str, Directory] = {}

    def tree(self) -> Tree:
        """The tree as it now is; the draft may go on to change without touching it."""
        self._owner = object()
        self._open.clear()
        return Tree(self._root)

    def get(self, path: str) -> Entry | None:
        """What is at a path, or None."""
        node = find(self._root, path)
        return None if node is None else entry_of(node)

    def resolve(self, path: str, *, within: str = "", follow_last: bool = True) -> Resolved:
        """Follow a path and its symlinks, inside the directory `within`; see `tree.resolve`.

        The path of the answer is that from `within`.

        Raises:
            PathError: more than 40 symlinks, or `within` is no directory.
        """
        root = find(self._root, within)
        if not isinstance(root, Directory):
            raise PathError(f"/{within}: not a directory", path=within)
        return resolve(root, path, follow_last=follow_last)

    def directory(self, path: str) -> Directory:
        """The directory at a path, free to be changed; it and its parents are made if missing.

        What is in the way and no directory is replaced. Whoever changes `children` must not take
        out or replace a directory; that is for `put` and `remove`.
        """
        known = self._open.get(path)
        if known is not None:
            return known
        node = self._root
        if node.owner is not self._owner:
            node = self._root = Directory(node.entry, dict(node.children), self._owner)
        if path:
            for name in path.split("/"):
                child = node.children.get(name)
                if not isinstance(child, Directory):
                    child = node.children[name] = Directory(IMPLIED, {}, self._owner)
                elif child.owner is not self._owner:
                    child = Directory(child.entry, dict(child.children), self._owner)
                    node.children[name] = child
                node = child
        self._open[path] = node
        return node

    def put(self, path: str, entry: Entry) -> None:
        """Put an entry at a path; a directory that is there keeps what is in it."""
        self.put_all(((path, entry),))

    def put_all(self, entries: Iterable[tuple[str, Entry]]) -> None:
        """Put many entries; `put` says how."""
        opened = self._open
        for path, entry in entries:
            head, _, name = path.rpartition("/")
            if entry.kind == DIRECTORY:
                self.directory(path).entry = entry
                continue
            parent = opened.get(head)
            if parent is None:
                parent = self.directory(head)
            if isinstance(parent.children.get(name), Directory):
                opened.clear()
            parent.children[name] = entry

    def remove(self, path: str) -> None:
        """Take out what is at a path, if there is something; the root cannot be."""
        head, _, name = path.rpartition("/")
        parent = find(self._root, head)
        if not isinstance(parent, Directory) or name not in parent.children:
            return
        gone = self.directory(head).children.pop(name)
        if isinstance(gone, Directory):
            self._open.clear()

    def clear(self, path: str) -> None:
        """Empty the directory at a path, if there is one."""
        if isinstance(find(self._root, path), Directory):
            self.directory(path).children.clear()
            self._open.clear()
