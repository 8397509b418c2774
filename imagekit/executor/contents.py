"""Where the bytes of a new layer come from: contexts, layers, the Dockerfile, archives."""

from collections.abc import Iterator, Mapping
from typing import BinaryIO, Final, Self

from imagekit.errors import LayerError
from imagekit.executor.layers import LayerContents
from imagekit.executor.values import Context
from imagekit.layer.tar import Contents
from imagekit.layer.tar_writer import FirstLook, Xattrs
from imagekit.layer.tree import Entry

_CHUNK: Final = 1 << 20


class Bytes:
    """Files that are at hand in memory; `at` of their place is a name here."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def read_small(self, entry: Entry) -> bytes | None:
        """See `Contents`."""
        return self._files[_place(entry)[1]]

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """See `Contents`."""
        yield self._files[_place(entry)[1]]


class Spool:
    """Files in an uncompressed archive that lies in a temporary file; `at` is an offset."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read_small(self, entry: Entry) -> bytes | None:
        """See `Contents`."""
        if entry.size > _CHUNK:
            return None
        return b"".join(self.chunks(entry))

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """See `Contents`."""
        self._file.seek(int(_place(entry)[1]))
        left = entry.size
        while left:
            data = self._file.read(min(_CHUNK, left))
            if not data:
                raise LayerError("an archive ends before its last file")
            left -= len(data)
            yield data


class Sources:
    """All of them, by the source that an entry names; to be closed."""

    def __init__(self, layers: LayerContents) -> None:
        self._layers = layers
        self._named: dict[str, Contents] = {}
        self._unread: dict[str, FirstLook] = {}

    def add(self, source: str, contents: Contents) -> None:
        """Say who reads what `source` names."""
        self._named[source] = contents

    def add_context(self, context: Context) -> None:
        """Read files of a local context."""
        self._named[context.source] = context
        if isinstance(context, FirstLook):
            self._unread[context.source] = context

    def _of(self, entry: Entry) -> Contents:
        return self._named.get(_place(entry)[0], self._layers)

    def read_small(self, entry: Entry) -> bytes | None:
        """See `Contents`."""
        return self._of(entry).read_small(entry)

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """See `Contents`."""
        return self._of(entry).chunks(entry)

    def read_unknown(self, entry: Entry) -> tuple[bytes, Xattrs] | None:
        """See `FirstLook`."""
        contents = self._unread.get(_place(entry)[0])
        if contents is not None:
            return contents.read_unknown(entry)
        data = self.read_small(entry)
        return None if data is None else (data, entry.xattrs)

    def attributes(self, entry: Entry) -> Xattrs:
        """See `FirstLook`."""
        contents = self._unread.get(_place(entry)[0])
        return entry.xattrs if contents is None else contents.attributes(entry)

    def read(self, entry: Entry) -> bytes:
        """A small file whole."""
        data = self.read_small(entry)
        return b"".join(self.chunks(entry)) if data is None else data

    def close(self) -> None:
        """Close the layers that were read."""
        self._layers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _place(entry: Entry) -> tuple[str, str]:
    if entry.where is None:
        raise LayerError("a file has no place that its content could be read at")
    return entry.where.source, str(entry.where.at)
