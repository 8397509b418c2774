"""Tars for tests: written by hand, header by header, independent of the package's own writer."""

import hashlib
import io
from collections.abc import Iterator, Mapping

from imagekit.layer.changes import Changes
from imagekit.layer.index import LayerIndex
from imagekit.layer.tar import write_layer
from imagekit.layer.tree import FILE, Entry, Where
from imagekit.oci.digest import Digest

END = bytes(1024)


def header(name: bytes = b"file", *, summed: bool = True, **fields: bytes | int) -> bytes:
    """One header block; ints are written in octal, bytes as they stand."""
    layout = {
        "name": (0, 100),
        "mode": (100, 8),
        "uid": (108, 8),
        "gid": (116, 8),
        "size": (124, 12),
        "mtime": (136, 12),
        "checksum": (148, 8),
        "kind": (156, 1),
        "link": (157, 100),
        "magic": (257, 8),
        "major": (329, 8),
        "minor": (337, 8),
        "prefix": (345, 155),
    }
    defaults: dict[str, bytes | int] = {
        "mode": 0o644,
        "uid": 0,
        "gid": 0,
        "size": 0,
        "mtime": 0,
        "kind": b"0",
        "magic": b"ustar\x0000",
        "major": 0,
        "minor": 0,
    }
    block = bytearray(512)
    for field, value in {**defaults, "name": name, **fields}.items():
        start, size = layout[field]
        raw = b"%0*o\0" % (size - 1, value) if isinstance(value, int) else value
        block[start : start + len(raw)] = raw
    if summed and "checksum" not in fields:
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def member(name: bytes = b"file", content: bytes = b"", **fields: bytes | int) -> bytes:
    """A header and its content, padded."""
    fields.setdefault("size", len(content))
    return header(name, **fields) + content + bytes(-len(content) % 512)


def pax(records: Mapping[str, bytes | str], kind: bytes = b"x") -> bytes:
    """A pax header."""
    body = b""
    for key, value in records.items():
        raw = value.encode() if isinstance(value, str) else value
        rest = b" " + key.encode() + b"=" + raw + b"\n"
        size = len(rest)
        while size != len(rest) + len(str(size)):
            size = len(rest) + len(str(size))
        body += str(size).encode() + rest
    return member(b"PaxHeaders/x", body, kind=kind)


def gnu_long(name: bytes, kind: bytes = b"L") -> bytes:
    """A GNU long name (L) or long link (K)."""
    return member(b"././@LongLink", name + b"\0", kind=kind)


class Memory:
    """`Contents` and `Sink` in memory; files are found by `where`."""

    def __init__(self, contents: Mapping[str, bytes] | None = None) -> None:
        self.contents = dict(contents or {})
        self.written = io.BytesIO()
        self.blocks: list[int] = []

    def file(self, content: bytes, mode: int = 0o644, **more: int) -> Entry:
        """An entry of a file with this content."""
        key = hashlib.sha256(content).hexdigest()
        self.contents[key] = content
        return Entry(FILE, mode, size=len(content), where=Where("memory", key), **more)

    def read_small(self, entry: Entry) -> bytes | None:
        """See `Contents`."""
        return b"".join(self.chunks(entry))

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """See `Contents`."""
        content = self.contents[str(entry.where.at)] if entry.where else b""
        for at in range(0, len(content), 70_000):
            yield content[at : at + 70_000]

    def write(self, data: bytes) -> None:
        """See `Sink`."""
        self.blocks.append(len(data))
        self.written.write(data)

    def finish(self) -> Digest:
        """See `Sink`."""
        return Digest.of(self.written.getvalue())


def layer_bytes(
    changes: Changes, memory: Memory, *, epoch: int | None = None
) -> tuple[bytes, LayerIndex]:
    """The tar of some changes, and its index."""
    memory.written = io.BytesIO()
    index = write_layer(changes, memory, memory, epoch=epoch)
    return memory.written.getvalue(), index
