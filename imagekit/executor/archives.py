"""ADD of an archive: told by its content, unpacked to a temporary file, its members listed."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from imagekit.errors import BadArchiveError
from imagekit.executor.contents import Sources, Spool
from imagekit.layer.decompress import Decompressor, detect_compression
from imagekit.layer.extract import Member
from imagekit.layer.headers import BLOCK, ZERO_BLOCK, checksum_matches
from imagekit.layer.tar import Member as TarMember
from imagekit.layer.tar import archive_entry, iter_members
from imagekit.layer.tree import FILE, Entry

_CHUNK: Final = 1 << 20


class Archives:
    """The archives of one step; their temporary files go with it."""

    def __init__(self, sources: Sources, folder: Path) -> None:
        self._sources = sources
        self._folder = folder
        self._files: list[BinaryIO] = []

    def unpack(self, entry: Entry) -> tuple[Member, ...] | None:
        """The members of a file, or None if it is no archive with any.

        Raises:
            BadArchiveError: it starts as an archive and does not go on as one.
        """
        chunks = self._sources.chunks(entry)
        first = next(chunks, b"")
        stream = Decompressor(Chunks(first, chunks), detect_compression(first), ratio_max=None)
        try:
            block = read_exactly(stream, BLOCK)
        except BadArchiveError:
            return None  # compressed, as far as its first bytes say, but not really
        if not is_header(block):
            return None
        return self._list(block, stream)

    def _list(self, start: bytes, stream: Decompressor) -> tuple[Member, ...] | None:
        file = self._temporary()
        source = f"archive:{len(self._files)}"
        members = tuple(
            archive_member(member, source)
            for member in iter_members(Spooled(start, stream.read, file.write))
        )
        self._sources.add(source, Spool(file))
        return members or None

    def _temporary(self) -> BinaryIO:
        file = tempfile.TemporaryFile(dir=self._folder, prefix="archive-")  # noqa: SIM115 - `close`
        self._files.append(file)
        return file

    def close(self) -> None:
        """Remove the temporary files."""
        for file in self._files:
            file.close()


def is_header(block: bytes) -> bool:
    """Whether a tar starts with this; most text does not even have a number there."""
    try:
        return len(block) == BLOCK and block != ZERO_BLOCK and checksum_matches(block)
    except BadArchiveError:
        return False


def archive_member(member: TarMember, source: str) -> Member:
    """A member as `extract` takes it; `source` names the archive in the `where` of its file."""
    name = member.name.decode("utf-8", "surrogateescape")
    if member.kind != b"1":
        return Member(name=name, entry=archive_entry(member, source))
    entry = Entry(FILE, member.mode, member.uid, member.gid, member.mtime)
    return Member(name=name, entry=entry, hardlink=member.link.decode("utf-8", "surrogateescape"))


class Chunks:
    """Pieces of a file as a stream."""

    def __init__(self, first: bytes, rest: Iterator[bytes]) -> None:
        self._data = first
        self._rest = rest

    def read(self, size: int, /) -> bytes:
        """See `Stream`."""
        if not self._data:
            self._data = next(self._rest, b"")
        data, self._data = self._data[:size], self._data[size:]
        return data


class Spooled:
    """A stream that starts with bytes that were read before, and is written down as it is read."""

    def __init__(
        self, start: bytes, read: Callable[[int], bytes], write: Callable[[bytes], object]
    ) -> None:
        self._start = start
        self._read = read
        self._write = write

    def read(self, size: int, /) -> bytes:
        """See `Stream`."""
        data, self._start = (self._start or self._read(size)), b""
        self._write(data)
        return data


def read_exactly(stream: Decompressor, size: int) -> bytes:
    """So many bytes, fewer only at the end."""
    data = b""
    while len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return data
