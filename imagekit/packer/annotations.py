"""Annotations by where they go: `KEY`, `manifest:KEY`, `index:KEY` or `index,manifest:KEY`."""

from collections.abc import Mapping
from typing import Final, Literal

from imagekit.errors import UsageError

Level = Literal["manifest", "index"]
_LEVELS: Final = ("manifest", "index")


def of_level(level: Level, annotations: Mapping[str, str]) -> dict[str, str]:
    """The annotations of one kind of document; without a level they are the manifest's.

    Raises:
        UsageError: a level that there is not, or no key.
    """
    found = {}
    for name, value in annotations.items():
        levels, key = split_annotation(name)
        if level in levels:
            found[key] = value
    return found


def split_annotation(name: str) -> tuple[tuple[str, ...], str]:
    """The levels of an annotation, and its key.

    Raises:
        UsageError: a level that there is not, or no key.
    """
    head, colon, key = name.rpartition(":")
    levels = tuple(head.split(",")) if colon else ("manifest",)
    unknown = [level for level in levels if level not in _LEVELS]
    if unknown or not key:
        what = f"no level {unknown[0]!r}" if unknown else "no key"
        raise UsageError(
            f"annotation {name!r}: {what}", hint="write KEY, manifest:KEY or index:KEY"
        )
    return levels, key
