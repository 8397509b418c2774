"""Lay a layer out in a folder: as a lower layer for overlayfs, or onto a plain root.

The names of a layer are hostile. Parents are opened beneath the destination, the last component is
made with O_EXCL and O_NOFOLLOW, what is in the way is removed and never written through (security
spec L-1 to L-5). Metadata comes in one order: owner, attributes, mode, times; directories get
theirs at the end (L-11). Content comes from one stream, read in the order of its offsets.

For an overlay, whiteouts become character devices 0:0 and opaque directories get the attribute
that overlayfs looks for. On a plain root both are carried out.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

from attrs import asdict, frozen

from imagekit.disk.paths import FOLDER, Folders, check_encoding, open_root, remove_at
from imagekit.disk.xattrs import OWNER, is_kept
from imagekit.errors import BadArchiveError, EscapesRootError, LayerError, PathError
from imagekit.layer.changes import Changes
from imagekit.layer.tree import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    IMPLIED,
    SYMLINK,
    Entry,
    Tree,
)

CHUNK: Final = 1 << 20
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_IN_THE_WAY: Final = (errno.EEXIST, errno.EISDIR)


@frozen(kw_only=True)
class Form:
    """How a layer is laid out; `to_json` crosses to a helper process.

    Attributes:
        overlay: as a layer folder; else onto a plain root, carrying out whiteouts.
        userxattr: mark opaque directories for a mount with the option userxattr.
        single_id: no owner but this process's can be set; others are noted in an attribute.
        devices: make device nodes; else they are left out and reported (L-10).
    """

    overlay: bool = True
    userxattr: bool = False
    single_id: bool = False
    devices: bool = False

    @property
    def opaque(self) -> str:
        """The attribute of an opaque directory."""
        return "user.overlay.opaque" if self.userxattr else "trusted.overlay.opaque"

    def to_json(self) -> dict[str, bool]:
        """The JSON form."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read the JSON form."""
        return cls(**value)


def settle(changes: Changes, lower: Tree) -> Changes:
    """What a layer does, once it is known what lies below it.

    Directories that the layer needs but does not carry come with the metadata they have below;
    what goes through a symlink below goes where that points; a whiteout of nothing is dropped, and
    an opaque root becomes whiteouts. The result says the same as the layer on this tree, and can
    be laid out as a folder of its own.
    """
    places = _Places(changes, lower)
    placed = {places.place(path) if path else "": e for path, e in changes.entries.items()}
    implied = [places.real(path) for path in changes.implied]
    hidden = set(changes.whiteouts)
    if "" in changes.opaque:
        hidden.update(lower.list(""))
    opaque = {path for path in changes.opaque if path and lower.get(path) is not None}
    hidden = {p for p in hidden if lower.get(p) is not None and not _is_below(p, opaque)}
    entries: dict[str, Entry] = {}
    needed = (*placed, *hidden, *(f"{path}/." for path in (*implied, *opaque)))
    for path in needed:
        parent = path.rpartition("/")[0]
        while parent and parent not in entries and parent not in placed:
            entries[parent] = _folder_below(lower, parent)
            parent = parent.rpartition("/")[0]
    entries.update(placed)
    return Changes(entries=entries, whiteouts=frozenset(hidden), opaque=frozenset(opaque))


def _is_below(path: str, folders: set[str]) -> bool:
    """Whether a path is below one of the folders; overlayfs shows whiteouts in opaque ones."""
    return bool(folders) and any(
        path[:at] in folders for at, character in enumerate(path) if character == "/"
    )


def stands_alone(changes: Changes, settled: Changes) -> bool:
    """Whether the folder of a layer is the same on every tree, so that it can be shared by all."""
    return (
        changes.entries.keys() == settled.entries.keys()
        and changes.whiteouts == settled.whiteouts
        and changes.opaque == settled.opaque
    )


class _Places:
    """Where directories really are, links of the lower tree followed."""

    def __init__(self, changes: Changes, lower: Tree) -> None:
        self._entries = changes.entries
        self._lower = lower
        self._known = {"": ""}

    def place(self, path: str) -> str:
        head, _, name = path.rpartition("/")
        real = self.real(head)
        return f"{real}/{name}" if real else name

    def real(self, path: str) -> str:
        known = self._known.get(path)
        if known is None:
            known = self._known[path] = self._find(path)
        return known

    def _find(self, path: str) -> str:
        place = self.place(path)
        made = self._entries.get(path)
        if made is not None and made.kind == DIRECTORY:
            return place
        there = self._lower.get(place)
        if there is None or there.kind != SYMLINK:
            return place
        return self._lower.resolve(place).path


def _folder_below(lower: Tree, path: str) -> Entry:
    there = lower.get(path)
    return there if there is not None and there.kind == DIRECTORY else IMPLIED


def extract(changes: Changes, stream: BinaryIO, dest: Path, form: Form) -> tuple[str, ...]:
    """Lay out a layer that `settle` has prepared.

    Args:
        changes: the `at` of every file is the offset of its content in the stream.
        stream: the uncompressed tar of the layer; read in order, not to the end, left open.
        dest: an empty folder of this process's for an overlay; else a root that may be hostile.
        form: see `Form`.

    Returns:
        What could not be made, for people: device nodes.

    Raises:
        LayerError: a name that leaves the root, an owner that cannot be set (`id-unmapped`), or a
            stream that ends early.
        OSError: the folder cannot be written.

    Spec: security.md L-1 to L-5, L-10, L-11; image-spec layer.md, Applying Changesets.
    """
    check_encoding()
    for path in (*changes.entries, *changes.whiteouts, *changes.opaque):
        _check_name(path)
    root = open_root(dest)
    try:
        with Folders(root) as folders:
            return _Extractor(changes, folders, form).run(stream)
    finally:
        os.close(root)


def _check_name(path: str) -> None:
    """Check a name again, in case the index came from somewhere else than the layer."""
    inner = f"/{path}/"
    if path and ("//" in inner or "/../" in inner or "/./" in inner or "\0" in path):
        raise EscapesRootError(f"not a path in a layer: {path!r}", path=path)


class _Extractor:
    """One layer on its way into a folder."""

    def __init__(self, changes: Changes, folders: Folders, form: Form) -> None:
        self._changes = changes
        self._folders = folders
        self._form = form
        self._notes: list[str] = []
        self._ids = (os.geteuid(), os.getegid())

    def run(self, stream: BinaryIO) -> tuple[str, ...]:
        entries = self._changes.entries
        if not self._form.overlay:
            self._carry_out()
        folders = [path for path, entry in entries.items() if entry.kind == DIRECTORY and path]
        for path in sorted(folders):
            self._folder(path)
        self._files(stream)
        for path, entry in entries.items():
            if entry.kind not in (FILE, DIRECTORY):
                self._node(path, entry)
        if self._form.overlay:
            self._mark()
        if self._form.overlay or "" in entries:
            folders.append("")
        self._finish_folders(folders)
        return tuple(self._notes)

    # Things of each kind.

    def _folder(self, path: str) -> None:
        parent, name = self._parent(path)
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                self._folders.forget(path)
                remove_at(parent, name)
                os.mkdir(name, 0o700, dir_fd=parent)

    def _files(self, stream: BinaryIO) -> None:
        """Files in the order of their content; the second name of a file is a link."""
        feed = _Feed(stream)
        files = [(e.where, path, e) for path, e in self._changes.entries.items() if e.kind == FILE]
        first: dict[tuple[str, int], str] = {}
        for where, path, entry in sorted(files, key=_offset):
            if entry.inode and where is not None:
                known = first.setdefault((where.source, entry.inode), path)
                if known != path:
                    self._link(known, path)
                    continue
            with _at(path), self._created(path) as fd:
                feed.copy(entry, fd, path)
                self._set(fd, entry, path)

    @contextlib.contextmanager
    def _created(self, path: str) -> Iterator[int]:
        parent, name = self._parent(path)
        try:
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        except OSError as exc:
            if exc.errno not in _IN_THE_WAY:
                raise
            self._clear(path, parent, name)
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        try:
            yield fd
        finally:
            os.close(fd)

    def _link(self, target: str, path: str) -> None:
        """A hard link to what was made just before, by descriptors of both parents (L-3)."""
        with _at(path):
            parent, name = self._parent(path)
            parent = os.dup(parent)  # opening the other one may close it
            try:
                source, old = self._parent(target)
                with contextlib.suppress(FileExistsError):
                    os.link(old, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
                    return
                self._clear(path, parent, name)
                source, old = self._parent(target)
                os.link(old, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(parent)

    def _node(self, path: str, entry: Entry) -> None:
        """A symlink, pipe or device."""
        if entry.kind in (CHARACTER, BLOCK) and not self._may_make(path, entry):
            return
        with _at(path):
            parent, name = self._parent(path)
            try:
                _make_node(entry, parent, name)
            except FileExistsError:
                self._clear(path, parent, name)
                _make_node(entry, parent, name)
            if entry.kind == SYMLINK:
                if not self._form.single_id and self._ids != (entry.uid, entry.gid):
                    os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
                times = (entry.mtime * 1_000_000_000,) * 2
                os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
            else:
                self._set_by_name(parent, name, entry)

    def _may_make(self, path: str, entry: Entry) -> bool:
        if entry.device == (0, 0):
            raise BadArchiveError("device 0:0 would delete files in an overlay", path=path)
        if not self._form.devices:
            self._notes.append(f"/{path}: device nodes are not made here")
        return self._form.devices

    # Metadata.

    def _set(self, fd: int, entry: Entry, path: str) -> None:
        """Owner, attributes, mode, times, in this order: each would undo some of the next."""
        ids = (entry.uid, entry.gid)
        if self._form.single_id:
            if ids != (0, 0):
                os.setxattr(fd, OWNER, b"%d:%d" % ids)
        elif ids != self._ids or not self._form.overlay:
            os.fchown(fd, *ids)
        for name, value in entry.xattrs:
            if is_kept(name):  # above all not those that steer overlayfs
                self._set_xattr(fd, name, value, path)
        os.fchmod(fd, entry.mode)
        os.utime(fd, ns=(entry.mtime * 1_000_000_000,) * 2)

    def _set_xattr(self, fd: int, name: str, value: bytes, path: str) -> None:
        try:
            os.setxattr(fd, name, value)
        except OSError as exc:
            if exc.errno not in (errno.ENOTSUP, errno.EPERM):
                raise
            self._notes.append(f"/{path}: the attribute {name} cannot be set here")

    def _set_by_name(self, parent: int, name: str, entry: Entry) -> None:
        """For pipes and devices, which must not be opened; the name was made by us just before."""
        if not self._form.single_id:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        os.chmod(name, entry.mode, dir_fd=parent)
        os.utime(name, ns=(entry.mtime * 1_000_000_000,) * 2, dir_fd=parent)

    def _finish_folders(self, folders: list[str]) -> None:
        """Metadata of directories, children first: what is made in one changes its times."""
        entries = self._changes.entries
        implied = self._folders.made.difference(entries)
        for path in sorted([*folders, *implied], reverse=True):
            with _at(path):
                fd = self._folders.fd(path)
                self._set(fd, entries.get(path, IMPLIED), path)
                self._folders.forget(path)

    # Whiteouts.

    def _mark(self) -> None:
        """Whiteouts as overlayfs reads them; one of a path that the layer has again is opacity."""
        entries = self._changes.entries
        opaque = set(self._changes.opaque)
        for path in sorted(self._changes.whiteouts):
            again = entries.get(path)
            if again is not None:
                if again.kind == DIRECTORY:
                    opaque.add(path)
                continue
            parent, name = self._parent(path)
            with _at(path), contextlib.suppress(FileExistsError):
                os.mknod(name, stat.S_IFCHR, 0, dir_fd=parent)
        for path in opaque:
            with _at(path):
                os.setxattr(self._folders.fd(path), self._form.opaque, b"y")

    def _carry_out(self) -> None:
        """Remove what the layer hides; it acts on what was there before alone (L-6)."""
        for path in self._changes.opaque:
            self._empty(path)
        for path in self._changes.whiteouts:
            with _at(path), contextlib.suppress(FileNotFoundError, NotADirectoryError):
                parent, name = self._existing_parent(path)
                try:
                    self._folders.forget(path)
                    remove_at(parent, name)
                finally:
                    os.close(parent)

    def _empty(self, path: str) -> None:
        with _at(path), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            parent, name = self._existing_parent(f"{path}/." if path else ".")
            del name
            try:
                for child in os.listdir(parent):  # noqa: PTH208 - a descriptor
                    self._folders.forget(f"{path}/{child}" if path else child)
                    remove_at(parent, child)
            finally:
                os.close(parent)

    # Places.

    def _parent(self, path: str) -> tuple[int, str]:
        head, _, name = path.rpartition("/")
        return self._folders.fd(head), name

    def _existing_parent(self, path: str) -> tuple[int, str]:
        """The parent of a path, reached without following a link; to be closed."""
        *heads, name = path.split("/")
        fd = os.dup(self._folders.root)
        for head in heads:
            try:
                below = os.open(head, FOLDER | os.O_NOFOLLOW, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return fd, name

    def _clear(self, path: str, parent: int, name: str) -> None:
        """Remove what is in the way."""
        self._folders.forget(path)
        remove_at(parent, name)


class _Feed:
    """The contents of files out of one stream, in order."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._at = 0

    def copy(self, entry: Entry, fd: int, path: str) -> None:
        """Write the content of a file to a descriptor."""
        if not entry.size:
            return
        if entry.where is None or not isinstance(entry.where.at, int):
            raise LayerError(f"/{path}: it is not known where its content is", path=path)
        self._skip(entry.where.at, path)
        left = entry.size
        while left:
            data = self._read(min(left, CHUNK), path)
            left -= len(data)
            _write_all(fd, data)

    def _skip(self, offset: int, path: str) -> None:
        if offset < self._at:
            raise LayerError(f"/{path}: its content overlaps that of another file", path=path)
        while self._at < offset:
            self._read(min(offset - self._at, CHUNK), path)

    def _read(self, size: int, path: str) -> bytes:
        data = self._stream.read(size)
        if not data:
            raise BadArchiveError(f"the layer ends within /{path}", path=path)
        self._at += len(data)
        return data


def _write_all(fd: int, data: bytes) -> None:
    done = os.write(fd, data)
    while done < len(data):
        done += os.write(fd, memoryview(data)[done:])


def _offset(item: tuple[Any, str, Entry]) -> int:
    """Empty files have no content to wait for."""
    where, _, entry = item
    return where.at if where is not None and isinstance(where.at, int) and entry.size else -1


def _make_node(entry: Entry, parent: int, name: str) -> None:
    if entry.kind == SYMLINK:
        os.symlink(entry.link, name, dir_fd=parent)
    elif entry.kind == FIFO:
        os.mkfifo(name, 0o600, dir_fd=parent)
    else:
        kind = stat.S_IFCHR if entry.kind == CHARACTER else stat.S_IFBLK
        os.mknod(name, kind | 0o600, os.makedev(*entry.device), dir_fd=parent)


@contextlib.contextmanager
def _at(path: str) -> Iterator[None]:
    """Name the path in an error, and say what is the matter with an owner."""
    try:
        yield
    except OSError as exc:
        if exc.errno == errno.EINVAL:
            raise LayerError(
                f"/{path}: its owner has no number in this sandbox",
                path=path,
                hint="give the user a larger range in /etc/subuid and /etc/subgid",
                code="id-unmapped",
            ) from exc
        if exc.errno == errno.ELOOP:
            raise PathError(f"/{path}: too many levels of symlinks", path=path) from exc
        raise
