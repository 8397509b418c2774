"""Hypothesis strategies for trees, and the shorthand that tests write trees in.

tree({"a": "text", "d/": 0o700, "l": link("a"), "h": hard("a")})
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple

from hypothesis import strategies as st

from imagekit.layer.changes import Changes
from imagekit.layer.tree import (
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    SYMLINK,
    Entry,
    Tree,
    Where,
    entry_of,
)

TIME = 1_000_000_000


class Link(NamedTuple):
    """A symlink, in shorthand."""

    target: str


class Hard(NamedTuple):
    """Another name of a file, in shorthand."""

    of: str


def link(target: str) -> Link:
    return Link(target)


def hard(of: str) -> Hard:
    return Hard(of)


def file(text: str = "", *, source: str = "test", **fields: Any) -> Entry:
    """The entry of a file; its content is named by itself."""
    data = text.encode()
    entry = Entry(
        FILE,
        0o644,
        mtime=TIME,
        size=len(data),
        digest=sha256(data).digest(),
        where=Where(source, text),
    )
    return entry._replace(**fields)


def directory(mode: int = 0o755, **fields: Any) -> Entry:
    return Entry(DIRECTORY, mode, mtime=TIME)._replace(**fields)


def entries(spec: Mapping[str, Any], *, source: str = "test") -> dict[str, Entry]:
    """Entries from shorthand: text, a mode for `dir/`, `link`, `hard`, or an entry as it is."""
    made: dict[str, Entry] = {}
    linked = {item.of for item in spec.values() if isinstance(item, Hard)}
    for number, (path, item) in enumerate(spec.items(), start=1):
        if isinstance(item, Entry):
            made[path.rstrip("/")] = item
        elif isinstance(item, Link):
            made[path] = Entry(SYMLINK, 0o777, mtime=TIME, link=item.target)
        elif isinstance(item, Hard):
            made[path] = made[item.of]
        elif path.endswith("/"):
            made[path.rstrip("/")] = directory(0o755 if item is None else item)
        else:
            made[path] = file(item, source=source, inode=number if path in linked else 0)
    return made


def tree(spec: Mapping[str, Any], *, source: str = "test") -> Tree:
    """A tree from shorthand; see `entries`."""
    return Tree.EMPTY.apply(Changes(entries=entries(spec, source=source)))


def shown(made: Tree) -> dict[str, str]:
    """A tree as text, for comparing: kind, mode, owner if not root, content or target."""
    return {
        f"{path}/" if entry.kind == DIRECTORY else path: _shown(entry)
        for path, entry in made.walk()
    }


def _shown(entry: Entry) -> str:
    owner = f" {entry.uid}:{entry.gid}" if entry.uid or entry.gid else ""
    match entry.kind:
        case "l":
            return f"-> {entry.link}{owner}"
        case "f":
            content = f" {entry.where.at}" if entry.where else ""
            return f"{entry.mode:04o}{owner}{content}"
        case _:
            return f"{entry.mode:04o}{owner}"


NAMES = st.sampled_from(["a", "b", "c", "a.b", "é", "\udcff", "\ue000", "z z", "A"])
MODES = st.sampled_from([0o644, 0o755, 0o700, 0o4755, 0o1777, 0])
TIMES = st.integers(0, 3)
OWNERS = st.sampled_from([0, 1, 1000])
TARGETS = st.lists(st.sampled_from(["a", "b", "..", ".", "c", "é"]), min_size=1, max_size=3)


@st.composite
def leaves(draw: st.DrawFn) -> Entry:
    """Anything but a directory."""
    uid, gid, mtime = draw(OWNERS), draw(OWNERS), draw(TIMES)
    kind = draw(st.sampled_from([FILE, FILE, FILE, SYMLINK, FIFO, CHARACTER]))
    if kind == SYMLINK:
        target = draw(st.sampled_from(["", "/"])) + "/".join(draw(TARGETS))
        return Entry(SYMLINK, 0o777, uid, gid, mtime, link=target)
    if kind == FIFO:
        return Entry(FIFO, draw(MODES), uid, gid, mtime)
    if kind == CHARACTER:
        return Entry(CHARACTER, draw(MODES), uid, gid, mtime, device=(1, draw(st.integers(3, 5))))
    text = draw(st.sampled_from(["", "x", "y"]))
    xattrs = draw(st.sampled_from([(), (("user.a", b"1"),)]))
    return file(text, mode=draw(MODES), uid=uid, gid=gid, mtime=mtime, xattrs=xattrs)


@st.composite
def trees(draw: st.DrawFn, *, links: bool = True) -> Tree:
    """Small trees that often have paths in common; `links` says whether files share inodes."""
    made: dict[str, Entry] = {}
    paths = draw(st.lists(st.lists(NAMES, min_size=1, max_size=3).map("/".join), max_size=8))
    for path in paths:
        blocked = any(
            other != path and path.startswith(f"{other}/") and made[other].kind != DIRECTORY
            for other in made
        )
        over = any(other.startswith(f"{path}/") for other in made)
        if blocked or (path in made and made[path].kind == DIRECTORY):
            continue
        if over or draw(st.booleans()):
            made[path] = directory(draw(MODES), mtime=draw(TIMES))
        else:
            made[path] = draw(leaves())
    files = [path for path, entry in made.items() if entry.kind == FILE]
    if links and len(files) > 1 and draw(st.booleans()):
        first, *rest = draw(st.lists(st.sampled_from(files), min_size=2, max_size=3, unique=True))
        made[first] = made[first]._replace(inode=7)
        for other in rest:
            made[other] = made[first]
    if draw(st.booleans()):
        made[""] = directory(draw(MODES), mtime=draw(TIMES))
    return Tree.EMPTY.apply(Changes(entries=made))


@st.composite
def changes(draw: st.DrawFn) -> Changes:
    """Any layer, its whiteouts and opaque directories chosen freely."""
    upper = draw(trees())
    names = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
    return Changes(
        entries=dict(upper.walk()),
        whiteouts=frozenset(draw(st.lists(names, max_size=3))),
        opaque=frozenset(draw(st.lists(names, max_size=2))),
    )


def root_entry(made: Tree) -> Entry:
    return entry_of(made.root)
