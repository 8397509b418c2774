"""ADD of an archive: its members put into a directory of a tree, as tar in a chroot would.

Nothing leaves the directory: `..` in a name stops at it, and links are resolved as if it were the
root. A link in a member's path must lead to a directory; one that dangles is not filled.

Spec: dockerfile-semantics.md section 10; security.md L-3 to L-5.
"""

from collections.abc import Sequence
from typing import NamedTuple

from imagekit.errors import PathError
from imagekit.layer.draft import Draft
from imagekit.layer.inodes import Inodes
from imagekit.layer.selection import join
from imagekit.layer.tree import DIRECTORY, SYMLINK, Entry


class Member(NamedTuple):
    """One member of an archive.

    Attributes:
        name: as it stands in the archive.
        entry: what it is; of a hard link only owner, mode and time count.
        hardlink: the name of the member that it is another name of, as it stands; empty for
            anything but a hard link.
    """

    name: str
    entry: Entry
    hardlink: str = ""


Archive = Sequence[Member]
"""The members of an archive, in its order."""


def extract(
    draft: Draft, dest: str, archive: Archive, *, owner: tuple[int, int] | None, now: int
) -> None:
    """Put the members of an archive into a directory, later ones over earlier ones.

    Of the names of one file, the last one says owner, mode and time.

    Args:
        draft: the tree that is changed.
        dest: an existing directory.
        archive: the members.
        owner: of all members, or None to keep theirs.
        now: the time of directories that no member makes.

    Raises:
        PathError: a member below something that is no directory, code `copy-many-to-file`; below a
            link that dangles, or a hard link to nothing, code `source-not-found`.
    """
    extractor = _Extractor(draft, dest, now)
    for name, entry, hardlink in archive:
        path = clean(name)
        if path:
            uid, gid = owner or (entry.uid, entry.gid)
            extractor.add(path, entry._replace(uid=uid, gid=gid, inode=0), clean(hardlink))


def clean(name: str) -> str:
    """A member's name from the directory that is extracted into, which `..` does not leave."""
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


class _Extractor:
    def __init__(self, draft: Draft, dest: str, now: int) -> None:
        self._draft = draft
        self._dest = dest
        self._implied = Entry(DIRECTORY, 0o755, mtime=now)
        self._inodes = Inodes()
        self._names: dict[int, list[str]] = {}

    def add(self, path: str, entry: Entry, target: str) -> None:
        """Put one member in its place."""
        place = self._place(path)
        if target:
            self._link(place, entry, target)
        else:
            self._put(place, entry)

    def _place(self, path: str) -> str:
        """Where a member goes; its parent is found or made."""
        head, _, name = path.rpartition("/")
        parent = self._draft.resolve(head, within=self._dest)
        if parent.entry is None:
            return join(self._implied_parents(head), name)
        if parent.entry.kind != DIRECTORY:
            raise _not_a_directory(path)
        return join(join(self._dest, parent.path), name)

    def _implied_parents(self, head: str) -> str:
        """Make the directories of a member that has none; return the last."""
        place = self._dest
        at = ""
        for name in head.split("/"):
            at = join(at, name)
            found = self._draft.resolve(at, within=self._dest)
            if found.entry is None:
                if self._draft.get(join(place, name)) is not None:
                    raise _missing(head, "a link on the way leads to nothing")
                self._draft.put(join(place, name), self._implied)
            elif found.entry.kind != DIRECTORY:
                raise _not_a_directory(at)
            place = join(self._dest, found.path)
        return place

    def _put(self, place: str, entry: Entry) -> None:
        there = self._draft.get(place)
        if there is not None and there.kind == entry.kind == DIRECTORY:
            xattrs = tuple(sorted({**dict(there.xattrs), **dict(entry.xattrs)}.items()))
            entry = entry._replace(xattrs=xattrs)
        elif there is not None:
            self._draft.remove(place)
        self._draft.put(place, entry)

    def _link(self, place: str, entry: Entry, target: str) -> None:
        """Make another name of a file, which takes owner, mode and time from it."""
        found = self._draft.resolve(target, within=self._dest, follow_last=False)
        if found.entry is None:
            raise _missing(target, f"a hardlink at /{place} names it")
        if found.entry.kind == DIRECTORY:
            raise PathError(
                f"/{place}: hardlink to the directory /{target}",
                path=place,
                code="copy-many-to-file",
            )
        original = join(self._dest, found.path)
        if original == place:
            return
        file = found.entry._replace(uid=entry.uid, gid=entry.gid)
        if file.kind == SYMLINK:
            self._put(place, file)
            return
        file = file._replace(mode=entry.mode, mtime=entry.mtime)
        if file.inode not in self._names:
            file = file._replace(inode=self._inodes.new(original, file))
            self._names[file.inode] = [original]
            self._draft.put(original, file)
        self._share(place, file)

    def _share(self, place: str, file: Entry) -> None:
        """Put one more name of a file, and make its other names the same."""
        self._draft.remove(place)
        names = self._names.setdefault(file.inode, [])
        for name in names:
            there = self._draft.get(name)
            if there is not None and there.inode == file.inode:
                self._draft.put(name, file)
        names.append(place)
        self._draft.put(place, file)


def _missing(path: str, why: str) -> PathError:
    return PathError(
        f"/{path}: no such file or directory", path=path, hint=why, code="source-not-found"
    )


def _not_a_directory(path: str) -> PathError:
    return PathError(f"/{path}: not a directory", path=path, code="copy-many-to-file")
