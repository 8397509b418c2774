"""What is known of a layer without its bytes, and how that is stored.

A `LayerIndex` names every change and where its bytes are in the uncompressed tar; it depends on
the tar alone, so it is kept under the diff ID and never changes. A `CompressedLayer` adds what
belongs to one compressed form of it: the blob's digest, and the places where decompression can
start.

The stored form is columns, not rows: ints of one kind lie side by side, paths are one string, what
few entries have is JSON. That is what makes tens of thousands of entries decode in milliseconds.
Bytes of another schema version, or damaged ones, raise `LayerError` with the code `bad-index`; the
index can then be made again from the layer.
"""

import base64
import json
import struct
from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from typing import Any, Final, Literal

import zstandard
from attrs import frozen

from imagekit.errors import LayerError, OciError
from imagekit.layer.changes import Changes
from imagekit.layer.tree import FILE, Entry, Where
from imagekit.oci.digest import Digest

Compression = Literal["none", "gzip", "zstd"]

_MAGIC: Final = b"imagekit-layer-index\0"
_VERSION: Final = 1
_LIMIT: Final = 4 << 30
_COLUMNS: Final = 7


@frozen(kw_only=True)
class CompressedLayer:
    """One compressed form of a layer, as a blob.

    Attributes:
        compression: how it is compressed.
        digest: of the blob.
        size: of the blob.
        diff_id: of the tar in it.
        tar_size: size of the tar in it.
        restarts: (offset in the tar, offset in the blob) of each gzip member or zstd frame, in
            order; decompression can start at any of them.
    """

    compression: Compression
    digest: Digest
    size: int
    diff_id: Digest
    tar_size: int
    restarts: tuple[tuple[int, int], ...] = ()


@frozen(kw_only=True)
class LayerIndex:
    """The changes of one layer, and where the bytes of its files are.

    Attributes:
        diff_id: digest of the uncompressed tar.
        size: of the uncompressed tar.
        changes: every file has its digest, and its `where` is (str(diff_id), offset in the tar).
        unresolved: (path, target) of hard links whose target the layer does not carry; whoever
            applies the layer takes the target from below.
        duplicates: how many members were overridden by a later one of the same name.
        blob: the compressed form that was read or written, if one is meant.
    """

    diff_id: Digest
    size: int
    changes: Changes
    unresolved: tuple[tuple[str, str], ...] = ()
    duplicates: int = 0
    blob: CompressedLayer | None = None


def implied_directories(entries: Collection[str], others: Iterable[str] = ()) -> frozenset[str]:
    """The directories that a path of `entries` or `others` needs and that `entries` lacks.

    The root is not among them: it is always there.
    """
    seen = {""}
    for path in chain(entries, others):
        parent = path.rpartition("/")[0]
        while parent not in seen:
            seen.add(parent)
            parent = parent.rpartition("/")[0]
    seen.discard("")
    return frozenset([path for path in seen if path not in entries])


def encode_index(index: LayerIndex) -> bytes:
    """The stored form of an index; equal indexes with equal order of entries give equal bytes."""
    changes = index.changes
    entries = list(changes.entries.values())
    rare = {
        "diff_id": str(index.diff_id),
        "size": index.size,
        "count": len(entries),
        "kinds": "".join([entry.kind for entry in entries]),
        "links": {i: e.link for i, e in enumerate(entries) if e.link},
        "devices": {i: e.device for i, e in enumerate(entries) if e.device != (0, 0)},
        "xattrs": {i: _encode_xattrs(e.xattrs) for i, e in enumerate(entries) if e.xattrs},
        "whiteouts": sorted(changes.whiteouts),
        "opaque": sorted(changes.opaque),
        "implied": sorted(changes.implied),
        "unresolved": index.unresolved,
        "duplicates": index.duplicates,
        "blob": _encode_blob(index.blob),
    }
    columns = (
        [e.mode for e in entries],
        [e.uid for e in entries],
        [e.gid for e in entries],
        [e.mtime for e in entries],
        [e.size for e in entries],
        [e.inode for e in entries],
        [_offset(e) for e in entries],
    )
    packed = [struct.pack(f"<{len(entries)}q", *column) for column in columns]
    parts = (
        json.dumps(rare, separators=(",", ":")).encode("ascii"),
        "\0".join(changes.entries).encode("utf-8", "surrogateescape"),
        b"".join(packed),
        b"".join([e.digest for e in entries if e.kind == FILE]),
    )
    body = b"".join([struct.pack("<Q", len(part)) + part for part in parts])
    squeezed = zstandard.ZstdCompressor(level=1, write_checksum=True).compress(body)
    return _MAGIC + bytes([_VERSION]) + squeezed


def decode_index(data: bytes) -> LayerIndex:
    """The index that `encode_index` made these bytes of.

    Raises:
        LayerError: damaged bytes or another schema version; code `bad-index`.
    """
    start = len(_MAGIC) + 1
    if data[:start] != _MAGIC + bytes([_VERSION]):
        raise _bad("unknown format or version")
    try:
        body = zstandard.ZstdDecompressor().decompress(
            memoryview(data)[start:], max_output_size=_LIMIT
        )
        return _decode_body(body)
    except (zstandard.ZstdError, ValueError, KeyError, TypeError, struct.error, OciError) as error:
        raise _bad(str(error)) from error


def _bad(why: str) -> LayerError:
    return LayerError(
        f"cannot read a stored layer index: {why}"[:300],
        hint="it will be made again from the layer",
        code="bad-index",
    )


def _offset(entry: Entry) -> int:
    if entry.where is None:
        return -1
    if not isinstance(entry.where.at, int):
        raise LayerError("an index holds offsets in its own layer only", code="bad-index")
    return entry.where.at


def _decode_body(body: bytes) -> LayerIndex:
    head, names, columns, digests = _split(body)
    rare: dict[str, Any] = json.loads(bytes(head))
    count: int = rare["count"]
    kinds: str = rare["kinds"]
    source: str = rare["diff_id"]
    step = count * 8
    if len(columns) != step * _COLUMNS or len(kinds) != count:
        raise ValueError("columns of unequal length")
    modes, uids, gids, mtimes, sizes, inodes, offsets = (
        struct.unpack_from(f"<{count}q", columns, i * step) for i in range(_COLUMNS)
    )
    wheres = [Where(source, at) if at >= 0 else None for at in offsets]
    entries = list(
        map(
            Entry._make,
            zip(
                kinds,
                modes,
                uids,
                gids,
                mtimes,
                sizes,
                _scatter(rare["links"], "", count),
                _spread(kinds, bytes(digests)),
                wheres,
                inodes,
                _scatter({i: _decode_xattrs(x) for i, x in rare["xattrs"].items()}, (), count),
                _scatter({i: tuple(d) for i, d in rare["devices"].items()}, (0, 0), count),
                strict=True,
            ),
        )
    )
    paths = bytes(names).decode("utf-8", "surrogateescape").split("\0") if count else []
    return LayerIndex(
        diff_id=Digest.parse(source),
        size=rare["size"],
        changes=Changes(
            entries=dict(zip(paths, entries, strict=True)),
            whiteouts=frozenset(rare["whiteouts"]),
            opaque=frozenset(rare["opaque"]),
            implied=frozenset(rare["implied"]),
        ),
        unresolved=tuple((path, target) for path, target in rare["unresolved"]),
        duplicates=rare["duplicates"],
        blob=_decode_blob(rare["blob"]),
    )


def _split(body: bytes) -> list[memoryview]:
    parts = []
    view = memoryview(body)
    for _ in range(4):
        (size,) = struct.unpack_from("<Q", view)
        if size > len(view) - 8:
            raise ValueError("a part is cut short")
        parts.append(view[8 : 8 + size])
        view = view[8 + size :]
    return parts


def _scatter(values: dict[str, Any], default: object, count: int) -> Sequence[Any]:
    """A column of which few rows are not the default."""
    column = [default] * count
    for row, value in values.items():
        column[int(row)] = value
    return column


def _spread(kinds: str, digests: bytes) -> list[bytes]:
    """The column of digests, from those of the files one after the other."""
    if len(digests) != 32 * kinds.count(FILE):
        raise ValueError("digests are missing")
    own = iter([digests[i : i + 32] for i in range(0, len(digests), 32)])
    return [next(own) if kind == FILE else b"" for kind in kinds]


def _encode_xattrs(xattrs: tuple[tuple[str, bytes], ...]) -> list[list[str]]:
    return [[name, base64.b64encode(value).decode("ascii")] for name, value in xattrs]


def _decode_xattrs(pairs: list[list[str]]) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, base64.b64decode(value, validate=True)) for name, value in pairs)


def _encode_blob(blob: CompressedLayer | None) -> dict[str, Any] | None:
    if blob is None:
        return None
    return {
        "compression": blob.compression,
        "digest": str(blob.digest),
        "size": blob.size,
        "diff_id": str(blob.diff_id),
        "tar_size": blob.tar_size,
        "restarts": blob.restarts,
    }


def _decode_blob(fields: dict[str, Any] | None) -> CompressedLayer | None:
    if fields is None:
        return None
    return CompressedLayer(
        compression=fields["compression"],
        digest=Digest.parse(fields["digest"]),
        size=fields["size"],
        diff_id=Digest.parse(fields["diff_id"]),
        tar_size=fields["tar_size"],
        restarts=tuple((tar, blob) for tar, blob in fields["restarts"]),
    )
