"""The name that was probably meant, by edit distance."""

from collections.abc import Iterable
from typing import Final

_MAX_DISTANCE: Final = 2
_MAX_OPTIONS: Final = 256
"""How many names are looked at: the time for one suggestion is bounded."""


def similar(name: str, known: Iterable[str]) -> str:
    """The name that is at most two edits away, the nearest and first; or nothing."""
    best, found = _MAX_DISTANCE + 1, ""
    for option, _ in zip(known, range(_MAX_OPTIONS), strict=False):
        if abs(len(option) - len(name)) < best:
            edits = _distance(name, option, best)
            if edits < best:
                best, found = edits, option
    return found


def _distance(one: str, other: str, limit: int) -> int:
    """The edits between two words (insert, delete, replace), or `limit` if there are more."""
    row = list(range(len(other) + 1))
    for index, char in enumerate(one, 1):
        corner, row[0] = row[0], index
        for at, target in enumerate(other, 1):
            corner, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, corner + (char != target))
        if min(row) >= limit:
            return limit
    return row[-1]
