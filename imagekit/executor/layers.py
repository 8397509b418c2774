"""What is known of layers (blobs, indexes, trees), and how new ones are written.

A layer of a base image is fetched when something here needs its bytes, and then indexed once.
Random access to what a file holds needs places where decompression can start: layers written here
have one every 1 MiB; of any other, the uncompressed tar is kept as a blob of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from attrs import evolve

from imagekit.errors import BadArchiveError, StoreError
from imagekit.events import Observer, Transfer, ignore_events
from imagekit.executor.values import Fetcher, Layer
from imagekit.layer.changes import Changes
from imagekit.layer.content_digest import changes_digest
from imagekit.layer.index import CompressedLayer, LayerIndex, decode_index, encode_index
from imagekit.layer.tree import Entry, Tree
from imagekit.oci.descriptor import LAYER_TAR, LAYER_TYPES, Descriptor, layer_compression
from imagekit.oci.digest import Digest
from imagekit.store.database import CacheRecord
from imagekit.store.local import Store

if TYPE_CHECKING:  # an unchanged build imports none of these
    from imagekit.layer.compress import Codec
    from imagekit.layer.decompress import BlockReader, Decompressor
    from imagekit.layer.tar import Contents

_SMALL: Final = 1 << 20


_DENSE: Final = 4 << 20
"""Restart points at most this far apart, in bytes of tar, make reading anywhere cheap."""


class Layers:
    """The layers of one store; every method may be called from any thread."""

    def __init__(
        self, store: Store, fetcher: Fetcher, *, codec: Codec, observer: Observer = ignore_events
    ) -> None:
        self.store = store
        self.codec = codec
        self._fetcher = fetcher
        self._observer = observer
        self._lock = threading.Lock()
        self._indexes: dict[Digest, LayerIndex] = {}
        self._trees: dict[tuple[Digest, ...], Tree] = {(): Tree.EMPTY}

    # Blobs.

    def ensure_blob(self, layer: Layer, *, why: str) -> None:
        """Fetch the blob of a layer if it is not here.

        Raises:
            StoreError: it is not here, and nobody knows where it could come from.
        """
        if self.store.exists(layer.descriptor):
            return
        if not layer.origin:
            raise StoreError(
                f"layer {layer.diff_id} is gone from the store",
                descriptor=layer.descriptor,
                hint="build again with --no-cache",
            )
        size, name = layer.descriptor.size, layer.descriptor.digest.short
        with self.store.lock(str(layer.descriptor.digest)):
            self.store.write(
                layer.descriptor, lambda: self._fetcher.open(layer.origin, layer.descriptor)
            )
        self._observer(Transfer(direction="pull", name=name, why=why, done=size, total=size))

    @contextmanager
    def open_tar(self, layer: Layer, *, why: str) -> Iterator[Decompressor]:
        """The uncompressed tar of a layer as a stream that checks it."""
        self.ensure_blob(layer, why=why)
        compression = layer_compression(layer.descriptor.media_type)
        if compression is None:
            raise StoreError(
                f"not a layer: {layer.descriptor.media_type}", descriptor=layer.descriptor
            )
        from imagekit.layer.decompress import RATIO_MAX, Decompressor  # noqa: PLC0415 - see above

        with self.store.open(layer.descriptor) as blob:
            yield Decompressor(
                blob,
                compression,
                digest=layer.descriptor.digest,
                size=layer.descriptor.size,
                diff_id=layer.diff_id,
                ratio_max=RATIO_MAX if layer.origin else None,
            )

    @contextmanager
    def open_stream(self, layer: Layer) -> Iterator[BinaryIO]:
        """The uncompressed tar of a layer, from what lies nearest: it was checked before."""
        blob = self.index(layer).blob
        if blob is not None and blob.compression == "none":
            with self.store.open(_blob_descriptor(blob)) as file:
                yield file
        else:
            with self.open_tar(layer, why="it is laid out for RUN") as tar:
                yield cast("BinaryIO", tar)

    # Indexes and trees.

    def index(self, layer: Layer) -> LayerIndex:
        """The index of a layer, read from its tar if there is none yet."""
        found = self._known_index(layer.diff_id)
        if found is not None:
            return found
        with self.store.lock(f"index {layer.diff_id}"):
            found = self._known_index(layer.diff_id)
            return self._make_index(layer) if found is None else found

    def _known_index(self, diff_id: Digest) -> LayerIndex | None:
        with self._lock:
            if diff_id in self._indexes:
                return self._indexes[diff_id]
        data = self.store.database.layer_index(diff_id)
        if data is None:
            return None
        index = decode_index(data)
        if index.blob is None or not self.store.exists(_blob_descriptor(index.blob)):
            return None
        with self._lock:
            return self._indexes.setdefault(diff_id, index)

    def _make_index(self, layer: Layer) -> LayerIndex:
        from imagekit.layer.tar import read_layer  # noqa: PLC0415 - see above

        with (
            self.open_tar(layer, why="its files are read") as tar,
            self.store.ingest() as spool,
        ):
            index = read_layer(_Tee(tar, spool.file.write), diff_id=layer.diff_id)
            blob = tar.result
            if not _is_dense(blob):
                spool.commit(layer.diff_id, index.size)
                blob = CompressedLayer(
                    compression="none",
                    digest=layer.diff_id,
                    size=index.size,
                    diff_id=layer.diff_id,
                    tar_size=index.size,
                )
        return self._keep(evolve(index, blob=blob))

    def _keep(self, index: LayerIndex) -> LayerIndex:
        self.store.database.put_layer_index(index.diff_id, encode_index(index))
        with self._lock:
            return self._indexes.setdefault(index.diff_id, index)

    def tree(self, layers: Sequence[Layer]) -> Tree:
        """The root file system that these layers make."""
        stack = tuple(layer.diff_id for layer in layers)
        with self._lock:
            if stack in self._trees:
                return self._trees[stack]
        lower = self.tree(layers[:-1])
        tree = lower.apply(self.changes(layers[-1], lower))
        with self._lock:
            return self._trees.setdefault(stack, tree)

    def changes(self, layer: Layer, lower: Tree) -> Changes:
        """The changes of a layer; hard links to what lies below take it from there."""
        index = self.index(layer)
        if not index.unresolved:
            return index.changes
        entries = dict(index.changes.entries)
        for path, target in index.unresolved:
            found = lower.resolve(target, follow_last=False).entry
            if found is None:
                raise BadArchiveError(
                    f"/{path} is a hard link to /{target}, which is not there", path=path
                )
            entries[path] = found
        return evolve(index.changes, entries=entries)

    # Content.

    def open_reader(self, diff_id: Digest) -> tuple[BinaryIO, BlockReader]:
        """Random access to the tar of a layer that has an index.

        The file is the caller's to close.

        Raises:
            StoreError: the layer is not here any more.
        """
        from imagekit.layer.decompress import BlockReader  # noqa: PLC0415 - see above

        index = self._known_index(diff_id)
        if index is None or index.blob is None:
            raise StoreError(
                f"layer {diff_id} is gone from the store", hint="build again with --no-cache"
            )
        file = self.store.open(_blob_descriptor(index.blob))
        return file, BlockReader(file, index.blob)

    # Writing.

    def write(self, changes: Changes, contents: Contents) -> Layer:
        """Write a new layer: tar, diff ID, compression, digest and index in one pass.

        Raises:
            ContextError: what is copied changes while it is read.
            StoreError: the store cannot take it.
        """
        return self._write(changes, contents, self.codec, epoch=None)

    def keep(self, changes: Changes, contents: Contents) -> Layer:
        """Keep files as a layer that is not compressed: it is read here, and goes nowhere.

        Raises:
            ContextError: what is kept changes while it is read.
            StoreError: the store cannot take it.
        """
        from imagekit.layer.compress import codec  # noqa: PLC0415 - see above

        return self._write(changes, contents, codec("none"), epoch=None)

    def _write(
        self, changes: Changes, contents: Contents, codec: Codec, *, epoch: int | None
    ) -> Layer:
        from imagekit.layer.compress import LayerSink  # noqa: PLC0415 - see above
        from imagekit.layer.tar import write_layer  # noqa: PLC0415 - see above

        with self.store.ingest() as ingest:
            with LayerSink(ingest.file, codec) as sink:
                index = write_layer(changes, contents, sink, epoch=epoch)
            blob = sink.result
            ingest.commit(blob.digest, blob.size)
        self._keep(evolve(index, blob=blob))
        return Layer(
            diff_id=index.diff_id,
            descriptor=_blob_descriptor(blob),
            content=changes_digest(index.changes),
            created=int(time.time()),
            codec=str(codec),
        )

    def recode(self, layer: Layer, codec: Codec, *, epoch: int | None) -> Layer:
        """The same layer with file times clamped to `epoch` and in another compression.

        What is asked for already comes back as it is; what was made before is found again.
        """
        clamp = epoch is not None and any(
            entry.mtime > epoch for entry in self.index(layer).changes.entries.values()
        )
        if layer.codec == str(codec) and not clamp:
            return layer
        name = f"recode {layer.diff_id} {codec} {epoch if clamp else ''}"
        key = str(Digest.of(name.encode()))
        found = self.store.database.records([key]).get(key)
        if found is not None:
            made = _decode_recoded(found.result, layer, codec)
            if self.store.exists(made.descriptor):
                return made
        made = self._clamped(layer, codec, epoch) if clamp else self._recompressed(layer, codec)
        made = evolve(made, created=layer.created, content=layer.content)
        self._save_recoded(key, made)
        return made

    def _clamped(self, layer: Layer, codec: Codec, epoch: int | None) -> Layer:
        """The layer written anew with other times."""
        contents = LayerContents(self)
        try:
            return self._write(self.index(layer).changes, contents, codec, epoch=epoch)
        finally:
            contents.close()

    def _recompressed(self, layer: Layer, codec: Codec) -> Layer:
        """The very same tar in another compression."""
        from imagekit.layer.compress import LayerSink  # noqa: PLC0415 - see above

        with self.store.ingest() as ingest:
            with LayerSink(ingest.file, codec) as sink, self.open_stream(layer) as tar:
                while data := tar.read(_SMALL):
                    sink.write(data)
                sink.finish()
            blob = sink.result
            ingest.commit(blob.digest, blob.size)
        return evolve(layer, descriptor=_blob_descriptor(blob), origin="", codec=str(codec))

    def _save_recoded(self, key: str, made: Layer) -> None:
        self.store.database.put_record(
            CacheRecord(
                key=key,
                scope="recode",
                result={"diff_id": str(made.diff_id), "blob": made.descriptor.to_json()},
                created=made.created,
            )
        )


class LayerContents:
    """The content of files that lie in layers; for one thread, and to be closed."""

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self._readers: dict[str, tuple[BinaryIO, BlockReader]] = {}

    def _reader(self, entry: Entry) -> tuple[BlockReader, int]:
        where = entry.where
        if where is None or not isinstance(where.at, int):
            raise StoreError(f"a file of a layer has no place in it: {where}")
        found = self._readers.get(where.source)
        if found is None:
            found = self._layers.open_reader(Digest.parse(where.source))
            self._readers[where.source] = found
        return found[1], where.at

    def read_small(self, entry: Entry) -> bytes | None:
        """See `Contents`."""
        if entry.size > _SMALL:
            return None
        reader, at = self._reader(entry)
        return reader.read(at, entry.size)

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """See `Contents`."""
        reader, at = self._reader(entry)
        yield from reader.chunks(at, entry.size)

    def close(self) -> None:
        """Close what was opened."""
        for file, _ in self._readers.values():
            file.close()
        self._readers.clear()


class _Tee:
    """A stream whose bytes are written somewhere else as they pass."""

    def __init__(self, stream: Decompressor, write: Callable[[bytes], object]) -> None:
        self._stream = stream
        self._write = write

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._write(data)
        return data


def _is_dense(blob: CompressedLayer) -> bool:
    """Whether the tar in a blob can be read anywhere without much ado."""
    if blob.compression == "none":
        return True
    starts = [tar for tar, _ in blob.restarts] or [0]
    ends = [*starts[1:], blob.tar_size]
    return all(end - start <= _DENSE for start, end in zip(starts, ends, strict=True))


def _blob_descriptor(blob: CompressedLayer) -> Descriptor:
    media_type = LAYER_TYPES.get(blob.compression, LAYER_TAR)
    return Descriptor(media_type=media_type, digest=blob.digest, size=blob.size)


def _decode_recoded(result: dict[str, object], layer: Layer, codec: Codec) -> Layer:
    return evolve(
        layer,
        codec=str(codec),
        diff_id=Digest.parse(str(result["diff_id"])),
        descriptor=Descriptor.from_json(result["blob"]),
        origin="",
    )
