r"""One pattern of a `.dockerignore`, compiled as moby's patternmatcher does, quirks and all.

Moby turns a pattern into a regular expression of Go's syntax by going over its characters, so
what the author wrote in brackets or behind a backslash is read by a regular expression engine:
`[*]` becomes `[[^/]*]`, and `\d` is a digit. To agree, this writes the same expression, reads it
back as a list of items, and matches those.

Three kinds need no expression: a plain path, `path/**`, and `**` before a plain path, which is
a test of the path's end.
"""

import re
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from imagekit.dockerfile.gopath import check_pattern
from imagekit.errors import ContextError

_QUOTED = frozenset(".+()|{}$")
_NOT_SLASH = "[^/]"
_DEEP = "(.*/)?"
_MAX_REGEX_STARS = 2
_CLASSES = {
    "d": "0-9",
    "s": r"\t\n\f\r ",
    "w": "0-9A-Za-z_",
}
_CONTROLS = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_POSIX = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7f",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}


class Kind(Enum):
    """How a pattern is matched."""

    EXACT = auto()
    PREFIX = auto()
    SUFFIX = auto()
    REGEX = auto()


class _Sort(Enum):
    ONE = auto()
    STAR = auto()
    DEEP = auto()
    ALL = auto()
    ANCHOR = auto()


class _Item(NamedTuple):
    """A piece of an expression; `source` is that of one character, in Python's syntax."""

    sort: _Sort
    source: str


class Pattern(NamedTuple):
    """A compiled pattern.

    Attributes:
        text: what the kind compares with; the pattern itself for REGEX.
        source: the expression in Python's syntax, to be matched to the end; empty if the kind
            needs none or `slow` is there.
        depth: how many slashes a path that the expression matches has; -1 if it varies.
        slow: a matcher that takes linear time where an expression might not.
    """

    kind: Kind
    text: str
    source: str = ""
    depth: int = -1
    slow: Callable[[str], bool] | None = None


def compile_pattern(text: str) -> Pattern:
    """Compile a cleaned pattern without its `!`.

    Raises:
        ContextError: it is not well formed (`pattern-invalid`).
    """
    check_pattern(text)
    kind, expression = _expression(text)
    if kind is Kind.EXACT:
        return Pattern(kind, text)
    if kind is Kind.PREFIX:
        return Pattern(kind, text[:-2])
    if kind is Kind.SUFFIX:
        return Pattern(kind, text[2:])
    items = _Reader(text, expression).items()
    source = _safe_source(items)
    if source is not None:
        return Pattern(kind, text, source, _depth(items))
    return Pattern(kind, text, slow=_Automaton(items))


def _expression(text: str) -> tuple[Kind, str]:
    """Return how moby would match, and its expression in Go's syntax without `^` and `$`."""
    kind = Kind.EXACT
    out: list[str] = []
    at = index = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "*" and text.startswith("*", at):
            at += 1
            at += text.startswith("/", at)
            if at < len(text):
                out.append(_DEEP)
                kind = Kind.REGEX
            elif kind is Kind.EXACT:
                kind = Kind.PREFIX
            else:
                out.append(".*")
                kind = Kind.REGEX
            if index == 0:
                kind = Kind.SUFFIX
        elif char in "*?":
            out.append(_NOT_SLASH + ("*" if char == "*" else ""))
            kind = Kind.REGEX
        elif char in _QUOTED:
            out.append("\\" + char)
        elif char == "\\":
            out.append(text[at - 1 : at + 1])
            at += 1
            kind = Kind.REGEX
        else:
            out.append(char)
            if char in "[]":
                kind = Kind.REGEX
        index += 1
    return kind, "".join(out)


class _Reader:
    """Reads an expression of Go's syntax, of the forms that `_expression` writes."""

    def __init__(self, pattern: str, expression: str) -> None:
        self._pattern = pattern
        self._text = expression
        self._at = 0

    def items(self) -> list[_Item]:
        items: list[_Item] = []
        while self._at < len(self._text):
            char = self._take()
            if char == "(":
                self._at += len(_DEEP) - 1
                items.append(_Item(_Sort.DEEP, "."))
            elif char == ".":
                self._at += 1
                items.append(_Item(_Sort.ALL, "."))
            elif char == "^":
                items.append(_Item(_Sort.ANCHOR, r"\A"))
            elif char == "[":
                source = self._set()
                star = self._text.startswith("*", self._at)
                self._at += star
                items.append(_Item(_Sort.STAR if star else _Sort.ONE, source))
            elif char == "\\":
                items += self._escape()
            else:
                items.append(_Item(_Sort.ONE, re.escape(char)))
        return items

    def _take(self) -> str:
        if self._at >= len(self._text):
            raise self._bad()
        self._at += 1
        return self._text[self._at - 1]

    def _bad(self) -> ContextError:
        return ContextError(
            f"{self._pattern} is no pattern: it holds an escape or a set that means nothing",
            hint="only *, ?, [, ] and \\ need a backslash",
            code="pattern-invalid",
        )

    def _escape(self) -> list[_Item]:
        char = self._take()
        if char in "Ab" or char in "Bz":
            return [_Item(_Sort.ANCHOR, "\\" + ("Z" if char == "z" else char))]
        if char == "Q":
            end = self._text.find("\\E", self._at)
            literal = self._text[self._at : end if end >= 0 else len(self._text)]
            self._at += len(literal) + 2
            return [_Item(_Sort.ONE, re.escape(one)) for one in literal]
        if char.lower() in _CLASSES:
            negation = "^" if char.isupper() else ""
            return [_Item(_Sort.ONE, f"[{negation}{_CLASSES[char.lower()]}]")]
        return [_Item(_Sort.ONE, re.escape(self._escaped_char(char)))]

    def _escaped_char(self, char: str) -> str:
        """Return what a backslash and this character, already read, stand for."""
        if char.isascii() and not char.isalnum():
            return char
        if char in _CONTROLS:
            return _CONTROLS[char]
        octal = re.compile("[0-7]{1,3}").match(self._text, self._at - 1)
        if octal and (char == "0" or len(octal.group()) > 1):
            self._at = octal.end()
            return chr(int(octal.group(), 8))
        hexadecimal = re.compile(r"[0-9A-Fa-f]{2}|\{[0-9A-Fa-f]{1,6}\}").match(
            self._text, self._at
        )
        if char != "x" or hexadecimal is None:
            raise self._bad()
        self._at = hexadecimal.end()
        code = int(hexadecimal.group().strip("{}"), 16)
        if code > 0x10FFFF:
            raise self._bad()
        return chr(code)

    def _set(self) -> str:
        """Read what follows `[`, the closing bracket too."""
        negated = self._text.startswith("^", self._at)
        self._at += negated
        parts: list[str] = []
        while not (parts and self._text.startswith("]", self._at)):
            parts.append(self._set_part())
        self._at += 1
        return f"[{'^' if negated else ''}{''.join(parts)}]"

    def _set_part(self) -> str:
        if self._text.startswith("[:", self._at):
            end = self._text.find(":]", self._at + 2)
            if end >= 0:
                return self._posix(end)
        low = self._set_char()
        if len(low) > 1:
            return low
        following = self._text[self._at + 1 : self._at + 2]
        if not self._text.startswith("-", self._at) or following in ("", "]"):
            return _in_set(low)
        self._at += 1
        high = self._set_char()
        if len(high) > 1 or high < low:
            raise self._bad()
        return f"{_in_set(low)}-{_in_set(high)}"

    def _posix(self, end: int) -> str:
        name = self._text[self._at + 2 : end]
        members = _POSIX.get(name.removeprefix("^"))
        if members is None:
            raise self._bad()
        self._at = end + 2
        return _complement(members) if name.startswith("^") else members

    def _set_char(self) -> str:
        """Return one character, or the inside of a set for a class such as that of digits."""
        char = self._take()
        if char != "\\":
            return char
        char = self._take()
        if char.lower() in _CLASSES:
            members = _CLASSES[char.lower()]
            return _complement(members) if char.isupper() else members
        return self._escaped_char(char)


def _in_set(char: str) -> str:
    return "\\" + char if char in "\\]^-[&~|" else char


def _complement(members: str) -> str:
    """Return the ASCII-based set's complement as the inside of a set."""
    inside = re.compile(f"[{members}]")
    others = "".join(_in_set(chr(c)) for c in range(0x80) if not inside.match(chr(c)))
    return others + "\x80-\U0010ffff"


def _safe_source(items: list[_Item]) -> str | None:
    """Return an expression that cannot take more than quadratic time, None if there is none."""
    if all(item.sort is not _Sort.STAR or item.source == _NOT_SLASH for item in items):
        source = _atomic_source(items)
        if source is not None:
            return source
    variable = (_Sort.STAR, _Sort.DEEP, _Sort.ALL)
    if sum(item.sort in variable for item in items) > _MAX_REGEX_STARS:
        return None
    return "".join(_plain_source(item) for item in items)


def _depth(items: list[_Item]) -> int:
    """Return how many slashes the items match, -1 if that is not fixed."""
    slashes = 0
    for sort, source in items:
        if sort is _Sort.DEEP or sort is _Sort.ALL:
            return -1
        if source.startswith("[") and source != _NOT_SLASH:
            return -1
        slashes += source == "/"
    return slashes


def _plain_source(item: _Item) -> str:
    match item.sort:
        case _Sort.DEEP:
            return "(?:.*/)?"
        case _Sort.ALL:
            return ".*"
        case _Sort.STAR:
            return item.source + "*"
        case _Sort.ONE | _Sort.ANCHOR:
            return item.source


def _atomic_source(items: list[_Item]) -> str | None:
    """Write the expression so that nothing once matched is given back, if that is the same.

    Between two stars of one path component the earliest match serves as well as any later one,
    since a star cannot cross the slash that ends the component. Between two `**` so does the
    earliest, if the part between them ends with a slash: what a later match would skip, the
    second `**` takes. None where a part does not end so, or a set might match a slash.
    """
    parts: list[list[_Item]] = [[]]
    for item in items:
        if item.sort is _Sort.ANCHOR or (
            item.sort is _Sort.ONE and item.source.startswith("[") and item.source != _NOT_SLASH
        ):
            return None
        if item.sort is _Sort.DEEP:
            parts.append([])
        else:
            parts[-1].append(item)
    if any(part[-1:] != [_Item(_Sort.ONE, "/")] for part in parts[1:-1]):
        return None
    if len(parts) > 1 and parts[0] and parts[0][-1] != _Item(_Sort.ONE, "/"):
        return None
    first, *others = (_component_source(part) for part in parts)
    if not others:
        return first
    middle = "".join(f"(?>(?:.*?/)??{source})" for source in others[:-1])
    return f"(?>{first}){middle}(?:.*/)?{others[-1]}"


def _component_source(items: list[_Item]) -> str:
    """Write a part without `**`: each star up to the next star is one atomic group."""
    runs: list[str] = [""]
    for item in items:
        if item.sort is _Sort.STAR:
            runs.append("")
        else:
            runs[-1] += _plain_source(item)
    if len(runs) == 1:
        return runs[0]
    middle = "".join(f"(?>{_NOT_SLASH}*?{run})" for run in runs[1:-1])
    return f"{runs[0]}{middle}{_NOT_SLASH}*{runs[-1]}"


class _Automaton:
    """A matcher that follows all ways through the items at once.

    A state is an item's index, or its complement when inside the `.*` of a `**/`.
    """

    def __init__(self, items: list[_Item]) -> None:
        self._sorts = [item.sort for item in items]
        self._tests = [re.compile(item.source).match for item in items]

    def __call__(self, path: str) -> bool:
        states = self._closed({0}, path, 0)
        for at, char in enumerate(path):
            states = self._closed(self._after(states, char), path, at + 1)
            if not states:
                return False
        return len(self._sorts) in states

    def _closed(self, states: set[int], path: str, at: int) -> set[int]:
        """Add what can be reached without reading a character."""
        todo = list(states)
        while todo:
            state = todo.pop()
            if state < 0 or state == len(self._sorts):
                continue
            sort = self._sorts[state]
            if sort is _Sort.ONE:
                continue
            if sort is _Sort.ANCHOR and not self._tests[state](path, at):
                continue
            if state + 1 not in states:
                states.add(state + 1)
                todo.append(state + 1)
        return states

    def _after(self, states: set[int], char: str) -> set[int]:
        """Return what is reached by reading a character."""
        reached: set[int] = set()
        for state in states:
            index = state if state >= 0 else ~state
            if index == len(self._sorts) or not self._tests[index](char):
                continue
            match self._sorts[index]:
                case _Sort.ONE:
                    reached.add(index + 1)
                case _Sort.DEEP:
                    reached.add(~index)
                    if char == "/":
                        reached.add(index + 1)
                case _Sort.STAR | _Sort.ALL:
                    reached.add(index)
                case _Sort.ANCHOR:
                    pass
        return reached
