"""Which ignore file a build has."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from imagekit.disk.paths import open_beneath, open_root
from imagekit.disk.problems import too_large, unreadable
from imagekit.errors import ContextError

_LIMIT: Final = 1 << 20
_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


def find_ignore(dockerfile: Path | None, root: Path) -> tuple[str, bytes] | None:
    """The ignore file that counts: its name for messages, and its bytes; None if there is none.

    `NAME.dockerignore` beside the Dockerfile is the only one if it is there, even empty; else
    `.dockerignore` in the context, which may be a link inside it.

    Raises:
        ContextError: it cannot be read, or is larger than 1 MiB.

    Spec: dockerfile-semantics.md section 13.
    """
    if dockerfile is not None:
        own = dockerfile.with_name(f"{dockerfile.name}.dockerignore")
        data = _read_limited(own.name, lambda: os.open(own, _READ))
        if data is not None:
            return own.name, data
    name = ".dockerignore"
    fd = open_root(root)
    try:
        data = _read_limited(name, lambda: open_beneath(fd, name, _READ))
    finally:
        os.close(fd)
    return None if data is None else (name, data)


def _read_limited(name: str, open_file: Callable[[], int]) -> bytes | None:
    try:
        fd = open_file()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise unreadable(name, exc) from exc
    with open(fd, "rb") as file:  # noqa: PTH123 - from a descriptor
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ContextError(f"{name} is no file", path=name)
        data = file.read(_LIMIT + 1)
    if len(data) > _LIMIT:
        raise too_large(f"more than {_LIMIT} bytes of patterns", name)
    return data
