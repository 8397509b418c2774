"""What one layer does to the tree below it, found out and done."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

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
    found = _Differ(directory_times=directory_times, links=_changed_links(lower, upper))
    if lower.root is not upper.root:
        found.compare(lower.root, upper.root)
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
        known = self._known
        waiting: list[str] = []
        while path not in known:
            waiting.append(path)
            path = path.rpartition("/")[0]
        real = known[path]
        for path in reversed(waiting):
            name = path.rpartition("/")[2]
            real = known[path] = self._find(path, f"{real}/{name}" if real else name)
        return real

    def _find(self, path: str, place: str) -> str:
        made = self._entries.get(path)
        if made is not None and made.kind == DIRECTORY:
            return place
        there = self._draft.get(place)
        if there is None or there.kind != SYMLINK:
            return place
        return self._draft.resolve(place).path


class _Frame(NamedTuple):
    """A directory that is being compared.

    Attributes:
        path: of the directory.
        lower: the directory before, or None.
        upper: the directory after.
        names: those after, as far as they are still to be compared.
        entries: how many entries were found when it was begun, its own included.
        whiteouts: how many whiteouts.
    """

    path: str
    lower: Directory | None
    upper: Directory
    names: Iterator[str]
    entries: int
    whiteouts: int


class _Differ:
    """What is found while two trees are walked side by side, without recursion."""

    def __init__(self, *, directory_times: bool, links: frozenset[str]) -> None:
        self.entries: list[tuple[str, Entry]] = []
        self.whiteouts: list[str] = []
        self._directory_times = directory_times
        self._links = links
        self._stack: list[_Frame] = []

    def compare(self, lower: Directory, upper: Directory) -> None:
        """Find what differs in two roots."""
        if self._differs(lower.entry, upper.entry):
            self.entries.append(("", upper.entry))
        self._begin("", lower, upper)
        while self._stack:
            frame = self._stack[-1]
            for name in frame.names:
                if self._entry(frame, name):
                    break
            else:
                self._stack.pop()
                self._end(frame)

    def _differs(self, lower: Entry, upper: Entry) -> bool:
        if same(lower, upper):
            return False
        if self._directory_times or lower.kind != DIRECTORY:
            return True
        return not same(lower._replace(mtime=upper.mtime), upper)

    def _begin(self, path: str, lower: Directory | None, upper: Directory) -> None:
        count = len(self.whiteouts)
        if lower is not None:
            prefix = f"{path}/" if path else ""
            after = upper.children
            self.whiteouts += [prefix + name for name in lower.children if name not in after]
        names = iter(sorted_names(upper.children))
        self._stack.append(_Frame(path, lower, upper, names, len(self.entries), count))

    def _entry(self, frame: _Frame, name: str) -> bool:
        """Compare one name; tell whether it is a directory that is now begun."""
        node = frame.upper.children[name]
        old = None if frame.lower is None else frame.lower.children.get(name)
        path = f"{frame.path}/{name}" if frame.path else name
        if isinstance(node, Directory):
            if old is node and not self._links:
                return False
            self.entries.append((path, node.entry))
            self._begin(path, old if isinstance(old, Directory) else None, node)
            return True
        if (
            not isinstance(old, Entry)
            or (old is not node and self._differs(old, node))
            or path in self._links
        ):
            self.entries.append((path, node))
        return False

    def _end(self, frame: _Frame) -> None:
        """Drop the entry of a directory in and below which nothing differs."""
        if (
            frame.path
            and frame.lower is not None
            and len(self.entries) == frame.entries
            and len(self.whiteouts) == frame.whiteouts
            and not self._differs(frame.lower.entry, frame.upper.entry)
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


def _has_links(lower: Directory, upper: Directory) -> bool:
    """Whether any file has or had several names, in what the trees do not share."""
    todo: list[tuple[Directory | None, Directory]] = [(lower, upper)]
    while todo:
        before, after = todo.pop()
        known = {} if before is None else before.children
        for name, node in after.children.items():
            old = known.get(name)
            if old is node:
                continue
            if isinstance(node, Directory):
                todo.append((old if isinstance(old, Directory) else None, node))
            elif node.inode or (old is not None and entry_of(old).inode):
                return True
    return False
