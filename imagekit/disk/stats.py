"""The stat cache: which content a file had when it looked like this.

As git's index does, an unchanged (size, mtime, ctime, inode, mode) is taken for unchanged content
and unchanged extended attributes, since every change of either sets the ctime. The exception is a
file that changed in the very moment it was read (a racy timestamp): what is not older than the
moment of reading is not kept, and is read again next time.

The stored form is one compact value a context: fixed-size rows and one string of names.
"""

import base64
import json
import struct
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

_MAGIC: Final = b"imagekit-stat-cache\0\x01"
_ROW: Final = struct.Struct("<QqqQI32s")
_SLACK_NS: Final = 20_000_000
"""The kernel stamps files with the time of its last tick, up to 10 ms ago."""
_COARSE_SLACK_NS: Final = 2_100_000_000
"""For file systems that keep whole seconds, or two of them."""

Xattrs = tuple[tuple[str, bytes], ...]


class Known(NamedTuple):
    """What a file looked like, and what was in it; the first five are compared.

    `digest` is empty for what has no content or has not been read.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    mode: int
    digest: bytes = b""
    xattrs: Xattrs = ()


class StatCache(Protocol):
    """Where stat caches are kept; the store's database is one."""

    def load(self, key: str) -> bytes | None:
        """What was saved last under the key, or None."""

    def save(self, key: str, data: bytes) -> None:
        """Keep this instead."""


class NoStatCache:
    """Remembers nothing."""

    def load(self, key: str) -> bytes | None:  # noqa: ARG002 - the protocol
        """See `StatCache`."""
        return None

    def save(self, key: str, data: bytes) -> None:
        """See `StatCache`."""


def now_ns() -> int:
    """The time by which racy timestamps are told; take it before the first look at a file."""
    return time.time_ns()


def is_racy(known: Known, looked_ns: int) -> bool:
    """Whether a file may have changed after `looked_ns` without looking different now."""
    latest = max(known.ctime_ns, known.mtime_ns)
    slack = _COARSE_SLACK_NS if known.ctime_ns % 1_000_000_000 == 0 else _SLACK_NS
    return latest + slack >= looked_ns


def encode(known: Mapping[str, Known]) -> bytes:
    """The stored form."""
    rows = [
        _ROW.pack(k.size, k.mtime_ns, k.ctime_ns, k.inode, k.mode, k.digest)
        for k in known.values()
    ]
    rare = {
        path: [[name, base64.b64encode(value).decode("ascii")] for name, value in k.xattrs]
        for path, k in known.items()
        if k.xattrs
    }
    extra = json.dumps(rare).encode("ascii")
    names = "\0".join(known).encode("utf-8", "surrogateescape")
    head = struct.pack("<QQ", len(rows), len(extra))
    return b"".join([_MAGIC, head, extra, *rows, names])


def decode(data: bytes | None) -> dict[str, Known]:
    """What was encoded; nothing for bytes of another version or damaged ones."""
    if data is None or not data.startswith(_MAGIC):
        return {}
    try:
        return _decode(data)
    except (ValueError, struct.error, TypeError):
        return {}  # a cache: what it cannot tell is read from the disk


def _decode(data: bytes) -> dict[str, Known]:
    at = len(_MAGIC)
    count, extra_size = struct.unpack_from("<QQ", data, at)
    at += 16
    rare: dict[str, Any] = json.loads(data[at : at + extra_size])
    at += extra_size
    end = at + count * _ROW.size
    names = data[end:].decode("utf-8", "surrogateescape").split("\0") if count else []
    new = partial(tuple.__new__, Known)  # half the time of Known(*row), 20,000 times
    rows = map(new, [(*r, ()) for r in _ROW.iter_unpack(memoryview(data)[at:end])])
    known = dict(zip(names, rows, strict=True))
    for path, pairs in rare.items():
        xattrs = tuple((name, base64.b64decode(value)) for name, value in pairs)
        known[path] = known[path]._replace(xattrs=xattrs)
    return known
