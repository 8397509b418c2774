"""Wildcards in the source of a copy: Go's `path.Match`, one path component at a time.

    pattern = { "*" | "?" | "[" [ "^" ] range { range } "]" | "\\" char | char }
    range   = char | char "-" char

A name is matched in linear time: what stands between two stars has a fixed length, so its earliest
place is as good as any later one.
"""

import re
from collections.abc import Callable
from functools import lru_cache

from imagekit.errors import PathError

_NEVER = "(?!)"


def has_wildcard(name: str) -> bool:
    """Whether a path component holds a wildcard that is not escaped."""
    return re.search(r"(?<!\\)(?:\\\\)*[*?\[]", name) is not None


def is_pattern(name: str) -> bool:
    """Whether a path component means anything but itself."""
    return "\\" in name or has_wildcard(name)


@lru_cache(maxsize=256)
def compile_name(pattern: str) -> Callable[[str], bool]:
    """A test of whether a name matches the pattern of a path component.

    Raises:
        PathError: no well-formed pattern; code `pattern-invalid`.
    """
    segments = [""]
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "*":
            segments.append("")
            at += 1
        elif char == "?":
            segments[-1] += "."
            at += 1
        elif char == "[":
            text, at = _char_class(pattern, at + 1)
            segments[-1] += text
        else:
            char, at = _char(pattern, at)
            segments[-1] += re.escape(char)
    middle = "".join(f"(?>.*?{segment})" for segment in segments[1:-1])
    last = f".*{segments[-1]}" if len(segments) > 1 else ""
    match = re.compile(segments[0] + middle + last, re.DOTALL).fullmatch
    return lambda name: match(name) is not None


def _char(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at] == "\\":
        at += 1
        if at == len(pattern):
            raise _bad(pattern)
    return pattern[at], at + 1


def _char_class(pattern: str, at: int) -> tuple[str, int]:
    """The regular expression of a class that opens before `at`, and where it ends."""
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges: list[str] = []
    empty = True
    while empty or pattern[at : at + 1] != "]":
        low, at = _bound(pattern, at)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _bound(pattern, at + 1)
        empty = False
        if low <= high:
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    if not ranges:
        return "." if negated else _NEVER, at + 1
    return f"[{'^' if negated else ''}{''.join(ranges)}]", at + 1


def _bound(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at : at + 1] in ("", "-", "]"):
        raise _bad(pattern)
    char, at = _char(pattern, at)
    if at == len(pattern):
        raise _bad(pattern)
    return char, at


def _bad(pattern: str) -> PathError:
    return PathError(
        f"{pattern}: syntax error in pattern",
        path=pattern,
        hint="a literal [ is written [[]",
        code="pattern-invalid",
    )
