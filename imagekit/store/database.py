"""What the store keeps that is not a blob, in SQLite: indexes, facts, records, names, stat caches.

The file is in WAL mode; records are synced before they are believed, stat caches are not: losing
one costs a re-read. Nothing here is needed to read a blob. The connection is made when it is first
used, is shared by the threads of a process, and answers a warm build in a handful of queries.
"""

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import field, frozen

from imagekit.errors import NotFoundError, StoreError
from imagekit.oci.descriptor import Descriptor
from imagekit.oci.digest import Digest
from imagekit.store.files import locked, storing, write_durably

_BUSY_TIMEOUT_S: Final = 30.0
_INLINE: Final = 64 << 10
"""Layer indexes above this size are files: SQLite reads large values through many pages."""

_MIGRATIONS: Final = (
    """
    CREATE TABLE layer_indexes (diff_id TEXT PRIMARY KEY, data BLOB) WITHOUT ROWID;
    CREATE TABLE blobs (
        digest TEXT PRIMARY KEY, diff_id TEXT NOT NULL, media_type TEXT NOT NULL,
        size INTEGER NOT NULL, origin TEXT NOT NULL, restarts BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX blobs_by_diff_id ON blobs (diff_id);
    CREATE TABLE records (
        id INTEGER PRIMARY KEY, key TEXT NOT NULL, scope TEXT NOT NULL, result TEXT NOT NULL,
        inputs TEXT NOT NULL, created INTEGER NOT NULL, used REAL NOT NULL
    );
    CREATE INDEX records_by_key ON records (key, id);
    CREATE INDEX records_by_scope ON records (scope, id);
    CREATE TABLE refs (
        name TEXT PRIMARY KEY, descriptor TEXT NOT NULL, updated INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE snapshots (
        name TEXT PRIMARY KEY, boot TEXT NOT NULL, durable INTEGER NOT NULL,
        created INTEGER NOT NULL, used INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE stat_caches (
        key TEXT PRIMARY KEY, data BLOB NOT NULL, used INTEGER NOT NULL
    ) WITHOUT ROWID;
    """,
)
"""Entry n leads from schema version n to n + 1; entries are never edited."""

SCHEMA_VERSION: Final = len(_MIGRATIONS)


@frozen(kw_only=True)
class BlobFacts:
    """What is known of a layer blob beside its digest.

    Attributes:
        origin: where it came from and can be had again; empty for what was built here.
        restarts: how to read from the middle of it, in the layer reader's own form.
    """

    digest: Digest
    diff_id: Digest
    media_type: str
    size: int
    origin: str = ""
    restarts: bytes = field(default=b"", repr=False)

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of the blob."""
        return Descriptor(media_type=self.media_type, digest=self.digest, size=self.size)


@frozen(kw_only=True)
class CacheRecord:
    """What a step gave once, and what it was computed from.

    Attributes:
        key: the cache key.
        scope: what records of the same step share, to find the nearest one that missed.
        result: JSON; digests in it keep their blobs from being pruned.
        inputs: JSON; what is compared to explain a miss.
        created: seconds since the epoch.
        used: when it was made or last taken, to the day or so.
    """

    key: str
    scope: str = ""
    result: Any
    inputs: Any = None
    created: int = 0
    used: float = 0


@frozen(kw_only=True)
class SnapshotRow:
    """A laid-out layer below `snapshots`; `durable` if it must have survived a power cut."""

    name: str
    boot: str
    durable: bool
    created: int
    used: int


class Database:
    """The database of a store; every method may be called from any thread.

    All of them raise `StoreError` when the file cannot be read or written, is damaged, or was
    written by a newer version of this library (code `store-newer`; nothing is changed then).
    """

    def __init__(self, path: Path, index_folder: Path) -> None:
        self._path = path
        self._index_folder = index_folder
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        with self._lock, self._translated():
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    # Layer indexes.

    def layer_index(self, diff_id: Digest) -> bytes | None:
        """The encoded index of a layer, or None."""
        rows = self._query("SELECT data FROM layer_indexes WHERE diff_id = ?", (str(diff_id),))
        if not rows:
            return None
        (data,) = rows[0]
        if data is not None:
            return bytes(data)
        with storing("cannot read a layer index"):
            try:
                return self._index_file(diff_id).read_bytes()
            except FileNotFoundError:
                return None

    def put_layer_index(self, diff_id: Digest, data: bytes) -> None:
        """Keep the encoded index of a layer."""
        inline: bytes | None = data
        if len(data) > _INLINE:
            with storing("cannot write a layer index"):
                write_durably(self._index_file(diff_id), data)
            inline = None
        self._execute("INSERT OR REPLACE INTO layer_indexes VALUES (?, ?)", (str(diff_id), inline))

    def _index_file(self, diff_id: Digest) -> Path:
        return self._index_folder / f"{diff_id.algorithm}-{diff_id.hex}"

    # Blob facts.

    def blob_facts(self, digest: Digest) -> BlobFacts | None:
        """What is known of a blob."""
        found = self._facts("digest = ?", str(digest))
        return found[0] if found else None

    def blobs_of(self, diff_id: Digest) -> tuple[BlobFacts, ...]:
        """The blobs that hold a layer, in any compression; whether they are here is not said."""
        return self._facts("diff_id = ?", str(diff_id))

    def put_blob_facts(self, facts: BlobFacts) -> None:
        """Keep what is known of a blob; replaces what was known."""
        self._execute(
            "INSERT OR REPLACE INTO blobs VALUES (?, ?, ?, ?, ?, ?)",
            (
                str(facts.digest),
                str(facts.diff_id),
                facts.media_type,
                facts.size,
                facts.origin,
                facts.restarts,
            ),
        )

    def _facts(self, where: str, value: str) -> tuple[BlobFacts, ...]:
        columns = "digest, diff_id, media_type, size, origin, restarts"
        rows = self._query(f"SELECT {columns} FROM blobs WHERE {where}", (value,))  # noqa: S608 - constants
        return tuple(
            BlobFacts(
                digest=Digest.parse(digest),
                diff_id=Digest.parse(diff_id),
                media_type=media_type,
                size=size,
                origin=origin,
                restarts=bytes(restarts),
            )
            for digest, diff_id, media_type, size, origin, restarts in rows
        )

    # Cache records.

    def records(self, keys: Iterable[str]) -> dict[str, CacheRecord]:
        """The newest record of each key that has one."""
        found: dict[str, CacheRecord] = {}
        wanted = tuple(dict.fromkeys(keys))
        for start in range(0, len(wanted), 500):
            part = wanted[start : start + 500]
            marks = ",".join("?" * len(part))
            for record in self._records(f"key IN ({marks}) ORDER BY id", part):
                found[record.key] = record
        return found

    def recent_records(self, scope: str, limit: int = 20) -> tuple[CacheRecord, ...]:
        """The latest records of a scope, newest first."""
        return self._records("scope = ? ORDER BY id DESC LIMIT ?", (scope, limit))

    def all_records(self) -> tuple[CacheRecord, ...]:
        """Every record, oldest first."""
        return self._records("1 ORDER BY id", ())

    def put_record(self, record: CacheRecord) -> None:
        """Add a record; what it names must be stored already (security spec S-3)."""
        now = time.time()
        self._execute(
            "INSERT INTO records (key, scope, result, inputs, created, used)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                record.key,
                record.scope,
                _encode(record.result),
                _encode(record.inputs),
                record.created or int(now),
                record.used or now,
            ),
        )

    def touch_records(self, keys: Sequence[str]) -> None:
        """Say that these keys were used; written at most once a day."""
        now = time.time()
        stale = [k for k, r in self.records(keys).items() if r.used < now - 86_400]
        if stale:
            rows = [(now, key) for key in stale]
            self._execute("UPDATE records SET used = ? WHERE key = ?", *rows, durable=False)

    def forget_records(self, used_before: float) -> int:
        """Remove records last used before a time, and older ones of the same key; how many."""
        return self._execute(
            "DELETE FROM records WHERE used < ? OR id NOT IN"
            " (SELECT max(id) FROM records GROUP BY key, result)",
            (used_before,),
        )

    def _records(self, where: str, values: Sequence[object]) -> tuple[CacheRecord, ...]:
        columns = "key, scope, result, inputs, created, used"
        rows = self._query(f"SELECT {columns} FROM records WHERE {where}", values)  # noqa: S608 - constants
        return tuple(
            CacheRecord(
                key=key,
                scope=scope,
                result=json.loads(result),
                inputs=json.loads(inputs),
                created=created,
                used=used,
            )
            for key, scope, result, inputs, created, used in rows
        )

    # Names.

    def ref(self, name: str) -> Descriptor:
        """What a name stands for.

        Raises:
            NotFoundError: nothing.
        """
        rows = self._query("SELECT descriptor FROM refs WHERE name = ?", (name,))
        if not rows:
            raise NotFoundError(f"no such tag: {name}")
        return Descriptor.from_json(json.loads(rows[0][0]), where=f"tag {name}")

    def refs(self) -> dict[str, Descriptor]:
        """Every name and what it stands for."""
        rows = self._query("SELECT name, descriptor FROM refs ORDER BY name", ())
        return {n: Descriptor.from_json(json.loads(d), where=f"tag {n}") for n, d in rows}

    def put_ref(self, name: str, descriptor: Descriptor) -> None:
        """Make a name stand for what is stored."""
        row = (name, _encode(descriptor.to_json()), int(time.time()))
        self._execute("INSERT OR REPLACE INTO refs VALUES (?, ?, ?)", row)

    def forget_ref(self, name: str) -> bool:
        """Take a name away; whether it was there."""
        return bool(self._execute("DELETE FROM refs WHERE name = ?", (name,)))

    # Snapshots.

    def snapshot(self, name: str) -> SnapshotRow | None:
        """The row of a snapshot, or None."""
        found = self.snapshots(name)
        return found[0] if found else None

    def snapshots(self, name: str | None = None) -> tuple[SnapshotRow, ...]:
        """Every snapshot, or the one of a name."""
        columns = "name, boot, durable, created, used"
        where = "?1 IS NULL OR name = ?1"
        rows = self._query(f"SELECT {columns} FROM snapshots WHERE {where}", (name,))  # noqa: S608 - constants
        return tuple(
            SnapshotRow(name=n, boot=boot, durable=bool(durable), created=created, used=used)
            for n, boot, durable, created, used in rows
        )

    def put_snapshot(self, row: SnapshotRow) -> None:
        """Keep the row of a snapshot."""
        self._execute(
            "INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?, ?)",
            (row.name, row.boot, int(row.durable), row.created, row.used),
        )

    def forget_snapshot(self, name: str) -> None:
        """Remove the row of a snapshot."""
        self._execute("DELETE FROM snapshots WHERE name = ?", (name,))

    # Stat caches: `imagekit.disk.context.StatCache`.

    def load(self, key: str) -> bytes | None:
        """The stat cache of a context, or None."""
        rows = self._query("SELECT data FROM stat_caches WHERE key = ?", (key,))
        return bytes(rows[0][0]) if rows else None

    def save(self, key: str, data: bytes) -> None:
        """Keep the stat cache of a context; not synced."""
        row = (key, data, int(time.time()))
        self._execute("INSERT OR REPLACE INTO stat_caches VALUES (?, ?, ?)", row, durable=False)

    def forget_stat_caches(self, used_before: int) -> int:
        """Remove stat caches that were last written before a time; how many."""
        return self._execute("DELETE FROM stat_caches WHERE used < ?", (used_before,))

    # The connection.

    def _query(self, sql: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        with self._lock, self._translated():
            return self._connect().execute(sql, values).fetchall()

    def _execute(self, sql: str, *rows: Sequence[object], durable: bool = True) -> int:
        with self._lock, self._translated():
            connection = self._connect()
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                return connection.executemany(sql, rows).rowcount

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(
                self._path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            try:
                _prepare(connection, self._path)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise _database_error(self._path, exc) from exc


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the schema up to date; concurrent openers wait for the first."""
    version = _schema_version(connection, path)
    if version == SCHEMA_VERSION:
        return
    path.chmod(0o600)
    with locked(path.with_name(f".{path.name}.lock")):  # SQLite does not wait for others here
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        for script in _MIGRATIONS[_schema_version(connection, path) :]:
            for statement in filter(str.strip, script.split(";")):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _schema_version(connection: sqlite3.Connection, path: Path) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"the store was written by a newer version of imagekit: {path} has schema {version}, "
            f"this version knows {SCHEMA_VERSION}",
            hint="upgrade imagekit, or set IMAGEKIT_STORE to another folder",
            code="store-newer",
        )
    return int(version)


def _database_error(path: Path, exc: sqlite3.Error) -> StoreError:
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StoreError(
            f"cannot write {path}: no space", hint="free some space", code="no-space"
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreError(
            f"the store's database {path} is damaged: {exc}",
            hint="remove the file: blobs stay, tags and cache records are lost",
            code="store-damaged",
        )
    if code == sqlite3.SQLITE_BUSY:
        return StoreError(
            f"another process has held {path} for over {_BUSY_TIMEOUT_S:g} s", code="lock-timeout"
        )
    return StoreError(f"cannot use the store's database {path}: {exc}")


def _encode(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)
