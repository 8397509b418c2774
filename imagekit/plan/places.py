"""Errors of a Dockerfile, put where they belong in its text."""

from collections.abc import Iterable
from typing import NoReturn

from attrs import evolve

from imagekit.dockerfile.instructions import Dockerfile
from imagekit.dockerfile.lines import with_word
from imagekit.errors import DockerfileError, Span


def fail(
    file: Dockerfile,
    message: str,
    *,
    code: str,
    span: Span | None = None,
    word: str = "",
    hint: str = "",
    cause: BaseException | None = None,
) -> NoReturn:
    """Raise a `DockerfileError` for `span`, with the column of `word` if that stands there."""
    raise DockerfileError(
        message,
        span=pinpoint(file, span, word) if span else None,
        filename=file.filename,
        source=file.source,
        hint=hint,
        code=code,
    ) from cause


def pinpoint(file: Dockerfile, span: Span, word: str) -> Span:
    """`span` with the columns of `word`, if it holds that behind its keyword."""
    lines = file.source.split("\n", span.end_line)
    past = evolve(span, column=span.column + 1) if span.column else span
    found = with_word(lines, past, word)
    return span if found is past else found


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names the most similar of `known`; empty if none is."""
    from difflib import get_close_matches  # noqa: PLC0415 - only where something went wrong

    options = {name.lower(): name for name in sorted(known, reverse=True) if name}
    close = get_close_matches(word.lower(), options, n=1, cutoff=0.6)
    return f"did you mean {options[close[0]]}?" if close else ""
