"""What can be wrong with a build context, in words."""

import contextlib
from collections.abc import Iterator
from typing import Final

from imagekit.errors import ContextError
from imagekit.layer.tree import BLOCK, CHARACTER, FIFO, Entry

SOCKET: Final = "s"
"""A kind that no layer has; it is in the tree so that copying it can be refused."""

SPECIAL: Final = {
    CHARACTER: "a device",
    BLOCK: "a device",
    FIFO: "a named pipe",
    SOCKET: "a socket",
}


@contextlib.contextmanager
def readable(path: str) -> Iterator[None]:
    """Turn an OSError of the block into a ContextError about a path."""
    try:
        yield
    except OSError as exc:
        raise unreadable(path.rstrip("/"), exc) from exc


def unreadable(path: str, exc: OSError) -> ContextError:
    """The error for a file or folder that cannot be read."""
    hint = "what the build does not need can be left out with .dockerignore"
    name = shown(path) or "the build context"
    return ContextError(f"cannot read {name}: {exc.strerror}", path=path, hint=hint)


def changed(path: str) -> ContextError:
    """The error for a file that something else writes to (C-2)."""
    return ContextError(
        f"{shown(path)} was changed while the build read it",
        path=path,
        hint="build again when nothing writes to the build context",
        code="context-changed",
    )


def too_large(what: str, path: str) -> ContextError:
    """The error for a context past a limit (C-6)."""
    return ContextError(
        f"the build context is too large: {what}",
        path=path.rstrip("/"),
        hint="leave out what the build does not need with .dockerignore",
        code="context-limit",
    )


def special_file(entry: Entry, path: str) -> ContextError:
    """The error for copying something that is neither file, directory nor link (C-3)."""
    return ContextError(
        f"{shown(path)} is {SPECIAL[entry.kind]}, which cannot be copied",
        path=path,
        hint="leave it out with .dockerignore",
        code="context-special-file",
    )


def shown(path: str) -> str:
    """A path for a message: bytes that are no text, and control characters, are escaped."""
    raw = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in raw)
