"""The patterns of `${name#pattern}` and its kin, matched in linear time.

`*` is any run of characters and `?` any one, neither of them a newline; there are no sets. A
pattern is cut at its stars into segments of fixed length. Since a gap between two segments cannot
hold a newline, the earliest place of each segment is as good as any later one, so segments are
matched one after the other without ever going back.
"""

import re
from collections.abc import Callable

from attrs import frozen


class BadPatternError(ValueError):
    """A backslash before a character that needs none."""


@frozen
class _Compiled:
    """`first` is the segment before the first star, `rest` what follows it, longest match."""

    first: re.Pattern[str]
    rest: re.Pattern[str] | None


def trim_prefix(value: str, pattern: str, *, longest: bool) -> str:
    """Return `value` without the shortest or longest prefix that matches.

    Raises:
        BadPatternError: a backslash before a character that needs none.
    """
    segments = _segments(pattern)
    middle = "".join(f"(?>.*?{segment})" for segment in segments[1:-1])
    last = f".*{segments[-1]}" if longest else f"(?>.*?{segments[-1]})"
    match = re.match(segments[0] + middle + (last if len(segments) > 1 else ""), value)
    return value[match.end() :] if match else value


def trim_suffix(value: str, pattern: str, *, longest: bool) -> str:
    """Return `value` without the shortest or longest suffix that matches.

    Raises:
        BadPatternError: a backslash before a character that needs none.
    """
    return trim_prefix(value[::-1], _reversed(pattern), longest=longest)[::-1]


def replace_first(value: str, pattern: str, replacement: str) -> str:
    """Replace the first, longest match of `pattern`, the replacement taken as it is.

    Raises:
        BadPatternError: a backslash before a character that needs none.
    """
    found = _find(_compile(pattern), value, 0)
    if found is None:
        return value
    return value[: found[0]] + replacement + value[found[1] :]


def replace_all(
    value: str, pattern: str, replacement: str, *, check: Callable[[int], None]
) -> str:
    """Replace every match of `pattern`; `$x` and `${x}` in the replacement are groups, so empty.

    Only group 0, the match itself, exists. `check` is given the length of the result so far.

    Raises:
        BadPatternError: a backslash before a character that needs none.
    """
    compiled = _compile(pattern)
    out: list[str] = []
    size = done = at = 0
    while at <= len(value):
        found = _find(compiled, value, at)
        if found is None:
            break
        start, end = found
        piece = value[done:start]
        # An empty match right behind another match is none.
        if end > done or start == 0:
            piece += _fill(replacement, value[start:end])
        out.append(piece)
        size += len(piece)
        check(size)
        done, at = end, max(end, at + 1)
    out.append(value[done:])
    return "".join(out)


def _segments(pattern: str) -> list[str]:
    """Return the regular expressions of what stands between the stars."""
    segments = [""]
    i = 0
    while i < len(pattern):
        char = pattern[i]
        i += 1
        if char == "*":
            segments.append("")
        elif char == "?":
            segments[-1] += "."
        elif char != "\\":
            segments[-1] += re.escape(char)
        elif pattern[i : i + 1] not in ("}", "/") or i == len(pattern):
            if pattern[i : i + 1] not in ("*", "?", "\\") or i == len(pattern):
                raise BadPatternError(f"invalid escape {pattern[i - 1 : i + 1]}")
            segments[-1] += re.escape(pattern[i])
            i += 1
    return segments


def _reversed(pattern: str) -> str:
    """Reverse the pattern, each escape kept before its character."""
    return "".join(re.findall(r"\\.|.", pattern, re.DOTALL)[::-1])


def _compile(pattern: str) -> _Compiled:
    segments = _segments(pattern)
    if len(segments) == 1:
        return _Compiled(re.compile(segments[0]), None)
    middle = "".join(f"(?>.*?{segment})" for segment in segments[1:-1])
    return _Compiled(re.compile(segments[0]), re.compile(f"{middle}.*{segments[-1]}"))


def _find(compiled: _Compiled, value: str, at: int) -> tuple[int, int] | None:
    """Return the leftmost, longest match from `at` on, as start and end."""
    while match := compiled.first.search(value, at):
        if compiled.rest is None:
            return match.span()
        rest = compiled.rest.match(value, match.end())
        if rest is not None:
            return match.start(), rest.end()
        # What follows was not found in this line, so no later start in the line can do better.
        newline = value.find("\n", match.start())
        if newline < 0:
            return None
        at = newline + 1
    return None


def _fill(template: str, matched: str) -> str:
    if "$" not in template:
        return template

    def group(match: re.Match[str]) -> str:
        name = match["braced"] or match["plain"]
        if name is None:
            return "$"
        return matched if name == "0" else ""

    return re.sub(r"\$(?:\$|\{(?P<braced>\w+)\}|(?P<plain>\w+))", group, template)
