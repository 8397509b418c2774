import io

import pytest
from attrs import evolve
from hypothesis import given, settings

from imagekit.errors import LayerError
from imagekit.layer.changes import Changes
from imagekit.layer.index import (
    CompressedLayer,
    LayerIndex,
    decode_index,
    encode_index,
    implied_directories,
)
from imagekit.layer.tar import read_layer
from imagekit.layer.tree import FILE, Entry, Where
from imagekit.oci.digest import Digest
from tests.support.strategies_layer import changes
from tests.support.tars import END, Memory, header, layer_bytes

BLOB = CompressedLayer(
    compression="gzip",
    digest=Digest.of(b"blob"),
    size=4,
    diff_id=Digest.of(b"tar"),
    tar_size=1 << 40,
    restarts=((0, 0), (1 << 20, 3)),
)
EMPTY = LayerIndex(diff_id=Digest.of(b""), size=1024, changes=Changes())


@settings(deadline=None, max_examples=150)
@given(changes())
def test_decoding_gives_back_what_was_encoded(layer: tuple[Changes, Memory]) -> None:
    _, index = layer_bytes(*layer)
    again = decode_index(encode_index(index))
    assert again == index
    assert list(again.changes.entries) == list(index.changes.entries)
    assert encode_index(again) == encode_index(index)


def test_links_duplicates_and_restart_points_are_kept() -> None:
    data = header(b"a", kind=b"1", link=b"low") + header(b"b") * 2 + END
    index = evolve(read_layer(io.BytesIO(data)), blob=BLOB)
    assert index.unresolved
    assert index.duplicates == 1
    assert decode_index(encode_index(index)) == index
    assert decode_index(encode_index(EMPTY)) == EMPTY


def test_damaged_or_foreign_bytes_are_refused() -> None:
    whole = encode_index(evolve(EMPTY, blob=BLOB))
    later = bytearray(whole)
    later[len(b"imagekit-layer-index\0")] += 1
    for data in (b"", b"x", whole[:40], whole[:-1], bytes(later), whole[:-3] + b"xyz"):
        with pytest.raises(LayerError) as caught:
            decode_index(data)
        assert caught.value.code == "bad-index"


def test_contents_outside_the_layer_cannot_be_encoded() -> None:
    entries = {"a": Entry(FILE, 0, where=Where("context", "a"))}
    with pytest.raises(LayerError):
        encode_index(evolve(EMPTY, changes=Changes(entries=entries)))


def test_implied_directories_are_the_parents_without_an_entry() -> None:
    entries = {"a/b/c": 1, "a": 1, "d": 1}
    assert implied_directories(entries, ["x/y"]) == {"a/b", "x"}  # type: ignore[arg-type]
