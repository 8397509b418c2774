"""Trees whose files lie in one uncompressed archive: contexts that are no folder.

An archive from outside is read once, front to back: its members become a tree as ADD would unpack
them (names stop at the root, links are resolved inside it), while the uncompressed bytes go to a
temporary file that content is read from. Nothing is ever unpacked to the disk.

Spec: security.md C-1, C-6, L-2 to L-9.
"""

import io
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, Self

from attrs import frozen

from imagekit.errors import BadArchiveError, ContextError, StoreError
from imagekit.executor.archives import (
    Chunks,
    Spooled,
    archive_member,
    is_header,
    read_exactly,
)
from imagekit.layer.decompress import Decompressor, detect_compression
from imagekit.layer.draft import Draft
from imagekit.layer.extract import extract
from imagekit.layer.headers import BLOCK, ZERO_BLOCK
from imagekit.layer.tar import Limits, Stream, iter_members
from imagekit.layer.tree import Entry, Tree

CHUNK: Final = 1 << 20
LIMITS: Final = Limits(entries=2_000_000)
"""How large a context may be (security spec C-6)."""


class TarContext:
    """A tree and the file that its content lies in (`values.Context`); close it when done.

    Attributes:
        source: what the `where` of its files says; `at` is an offset in the file.
    """

    def __init__(self, source: str, tree: Tree, file: BinaryIO) -> None:
        """Take over an open file.

        Args:
            source: what the `where` of the tree's files says.
            tree: of files whose digests are known.
            file: read at offsets, closed with the context.
        """
        self.source = source
        self._tree = tree
        self._file = file
        self._lock = threading.Lock()

    @classmethod
    def empty(cls) -> Self:
        """A context without files."""
        return cls("empty", Tree.EMPTY, io.BytesIO())

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with self._lock:
            self._file.close()

    def scan(self) -> Tree:
        """See `Context`."""
        return self._tree

    def digest(self, entries: Sequence[Entry]) -> list[Entry]:
        """See `Context`; they are all known."""
        return list(entries)

    def read_small(self, entry: Entry) -> bytes | None:
        """See `Context`."""
        return None if entry.size > CHUNK else b"".join(self.chunks(entry))

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """See `Context`.

        Raises:
            StoreError: the file is not what it was.
        """
        if entry.where is None or entry.where.source != self.source:
            raise StoreError(f"a file that is elsewhere: {entry.where}")
        at, left = int(entry.where.at), entry.size
        while left:
            with self._lock:
                self._file.seek(at)
                data = self._file.read(min(CHUNK, left))
            if not data:
                raise StoreError("an archive ends before its last file")
            at, left = at + len(data), left - len(data)
            yield data


@frozen
class NotAnArchive:
    """What turned out to be no archive: its first bytes, and the stream with the rest."""

    start: bytes
    stream: Stream


def read_archive(
    stream: Stream, *, folder: Path, source: str, clock: Callable[[], float] = time.time
) -> TarContext | NotAnArchive:
    """Read an archive, plain or compressed with gzip, bzip2, xz or zstd.

    Args:
        stream: read to its end if it is an archive; left open.
        folder: for the temporary file, which has no name.
        source: what the `where` of its files is to say.
        clock: the time of directories that no member makes.

    Returns:
        The context, or what was read if the first bytes are not those of an archive.

    Raises:
        BadArchiveError: it begins as an archive and does not go on as one, or passes a limit.
        ContextError: it is compressed, and holds no archive.
    """
    kept = _Kept(stream)
    compression = detect_compression(kept.peek())
    unpacked = Decompressor(kept, compression)
    try:
        block = read_exactly(unpacked, BLOCK)
    except BadArchiveError:
        block = b""
    if not (is_header(block) or block == ZERO_BLOCK):
        if compression != "none":
            raise ContextError(
                f"the context is {compression} data that holds no tar archive",
                hint="a context is a folder, a tar archive, or a URL of one",
            )
        return NotAnArchive(kept.data, stream)
    kept.forget()
    file = tempfile.TemporaryFile(dir=folder, prefix="context-")  # noqa: SIM115 - the context's
    try:
        spooled = Spooled(block, unpacked.read, file.write)
        members = [archive_member(m, source) for m in iter_members(spooled, limits=LIMITS)]
        draft = Draft(Tree.EMPTY)
        extract(draft, "", members, owner=None, now=int(clock()))
        file.flush()
    except BaseException:
        file.close()
        raise
    return TarContext(source, draft.tree(), file)


def whole(found: NotAnArchive, limit: int) -> bytes:
    """All of what is no archive, at most one byte more than `limit`."""
    chunks = Chunks(found.start, iter(lambda: found.stream.read(CHUNK) or b"", b""))
    data = bytearray()
    while len(data) <= limit and (more := chunks.read(limit + 1 - len(data))):
        data += more
    return bytes(data)


class _Kept:
    """A stream that keeps what was read of it, until it is known what it is."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._given = 0
        self._keeping = True
        self.data = b""

    def peek(self) -> bytes:
        """The first bytes."""
        while len(self.data) < BLOCK and (more := self._stream.read(CHUNK)):
            self.data += more
        return self.data

    def forget(self) -> None:
        """Keep nothing any more."""
        self._keeping = False

    def read(self, size: int, /) -> bytes:
        """See `Stream`."""
        if self._given < len(self.data):
            data = self.data[self._given : self._given + size]
            self._given += len(data)
            return data
        data = self._stream.read(size) or b""
        if self._keeping:
            self.data += data
            self._given += len(data)
        return data
