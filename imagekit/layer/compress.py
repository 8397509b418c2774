"""Tar bytes -> blob: compressed in independent blocks, hashed on both sides, in bounded memory.

A blob is a row of blocks of 1 MiB of tar, each a gzip member or zstd frame of its own. So the
bytes do not depend on how the tar arrived in pieces, any block can be read alone, and blocks are
compressed side by side. Concatenated members and frames are what every reader of gzip and zstd
accepts; the price is under half a per cent of size.

`LayerSink` is the pipeline: the caller's thread writes the tar, workers compress blocks, hash the
blob and write it; the hash of the tar falls to whoever has time. All of that releases the GIL, and
there are no more threads and hand-overs than that, since each costs a wait for the GIL. No more
than a fixed number of blocks is in flight.

Spec: RFC 1952 (gzip), RFC 8878 (zstd).
"""

import queue
import struct
import threading
import zlib
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Literal, Protocol, Self

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
_SPARE: Final = 3
_UNHASHED: Final = 8
_FLOOD: Final = 1 << 20
"""More room than anyone can be waiting for."""


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
                import zstandard  # noqa: PLC0415 - 10 ms that gzip does not need

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
            import zstandard  # noqa: PLC0415 - 10 ms that gzip does not need

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


class LayerSink:
    """Compresses what is written to it into a blob; a `Sink` for `write_layer`.

    Use it as a context manager: left before `finish`, it stops its threads and drops what is in
    flight. One thread writes to it at a time.

    Args:
        out: gets the blob, in order, from other threads; left open.
        codec: how to compress.
        workers: threads that compress; None for one with isal, which keeps up with a reader of
            files, and two with slower engines.
    """

    def __init__(self, out: RawWriter, codec: Codec, *, workers: int | None = None) -> None:
        if workers is None:
            workers = 1 if codec.engine in {"none", "isal"} else 2
        self._codec = codec
        self._pending = bytearray()
        self._tar_hash = _TarHash()
        self._tar_size = 0
        self._count = 0
        self._result: CompressedLayer | None = None
        self._blob = _BlobWriter(out, workers + _SPARE)
        self._queue: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"imagekit-compress-{n}", daemon=True)
            for n in range(workers)
        ]
        for thread in self._threads:
            thread.start()

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
        self._blob.check()
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
        if self._pending or not self._count:
            self._submit(bytes(self._pending))
            self._pending.clear()
        self._stop()
        self._blob.check()
        diff_id = self._tar_hash.digest()
        starts = self._blob.starts
        self._result = CompressedLayer(
            compression=self._codec.compression,
            digest=Digest("sha256", self._blob.hash.hexdigest()),
            size=self._blob.size,
            diff_id=diff_id,
            tar_size=self._tar_size,
            # Uncompressed, any place is a restart point.
            restarts=((0, 0),)
            if self._codec.engine == "none"
            else tuple([(row * BLOCK_SIZE, start) for row, start in enumerate(starts)]),
        )
        return diff_id

    def cancel(self) -> None:
        """Stop, unless finished: drop what is in flight and end the threads."""
        if self._result is None:
            self._blob.fail(CancelledError("writing a layer was cancelled"))
            self._stop()

    def _submit(self, block: bytes) -> None:
        self._blob.reserve()
        self._queue.put((self._count, block))
        self._count += 1
        self._tar_size += len(block)
        self._tar_hash.add(block)

    def _stop(self) -> None:
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _work(self) -> None:
        """A worker's thread: compress blocks until None; after a failure, only drain."""
        compress = self._codec.compressor()
        while (work := self._next_work()) is not None:
            try:
                if not self._blob.failed:
                    self._blob.deliver(work[0], compress(work[1]))
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                self._blob.fail(error)

    def _next_work(self) -> tuple[int, bytes] | None:
        """The next block; while there is none, help to hash the tar."""
        while True:
            try:
                return self._queue.get(block=False)
            except queue.Empty:
                if not self._tar_hash.help():
                    return self._queue.get()


class _TarHash:
    """The digest of the tar, computed by whoever has time.

    Blocks are hashed in order: by workers that have nothing to compress, else by the caller, once
    too many wait. So neither side waits for the other, whichever is the slower one.
    """

    def __init__(self) -> None:
        self._hash = hasher()
        self._waiting: deque[bytes] = deque()
        self._turn = threading.Lock()

    def add(self, block: bytes) -> None:
        """Take the next block."""
        self._waiting.append(block)
        while len(self._waiting) > _UNHASHED:
            with self._turn:
                self._hash_one()

    def help(self) -> bool:
        """Hash one block; False if none waits or another thread is at it."""
        if not self._turn.acquire(blocking=False):
            return False
        try:
            return self._hash_one()
        finally:
            self._turn.release()

    def digest(self) -> Digest:
        """The digest of all blocks."""
        with self._turn:
            while self._hash_one():
                pass
        return Digest("sha256", self._hash.hexdigest())

    def _hash_one(self) -> bool:
        if not self._waiting:
            return False
        self._hash.update(self._waiting.popleft())
        return True


class _BlobWriter:
    """Puts compressed blocks in order, hashes and writes them; at most `room` are in flight.

    There is no thread for it: whoever delivers the block whose turn it is writes it, and those
    after it that are ready.
    """

    def __init__(self, out: RawWriter, room: int) -> None:
        self.hash = hasher()
        self.size = 0
        self.starts: list[int] = []
        self._out = out
        self._room = threading.Semaphore(room)
        self._ready: dict[int, bytes] = {}
        self._turn = threading.Lock()
        self._error: BaseException | None = None

    @property
    def failed(self) -> bool:
        return self._error is not None

    def check(self) -> None:
        """Raise what went wrong first, if anything."""
        if self._error is not None:
            raise self._error

    def fail(self, error: BaseException) -> None:
        """Stop writing because of an error; only the first one is kept."""
        if self._error is None:
            self._error = error
        self._room.release(_FLOOD)

    def reserve(self) -> None:
        """Wait for room for one more block."""
        self.check()
        self._room.acquire()
        self.check()

    def deliver(self, row: int, packed: bytes) -> None:
        """Take one compressed block; write what is ready."""
        self._ready[row] = packed
        # Whoever has the turn may look for this block just before it is there: then look again.
        while len(self.starts) in self._ready and self._turn.acquire(blocking=False):
            try:
                while (block := self._ready.pop(len(self.starts), None)) is not None:
                    self.check()
                    self.hash.update(block)
                    self._out.write(block)
                    self.starts.append(self.size)
                    self.size += len(block)
                    self._room.release()
            finally:
                self._turn.release()
