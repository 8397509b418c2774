"""WWW-Authenticate: what a registry asks for before it answers.

    challenges = [ challenge *( OWS "," OWS challenge ) ]
    challenge  = scheme [ 1*SP ( token68 / [ param *( OWS "," OWS param ) ] ) ]
    param      = token BWS "=" BWS ( token / quoted-string )

The comma between challenges is the comma between parameters: a word that no `=` follows begins the
next challenge. Schemes that nobody here can meet are read and left out.

Spec: RFC 9110, 11.3 and 11.6.1; security spec N-5.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from attrs import field, frozen

MAX_HEADER: Final = 8 << 10
MAX_CHALLENGES: Final = 16
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's word for a word
_SCHEME: Final = re.compile(rf"({_TOKEN})(?:[ \t]+|(?=,)|$)")
_PARAM: Final = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))')
_TOKEN68: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")
_SEPARATOR: Final = re.compile(r"[ \t,]*")
_ESCAPED: Final = re.compile(r"\\(.)")


@frozen
class Challenge:
    """One way to authenticate; scheme and names of parameters are in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(factory=dict)

    def get(self, name: str) -> str:
        """The value of a parameter, empty if there is none."""
        return self.parameters.get(name, "")


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """The challenges of all WWW-Authenticate headers of an answer, in order.

    A header that is too long or breaks the grammar counts up to where it does.
    """
    found: list[Challenge] = []
    for header in headers:
        if len(header) <= MAX_HEADER:
            found += _parse_header(header)
    return tuple(found[:MAX_CHALLENGES])


def _parse_header(text: str) -> list[Challenge]:
    found: list[Challenge] = []
    at = _skip(text, 0)
    while at < len(text) and len(found) < MAX_CHALLENGES:
        match = _SCHEME.match(text, at)
        if match is None:
            break
        at = match.end()
        blob = _TOKEN68.match(text, at)
        if blob is not None and _PARAM.match(text, at) is None:
            found.append(Challenge(match[1].lower()))
            at = _skip(text, blob.end())
            continue
        parameters: dict[str, str] = {}
        while (param := _PARAM.match(text, at)) is not None:
            quoted, bare = param[2], param[3]
            value = bare if quoted is None else _ESCAPED.sub(r"\1", quoted)
            parameters.setdefault(param[1].lower(), value)
            at = _skip(text, param.end())
        found.append(Challenge(match[1].lower(), parameters))
        at = _skip(text, at)
    return found


def _skip(text: str, at: int) -> int:
    match = _SEPARATOR.match(text, at)
    return at if match is None else match.end()
