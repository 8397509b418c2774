"""Layouts, archives and the walk between them, with skopeo as the referee."""

import gzip
import io
import json
import os
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from imagekit.errors import (
    DigestMismatchError,
    InvalidDocumentError,
    NotFoundError,
    OutputError,
    StoreError,
)
from imagekit.events import Event, Transfer
from imagekit.oci.config import ImageConfig
from imagekit.oci.descriptor import CONFIG, INDEX, LAYER_GZIP, MANIFEST, Descriptor
from imagekit.oci.digest import Digest
from imagekit.oci.document import describe
from imagekit.oci.manifest import Index, Manifest
from imagekit.oci.platform import Platform
from imagekit.store.archive import OciArchive, write_docker_archive, write_oci_archive
from imagekit.store.copy import copy
from imagekit.store.layout import Layout
from imagekit.store.local import Store
from imagekit.store.roles import MemoryStore
from tests.support.layout import Layout as PlainLayout
from tests.support.schemas import schema_problems
from tests.support.tools import need, run

NAME = "docker.io/library/app:1.0"


def put(store: MemoryStore, data: bytes, kind: str) -> Descriptor:
    descriptor = describe(data, kind)
    store.write(descriptor, lambda: io.BytesIO(data))
    return descriptor


def layer(store: MemoryStore, text: str) -> tuple[Descriptor, Digest]:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(text)
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text.encode()))
    raw = out.getvalue()
    return put(store, gzip.compress(raw, mtime=0), LAYER_GZIP), Digest.of(raw)


def image(store: MemoryStore, *texts: str, platform: str = "linux/amd64") -> Descriptor:
    layers = [layer(store, text) for text in texts]
    parsed = Platform.parse(platform)
    config = ImageConfig(platform=parsed, diff_ids=tuple(diff_id for _, diff_id in layers))
    manifest = Manifest(
        config=put(store, config.encode(), CONFIG), layers=tuple(blob for blob, _ in layers)
    )
    descriptor = put(store, manifest.encode(), MANIFEST)
    return Descriptor(
        media_type=MANIFEST, digest=descriptor.digest, size=descriptor.size, platform=parsed
    )


@pytest.fixture
def source() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def single(source: MemoryStore) -> Descriptor:
    return image(source, "common", "one")


@pytest.fixture
def multi(source: MemoryStore) -> Descriptor:
    children = (
        image(source, "common", "one"),
        image(source, "common", "two", platform="linux/arm64"),
    )
    return put(source, Index(manifests=children).encode(), INDEX)


def layout_of(path: Path, source: MemoryStore, root: Descriptor) -> Layout:
    layout = Layout(path, create=True)
    copy(source, root, layout, tag=NAME)
    return layout


class TestLayout:
    def test_documents_follow_their_schemas(
        self, tmp_path: Path, source: MemoryStore, multi: Descriptor
    ) -> None:
        layout_of(tmp_path / "l", source, multi)
        plain = PlainLayout(tmp_path / "l")
        assert [image.platform for image in plain.images] == ["linux/amd64", "linux/arm64"]
        assert plain.tags == ["1.0"]
        assert schema_problems(plain) == []

    def test_nothing_is_left_but_the_layout(
        self, tmp_path: Path, source: MemoryStore, single: Descriptor
    ) -> None:
        layout_of(tmp_path / "l", source, single)
        assert sorted(p.name for p in (tmp_path / "l").iterdir()) == [
            "blobs",
            "index.json",
            "oci-layout",
        ]

    def test_files_have_the_rights_of_any_file(
        self, tmp_path: Path, source: MemoryStore, single: Descriptor
    ) -> None:
        old = os.umask(0o027)
        try:
            layout_of(tmp_path / "l", source, single)
        finally:
            os.umask(old)
        modes = {p.stat().st_mode & 0o777 for p in (tmp_path / "l").rglob("*") if p.is_file()}
        assert modes == {0o640}

    def test_skopeo_reads_it_by_tag(
        self, tmp_path: Path, source: MemoryStore, single: Descriptor
    ) -> None:
        need("skopeo")
        layout_of(tmp_path / "l", source, single)
        shown = run(["skopeo", "inspect", f"oci:{tmp_path}/l:1.0"]).stdout
        assert json.loads(shown)["Digest"] == str(single.digest)

    def test_what_skopeo_writes_is_read(
        self, tmp_path: Path, source: MemoryStore, single: Descriptor
    ) -> None:
        need("skopeo")
        layout_of(tmp_path / "l", source, single)
        run(["skopeo", "copy", "-q", f"oci:{tmp_path}/l:1.0", f"oci:{tmp_path}/m:tag"])
        layout = Layout(tmp_path / "m")
        assert layout.resolve("tag").digest == single.digest
        assert layout.resolve("").digest == single.digest

    def test_names_are_full_or_bare(
        self, tmp_path: Path, source: MemoryStore, single: Descriptor
    ) -> None:
        layout = layout_of(tmp_path / "l", source, single)
        layout.tag(single, "bare")
        for name in (NAME, "1.0", "bare", str(single.digest)):
            assert layout.resolve(name).digest == single.digest
        with pytest.raises(NotFoundError, match="no image other") as caught:
            layout.resolve("other")
        assert "bare" in caught.value.hint

    def test_a_name_moves(self, tmp_path: Path, source: MemoryStore, single: Descriptor) -> None:
        layout = layout_of(tmp_path / "l", source, single)
        other = image(source, "other")
        copy(source, other, layout, tag=NAME)
        assert layout.resolve(NAME).digest == other.digest
        assert len(layout.entries()) == 1
        assert layout.resolve(NAME).annotations == {}

    def test_an_image_that_is_not_there_gets_no_name(self, tmp_path: Path) -> None:
        layout = Layout(tmp_path / "l", create=True)
        with pytest.raises(NotFoundError):
            layout.tag(describe(b"x", MANIFEST), "t")

    def test_several_writers_lose_no_name(
        self, tmp_path: Path, source: MemoryStore, single: Descriptor
    ) -> None:
        copy(source, single, Layout(tmp_path / "l", create=True))
        threads = [
            threading.Thread(target=lambda n=n: Layout(tmp_path / "l").tag(single, f"t{n}"))
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(Layout(tmp_path / "l").tags()) == [f"t{n}" for n in range(8)]

    def test_other_folders_and_versions_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError, match="no image layout"):
            Layout(tmp_path)
        (tmp_path / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}')
        with pytest.raises(StoreError, match=r"version 2\.0\.0"):
            Layout(tmp_path)


class TestArchives:
    @pytest.mark.parametrize("write", [write_oci_archive, write_docker_archive])
    def test_the_same_image_gives_the_same_bytes(
        self, source: MemoryStore, single: Descriptor, write: Callable[..., None]
    ) -> None:
        outs = [io.BytesIO(), io.BytesIO()]
        for out in outs:
            write(out, source, single, names=[NAME])
        assert outs[0].getvalue() == outs[1].getvalue()

    def test_skopeo_reads_an_oci_archive(
        self, tmp_path: Path, source: MemoryStore, single: Descriptor
    ) -> None:
        need("skopeo")
        with (tmp_path / "a.tar").open("wb") as out:
            write_oci_archive(out, source, single, names=[NAME])
        shown = run(["skopeo", "inspect", f"oci-archive:{tmp_path}/a.tar:1.0"]).stdout
        assert json.loads(shown)["Digest"] == str(single.digest)

    def test_skopeo_reads_a_docker_archive(
        self, tmp_path: Path, source: MemoryStore, single: Descriptor
    ) -> None:
        need("skopeo")
        with (tmp_path / "a.tar").open("wb") as out:
            write_docker_archive(out, source, single, names=[NAME])
        archive = f"docker-archive:{tmp_path}/a.tar:{NAME}"
        run(["skopeo", "copy", "-q", archive, f"oci:{tmp_path}/l:out"])
        found = PlainLayout(tmp_path / "l").image()
        assert found.config["rootfs"]["diff_ids"] == [
            str(d) for d in ImageConfig.decode(config_of(source, single)).diff_ids
        ]

    def test_a_docker_archive_names_its_parts(
        self, source: MemoryStore, single: Descriptor
    ) -> None:
        out = io.BytesIO()
        write_docker_archive(out, source, single, names=[NAME, "registry.example:5000/x/y"])
        out.seek(0)
        with tarfile.open(fileobj=out) as tar:
            listed = json.loads(member(tar, "manifest.json"))[0]
            assert listed["RepoTags"] == ["app:1.0", "registry.example:5000/x/y:latest"]
            for path in (listed["Config"], *listed["Layers"]):
                assert Digest.of(member(tar, path)).hex == path.rpartition("/")[2]
            tops = json.loads(member(tar, "repositories"))
            assert sorted(tops) == ["app", "registry.example:5000/x/y"]

    def test_a_docker_archive_holds_one_image(
        self, source: MemoryStore, multi: Descriptor
    ) -> None:
        with pytest.raises(OutputError, match="one image, not 2"):
            write_docker_archive(io.BytesIO(), source, multi)

    def test_an_archive_is_a_source(
        self, tmp_path: Path, source: MemoryStore, multi: Descriptor
    ) -> None:
        with (tmp_path / "a.tar").open("wb") as out:
            write_oci_archive(out, source, multi, names=["v1"])
        target = MemoryStore()
        with OciArchive(tmp_path / "a.tar") as archive:
            assert archive.resolve("").digest == multi.digest
            copy(archive, archive.resolve("v1"), target, tag="v1")
            with pytest.raises(NotFoundError):
                archive.resolve("v2")
            with pytest.raises(NotFoundError):
                archive.open(describe(b"none", LAYER_GZIP))
        assert target.blobs == source.blobs

    def test_what_is_no_archive_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "junk").write_bytes(b"junk" * 1000)
        with pytest.raises(StoreError, match="no tar archive"):
            OciArchive(tmp_path / "junk")
        with tarfile.open(tmp_path / "other.tar", "w") as tar:
            tar.addfile(tarfile.TarInfo("x"))
        with pytest.raises(StoreError, match="no archive of an image layout"):
            OciArchive(tmp_path / "other.tar")

    def test_a_damaged_blob_ends_the_writing(
        self, source: MemoryStore, single: Descriptor
    ) -> None:
        victim = next(d for d in source.blobs if d != single.digest and is_layer(source, d))
        source.blobs[victim] += b"more"
        with pytest.raises(DigestMismatchError):
            write_oci_archive(io.BytesIO(), source, single)


def is_layer(source: MemoryStore, digest: Digest) -> bool:
    return source.blobs[digest].startswith(b"\x1f\x8b")


def config_of(source: MemoryStore, manifest: Descriptor) -> bytes:
    value = json.loads(source.blobs[manifest.digest])
    return source.blobs[Digest.parse(value["config"]["digest"])]


def member(tar: tarfile.TarFile, name: str) -> bytes:
    found = tar.extractfile(name)
    assert found is not None
    return found.read()


class Recorder(MemoryStore):
    """Notes what is written, and holds that what is named comes first."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[Digest] = []
        self._lock = threading.Lock()

    def write(self, descriptor: Descriptor, open_source: Callable[[], BinaryIO]) -> None:
        super().write(descriptor, open_source)
        with self._lock:
            self.written.append(descriptor.digest)
        if descriptor.media_type in (MANIFEST, INDEX):
            value = json.loads(self.blobs[descriptor.digest])
            below = [value.get("config"), *value.get("layers", []), *value.get("manifests", [])]
            for child in filter(None, below):
                assert Digest.parse(child["digest"]) in self.blobs


class TestCopy:
    @pytest.mark.parametrize("jobs", [1, 4])
    def test_everything_once_and_what_is_named_first(
        self, source: MemoryStore, multi: Descriptor, jobs: int
    ) -> None:
        target = Recorder()
        copy(source, multi, target, tag="t", jobs=jobs)
        assert target.blobs == source.blobs
        assert target.tags == {"t": multi}
        assert len(target.written) == len(set(target.written))
        assert target.written[-1] == multi.digest

    def test_what_is_there_is_not_sent(self, source: MemoryStore, multi: Descriptor) -> None:
        target = Recorder()
        copy(source, multi, target)
        target.written.clear()
        copy(source, multi, target)
        assert target.written == []

    def test_only_the_wanted_platforms(self, source: MemoryStore, multi: Descriptor) -> None:
        target = MemoryStore()
        copy(source, multi, target, platforms=[Platform("linux", "arm64")])
        assert len(source.blobs) - len(target.blobs) == 3  # manifest, config and a layer

    def test_a_missing_blob_leaves_no_name(self, source: MemoryStore, single: Descriptor) -> None:
        victim = next(d for d in source.blobs if is_layer(source, d))
        del source.blobs[victim]
        target = Recorder()
        with pytest.raises(NotFoundError):
            copy(source, single, target, tag="t")
        assert target.tags == {}
        assert single.digest not in target.blobs

    def test_indexes_in_each_other_end_somewhere(
        self, source: MemoryStore, single: Descriptor
    ) -> None:
        root = single
        for _ in range(6):
            root = put(source, Index(manifests=(root,)).encode(), INDEX)
        with pytest.raises(InvalidDocumentError, match="nested"):
            copy(source, root, MemoryStore())

    def test_a_layout_is_told_of(
        self, tmp_path: Path, source: MemoryStore, single: Descriptor
    ) -> None:
        seen: list[Event] = []
        copy(source, single, Layout(tmp_path / "l", create=True), observer=seen.append)
        assert sum(isinstance(e, Transfer) and e.direction == "export" for e in seen) == 3

    def test_through_a_store_and_back(
        self, tmp_path: Path, source: MemoryStore, multi: Descriptor
    ) -> None:
        with Store(tmp_path / "store") as store:
            copy(source, multi, store, tag="t")
            layout = Layout(tmp_path / "l", create=True)
            copy(store, store.resolve("t"), layout, tag="t")
        again = MemoryStore()
        copy(layout, layout.resolve("t"), again)
        assert again.blobs == source.blobs
