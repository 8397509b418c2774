"""The physical lines of one instruction, edited by places in its logical line.

A logical line is what remains when continuations are joined and the comments between them are
dropped. `Header` knows for each of its characters where that stands in the physical lines, so
that a word can be changed without touching what lies between words.
"""

from bisect import bisect_right

from attrs import frozen

from imagekit.dockerfile.lines import split_escape
from imagekit.dockerfile.words import BLANKS


@frozen(kw_only=True)
class Header:
    """An instruction without its heredocs.

    Attributes:
        raw: its physical lines, without the last line end.
        text: the logical line.
        count: how many physical lines there are.
        starts: where each piece of the logical line begins in it.
        offsets: where each piece begins in `raw`.
        escape: the character that continues lines.
    """

    raw: str
    text: str
    count: int
    starts: tuple[int, ...]
    offsets: tuple[int, ...]
    escape: str

    @classmethod
    def read(cls, text: str, escape: str) -> "Header":
        """Read the instruction that begins a text; what lies below it is left out."""
        pieces: list[str] = []
        starts: list[int] = []
        offsets: list[int] = []
        at = count = length = 0
        continues = True
        lines = text.split("\n")
        while continues and count < len(lines):
            line = lines[count]
            bare = line.rstrip("\r").lstrip(BLANKS)
            is_text = count == 0 or (bare and not bare.startswith("#"))
            if is_text:
                inner = bare if count == 0 else line.rstrip("\r")
                piece, continues = split_escape(inner, escape)
                lead = len(line.rstrip("\r")) - len(inner)
                starts.append(length)
                offsets.append(at + lead)
                pieces.append(piece)
                length += len(piece)
            at += len(line) + 1
            count += 1
        return cls(
            raw="\n".join(lines[:count]),
            text="".join(pieces),
            count=count,
            starts=tuple(starts),
            offsets=tuple(offsets),
            escape=escape,
        )

    def spliced(self, start: int, end: int, new: str) -> "Header":
        """The same with part of the logical line replaced; `end` is behind the part."""
        first, last = self._raw_at(start), self._raw_at(end - 1) + 1 if end > start else None
        rest = self.raw[first if last is None else last :]
        return Header.read(self.raw[:first] + new + rest, self.escape)

    def rewritten(self, text: str) -> "Header":
        """The same with another logical line, its indentation and line end kept."""
        line = self.raw.partition("\n")[0]
        indent = line[: len(line) - len(line.lstrip(BLANKS))]
        end = "\r" if self.raw.endswith("\r") else ""
        return Header.read(indent + text + end, self.escape)

    def _raw_at(self, place: int) -> int:
        piece = bisect_right(self.starts, place) - 1
        return self.offsets[piece] + place - self.starts[piece]
