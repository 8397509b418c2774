"""A logical line to a `Node`: keyword, flags and the keyword's own way to split its arguments."""

import json
import math
import re
from collections.abc import Callable
from typing import TypeAlias

from attrs import evolve, frozen

from imagekit.dockerfile.instructions import Heredoc, Node
from imagekit.dockerfile.words import BLANKS, expand_words
from imagekit.errors import ExpansionError

_GAP = re.compile(r"[\t\v\f\r ]+")
_HEREDOC = re.compile(r"([0-9]*)<<(-?)[\t\n\f\r ]*([^<]*)", re.DOTALL)
_LONE = re.compile("[\ud800-\udfff]")
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|[][{}]')
_MAX_JSON_DEPTH = 10_000
_NO_ENV: dict[str, str] = {}
_BYTE_BLANKS = "\t\n\v\f\r \x85\xa0"


class GrammarError(ValueError):
    """A line that its keyword's grammar refuses; `word` is the part that is wrong."""

    def __init__(self, message: str, code: str, word: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.word = word


@frozen
class _Arguments:
    """What a grammar makes of the text behind the keyword and its flags."""

    args: tuple[str, ...] = ()
    json: bool = False
    sub: Node | None = None


_Grammar: TypeAlias = Callable[[str, str], _Arguments]


def read_node(text: str, escape: str, *, start: int, end: int) -> Node:
    """Split one logical line.

    Raises:
        GrammarError: `json-not-strings`, `missing-equals` or `needs-two-arguments`.
    """
    word, *others = _GAP.split(text.strip(BLANKS), maxsplit=1)
    flags: tuple[str, ...] = ()
    rest = ""
    if others:
        flags, rest = split_flags(others[0], escape)
        rest = rest.strip(BLANKS)
    cmd = word.lower()
    found = _GRAMMARS.get(cmd, _unknown)(rest, escape)
    sub = evolve(found.sub, start=start, end=end) if found.sub else None
    return Node(
        cmd=cmd,
        word=word,
        original=text,
        flags=flags,
        json=found.json,
        args=found.args,
        start=start,
        end=end,
        sub=sub,
    )


def split_flags(text: str, escape: str) -> tuple[tuple[str, ...], str]:
    """Return the leading `--name=value` words, unquoted, and what follows them."""
    if not text.lstrip(BLANKS).startswith("--"):
        return (), text
    if text.isascii():
        return _split_flags(text, escape)
    # BuildKit reads flags byte by byte, each byte as one character.
    latin = text.encode("utf-8", "surrogateescape").decode("latin-1")
    flags, rest = _split_flags(latin, escape)
    return flags, rest.encode("latin-1").decode("utf-8", "surrogateescape")


def _split_flags(text: str, escape: str) -> tuple[tuple[str, ...], str]:
    flags: list[str] = []
    at = 0
    while at < len(text):
        if text[at] in _BYTE_BLANKS:
            at += 1
            continue
        if not text.startswith("--", at):
            return tuple(flags), text[at:]
        word, at = _flag_word(text, at, escape)
        if word == "--":
            return tuple(flags), text[at:]
        flags.append(word)
    return tuple(flags), ""


def _flag_word(text: str, at: int, escape: str) -> tuple[str, int]:
    """Read one word, its quotes removed; an unclosed quote ends with the text."""
    word: list[str] = []
    quote = ""
    while at < len(text):
        char = text[at]
        at += 1
        if quote and char == quote:
            quote = ""
        elif not quote and char in _BYTE_BLANKS:
            return "".join(word), at - 1
        elif not quote and char in "'\"":
            quote = char
        elif char == escape:
            word.append(text[at : at + 1])
            at += 1
        else:
            word.append(char)
    return "".join(word), at


def split_words(text: str, escape: str) -> list[str]:
    """Split at blanks outside quotes; quotes and escapes stay in the words."""
    text = _LONE.sub("\ufffd", text)
    words: list[str] = []
    at, start = 0, -1
    quote = ""
    while at < len(text):
        char = text[at]
        if start < 0:
            if char in BLANKS:
                at += 1
                continue
            start = at
        if char == escape and quote != "'":
            if at + 1 == len(text):
                # An escape with nothing behind it is dropped.
                text = text[:at]
                break
            at += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in BLANKS:
            words.append(text[start:at])
            start = -1
        at += 1
    if start >= 0 and text[start:]:
        words.append(text[start:])
    return words


def heredocs_of(line: str) -> list[Heredoc]:
    """Return the heredocs that a line announces, in order, their bodies still empty."""
    try:
        words = expand_words(line, _NO_ENV, raw_quotes=True, raw_escapes=True, skip_unset=True)
    except ExpansionError:
        return []  # Text that is no list of words announces none: it is for the shell to judge.
    return [found for found in map(heredoc_of, words) if found is not None]


def heredoc_of(word: str) -> Heredoc | None:
    """Return the heredoc that a word announces, `[fd]<<[-]NAME`, or None.

    Raises:
        ExpansionError: a name that cannot be read, such as `${}`.
    """
    match = _HEREDOC.fullmatch(word)
    if match is None or not match[3]:
        return None
    names = expand_words(match[3], _NO_ENV, skip_unset=True)
    quoted = expand_words(match[3], _NO_ENV, skip_unset=True, raw_quotes=True)
    if len(names) != 1 or len(quoted) != 1:
        return None
    return Heredoc(
        name=names[0],
        content="",
        expand=names == quoted,
        chomp=match[2] == "-",
        fd=min(int(match[1][:20] or "0"), 2**64 - 1),
    )


def may_have_heredocs(node: Node) -> bool:
    """Whether the grammar looks for `<<` at all: RUN, COPY, ADD, not in JSON form."""
    inner = node.sub if node.cmd == "onbuild" else node
    return inner is not None and inner.cmd in ("add", "copy", "run") and not inner.json


def _json_array(text: str) -> tuple[str, ...] | None:
    """Return the strings of a JSON array, None when the text is no JSON array."""
    if not text.startswith("["):
        return None
    try:
        items = json.loads(
            text, parse_int=_number, parse_float=_number, parse_constant=_no_constant
        )
    except ValueError:
        return None  # Then it is plain text that happens to start with a bracket.
    except RecursionError:
        if not _closes(text):
            return None
        items = [None]
    if not all(isinstance(item, str) for item in items):
        raise GrammarError("an array in JSON form can hold strings only", "json-not-strings", text)
    return tuple(_LONE.sub("\ufffd", item) for item in items)


def _closes(text: str) -> bool:
    """Whether the brackets of a deep array close, and are not deeper than Go's reader goes."""
    depth = 0
    for match in _BRACKET.finditer(text):
        depth += (match[0] in "[{") - (match[0] in "]}")
        if depth > _MAX_JSON_DEPTH:
            return False
    return depth == 0


def _number(text: str) -> None:
    """Stand for a number; one that Go has no float for makes the whole array plain text."""
    if math.isinf(float(text)):
        raise ValueError(f"{text} is out of range")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _unknown(_: str, __: str) -> _Arguments:
    return _Arguments(("",))


def _text(rest: str, _: str) -> _Arguments:
    return _Arguments((rest,) if rest else ())


def _fields(rest: str, _: str) -> _Arguments:
    return _Arguments(tuple(_GAP.split(rest)) if rest else ())


def _json_or_text(rest: str, escape: str) -> _Arguments:
    found = _json_array(rest.lstrip(BLANKS))
    return _text(rest, escape) if found is None else _Arguments(found, json=True)


def _json_or_fields(rest: str, escape: str) -> _Arguments:
    found = _json_array(rest.lstrip(BLANKS))
    return _fields(rest, escape) if found is None else _Arguments(found, json=True)


def _words(rest: str, escape: str) -> _Arguments:
    return _Arguments(tuple(split_words(rest, escape)))


def _pairs(keyword: str) -> _Grammar:
    """`KEY=VALUE ...`, or the older `KEY REST` when the first word has no `=`."""

    def read(rest: str, escape: str) -> _Arguments:
        words = split_words(rest, escape)
        if not words:
            return _Arguments()
        if "=" not in words[0]:
            parts = _GAP.split(rest, maxsplit=1)
            if len(parts) < 2:
                raise GrammarError(
                    f"{keyword} must have two arguments", "needs-two-arguments", rest
                )
            return _Arguments((*parts, ""))
        args: list[str] = []
        for word in words:
            key, equals, value = word.partition("=")
            if not equals:
                raise GrammarError(
                    f"{keyword} has {word} where name=value is wanted", "missing-equals", word
                )
            args += (key, value, equals)
        return _Arguments(tuple(args))

    return read


def _healthcheck(rest: str, escape: str) -> _Arguments:
    kind, *others = re.split(f"[{_BYTE_BLANKS}]+", rest, maxsplit=1)
    if not kind:
        return _Arguments()
    found = _json_or_text(others[0] if others else "", escape)
    return _Arguments((kind, *found.args), json=found.json)


def _onbuild(rest: str, escape: str) -> _Arguments:
    if not rest:
        return _Arguments()
    return _Arguments(sub=read_node(rest, escape, start=0, end=0))


_GRAMMARS: dict[str, _Grammar] = {
    "add": _json_or_fields,
    "arg": _words,
    "cmd": _json_or_text,
    "copy": _json_or_fields,
    "entrypoint": _json_or_text,
    "env": _pairs("ENV"),
    "expose": _fields,
    "from": _fields,
    "healthcheck": _healthcheck,
    "label": _pairs("LABEL"),
    "maintainer": _text,
    "onbuild": _onbuild,
    "run": _json_or_text,
    "shell": _json_or_text,
    "stopsignal": _text,
    "user": _text,
    "volume": _json_or_fields,
    "workdir": _text,
}

KEYWORDS = tuple(_GRAMMARS)
"""The instructions there are, in lower case."""
