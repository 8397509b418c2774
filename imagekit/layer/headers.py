"""The bytes of tar headers: ustar blocks and pax records, encoded and decoded.

Encoding is fixed: equal arguments give equal bytes. Decoding is strict where archives could be
read in two ways, since two readers that disagree on where a member ends are how content is
smuggled: numbers are octal or base-256 and nothing else, pax lengths are exact, checksums must
match.

Spec: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Extended Header".
"""

import re
import zlib
from collections.abc import Iterable
from typing import Final

from imagekit.errors import BadArchiveError, LayerError

BLOCK: Final = 512
ZERO_BLOCK: Final = bytes(BLOCK)
MAX_OCTAL_8: Final = 0o7777777
MAX_OCTAL_12: Final = 0o77777777777
MTIME_MAX: Final = MAX_OCTAL_12
MTIME_MIN: Final = -MTIME_MAX - 1
NAME_SIZE: Final = 100
PREFIX_SIZE: Final = 155

_MAGIC: Final = b"ustar\00000"
_BLANK_SUM: Final = 8 * ord(" ")
_NO_LINK: Final = bytes(100)
_TAIL: Final = _MAGIC + bytes(32 + 32)
_NO_DEVICE: Final = b"0000000\0" * 2
_NO_PREFIX: Final = bytes(PREFIX_SIZE + 12)
_OCTAL: Final = re.compile(rb" *([0-7]*)[ \0]*")
_LENGTH: Final = re.compile(rb"([1-9][0-9]{0,9}) ")

# What ends a header without link, device and prefix, by type, and the sum of its bytes.
_ENDS: Final = {
    kind: (end, sum(end) + _BLANK_SUM)
    for kind in (b"0", b"5", b"6")
    for end in [kind + _NO_LINK + _TAIL + _NO_DEVICE + _NO_PREFIX]
}


def plain_header(name: bytes, owner: bytes, size: int, mtime: int, kind: bytes) -> bytes:
    """The header of a file, directory or fifo that needs nothing but the first fields.

    Args:
        name: ASCII, at most 100 bytes.
        owner: see `owner_fields`.
        size: 0 to 8 GiB - 1.
        mtime: 0 to `MTIME_MAX`.
        kind: one of b"0", b"5", b"6".
    """
    front = b"%b%b%011o\0%011o\0" % (name.ljust(NAME_SIZE, b"\0"), owner, size, mtime)
    end, end_sum = _ENDS[kind]
    # The low half of Adler-32 is one more than the sum of the bytes, modulo 65521; 148 bytes of
    # ASCII stay below that. It is ten times as fast as sum().
    return b"%b%06o\0 %b" % (front, (zlib.adler32(front) & 0xFFFF) - 1 + end_sum, end)


def owner_fields(mode: int, uid: int, gid: int) -> bytes:
    """The mode, uid and gid fields; an id too large for its field is 0 there."""
    uid = uid if uid <= MAX_OCTAL_8 else 0
    gid = gid if gid <= MAX_OCTAL_8 else 0
    return b"%07o\0%07o\0%07o\0" % (mode & 0o7777, uid, gid)


def full_header(
    name: bytes,
    owner: bytes,
    size: int,
    mtime: int,
    kind: bytes,
    *,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    prefix: bytes = b"",
) -> bytes:
    """Any header whose fields fit.

    Raises:
        LayerError: device numbers above 2,097,151.
    """
    if max(device) > MAX_OCTAL_8 or min(device) < 0:
        raise LayerError(f"device number out of range: {device[0]}:{device[1]}")
    front = b"%b%b%011o\0%011o\0" % (name.ljust(NAME_SIZE, b"\0"), owner, size, mtime)
    end = b"%b%b%b%07o\0%07o\0%b%b" % (
        kind,
        link.ljust(100, b"\0"),
        _TAIL,
        *device,
        prefix.ljust(PREFIX_SIZE, b"\0"),
        bytes(12),
    )
    return b"%b%06o\0 %b" % (front, sum(front) + sum(end) + _BLANK_SUM, end)


def split_name(name: bytes) -> tuple[bytes, bytes] | None:
    """A long name as (prefix, name), or None where it does not fit the two fields."""
    if len(name) <= NAME_SIZE:
        return b"", name
    cut = name.rfind(b"/", 0, min(PREFIX_SIZE + 1, len(name) - 1))
    if cut <= 0 or len(name) - cut - 1 > NAME_SIZE:
        return None
    return name[:cut], name[cut + 1 :]


def pax_header(name: bytes, records: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A whole pax extended header: its block, the records in order, and padding."""
    body = b"".join([pax_record(key, value) for key, value in records])
    base = ascii_name(name.rstrip(b"/").rpartition(b"/")[2], 80)
    block = plain_header(b"PaxHeaders.0/" + base, _PAX_OWNER, len(body), 0, b"0")
    block = _retype(block, b"x")
    return block + body + bytes(-len(body) % BLOCK)


_PAX_OWNER: Final = owner_fields(0o644, 0, 0)


def _retype(block: bytes, kind: bytes) -> bytes:
    """A plain file's header as one of another type."""
    total = int(block[148:154], 8) + kind[0] - block[156]
    return b"%b%06o\0 %b%b" % (block[:148], total, kind, block[157:])


def pax_record(key: bytes, value: bytes) -> bytes:
    """`length key=value`, where the length counts itself."""
    bare = len(key) + len(value) + 3
    size = bare + len(str(bare))
    if len(str(size)) > len(str(bare)):
        size += 1
    return b"%d %b=%b\n" % (size, key, value)


def ascii_name(name: bytes, size: int = NAME_SIZE) -> bytes:
    """What the name field holds where a pax record has the real name."""
    return bytes(byte if 0x20 < byte < 0x7F else 0x5F for byte in name[:size])


def parse_pax(body: bytes, max_records: int) -> dict[bytes, bytes]:
    """The records of a pax header; of equal keys the last one counts.

    Raises:
        BadArchiveError: a length that is not exact, or more than `max_records`.
    """
    records: dict[bytes, bytes] = {}
    at = count = 0
    while at < len(body):
        count += 1
        found = _LENGTH.match(body, at)
        end = at + int(found[1]) if found else 0
        if found is None or end > len(body) or end <= found.end() or body[end - 1] != 0x0A:
            raise BadArchiveError("malformed pax record")
        key, separator, value = body[found.end() : end - 1].partition(b"=")
        if not key or not separator or count > max_records:
            raise BadArchiveError("malformed or too many pax records")
        records[key] = value
        at = end
    return records


def parse_number(field: bytes) -> int:
    """A numeric field: octal, or base-256 as GNU tar writes it.

    Raises:
        BadArchiveError: anything else, or a number beyond 63 bits.
    """
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] & 0x40:
            value -= 1 << (8 * len(field) - 1)
    else:
        found = _OCTAL.fullmatch(field)
        if found is None:
            raise BadArchiveError(f"not a number: {field!r}")
        value = int(found[1] or b"0", 8)
    if not -(1 << 62) < value < (1 << 62):
        raise BadArchiveError(f"number out of range: {field!r}")
    return value


def checksum_matches(block: bytes) -> bool:
    """Whether the checksum of a header block is right, summed as unsigned or as signed bytes."""
    stored = parse_number(block[148:156])
    bare = block[:148] + b"        " + block[156:]
    total = sum(bare)
    return stored in (total, total - 256 * sum(byte > 0x7F for byte in bare))
