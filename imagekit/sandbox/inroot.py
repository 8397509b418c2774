"""Paths inside a root that may be hostile: resolved by fd, never out of it; mount points.

What exists is opened by the kernel's in-root mode (openat2). What does not is made by a walk over
components, each opened with O_NOFOLLOW on the fd of its parent and links resolved here, so that a
link that dangles leads to a place inside the root as well.

Spec: security.md X-10.
"""

import errno
import os
import stat
from typing import Final, Literal, NamedTuple

from imagekit.sandbox import syscalls
from imagekit.sandbox.failure import SetupError

_MAX_LINKS: Final = 40
_RACE_RETRIES: Final = 16
_WALK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_IN_ROOT: Final = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_BENEATH: Final = (
    syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS
)
_PROC: Final = syscalls.PROC_SUPER_MAGIC
_PROC_LINKS: Final = ("self", "thread-self", "mounts", "net")  # what is no magic link there

Kind = Literal["file", "directory"]


class Made(NamedTuple):
    """Something that was not there before.

    Attributes:
        parent: real path of the folder it is in, without a leading `/`; "" is the root.
        name: its name there.
        kind: what it is.
        parent_mtime: of the parent before, in nanoseconds.
        copied_up: folders above that were in no upper folder before, outermost first.
    """

    parent: str
    name: str
    kind: Kind
    parent_mtime: int
    copied_up: tuple[str, ...]


def open_in(root: int, path: str, flags: int = os.O_PATH) -> int:
    """Open what `path` names inside `root`, following links inside it.

    Raises:
        OSError: as openat2(2); ELOOP also for a magic link of procfs.
    """
    for attempt in range(_RACE_RETRIES):
        try:
            return syscalls.openat2(root, path, flags, _IN_ROOT)
        except OSError as exc:
            if exc.errno != errno.EAGAIN or attempt == _RACE_RETRIES - 1:
                raise
    raise AssertionError


def open_beneath(root: int, path: str, flags: int = os.O_PATH) -> int:
    """Open a path without any link in it, below `root`; "" is `root` itself."""
    return syscalls.openat2(root, path or ".", flags, _BENEATH)


def ensure(
    root: int, path: str, kind: Kind, *, upper: int | None = None
) -> tuple[int, list[Made]]:
    """An O_PATH fd of `path` inside `root`, and what had to be made for it, outermost first.

    Directories are made with mode 0755, files with 0644. `upper` is the folder that changes of
    `root` end up in, and is only looked at.

    Raises:
        OSError: a component is no directory, a loop, or cannot be made.
        SetupError: what is there is a directory and should be none, or the reverse.
    """
    made: list[Made] = []
    try:
        fd = open_in(root, path)
    except FileNotFoundError:
        fd, made = _Walk(root, kind, upper).run(path)
    if stat.S_ISDIR(os.fstat(fd).st_mode) != (kind == "directory"):
        os.close(fd)
        raise SetupError(f"{path} is {_other(kind)} in the root, not {_named(kind)}")
    return fd, made


def _named(kind: Kind) -> str:
    return "a directory" if kind == "directory" else "a file"


def _other(kind: Kind) -> str:
    return _named("file" if kind == "directory" else "directory")


class _Walk:
    """One walk; `stack` holds the fds of the directories above the current one, from the root."""

    def __init__(self, root: int, kind: Kind, upper: int | None) -> None:
        self.stack = [os.dup(root)]
        self.names: list[str] = []
        self.kind = kind
        self.upper = upper
        self.links = 0
        self.made: list[Made] = []

    def run(self, path: str) -> tuple[int, list[Made]]:
        pending = path.split("/")[::-1]
        try:
            while pending:
                name = pending.pop()
                if name == "..":
                    self._up()
                elif name not in ("", "."):
                    last = not any(part not in ("", ".") for part in pending)
                    fd = self._step(name, pending, last=last)
                    if fd is not None:
                        return fd, self.made
            return os.dup(self.stack[-1]), self.made
        finally:
            for fd in self.stack:
                os.close(fd)

    def _up(self) -> None:
        if self.names:
            self.names.pop()
            os.close(self.stack.pop())

    def _step(self, name: str, pending: list[str], *, last: bool) -> int | None:
        """Enter `name`; an fd when it is the file at the end."""
        try:
            fd = os.open(name, _WALK, dir_fd=self.stack[-1])
        except FileNotFoundError:
            fd = self._make(name, last=last)
        mode = os.fstat(fd).st_mode
        if stat.S_ISLNK(mode):
            self._follow(fd, name, pending)
        elif stat.S_ISDIR(mode):
            self.stack.append(fd)
            self.names.append(name)
        elif last:
            return fd
        else:
            os.close(fd)
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name)
        return None

    def _make(self, name: str, *, last: bool) -> int:
        parent = self.stack[-1]
        kind = self.kind if last else "directory"
        before = os.fstat(parent).st_mtime_ns
        copied_up = self._not_in_upper()
        if kind == "file":
            flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(name, flags, 0o644, dir_fd=parent))
        else:
            os.mkdir(name, 0o755, dir_fd=parent)
        self.made.append(Made("/".join(self.names), name, kind, before, copied_up))
        return os.open(name, _WALK, dir_fd=parent)

    def _not_in_upper(self) -> tuple[str, ...]:
        """Which of the folders down to the current one the upper folder does not have yet."""
        if self.upper is None:
            return ()
        for depth in range(len(self.names), 0, -1):
            try:
                os.close(open_beneath(self.upper, "/".join(self.names[:depth])))
            except OSError:
                continue  # missing, or below another mount
            return self._paths(depth + 1)
        return self._paths(1)

    def _paths(self, first: int) -> tuple[str, ...]:
        return tuple("/".join(self.names[:n]) for n in range(first, len(self.names) + 1))

    def _follow(self, fd: int, name: str, pending: list[str]) -> None:
        try:
            target = os.readlink("", dir_fd=fd)
            if name not in _PROC_LINKS and syscalls.filesystem_type(fd) == _PROC:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), target)  # a magic link
        finally:
            os.close(fd)
        self.links += 1
        if self.links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), target)
        if target.startswith("/"):
            while self.names:
                self._up()
        pending.extend(target.split("/")[::-1])
