"""Blob -> tar bytes: streamed and checked, or read at any place.

Everything from outside is limited: output per step, window, ratio, size. A stream that ends early
or has anything after its end is an error; gzip members, zstd frames and the streams of xz and
bzip2 may follow each other. Where each of them starts is noted, since decompression can start
there again.

Spec: RFC 1952 (gzip), RFC 8878 (zstd); security requirement L-12.
"""

import bz2
import lzma
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, Literal, Protocol, cast

import zstandard
from isal import igzip_lib

from imagekit.errors import BadArchiveError, DigestMismatchError
from imagekit.layer.index import CompressedLayer, Compression
from imagekit.layer.tar_reader import Stream
from imagekit.oci.digest import Digest, hasher

AnyCompression = Literal["none", "gzip", "bzip2", "xz", "zstd"]

WINDOW_MAX: Final = 128 << 20
RATIO_MAX: Final = 1000
RATIO_FREE: Final = 64 << 20
SIZE_MAX: Final = 64 << 30
DETECT_SIZE: Final = 6
"""How many first bytes `detect_compression` looks at."""

_INPUT: Final = 64 << 10
_OUTPUT: Final = 1 << 20
_SIGNATURES: Final[tuple[tuple[bytes, AnyCompression], ...]] = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
_ZSTD_FRAME: Final = 0xFD2FB528
_ZSTD_SKIPPABLE: Final = range(0x184D2A50, 0x184D2A60)
_ZSTD_BLOCK_MAX: Final = 128 << 10
_ZSTD_RLE: Final = 1
_ZSTD_RESERVED: Final = 3
_RESTARTS_MAX: Final = 1 << 20


def detect_compression(start: bytes) -> AnyCompression:
    """How a file that starts with these bytes is compressed; `none` for anything unknown."""
    for signature, compression in _SIGNATURES:
        if start.startswith(signature):
            return compression
    return "none"


class _Engine(Protocol):
    """What gzip, bzip2 and xz have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


def _gzip_engine() -> _Engine:
    engine: _Engine = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    return engine


def _xz_engine() -> _Engine:
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=WINDOW_MAX + (16 << 20))


_ENGINES: Final[dict[str, Callable[[], _Engine]]] = {
    "gzip": _gzip_engine,
    "bzip2": bz2.BZ2Decompressor,
    "xz": _xz_engine,
}


_CORRUPT: Final = (
    cast("type[Exception]", igzip_lib.IsalError),
    lzma.LZMAError,
    OSError,
    ValueError,
)
"""What engines raise; those of bz2 look like errors of files."""


class _Source:
    """The compressed side: bytes come in, are counted, and what is left over is kept."""

    def __init__(self, stream: Stream, seen: Callable[[bytes], None] | None = None) -> None:
        self._stream = stream
        self._seen = seen
        self._data = b""
        self._at = 0
        self.read_size = 0

    @property
    def offset(self) -> int:
        """How many bytes have been used."""
        return self.read_size - len(self._data) + self._at

    def more(self) -> bytes:
        """What is left over, else the next bytes; none at the end."""
        data = self._data[self._at :] if self._at < len(self._data) else self._read()
        self.give_back(b"")
        return data

    def give_back(self, data: bytes) -> None:
        """Put the end of what `more` gave back."""
        self._data, self._at = data, 0

    def need(self, size: int) -> bool:
        """Have `size` bytes at hand; False if the stream ends before."""
        while len(self._data) - self._at < size:
            data = self._read()
            if not data:
                return False
            self._data = self._data[self._at :] + data
            self._at = 0
        return True

    def take(self, size: int) -> bytes:
        """The next `size` bytes.

        Raises:
            BadArchiveError: the stream ends before.
        """
        if not self.need(size):
            raise _truncated(self.read_size)
        data = self._data[self._at : self._at + size]
        self._at += size
        return data

    def _read(self) -> bytes:
        data = self._stream.read(_INPUT) or b""
        self.read_size += len(data)
        if self._seen is not None:
            self._seen(data)
        return data


def _pieces(
    source: _Source, compression: AnyCompression, start: Callable[[], None]
) -> Iterator[bytes]:
    """The uncompressed bytes in pieces of at most 1 MiB; `start` is called where a part begins."""
    if compression == "none":
        start()
        while data := source.more():
            yield data
    elif compression == "zstd":
        yield from _zstd_pieces(source, start)
    else:
        yield from _engine_pieces(source, compression, start)


def _engine_pieces(
    source: _Source, compression: AnyCompression, start: Callable[[], None]
) -> Iterator[bytes]:
    first = True
    while first or source.need(1):
        if not first and compression == "xz" and _xz_padding(source):
            continue
        first = False
        start()
        engine = _ENGINES[compression]()
        while not engine.eof:
            data = source.more() if engine.needs_input else b""
            if engine.needs_input and not data:
                raise _truncated(source.read_size)
            try:
                piece = engine.decompress(data, _OUTPUT)
            except _CORRUPT as error:
                raise _corrupt(compression, source, error) from error
            if piece:
                yield piece
        source.give_back(engine.unused_data)


def _xz_padding(source: _Source) -> bool:
    """Pass over four zeros between the streams of an xz file."""
    data = source.take(4)
    if data == bytes(4):
        return True
    source.give_back(data + source.more())
    return False


def _zstd_pieces(source: _Source, start: Callable[[], None]) -> Iterator[bytes]:
    """Frame by frame and block by block.

    The library would give out all that a piece of input holds, which may be 30,000 times as much;
    a block of a frame gives 128 KiB at most. Walking them also shows where frames end.
    """
    context = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX)
    first = True
    while first or source.need(1):
        first = False
        start()
        magic = int.from_bytes(source.take(4), "little")
        if magic in _ZSTD_SKIPPABLE:
            left = int.from_bytes(source.take(4), "little")
            while left:
                left -= len(source.take(min(left, _INPUT)))
            continue
        if magic != _ZSTD_FRAME:
            raise _corrupt("zstd", source, "no frame where one should start")
        yield from _zstd_frame(source, context.decompressobj())


def _zstd_frame(source: _Source, frame: "zstandard.ZstdDecompressionObj") -> Iterator[bytes]:
    """One frame, whose magic number has been taken."""
    feed = _ZSTD_FRAME.to_bytes(4, "little") + _zstd_frame_header(source)
    checksum = bool(feed[4] & 0x04)
    last = False
    try:
        while not last:
            header = source.take(3)
            block = int.from_bytes(header, "little")
            last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
            if size > _ZSTD_BLOCK_MAX or kind == _ZSTD_RESERVED:
                raise _corrupt("zstd", source, "bad block")
            feed += header + source.take(1 if kind == _ZSTD_RLE else size)
            if last and checksum:
                feed += source.take(4)
            piece = frame.decompress(feed)
            feed = b""
            if piece:
                yield piece
    except zstandard.ZstdError as error:
        raise _corrupt("zstd", source, error) from error
    if not frame.eof:
        raise _corrupt("zstd", source, "frame without an end")


def _zstd_frame_header(source: _Source) -> bytes:
    """The frame header after the magic number (RFC 8878, 3.1.1.1)."""
    descriptor = source.take(1)
    flags = descriptor[0]
    single = bool(flags & 0x20)
    content = (1 if single else 0, 2, 4, 8)[flags >> 6]
    dictionary = (0, 1, 2, 4)[flags & 3]
    return descriptor + source.take((0 if single else 1) + dictionary + content)


def _truncated(offset: int) -> BadArchiveError:
    return BadArchiveError(f"compressed data cut short after {offset} bytes")


def _corrupt(compression: str, source: _Source, why: object) -> BadArchiveError:
    return BadArchiveError(f"not valid {compression} before byte {source.offset}: {why}"[:300])


class Decompressor:
    """The uncompressed bytes of a blob as a stream, checked on both sides as they pass.

    The last `read`, which returns no bytes, is the one that knows whether all of it was right.

    Args:
        stream: the blob; left open.
        compression: how it is compressed.
        digest: what the blob must be, or None.
        size: how large the blob must be in bytes, or None.
        diff_id: what the uncompressed bytes must be; None to only hash them.
        size_max: how many bytes may come out.
        ratio_max: how many times larger the output may be than the input, after the first 64 MiB;
            None for blobs that were made here.
    """

    def __init__(
        self,
        stream: Stream,
        compression: AnyCompression,
        *,
        digest: Digest | None = None,
        size: int | None = None,
        diff_id: Digest | None = None,
        size_max: int = SIZE_MAX,
        ratio_max: int | None = RATIO_MAX,
    ) -> None:
        self._compression = compression
        self._want = digest, size, diff_id
        self._size_max = size_max
        self._ratio_max = ratio_max
        self._blob_hash = hasher(digest.algorithm if digest else "sha256")
        self._tar_hash = hasher(diff_id.algorithm if diff_id else "sha256")
        self._source = _Source(stream, self._take_blob)
        self._pieces = _pieces(self._source, compression, self._note)
        self._rest = memoryview(b"")
        self._done = False
        self._tar_size = 0
        self._restarts: list[tuple[int, int]] = []

    @property
    def result(self) -> CompressedLayer:
        """What was read, after the end; bzip2 and xz count as `none`, since no layer is that.

        Raises:
            BadArchiveError: the end has not been reached.
        """
        if not self._done:
            raise BadArchiveError("the layer was not read to its end")
        known: Compression = self._compression if self._compression in {"gzip", "zstd"} else "none"
        return CompressedLayer(
            compression=known,
            digest=Digest(self._blob_hash.name, self._blob_hash.hexdigest()),
            size=self._source.read_size,
            diff_id=Digest(self._tar_hash.name, self._tar_hash.hexdigest()),
            tar_size=self._tar_size,
            restarts=tuple(self._restarts),
        )

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, at least one unless at the end; all that is left for -1.

        Raises:
            BadArchiveError: damaged, cut short, followed by garbage, or past a limit.
            DigestMismatchError: not the bytes that were asked for.
        """
        if size < 0:
            parts = []
            while part := self.read(_OUTPUT):
                parts.append(part)
            return b"".join(parts)
        if not self._rest and size:
            piece = next(self._pieces, b"")
            if not piece:
                self._finish()
                return b""
            self._take_tar(piece)
            if len(piece) <= size:
                return piece
            self._rest = memoryview(piece)
        data = bytes(self._rest[:size])
        self._rest = self._rest[size:]
        return data

    def _note(self) -> None:
        if len(self._restarts) < _RESTARTS_MAX:
            self._restarts.append((self._tar_size, self._source.offset))

    def _take_blob(self, data: bytes) -> None:
        self._blob_hash.update(data)
        want = self._want[1]
        if want is not None and self._source.read_size > want:
            raise DigestMismatchError(f"want a blob of {want} bytes, got more")

    def _take_tar(self, piece: bytes) -> None:
        self._tar_hash.update(piece)
        self._tar_size += len(piece)
        if self._tar_size > self._size_max:
            raise BadArchiveError(f"more than {self._size_max} bytes uncompressed")
        ratio = self._ratio_max
        if (
            ratio is not None
            and self._tar_size > RATIO_FREE
            and self._tar_size > ratio * self._source.read_size
        ):
            raise BadArchiveError(
                f"more than {ratio} bytes for each compressed one",
                hint="raise the limit if you trust where it comes from",
            )

    def _finish(self) -> None:
        if self._done:
            return
        self._done = True
        digest, size, diff_id = self._want
        got = self.result
        for name, want, have in (
            ("a blob", digest, got.digest),
            ("a blob", size, got.size),
            ("uncompressed", diff_id, got.diff_id),
        ):
            if want is not None and want != have:
                raise DigestMismatchError(
                    f"{name}: want {want}, got {have} after {got.size} bytes"
                )


class BlockReader:
    """Reads at any place of the tar in a blob that is at hand, whose bytes were checked before.

    Reading forward goes on where the last read ended; elsewhere starts at the nearest restart
    point before. With the blocks that imagekit writes that costs 1 MiB at most; a layer that is a
    single gzip member must be read from its start. Not to be shared between threads.

    Args:
        blob: the blob, seekable; left open.
        layer: how it is compressed, and its restart points.
    """

    def __init__(self, blob: BinaryIO, layer: CompressedLayer) -> None:
        self._blob = blob
        self._layer = layer
        self._starts = [tar for tar, _ in layer.restarts] or [0]
        self._pieces: Iterator[bytes] | None = None
        # The piece at hand, where it starts in the tar, and the one before it.
        self._piece = b""
        self._at = 0
        self._before = b""

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes at `offset` of the tar.

        Raises:
            BadArchiveError: the tar ends before, or the blob is damaged.
        """
        return b"".join(self.chunks(offset, size))

    def chunks(self, offset: int, size: int) -> Iterator[bytes]:
        """The same in pieces of at most 1 MiB."""
        if offset < 0 or size < 0 or offset + size > self._layer.tar_size:
            raise BadArchiveError(f"{size} bytes at {offset}: outside the layer")
        while size:
            if self._layer.compression == "none":
                self._blob.seek(offset)
                piece, start = self._blob.read(min(size, _OUTPUT)), offset
                if not piece:
                    raise BadArchiveError("the blob is shorter than it was")
            else:
                piece, start = self._piece_at(offset)
            part = piece[offset - start : offset - start + size]
            offset += len(part)
            size -= len(part)
            yield part

    def _piece_at(self, offset: int) -> tuple[bytes, int]:
        """The piece that holds the byte at `offset`, and where that piece starts."""
        if self._at - len(self._before) <= offset < self._at:
            return self._before, self._at - len(self._before)
        row = bisect_right(self._starts, offset) - 1
        end = self._at + len(self._piece)
        behind = offset < self._at
        if self._pieces is None or behind or (offset >= end and self._starts[row] > end):
            self._restart(row)
        while offset >= self._at + len(self._piece):
            self._next()
        return self._piece, self._at

    def _restart(self, row: int) -> None:
        tar, blob = self._layer.restarts[row] if self._layer.restarts else (0, 0)
        self._blob.seek(blob)
        self._pieces = _pieces(_Source(self._blob), self._layer.compression, _ignore)
        self._piece = self._before = b""
        self._at = tar

    def _next(self) -> None:
        piece = next(self._pieces, b"") if self._pieces else b""
        if not piece:
            raise BadArchiveError("the blob is shorter than it was")
        self._at += len(self._piece)
        self._before, self._piece = self._piece, piece


def _ignore() -> None:
    """Restart points are known already."""
