"""Open and make things beneath a root folder, and never outside it.

The kernel does it where it can: openat2(2) with RESOLVE_IN_ROOT follows symlinks as if the root
were `/`. Where that call is missing or forbidden (old kernels, container filters), the path is
walked component by component on O_PATH descriptors, and links are resolved here. No string is ever
compared to find out where a path leads (security spec C-1, L-1).
"""

import errno
import functools
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from imagekit.errors import PathError

MAX_LINKS: Final = 40
MAX_DEPTH: Final = 512

FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
"""Flags for a directory; add O_NOFOLLOW for one that must not be behind a link."""

_SYS_OPENAT2: Final = 437
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_IN_ROOT: Final = 0x10
_RETRIES: Final = 32
_WALK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

Open = Callable[[int, str, int], int]
"""What `open_beneath` is, in either way: (root, path, flags) -> descriptor."""


def check_encoding() -> None:
    """Names on disk are the names in images only where Python decodes them as UTF-8.

    Raises:
        PathError: it does not; code `encoding`.
    """
    if sys.getfilesystemencoding() != "utf-8":
        raise PathError(
            f"file names are decoded as {sys.getfilesystemencoding()}, not as UTF-8",
            hint="set PYTHONUTF8=1",
            code="encoding",
        )


def open_root(path: Path) -> int:
    """A descriptor of a root folder, to be closed by the caller; the path itself is trusted.

    Raises:
        OSError: it is not there, or no folder.
    """
    return os.open(path, FOLDER)


def open_beneath(root: int, path: str, flags: int) -> int:
    """Open what a path names in a root; symlinks are followed inside it, magic links never.

    Args:
        root: descriptor of the root.
        path: absolute or relative, both from the root; `..` at the root stays there.
        flags: as for open(2), without O_CREAT; with O_NOFOLLOW a link at the end is not followed.

    Raises:
        OSError: as open(2); ELOOP also for more than 40 links.
    """
    return _opener()(root, path, flags | os.O_CLOEXEC)


@functools.cache
def _opener() -> Open:
    """The kernel's way if it works here, else the walk; found out once."""
    root = os.open("/", FOLDER)
    try:
        os.close(openat2(root, ".", os.O_PATH))
    except OSError as exc:
        if exc.errno in (errno.ENOSYS, errno.EPERM):
            return walk_beneath
        raise
    finally:
        os.close(root)
    return openat2


def openat2(root: int, path: str, flags: int) -> int:
    """The kernel's way of `open_beneath`.

    Raises:
        OSError: as openat2(2); ENOSYS where the kernel does not have it.
    """
    import ctypes  # noqa: PLC0415 - only those who follow paths in a root pay for it

    how = (ctypes.c_uint64 * 3)(flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    raw = os.fsencode(path) or b"."
    code = errno.EAGAIN
    for _ in range(_RETRIES):
        fd = _syscall()(_SYS_OPENAT2, root, raw, how, ctypes.sizeof(how))
        if fd >= 0:
            return int(fd)
        code = ctypes.get_errno()
        if code != errno.EAGAIN:  # a rename raced with a `..`
            break
    raise OSError(code, os.strerror(code), path)


@functools.cache
def _syscall() -> "Callable[..., int]":
    import ctypes  # noqa: PLC0415 - see openat2

    function = ctypes.CDLL(None, use_errno=True).syscall
    function.restype = ctypes.c_long
    return function


def walk_beneath(root: int, path: str, flags: int) -> int:
    """`open_beneath` component by component, links resolved in user space.

    Raises:
        OSError: as `open_beneath`.
    """
    todo = [name for name in reversed(path.split("/")) if name not in ("", ".")]
    stack = [os.dup(root)]
    links = 0
    try:
        while todo:
            name = todo.pop()
            if name == "..":
                if len(stack) > 1:
                    os.close(stack.pop())
                continue
            if not todo and flags & os.O_NOFOLLOW:
                return os.open(name, flags | os.O_CLOEXEC, dir_fd=stack[-1])
            fd = os.open(name, _WALK, dir_fd=stack[-1])
            mode = os.fstat(fd).st_mode
            if stat.S_ISLNK(mode):
                links += 1
                target = _link_target(fd, path, links)
                if target.startswith("/"):
                    _close(stack, 1)
                todo += [part for part in reversed(target.split("/")) if part not in ("", ".")]
            elif todo:
                stack.append(fd)
                if not stat.S_ISDIR(mode):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            else:
                os.close(fd)
                return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=stack[-1])
        return os.open(".", flags | os.O_CLOEXEC, dir_fd=stack[-1])
    finally:
        _close(stack, 0)


def _close(stack: list[int], keep: int) -> None:
    while len(stack) > keep:
        os.close(stack.pop())


def _link_target(fd: int, path: str, links: int) -> str:
    try:
        target = os.readlink("", dir_fd=fd)
    finally:
        os.close(fd)
    if links > MAX_LINKS:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return target


class Folders:
    """The directories beneath a root that are being written to, a few of them kept open.

    Missing ones are made on the way and told to `made`, so that they can get their metadata at the
    end. Close it after use, or use it as a context manager.

    Attributes:
        root: descriptor of the root; stays the caller's.
        made: paths of directories that were made because something needed them.
    """

    _KEPT: Final = 64

    def __init__(self, root: int, *, open_in_root: Open = open_beneath) -> None:
        self.root = root
        self.made: set[str] = set()
        self._open_in_root = open_in_root
        self._open: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.forget()

    def fd(self, path: str) -> int:
        """The descriptor of a directory, made if it is missing; valid until the next call.

        Raises:
            PathError: deeper than 512, or too many links.
            OSError: it cannot be opened or made.
        """
        known = self._open.get(path)
        if known is not None:
            return known
        if path.count("/") > MAX_DEPTH:
            raise PathError(f"{path[:80]}..: deeper than {MAX_DEPTH}", path=path, code="too-deep")
        fd = self._find(path, 0)
        if len(self._open) >= self._KEPT:
            os.close(self._open.pop(next(iter(self._open))))
        self._open[path] = fd
        return fd

    def forget(self, path: str = "") -> None:
        """Close what is open at and below a path: something else is there now."""
        below = f"{path}/" if path else ""
        for name in [n for n in self._open if n == path or n.startswith(below)]:
            os.close(self._open.pop(name))

    def _find(self, path: str, links: int) -> int:
        try:
            return self._open_in_root(self.root, path, FOLDER)
        except (FileNotFoundError, NotADirectoryError):
            if not path:
                raise
        if links > MAX_LINKS:
            raise PathError(f"{path}: too many levels of symlinks", path=path)
        above, _, name = path.rpartition("/")
        parent = self._find(above, links)
        try:
            return self._make(parent, above, name, links)
        finally:
            os.close(parent)

    def _make(self, parent: int, above: str, name: str, links: int) -> int:
        path = f"{above}/{name}" if above else name
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                target = os.readlink(name, dir_fd=parent)
                there = target.strip("/") if target.startswith("/") else f"{above}/{target}"
                return self._find(there.strip("/"), links + 1)
            if not stat.S_ISDIR(mode):
                os.unlink(name, dir_fd=parent)  # a file in the way of a directory
                os.mkdir(name, 0o700, dir_fd=parent)
                self.made.add(path)
        else:
            self.made.add(path)
        return os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=parent)


def remove_tree(path: Path | str) -> None:
    """Remove a folder and all below it; links are removed, not followed, mounts not entered.

    Directories that forbid it are made writable first.

    Raises:
        OSError: something cannot be removed; EBUSY or EXDEV where something is mounted.
    """
    path = Path(path)
    parent = os.open(path.parent, FOLDER)
    try:
        try:
            found = os.stat(path.name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(found.st_mode):
            _empty(parent, path.name, found.st_dev)
            os.rmdir(path.name, dir_fd=parent)
        else:
            os.unlink(path.name, dir_fd=parent)
    finally:
        os.close(parent)


def remove_at(parent: int, name: str) -> None:
    """Remove what is at a name, with all below it; nothing there is fine.

    Raises:
        OSError: as `remove_tree`.
    """
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        device = os.stat(name, dir_fd=parent, follow_symlinks=False).st_dev
        _empty(parent, name, device)
        os.rmdir(name, dir_fd=parent)


def _empty(parent: int, name: str, device: int) -> None:
    """Remove all that is in a directory, with one descriptor however deep it is."""
    fd = _enter(parent, name, device)
    above: list[tuple[str, os.stat_result]] = []
    try:
        while True:
            below = _remove_files(fd)
            if below is not None:
                above.append((below, os.fstat(fd)))
                fd = _replaced(fd, _enter(fd, below, device))
            elif above:
                done, expected = above.pop()
                fd = _replaced(fd, os.open("..", FOLDER, dir_fd=fd))
                if not os.path.samestat(os.fstat(fd), expected):
                    raise OSError(errno.EBUSY, "it was moved while it was removed", done)
                os.rmdir(done, dir_fd=fd)
            else:
                return
    finally:
        os.close(fd)


def _replaced(old: int, new: int) -> int:
    os.close(old)
    return new


def _remove_files(fd: int) -> str | None:
    """Remove everything but directories; the name of a directory that is left, or None."""
    left = None
    with os.scandir(fd) as found:
        for item in found:
            if item.is_dir(follow_symlinks=False):
                left = item.name
            else:
                os.unlink(item.name, dir_fd=fd)
    return left


def _enter(parent: int, name: str, device: int) -> int:
    try:
        fd = os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=parent)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=parent)
        fd = os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=parent)
    found = os.fstat(fd)
    if found.st_dev != device:
        os.close(fd)
        raise OSError(errno.EXDEV, "another file system is mounted here", name)
    if found.st_mode & 0o700 != 0o700:
        os.fchmod(fd, 0o700)
    return fd
