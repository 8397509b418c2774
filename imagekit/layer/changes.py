"""What one layer does to the tree below it, found out and done."""

from collections.abc import Iterable, Mapping

from attrs import field, frozen

from imagekit.layer.draft import Draft
from imagekit.layer.tree import (
    DIRECTORY,
    SYMLINK,
    Directory,
    Entry,
    Tree,
    entry_of,
    find,
    link_groups,
    same,
    sorted_names,
)


@frozen(kw_only=True)
class Changes:
    """The changes of one layer (image-spec layer.md, Change Types).

    Attributes:
        entries: path -> what is put there; a directory's entry carries its metadata only. The
            root, if it has an entry, has the empty path.
        whiteouts: paths that lower layers had and that are gone.
        opaque: directories of which nothing of lower layers is left.
        implied: directories that some entry needs but that the archive did not carry; they have no
            entry, and are made with mode 0755 where lower layers do not have them.
    """

    entries: Mapping[str, Entry] = field(factory=dict)
    whiteouts: frozenset[str] = frozenset()
    opaque: frozenset[str] = frozenset()
    implied: frozenset[str] = frozenset()


def apply(lower: Tree, changes: Changes) -> Tree:
    """The tree with one more layer on it.

    Whiteouts come first, so they act on lower layers alone. A parent that is a symlink is followed
    inside the root, unless the layer makes it a directory; what else is in the way is replaced.

    Spec: image-spec layer.md, Applying Changesets; security.md L-4 to L-6.
    """
    return stack(lower, (changes,))


def stack(lower: Tree, layers: Iterable[Changes]) -> Tree:
    """The tree with many more layers on it, lowest first."""
    draft = Draft(lower)
    for changes in layers:
        _apply(draft, changes)
    return draft.tree()


def diff(lower: Tree, upper: Tree, *, directory_times: bool = True) -> Changes:
    """The layer that makes one tree of another, so that applying it to `lower` gives `upper`.

    What changed comes with its parent directories, parents first and names in the order of their
    bytes. What is gone gets a whiteout for each name; no directory is opaque. Of files that share
    an inode in the upper tree alone, all names are given.

    Args:
        lower: the tree before.
        upper: the tree after.
        directory_times: whether another time makes a directory another; if not, the law above
            holds but for the times of directories.

    Spec: dockerfile-semantics.md section 14.
    """
    found = _Differ(directory_times, _changed_links(lower, upper))
    root = lower.root.entry, upper.root.entry
    if found.differs(*root):
        found.entries.append(("", root[1]))
    found.compare("", lower.root, upper.root)
    return Changes(entries=dict(found.entries), whiteouts=frozenset(found.whiteouts))


def _apply(draft: Draft, changes: Changes) -> None:
    for path in changes.opaque:
        draft.clear(path)
    for path in changes.whiteouts:
        draft.remove(path)
    parents = _Parents(draft, changes.entries)
    for path in sorted(changes.implied):
        draft.directory(parents.real(path))
    entries = changes.entries
    if parents.all_plain(entries):
        draft.put_all(entries.items())
    else:
        draft.put_all((parents.place(path), entry) for path, entry in entries.items())


class _Parents:
    """Where the parent directories of a layer's entries really are, links followed."""

    def __init__(self, draft: Draft, entries: Mapping[str, Entry]) -> None:
        self._draft = draft
        self._entries = entries
        self._known: dict[str, str] = {"": ""}

    def all_plain(self, entries: Iterable[str]) -> bool:
        """Whether no parent of any entry is behind a link."""
        heads = {path.rpartition("/")[0] for path in entries}
        return all(self.real(head) == head for head in heads)

    def place(self, path: str) -> str:
        """Where an entry goes."""
        head, _, name = path.rpartition("/")
        real = self.real(head)
        return f"{real}/{name}" if real else name

    def real(self, path: str) -> str:
        """Where a directory of the layer is."""
        known = self._known.get(path)
        if known is None:
            known = self._known[path] = self._find(path)
        return known

    def _find(self, path: str) -> str:
        place = self.place(path)
        made = self._entries.get(path)
        if made is not None and made.kind == DIRECTORY:
            return place
        there = self._draft.get(place)
        if there is None or there.kind != SYMLINK:
            return place
        return self._draft.resolve(place).path


class _Differ:
    """What is found while two trees are walked side by side."""

    def __init__(self, directory_times: bool, links: frozenset[str]) -> None:  # noqa: FBT001 - passed on
        self.entries: list[tuple[str, Entry]] = []
        self.whiteouts: list[str] = []
        self._directory_times = directory_times
        self._links = links

    def differs(self, lower: Entry, upper: Entry) -> bool:
        """Whether an entry is to be in the layer."""
        if same(lower, upper):
            return False
        if self._directory_times or lower.kind != DIRECTORY:
            return True
        return not same(lower._replace(mtime=upper.mtime), upper)

    def compare(self, path: str, lower: Directory | None, upper: Directory) -> None:
        """Find what differs below a directory that is in the upper tree."""
        if lower is upper and not self._links:
            return
        before = {} if lower is None else lower.children
        prefix = f"{path}/" if path else ""
        after = upper.children
        if before:
            self.whiteouts += [prefix + name for name in before if name not in after]
        for name in sorted_names(after):
            node, old = after[name], before.get(name)
            if isinstance(node, Directory):
                self._directory(prefix + name, old, node)
            elif (
                old is None
                or isinstance(old, Directory)
                or (old is not node and self.differs(old, node))
                or prefix + name in self._links
            ):
                self.entries.append((prefix + name, node))

    def _directory(self, path: str, old: object, node: Directory) -> None:
        lower = old if isinstance(old, Directory) else None
        if lower is node and not self._links:
            return
        entries, whiteouts = len(self.entries), len(self.whiteouts)
        self.entries.append((path, node.entry))
        self.compare(path, lower, node)
        if (
            lower is not None
            and len(self.entries) == entries + 1
            and len(self.whiteouts) == whiteouts
            and not self.differs(lower.entry, node.entry)
        ):
            self.entries.pop()


def _changed_links(lower: Tree, upper: Tree) -> frozenset[str]:
    """The names of files that share an inode in another way than before, but for names gone."""
    if not _has_links(lower.root, upper.root):
        return frozenset()
    before, after = link_groups(lower), link_groups(upper)
    changed: set[str] = set()
    for name in before.keys() | after.keys():
        if not isinstance(find(upper.root, name), Entry):
            continue
        old, new = before.get(name, {name}), after.get(name, {name})
        if new != {other for other in old if find(upper.root, other) is not None}:
            changed |= new
    return frozenset(changed)


def _has_links(lower: Directory | None, upper: Directory) -> bool:
    """Whether any file has or had several names, in what the trees do not share."""
    before = {} if lower is None else lower.children
    for name, node in upper.children.items():
        old = before.get(name)
        if old is node:
            continue
        if isinstance(node, Directory):
            if _has_links(old if isinstance(old, Directory) else None, node):
                return True
        elif node.inode or (old is not None and entry_of(old).inode):
            return True
    return False
