import bz2
import contextlib
import gzip
import io
import lzma
import random
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from imagekit.errors import BadArchiveError, DigestMismatchError
from imagekit.layer.compress import BLOCK_SIZE, LayerSink, codec
from imagekit.layer.decompress import (
    AnyCompression,
    BlockReader,
    Decompressor,
    detect_compression,
)
from imagekit.layer.index import CompressedLayer
from imagekit.layer.tar import read_layer
from imagekit.layer.tree import FILE, Entry
from imagekit.oci.digest import Digest
from tests.support.tars import Memory

MIX = b"".join(b"%d is a line of text\n" % (i * i) for i in range(150_000))
SMALL = MIX[:5000]
ZSTD = zstandard.ZstdCompressor(write_checksum=True).compress
FORMS: dict[str, tuple[AnyCompression, bytes]] = {
    "none": ("none", MIX),
    "gzip": ("gzip", gzip.compress(MIX)),
    "gzip-of-two": ("gzip", gzip.compress(MIX[:999]) + gzip.compress(MIX[999:])),
    "gzip-of-empty": ("gzip", gzip.compress(b"") * 3 + gzip.compress(MIX) + gzip.compress(b"")),
    "bzip2": ("bzip2", bz2.compress(MIX[:999]) + bz2.compress(MIX[999:])),
    "xz": ("xz", lzma.compress(MIX[:999]) + bytes(8) + lzma.compress(MIX[999:]) + bytes(4)),
    "zstd": ("zstd", ZSTD(MIX)),
    "zstd-of-two": ("zstd", ZSTD(MIX[:999]) + ZSTD(b"") + ZSTD(MIX[999:])),
    "zstd-skipping": (
        "zstd",
        b"\x50\x2a\x4d\x18\x03\0\0\0abc" + ZSTD(MIX) + b"\x5f\x2a\x4d\x18" + bytes(4),
    ),
    "zstd-19": ("zstd", zstandard.ZstdCompressor(level=19).compress(MIX)),
    "zstd-stream": ("zstd", zstandard.ZstdCompressor(write_content_size=False).compress(MIX)),
}


def inflate(blob: bytes, compression: AnyCompression, **checks: object) -> bytes:
    return Decompressor(io.BytesIO(blob), compression, **checks).read()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_bytes_back(name: str) -> None:
    compression, blob = FORMS[name]
    stream = Decompressor(
        io.BytesIO(blob),
        compression,
        digest=Digest.of(blob),
        size=len(blob),
        diff_id=Digest.of(MIX),
    )
    assert stream.read() == MIX
    assert stream.read(5) == b""
    assert stream.result.diff_id == Digest.of(MIX)
    assert stream.result.digest == Digest.of(blob)
    assert (stream.result.size, stream.result.tar_size) == (len(blob), len(MIX))


@pytest.mark.parametrize("name", FORMS)
def test_the_size_of_reads_does_not_matter(name: str) -> None:
    compression, blob = FORMS[name]
    stream = Decompressor(io.BytesIO(blob), compression)
    got = bytearray()
    sizes = random.Random(7)
    while part := stream.read(sizes.choice([1, 511, 70_000, 3_000_000])):
        got += part
    assert got == MIX


@pytest.mark.parametrize("name", [name for name in FORMS if name != "none"])
def test_compression_is_detected_by_the_first_bytes(name: str) -> None:
    compression, blob = FORMS[name]
    if name != "zstd-skipping":
        assert detect_compression(blob[:6]) == compression
    assert detect_compression(b"") == detect_compression(b"ustar") == "none"


SHORT: dict[AnyCompression, bytes] = {
    "gzip": gzip.compress(SMALL),
    "bzip2": bz2.compress(SMALL),
    "xz": lzma.compress(SMALL),
    "zstd": ZSTD(SMALL),
}


@pytest.mark.parametrize("compression", SHORT)
def test_a_stream_cut_at_any_place_is_an_error(compression: AnyCompression) -> None:
    blob = SHORT[compression]
    for end in range(len(blob)):
        with pytest.raises(BadArchiveError):
            inflate(blob[:end], compression)


@pytest.mark.parametrize("garbage", [b"\0", b"x", b"\0" * 600, b"ustar" * 200], ids=len)
@pytest.mark.parametrize("compression", SHORT)
def test_garbage_after_the_end_is_an_error(compression: AnyCompression, garbage: bytes) -> None:
    if compression == "xz" and garbage == bytes(600):
        assert inflate(SHORT["xz"] + garbage, "xz") == SMALL  # padding of xz
        return
    with pytest.raises(BadArchiveError):
        inflate(SHORT[compression] + garbage, compression)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(sorted(SHORT)), st.data())
def test_damage_is_an_error_or_changes_nothing(
    compression: AnyCompression, data: st.DataObject
) -> None:
    blob = bytearray(SHORT[compression])
    at = data.draw(st.integers(0, len(blob) - 1))
    blob[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(BadArchiveError):
        assert inflate(bytes(blob), compression) == SMALL


def test_digests_and_sizes_are_checked_on_both_sides() -> None:
    blob = SHORT["gzip"]
    wrong = Digest.of(b"other")
    for check in (
        {"digest": wrong},
        {"diff_id": wrong},
        {"size": len(blob) - 1},
        {"size": len(blob) + 1},
    ):
        with pytest.raises(DigestMismatchError):
            inflate(blob, "gzip", **check)
    sha512 = Digest("sha512", "0" * 128)
    with pytest.raises(DigestMismatchError, match="sha512"):
        inflate(blob, "gzip", digest=sha512)


def test_an_unread_stream_has_no_result() -> None:
    stream = Decompressor(io.BytesIO(SHORT["gzip"]), "gzip")
    stream.read(10)
    with pytest.raises(BadArchiveError):
        _ = stream.result


def _bomb(compression: str) -> bytes:
    zeros = bytes(1 << 20)
    match compression:
        case "gzip":
            squeezer = zlib.compressobj(9, zlib.DEFLATED, 31)
            return b"".join([squeezer.compress(zeros) for _ in range(200)]) + squeezer.flush()
        case _:
            frame = zstandard.ZstdCompressor().compressobj()
            return b"".join([frame.compress(zeros) for _ in range(200)]) + frame.flush()


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_bombs_are_stopped(compression: AnyCompression) -> None:
    blob = _bomb(compression)
    with pytest.raises(BadArchiveError, match="uncompressed"):
        Decompressor(io.BytesIO(blob), compression, size_max=1 << 20).read()
    with pytest.raises(BadArchiveError, match="each compressed"):
        Decompressor(io.BytesIO(blob), compression, ratio_max=900).read()
    stream = Decompressor(io.BytesIO(blob), compression, ratio_max=None)
    assert max(len(part) for part in iter(lambda: stream.read(1 << 30), b"")) <= 1 << 20
    assert stream.result.tar_size == 200 << 20


def test_a_window_above_128_mebibytes_is_refused() -> None:
    frame = b"\x28\xb5\x2f\xfd" + bytes([0, 18 << 3]) + b"\x01\0\0"
    assert inflate(frame.replace(bytes([18 << 3]), bytes([17 << 3])), "zstd") == b""
    with pytest.raises(BadArchiveError):
        inflate(frame, "zstd")


def test_a_large_file_passes_through_in_little_memory() -> None:
    class Zeros(Memory):
        def chunks(self, entry: Entry):  # noqa: ANN202 - a generator
            for _ in range(entry.size >> 20):
                yield zeros

    class Discard:
        def write(self, data: bytes, /) -> int:
            return len(data)

    from imagekit.layer.changes import Changes  # noqa: PLC0415 - beside its use
    from imagekit.layer.tar import write_layer  # noqa: PLC0415 - beside its use

    zeros = bytes(1 << 20)
    out = io.BytesIO()
    tracemalloc.start()
    try:
        with LayerSink(out, codec("gzip")) as sink:
            index = write_layer(
                Changes(entries={"big": Entry(FILE, 0o644, size=256 << 20)}), Zeros(), sink
            )
        stream = Decompressor(io.BytesIO(out.getvalue()), "gzip", ratio_max=None)
        again = read_layer(stream, diff_id=index.diff_id)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert again == index
    assert peak < 40 << 20


def squeezed(data: bytes, compression: str) -> tuple[bytes, CompressedLayer]:
    out = io.BytesIO()
    with LayerSink(out, codec(compression)) as sink:  # type: ignore[arg-type]
        sink.write(data)
        sink.finish()
        return out.getvalue(), sink.result


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_any_place_can_be_read(compression: str) -> None:
    blob, layer = squeezed(MIX, compression)
    reader = BlockReader(io.BytesIO(blob), layer)
    places = random.Random(5)
    for _ in range(60):
        at = places.randrange(len(MIX))
        size = min(places.choice([0, 1, 5000, BLOCK_SIZE, 2 * BLOCK_SIZE]), len(MIX) - at)
        assert reader.read(at, size) == MIX[at : at + size]
    assert reader.read(0, len(MIX)) == MIX
    for at, size in ((len(MIX), 1), (-1, 1), (0, len(MIX) + 1)):
        with pytest.raises(BadArchiveError):
            reader.read(at, size)


@pytest.mark.parametrize("name", [name for name in FORMS if name not in {"bzip2", "xz"}])
def test_foreign_blobs_are_read_at_any_place_too(name: str) -> None:
    compression, blob = FORMS[name]
    stream = Decompressor(io.BytesIO(blob), compression)
    stream.read()
    reader = BlockReader(io.BytesIO(blob), stream.result)
    for at in (5, 1000, 2_000_000, 1_500_000, 990, 0):
        assert reader.read(at, 1000) == MIX[at : at + 1000]


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_a_blob_that_shrank_is_an_error(compression: str) -> None:
    blob, layer = squeezed(MIX, compression)
    for end in (0, len(blob) // 2):
        reader = BlockReader(io.BytesIO(blob[:end]), layer)
        with pytest.raises(BadArchiveError):
            reader.read(len(MIX) - 10, 10)


def test_decompressing_notes_the_restart_points_that_compressing_made() -> None:
    for compression in ("none", "gzip", "zstd"):
        blob, layer = squeezed(MIX, compression)
        stream = Decompressor(io.BytesIO(blob), compression)
        stream.read()
        assert stream.result == layer
