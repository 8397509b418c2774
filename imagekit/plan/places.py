"""Errors of a Dockerfile, put where they belong in its text."""

from collections.abc import Iterable
from typing import NoReturn

from attrs import evolve

from imagekit.dockerfile.instructions import Dockerfile
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
    """`span` with the columns of `word`, if its first line holds it after the keyword."""
    lines = file.source.split("\n", span.line)
    if not word or len(lines) < span.line:
        return span
    at = lines[span.line - 1].find(word, span.column)
    if at < 0:
        return span
    return evolve(span, column=at + 1, end_column=at + 1 + len(word))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names the most similar of `known`; empty if none is."""
    from difflib import get_close_matches  # noqa: PLC0415 - only where something went wrong

    options = {name.lower(): name for name in sorted(known, reverse=True) if name}
    close = get_close_matches(word.lower(), options, n=1, cutoff=0.6)
    return f"did you mean {options[close[0]]}?" if close else ""
