r"""Mending what build checks find, where that can be done without asking.

Each mend changes the text of one instruction and keeps what the file means, but that MAINTAINER
becomes the label that took its place. Left alone is what needs an author: secrets, undefined
variables, relative folders, names that are taken, and JSONArgsRecommended, since a shell may be
wanted.

This works on the lines of the file itself (`dockerfile.patch`), as `printer` does:
dockerfile-parse writes instructions anew, and loses their continuations, comments and heredocs.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from attrs import frozen

from imagekit.dockerfile.grammar import split_words
from imagekit.dockerfile.instructions import Dockerfile
from imagekit.dockerfile.patch import Header
from imagekit.dockerfile.words import BLANKS, expand
from imagekit.errors import ExpansionError
from imagekit.plan import rules
from imagekit.plan.checks import Finding

_AUTHORS: Final = "org.opencontainers.image.authors"
_GAP: Final = r"[\t\n\v\f\r ]"
_AS: Final = re.compile(rf"(?<={_GAP})as(?={_GAP}+\S+{_GAP}*\Z)", re.IGNORECASE)
_NAME: Final = re.compile(rf"\S+(?={_GAP}*\Z)")
_PLATFORM: Final = re.compile(rf"--platform=\S+{_GAP}+")
_PROTOCOL: Final = re.compile(rf"(?<=/)[A-Za-z]+(?={_GAP}|\Z)")
_LEGACY: Final = re.compile(rf"\S+{_GAP}+\S+?({_GAP}+)(\S.*?){_GAP}*\Z", re.DOTALL)
_MAINTAINER: Final = re.compile(rf"(\S+){_GAP}+(\S.*?){_GAP}*\Z", re.DOTALL)

_Mend = Callable[[Header, Finding], Header | None]


@frozen(kw_only=True)
class Fixed:
    """A file after mending.

    Attributes:
        text: of the file; a byte order mark is kept.
        mended: the findings that are gone, by line.
    """

    text: str
    mended: tuple[Finding, ...]


def fix(file: Dockerfile, findings: Iterable[Finding]) -> Fixed:
    """Mend what can be mended.

    Args:
        file: as parsed.
        findings: of its checks.
    """
    lines = file.source.split("\n")
    starts = [each.span.line for each in file.instructions]
    ends = {each.span.line: each.span.end_line for each in file.instructions}
    mended: list[Finding] = []
    # From the last line to the first, so that the places of what is above stay.
    for finding in sorted(findings, key=lambda found: -found.span.line):
        at = bisect_right(starts, finding.span.line) - 1
        start = starts[at] if at >= 0 else 0
        if start not in ends or finding in mended:
            continue
        if finding.rule is rules.MULTIPLE_INSTRUCTIONS_DISALLOWED:
            del lines[start - 1 : ends.pop(start)]
            mended.append(finding)
            continue
        mend = _MENDS.get(finding.rule.name)
        header = Header.read("\n".join(lines[start - 1 : ends[start]]), file.escape)
        found = mend(header, finding) if mend else None
        if found is not None:
            lines[start - 1 : start - 1 + header.count] = found.raw.split("\n")
            ends[start] += found.count - header.count
            mended.append(finding)
    text = ("\ufeff" if file.has_bom else "") + "\n".join(lines)
    return Fixed(text=text, mended=tuple(reversed(mended)))


def _keyword_case(header: Header, finding: Finding) -> Header:
    lower = finding.detail.endswith("(lowercase)")
    end = len(finding.word)
    word = header.text[:end]
    changed = header.spliced(0, end, word.lower() if lower else word.upper())
    # A FROM of another case would have an `as` that does not match.
    return _as_case(changed, finding) or changed if word.lower() == "from" else changed


def _as_case(header: Header, finding: Finding) -> Header | None:
    del finding
    found = _AS.search(header.text)
    if found is None:
        return None
    word = "as" if header.text[:4].islower() else "AS"
    return header.spliced(*found.span(), word)


def _stage_case(header: Header, finding: Finding) -> Header | None:
    del finding
    found = _NAME.search(header.text)
    return header.spliced(*found.span(), found[0].lower()) if found else None


def _key_value(header: Header, finding: Finding) -> Header | None:
    """`ENV key value` to `ENV key=value`, quoted where that is needed to mean the same."""
    del finding
    found = _LEGACY.fullmatch(header.text)
    if found is None:
        return None
    gap, start = found.start(1), found.start(2)
    for added in _quotings(found[2], header.escape):
        changed = header
        # From the last to the first, each put behind the character before it.
        for at in sorted(added.keys() - {0}, reverse=True):
            before = start + at - 1
            changed = changed.spliced(before, before + 1, header.text[before] + added[at])
        changed = changed.spliced(gap, start, "=" + added.get(0, ""))
        word = changed.text[gap + 1 :][: len(found[2]) + sum(map(len, added.values()))]
        if _is_same(found[2], word, header.escape):
            return changed
    return None


def _is_same(value: str, word: str, escape: str) -> bool:
    """Whether a value without `=` and a word with one mean the same."""
    try:
        want = expand(value, {}, escape=escape).result
        return split_words(word, escape) == [word] and (
            expand(word, {}, escape=escape).result == want
        )
    except ExpansionError:
        return False


def _quotings(value: str, escape: str) -> Iterator[Mapping[int, str]]:
    """Ways to make one word of a value: what to add at which places."""
    if not set(value) & {*BLANKS}:
        yield {}
    elif not set(value) & {'"', "'", escape}:
        yield {0: '"', len(value): '"'}
    else:
        yield dict.fromkeys(_open_blanks(value, escape), escape)


def _open_blanks(value: str, escape: str) -> Iterator[int]:
    """Where blanks stand in no quotes."""
    quote = ""
    at = 0
    while at < len(value):
        char = value[at]
        if char == escape and quote != "'":
            at += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in BLANKS:
            yield at
        at += 1


def _authors(header: Header, finding: Finding) -> Header | None:
    del finding
    found = _MAINTAINER.fullmatch(header.text)
    if found is None:
        return None
    special = {'"', "$", header.escape}
    value = "".join(header.escape + c if c in special else c for c in found[2])
    label = "label" if found[1].islower() else "LABEL"
    return header.rewritten(f'{label} {_AUTHORS}="{value}"')


def _protocol(header: Header, finding: Finding) -> Header | None:
    del finding
    changed = header
    for found in reversed(list(_PROTOCOL.finditer(header.text))):
        if not found[0].islower():
            changed = changed.spliced(*found.span(), found[0].lower())
    return None if changed is header else changed


def _platform(header: Header, finding: Finding) -> Header | None:
    del finding
    found = _PLATFORM.search(header.text)
    return header.spliced(*found.span(), "") if found else None


def _blank_lines(header: Header, finding: Finding) -> Header | None:
    del finding
    first, *rest = header.raw.split("\n")
    kept = [line for line in rest if line.strip(BLANKS)]
    return Header.read("\n".join([first, *kept]), header.escape) if kept else None


_MENDS: Final[Mapping[str, _Mend]] = {
    rules.CONSISTENT_INSTRUCTION_CASING.name: _keyword_case,
    rules.FROM_AS_CASING.name: _as_case,
    rules.STAGE_NAME_CASING.name: _stage_case,
    rules.LEGACY_KEY_VALUE_FORMAT.name: _key_value,
    rules.MAINTAINER_DEPRECATED.name: _authors,
    rules.EXPOSE_PROTO_CASING.name: _protocol,
    rules.REDUNDANT_TARGET_PLATFORM.name: _platform,
    rules.NO_EMPTY_CONTINUATION.name: _blank_lines,
}
