"""The store of a user: blobs, a database, snapshots and leases in one folder.

    blobs/sha256/..   content, as in an image layout; read-only files
    oci-layout        says that it is one
    imagekit.db       indexes, facts, records, names (see `database`)
    indexes/          large layer indexes
    snapshots/        laid-out layers, for RUN; they appear and go whole
    caches/           what cache mounts keep
    ingest/ leases/ locks/ quarantine/ temp/

A process may be killed at any point: what it leaves is garbage at worst, never a wrong answer.
"""

import contextlib
import hashlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Self

from imagekit.errors import NotFoundError, StoreError
from imagekit.oci.descriptor import Descriptor
from imagekit.oci.digest import Digest
from imagekit.store.blobs import BlobFolder, Ingest, Verify
from imagekit.store.database import Database, SnapshotRow
from imagekit.store.files import (
    check_private,
    locked,
    make_private,
    remove_unlocked,
    storing,
    write_durably,
)
from imagekit.store.leases import Lease, boot_id

ENVIRONMENT: Final = "IMAGEKIT_STORE"
_MARKER: Final = b'{"imageLayoutVersion":"1.0.0"}'
_FOLDERS: Final = tuple(
    "blobs indexes snapshots caches ingest leases locks quarantine temp".split()
)
_WRITTEN_BACK_S: Final = 300
"""After this time the kernel has written a snapshot to the disk, whose files are not synced."""


def default_path() -> Path:
    """The folder of the store: the variable IMAGEKIT_STORE, or one in the user's cache folder."""
    if chosen := os.environ.get(ENVIRONMENT):
        return Path(chosen)
    from platformdirs import user_cache_path  # noqa: PLC0415 - not needed where a path is given

    return user_cache_path("imagekit", appauthor=False)


class PendingSnapshot:
    """A folder that becomes a snapshot; made by `Store.new_snapshot`.

    Attributes:
        path: an empty, private folder to fill.
    """

    def __init__(self, store: "Store", name: str, path: Path) -> None:
        self.path = path
        self.committed = False
        self._store = store
        self._name = name

    def commit(self) -> Path:
        """Give it its name; where another process was first, that one's folder comes back."""
        target = self._store.snapshot_path(self._name)
        with storing(f"cannot keep snapshot {self._name}"):
            os.utime(self.path)  # until its row is written, a pruner can tell only by this
            try:
                self.path.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
                return target
        self.committed = True
        now = int(time.time())
        row = SnapshotRow(name=self._name, boot=boot_id(), durable=False, created=now, used=now)
        self._store.database.put_snapshot(row)
        return target


class Store:
    """Blobs, names and what is known of them; Source, Target and Tagger of `store.roles`.

    Attributes:
        path: the folder.
        database: indexes, facts, records (see `Database`).
        caches: a folder for cache mounts.
    """

    def __init__(self, path: Path | None = None, *, verify: Verify = "small") -> None:
        """Open a store, making it if it is missing.

        Args:
            path: its folder; None for `default_path()`.
            verify: `always` reads and checks large blobs too, once a process.

        Raises:
            StoreError: it cannot be made, belongs to somebody else, or is a newer version's.
        """
        with storing("cannot open the store"):
            self.path = (path or default_path()).absolute()
            _prepare(self.path)
        self.database = Database(self.path / "imagekit.db", self.path / "indexes")
        self.caches = self.path / "caches"
        self._blobs = BlobFolder(
            self.path, private=True, verify=verify, quarantine=self.path / "quarantine"
        )
        self._lock = threading.Lock()
        self._lease: Lease | None = None
        self._holders = 0
        self._clean = False
        self._swept = False

    def close(self) -> None:
        """Close the database and give back a lease; a second call does nothing."""
        self.database.close()
        with self._lock:
            if self._lease is not None:
                self._lease.close()
                self._lease = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Leases and locks.

    @contextlib.contextmanager
    def lease(self) -> Iterator[None]:
        """Keep what is used during the block from being pruned; may be nested and shared."""
        with self._lock:
            if self._lease is None:
                self._lease = Lease(self.path / "leases")
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if self._holders == 0 and self._lease is not None:
                    self._lease.close()
                    self._lease = None

    @contextlib.contextmanager
    def lock(
        self,
        key: str,
        *,
        timeout_s: float | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Iterator[None]:
        """Hold the lock of a key among threads and processes: single flight.

        Lock order: keys in the order of the build's steps, the store-wide lock last.

        Raises:
            StoreError: code `lock-timeout`.
            CancelledError: `cancelled` said so while waiting.
        """
        name = hashlib.sha256(os.fsencode(key)).hexdigest()[:32]
        with locked(self.path / "locks" / name, timeout_s=timeout_s, cancelled=cancelled):
            yield

    # Blobs.

    @contextlib.contextmanager
    def ingest(self) -> Iterator[Ingest]:
        """A private file for a blob whose digest is not known yet; gone unless committed.

        Raises:
            StoreError: it cannot be written; also from its `file` and `commit`.
        """
        self._remove_leftovers()
        with self._blobs.ingest() as ingest:
            yield ingest

    def exists(self, descriptor: Descriptor) -> bool:
        """See `Target`. What exists is protected by the lease, if there is one."""
        path = self._blobs.path(descriptor.digest)
        with storing("cannot look for a blob"):
            try:
                if self._lease is not None:
                    os.utime(path)  # before the look: a pruner looks at the time last
                return path.stat().st_size == descriptor.size
            except FileNotFoundError:
                return False

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """See `Source`.

        Raises:
            NotFoundError: it is not there.
            DigestMismatchError: it was damaged; it is moved to `quarantine`.
        """
        try:
            return self._blobs.open(descriptor)
        except NotFoundError:
            if not self.path.joinpath("locks", "sweep").exists():
                raise
        with locked(self.path / "locks" / "sweep", exclusive=False):
            return self._blobs.open(descriptor)  # a sweep may have put it back

    def write(self, descriptor: Descriptor, open_source: Callable[[], BinaryIO]) -> None:
        """See `Target`."""
        if not self.exists(descriptor):
            self._remove_leftovers()
            self._blobs.write(descriptor, open_source)

    def write_bytes(self, descriptor: Descriptor, data: bytes) -> None:
        """Store a small blob that is at hand; its digest is checked."""
        if not self.exists(descriptor):
            self._remove_leftovers()
            self._blobs.write_bytes(descriptor, data)

    def verify(self) -> tuple[Digest, ...]:
        """Read every blob; those whose bytes are not those of their name."""
        return tuple(d for d in sorted(self._blobs.digests()) if not self._blobs.verify(d))

    def _remove_leftovers(self) -> None:
        if not self._clean:
            self._clean = True
            with storing("cannot clean up the store"):
                self._blobs.remove_leftovers()

    def _remove_dead(self, remove: Callable[[Path], None]) -> None:
        """Remove what killed processes left, if the rights suffice; a pruner may have more."""
        with self._lock:
            first, self._swept = not self._swept, True
        if first:
            with contextlib.suppress(StoreError):
                remove_dead(self.path / "temp", remove)

    # Names.

    def resolve(self, name: str) -> Descriptor:
        """See `Source`."""
        return self.database.ref(name)

    def tag(self, descriptor: Descriptor, name: str) -> None:
        """See `Tagger`."""
        if not self.exists(descriptor):
            raise NotFoundError(f"no such blob: {descriptor.digest}", descriptor=descriptor)
        self.database.put_ref(name, descriptor)

    def untag(self, name: str) -> None:
        """Take a name away.

        Raises:
            NotFoundError: it was not there.
        """
        if not self.database.forget_ref(name):
            raise NotFoundError(f"no such tag: {name}")

    def tags(self) -> dict[str, Descriptor]:
        """Every name and what it stands for."""
        return self.database.refs()

    # Snapshots.

    def snapshot_path(self, name: str) -> Path:
        """Where a snapshot is or would be.

        Raises:
            StoreError: a name that is no single path component.
        """
        if not name or "/" in name or name[0] == ".":
            raise StoreError(f"not a snapshot name: {name!r}")
        return self.path / "snapshots" / name

    def snapshot(self, name: str) -> Path | None:
        """The folder of a finished snapshot, or None.

        One from before the machine's last start is not believed unless it had time to reach the
        disk: its files are not synced one by one.
        """
        path = self.snapshot_path(name)
        if not path.is_dir():
            return None
        with self.snapshots_locked(exclusive=False):
            return path if path.is_dir() and self._believe(name, path) else None

    def snapshots_locked(self, *, exclusive: bool) -> contextlib.AbstractContextManager[None]:
        """Held shared to find and touch a snapshot, exclusively to take an unused one away."""
        return locked(self.path / "locks" / "snapshots", exclusive=exclusive)

    def _believe(self, name: str, path: Path) -> bool:
        row = self.database.snapshot(name)
        now, boot = int(time.time()), boot_id()
        if row is None or not (row.durable or row.boot == boot):
            return False
        if now - row.used > 3600 or (not row.durable and now - row.created > _WRITTEN_BACK_S):
            durable = row.durable or now - row.created > _WRITTEN_BACK_S
            self.database.put_snapshot(
                SnapshotRow(name=name, boot=boot, durable=durable, created=row.created, used=now)
            )
        if self._lease is not None:
            os.utime(path)
        return True

    @contextlib.contextmanager
    def new_snapshot(
        self, name: str, *, remove: Callable[[Path], None]
    ) -> Iterator[PendingSnapshot]:
        """A private folder to lay out a snapshot in; removed unless committed.

        Args:
            name: what it will be called; a folder of that name that is not believed is removed.
            remove: removes a folder, with the rights that its files need.
        """
        target = self.snapshot_path(name)
        if target.exists() and self.snapshot(name) is None:
            remove(target)
        with self.temp_folder(remove=remove) as path:
            pending = PendingSnapshot(self, name, path)
            yield pending

    @contextlib.contextmanager
    def temp_folder(self, *, remove: Callable[[Path], None]) -> Iterator[Path]:
        """A private folder on the store's file system; removed at the end, if it is still there.

        While it is in use, its lock `temp-<name>` is held, so that others know it from a
        left-over.
        """
        self._remove_dead(remove)
        name = secrets.token_hex(8)
        path = self.path / "temp" / name
        with locked(self.path / "temp" / f"{name}.lock"):
            with storing("cannot make a temporary folder"):
                make_private(path)
            try:
                yield path
            finally:
                if path.exists():
                    remove(path)
                path.with_suffix(".lock").unlink(missing_ok=True)


def remove_dead(temp: Path, remove_tree: Callable[[Path], None]) -> int:
    """Remove temporary folders whose maker has died; how many there were.

    Raises:
        StoreError: one cannot be removed.
    """

    def remove(lock: Path) -> bool:
        folder = lock.with_suffix("")
        if not folder.exists():
            return False
        remove_tree(folder)
        return True

    return remove_unlocked(temp, remove, pattern="*.lock")


def _prepare(path: Path) -> None:
    marker = path / "oci-layout"
    if not marker.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        make_private(path)
        if any(p.name not in _FOLDERS and p.name[0] != "." for p in path.iterdir()) and (
            not marker.exists()  # another process may just have made it
        ):
            raise StoreError(
                f"{path} is neither empty nor a store",
                hint="set IMAGEKIT_STORE to a folder of its own",
            )
        check_private(path)
        for name in _FOLDERS:
            make_private(path / name)
        write_durably(marker, _MARKER)
    check_private(path)
