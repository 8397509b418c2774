"""Physical lines to logical lines: continuations, comments, blank lines, heredoc bodies.

`LineReader` hands out one logical line after the other. It knows no instruction; whether a line
has heredocs is for its caller to say, who then asks for their bodies.
"""

import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence

from attrs import frozen

from imagekit.dockerfile.directives import match_directive
from imagekit.dockerfile.words import BLANKS
from imagekit.errors import DockerfileSyntaxError, Span

MAX_FILE = 1 << 20
"""Bytes that a Dockerfile may have."""

MAX_LINE = 65535
"""Bytes that one physical line may have, without its line feed."""

_SEARCHED = 120
"""Lines of an instruction that are searched for a word: there may be a search for each line."""

_BOM = "\ufeff"
_NO_BYTE = re.compile("[\ud800-\udc7f\udd00-\udfff]")


@frozen(kw_only=True)
class LogicalLine:
    """An instruction's text.

    Attributes:
        text: joined, without comments; leading blanks of the first line cut.
        start: first physical line.
        end: last physical line.
        column: where the text starts in the first line, from 1.
        comments: the comment lines above, without `#` and outer blanks.
        has_blank: a blank line stands inside.
    """

    text: str
    start: int
    end: int
    column: int
    comments: tuple[str, ...]
    has_blank: bool


def decode(data: str | bytes, filename: str) -> str:
    """Return the text of a Dockerfile without a byte order mark.

    Bytes that are not UTF-8 become lone surrogates, so that `encode` gives them back.

    Raises:
        DockerfileSyntaxError: more than MAX_FILE bytes (`file-too-large`).
    """
    if isinstance(data, str):
        data = _NO_BYTE.sub("\ufffd", data).encode("utf-8", "surrogateescape")
    if len(data) > MAX_FILE:
        raise DockerfileSyntaxError(
            f"the file has {len(data)} bytes, at most {MAX_FILE} are read",
            filename=filename,
            code="file-too-large",
        )
    return data.decode("utf-8", "surrogateescape").removeprefix(_BOM)


def has_bom(data: str | bytes) -> bool:
    """Whether a byte order mark stands before a text."""
    return data.startswith(_BOM) if isinstance(data, str) else data.startswith(BOM_UTF8)


def printable(text: str) -> str:
    """Return `text` with a replacement character for each byte that was not UTF-8."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def with_word(lines: Sequence[str], span: Span, word: str) -> Span:
    """Return `span` with the columns of a word, if one of its lines holds it.

    Args:
        lines: of the whole file.
        span: whose column, if it has one, says where the first line starts to count.
        word: as it stands there; lines of comments are left out.
    """
    if word:
        for number, line, at in _lines_of(lines, span):
            found = line.find(word, at)
            if found >= 0:
                return _narrowed(span, number, found, found + len(word))
    return span


def with_variable(lines: Sequence[str], span: Span, name: str) -> Span:
    """Return `span` with the columns of `$name` or `${name`; arguments as in `with_word`."""
    pattern = re.compile(rf"\$(?:{re.escape(name)}\b|{{{re.escape(name)}\b[^}}]*}}?)")
    for number, line, at in _lines_of(lines, span):
        found = pattern.search(line, at)
        if found:
            return _narrowed(span, number, found.start(), found.end())
    return span


def _lines_of(lines: Sequence[str], span: Span) -> Iterator[tuple[int, str, int]]:
    """The number of each line of a span, its text, and where in it to start."""
    last = min(span.end_line, span.line + _SEARCHED, len(lines))
    for number in range(span.line, last + 1):
        line = lines[number - 1]
        if number == span.line:
            yield number, line, max(0, span.column - 1)
        elif not line.lstrip(BLANKS).startswith("#"):
            yield number, line, 0


def _narrowed(span: Span, number: int, start: int, end: int) -> Span:
    line = number if number > span.line else 0
    return Span(span.line, span.end_line, start + 1, end + 1, line)


def split_escape(line: str, escape: str) -> tuple[str, bool]:
    """Cut the escape that continues a line; one behind another escape does not continue it."""
    bare = line.rstrip(" \t")
    if bare.endswith(escape) and bare[-2:-1] != escape:
        return bare[:-1], True
    return line, False


class LineReader:
    """Reads a text from top to bottom.

    Attributes:
        escape: the escape character in force; known once the header is read.
        number: how many physical lines were read.
    """

    def __init__(self, text: str, filename: str = "Dockerfile") -> None:
        self._lines = text.split("\n")
        self._ends_open = bool(self._lines[-1])
        if not self._ends_open:
            self._lines.pop()
        self._text = text
        self._filename = filename
        self._directives: dict[str, int] | None = {}
        self.escape = "\\"
        self.number = 0

    def next_line(self) -> LogicalLine | None:
        """Return the next instruction's line, None at the end.

        Raises:
            DockerfileSyntaxError: `line-too-long`, `directive-repeated` or
                `escape-directive-invalid`.
        """
        comments: list[str] = []
        while self.number < len(self._lines):
            raw = self._take()
            stripped = raw.rstrip("\r").lstrip(BLANKS)
            is_directive = self._directives is not None and self._header(stripped)
            if stripped.startswith("#"):
                if not is_directive:
                    _collect(comments, raw)
                continue
            text, continues = split_escape(stripped, self.escape)
            if continues or text:
                return self._join(raw, text, tuple(comments), continues=continues)
        return None

    def heredoc(self, name: str, *, chomp: bool) -> str | None:
        """Return the raw lines up to the terminator, which is consumed; None if it is missing.

        Raises:
            DockerfileSyntaxError: `line-too-long`.
        """
        body: list[str] = []
        while self.number < len(self._lines):
            raw = self._take()
            line = raw.rstrip("\r")
            if (line.lstrip("\t") if chomp else line) == name:
                return "".join(body)
            body.append(raw + "\n")
        return None

    def fail(
        self, message: str, code: str, line: int, end: int = 0, *, hint: str = ""
    ) -> DockerfileSyntaxError:
        """Return the error of these lines, to be raised; line 0 is the whole file."""
        return DockerfileSyntaxError(
            printable(message),
            span=Span(line, end or line) if line else None,
            filename=self._filename,
            source=printable(self._text),
            hint=hint,
            code=code,
        )

    def _take(self) -> str:
        raw = self._lines[self.number]
        self.number += 1
        # A character has at most four bytes, so most lines need not be encoded to be measured.
        if len(raw) * 4 > MAX_LINE and len(raw.encode("utf-8", "surrogateescape")) > MAX_LINE:
            raise self.fail(
                f"the line has more than {MAX_LINE} bytes", "line-too-long", self.number
            )
        return raw

    def _join(
        self, raw: str, text: str, comments: tuple[str, ...], *, continues: bool
    ) -> LogicalLine:
        start = self.number
        pieces = [text]
        has_blank = False
        while continues and self.number < len(self._lines):
            line = self._take().rstrip("\r")
            bare = line.lstrip(BLANKS)
            if bare.startswith("#"):
                continue
            if not bare:
                has_blank = True
                continue
            piece, continues = split_escape(line, self.escape)
            pieces.append(piece)
        return LogicalLine(
            text="".join(pieces),
            start=start,
            end=self.number,
            column=len(raw) - len(raw.lstrip(BLANKS)) + 1,
            comments=comments,
            has_blank=has_blank,
        )

    def _header(self, line: str) -> bool:
        """Take a line as parser directive, or end the header."""
        pair = match_directive(line)
        if pair is None or self._directives is None:
            self._directives = None
            return False
        name, value = pair
        if name in self._directives:
            first = self._directives[name]
            raise self.fail(
                f"only one {name} parser directive can be used, the first is in line {first}",
                "directive-repeated",
                self.number,
            )
        self._directives[name] = self.number
        if name == "escape":
            if value not in ("\\", "`"):
                raise self.fail(
                    f"the escape character is {value}, it can be \\ or `",
                    "escape-directive-invalid",
                    self.number,
                )
            self.escape = value
        return True


def _collect(comments: list[str], raw: str) -> None:
    """Add a comment line to those of the next instruction; an empty one forgets them."""
    # BuildKit cuts one character, whatever it is: an indented comment keeps its `#`.
    comment = raw[1:].strip(BLANKS)
    if comment:
        comments.append(comment)
    else:
        comments.clear()
