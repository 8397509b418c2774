"""What a RUN step changed: an overlay's upper folder, or a plain root and how it looked before.

`scan_upper` and `scan_folder` only look; `compare` then takes out what is as it was below (copied
up but unchanged) and says the rest as a layer says it. Looking needs the rights of the sandbox,
comparing needs the tree below; they may be different processes.

Whiteouts are given name by name, also where overlayfs marked a whole directory as opaque: opaque
markers depend on the order in which a runtime applies a layer, whiteouts of names do not, and
BuildKit writes them so (dockerfile-semantics.md section 14). The root itself is never in a layer.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from attrs import field, frozen

from imagekit.disk.extract import Form
from imagekit.disk.paths import FOLDER, MAX_DEPTH, check_encoding, open_root
from imagekit.disk.stats import Known
from imagekit.disk.xattrs import OWNER, Xattrs, is_kept, list_names
from imagekit.errors import LayerError
from imagekit.layer.changes import Changes
from imagekit.layer.tree import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    SYMLINK,
    Directory,
    Entry,
    Tree,
    Where,
    find,
    same,
    sorted_names,
)

Table = Mapping[str, Known]
"""How everything below a folder looked; see `record_folder`."""

Digests = Callable[[Sequence[Entry]], Sequence[bytes]]
"""The SHA-256 of files, in order."""

_KINDS: Final = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK,
    stat.S_IFIFO: FIFO,
}
_OVERLAY: Final = ("trusted.overlay.", "user.overlay.")


@frozen(kw_only=True)
class Found:
    """What was seen in a folder.

    Attributes:
        changes: what is there, as it is, with directories above it; digests are not known.
        skipped: sockets, which no layer can hold.
    """

    changes: Changes = field(factory=Changes)
    skipped: tuple[str, ...] = ()


class _Item(NamedTuple):
    """One thing in a folder that is scanned."""

    path: str
    parent: int
    name: str
    status: os.stat_result


def source_of(folder: Path) -> str:
    """What the `where` of files in a folder says."""
    return f"folder:{folder}"


def scan_upper(upper: Path, form: Form) -> Found:
    """What is in the upper folder of an overlay after its processes are gone.

    Raises:
        LayerError: the overlay was mounted with redirects or metadata-only copies.
        OSError: it cannot be read.
    """
    seen = _Seen(upper, form)
    for item in _walk(upper):
        seen.add_upper(item)
    return seen.found()


def record_folder(folder: Path) -> dict[str, Known]:
    """How everything below a folder looks now, for `scan_folder` to compare with."""
    return {item.path: _look(item.status) for item in _walk(folder)}


def scan_folder(folder: Path, before: Table, form: Form) -> Found:
    """What looks different below a plain folder, with the directories above it.

    Every change sets the ctime, so what looks the same is the same; names of one file come
    together.
    """
    seen = _Seen(folder, form)
    folders = {""}
    changed: set[str] = set()
    missing = set(before)
    linked: dict[int, list[str]] = {}
    for item in _walk(folder):
        missing.discard(item.path)
        if before.get(item.path) != _look(item.status):
            changed.add(item.path)
        if stat.S_ISDIR(item.status.st_mode):
            folders.add(item.path)
        elif item.status.st_nlink > 1:
            linked.setdefault(item.status.st_ino, []).append(item.path)
    for names in linked.values():
        if changed.intersection(names):
            changed.update(names)
    gone = {path for path in missing if path.rpartition("/")[0] in folders}
    wanted = changed | _parents((*changed, *gone))
    for item in _walk(folder):
        if item.path in wanted:
            seen.add(item)
    return seen.found(whiteouts=gone)


def _walk(folder: Path) -> Iterator[_Item]:
    """Everything below a folder, parents first, names in order; by descriptor, no link followed.

    The descriptor of an item's parent is open while the item is the current one.
    """
    check_encoding()
    fd = open_root(folder)
    device = os.fstat(fd).st_dev
    stack = [(fd, "", iter(sorted_names(os.listdir(fd))))]  # noqa: PTH208 - a descriptor
    try:
        while stack:
            fd, prefix, names = stack[-1]
            for name in names:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                path = prefix + name
                yield _Item(path, fd, name, status)
                if stat.S_ISDIR(status.st_mode) and status.st_dev == device:
                    stack.append(_enter(fd, name, path))
                    break
            else:
                os.close(fd)
                stack.pop()
    finally:
        for fd, _, _ in stack:
            os.close(fd)


def _enter(parent: int, name: str, path: str) -> tuple[int, str, Iterator[str]]:
    if path.count("/") > MAX_DEPTH:
        raise LayerError(f"/{path[:80]}..: deeper than {MAX_DEPTH}", path=path, code="too-deep")
    fd = os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=parent)
    return fd, f"{path}/", iter(sorted_names(os.listdir(fd)))  # noqa: PTH208 - a descriptor


class _Seen:
    """Collects what a scan comes across."""

    def __init__(self, folder: Path, form: Form) -> None:
        self._source = source_of(folder)
        self._form = form
        self._entries: dict[str, Entry] = {}
        self._whiteouts: set[str] = set()
        self._opaque: set[str] = set()
        self._skipped: list[str] = []

    def found(self, whiteouts: Iterable[str] = ()) -> Found:
        changes = Changes(
            entries=self._entries,
            whiteouts=frozenset(self._whiteouts.union(whiteouts)),
            opaque=frozenset(self._opaque),
        )
        return Found(changes=changes, skipped=tuple(self._skipped))

    def add_upper(self, item: _Item) -> None:
        """Take something of an upper folder, where some things mean something else."""
        status = item.status
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            self._whiteouts.add(item.path)
            return
        names = self.add(item)
        for name in names:
            if not name.startswith(_OVERLAY):
                continue
            steer = name.rpartition(".")[2]
            if steer == "opaque" and _get(item, name) in (b"y", b"x"):
                self._opaque.add(item.path)
            elif steer == "whiteout" and not status.st_size:
                self._whiteouts.add(item.path)
                del self._entries[item.path]
            elif steer in ("redirect", "metacopy"):
                raise LayerError(
                    f"/{item.path}: the overlay was mounted with {steer}",
                    path=item.path,
                    hint="mount it with redirect_dir=off,metacopy=off",
                )

    def add(self, item: _Item) -> list[str]:
        """Take something as it is; the names of all its attributes come back."""
        status = item.status
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            self._skipped.append(item.path)
            return []
        names = list_names(_by_name(item)) if kind in (FILE, DIRECTORY) else []
        owner = self._owner(item, names)
        is_file = kind == FILE
        device = (0, 0)
        if kind in (CHARACTER, BLOCK):
            device = os.major(status.st_rdev), os.minor(status.st_rdev)
        self._entries[item.path] = Entry(
            kind,
            0o777 if kind == SYMLINK else status.st_mode & 0o7777,
            *owner,
            mtime=status.st_mtime_ns // 1_000_000_000,
            size=status.st_size if is_file else 0,
            link=os.readlink(item.name, dir_fd=item.parent) if kind == SYMLINK else "",
            where=Where(self._source, item.path) if is_file else None,
            inode=status.st_ino if is_file and status.st_nlink > 1 else 0,
            xattrs=_kept(item, names),
            device=device,
        )
        return names

    def _owner(self, item: _Item, names: list[str]) -> tuple[int, int]:
        """The owner, or the one that was meant where it could not be set."""
        if self._form.single_id and OWNER in names:
            uid, _, gid = _get(item, OWNER).partition(b":")
            if uid.isdigit() and gid.isdigit():
                return int(uid), int(gid)
        return item.status.st_uid, item.status.st_gid


def _by_name(item: _Item) -> str:
    """A path for calls that take no directory descriptor; its last component is not followed."""
    return f"/proc/self/fd/{item.parent}/{item.name}"


def _get(item: _Item, name: str) -> bytes:
    return os.getxattr(_by_name(item), name, follow_symlinks=False)


def _kept(item: _Item, names: list[str]) -> Xattrs:
    return tuple((name, _get(item, name)) for name in sorted(names) if is_kept(name))


def _look(status: os.stat_result) -> Known:
    return Known(
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
        status.st_mode,
    )


def _parents(paths: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for path in paths:
        parent = path.rpartition("/")[0]
        while parent and parent not in found:
            found.add(parent)
            parent = parent.rpartition("/")[0]
    return found


def compare(found: Changes, lower: Tree, digests: Digests, *, single_id: bool = False) -> Changes:
    """The layer that makes of the tree below what was found.

    Args:
        found: from `scan_upper` or `scan_folder`.
        lower: the root file system as it was.
        digests: reads files that look as they did and may have other content.
        single_id: owners of links could not be set; where nothing else differs, they have the ones
            they had.
    """
    entries = _with_old_owners(found.entries, lower) if single_id else found.entries
    whiteouts = {path for path in found.whiteouts if lower.get(path) is not None}
    for path in found.opaque:
        whiteouts |= set(_hidden(find(lower.root, path), path, entries))
    unchanged = _unchanged(entries, lower, digests)
    changed = [
        path
        for path, entry in entries.items()
        if path not in unchanged and not _only_touched(entry, lower.get(path))
    ]
    wanted = _parents((*changed, *whiteouts)).union(changed)
    return Changes(
        entries={path: entry for path, entry in entries.items() if path in wanted},
        whiteouts=frozenset(whiteouts),
    )


def _with_old_owners(entries: Mapping[str, Entry], lower: Tree) -> dict[str, Entry]:
    owned = {}
    for path, entry in entries.items():
        old = lower.get(path) if entry.kind == SYMLINK else None
        if old is not None and old.kind == SYMLINK and old.link == entry.link:
            owned[path] = entry._replace(uid=old.uid, gid=old.gid)
        else:
            owned[path] = entry
    return owned


def _hidden(below: object, path: str, entries: Mapping[str, Entry]) -> Iterator[str]:
    """What an opaque directory hides; directories in it are opaque without a mark of their own."""
    if not isinstance(below, Directory):
        return
    for name, node in below.children.items():
        child = f"{path}/{name}"
        again = entries.get(child)
        if again is None:
            yield child
        elif again.kind == DIRECTORY:
            yield from _hidden(node, child, entries)


def _only_touched(entry: Entry, old: Entry | None) -> bool:
    """Whether a directory has nothing new but the time that coming and going files gave it."""
    if entry.kind != DIRECTORY or old is None:
        return False
    return same(old, entry._replace(mtime=old.mtime))


def _unchanged(entries: Mapping[str, Entry], lower: Tree, digests: Digests) -> frozenset[str]:
    """The paths at which nothing differs; names of one file only all together."""
    alike: dict[str, Entry] = {}
    for path, entry in entries.items():
        old = lower.get(path)
        if old is not None and _looks_same(old, entry):
            alike[path] = old
    doubtful = [path for path in alike if entries[path].kind == FILE and entries[path].size]
    read = digests([entries[path] for path in doubtful])
    for path, digest in zip(doubtful, read, strict=True):
        if digest != alike[path].digest:
            del alike[path]
    groups: dict[int, list[str]] = {}
    for path, entry in entries.items():
        if entry.inode:
            groups.setdefault(entry.inode, []).append(path)
    for names in groups.values():
        before = {_identity(alike.get(name)) for name in names}
        if len(names) > 1 and (len(before) > 1 or None in before):
            for name in names:
                alike.pop(name, None)
    return frozenset(alike)


def _looks_same(old: Entry, new: Entry) -> bool:
    """Whether entries agree in all but the content of files, of which the size must.

    A file that was one of several names and is not any more does not: it is another file now.
    """
    return (
        old[:7] == new[:7]
        and old.xattrs == new.xattrs
        and old.device == new.device
        and bool(old.inode) == bool(new.inode)
    )


def _identity(entry: Entry | None) -> tuple[str, int] | None:
    """What tells a file of several names from others; None where it is not one."""
    if entry is None or not entry.inode or entry.where is None:
        return None
    return entry.where.source, entry.inode
