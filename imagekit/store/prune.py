"""Remove what nobody needs: mark from names, records and snapshots in use; then sweep.

Decides by age and by use. A blob stays if a name or a record leads to it, if it was used since the
oldest live lease began, or if it is younger than the grace. The sweep holds the store-wide lock;
it moves a blob aside, looks at its time once more, and only then removes it, so that a build which
touches it meanwhile gets it back (security spec S-6).
"""

import contextlib
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from attrs import frozen

from imagekit.errors import ImagekitError, NotFoundError
from imagekit.oci.descriptor import INDEX_TYPES, MANIFEST_TYPES, Descriptor
from imagekit.oci.digest import Digest
from imagekit.oci.manifest import Index, decode_manifest
from imagekit.store.blobs import BlobFolder
from imagekit.store.database import CacheRecord
from imagekit.store.files import locked, remove_unlocked, storing
from imagekit.store.leases import live_since
from imagekit.store.local import Store, remove_dead
from imagekit.store.roles import read_blob

DAY_S: Final = 86_400
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")


@frozen(kw_only=True)
class Pruned:
    """What was removed; sizes in bytes."""

    blobs: tuple[Digest, ...] = ()
    freed: int = 0
    snapshots: tuple[str, ...] = ()
    records: int = 0
    leftovers: int = 0
    caches: int = 0


def prune(
    store: Store,
    *,
    remove_tree: Callable[[Path], None],
    records_older_than_s: float = 14 * DAY_S,
    grace_s: float = 3600,
    keep: Iterable[Descriptor] = (),
    caches: bool = False,
) -> Pruned:
    """Remove what no name, no recent record and no running build needs.

    Args:
        store: what to prune; other processes may use it meanwhile.
        remove_tree: removes a snapshot's folder, with the rights that its files need.
        records_older_than_s: cache records last used before that are forgotten.
        grace_s: what was used later than that is kept in any case.
        keep: more blobs to keep, with all that they lead to.
        caches: remove what cache mounts keep as well, if no build is running.

    Raises:
        StoreError: the store cannot be read or written; what is done stays done.
    """
    now = time.time()
    leased = live_since(store.path / "leases")
    horizon = now - grace_s if leased is None else min(now - grace_s, leased)
    records = store.database.forget_records(min(now - records_older_than_s, horizon))
    store.database.forget_stat_caches(int(now - records_older_than_s))
    blobs = BlobFolder(store.path, private=True)
    leftovers = blobs.remove_leftovers() + remove_dead(store.path / "temp", remove_tree)
    leftovers += _remove_old(store.path / "quarantine", horizon)
    marked = _mark(store, keep)
    removed, freed = _sweep(store, blobs, marked, horizon)
    snapshots = _sweep_snapshots(store, min(now - records_older_than_s, horizon), remove_tree)
    folders = _remove_caches(store, remove_tree) if caches else 0
    _remove_locks(store.path / "locks")
    return Pruned(
        blobs=removed,
        freed=freed,
        snapshots=snapshots,
        records=records,
        leftovers=leftovers,
        caches=folders,
    )


def _mark(store: Store, keep: Iterable[Descriptor]) -> set[Digest]:
    marked: set[Digest] = set()
    for descriptor in (*store.database.refs().values(), *keep):
        _mark_below(store, descriptor, marked)
    for record in store.database.all_records():
        marked |= _named_by(record)
    for diff_id in tuple(marked):
        marked.update(facts.digest for facts in store.database.blobs_of(diff_id))
    return marked


def _named_by(record: CacheRecord) -> set[Digest]:
    return {Digest("sha256", h) for h in _DIGEST.findall(str(record.result))}


def _mark_below(store: Store, descriptor: Descriptor, marked: set[Digest]) -> None:
    if descriptor.digest in marked:
        return
    marked.add(descriptor.digest)
    if descriptor.media_type not in INDEX_TYPES | MANIFEST_TYPES:
        return
    try:
        value = decode_manifest(read_blob(store, descriptor), descriptor.media_type).value
    except NotFoundError:
        return  # an image of which only a part was fetched
    except ImagekitError:
        return  # damaged: what it named cannot be known, and it cannot be used
    children = value.manifests if isinstance(value, Index) else (value.config, *value.layers)
    for child in children:
        _mark_below(store, child, marked)


def _sweep(
    store: Store, blobs: BlobFolder, marked: set[Digest], horizon: float
) -> tuple[tuple[Digest, ...], int]:
    removed: list[Digest] = []
    freed = 0
    with locked(store.path / "locks" / "sweep"), storing("cannot prune"):
        _put_back(store.path / "temp", blobs)
        for digest in sorted(blobs.digests()):
            if digest in marked:
                continue
            with contextlib.suppress(FileNotFoundError):
                size = _remove_unused(store, blobs.path(digest), horizon)
                if size is not None:
                    removed.append(digest)
                    freed += size
    return tuple(removed), freed


def _remove_unused(store: Store, path: Path, horizon: float) -> int | None:
    """Remove a blob unless it was used after `horizon`; its size if it is gone."""
    if path.stat().st_mtime >= horizon:
        return None
    aside = store.path / "temp" / f"{path.name}.{path.parent.name}-blob"
    path.rename(aside)
    found = aside.stat()
    if found.st_mtime >= horizon:
        aside.rename(path)
        return None
    aside.unlink()
    return found.st_size


def _put_back(temp: Path, blobs: BlobFolder) -> None:
    """Blobs that a sweep had moved aside when it died."""
    for aside in temp.glob("*-blob"):
        name, _, suffix = aside.name.partition(".")
        aside.rename(blobs.path(Digest(suffix.removesuffix("-blob"), name)))


def _sweep_snapshots(
    store: Store, horizon: float, remove_tree: Callable[[Path], None]
) -> tuple[str, ...]:
    removed = []
    for path in sorted((store.path / "snapshots").iterdir()):
        with store.temp_folder(remove=remove_tree) as temp:
            if _take_away(store, path, horizon, temp / "snapshot"):
                removed.append(path.name)
    return tuple(removed)


def _take_away(store: Store, path: Path, horizon: float, aside: Path) -> bool:
    """Move a snapshot aside unless it was used after `horizon`; nobody finds it meanwhile."""
    with store.snapshots_locked(exclusive=True), storing("cannot prune"):
        row = store.database.snapshot(path.name)
        try:
            if max(path.stat().st_mtime, row.used if row else 0) >= horizon:
                return False
            store.database.forget_snapshot(path.name)
            path.rename(aside)
        except FileNotFoundError:
            return False  # another pruner took it
    return True


def _remove_locks(locks: Path) -> None:
    """Locks of steps, layers and caches that nobody holds; that of the sweep has a meaning."""
    remove_unlocked(locks, lambda _: False, pattern="[0-9a-f]*")


def _remove_caches(store: Store, remove_tree: Callable[[Path], None]) -> int:
    """Folders of cache mounts, unless a build is running: it may be using any of them."""
    removed = 0
    for path in sorted(store.caches.iterdir()):
        with store.lock(f"make cache {path.stem}"), storing("cannot remove a cache"):
            if live_since(store.path / "leases") is not None:
                return removed
            aside = path.with_suffix(".old")  # a half-removed cache must not be taken for whole
            if path != aside and path.exists():
                path.rename(aside)
            if aside.exists():
                remove_tree(aside)
                removed += 1
    return removed


def _remove_old(folder: Path, horizon: float) -> int:
    removed = 0
    for path in folder.iterdir():
        with storing("cannot remove left-overs"), contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < horizon:
                path.unlink()
                removed += 1
    return removed
