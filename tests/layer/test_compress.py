import gzip
import io
import subprocess
import threading
import zlib
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from imagekit.errors import CancelledError, UsageError
from imagekit.layer.compress import BLOCK_SIZE, Codec, LayerSink, codec
from imagekit.layer.index import CompressedLayer
from imagekit.oci.digest import Digest
from tests.support.tools import need

CODECS = {
    "none": codec("none"),
    "gzip": codec("gzip"),
    "gzip-0": codec("gzip", level=0),
    "gzip-4": codec("gzip", level=4),
    "gzip-reproducible": codec("gzip", reproducible=True),
    "zstd": codec("zstd"),
    "zstd-1": codec("zstd", level=1),
}
MIX = b"".join(b"%d is a line of text\n" % (i * i) for i in range(100_000))


def squeeze(
    data: bytes, chosen: Codec, piece: int = BLOCK_SIZE, **more: int
) -> tuple[bytes, CompressedLayer]:
    out = io.BytesIO()
    with LayerSink(out, chosen, **more) as sink:
        for at in range(0, len(data), piece):
            sink.write(data[at : at + piece])
        sink.finish()
        return out.getvalue(), sink.result


@pytest.mark.parametrize("chosen", CODECS.values(), ids=CODECS)
def test_the_result_names_what_was_written(chosen: Codec) -> None:
    blob, result = squeeze(MIX, chosen)
    assert result.digest == Digest.of(blob)
    assert result.size == len(blob)
    assert result.diff_id == Digest.of(MIX)
    assert result.tar_size == len(MIX)
    assert result.compression == chosen.compression


@pytest.mark.parametrize("chosen", CODECS.values(), ids=CODECS)
def test_bytes_do_not_depend_on_pieces_or_workers(chosen: Codec) -> None:
    want = squeeze(MIX, chosen)
    assert squeeze(MIX, chosen, 99_991) == want
    assert squeeze(MIX, chosen, len(MIX)) == want
    assert squeeze(MIX, chosen, workers=1) == want
    assert squeeze(MIX, chosen, workers=5) == want


@pytest.mark.parametrize("data", [b"", b"x", bytes(BLOCK_SIZE), MIX], ids=["0", "1", "1M", "mix"])
@pytest.mark.parametrize("chosen", CODECS.values(), ids=CODECS)
def test_other_programs_read_it(chosen: Codec, data: bytes) -> None:
    blob, _ = squeeze(data, chosen)
    match chosen.compression:
        case "none":
            assert blob == data
        case "gzip":
            need("gzip")
            assert gzip.decompress(blob) == data
            done = subprocess.run(["gzip", "-dc"], input=blob, capture_output=True, check=True)
            assert done.stdout == data
        case "zstd":
            with zstandard.ZstdDecompressor().stream_reader(blob, read_across_frames=True) as got:
                assert got.read() == data


def test_every_restart_point_starts_a_member_of_one_block() -> None:
    blob, result = squeeze(MIX, codec("gzip"))
    ends = [at for _, at in result.restarts[1:]] + [len(blob)]
    for (tar, start), end in zip(result.restarts, ends, strict=True):
        assert blob[start : start + 10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
        assert gzip.decompress(blob[start:end]) == MIX[tar : tar + BLOCK_SIZE]


def test_reproducible_gzip_is_that_of_zlib() -> None:
    chosen = codec("gzip", reproducible=True)
    assert (chosen.engine, chosen.level) == ("zlib", 6)
    assert codec("gzip", level=1, reproducible=True).engine == "zlib"
    blob, _ = squeeze(MIX[:1000], chosen)
    assert blob[10:-8] == zlib.compress(MIX[:1000], 6, -15)
    assert str(chosen).startswith("gzip zlib 1.")


@pytest.mark.parametrize(
    ("compression", "level"), [("gzip", 10), ("gzip", -1), ("zstd", 0), ("zstd", 23), ("none", 1)]
)
def test_unknown_levels_are_refused(compression: Any, level: int) -> None:
    with pytest.raises(UsageError):
        codec(compression, level=level)


class Full:
    """A file on a full disk."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, data: bytes, /) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(28, "No space left on device")
        return len(data)


@pytest.mark.parametrize("room", [0, 100_000])
def test_an_error_of_the_file_reaches_the_writer_within_a_few_blocks(room: int) -> None:
    before = threading.active_count()
    taken: list[int] = []

    def write_much() -> None:
        with LayerSink(Full(room), codec("none")) as sink:
            taken.extend(sink.write(bytes(BLOCK_SIZE)) for _ in range(100))

    with pytest.raises(OSError, match="No space"):
        write_much()
    assert len(taken) < 20
    assert threading.active_count() == before


def test_an_error_in_the_last_block_is_raised_by_finish() -> None:
    with LayerSink(Full(0), codec("gzip")) as sink:
        sink.write(b"x")
        with pytest.raises(OSError, match="No space"):
            sink.finish()
        with pytest.raises(UsageError):
            _ = sink.result


def test_leaving_early_stops_the_threads_and_writing_after_it_fails() -> None:
    before = threading.active_count()
    with LayerSink(io.BytesIO(), codec("gzip")) as sink:
        sink.write(MIX)
    assert threading.active_count() == before
    with pytest.raises(CancelledError):
        sink.write(b"x")
    with pytest.raises(CancelledError):
        sink.finish()


@settings(deadline=None, max_examples=15)
@given(st.lists(st.binary(max_size=50).map(lambda part: part * 20_000), max_size=6))
def test_any_pieces_come_out_in_order(pieces: list[bytes]) -> None:
    out = io.BytesIO()
    with LayerSink(out, codec("gzip")) as sink:
        for piece in pieces:
            sink.write(piece)
        assert sink.finish() == Digest.of(b"".join(pieces))
    assert gzip.decompress(out.getvalue()) == b"".join(pieces)
