r"""Paths and wildcards by the rules of Go's `path/filepath`, which BuildKit uses.

    pattern = { '*' | '?' | '[' [ '^' ] { lo [ '-' hi ] } ']' | '\\' char | char }

Neither `*` nor `?` matches a slash. `[!a]` is a set that holds `!`.
"""

from functools import lru_cache
from typing import NamedTuple

from imagekit.errors import ContextError

_WILDCARDS = "*?["


class _Token(NamedTuple):
    """One character, or any number of them if `star`; no `ranges` is any but a slash."""

    star: bool
    negated: bool
    ranges: tuple[tuple[str, str], ...]

    def accepts(self, char: str) -> bool:
        if not self.ranges:
            return char != "/"
        return self.negated != any(low <= char <= high for low, high in self.ranges)


_STAR = _Token(star=True, negated=False, ranges=())
_ANY = _Token(star=False, negated=False, ranges=())


def clean(path: str) -> str:
    """Return the shortest equal path: no `//`, no `/./`, `..` resolved, `.` if nothing is left.

    Spec: Go path/filepath.Clean on a system whose separator is a slash.
    """
    rooted = path.startswith("/")
    kept: list[str] = []
    for part in path.split("/"):
        if part == ".." and kept and kept[-1] != "..":
            kept.pop()
        elif part == "..":
            if not rooted:
                kept.append(part)
        elif part not in ("", "."):
            kept.append(part)
    return ("/" if rooted else "") + "/".join(kept) or ("/" if rooted else ".")


def parent(path: str) -> str:
    """Return the path without its last part, cleaned; `.` if there was only one."""
    return clean(path[: path.rfind("/") + 1])


def has_wildcard(pattern: str) -> bool:
    """Whether an unescaped `*`, `?` or `[` is in the pattern."""
    escaped = False
    for char in pattern:
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char in _WILDCARDS:
            return True
    return False


def go_match(pattern: str, name: str) -> bool:
    """Whether the pattern matches the whole name.

    Takes time in proportion to the product of both lengths at worst.

    Raises:
        ContextError: the pattern is not well formed (`pattern-invalid`).

    Spec: Go path/filepath.Match.
    """
    tokens = _tokens(pattern)
    at = index = 0
    # Where to go on when the rest does not fit: one more character for the last star.
    retry_token, retry_at = -1, 0
    while at < len(name) or index < len(tokens):
        if index < len(tokens):
            token = tokens[index]
            if token.star:
                retry_token, retry_at = index, at
                index += 1
                continue
            if at < len(name) and token.accepts(name[at]):
                at += 1
                index += 1
                continue
        if retry_token < 0 or retry_at >= len(name) or name[retry_at] == "/":
            return False
        retry_at += 1
        at, index = retry_at, retry_token + 1
    return True


def check_pattern(pattern: str) -> None:
    """Raise what `go_match` would raise for the pattern."""
    _tokens(pattern)


@lru_cache(maxsize=256)
def _tokens(pattern: str) -> tuple[_Token, ...]:
    tokens: list[_Token] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            tokens.append(_STAR)
        elif char == "?":
            tokens.append(_ANY)
        elif char == "[":
            token, at = _set(pattern, at)
            tokens.append(token)
        else:
            if char == "\\":
                if at == len(pattern):
                    raise _bad(pattern)
                char = pattern[at]
                at += 1
            tokens.append(_Token(star=False, negated=False, ranges=((char, char),)))
    return tuple(tokens)


def _set(pattern: str, at: int) -> tuple[_Token, int]:
    """Read what follows `[`, the closing bracket too."""
    negated = pattern.startswith("^", at)
    at += negated
    ranges: list[tuple[str, str]] = []
    while not (ranges and pattern.startswith("]", at)):
        low, at = _set_char(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _set_char(pattern, at + 1)
        ranges.append((low, high))
    return _Token(star=False, negated=negated, ranges=tuple(ranges)), at + 1


def _set_char(pattern: str, at: int) -> tuple[str, int]:
    char = pattern[at : at + 1]
    if char in ("", "-", "]"):
        raise _bad(pattern)
    if char == "\\":
        at += 1
        char = pattern[at : at + 1]
    if not char or at + 1 == len(pattern):
        raise _bad(pattern)
    return char, at + 1


def _bad(pattern: str) -> ContextError:
    return ContextError(
        f"{pattern} is no pattern: a set or an escape is not complete",
        hint="a backslash before a character makes it plain",
        code="pattern-invalid",
    )
