"""Layers and archives as values: what the names in a tar mean.

`read_layer` reads the changes of an image's layer: whiteouts hide, later members win, names stay
inside the root. `read_archive` reads an archive that people hand in, for ADD or as a build
context: there a `.wh.` name is a name like any other, and every member counts. `write_layer` is
the way back.

What a layer's members do to each other is decided here: a member below a symlink of the same layer
goes where the link points (inside the root), one that turns a directory into something else takes
away what the layer had put there, hard links share one inode. What they do to lower layers is
decided by whoever applies the changes.

Spec: image-spec layer.md, "Applying Changesets" and "Whiteouts".
"""

import hashlib
from typing import Final, NamedTuple

from imagekit.errors import BadArchiveError, BadWhiteoutError, EscapesRootError
from imagekit.layer.changes import Changes
from imagekit.layer.index import LayerIndex, implied_directories
from imagekit.layer.tar_reader import DEFAULT_LIMITS, Limits, Member, Stream, iter_members
from imagekit.layer.tar_writer import Contents, Sink, write_layer
from imagekit.layer.tree import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    SYMLINK,
    Entry,
    Where,
)
from imagekit.oci.digest import Digest

__all__ = [
    "ArchiveMember",
    "Contents",
    "Limits",
    "Member",
    "Sink",
    "Stream",
    "iter_members",
    "read_archive",
    "read_layer",
    "write_layer",
]

_KINDS: Final = {
    b"0": FILE,
    b"2": SYMLINK,
    b"3": CHARACTER,
    b"4": BLOCK,
    b"5": DIRECTORY,
    b"6": FIFO,
}
_LINKS: Final = 40
_REMEMBERED: Final = 1 << 16
_PLINK: Final = ".wh..wh.plnk"
_IGNORED: Final = frozenset({".wh..wh.aufs", ".wh..wh.orph", _PLINK})


class ArchiveMember(NamedTuple):
    """One member of an archive that is not a layer.

    Attributes:
        path: below the root of the archive; the root itself is the empty path.
        entry: what is there; names of one file share their inode.
        target: for a hard link to a path that the archive does not carry before it, that path; the
            entry then says nothing. Empty for everything else.
    """

    path: str
    entry: Entry
    target: str = ""


def read_layer(
    stream: Stream,
    *,
    diff_id: Digest | None = None,
    limits: Limits = DEFAULT_LIMITS,
    lenient: bool = False,
) -> LayerIndex:
    """Read the uncompressed tar of a layer, once, to the end.

    Args:
        stream: tar bytes of any producer; left open.
        diff_id: what the bytes are known to be, because who gives them checks it; None to hash
            them.
        limits: how large the layer may be.
        lenient: take names with `..` as if the root were above itself, instead of refusing them.

    Returns:
        The index; `where` of every file is (str(diff_id), offset).

    Raises:
        BadArchiveError: no well-formed archive, or past a limit.
        BadWhiteoutError: a marker that hides nothing, such as a bare `.wh.`.
        EscapesRootError: a name with `..` in it.

    Spec: image-spec layer.md.
    """
    counted = _Counted(stream, hashed=diff_id is None)
    layer = _Layer(str(diff_id or ""), limits, clamp=lenient)
    for member in iter_members(counted, limits=limits):
        layer.add(member)
    return layer.index(diff_id or counted.digest(), counted.size)


def read_archive(
    stream: Stream, *, source: str, limits: Limits = DEFAULT_LIMITS, digests: bool = True
) -> tuple[ArchiveMember, ...]:
    """Read an uncompressed tar that is not a layer: for ADD, or a build context.

    Names are cleaned: leading slashes are cut, `..` stops at the root.

    Args:
        stream: tar bytes of any producer; read to the end, left open.
        source: names the archive in the `where` of its files; `at` is the offset of the content.
        limits: how large the archive may be.
        digests: whether to hash the content of files.

    Returns:
        The members in the order of the archive; of equal paths, all of them.

    Raises:
        BadArchiveError: no well-formed archive, or past a limit.
    """
    members: list[ArchiveMember] = []
    latest: dict[str, int] = {}
    names = _Names(limits.depth, clamp=True)
    for member in iter_members(stream, limits=limits, digests=digests):
        path = names.path(member.name)
        target = ""
        if member.kind == b"1":
            target = names.path(member.link)
            row = latest.get(target)
            if row is not None and members[row].entry.kind != DIRECTORY:
                entry = _shared(members[row].entry)
                members[row] = members[row]._replace(entry=entry)
                target = ""
            else:
                entry = Entry(FILE, member.mode, member.uid, member.gid, member.mtime)
        else:
            entry = archive_entry(member, source)
        latest[path] = len(members)
        members.append(ArchiveMember(path, entry, target))
    return tuple(members)


class _Counted:
    """A stream that counts what passes, and hashes it if asked to."""

    def __init__(self, stream: Stream, *, hashed: bool) -> None:
        self._stream = stream
        self._hash = hashlib.sha256() if hashed else None
        self.size = 0

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size) or b""
        self.size += len(data)
        if self._hash is not None:
            self._hash.update(data)
        return data

    def digest(self) -> Digest:
        if self._hash is None:
            raise RuntimeError("the stream was not hashed")
        return Digest("sha256", self._hash.hexdigest())


class _Names:
    """Turns names in archives into paths; where a folder goes is worked out once."""

    def __init__(self, depth: int, *, clamp: bool) -> None:
        self._depth = depth
        self._clamp = clamp
        self._folders: dict[str, str] = {"": ""}

    def path(self, raw: bytes) -> str:
        """The cleaned path of a name; empty for the root.

        Raises:
            EscapesRootError: a `..` component, unless they are clamped.
            BadArchiveError: too many components.
        """
        name = raw.decode("utf-8", "surrogateescape")
        if name.endswith("/"):
            name = name.rstrip("/")
        head, _, base = name.rpartition("/")
        if base in {"", ".", ".."}:
            parts = self._clean(name)
            head, base = "/".join(parts[:-1]), "".join(parts[-1:])
            if not base:
                return ""
        folder = self._folders.get(head)
        if folder is None:
            folder = self._resolve(self._clean(head))
            if folder.count("/") + 2 > self._depth:
                raise BadArchiveError(f"more than {self._depth} components: {name[:100]!r}...")
            if len(self._folders) < _REMEMBERED:
                self._folders[head] = folder
        return f"{folder}/{base}" if folder else base

    def forget(self) -> None:
        """Folders may have moved: a link has come or gone."""
        self._folders = {"": ""}

    def _resolve(self, parts: list[str]) -> str:
        """The path of a folder; in an archive, just its name."""
        return "/".join(parts)

    def _clean(self, name: str) -> list[str]:
        parts: list[str] = []
        for part in name.split("/"):
            if part in {"", "."}:
                continue
            if part != "..":
                parts.append(part)
            elif not self._clamp:
                raise EscapesRootError(f"a name in the layer holds ..: {name!r}", path=name)
            elif parts:
                parts.pop()
        return parts


class _LayerNames(_Names):
    """Names in a layer, where a folder may be a symlink that the layer itself brought."""

    def __init__(self, depth: int, *, clamp: bool) -> None:
        super().__init__(depth, clamp=clamp)
        self.entries: dict[str, Entry] = {}
        self.unresolved: dict[str, str] = {}
        # Every path that something has been put below.
        self.parents: set[str] = set()

    def _resolve(self, parts: list[str]) -> str:
        if any(part.startswith(".wh.") for part in parts) and parts[0] not in _IGNORED:
            raise BadWhiteoutError(f"a whiteout as a directory: {'/'.join(parts)!r}")
        todo = parts[::-1]
        done: list[str] = []
        links = 0
        while todo:
            part = todo.pop()
            if part in {"", ".", ".."}:
                del done[len(done) - (part == "..") :]
                continue
            done.append(part)
            path = "/".join(done)
            entry = self.entries.get(path)
            if path in self.unresolved or (entry and entry.kind not in {DIRECTORY, SYMLINK}):
                raise BadArchiveError(f"a member below what is no directory: {path!r}", path=path)
            if entry and entry.kind == SYMLINK:
                links += 1
                if links > _LINKS:
                    raise BadArchiveError(f"too many levels of links: {path!r}", path=path)
                done = [] if entry.link.startswith("/") else done[:-1]
                todo += entry.link.split("/")[::-1]
        folder = "/".join(done)
        for at in range(len(done)):
            self.parents.add("/".join(done[: at + 1]))
        return folder


class _Layer:
    """The changes of a layer, member after member."""

    def __init__(self, source: str, limits: Limits, *, clamp: bool) -> None:
        self._source = source
        self._names = _LayerNames(limits.depth, clamp=clamp)
        self._entries = self._names.entries
        self._unresolved = self._names.unresolved
        self._replaced = limits.replaced
        self._whiteouts: set[str] = set()
        self._opaque: set[str] = set()
        self._hidden: dict[str, Entry] = {}
        self._duplicates = 0

    def index(self, diff_id: Digest, size: int) -> LayerIndex:
        """All that was read, once the name of the layer is known."""
        entries = self._entries
        source = str(diff_id)
        if source != self._source:
            entries = {
                path: entry
                if entry.where is None
                else Entry(*entry[:8], Where(source, entry.where.at), *entry[9:])
                for path, entry in entries.items()
            }
        return LayerIndex(
            diff_id=diff_id,
            size=size,
            changes=Changes(
                entries=entries,
                whiteouts=frozenset(self._whiteouts),
                opaque=frozenset(self._opaque),
                implied=implied_directories(entries, self._unresolved),
            ),
            unresolved=tuple(sorted(self._unresolved.items())),
            duplicates=self._duplicates,
        )

    def add(self, member: Member) -> None:
        """Take the next member.

        Raises:
            LayerError: see `read_layer`.
        """
        path = self._names.path(member.name)
        if ".wh." in path and self._marker(path, member):
            return
        if member.kind == b"1":
            self._link(path, self._names.path(member.link))
        else:
            self._put(path, archive_entry(member, self._source))

    def _put(self, path: str, entry: Entry) -> None:
        """Put an entry at a path; the last one counts."""
        old = self._entries.get(path)
        if old is not None or path in self._unresolved:
            self._clear(path)
        if entry.kind != DIRECTORY:
            if not path:
                raise BadArchiveError("the root of the layer is no directory")
            if path in self._names.parents:
                self._replace_folder(path)
        self._entries[path] = entry

    def _clear(self, path: str) -> None:
        """Something of the same name comes later."""
        self._duplicates += 1
        self._unresolved.pop(path, None)
        old = self._entries.pop(path, None)
        if old and old.kind == SYMLINK:
            self._names.forget()

    def _replace_folder(self, path: str) -> None:
        """A path that had something below it turns into something that cannot have."""
        self._replaced -= 1
        if self._replaced < 0:
            raise BadArchiveError("too many directories are replaced by files", path=path)
        below = path + "/"
        for values in (self._entries, self._unresolved):
            for name in [name for name in values if name.startswith(below)]:
                del values[name]
        for names in (self._whiteouts, self._opaque, self._names.parents):
            names.difference_update([name for name in names if name.startswith(below)])
        self._opaque.discard(path)
        self._names.parents.discard(path)
        self._names.forget()

    def _link(self, path: str, target: str) -> None:
        """A hard link: another name for what the target is now."""
        entry = self._entries.get(target) or self._hidden.get(target)
        if not path or not target or path == target or (entry and entry.kind == DIRECTORY):
            raise BadArchiveError(f"hard link to what cannot be linked: {target!r}", path=path)
        if entry is None:
            self._put(path, Entry(FILE, 0))
            del self._entries[path]
            self._unresolved[path] = self._unresolved.get(target, target)
            return
        entry = _shared(entry)
        if target in self._entries:
            self._entries[target] = entry
        self._put(path, entry)

    def _marker(self, path: str, member: Member) -> bool:
        """Take a whiteout or an opaque marker; False if the member is neither."""
        top, _, rest = path.partition("/")
        if top in _IGNORED:
            if top == _PLINK and rest and member.kind == b"0":
                self._hidden[path] = archive_entry(member, self._source)
            return True
        parent, _, base = path.rpartition("/")
        if not base.startswith(".wh."):
            return False
        hidden = base[4:]
        if base == ".wh..wh..opq":
            self._opaque.add(parent)
        elif hidden in {"", ".", ".."} or hidden.startswith(".wh."):
            raise BadWhiteoutError(f"a marker that hides nothing: {path!r}", path=path)
        else:
            self._whiteouts.add(f"{parent}/{hidden}" if parent else hidden)
        return True


def archive_entry(member: Member, source: str) -> Entry:
    """What a member other than a hard link puts into a tree.

    Raises:
        BadArchiveError: a device that overlay file systems take for a whiteout.
    """
    raw, _, mode, uid, gid, mtime, size, link, at, digest, xattrs, device = member
    if raw == b"0":
        return Entry(FILE, mode, uid, gid, mtime, size, "", digest, Where(source, at), 0, xattrs)
    kind = _KINDS[raw]
    target = ""
    if kind == SYMLINK:
        mode = 0o777
        target = link.decode("utf-8", "surrogateescape")
        if not target:
            raise BadArchiveError(f"a symlink to nowhere: {member.name[:100]!r}")
    elif kind == CHARACTER and device == (0, 0):
        raise BadArchiveError(
            f"device 0:0 would delete files in an overlay: {member.name[:100]!r}",
            hint="whiteouts in a layer are files named .wh.NAME",
        )
    return Entry(kind, mode, uid, gid, mtime, link=target, xattrs=xattrs, device=device)


def _shared(entry: Entry) -> Entry:
    """An entry that has another name: files get the offset of their content as inode."""
    if entry.inode or entry.where is None or not isinstance(entry.where.at, int):
        return entry
    return entry._replace(inode=entry.where.at)
