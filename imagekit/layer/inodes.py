"""Inodes of files that are made: which names of a copy are one file.

What is copied is no link to its original, so it needs a number of its own. Numbers of made files
are negative, which those of files that were read never are, and do not depend on the run.
"""

import hashlib

from imagekit.layer.tree import Entry


class Inodes:
    """The inodes of what is copied together: names of one file there are names of one here."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], int] = {}

    def of(self, path: str, entry: Entry) -> int:
        """The number of a copy at a path, the same as for the names that were copied before."""
        key = entry.where.source if entry.where else "", entry.inode
        if key not in self._known:
            self._known[key] = self.new(path, entry)
        return self._known[key]

    def new(self, path: str, entry: Entry) -> int:
        """A number for a file whose first name is at a path."""
        seed = f"{entry.inode} {entry.where} {entry.mtime} {path}"
        digest = hashlib.sha256(seed.encode("utf-8", "surrogateescape")).digest()
        return -1 - int.from_bytes(digest[:7], "big")
