"""What must hold for any bytes at all: one function a language, shared by tests and fuzzers.

Each takes bytes, raises nothing but AssertionError, and returns what came out, so that two calls
can be compared.
"""

import io
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from imagekit.dockerfile import Dockerfile, Matcher, expand, expand_words, parse, parse_ignore
from imagekit.dockerfile.lines import decode
from imagekit.errors import DockerfileError, ImagekitError, Span
from imagekit.layer.tar import Limits, read_archive, read_layer
from imagekit.plan import (
    BaseRequest,
    ResolvedBase,
    StageGraph,
    Trace,
    missing_bases,
    stage_graph,
    trace,
)
from tests.support.plans import AMD64, ARM64, base

BUILD_ARGS = {"BASE": "busybox", "A": "1", "VERSION": "2 3"}
BASE_CONFIG = {"OnBuild": ["RUN x $A", "ENV C=$A"], "Env": ["PATH=/bin", "A=b"], "User": "u"}
SMALL = Limits(entries=200, size=1 << 20)
Outcome = tuple[str, Any]


def plan(data: bytes) -> Outcome:
    """Parse and lower a Dockerfile, with bases that have ONBUILD triggers."""
    try:
        file = parse(data)
        check_spans(file)
        lowered = lower_all(file)
    except ImagekitError as error:
        return "error", checked(error)
    return "plan", (file, lowered.plan)


def lower_all(file: Dockerfile) -> Trace:
    """The trace of a file's last stage, all other stages made, too."""
    graph = stage_graph(file, build_args=BUILD_ARGS, build=AMD64, target=ARM64, all_stages=True)
    return trace(graph, resolved(graph))


def resolved(graph: StageGraph) -> dict[BaseRequest, ResolvedBase]:
    """Images that need no registry, for all that a graph asks for."""
    bases: dict[BaseRequest, ResolvedBase] = {}
    while missing := missing_bases(graph, bases):
        bases |= {request: base(request, BASE_CONFIG) for request in missing}
    return bases


def words(data: bytes) -> Outcome:
    """Expand a word in every mode; the first line is the environment, the second has flags."""
    text = data.decode("utf-8", "surrogateescape")
    head, _, word = text.partition("\n")
    env = dict(zip("AB_c", head.split("\0"), strict=False))
    found = []
    for bits in range(8):
        modes = {
            name: bool(bits >> index & 1)
            for index, name in enumerate(("raw_quotes", "skip_quotes", "skip_unset"))
        }
        for escape in "\\`":
            for function in (expand, expand_words):
                try:
                    found.append(function(word, env, escape=escape, **modes))
                except ImagekitError as error:
                    found.append(checked(error))
    return "words", found


def ignore(data: bytes) -> Outcome:
    """Read an ignore file and match paths, at once and directory by directory.

    What stands behind a form feed are paths, one a line.
    """
    text, _, listed = data.partition(b"\f")
    patterns = parse_ignore(text)
    try:
        matcher = Matcher(patterns)
    except ImagekitError as error:
        return "error", checked(error)
    paths = [p for p in map(tidy, listed.split(b"\n")[:20]) if p] or ["a", "a/b", "a/b/c.md"]
    whole = [matcher.excluded(path) for path in paths]
    walked = [stepwise(matcher, path) for path in paths]
    # With exceptions the two differ in the original, too, where a later pattern repeats another.
    assert matcher.has_exceptions or whole == walked
    return "ignore", (patterns, whole, walked)


def tidy(path: bytes) -> str:
    parts = path.decode("utf-8", "surrogateescape").split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def stepwise(matcher: Matcher, path: str) -> bool:
    """What a walk finds: parents first; where nothing can be taken back it does not look."""
    state, pruned, excluded = 0, False, False
    at = -1
    while at < len(path):
        at = path.find("/", at + 1)
        at = len(path) if at < 0 else at
        excluded, state = matcher.step(path[:at], state)
        assert not pruned or excluded, f"{path[:at]!r} is taken back below a pruned directory"
        pruned = pruned or (excluded and matcher.prunes(path[:at]))
    return excluded


def tar(data: bytes) -> Outcome:
    """Read a layer, and the same bytes as an archive of ADD.

    Once as they are, once with the checksums put right, which no mutation would hit.
    """
    return "tar", [read(each) for each in (data, with_checksums(data))]


def read(data: bytes) -> list[object]:
    found: list[object] = []
    try:
        index = read_layer(io.BytesIO(data), limits=SMALL)
    except ImagekitError as error:
        found.append(checked(error))
    else:
        check_names(index.changes.entries)
        found.append(index)
    try:
        members = read_archive(io.BytesIO(data), source="x", limits=SMALL)
    except ImagekitError as error:
        found.append(checked(error))
    else:
        check_names(member.path for member in members)
        found.append(members)
    return found


def check_names(names: Iterable[str]) -> None:
    """Paths stay below the root."""
    for name in names:
        parts = name.split("/")
        assert name == "" or not {"", ".", ".."} & set(parts), f"{name!r} is no clean path"


def with_checksums(data: bytes) -> bytes:
    """The archive with the checksum of each block that is where a header should be."""
    blocks = bytearray(data)
    at = 0
    while at + 512 <= len(blocks):
        header = blocks[at : at + 512]
        if any(header):
            header[148:156] = b" " * 8
            blocks[at + 148 : at + 156] = b"%06o\0 " % sum(header)
        digits = bytes(header[124:136]).strip(b" \0")
        size = int(digits, 8) if re.fullmatch(rb"[0-7]{1,11}", digits) else 0
        at += 512 + -(-size // 512) * 512
    return bytes(blocks)


TARGETS: dict[str, Callable[[bytes], Outcome]] = {
    "plan": plan,
    "words": words,
    "ignore": ignore,
    "tar": tar,
}


def checked(error: ImagekitError) -> tuple[str, str]:
    """The code and message of an error that a program and a person can use."""
    assert error.code, repr(error)
    assert error.message, repr(error)
    error.message.encode()  # it can be printed
    if isinstance(error, DockerfileError):
        error.excerpt().encode()
        if error.span is not None and error.source:
            check_span(error.span, error.source.split("\n"))
    return error.code, error.message


def check_spans(file: Dockerfile) -> None:
    """Each instruction has its place in the file, below the one before."""
    lines = decode(file.source, file.filename).split("\n")
    last = 0
    for span in spans(file):
        check_span(span, lines)
        assert span.line > last, f"{span} starts above the end of what comes before"
        last = span.end_line


def spans(file: Dockerfile) -> Iterator[Span]:
    yield from (arg.span for arg in file.global_args)
    for stage in file.stages:
        yield stage.from_.span
        yield from (command.span for command in stage.commands)


def check_span(span: Span, lines: list[str]) -> None:
    assert 1 <= span.line <= span.end_line <= len(lines), span
    if span.column:
        number = span.column_line or span.line
        assert span.line <= number <= span.end_line, span
        assert 1 <= span.column <= len(lines[number - 1]) + 1, span
        assert span.end_column <= len(lines[number - 1]) + 1, span
