"""Words: quoting, `$name` and `${name...}`, and splitting at blanks.

This is the small shell that Dockerfile arguments are written in, not a POSIX shell: no command
substitution, no arithmetic, no tilde. Which words of which instruction are expanded, and with
which variables, is decided in `plan`.

    $n ${n} ${n:-w} ${n-w} ${n:+w} ${n+w} ${n:?m} ${n?m} ${n#p} ${n##p} ${n%p} ${n%%p}
    ${n/p/r} ${n//p/r}
"""

import re
from collections.abc import Mapping
from typing import NoReturn

from attrs import frozen

from imagekit.dockerfile import globs
from imagekit.errors import ExpansionError

MAX_OUTPUT = 1 << 20
"""Characters that one word may expand to."""

MAX_DEPTH = 32
"""How deep `${a:-${b:-...}}` may nest."""

BLANKS = (
    "\t\n\v\f\r \x85\xa0\u1680"
    + "".join(map(chr, range(0x2000, 0x200B)))
    + ("\u2028\u2029\u202f\u205f\u3000")
)
"""What separates words. Narrower than `str.isspace`, which counts U+001C to U+001F too."""

_BLANK_RUN = re.compile(f"[{BLANKS}]+")
_HEREDOC_MARK = re.compile(r"<<[\t\r ]*")
_SPECIAL_NAMES = "@*#?-$!"
_SHOWN = 60


@frozen
class Expansion:
    """A word after expansion.

    Attributes:
        result: quotes removed, variables replaced, blanks kept.
        unmatched: the names that were asked for and not set, in order of first use.
        matched: those that were set.
    """

    result: str
    unmatched: tuple[str, ...]
    matched: tuple[str, ...] = ()


def expand(
    word: str,
    env: Mapping[str, str],
    *,
    escape: str = "\\",
    raw_quotes: bool = False,
    skip_quotes: bool = False,
    skip_unset: bool = False,
) -> Expansion:
    """Return `word` expanded as one word.

    Args:
        word: text as written.
        env: the variables in sight; others are empty.
        escape: the file's escape character.
        raw_quotes: keep quote characters in the result.
        skip_quotes: quotes are plain characters, as in the body of a heredoc.
        skip_unset: leave variables that are not set as they are written.

    Raises:
        ExpansionError: a quote or brace that is not closed, a form of `${}` that does not
            exist, `${n:?m}` of an unset name, or a limit that is passed (MAX_OUTPUT, MAX_DEPTH).
    """
    if (
        "$" not in word
        and escape not in word
        and (skip_quotes or ("'" not in word and '"' not in word))
    ):
        return Expansion(word.removeprefix("\ufeff"), ())
    lexer = _Lexer(word, env, escape, skip_quotes=skip_quotes)
    lexer.raw_quotes, lexer.skip_unset = raw_quotes, skip_unset
    try:
        result = lexer.run()
    except ExpansionError as error:
        error.unmatched = tuple(lexer.unmatched)
        raise
    return Expansion(result, tuple(lexer.unmatched), tuple(lexer.matched))


def expand_words(
    word: str,
    env: Mapping[str, str],
    *,
    escape: str = "\\",
    raw_quotes: bool = False,
    raw_escapes: bool = False,
    skip_quotes: bool = False,
    skip_unset: bool = False,
) -> list[str]:
    """Return `word` expanded and then split at the blanks that no quote or escape protects.

    Blanks that come out of an unquoted variable split too. Empty words are dropped, quoted or
    not. Arguments and errors are those of `expand`; `raw_escapes` keeps escapes in the result.
    """
    lexer = _Lexer(word, env, escape, skip_quotes=skip_quotes)
    lexer.raw_quotes, lexer.skip_unset, lexer.raw_escapes = raw_quotes, skip_unset, raw_escapes
    splitter = _Splitter()
    lexer.run(splitter)
    return splitter.finish()


class _Splitter:
    """Collects words from text that may split and text that may not."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._word: list[str] = []

    def add_source(self, text: str) -> None:
        """Add text as it is written: blanks behind `<<` belong to the word."""
        at = 0
        for mark in _HEREDOC_MARK.finditer(text):
            self.add(text[at : mark.start()])
            self.add_raw(mark.group())
            at = mark.end()
        self.add(text[at:])

    def add(self, text: str) -> None:
        at = 0
        for blanks in _BLANK_RUN.finditer(text):
            self.add_raw(text[at : blanks.start()])
            at = blanks.end()
            self._flush()
        self.add_raw(text[at:])

    def drop_word(self) -> None:
        self._word.clear()

    def add_raw(self, text: str) -> None:
        if text:
            self._word.append(text)

    def finish(self) -> list[str]:
        self._flush()
        return self._words

    def _flush(self) -> None:
        if self._word:
            self._words.append("".join(self._word))
            self._word.clear()


class _Lexer:
    """One pass over one word."""

    def __init__(
        self, word: str, env: Mapping[str, str], escape: str, *, skip_quotes: bool
    ) -> None:
        self._text = word.removeprefix("\ufeff")
        self._env = env
        self._escape = escape
        self._special = "$" + escape + ("" if skip_quotes else "'\"")
        self._at = 0
        self._depth = 0
        self.raw_quotes = False
        self.raw_escapes = False
        self.skip_unset = False
        self.unmatched: dict[str, None] = {}
        self.matched: dict[str, None] = {}
        self._splitter: _Splitter | None = None

    def run(self, splitter: _Splitter | None = None) -> str:
        self._splitter = splitter
        return self._until("", raw_escapes=self.raw_escapes)

    def _fail(self, reason: str) -> NoReturn:
        raise self._error(reason)

    def _error(self, reason: str) -> ExpansionError:
        shown = self._text if len(self._text) <= _SHOWN else self._text[:_SHOWN] + "..."
        return ExpansionError(f'cannot expand "{shown}": {reason}')

    def _check_size(self, size: int) -> None:
        if size > MAX_OUTPUT:
            self._fail(f"the result has more than {MAX_OUTPUT} characters")

    def _until(self, stop: str, *, raw_escapes: bool) -> str:
        """Read up to the character `stop`, which is consumed, or to the end if it is empty."""
        outer, self.raw_escapes = self.raw_escapes, raw_escapes
        if stop and self._splitter is not None:
            # BuildKit shares one buffer with nested words: the split form, and only that,
            # loses what stands before `${n:-w}` in the same word.
            self._splitter.drop_word()
        plain = re.compile(f"[^{re.escape(self._special + stop)}]+")
        out: list[str] = []
        size = 0
        while self._at < len(self._text):
            char = self._text[self._at]
            add = _Splitter.add_raw
            if char == stop:
                self._at += 1
                self.raw_escapes = outer
                return "".join(out)
            if char not in self._special:
                match = plain.match(self._text, self._at)
                piece = match.group() if match else char
                self._at += len(piece)
                add = _Splitter.add_source
            elif char == "$":
                piece = self._dollar()
                add = _Splitter.add
            elif char == "'" and char != self._escape:
                piece = self._single_quoted()
            elif char == '"':
                piece = self._double_quoted()
            else:
                piece = self._text[self._at + 1 : self._at + 2]
                self._at += 2
                piece = char + piece if raw_escapes else piece
            out.append(piece)
            size += len(piece)
            self._check_size(size)
            if self._splitter is not None and not stop:
                add(self._splitter, piece)
        if stop:
            self._fail(f"{stop} is missing")
        self.raw_escapes = outer
        return "".join(out)

    def _single_quoted(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            self._fail("a single quote is not closed")
        start, self._at = self._at, end + 1
        return self._text[start : end + 1] if self.raw_quotes else self._text[start + 1 : end]

    def _double_quoted(self) -> str:
        plain = re.compile(f'[^"${re.escape(self._escape)}]+')
        out = ['"'] if self.raw_quotes else []
        size = 0
        self._at += 1
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == '"':
                self._at += 1
                if self.raw_quotes:
                    out.append('"')
                return "".join(out)
            if char == "$":
                piece = self._dollar()
            elif char == self._escape:
                piece = self._escaped_in_quotes()
            else:
                match = plain.match(self._text, self._at)
                piece = match.group() if match else char
                self._at += len(piece)
            out.append(piece)
            size += len(piece)
            self._check_size(size)
        raise self._error("a double quote is not closed")

    def _escaped_in_quotes(self) -> str:
        """An escape counts before a double quote, `$` and itself, else it stands for itself."""
        following = self._text[self._at + 1 : self._at + 2]
        self._at += 1
        lead = self._escape if self.raw_escapes else ""
        if not following:
            return lead
        if following in ('"', "$", self._escape):
            self._at += 1
            return lead + following
        return lead + self._escape

    def _dollar(self) -> str:
        self._at += 1
        if not self._text.startswith("{", self._at):
            name = self._name()
            if not name:
                return "$"
            value = self._lookup(name)
            if value is None:
                return "$" + name if self.skip_unset else ""
            return value
        self._at += 1
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"it nests deeper than {MAX_DEPTH}")
        value = self._braced()
        self._depth -= 1
        return value

    def _braced(self) -> str:
        """Read what follows `${`, the closing brace too."""
        following = self._text[self._at : self._at + 1]
        if not following:
            self._fail("} is missing")
        if following in "{}:":
            self._fail("bad substitution")
        name = self._name()
        sign = self._take()
        if sign == "}":
            value = self._lookup(name)
            if value is None:
                return f"${{{name}}}" if self.skip_unset else ""
            return value
        if sign == "/":
            return self._replaced(name)
        colon = sign == ":"
        if colon:
            sign = self._take()
        if not sign:
            self._fail("} is missing")
        if sign in "+-?":
            return self._conditional(name, sign, colon=colon)
        if sign in "#%" and not colon:
            return self._trimmed(name, sign)
        raise self._error(f"unsupported modifier {':' if colon else ''}{sign}")

    def _conditional(self, name: str, sign: str, *, colon: bool) -> str:
        """`-`, `+` and `?`; with a colon an empty value counts as none."""
        word = self._until("}", raw_escapes=False)
        value = self._lookup(name)
        if value is None and self.skip_unset:
            return f"${{{name}{':' if colon else ''}{sign}{word}}}"
        missing = value is None or (colon and not value)
        if sign == "+":
            return "" if missing else word
        if sign == "-":
            return word if value is None or missing else value
        if value is None or missing:
            state = "empty" if value is not None else "unset"
            self._fail(f"{name}: {word or f'it must not be {state}'}")
        return value

    def _trimmed(self, name: str, sign: str) -> str:
        """`#` and `%`, once for the shortest and twice for the longest match."""
        pattern = self._until("}", raw_escapes=True)
        value = self._lookup(name)
        if value is None and self.skip_unset:
            return f"${{{name}{sign}{pattern}}}"
        longest = pattern.startswith(sign)
        trim = globs.trim_prefix if sign == "#" else globs.trim_suffix
        try:
            return trim(value or "", pattern[longest:], longest=longest)
        except globs.BadPatternError as error:
            raise self._error(str(error)) from error

    def _replaced(self, name: str) -> str:
        """`/` and `//`."""
        every = self._text.startswith("/", self._at)
        self._at += every
        pattern = self._until("/", raw_escapes=True)
        replacement = self._until("}", raw_escapes=True)
        value = self._lookup(name)
        if value is None and self.skip_unset:
            return f"${{{name}{'//' if every else '/'}{pattern}/{replacement}}}"
        try:
            if not every:
                return globs.replace_first(value or "", pattern, replacement)
            return globs.replace_all(value or "", pattern, replacement, check=self._check_size)
        except globs.BadPatternError as error:
            raise self._error(str(error)) from error

    def _take(self) -> str:
        char = self._text[self._at : self._at + 1]
        self._at += 1
        return char

    def _name(self) -> str:
        """Read a run of digits, one special character, or letters, digits and `_`."""
        text, start = self._text, self._at
        end = start
        while end < len(text) and text[end].isdecimal():
            end += 1
        if end == start:
            if text[start : start + 1] and text[start] in _SPECIAL_NAMES:
                end += 1
            else:
                while end < len(text) and (
                    text[end] == "_" or text[end].isalpha() or text[end].isdecimal()
                ):
                    end += 1
        self._at = end
        return text[start:end]

    def _lookup(self, name: str) -> str | None:
        value = self._env.get(name)
        (self.unmatched if value is None else self.matched)[name] = None
        return value
