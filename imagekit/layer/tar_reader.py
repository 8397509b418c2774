"""Tar -> members: one pass over an archive of any producer, trusting nothing in it.

`iter_members` turns V7, ustar, pax and GNU archives into a stream of `Member`: what the headers
say, checked, with content already hashed and its offset noted. What names mean (whiteouts,
parents, links) is decided in `tar`. There is no seeking and no extraction.

Two readers that disagree on where a member ends let one of them be fed files that the other never
sees. So numbers, lengths and checksums are strict, a pax `size` counts for the position too, and
what tools are known to read differently is refused: sparse files, two different long names for one
member.

Spec: POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".
"""

import hashlib
import struct
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

from attrs import frozen

from imagekit.errors import BadArchiveError
from imagekit.layer.headers import (
    BLOCK,
    MTIME_MAX,
    MTIME_MIN,
    ZERO_BLOCK,
    checksum_matches,
    parse_number,
    parse_pax,
)

CHUNK: Final = 1 << 20
_CACHED: Final = 4096
_UID_MAX: Final = (1 << 32) - 2
_FIELDS: Final = struct.Struct("100s24s12s12s8sc100s8s64s8s8s155s12x")
_FILES: Final = frozenset({b"0", b"\0", b"7"})
_TYPES: Final = frozenset({b"0", b"\0", b"7", b"1", b"2", b"3", b"4", b"5", b"6"})
_XATTR: Final = b"SCHILY.xattr."
_CHARSETS: Final = frozenset({b"BINARY", b"ISO-IR 10646 2000 UTF-8"})
# What a global header may say: only what cannot change where members are or what they are called.
_GLOBAL: Final = frozenset(
    b"comment mtime atime ctime uid gid uname gname hdrcharset charset".split()
)
_SPARSE_HINT: Final = "write the archive again without --sparse"


class Stream(Protocol):
    """What archives are read from: any binary file."""

    def read(self, size: int, /) -> bytes | None:
        """At most `size` bytes; none at the end."""


@frozen(kw_only=True)
class Limits:
    """How large an archive may be in each way; all in bytes unless said.

    Attributes:
        size: of the whole archive, uncompressed.
        entries: number of members.
        header: of one pax header or GNU long name.
        records: number of records in one pax header.
        extensions: number of pax and GNU headers before one member.
        name: of one name.
        link: of one symlink target.
        depth: number of components in a path.
        xattrs: names and values of one member.
        padding: zeros after the end.
        replaced: number of times that a member may turn a directory with content into something
            else.
    """

    size: int = 64 << 30
    entries: int = 5_000_000
    header: int = 1 << 20
    records: int = 1024
    extensions: int = 16
    name: int = 4096
    link: int = 4096
    depth: int = 512
    xattrs: int = 64 << 10
    padding: int = 1 << 20
    replaced: int = 1000


DEFAULT_LIMITS: Final = Limits()


class Member(NamedTuple):
    """One member of an archive, as its headers have it.

    Attributes:
        kind: the type flag; b"0" for every sort of file, b"5" also for V7's names with a slash.
        name: as in the archive: slashes, `.` and `..` included.
        mode: permission bits with setuid, setgid and sticky.
        mtime: whole seconds, rounded down.
        size: of the content; 0 for anything but a file.
        link: the target of a symlink or hard link.
        at: offset of the content in the archive.
        digest: SHA-256 of the content of a file; empty for anything else, or if it was not asked
            for.
    """

    kind: bytes
    name: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    link: bytes
    at: int
    digest: bytes
    xattrs: tuple[tuple[str, bytes], ...]
    device: tuple[int, int]


def iter_members(
    stream: Stream, *, limits: Limits = DEFAULT_LIMITS, digests: bool = True
) -> Iterator[Member]:
    """Read an uncompressed archive member by member, to the end of the stream.

    Args:
        stream: tar bytes; read to the end in large pieces, left open.
        limits: how large the archive may be.
        digests: whether to hash the content of files.

    Raises:
        BadArchiveError: no well-formed archive, a type that layers cannot have, or past a limit.
    """
    return _Reader(stream, limits, digests=digests).members()


class _Input:
    """The stream in large pieces, and the position in it."""

    def __init__(self, stream: Stream, limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self._base = 0  # offset in the archive of data[0]
        self.data = b""
        self.view = memoryview(b"")
        self.at = 0  # position in data

    @property
    def offset(self) -> int:
        return self._base + self.at

    def fill(self, need: int) -> bool:
        """Make `need` bytes available at `at`; False if the stream ends before."""
        while len(self.data) - self.at < need:
            more = self._stream.read(CHUNK)
            if not more:
                return False
            self._base += self.at
            rest = self.view[self.at :]
            self.data = b"".join((rest, more)) if rest else bytes(more)
            self.view = memoryview(self.data)
            self.at = 0
            if self._base + len(self.data) > self._limit:
                raise BadArchiveError(f"archive larger than the limit of {self._limit} bytes")
        return True

    def pieces(self, size: int) -> Iterator[memoryview]:
        """The next `size` bytes, in pieces; the position is after each piece when it is given."""
        while size:
            if not self.fill(1):
                raise _truncated(self.offset)
            piece = self.view[self.at : self.at + size]
            self.at += len(piece)
            size -= len(piece)
            yield piece


class _Reader:
    """The state of one pass."""

    def __init__(self, stream: Stream, limits: Limits, *, digests: bool) -> None:
        self._input = _Input(stream, limits.size)
        self._limits = limits
        self._digests = digests
        self._owners: dict[bytes, tuple[int, int, int]] = {}
        self._globals: dict[bytes, bytes] = {}
        # What pax and GNU headers say of the next member.
        self._pax: dict[bytes, bytes] = {}
        self._long: dict[bytes, bytes] = {}
        self._extensions = 0

    def members(self) -> Iterator[Member]:
        source, limits = self._input, self._limits
        count = 0
        while (block := self._block()) is not None:
            if block == ZERO_BLOCK:
                self._end()
                return
            raw_name, owner, size, mtime, checksum, kind, link, magic, _, major, minor, prefix = (
                _FIELDS.unpack(block)
            )
            self._check_sum(block, checksum)
            if kind not in _TYPES:
                self._extension(kind, _number(size))
                continue
            count += 1
            if count > limits.entries:
                raise BadArchiveError(f"more than {limits.entries} members")
            name = raw_name.rstrip(b"\0") if raw_name[-1] == 0 else raw_name
            name = name.partition(b"\0")[0]
            if prefix[0] and magic.startswith(b"ustar\0"):
                # star's own format ends in "tar" and has times in the end of the prefix.
                prefix = prefix[:131] if block.endswith(b"tar\0") else prefix
                name = prefix.partition(b"\0")[0] + b"/" + name
            mode, uid, gid = self._owners.get(owner) or self._owner(owner)
            member = Member(
                kind,
                name,
                mode,
                uid,
                gid,
                _number(mtime),
                _number(size),
                link.partition(b"\0")[0],
                0,
                b"",
                (),
                (_number(major), _number(minor)) if kind in {b"3", b"4"} else (0, 0),
            )
            if self._extensions or self._globals:
                member = self._extended(member)
            yield self._with_content(member)
        if self._extensions:
            raise _truncated(source.offset)

    def _block(self) -> bytes | None:
        """The next header block; None where the archive ends without the two zero blocks."""
        source = self._input
        at = source.at
        if len(source.data) - at < BLOCK:
            if not source.fill(BLOCK):
                if len(source.data) - source.at:
                    raise _truncated(source.offset)
                return None
            at = source.at
        source.at = at + BLOCK
        return source.data[at : at + BLOCK]

    def _check_sum(self, block: bytes, checksum: bytes) -> None:
        if block.isascii():
            # Adler-32's low half is the sum plus one, and 512 bytes of ASCII stay below its
            # modulus.
            total = (zlib.adler32(block) & 0xFFFF) - 1 - sum(checksum) + 256
            if total == _number(checksum):
                return
        elif checksum_matches(block):
            return
        raise BadArchiveError(f"wrong header checksum at offset {self._input.offset - BLOCK}")

    def _owner(self, field: bytes) -> tuple[int, int, int]:
        mode, uid, gid = (parse_number(field[i : i + 8]) for i in (0, 8, 16))
        owner = (_mode(mode), _id(uid), _id(gid))
        if len(self._owners) < _CACHED:
            self._owners[field] = owner
        return owner

    def _with_content(self, member: Member) -> Member:
        """Pass over the content of a member, hashing it; checks what is left to check."""
        kind, name, mode, uid, gid, mtime, size, link, _, _, xattrs, device = member
        source = self._input
        if kind in _FILES:
            # V7 has no type for directories.
            kind = b"5" if name.endswith(b"/") else b"0"
        if size < 0:
            raise BadArchiveError("negative size")
        if not name or len(name) > self._limits.name or len(link) > self._limits.link:
            raise BadArchiveError(f"empty or too long name: {name[:100]!r}")
        if not MTIME_MIN <= mtime <= MTIME_MAX:
            mtime = max(MTIME_MIN, min(mtime, MTIME_MAX))
        at = source.offset
        digest = b""
        if kind == b"0":
            digest = self._content(size)
        elif size:
            # Some readers pass over the size of links and directories, others over the content.
            raise BadArchiveError(f"content in a member that is no file: {name[:100]!r}")
        return Member(kind, name, mode, uid, gid, mtime, size, link, at, digest, xattrs, device)

    def _content(self, size: int) -> bytes:
        """Pass over content and padding; its digest."""
        source = self._input
        padded = size + -size % BLOCK
        at = source.at
        if len(source.data) - at >= padded:
            source.at = at + padded
            if self._digests:
                return hashlib.sha256(source.view[at : at + size]).digest()
            return b""
        running = hashlib.sha256()
        for piece in source.pieces(size):
            if self._digests:
                running.update(piece)
        for _ in source.pieces(-size % BLOCK):
            pass
        return running.digest() if self._digests else b""

    def _end(self) -> None:
        """After the first zero block: another one, and then nothing but some zeros."""
        if self._extensions:
            raise BadArchiveError("archive ends after an extended header")
        source = self._input
        start = source.offset
        while source.fill(1):
            rest = source.data[source.at :] if source.at else source.data
            if rest.count(0) != len(rest):
                raise BadArchiveError(f"data after the end of the archive, at {source.offset}")
            source.at += len(rest)
            if source.offset - start > self._limits.padding + BLOCK:
                raise BadArchiveError("too much padding after the end of the archive")

    def _extension(self, kind: bytes, size: int) -> None:
        """Read a header that describes the members after it."""
        if kind == b"S":
            raise BadArchiveError("sparse files are not supported", hint=_SPARSE_HINT)
        if kind not in {b"x", b"g", b"L", b"K"}:
            raise BadArchiveError(f"unknown member type {kind!r}")
        if not 0 <= size <= self._limits.header:
            raise BadArchiveError(f"extended header of {size} bytes")
        body = b"".join(self._input.pieces(size))
        for _ in self._input.pieces(-size % BLOCK):
            pass
        if kind == b"g":
            self._set_globals(parse_pax(body, self._limits.records))
            return
        self._extensions += 1
        if self._extensions > self._limits.extensions:
            raise BadArchiveError("too many extended headers for one member")
        if kind == b"x":
            self._pax = parse_pax(body, self._limits.records)
        else:
            self._long[b"path" if kind == b"L" else b"linkpath"] = body.rstrip(b"\0")

    def _set_globals(self, records: dict[bytes, bytes]) -> None:
        strange = [key for key in records if key not in _GLOBAL and not _is_vendor(key)]
        if strange:
            raise BadArchiveError(f"global header sets {strange[0][:100]!r}")
        self._globals.update(records)
        if len(self._globals) > self._limits.records:
            raise BadArchiveError("too many global records")

    def _extended(self, member: Member) -> Member:
        """A member with what the headers before it say; an empty value takes a record back."""
        pax = {**self._globals, **self._pax}
        for key, value in self._long.items():
            if pax.get(key, value) != value:
                raise BadArchiveError(f"two different names for one member: {value[:100]!r}")
            pax[key] = value
        self._pax, self._long, self._extensions = {}, {}, 0
        if any(key.startswith(b"GNU.sparse.") for key in pax):
            raise BadArchiveError("sparse files are not supported", hint=_SPARSE_HINT)
        if pax.get(b"hdrcharset", b"BINARY") not in _CHARSETS:
            raise BadArchiveError("names in an unknown character set")
        name = pax.get(b"path") or member.name
        link = pax.get(b"linkpath") or member.link
        if b"\0" in name or b"\0" in link:
            raise BadArchiveError(f"a name holds a NUL byte: {name[:100]!r}")
        return member._replace(
            name=name,
            link=link,
            size=_decimal(pax.get(b"size"), member.size),
            uid=_id(_decimal(pax.get(b"uid"), member.uid)),
            gid=_id(_decimal(pax.get(b"gid"), member.gid)),
            mtime=_seconds(pax.get(b"mtime"), member.mtime),
            xattrs=self._xattrs(pax),
        )

    def _xattrs(self, pax: dict[bytes, bytes]) -> tuple[tuple[str, bytes], ...]:
        pairs = []
        total = 0
        for key, value in pax.items():
            if key.startswith(_XATTR):
                name = key[len(_XATTR) :]
                total += len(name) + len(value)
                if not name or b"\0" in name or total > self._limits.xattrs:
                    raise BadArchiveError("malformed or too large extended attributes")
                pairs.append((name.decode("utf-8", "surrogateescape"), value))
        return tuple(sorted(pairs))


def _number(field: bytes) -> int:
    """`parse_number`, faster for the usual form: digits and one space or NUL."""
    digits = field[:-1]
    if field[-1] in b"\0 " and digits.isdigit():
        try:
            return int(digits, 8)
        except ValueError:
            pass  # an 8 or a 9: parse_number says so
    return parse_number(field)


def _mode(mode: int) -> int:
    if mode < 0:
        raise BadArchiveError("negative mode")
    return mode & 0o7777


def _id(number: int) -> int:
    if not 0 <= number <= _UID_MAX:
        raise BadArchiveError(f"user or group id out of range: {number}")
    return number


def _decimal(value: bytes | None, default: int) -> int:
    if not value:
        return default
    if not value.isdigit() or len(value) > 19:
        raise BadArchiveError(f"not a number: {value[:40]!r}")
    return int(value)


def _seconds(value: bytes | None, default: int) -> int:
    """A pax time, `-1.5`, as whole seconds rounded down."""
    if not value:
        return default
    whole, _, fraction = value.partition(b".")
    negative = whole.startswith(b"-")
    digits = whole[1:] if negative else whole
    if not digits.isdigit() or len(digits) > 19 or (fraction and not fraction.isdigit()):
        raise BadArchiveError(f"not a time: {value[:40]!r}")
    if not negative:
        return int(digits)
    return -int(digits) - (1 if fraction.strip(b"0") else 0)


def _is_vendor(key: bytes) -> bool:
    """`VENDOR.keyword`: extensions, which readers that do not know them pass over."""
    vendor = key.partition(b".")[0]
    known = (b"SCHILY", b"GNU")
    return b"." in key and vendor.isupper() and vendor not in known


def _truncated(offset: int) -> BadArchiveError:
    return BadArchiveError(f"archive cut short at offset {offset}")
