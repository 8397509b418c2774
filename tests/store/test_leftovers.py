"""What killed builds leave, caches and locks: who removes them, and when not."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve

from imagekit.store.database import SnapshotRow
from imagekit.store.local import Store
from imagekit.store.prune import prune


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as store:
        yield store


def left_over(store: Store) -> Path:
    folder = store.path / "temp" / "0123456789abcdef"
    folder.mkdir()
    (folder / "file").write_text("x")
    folder.with_suffix(".lock").touch()
    return folder


def test_the_next_build_removes_folders_of_dead_ones(store: Store) -> None:
    folder = left_over(store)
    with store.temp_folder(remove=shutil.rmtree) as temp:
        assert not folder.exists()
        assert temp.exists()
        with Store(store.path) as other, other.temp_folder(remove=shutil.rmtree):
            assert temp.exists()


def test_a_left_over_that_cannot_be_removed_does_not_stop_a_build(store: Store) -> None:
    folder = left_over(store)

    def refuse(path: Path) -> None:
        if path == folder:
            raise PermissionError

    with store.temp_folder(remove=refuse):
        pass
    assert folder.exists()


def test_locks_go_unless_they_are_held(store: Store) -> None:
    with store.lock("free"):
        pass
    with store.lock("held"):
        prune(store, remove_tree=shutil.rmtree)
        assert len([p for p in (store.path / "locks").iterdir() if p.name != "sweep"]) == 1
        with (
            Store(store.path) as other,
            pytest.raises(Exception, match="for more than"),
            other.lock("held", timeout_s=0.01),
        ):
            pass


def test_caches_stay_until_they_are_asked_for_and_while_a_build_runs(store: Store) -> None:
    cache = store.caches / "0123u"
    cache.mkdir()
    (cache / "file").write_text("x")
    assert prune(store, remove_tree=shutil.rmtree).caches == 0
    with Store(store.path) as building, building.lease():
        assert prune(store, remove_tree=shutil.rmtree, caches=True).caches == 0
    assert cache.exists()
    assert prune(store, remove_tree=shutil.rmtree, caches=True).caches == 1
    assert list(store.caches.iterdir()) == []


def test_a_snapshot_is_not_pruned_in_the_moment_it_gets_its_name(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = store.database.put_snapshot

    def prune_first(row: SnapshotRow) -> None:
        with Store(store.path) as other:
            prune(other, remove_tree=shutil.rmtree, records_older_than_s=0, grace_s=0)
        put(row)

    monkeypatch.setattr(store.database, "put_snapshot", prune_first)
    with store.lease(), store.new_snapshot("layer", remove=shutil.rmtree) as pending:
        os.utime(pending.path, (0, 0))  # as the layer has it
        path = pending.commit()
    assert store.snapshot("layer") == path


def test_a_snapshot_is_gone_whole_or_not_at_all(store: Store) -> None:
    with store.new_snapshot("layer", remove=shutil.rmtree) as pending:
        (pending.path / "file").write_text("x")
        pending.commit()
    seen = []

    def remove(folder: Path) -> None:
        seen.append(store.snapshot("layer"))
        shutil.rmtree(folder)

    old = store.database.snapshot("layer")
    assert old is not None
    store.database.put_snapshot(evolve(old, used=0))
    os.utime(store.snapshot_path("layer"), (0, 0))
    assert prune(store, remove_tree=remove, records_older_than_s=0, grace_s=0).snapshots == (
        "layer",
    )
    assert seen == [None]
