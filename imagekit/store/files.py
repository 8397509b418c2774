"""Files that must survive a crash: durable writes, private folders, locks, and what went wrong.

Everything in the store that is not SQLite's is written here: to a temporary name, synced, renamed,
and the folder synced (security spec S-1, S-2). `storing` is the one place in which an `OSError`
becomes a `StoreError` that says what to do about it (S-11).
"""

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from imagekit.errors import CancelledError, StoreError

_REASONS: Final = {
    errno.ENOSPC: ("no-space", "free some space, or prune the store"),
    errno.EDQUOT: ("quota", "free some space within the quota, or prune the store"),
    errno.EIO: ("io", "look at the kernel's log: the disk reports errors"),
    errno.EROFS: ("read-only", "choose a store on a file system that can be written to"),
    errno.EMFILE: ("too-many-files", "raise the limit of open files (ulimit -n)"),
    errno.ENFILE: ("too-many-files", "the whole machine has too many open files"),
    errno.EACCES: ("permission", "look at the owner and the mode of the path"),
    errno.EPERM: ("permission", "look at the owner and the mode of the path"),
}
_POLL_S: Final = 0.05


@contextlib.contextmanager
def storing(what: str) -> Iterator[None]:
    """Turn an OSError of the block into a StoreError.

    Raises:
        StoreError: with `what`, the system's reason, and a hint where there is one.
    """
    try:
        yield
    except OSError as exc:
        raise store_error(what, exc) from exc


def store_error(what: str, exc: OSError) -> StoreError:
    """The StoreError for a failed system call."""
    code, hint = _REASONS.get(exc.errno or 0, ("store", ""))
    place = f" ({os.fsdecode(exc.filename)})" if exc.filename else ""
    return StoreError(f"{what}: {exc.strerror or exc}{place}", hint=hint, code=code)


def make_private(path: Path) -> None:
    """Make a folder that only its owner can enter, whatever the umask; it may exist already."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        return
    path.chmod(0o700)


def check_private(path: Path) -> None:
    """Check that nobody else can put things into a store (security spec S-10).

    Raises:
        StoreError: it belongs to somebody else, or a folder above it can be written by everybody.
    """
    found = path.stat()
    if found.st_uid != os.geteuid():
        raise StoreError(
            f"the store {path} belongs to uid {found.st_uid}, not to {os.geteuid()}",
            hint="set IMAGEKIT_STORE to a folder of your own",
            code="permission",
        )
    if found.st_mode & 0o077:
        path.chmod(0o700)
    for parent in path.parents:
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise StoreError(
                f"everybody can write to {parent}, which is above the store",
                hint="set IMAGEKIT_STORE to a folder in your home",
                code="permission",
            )


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_durably(path: Path, data: bytes, *, private: bool = True) -> None:
    """Replace a file in one step; after a crash it has the old or the new content, whole.

    A private file has mode 0600, another one what the umask leaves.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    mode = 0o600 if private else 0o666
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb") as file:  # noqa: PTH123 - from a descriptor
            file.write(data)
            file.flush()
            if private:
                os.fchmod(fd, mode)
            os.fsync(fd)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def try_lock(fd: int, *, exclusive: bool = True) -> bool:
    """Take a lock on an open file if nobody holds it; it ends with the file or the process."""
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def locked(
    path: Path,
    *,
    exclusive: bool = True,
    timeout_s: float | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[None]:
    """Hold a lock on a file, among threads and processes, for the time of the block.

    The file is made if it is missing and stays until it is pruned; a lock ends with its holder,
    however that dies.

    Raises:
        StoreError: not to be had within `timeout_s`; code `lock-timeout`.
        CancelledError: `cancelled` said so while waiting.
    """
    while True:
        with storing("cannot lock"):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with storing("cannot lock"):
                if not try_lock(fd, exclusive=exclusive):
                    _wait_for_lock(fd, path, exclusive, timeout_s, cancelled)
                removed = not os.fstat(fd).st_nlink  # by a pruner, before we had the lock
            if not removed:
                yield
                return
        finally:
            os.close(fd)


def remove_unlocked(folder: Path, remove: Callable[[Path], bool], *, pattern: str = "*") -> int:
    """Remove the lock files in a folder that nobody holds.

    Args:
        folder: where they are.
        remove: called with the path of each, whose lock is held meanwhile; says whether there was
            anything to do.
        pattern: of their names.

    Returns:
        How often `remove` said so.

    Raises:
        StoreError: a file cannot be opened or removed.
    """
    removed = 0
    for path in folder.glob(pattern):
        with storing("cannot remove left-overs"), contextlib.suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if try_lock(fd):
                    removed += remove(path)
                    path.unlink(missing_ok=True)
            finally:
                os.close(fd)
    return removed


def _wait_for_lock(
    fd: int,
    path: Path,
    exclusive: bool,  # noqa: FBT001 - private
    timeout_s: float | None,
    cancelled: Callable[[], bool] | None,
) -> None:
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    pause = 0.001
    while not try_lock(fd, exclusive=exclusive):
        if cancelled is not None and cancelled():
            raise CancelledError("cancelled while another build held a lock")
        if deadline is not None and time.monotonic() > deadline:
            raise StoreError(
                f"another process holds {path} for more than {timeout_s:g} s", code="lock-timeout"
            )
        time.sleep(pause)
        pause = min(pause * 2, _POLL_S)
