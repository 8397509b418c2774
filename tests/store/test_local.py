"""The store: what is durable, what is damaged, what many processes do to it at once."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagekit.errors import CancelledError, DigestMismatchError, NotFoundError, StoreError
from imagekit.oci.descriptor import LAYER_TAR, Descriptor
from imagekit.oci.digest import Digest
from imagekit.oci.document import describe
from imagekit.store import blobs, database
from imagekit.store.database import BlobFacts, CacheRecord
from imagekit.store.local import ENVIRONMENT, Store, default_path
from imagekit.store.prune import prune
from tests.support.tools import imagekit_env, need_root, run

BIG = 5 << 20


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as opened:
        yield opened


def blob(data: bytes) -> Descriptor:
    return describe(data, LAYER_TAR)


def put(store: Store, data: bytes) -> Descriptor:
    descriptor = blob(data)
    store.write(descriptor, lambda: io.BytesIO(data))
    return descriptor


def read(store: Store, descriptor: Descriptor) -> bytes:
    with store.open(descriptor) as stream:
        return stream.read()


def path_of(store: Store, descriptor: Descriptor) -> Path:
    return store.path / "blobs" / "sha256" / descriptor.digest.hex


class TestBlobs:
    @pytest.mark.parametrize("size", [0, 10, BIG])
    def test_what_is_written_is_read(self, store: Store, size: int) -> None:
        data = os.urandom(size)
        descriptor = put(store, data)
        assert store.exists(descriptor)
        assert read(store, descriptor) == data

    def test_other_bytes_are_refused_and_nothing_is_stored(self, store: Store) -> None:
        descriptor = blob(b"wanted")
        for data in (b"others", b"wante", b"wanted and more"):
            with pytest.raises(DigestMismatchError, match="want sha256"):
                store.write(descriptor, lambda data=data: io.BytesIO(data))
        assert not store.exists(descriptor)
        assert list((store.path / "ingest").iterdir()) == []

    def test_an_ingest_is_named_at_its_end(self, store: Store) -> None:
        with store.ingest() as ingest:
            ingest.file.write(b"abc")
            ingest.commit(Digest.of(b"abc"), 3)
        assert read(store, blob(b"abc")) == b"abc"

    def test_an_ingest_of_another_size_is_refused(self, store: Store) -> None:
        with store.ingest() as ingest:
            ingest.file.write(b"abcd")
            with pytest.raises(StoreError, match="want 3 bytes, wrote 4"):
                ingest.commit(Digest.of(b"abc"), 3)

    def test_an_ingest_that_fails_leaves_nothing(self, store: Store) -> None:
        with contextlib.suppress(ZeroDivisionError), store.ingest() as ingest:
            ingest.file.write(b"abc" * (1 // 0))
        assert list((store.path / "ingest").iterdir()) == []

    def test_a_blob_that_is_not_there_is_not_found(self, store: Store) -> None:
        with pytest.raises(NotFoundError):
            store.open(blob(b"never"))

    @pytest.mark.parametrize("size", [100, BIG])
    @pytest.mark.parametrize("damage", ["flip", "truncate"])
    def test_a_damaged_blob_is_never_served(self, tmp_path: Path, damage: str, size: int) -> None:
        with Store(tmp_path / "store", verify="always") as store:
            data = os.urandom(size)
            descriptor = put(store, data)
            path = path_of(store, descriptor)
            path.chmod(0o600)
            with path.open("r+b") as file:
                if damage == "flip":
                    file.write(bytes([data[0] ^ 1]))
                else:
                    file.truncate(size - 1)
            with pytest.raises(DigestMismatchError, match="damaged"):
                store.open(descriptor)
            assert not store.exists(descriptor)
            assert len(list((store.path / "quarantine").iterdir())) == 1
            store.write(descriptor, lambda: io.BytesIO(data))
            assert read(store, descriptor) == data

    def test_verify_finds_every_damaged_blob(self, store: Store) -> None:
        good, bad = put(store, b"good"), put(store, b"evil")
        path_of(store, bad).chmod(0o600)
        path_of(store, bad).write_bytes(b"EVIL")
        assert store.verify() == (bad.digest,)
        assert good.digest not in store.verify()


class TestPrivacy:
    def test_folders_and_files_are_the_owners_whatever_the_umask(self, tmp_path: Path) -> None:
        old = os.umask(0)
        try:
            with Store(tmp_path / "store") as store:
                put(store, b"x")
                store.tag(blob(b"x"), "t")
                with store.ingest() as ingest:
                    assert stat.S_IMODE(os.fstat(ingest.file.fileno()).st_mode) == 0o600
                modes = {p: stat.S_IMODE(p.lstat().st_mode) for p in store.path.rglob("*")}
        finally:
            os.umask(old)
        assert {m for p, m in modes.items() if p.is_dir()} == {0o700}
        assert {m for p, m in modes.items() if not p.is_dir()} <= {0o600, 0o400}

    def test_a_store_of_somebody_else_is_refused(self, tmp_path: Path) -> None:
        need_root()
        Store(tmp_path / "store").close()
        os.chown(tmp_path / "store", 12345, 12345)
        with pytest.raises(StoreError, match="belongs to uid 12345"):
            Store(tmp_path / "store")

    def test_a_store_where_everybody_writes_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o777)
        with pytest.raises(StoreError, match="everybody can write"):
            Store(tmp_path / "open/store")

    def test_a_folder_with_other_things_is_no_store(self, tmp_path: Path) -> None:
        (tmp_path / "home").mkdir()
        (tmp_path / "home/letter").touch()
        with pytest.raises(StoreError, match="neither empty nor a store"):
            Store(tmp_path / "home")
        assert sorted(p.name for p in (tmp_path / "home").iterdir()) == ["letter"]

    def test_the_environment_names_the_default(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "mine"))
        assert default_path() == tmp_path / "mine"
        monkeypatch.delenv(ENVIRONMENT)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        assert default_path() == tmp_path / "cache" / "imagekit"


class TestDatabase:
    def test_records_are_kept_newest_wins(self, store: Store) -> None:
        for n in range(3):
            store.database.put_record(CacheRecord(key="k", scope="s", result={"n": n}, inputs=[n]))
        assert store.database.records(["k", "other"])["k"].result == {"n": 2}
        assert [r.inputs for r in store.database.recent_records("s", 2)] == [[2], [1]]

    def test_using_a_fresh_record_writes_nothing(self, store: Store) -> None:
        store.database.put_record(CacheRecord(key="k", result=1))
        before = store.database.records(["k"])
        store.database.touch_records(["k"])
        assert store.database.records(["k"]) == before

    @pytest.mark.parametrize("size", [10, 200_000])
    def test_layer_indexes_small_and_large(self, store: Store, size: int) -> None:
        data = os.urandom(size)
        store.database.put_layer_index(Digest.of(b"x"), data)
        assert store.database.layer_index(Digest.of(b"x")) == data
        assert store.database.layer_index(Digest.of(b"y")) is None

    def test_blob_facts_are_found_both_ways(self, store: Store) -> None:
        facts = BlobFacts(
            digest=Digest.of(b"gz"), diff_id=Digest.of(b"tar"), media_type=LAYER_TAR, size=2
        )
        store.database.put_blob_facts(facts)
        assert store.database.blob_facts(Digest.of(b"gz")) == facts
        assert store.database.blobs_of(Digest.of(b"tar")) == (facts,)

    def test_a_newer_schema_is_an_error_and_stays_as_it_is(self, tmp_path: Path) -> None:
        with Store(tmp_path / "store") as store:
            store.tag(put(store, b"x"), "t")
        with sqlite3.connect(tmp_path / "store/imagekit.db") as connection:
            connection.execute(f"PRAGMA user_version = {database.SCHEMA_VERSION + 1}")
        connection.close()
        before = (tmp_path / "store/imagekit.db").read_bytes()
        with Store(tmp_path / "store") as store, pytest.raises(StoreError) as caught:
            store.resolve("t")
        assert caught.value.code == "store-newer"
        assert "upgrade" in caught.value.hint
        assert (tmp_path / "store/imagekit.db").read_bytes() == before

    def test_a_damaged_database_is_an_error_with_a_remedy(self, store: Store) -> None:
        (store.path / "imagekit.db").write_bytes(b"no database at all" * 100)
        with pytest.raises(StoreError) as caught:
            store.resolve("t")
        assert caught.value.code == "store-damaged"
        assert "remove the file" in caught.value.hint

    def test_a_name_needs_its_blob(self, store: Store) -> None:
        with pytest.raises(NotFoundError):
            store.tag(blob(b"never"), "t")
        store.tag(put(store, b"x"), "t")
        assert store.tags() == {"t": blob(b"x")}
        store.untag("t")
        with pytest.raises(NotFoundError):
            store.resolve("t")


class TestFullDisk:
    def test_no_space_is_an_error_with_a_hint_and_the_store_stays_valid(
        self, tmp_path: Path
    ) -> None:
        need_root()
        mount = tmp_path / "small"
        mount.mkdir(mode=0o700)
        run(["mount", "-t", "tmpfs", "-o", "size=3m,mode=0700", "none", mount])
        try:
            with Store(mount / "store") as store:
                small = put(store, b"fits")
                with pytest.raises(StoreError) as caught:
                    put(store, bytes(8 << 20))
                assert caught.value.code == "no-space"
                assert "space" in caught.value.hint
                assert list((store.path / "ingest").iterdir()) == []
                assert read(store, small) == b"fits"
                assert read(store, put(store, b"fits too")) == b"fits too"
        finally:
            run(["umount", mount])


WRITER = """
import io, os, sys
from pathlib import Path
from imagekit.oci.document import describe
from imagekit.store.local import Store
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
n = 0
while True:
    data = (str(os.getpid()) + "-" + str(n)).encode() * 50_000
    descriptor = describe(data, "application/vnd.oci.image.layer.v1.tar")
    with store.lease():
        store.write(descriptor, lambda: io.BytesIO(data))
        store.tag(descriptor, "last")
    n += 1
"""


def started(code: str, *args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **imagekit_env()},
    )


def test_a_kill_at_any_time_leaves_a_valid_store(tmp_path: Path) -> None:
    path = tmp_path / "store"
    for round_ in range(8):
        with started(WRITER, path) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            while not (path / "blobs/sha256").is_dir():
                pass
            for _ in range(round_ * 200):
                path.stat()
            process.send_signal(signal.SIGKILL)
        with Store(path) as store:
            assert store.verify() == ()
            put(store, b"another")  # the first write cleans up
            assert list((path / "ingest").iterdir()) == []
            for descriptor in store.tags().values():
                assert read(store, descriptor)
            pruned = prune(store, remove_tree=shutil.rmtree, grace_s=-5)
            assert list((path / "leases").iterdir()) == []
            kept = {d.digest for d in store.tags().values()}
            assert not kept & set(pruned.blobs)


BUILDER = """
import io, sys, time
from pathlib import Path
from imagekit.oci.document import describe
from imagekit.store.database import CacheRecord
from imagekit.store.local import Store
store = Store(Path(sys.argv[1]))
name, rounds = sys.argv[2], int(sys.argv[3])
kind = "application/vnd.oci.image.layer.v1.tar"
with store.lease():
    for n in range(rounds):
        shared = describe(b"shared %d" % n, kind)
        store.write(shared, lambda: io.BytesIO(b"shared %d" % n))
        own = describe((name + str(n)).encode(), kind)
        store.write_bytes(own, (name + str(n)).encode())
        with store.lock("key %d" % n):
            if not store.database.records(["key %d" % n]):
                print(n, flush=True)
                store.database.put_record(CacheRecord(key="key %d" % n, result=str(shared.digest)))
        for descriptor in (shared, own):
            with store.open(descriptor) as stream:
                assert stream.read()
    store.tag(own, name)
"""


def test_four_processes_and_a_pruner_share_a_store(tmp_path: Path) -> None:
    path = tmp_path / "store"
    Store(path).close()
    processes = [started(BUILDER, path, f"p{n}-", 15) for n in range(4)]
    with Store(path) as store:
        while any(process.poll() is None for process in processes):
            prune(store, remove_tree=shutil.rmtree, grace_s=0)
        flights = []
        for process in processes:
            output = process.communicate()[0]
            assert process.returncode == 0
            flights += output.split()
        assert sorted(map(int, flights)) == list(range(15))  # single flight: each once
        assert store.verify() == ()
        assert len(store.tags()) == 4
        prune(store, remove_tree=shutil.rmtree, grace_s=-5, records_older_than_s=-5)
        left = {p.name for p in (path / "blobs/sha256").iterdir()}
        assert left == {d.digest.hex for d in store.tags().values()}


class TestLocks:
    def test_a_lock_is_for_one_thread_at_a_time(self, store: Store) -> None:
        with (
            store.lock("a"),
            store.lock("b"),
            pytest.raises(StoreError) as caught,
            store.lock("a", timeout_s=0),
        ):
            raise AssertionError
        assert caught.value.code == "lock-timeout"
        with store.lock("a", timeout_s=0):
            pass

    def test_a_wait_can_be_cancelled(self, store: Store) -> None:
        with (
            store.lock("a"),
            pytest.raises(CancelledError),
            store.lock("a", cancelled=lambda: True),
        ):
            raise AssertionError


class TestPrune:
    def test_records_keep_what_they_name(self, store: Store) -> None:
        kept, gone = put(store, b"kept"), put(store, b"gone")
        store.database.put_record(CacheRecord(key="k", result={"layer": [str(kept.digest)]}))
        done = prune(store, remove_tree=shutil.rmtree, grace_s=-5)
        assert done.blobs == (gone.digest,)
        assert done.freed == 4
        assert store.exists(kept)

    def test_a_lease_keeps_what_was_used_since(self, store: Store) -> None:
        old = put(store, b"old")
        os.utime(path_of(store, old), (1, 1))
        other = put(store, b"other")
        os.utime(path_of(store, other), (1, 1))
        with store.lease():
            assert store.exists(old)
            done = prune(store, remove_tree=shutil.rmtree, grace_s=0)
            assert done.blobs == (other.digest,)
            assert store.exists(old)

    def test_snapshots_go_by_age(self, store: Store) -> None:
        with store.new_snapshot("one", remove=shutil.rmtree) as pending:
            (pending.path / "f").touch()
            pending.commit()
        path = store.snapshot("one")
        assert path is not None
        assert prune(store, remove_tree=shutil.rmtree).snapshots == ()
        done = prune(store, remove_tree=shutil.rmtree, records_older_than_s=-5, grace_s=-5)
        assert done.snapshots == ("one",)
        assert store.snapshot("one") is None

    def test_a_blob_that_a_dead_sweep_moved_aside_comes_back(self, store: Store) -> None:
        kept = put(store, b"kept")
        store.tag(kept, "t")
        path_of(store, kept).rename(store.path / "temp" / f"{kept.digest.hex}.sha256-blob")
        prune(store, remove_tree=shutil.rmtree)
        assert read(store, kept) == b"kept"


class TestSnapshots:
    def test_one_is_there_when_it_is_committed(self, store: Store) -> None:
        with store.new_snapshot("s", remove=shutil.rmtree) as pending:
            assert store.snapshot("s") is None
            (pending.path / "f").touch()
            assert pending.commit() == store.snapshot("s")
        with store.new_snapshot("t", remove=shutil.rmtree):
            pass
        assert store.snapshot("t") is None
        assert list((store.path / "temp").iterdir()) == []

    def test_the_second_to_commit_gets_the_folder_of_the_first(self, store: Store) -> None:
        with (
            store.new_snapshot("s", remove=shutil.rmtree) as one,
            store.new_snapshot("s", remove=shutil.rmtree) as two,
        ):
            (one.path / "1").touch()
            (two.path / "2").touch()
            assert one.commit() == two.commit()
        assert [p.name for p in (store.path / "snapshots/s").iterdir()] == ["1"]

    def test_one_of_before_a_restart_is_not_believed_while_it_was_young(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with store.new_snapshot("s", remove=shutil.rmtree) as pending:
            pending.commit()
        monkeypatch.setattr("imagekit.store.local.boot_id", lambda: "another")
        assert store.snapshot("s") is None

    def test_names_are_single_components(self, store: Store) -> None:
        for name in ("", "a/b", "..", ".hidden"):
            with pytest.raises(StoreError):
                store.snapshot_path(name)


def test_blobs_are_hashed_as_they_pass_not_after(store: Store) -> None:
    data = os.urandom(blobs.CHUNK * 2 + 1)
    descriptor = put(store, data)
    assert hashlib.sha256(read(store, descriptor)).hexdigest() == descriptor.digest.hex
    assert json.loads((store.path / "oci-layout").read_bytes())["imageLayoutVersion"] == "1.0.0"
