"""Leases: what a running build uses is not pruned (security spec S-6).

A lease is a file that its holder keeps locked: the lock ends with the process, however it dies,
also when its pid means nothing here (containers that share a store). Under a lease, whatever is
used is touched; what was touched since the oldest live lease began is kept.
"""

import json
import os
import secrets
import time
from pathlib import Path
from typing import Any, Final, Self

from imagekit.store.files import make_private, storing, try_lock

LIFETIME_S: Final = 24 * 3600


class Lease:
    """Protects everything that is used from now until `close` or the end of the process."""

    def __init__(self, folder: Path) -> None:
        self.started = time.time()
        with storing("cannot take a lease"):
            make_private(folder)
            self._path = folder / f"{secrets.token_hex(8)}.json"
            self._fd = _create_locked(self._path, _facts(self.started))

    def close(self) -> None:
        """Give it back; a second call does nothing."""
        if self._fd >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def live_since(folder: Path) -> float | None:
    """When the oldest live lease began, or None; files of dead holders are removed."""
    oldest: float | None = None
    try:
        paths = list(folder.iterdir())
    except FileNotFoundError:
        return None
    for path in paths:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        try:
            if try_lock(fd):
                path.unlink(missing_ok=True)
                continue
            facts = _read(fd)
        finally:
            os.close(fd)
        if facts["expires"] > time.time():
            oldest = min(facts["started"], oldest or facts["started"])
    return oldest


def boot_id() -> str:
    """The name of this boot of the machine; empty where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _facts(started: float) -> bytes:
    facts = {
        "version": 1,
        "pid": os.getpid(),
        "boot": boot_id(),
        "started": started,
        "expires": started + LIFETIME_S,
    }
    return json.dumps(facts).encode()


def _create_locked(path: Path, data: bytes) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    while True:
        fd = os.open(path, flags, 0o600)
        # Between open and lock a pruner may have taken it for a dead one's.
        if try_lock(fd) and os.fstat(fd).st_nlink:
            os.write(fd, data)
            return fd
        os.close(fd)


def _read(fd: int) -> dict[str, Any]:
    raw = os.read(fd, 4096)
    now = time.time()
    # Locked and still empty: its holder is about to write.
    facts = json.loads(raw) if raw else {"started": now, "expires": now + LIFETIME_S}
    return dict(facts)
