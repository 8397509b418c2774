"""Named build contexts: what `--build-context NAME=SOURCE` may put in the place of a name.

A name stands for a stage, a base image or the image of a `--from`. It is compared in the short
form of image references (`alpine` is `docker.io/library/alpine:latest`), first together with the
platform, as in `alpine::linux/arm64`. `scratch` and `context` cannot be replaced.
"""

from collections.abc import Mapping
from typing import Final, Literal

from attrs import frozen

from imagekit.dockerfile.gitref import parse_git_reference
from imagekit.errors import InvalidReferenceError
from imagekit.oci.platform import Platform
from imagekit.oci.reference import Reference

_RESERVED: Final = frozenset({"scratch", "context"})
_PREFIXES: Final[Mapping[str, Literal["image", "layout"]]] = {
    "docker-image://": "image",
    "oci-layout://": "layout",
}


@frozen(kw_only=True)
class NamedContext:
    """Where the content of a named context comes from.

    Attributes:
        name: as given; the executor knows a folder by it.
        kind: a folder of the caller's, an image of a registry or of an OCI layout, a repository
            or an archive to download.
        location: a reference, a layout's path and what is meant in it, or a URL; of a folder the
            text that was given, which only the caller understands.
    """

    name: str
    kind: Literal["folder", "image", "layout", "git", "http"]
    location: str

    @classmethod
    def parse(cls, name: str, source: str) -> "NamedContext":
        """Read what follows `NAME=` on a command line.

        Raises:
            UsageError: a repository whose query asks for what cannot be.
        """
        for prefix, kind in _PREFIXES.items():
            if source.startswith(prefix):
                return cls(name=name, kind=kind, location=source.removeprefix(prefix))
        if parse_git_reference(source) is not None:
            return cls(name=name, kind="git", location=source)
        if source.startswith(("http://", "https://")):
            return cls(name=name, kind="http", location=source)
        return cls(name=name, kind="folder", location=source)


def short_name(name: str) -> str:
    """The form in which names of contexts are compared; what is no reference stays as it is."""
    head, separator, platform = name.partition("::")
    try:
        head = Reference.parse(head).familiar.removesuffix(":latest")
    except InvalidReferenceError:
        return name
    return head + separator + platform


def find_context(
    contexts: Mapping[str, NamedContext], name: str, platform: Platform
) -> NamedContext | None:
    """The context that replaces `name`, or None.

    Args:
        contexts: keyed by `short_name`.
        name: of a stage or image.
        platform: that is wanted of it.
    """
    if not contexts or name.lower() in _RESERVED:
        return None
    short = short_name(name)
    return contexts.get(f"{short}::{platform.normalised()}") or contexts.get(short)
