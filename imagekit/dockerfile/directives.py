"""The header of a Dockerfile: parser directives, and the frontend that `syntax` asks for.

A directive is `# key=value` above everything else; the first line that is none ends the header.
"""

import json
import re

from imagekit.dockerfile.instructions import Directive, SyntaxDirective

NAMES = frozenset({"syntax", "escape", "check"})
"""The directives there are; a comment with any other key ends the header."""

_SPACE = r"[\t\n\f\r ]*"
_BODY = rf"{_SPACE}([a-zA-Z][a-zA-Z0-9]*){_SPACE}={_SPACE}(.+?){_SPACE}\Z"
_HASH = re.compile("#" + _BODY)
_SLASHES = re.compile("//" + _BODY)


def match_directive(line: str) -> tuple[str, str] | None:
    """Return the lower case name and the value of a directive, None for any other line."""
    return _match(_HASH, line)


def read_directives(text: str) -> tuple[Directive, ...]:
    """Return the directives whose `#` is in column 1, up to the first repetition."""
    return _read(_HASH, text.removeprefix("\ufeff"), 1)


def check_directive(text: str) -> Directive | None:
    """Return the options of build checks that the header has, or None; `#!` may stand above."""
    text = text.removeprefix("\ufeff")
    first = 1
    if text.startswith("#!"):
        text, first = text.partition("\n")[2], 2
    return next((d for d in _read(_HASH, text, first) if d.name == "check"), None)


def detect_syntax(text: str) -> SyntaxDirective | None:
    """Return the frontend that the text asks for, or None.

    Unlike the other directives it may stand below a `#!` line, be written `// syntax=`, or be
    the key `syntax` of a JSON object, in which case its line is 0.
    """
    text = text.removeprefix("\ufeff")
    first = 1
    if text.startswith("#!"):
        text = text.partition("\n")[2]
        first = 2
    for pattern in (_HASH, _SLASHES):
        for directive in _read(pattern, text, first):
            if directive.name == "syntax":
                value = directive.value
                return SyntaxDirective(
                    reference=value.partition(" ")[0], value=value, line=directive.line
                )
    found = _json_syntax(text)
    if found is None:
        return None
    return SyntaxDirective(reference=found, value=found, line=first - 1)


def _match(pattern: re.Pattern[str], line: str) -> tuple[str, str] | None:
    match = pattern.match(line)
    if match is None or match[1].lower() not in NAMES:
        return None
    return match[1].lower(), match[2]


def _read(pattern: re.Pattern[str], text: str, first: int) -> tuple[Directive, ...]:
    found: dict[str, Directive] = {}
    at, number = 0, first
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        pair = _match(pattern, text[at:end])
        if pair is None or pair[0] in found:
            break
        found[pair[0]] = Directive(name=pair[0], value=pair[1], line=number)
        at, number = end + 1, number + 1
    return tuple(found.values())


def _json_syntax(text: str) -> str | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None  # Not a JSON object, so an ordinary Dockerfile.
    if not all(isinstance(value, str) for value in document.values()):
        return None
    value = document.get("syntax")
    return str(value) if value is not None else None
