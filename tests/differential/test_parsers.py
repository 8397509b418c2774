"""Random and mutated Dockerfiles through other people's parsers.

`dockerfile` is BuildKit's own parser, in Go, of 2023: `OF_ITS_AGE` lists in what it is older.
`e2b-dockerfile-utils` is a port of a newer one, with mistakes of its own: `OF_THE_PORT`.
"""

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, reject, settings
from hypothesis import strategies as st

from imagekit.dockerfile import Node, SyntaxTree, parse_tree
from imagekit.dockerfile.grammar import KEYWORDS
from imagekit.errors import DockerfileSyntaxError
from tests.support.strategies_dockerfile import dockerfiles, mutants, sound_dockerfiles

SOME = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
JSON = [
    *(
        '"a"',
        '"',
        ",",
        ", ",
        "1",
        "-0",
        "01",
        "1.",
        ".5",
        "1e9",
        "1e999",
        "-",
        "null",
        "true",
        "nul",
    ),
    *("[", "]", "{", "}", '{"a":1}', ":", "//", "NaN", "Infinity", "'a'", "\t", "\v", "\u00a0"),
    *('"\\u00e9"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\x"', '"\t"', '"\\/"', '"\\u12"', '"é"'),
]
Read = Callable[[str], Any]


class Instruction(NamedTuple):
    """What two parsers can agree on."""

    name: tuple[str, str]
    start: int
    end: int
    json: bool
    flags: list[str]
    args: list[str]
    heredocs: list[tuple[Any, ...]]


class Row(NamedTuple):
    """A difference with its reason.

    Attributes:
        seen: whether an instruction's text can show it, or the text of a file that one of the
            two refuses.
        whole: what a file has that can show it anywhere below.
    """

    reason: str
    seen: Callable[[str], bool]
    whole: bool = False


def having(pattern: str) -> Callable[[str], bool]:
    regex = re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    return lambda text: regex.search(text) is not None


OF_ITS_AGE: tuple[Row, ...] = (
    Row("text behind a JSON array was dropped", having(r"\][^\n]*\S|\]\s*[`\\]\s*\n")),
    Row("blanks behind << were not read over", having(r"<<-?[\t ]")),
    Row("an escape in a flag was kept", having(r"--.*[`\\]")),
    Row("heredocs of triggers were not handed out", having(r"^\s*onbuild\b[^#]*<<")),
    Row("a trigger of a trigger was not handed out", having(r"^\s*onbuild\b[^#]*\bonbuild\b")),
    Row("patterns in ${} were an error of the lexer", having(r"<<[^#]*\$\{\w*[#%/]")),
    Row("no NUL comes out of Go", having(r"\\u0000")),
    Row("the directive `check` ended the header", having(r"^\ufeff?#\s*check\s*="), whole=True),
)
OF_THE_PORT: tuple[Row, ...] = (
    Row("blanks beyond ASCII separate", having(r"[\x80-\U0010ffff]")),
    Row(
        "COPY and ADD are split as ENV is, with quotes and escapes",
        having(r"^\s*(onbuild\s+)*(add|copy)\b[^#]*[\"'`\\]"),
    ),
)


def ours(text: str) -> SyntaxTree | None:
    try:
        return parse_tree(text)
    except DockerfileSyntaxError:
        return None


def difference(text: str, mine: Read, theirs: Read, table: Sequence[Row]) -> Any:
    """The first instruction that is read otherwise without a reason; None if there is none."""
    left, right = mine(text), theirs(text)
    if left == right:
        return None
    if left is None or right is None:
        region, pair = text, (left, right)
    else:
        rows = itertools.zip_longest(left, right)
        pair = next((one, other) for one, other in rows if one != other)
        known = [row for row in pair if row is not None]
        start, end = min(row.start for row in known), max(row.end for row in known)
        region = "\n".join(text.split("\n")[start - 1 : end])
    explained = any(row.seen(text if row.whole else region) for row in table)
    return None if explained else pair


def by_go(text: str) -> list[Instruction] | None:
    parser = pytest.importorskip("dockerfile")
    try:
        commands = parser.parse_string(text)
    except parser.GoParseError:
        return None
    except UnicodeDecodeError:
        reject()  # it cuts characters, and cannot tell then what it read
    return [
        Instruction(
            ((c.cmd or "").lower(), (c.sub_cmd or "").lower()),
            c.start_line,
            c.end_line,
            c.json,
            list(c.flags),
            list(c.value),
            [(h.name, h.file_descriptor, h.content) for h in c.heredocs],
        )
        for c in commands
    ]


def for_go(text: str) -> list[Instruction] | None:
    tree = ours(text)
    return None if tree is None else [in_go(node) for node in tree.nodes]


def in_go(node: Node) -> Instruction:
    inner = node.sub or node
    args = list(inner.args)
    if inner.cmd in ("env", "label"):  # it has no separators
        args = [arg for index, arg in enumerate(args) if index % 3 != 2]
    return Instruction(
        (node.cmd, node.sub.cmd if node.sub else ""),
        node.start,
        node.end,
        inner.json,
        list(node.flags),
        args,
        [(h.name, h.fd, h.content) for h in node.heredocs],
    )


def by_port(text: str) -> list[Instruction] | None:
    port = pytest.importorskip("e2b_dockerfile_utils")
    try:
        tree = port.parse_dockerfile_ast(text)
    except port.DockerfileSyntaxError:
        return None
    return [
        Instruction(
            (i.name.lower(), i.original),
            i.start_line,
            i.end_line,
            i.json,
            i.flags,
            i.args,
            [(h.name, h.file_descriptor, h.content, h.chomp, h.expand) for h in i.heredocs],
        )
        for i in tree.instructions
    ] or None


def for_port(text: str) -> list[Instruction] | None:
    tree = ours(text)
    if tree is None or any(node.cmd not in KEYWORDS for node in tree.nodes):
        return None
    return [
        Instruction(
            (node.cmd, node.original),
            node.start,
            node.end,
            node.json,
            list(node.flags),
            list(node.args),
            [(h.name, h.fd, h.content, h.chomp, h.expand) for h in node.heredocs],
        )
        for node in tree.nodes
    ]


@SOME
@given(text=dockerfiles())
def test_go_reads_random_files_the_same(text: str) -> None:
    assert difference(text, for_go, by_go, OF_ITS_AGE) is None


@SOME
@given(pieces=st.lists(st.sampled_from(JSON), max_size=8), end=st.sampled_from(["]", ""]))
def test_go_reads_arrays_the_same(pieces: list[str], end: str) -> None:
    text = f"FROM a\nRUN [{''.join(pieces)}{end}\n"
    assert difference(text, for_go, by_go, OF_ITS_AGE) is None


@SOME
@given(text=sound_dockerfiles())
def test_go_reads_sound_files_the_same(text: str) -> None:
    assert for_go(text) == by_go(text)


@SOME
@given(data=mutants())
def test_go_reads_mutated_files_the_same(data: bytes) -> None:
    text = data.decode("utf-8", "replace").replace("\0", "\u2400")  # it takes C strings
    assert difference(text, for_go, by_go, OF_ITS_AGE) is None


@SOME
@example(text="FROM a\nRUN cat <<- E\n")
@example(text="FROM a\nRUN a<< <<E\n")
@example(text="FROM a\nRUN <<\x0bE\n")
@given(text=dockerfiles())
def test_a_port_reads_random_files_the_same(text: str) -> None:
    assert difference(text, for_port, by_port, OF_THE_PORT) is None


@SOME
@given(data=mutants())
def test_a_port_reads_mutated_files_the_same(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    assert difference(text, for_port, by_port, OF_THE_PORT) is None
