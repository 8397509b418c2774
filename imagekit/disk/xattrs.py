"""Extended attributes: which of them are part of an image, read and written by descriptor."""

import errno
import os
from typing import Final

Xattrs = tuple[tuple[str, bytes], ...]

CAPABILITY: Final = "security.capability"
OWNER: Final = "user.imagekit.owner"
"""`uid:gid` of a file whose real owner this process may not set; never in an image."""

_PRIVATE: Final = ("user.overlay.", "user.imagekit.")
_UNSUPPORTED: Final = frozenset({errno.ENOTSUP, errno.ENOSYS, errno.EPERM})


def is_kept(name: str) -> bool:
    """Whether an attribute is part of an image (security spec C-5)."""
    return name == CAPABILITY or (name.startswith("user.") and not name.startswith(_PRIVATE))


def list_names(file: int | str) -> list[str]:
    """The names of all attributes of an open file, or of a path whose last link is not followed.

    Raises:
        OSError: but for file systems that have no attributes.
    """
    try:
        return os.listxattr(file, follow_symlinks=isinstance(file, int))
    except OSError as exc:
        if exc.errno in _UNSUPPORTED:
            return []
        raise


def read_xattrs(file: int | str) -> Xattrs:
    """The attributes that are part of an image, sorted by name.

    Raises:
        OSError: they cannot be read.
    """
    names = list_names(file)
    if not names:
        return ()
    follow = isinstance(file, int)
    kept = sorted(name for name in names if is_kept(name))
    return tuple((name, os.getxattr(file, name, follow_symlinks=follow)) for name in kept)
