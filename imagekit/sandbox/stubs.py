"""Mount points made for one step, and how they leave no trace in its layer.

Before the command runs, what was made is looked up in the folder that receives the changes; after
it, each is removed only if it is still the same inode and empty, and folders that were touched
only for them get their time back, or go if overlayfs copied them up for nothing else.

Spec: security.md X-10.
"""

import os
import stat
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from imagekit.sandbox.inroot import Made, open_beneath
from imagekit.sandbox.wire import Value


class Stub(NamedTuple):
    """Something made, by its path in the upper folder."""

    parent: str
    name: str
    inode: int
    folder: bool


class Touched(NamedTuple):
    """A folder that changed only because something was made in it.

    Attributes:
        path: in the upper folder, "" being itself.
        identity: inode, mode, uid, gid and mtime after set-up.
        mtime: to set again, in nanoseconds.
        copied_up: remove it if it is empty.
    """

    path: str
    identity: tuple[int, int, int, int, int]
    mtime: int
    copied_up: bool


class Record(NamedTuple):
    """All that has to be undone after a step."""

    stubs: Sequence[Stub]
    touched: Sequence[Touched]


def record(upper: int, made: Iterable[Made]) -> Record:
    """Look up what was made in `upper`; what is not there was made in another mount and stays."""
    stubs: list[Stub] = []
    mtimes: dict[str, int] = {}
    copied: dict[str, None] = {}
    for item in made:
        status = _look(upper, item.parent, item.name)
        if status is None:
            continue
        folder = item.kind == "directory"
        stubs.append(Stub(item.parent, item.name, status.st_ino, folder))
        mtimes.setdefault(item.parent, item.parent_mtime)
        copied |= dict.fromkeys(item.copied_up)
    own = {f"{stub.parent}/{stub.name}".lstrip("/") for stub in stubs}
    touched = []
    for path in dict.fromkeys((*copied, *mtimes)):
        status = _look(upper, path, ".")
        if status is not None and path not in own:
            mtime = mtimes.get(path, status.st_mtime_ns)
            touched.append(Touched(path, _identity(status), mtime, path in copied))
    return Record(stubs, touched)


def pack(made: Record) -> Value:
    """The record as a message."""
    return [list(made.stubs), list(made.touched)]


def unpack(message: Any) -> Record:  # noqa: ANN401 - what came over the wire
    """The record in a message that `pack` made."""
    stubs, touched = message
    return Record(
        [Stub(*fields) for fields in stubs],
        [Touched(path, tuple(identity), *rest) for path, identity, *rest in touched],
    )


def clean_up(upper: int, made: Record) -> None:
    """Undo what `made` says; everything that the command changed since stays."""
    unchanged = [
        item
        for item in made.touched
        if (status := _look(upper, item.path, ".")) is not None
        and _identity(status) == item.identity
    ]
    for stub in reversed(made.stubs):
        _remove(upper, stub)
    for item in sorted(unchanged, key=lambda item: item.path.count("/"), reverse=True):
        if not (item.copied_up and _remove_folder(upper, item.path)):
            _set_mtime(upper, item.path, item.mtime)


def empty_folder(folder: int) -> None:
    """Remove all that is in an open folder, such as what overlayfs leaves in its work folder."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner = os.open(entry.name, flags, dir_fd=folder)
            try:
                empty_folder(inner)
            finally:
                os.close(inner)
            os.rmdir(entry.name, dir_fd=folder)
        else:
            os.unlink(entry.name, dir_fd=folder)


def _identity(status: os.stat_result) -> tuple[int, int, int, int, int]:
    return (
        status.st_ino,
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
    )


def _look(upper: int, folder: str, name: str) -> os.stat_result | None:
    try:
        parent = open_beneath(upper, folder, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return None  # gone, or no folder any more: the command's doing
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None
    finally:
        os.close(parent)


def _remove(upper: int, stub: Stub) -> None:
    status = _look(upper, stub.parent, stub.name)
    if status is None or status.st_ino != stub.inode:
        return
    parent = open_beneath(upper, stub.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        if stub.folder and stat.S_ISDIR(status.st_mode):
            os.rmdir(stub.name, dir_fd=parent)
        elif stat.S_ISREG(status.st_mode) and status.st_size == 0:
            os.unlink(stub.name, dir_fd=parent)
    except OSError:
        pass  # not empty: it belongs to the step now
    finally:
        os.close(parent)


def _remove_folder(upper: int, path: str) -> bool:
    folder, _, name = path.rpartition("/")
    parent = open_beneath(upper, folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        before = os.fstat(parent)
        os.rmdir(name, dir_fd=parent)
        os.utime(parent, ns=(before.st_atime_ns, before.st_mtime_ns))
    except OSError:
        return False  # the step has something in it
    finally:
        os.close(parent)
    return True


def _set_mtime(upper: int, path: str, mtime: int) -> None:
    fd = open_beneath(upper, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.utime(fd, ns=(os.fstat(fd).st_atime_ns, mtime))
    finally:
        os.close(fd)
