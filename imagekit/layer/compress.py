"""Tar bytes -> blob: compressed in independent blocks, hashed on both sides, in bounded memory.

A blob is a row of blocks of 1 MiB of tar, each a gzip member or zstd frame of its own. So the
bytes do not depend on how the tar arrived in pieces, any block can be read alone, and blocks are
compressed side by side. Concatenated members and frames are what every reader of gzip and zstd
accepts; the price is under half a per cent of size.

`LayerSink` is the pipeline: the caller's thread hands over blocks, workers compress them, one
thread takes the results in order, hashes both sides and writes. Hashing and compressing release
the GIL, so with two processors the tar is written on one and compressed on the other. No more than
a fixed number of blocks is in flight.

Spec: RFC 1952 (gzip), RFC 8878 (zstd).
"""

import queue
import struct
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Literal, Protocol, Self

import zstandard
from attrs import frozen
from isal import isal_zlib

from imagekit.errors import CancelledError, UsageError
from imagekit.layer.index import CompressedLayer, Compression
from imagekit.oci.digest import Digest, hasher

BLOCK_SIZE: Final = 1 << 20

_GZIP_HEADER: Final = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_RAW: Final = -15
_ISAL_LEVELS: Final = range(4)
_GZIP_LEVELS: Final = range(10)
_ZSTD_LEVELS: Final = range(1, 23)
_SPARE: Final = 2


class RawWriter(Protocol):
    """A file that blobs are written to."""

    def write(self, data: bytes, /) -> object:
        """Write all of `data`."""


@frozen(kw_only=True)
class Codec:
    """A way to compress; equal codecs of equal versions give equal bytes.

    Attributes:
        compression: what it gives.
        engine: the program: isal is fast, but its bytes may depend on the processor.
        level: as the engine counts.
        version: of the engine.
    """

    compression: Compression
    engine: Literal["none", "isal", "zlib", "zstd"]
    level: int
    version: str

    def __str__(self) -> str:
        return f"{self.compression} {self.engine} {self.version} level {self.level}"

    def compressor(self) -> "Callable[[bytes], bytes]":
        """A function from a block to its compressed form; not to be shared between threads."""
        level = self.level
        match self.engine:
            case "none":
                return bytes
            case "isal":
                return lambda block: _gzip(isal_zlib.compress(block, level, _RAW), block)
            case "zlib":
                return lambda block: _gzip(zlib.compress(block, level, _RAW), block)
            case "zstd":
                return zstandard.ZstdCompressor(level=level).compress


def codec(
    compression: Compression = "gzip", *, level: int | None = None, reproducible: bool = False
) -> Codec:
    """The codec for what was asked for.

    Args:
        compression: what to write.
        level: gzip: 0 to 3 is isal, 4 to 9 zlib; zstd: 1 to 22. None for the default: isal 2, zlib
            6 where `reproducible`, zstd 3.
        reproducible: only use engines whose bytes do not depend on the processor.

    Raises:
        UsageError: no such level.
    """
    match compression:
        case "none":
            if level:
                raise UsageError("uncompressed layers have no compression level")
            return Codec(compression="none", engine="none", level=0, version="1")
        case "gzip":
            if level is None:
                level = 6 if reproducible else 2
            if level not in _GZIP_LEVELS:
                raise UsageError(f"gzip has levels 0 to 9, not {level}")
            if level in _ISAL_LEVELS and not reproducible:
                version = _isal_version()
                return Codec(compression="gzip", engine="isal", level=level, version=version)
            version = zlib.ZLIB_RUNTIME_VERSION
            return Codec(compression="gzip", engine="zlib", level=level, version=version)
        case "zstd":
            level = 3 if level is None else level
            if level not in _ZSTD_LEVELS:
                raise UsageError(f"zstd has levels 1 to 22, not {level}")
            version = ".".join(map(str, zstandard.ZSTD_VERSION))
            return Codec(compression="zstd", engine="zstd", level=level, version=version)


def _isal_version() -> str:
    import isal  # noqa: PLC0415 - only for the name of the codec

    return str(isal.__version__)


def _gzip(deflated: bytes, block: bytes) -> bytes:
    """One gzip member: no time, no name, no operating system."""
    return b"".join(
        (_GZIP_HEADER, deflated, struct.pack("<II", isal_zlib.crc32(block), len(block)))
    )


class _Failure:
    """The first error of the pipeline, seen by all its threads."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def set(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error

    def check(self) -> None:
        if self.error is not None:
            raise self.error


class LayerSink:
    """Compresses what is written to it into a blob; a `Sink` for `write_layer`.

    Use it as a context manager: left before `finish`, it stops its threads and drops what is in
        flight.

    Args:
        out: gets the blob; written to from another thread, left open.
        codec: how to compress.
        workers: threads that compress.
    """

    def __init__(self, out: RawWriter, codec: Codec, *, workers: int = 2) -> None:
        self._out = out
        self._codec = codec
        self._failure = _Failure()
        self._pending = bytearray()
        self._result: CompressedLayer | None = None
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="imagekit-compress")
        self._queue: queue.Queue[tuple[bytes, Future[bytes]] | None] = queue.Queue(
            workers + _SPARE
        )
        self._writer = threading.Thread(
            target=self._write_all, name="imagekit-write-blob", daemon=True
        )
        self._open = True
        self._writer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()

    @property
    def result(self) -> CompressedLayer:
        """What was written, after `finish`.

        Raises:
            UsageError: the sink is not finished.
        """
        if self._result is None:
            raise UsageError("the layer is not finished")
        return self._result

    def write(self, data: bytes) -> int:
        """Take the next bytes of the tar; waits while too much is in flight.

        Raises:
            OSError: an earlier block could not be written; or whatever else went wrong with it.
            CancelledError: `cancel` was called.
        """
        self._failure.check()
        if not self._pending and len(data) == BLOCK_SIZE:
            self._submit(bytes(data))
            return len(data)
        self._pending += data
        while len(self._pending) >= BLOCK_SIZE:
            self._submit(bytes(memoryview(self._pending)[:BLOCK_SIZE]))
            del self._pending[:BLOCK_SIZE]
        return len(data)

    def finish(self) -> Digest:
        """Write what is left and wait for it; the diff ID. `result` says the rest.

        Raises:
            OSError: the blob could not be written.
            CancelledError: `cancel` was called.
        """
        self._failure.check()
        if self._pending:
            self._submit(bytes(self._pending))
            self._pending.clear()
        self._stop()
        self._failure.check()
        return self.result.diff_id

    def cancel(self) -> None:
        """Stop, unless finished: drop what is in flight and end the threads."""
        if self._open:
            self._failure.set(CancelledError("writing a layer was cancelled"))
            self._stop()

    def _submit(self, block: bytes) -> None:
        self._queue.put((block, self._pool.submit(self._compress, block)))
        self._failure.check()

    def _stop(self) -> None:
        self._open = False
        self._queue.put(None)
        self._writer.join()
        self._pool.shutdown()

    def _compress(self, block: bytes) -> bytes:
        if self._failure.error is not None:
            return b""
        compress: Callable[[bytes], bytes] | None = getattr(self._local, "compress", None)
        if compress is None:
            compress = self._local.compress = self._codec.compressor()
        return compress(block)

    def _write_all(self) -> None:
        """The writer's thread: take blocks in order until None; after an error, only drain."""
        try:
            self._result = self._write_blocks()
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._failure.set(error)
            while self._queue.get() is not None:
                pass

    def _write_blocks(self) -> CompressedLayer:
        tar_hash, blob_hash = hasher(), hasher()
        tar_size = blob_size = 0
        restarts: list[tuple[int, int]] = []
        out, failure = self._out, self._failure
        while (work := self._queue.get()) is not None or not restarts:
            block, future = work or (b"", self._pool.submit(self._compress, b""))
            tar_hash.update(block)
            packed = future.result()
            failure.check()
            blob_hash.update(packed)
            out.write(packed)
            if not restarts or packed is not block:  # uncompressed, any place is a restart point
                restarts.append((tar_size, blob_size))
            tar_size += len(block)
            blob_size += len(packed)
            if work is None:
                break
        return CompressedLayer(
            compression=self._codec.compression,
            digest=Digest("sha256", blob_hash.hexdigest()),
            size=blob_size,
            diff_id=Digest("sha256", tar_hash.hexdigest()),
            tar_size=tar_size,
            restarts=tuple(restarts),
        )
