"""The contents of files below a folder, opened by descriptor and without following links."""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Self

from imagekit.disk.paths import FOLDER, open_root
from imagekit.errors import LayerError
from imagekit.layer.tree import Entry

SMALL: Final = 1 << 20
CHUNK: Final = 1 << 20
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KEPT: Final = 64


class FolderFiles:
    """Regular files below a folder; for one thread, and to be closed."""

    def __init__(self, root: Path) -> None:
        self._root = open_root(root)
        self._folders: dict[str, int] = {}

    def close(self) -> None:
        """Close the folder; a second call does nothing."""
        for fd in self._folders.values():
            os.close(fd)
        self._folders.clear()
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, path: str) -> int:
        """A descriptor of a file, to be closed by the caller.

        Raises:
            LayerError: it is no regular file.
            OSError: it cannot be opened.
        """
        head, _, name = path.rpartition("/")
        fd = os.open(name, _READ, dir_fd=self._folder(head))
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise LayerError(f"/{path} is no regular file any more", path=path)
        return fd

    def _folder(self, path: str) -> int:
        if not path:
            return self._root
        known = self._folders.get(path)
        if known is not None:
            return known
        head, _, name = path.rpartition("/")
        fd = os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=self._folder(head))
        if len(self._folders) >= _KEPT:
            os.close(self._folders.pop(next(iter(self._folders))))
        self._folders[path] = fd
        return fd

    def digest(self, path: str) -> bytes:
        """The SHA-256 of a file."""
        fd = self.open(path)
        with open(fd, "rb", buffering=0) as file:  # noqa: PTH123 - from a descriptor
            return hashlib.file_digest(file, "sha256").digest()


class FolderContents:
    """The `Contents` of a folder whose processes are gone: nothing changes it any more."""

    def __init__(self, root: Path) -> None:
        self._files = FolderFiles(root)

    def read_small(self, entry: Entry) -> bytes | None:
        """The whole content of a file below 1 MiB; None for a larger one."""
        if entry.size >= SMALL:
            return None
        fd = self._files.open(place(entry))
        try:
            return os.read(fd, entry.size + 1)
        finally:
            os.close(fd)

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """The content of a file in pieces of up to 1 MiB."""
        fd = self._files.open(place(entry))
        try:
            while data := os.read(fd, CHUNK):
                yield data
        finally:
            os.close(fd)

    def digests(self, entries: Sequence[Entry]) -> list[bytes]:
        """The SHA-256 of each file."""
        return [self._files.digest(place(entry)) for entry in entries]

    def close(self) -> None:
        """Close the folder; a second call does nothing."""
        self._files.close()


def place(entry: Entry) -> str:
    """The path of a file in its folder.

    Raises:
        LayerError: its content is somewhere else.
    """
    if entry.where is None or not isinstance(entry.where.at, str):
        raise LayerError(f"not a file of a folder: {entry.where}")
    return entry.where.at
