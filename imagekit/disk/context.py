"""Build contexts from a folder: a tree of what is in it, and its content when asked for.

Looking and reading are two phases. `scan` makes a `Tree` of one pass over the folder, and fills in
the content digests that the stat cache knows; `digest` reads what is still missing, of the entries
that a step really uses. Content is then read again for the layer, and each time the file must look
as it did: a context that changes under the build is an error, never a torn layer (security spec
C-2).

Owners are root's and times whole seconds, as in a layer. Of extended attributes, `user.*` and
`security.capability` are kept (C-5).
"""

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Self

from attrs import frozen

from imagekit.disk.ignorefile import find_ignore
from imagekit.disk.paths import FOLDER, check_encoding, open_root
from imagekit.disk.problems import (
    SOCKET,
    SPECIAL,
    changed,
    readable,
    special_file,
    too_large,
    unreadable,
)
from imagekit.disk.stats import Known, NoStatCache, StatCache, decode, encode, is_racy, now_ns
from imagekit.disk.xattrs import Xattrs, read_xattrs
from imagekit.dockerfile.ignore import NO_STATE, Matcher
from imagekit.errors import ContextError
from imagekit.layer.tree import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    SYMLINK,
    Directory,
    Entry,
    Node,
    Tree,
    Where,
)

__all__ = ["ContextLimits", "FolderContext", "find_ignore"]

SMALL: Final = 1 << 20
CHUNK: Final = 1 << 20

_KINDS: Final = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK,
    stat.S_IFIFO: FIFO,
    stat.S_IFSOCK: SOCKET,
}
_PLAIN: Final = frozenset({DIRECTORY, SYMLINK})
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KEPT_FOLDERS: Final = 64


@frozen(kw_only=True)
class ContextLimits:
    """How large a context may be (security spec C-6).

    Attributes:
        entries: files, directories and links that are not ignored.
        depth: of directories in each other.
        size: bytes of all files.
    """

    entries: int = 2_000_000
    depth: int = 512
    size: int = 64 << 30


class FolderContext:
    """A folder of the caller's as a source of files; also the `Contents` of its entries.

    One object serves one build: the folder is scanned once. Methods may be called from any thread.

    Attributes:
        name: of the context; empty for the main one.
        source: what the `where` of its files says.
        ignore: what is left out, or None.
        limits: how large it may be.
        skip: (device, inode) of folders that are not part of it.
    """

    def __init__(
        self,
        root: Path,
        *,
        name: str = "",
        ignore: Matcher | None = None,
        stat_cache: StatCache | None = None,
        skip: Iterable[Path] = (),
        limits: ContextLimits | None = None,
    ) -> None:
        """Open a folder.

        Args:
            root: the folder; a symlink to one is followed.
            name: of the context; empty for the main one.
            ignore: what is left out.
            stat_cache: remembers digests between builds; None remembers nothing.
            skip: folders that are not part of it wherever they are met, such as the store.
            limits: how large it may be.

        Raises:
            ContextError: there is no such folder, or it cannot be read.
        """
        check_encoding()
        self.name = name
        self.source = f"context:{name}"
        self.ignore = ignore
        self.limits = limits or ContextLimits()
        self._cache: StatCache = NoStatCache() if stat_cache is None else stat_cache
        self._lock = threading.Lock()
        self._scan_lock = threading.Lock()
        self._tree: Tree | None = None
        self._known: dict[str, Known] = {}
        self._folders: dict[str, int] = {}
        self._dirty = False
        self._looked_ns = 0
        self.is_known = False
        try:
            self._root = open_root(root)
        except OSError as exc:
            raise ContextError(
                f"cannot open the build context {root}: {exc.strerror}",
                hint="the build context is a folder",
            ) from exc
        found = os.fstat(self._root)
        self._key = f"{os.path.realpath(root)}\0{found.st_dev}:{found.st_ino}"
        self.skip = _identities(skip)

    def close(self) -> None:
        """Remember what was learnt and close the folder; a second call does nothing."""
        with self._lock:
            if self._root >= 0:
                self._close_folders()
                os.close(self._root)
                self._root = -1
        self.save()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What is there.

    def scan(self) -> Tree:
        """What is in the folder and not ignored; the first call looks, later ones give the same.

        Files that the stat cache does not know have neither digest nor extended attributes yet.

        Raises:
            ContextError: something cannot be read, or a limit is passed (code `context-limit`).
        """
        with self._scan_lock:
            if self._tree is None:
                self._known = decode(self._cache.load(self._key))
                self._looked_ns = now_ns()
                scanner = _Scanner(self, self._known)
                self._tree = scanner.run(self._root)
                self._known = scanner.seen
                self.is_known = scanner.is_known
            return self._tree

    def prunes(self, path: str) -> bool:
        """Whether nothing below an excluded directory can be part of the context."""
        return self.ignore is not None and self.ignore.prunes(path)

    def digest(self, entries: Sequence[Entry]) -> list[Entry]:
        """The same entries with the digest and the extended attributes of every file.

        Size, mode and time are those of the file when it was read, should it have changed since
        the scan.

        Args:
            entries: of this context's tree, in any order.

        Raises:
            ContextError: a file cannot be read (code `context`), changes all the time
                (`context-changed`), or is none (`context-special-file`).
        """
        return [
            entry if entry.digest or entry.kind in _PLAIN else self._digested(entry)
            for entry in entries
        ]

    def unknown_size(self, paths: Iterable[str]) -> int:
        """How many bytes of these files nobody has read yet."""
        known = self._known
        return sum(known[p].size for p in paths if p in known and not known[p].digest)

    def learn(self, found: Iterable[tuple[str, bytes, Xattrs]]) -> None:
        """Note the digests and attributes of files that were read elsewhere.

        Args:
            found: paths, digests and attributes of files that `read_unknown` or `chunks` gave,
                which checked that they look as they did when they were scanned.
        """
        with self._lock:
            for path, digest, xattrs in found:
                self._known[path] = Known(*self._known[path][:5], digest, xattrs)
                self._dirty = True

    def save(self) -> None:
        """Keep what was learnt in the stat cache, if anything was; `close` does it too."""
        with self._lock:
            if not self._dirty:
                return
            self._dirty = False
            known = {p: k for p, k in self._known.items() if k.digest and not self._racy(k)}
        self._cache.save(self._key, encode(known))

    def _racy(self, known: Known) -> bool:
        return is_racy(known, self._looked_ns)

    def _digested(self, entry: Entry) -> Entry:
        if entry.kind in SPECIAL:
            raise special_file(entry, _path(entry))
        path = _path(entry)
        known = self._known[path]
        if not known.digest:
            known = self._hash(path)
            with self._lock:
                self._known[path] = known
                self._dirty = True
        size, mtime_ns, _, _, mode, digest, xattrs = known
        mtime = mtime_ns // 1_000_000_000
        where, inode = entry.where, entry.inode
        return Entry(FILE, mode & 0o7777, 0, 0, mtime, size, "", digest, where, inode, xattrs)

    def _hash(self, path: str) -> Known:
        for _ in range(2):  # once more for a file that is just being written (C-2)
            fd = self._open(path)
            try:
                before = _look(os.fstat(fd))
                if not stat.S_ISREG(before[4]):
                    raise changed(path)
                hashed = hashlib.sha256()
                left = before[0] + 1
                while left > 0 and (chunk := os.read(fd, min(CHUNK, left))):
                    hashed.update(chunk)
                    left -= len(chunk)
                    if left == 1:
                        break  # all that there was; that there is no more, fstat says
                xattrs = read_xattrs(fd)
                if _look(os.fstat(fd)) == before:
                    return Known(*before, hashed.digest(), xattrs)
            except OSError as exc:
                raise unreadable(path, exc) from exc
            finally:
                os.close(fd)
        raise changed(path)

    # Contents.

    def read_small(self, entry: Entry) -> bytes | None:
        """The whole content of a file below 1 MiB; None for a larger one, to be read in chunks.

        Raises:
            ContextError: it is not what it was (code `context-changed`), or cannot be read.
        """
        size = entry.size
        if size >= SMALL:
            return None
        path = _path(entry)
        fd = self._open(path)
        try:
            data = os.read(fd, size + 1)
            self._check(path, os.fstat(fd))  # what it was at the scan, so it did not change since
        except OSError as exc:
            raise unreadable(path, exc) from exc
        finally:
            os.close(fd)
        if len(data) != size:
            raise changed(path)
        return data

    def read_unknown(self, entry: Entry) -> tuple[bytes, Xattrs] | None:
        """The content and the attributes of a file that was not digested, opened once for both.

        None for a file of 1 MiB and more: its attributes are those of `attributes`.

        Raises:
            ContextError: as `read_small`.
        """
        size = entry.size
        if size >= SMALL:
            return None
        path = _path(entry)
        fd = self._open(path)
        try:
            data = os.read(fd, size + 1)
            xattrs = read_xattrs(fd)
            self._check(path, os.fstat(fd))
        except OSError as exc:
            raise unreadable(path, exc) from exc
        finally:
            os.close(fd)
        if len(data) != size:
            raise changed(path)
        return data, xattrs

    def attributes(self, entry: Entry) -> Xattrs:
        """The extended attributes of a file.

        Raises:
            ContextError: it cannot be read.
        """
        path = _path(entry)
        fd = self._open(path)
        try:
            return read_xattrs(fd)
        except OSError as exc:
            raise unreadable(path, exc) from exc
        finally:
            os.close(fd)

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """The content of a file in pieces of up to 1 MiB.

        Raises:
            ContextError: as `read_small`; when it is not what it was this may come after the last
                piece, and what was made of the pieces must then be thrown away.
        """
        path, left = _path(entry), entry.size
        fd = self._open(path)
        try:
            self._check(path, os.fstat(fd))
            while left:
                data = os.read(fd, min(CHUNK, left))
                if not data:
                    raise changed(path)
                left -= len(data)
                yield data
            self._check(path, os.fstat(fd))
        except OSError as exc:
            raise unreadable(path, exc) from exc
        finally:
            os.close(fd)

    def _check(self, path: str, found: os.stat_result) -> None:
        """Check that a file still looks as when it was scanned or digested."""
        known = self._known.get(path)
        if known is None or known[:5] != _look(found):
            raise changed(path)

    # Descriptors.

    def _open(self, path: str) -> int:
        """A descriptor of what was a regular file; no link is followed, no pipe waited for.

        Whoever reads it compares what `fstat` says with what the scan saw: that tells whether it
        still is one.
        """
        head, _, name = path.rpartition("/")
        try:
            with self._lock:
                fd = os.open(name, _READ, dir_fd=self._folder(head))
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise changed(path) from exc
        except OSError as exc:
            if exc.errno in (errno.ELOOP, errno.ENXIO):
                raise changed(path) from exc
            raise unreadable(path, exc) from exc
        return fd

    def _folder(self, path: str) -> int:
        """The descriptor of a directory, reached without following a link; under the lock."""
        if not path:
            return self._root
        known = self._folders.get(path)
        if known is not None:
            return known
        head, _, name = path.rpartition("/")
        fd = os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=self._folder(head))
        if len(self._folders) >= _KEPT_FOLDERS:
            os.close(self._folders.pop(next(iter(self._folders))))
        self._folders[path] = fd
        return fd

    def _close_folders(self) -> None:
        for fd in self._folders.values():
            os.close(fd)
        self._folders.clear()


class _Scanner:
    """One pass over the folder; `seen` has what its files look like and what is known."""

    def __init__(self, context: "FolderContext", known: dict[str, Known]) -> None:
        self.seen: dict[str, Known] = {}
        self.is_known = True
        self._known = known
        self._context = context
        self._inodes: dict[tuple[int, int], int] = {}
        self._count = 0
        self._size = 0

    def run(self, root: int) -> Tree:
        top = _folder_entry(os.fstat(root), read_xattrs(root))
        try:
            return Tree(Directory(top, self._folder(root, "", NO_STATE, 0)))
        except RecursionError as exc:  # the caller's own stack is deep
            raise too_large("too many folders in each other", "") from exc

    def _folder(self, fd: int, prefix: str, state: int, depth: int) -> dict[str, Node]:
        """The children of an open directory; excluded ones only where something below is not."""
        children: dict[str, Node] = {}
        ignore = self._context.ignore
        with readable(prefix), os.scandir(fd) as found:
            for item in list(found):
                name = item.name
                path = prefix + name
                excluded, own = ignore.step(path, state) if ignore else (False, NO_STATE)
                if excluded and (
                    not item.is_dir(follow_symlinks=False) or self._context.prunes(path)
                ):
                    continue
                status = item.stat(follow_symlinks=False)
                if status.st_mode & 0o170000 == stat.S_IFREG:
                    children[name] = self._file(path, status)
                elif status.st_mode & 0o170000 == stat.S_IFDIR:
                    node = self._below(fd, path, own, depth)
                    if node is not None and (node.children or not excluded):
                        children[name] = node
                else:
                    children[name] = self._special(fd, path, status)
        self._check_limits(len(children), depth, prefix)
        return children

    def _file(self, path: str, status: os.stat_result) -> Entry:
        look = (
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_ino,
            status.st_mode,
        )
        self._size += look[0]
        known = self._known.get(path)
        if known is None or known[:5] != look:
            known = Known(*look)
        if not known.digest:
            self.is_known = False
        self.seen[path] = known
        inode = 0
        if status.st_nlink > 1:
            identity = status.st_dev, status.st_ino
            inode = self._inodes.setdefault(identity, len(self._inodes) + 1)
        return Entry(
            FILE,
            look[4] & 0o7777,
            0,
            0,
            look[1] // 1_000_000_000,
            look[0],
            "",
            known.digest,
            Where(self._context.source, path),
            inode,
            known.xattrs,
        )

    def _special(self, parent: int, path: str, status: os.stat_result) -> Entry:
        """A link, or something that a context should not have and that copying refuses."""
        kind = _KINDS[stat.S_IFMT(status.st_mode)]
        mtime = status.st_mtime_ns // 1_000_000_000
        if kind == SYMLINK:
            with readable(path):
                target = os.readlink(path.rpartition("/")[2], dir_fd=parent)
            return Entry(SYMLINK, 0o777, mtime=mtime, link=target)
        self.is_known = False
        where = Where(self._context.source, path)
        return Entry(kind, status.st_mode & 0o7777, mtime=mtime, where=where)

    def _below(self, parent: int, path: str, state: int, depth: int) -> Directory | None:
        """A directory and what is below it; None for one that is to be skipped."""
        with readable(path):
            fd = os.open(path.rpartition("/")[2], FOLDER | os.O_NOFOLLOW, dir_fd=parent)
        try:
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) in self._context.skip:
                return None
            with readable(path):
                entry = _folder_entry(status, read_xattrs(fd))
            return Directory(entry, self._folder(fd, f"{path}/", state, depth + 1))
        finally:
            os.close(fd)

    def _check_limits(self, count: int, depth: int, prefix: str) -> None:
        limits = self._context.limits
        self._count += count
        if self._count > limits.entries:
            raise too_large(f"more than {limits.entries} entries", prefix)
        if depth > limits.depth:
            raise too_large(f"more than {limits.depth} folders in each other", prefix)
        if self._size > limits.size:
            raise too_large(f"more than {limits.size} bytes", prefix)


def _folder_entry(status: os.stat_result, xattrs: Xattrs) -> Entry:
    return Entry(DIRECTORY, status.st_mode & 0o7777, mtime=int(status.st_mtime), xattrs=xattrs)


def _look(status: os.stat_result) -> tuple[int, int, int, int, int]:
    return (
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
        status.st_mode,
    )


def _path(entry: Entry) -> str:
    if entry.where is None or not isinstance(entry.where.at, str):
        raise ContextError(f"not a file of a build context: {entry.where}")
    return entry.where.at


def _identities(folders: Iterable[Path]) -> frozenset[tuple[int, int]]:
    found = set()
    for folder in folders:
        try:
            status = folder.stat()
        except FileNotFoundError:
            continue
        found.add((status.st_dev, status.st_ino))
    return frozenset(found)
