"""Changes -> tar: the same bytes for the same changes, on every machine.

Decided here: the order of members (a directory, its opaque marker, its whiteouts, its children by
name in bytes), one header for each (ustar, with pax records only for what ustar cannot say),
numeric owners, no times but mtime. Left to others: where contents come from (`Contents`), and what
becomes of the bytes (`Sink`).

The loop over members is the hottest one of a build, so it does per member only what that member
needs; bytes leave in blocks of 1 MiB.

Spec: image-spec layer.md, "Creating" and "Representing Changes".
"""

import hashlib
from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol, runtime_checkable

from imagekit.errors import BadWhiteoutError, DigestMismatchError, LayerError
from imagekit.layer.changes import Changes
from imagekit.layer.headers import (
    BLOCK,
    MAX_OCTAL_8,
    MAX_OCTAL_12,
    MTIME_MAX,
    MTIME_MIN,
    NAME_SIZE,
    ZERO_BLOCK,
    ascii_name,
    full_header,
    owner_fields,
    pax_header,
    plain_header,
    split_name,
)
from imagekit.layer.index import LayerIndex, implied_directories
from imagekit.layer.tree import BLOCK as BLOCK_DEVICE
from imagekit.layer.tree import CHARACTER, DIRECTORY, FIFO, FILE, SYMLINK, Entry, Where
from imagekit.oci.digest import Digest

OUTPUT_BLOCK: Final = 1 << 20
SMALL: Final = 1 << 20
"""Files below this size are asked for whole."""

_TYPES: Final = {
    FILE: b"0",
    SYMLINK: b"2",
    CHARACTER: b"3",
    BLOCK_DEVICE: b"4",
    DIRECTORY: b"5",
    FIFO: b"6",
}
_PADS: Final = tuple(bytes(-size % BLOCK) for size in range(BLOCK))


Xattrs = tuple[tuple[str, bytes], ...]
"""Names and values, sorted by name."""


class Contents(Protocol):
    """Where the bytes of files are read."""

    def read_small(self, entry: Entry) -> bytes | None:
        """The whole content of a file below 1 MiB, or None to be asked for `chunks` instead."""

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """The content of a file, exactly `entry.size` bytes in pieces of any size."""


@runtime_checkable
class FirstLook(Protocol):
    """Contents whose files may not have been looked into: those without a digest."""

    def read_unknown(self, entry: Entry) -> tuple[bytes, Xattrs] | None:
        """Content and extended attributes at once; None for a file of 1 MiB and more."""

    def attributes(self, entry: Entry) -> Xattrs:
        """The extended attributes of a file."""


class Sink(Protocol):
    """Where the bytes of a tar go."""

    def write(self, data: bytes) -> object:
        """Take the next bytes; blocks of 1 MiB, the last one shorter."""

    def finish(self) -> Digest:
        """Called once, after the last write: the digest of all bytes, the diff ID."""


class _Item(NamedTuple):
    """A member to be written; sorts into archive order by `key`."""

    key: bytes
    path: str
    entry: Entry | None


class _Placed(NamedTuple):
    """A member that was written: its time, digest and offset, which is -1 for all but files."""

    entry: Entry
    mtime: int
    digest: bytes
    at: int


class _Blocks:
    """Collects bytes and hands them to the sink in blocks of 1 MiB."""

    def __init__(self, sink: Sink) -> None:
        self.offset = 0
        self._sink = sink
        self._parts: list[bytes] = []
        self._room = OUTPUT_BLOCK

    def add(self, data: bytes) -> None:
        size = len(data)
        self.offset += size
        if size < self._room:
            self._parts.append(data)
            self._room -= size
        else:
            self._overflow(data)

    def _overflow(self, data: bytes) -> None:
        view = memoryview(data)
        while len(view) >= self._room:
            self._sink.write(b"".join([*self._parts, view[: self._room]]))
            view = view[self._room :]
            self._parts.clear()
            self._room = OUTPUT_BLOCK
        if view:
            self._parts.append(bytes(view))
            self._room -= len(view)

    def finish(self) -> Digest:
        self.add(ZERO_BLOCK * 2)
        if self._parts:
            self._sink.write(b"".join(self._parts))
        return self._sink.finish()


def write_layer(
    changes: Changes,
    contents: Contents,
    sink: Sink,
    *,
    epoch: int | None = None,
    verify: bool = False,
) -> LayerIndex:
    """Write the tar of one layer, and say where in it every file's content is.

    Reading the tar again with `read_layer` gives an equal index.

    Args:
        changes: what to write; directories that it needs but does not have come out as `implied`.
        contents: asked for the files in archive order; names of one file (equal inodes) are asked
            for once.
        sink: gets the bytes, and says their digest.
        epoch: the latest mtime, in seconds; later ones become this one.
        verify: check the digests that entries have already; without it they are trusted, and only
            missing ones are computed.

    Raises:
        BadWhiteoutError: a name starts with `.wh.`, which in a layer would delete something.
        DigestMismatchError: with `verify`, a content is not the one its entry names.
        LayerError: a content is longer or shorter than its entry says, or a name or number does
            not fit in a tar.

    Spec: image-spec layer.md, "Representing Changes".
    """
    writer = _Writer(contents, sink, epoch=epoch, verify=verify)
    for item in _in_order(changes):
        if item.entry is None:
            writer.marker(item.path)
        elif item.entry.kind == FILE:
            writer.file(item.path, item.entry)
        else:
            writer.other(item.path, item.entry)
    implied = implied_directories(changes.entries)  # while the last blocks are compressed
    diff_id = writer.blocks.finish()
    return LayerIndex(
        diff_id=diff_id,
        size=writer.blocks.offset,
        changes=Changes(
            entries=writer.placed(str(diff_id)),
            whiteouts=frozenset(changes.whiteouts),
            opaque=frozenset(changes.opaque),
            implied=implied,
        ),
    )


def _in_order(changes: Changes) -> list[_Item]:
    """All members, in the one order that they are written in.

    The key is the path with NUL for `/`, so that a directory is followed by what is in it. Between
    the two come its markers: no name is empty, so two NULs sort before every child.
    """
    items = []
    for path, entry in changes.entries.items():
        name = path.encode("utf-8", "surrogateescape")
        if b"\0" in name:
            raise LayerError("a path holds a NUL byte", path=path)
        key = b"\0" + name.replace(b"/", b"\0") if name else b""
        if b"\0.wh." in key:
            raise BadWhiteoutError(
                f"{path}: names that start with .wh. delete files when a layer is applied",
                path=path,
                hint="rename the file, or leave it out with .dockerignore",
            )
        items.append(_Item(key, path, entry))
    for path in changes.opaque:
        name = path.encode("utf-8", "surrogateescape")
        key = b"\0" + name.replace(b"/", b"\0") if name else b""
        marker = f"{path}/.wh..wh..opq" if path else ".wh..wh..opq"
        items.append(_Item(key + b"\0\0", marker, None))
    for path in changes.whiteouts:
        parent, _, base = path.rpartition("/")
        if not base or base in {".", ".."} or base.startswith(".wh."):
            raise BadWhiteoutError(f"{path}: cannot be hidden by a whiteout", path=path)
        name = parent.encode("utf-8", "surrogateescape")
        key = b"\0" + name.replace(b"/", b"\0") if name else b""
        marker = f"{parent}/.wh.{base}" if parent else f".wh.{base}"
        items.append(_Item(key + b"\0\0" + base.encode("utf-8", "surrogateescape"), marker, None))
    items.sort()
    return items


class _Writer:
    """Writes members one by one and remembers where they went."""

    def __init__(self, contents: Contents, sink: Sink, *, epoch: int | None, verify: bool) -> None:
        self.blocks = _Blocks(sink)
        self._contents = contents
        self._first_look = contents if isinstance(contents, FirstLook) else None
        self._originals: dict[str, Entry] = {}
        self._verify = verify
        self._epoch = MTIME_MAX if epoch is None else min(epoch, MTIME_MAX)
        self._owners: dict[tuple[int, int, int], bytes] = {}
        self._members: dict[str, _Placed] = {}
        # Of each file with several names: the first path.
        self._firsts: dict[tuple[str, int], str] = {}
        self._linked: set[int] = set()

    def placed(self, source: str) -> dict[str, Entry]:
        """The entries as a reader of the tar sees them, with `where` in the layer `source`."""
        linked = self._linked
        return {
            path: entry
            if at < 0
            else Entry(
                FILE,
                entry.mode & 0o7777,
                entry.uid,
                entry.gid,
                mtime,
                entry.size,
                "",
                digest,
                Where(source, at),
                at if at in linked else 0,
                entry.xattrs,
            )
            for path, (entry, mtime, digest, at) in self._members.items()
        }

    def marker(self, path: str) -> None:
        """A whiteout or an opaque marker: an empty file."""
        self._header(path, Entry(FILE, 0), b"0", 0)

    def other(self, path: str, entry: Entry) -> None:
        """Anything but a file."""
        entry = Entry(
            entry.kind,
            0o777 if entry.kind == SYMLINK else entry.mode & 0o7777,
            entry.uid,
            entry.gid,
            self._time(entry.mtime),
            link=entry.link if entry.kind == SYMLINK else "",
            xattrs=entry.xattrs,
            device=entry.device if entry.kind in {CHARACTER, BLOCK_DEVICE} else (0, 0),
        )
        self._header(path, entry, _TYPES[entry.kind], entry.mtime)
        self._members[path] = _Placed(entry, entry.mtime, b"", -1)

    def file(self, path: str, entry: Entry) -> None:
        """A file and its content; or a hard link, if it is another name of one already written."""
        if entry.inode and self._link(path, entry):
            return
        data = None
        if self._first_look is not None and not entry.digest:
            if entry.inode:
                self._originals[path] = entry
            entry, data = self._looked_into(entry, self._first_look)
        mtime = entry.mtime
        if mtime > self._epoch or mtime < MTIME_MIN:
            mtime = self._time(mtime)
        self._header(path, entry, b"0", mtime)
        at = self.blocks.offset
        self._members[path] = _Placed(entry, mtime, self._content(path, entry, data), at)

    def _looked_into(self, entry: Entry, contents: FirstLook) -> tuple[Entry, bytes | None]:
        """A file with its attributes, and its content if it is small."""
        found = contents.read_unknown(entry)
        data, xattrs = (None, contents.attributes(entry)) if found is None else found
        return (entry._replace(xattrs=xattrs) if xattrs else entry), data

    def _time(self, mtime: int) -> int:
        return max(MTIME_MIN, min(mtime, self._epoch))

    def _link(self, path: str, entry: Entry) -> bool:
        """Write a hard link to the first name of the file; False if this is the first."""
        key = (entry.where.source if entry.where else "", entry.inode)
        first = self._firsts.setdefault(key, path)
        if first is path:
            return False
        known = self._members[first]
        if _bare(self._originals.get(first, known.entry)) != _bare(entry):
            return False  # one inode, two faces: only separate files can keep both
        header = known.entry._replace(size=0, link=first, xattrs=())
        self._header(path, header, b"1", known.mtime)
        self._linked.add(known.at)
        self._members[path] = known
        return True

    def _content(self, path: str, entry: Entry, data: bytes | None) -> bytes:
        """Write the content and padding of a file; its digest."""
        size = entry.size
        if size < SMALL:
            if data is None:
                data = self._contents.read_small(entry) if size else b""
            if data is not None:
                if len(data) != size:
                    raise _wrong_size(path, size, len(data))
                self.blocks.add(data)
                if size % BLOCK:
                    self.blocks.add(_PADS[size % BLOCK])
                if entry.digest and not self._verify:
                    return entry.digest
                return self._checked(path, entry, hashlib.sha256(data).digest())
        return self._stream(path, entry)

    def _stream(self, path: str, entry: Entry) -> bytes:
        trusted = bool(entry.digest) and not self._verify
        running = hashlib.sha256()
        got = 0
        for chunk in self._contents.chunks(entry):
            got += len(chunk)
            if got > entry.size:
                break
            if not trusted:
                running.update(chunk)
            self.blocks.add(chunk)
        if got != entry.size:
            raise _wrong_size(path, entry.size, got)
        self.blocks.add(_PADS[got % BLOCK])
        return entry.digest if trusted else self._checked(path, entry, running.digest())

    def _checked(self, path: str, entry: Entry, digest: bytes) -> bytes:
        if entry.digest and digest != entry.digest:
            raise DigestMismatchError(
                f"{path}: want sha256:{entry.digest.hex()}, got sha256:{digest.hex()}"
            )
        return entry.digest or digest

    def _header(self, path: str, entry: Entry, kind: bytes, mtime: int) -> None:
        """Write the header of a member, with a pax header before it where it needs one."""
        name = path.encode("utf-8", "surrogateescape")
        if kind == b"5":
            name = name + b"/" if name else b"./"
        _, mode, uid, gid, _, size, link, _, _, _, xattrs, _ = entry
        owner = self._owners.get((mode, uid, gid))
        if (
            owner is not None
            and len(name) <= NAME_SIZE
            and mtime >= 0
            and size <= MAX_OCTAL_12
            and not (link or xattrs)
            and kind in b"056"
            and name.isascii()
        ):
            self.blocks.add(plain_header(name, owner, size, mtime, kind))
            return
        owner = owner_fields(mode, uid, gid)
        if uid <= MAX_OCTAL_8 and gid <= MAX_OCTAL_8:
            self._owners[mode, uid, gid] = owner
        target = link.encode("utf-8", "surrogateescape")
        self._rich_header(path, name, owner, (size, mtime), kind, target, entry)

    def _rich_header(
        self,
        path: str,
        name: bytes,
        owner: bytes,
        numbers: tuple[int, int],
        kind: bytes,
        link: bytes,
        entry: Entry,
    ) -> None:
        size, mtime = numbers
        parts = split_name(name) if name.isascii() else None
        short_link = len(link) <= NAME_SIZE and link.isascii()
        records: list[tuple[bytes, bytes]] = []
        if parts is None:
            records.append((b"path", name))
        if not short_link:
            records.append((b"linkpath", link))
        records += [
            (key, b"%d" % value)
            for key, value, fits in (
                (b"uid", entry.uid, entry.uid <= MAX_OCTAL_8),
                (b"gid", entry.gid, entry.gid <= MAX_OCTAL_8),
                (b"size", size, size <= MAX_OCTAL_12),
                (b"mtime", mtime, mtime >= 0),
            )
            if not fits
        ]
        for attribute, value in entry.xattrs:
            if "=" in attribute or "\0" in attribute:
                raise LayerError(f"no tar can carry the attribute {attribute!r}", path=path)
            key = attribute.encode("utf-8", "surrogateescape")
            records.append((b"SCHILY.xattr." + key, value))
        if any(not _is_utf8(value) for key, value in records if key in {b"path", b"linkpath"}):
            records.insert(0, (b"hdrcharset", b"BINARY"))
        if records:
            self.blocks.add(pax_header(name, sorted(records)))
        prefix, short = parts or (b"", ascii_name(name))
        self.blocks.add(
            full_header(
                short,
                owner,
                size if size <= MAX_OCTAL_12 else 0,
                max(0, mtime),
                kind,
                link=link if short_link else ascii_name(link),
                device=entry.device,
                prefix=prefix,
            )
        )


def _bare(entry: Entry) -> Entry:
    """What all names of one file have in common."""
    return entry._replace(inode=0, where=None, mtime=0, digest=b"")


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _wrong_size(path: str, want: int, got: int) -> LayerError:
    return LayerError(
        f"{path}: want {want} bytes of content, got {'more' if got > want else got}",
        path=path,
        code="content-size",
    )
