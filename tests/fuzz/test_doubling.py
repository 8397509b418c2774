"""Twice the input takes about twice as long: shapes that a careless reader is slow at.

Sizes are chosen by the clock, so that each is measured well; a step that looks slow is measured
again, as the machine may have been busy.
"""

import time
from collections.abc import Callable

import pytest

from imagekit.dockerfile import Matcher, expand, expand_words, parse, parse_ignore
from imagekit.dockerfile.printer import print_dockerfile
from imagekit.errors import ImagekitError
from imagekit.plan import lower, stage_graph
from tests.support.fuzzing import resolved
from tests.support.plans import AMD64

FACTOR = 4
LIMIT = 9  # of linear work it is 4, of quadratic work 16
ATTEMPTS = 4
ENOUGH_S = 0.004


def planned(text: str) -> object:
    graph = stage_graph(parse(text), build_args={"A": "x"}, build=AMD64)
    return lower(graph, resolved(graph))


def refused(function: Callable[[], object]) -> object:
    """The error of something that is to be refused."""
    try:
        function()
    except ImagekitError as error:
        return str(error), getattr(error, "excerpt", str)()
    raise AssertionError("it is not refused")


SLOW = ("'", '"', "${A:-", "\\", "$A ", "<< ", "'a'", "${A#a}", "${A%%a*}", "${A/a/b}")
STEPS: dict[str, Callable[[int], object]] = {
    "blank lines": lambda n: parse("FROM a\n" + "\n" * n),
    "continued blank lines": lambda n: parse("FROM a\nRUN a \\\n" + "\n" * n + "b\n"),
    "continued comments": lambda n: parse("FROM a\nRUN a \\\n" + "# c\n" * n + "b\n"),
    "heredocs": lambda n: parse("FROM a\n" + "RUN <<E\nx\nE\n" * (n // 4)),
    "heredocs of one line": lambda n: parse(
        "FROM a\nCOPY" + " <<E" * (n // 8) + " /x/\n" + "E\n" * (n // 8)
    ),
    "heredoc with tabs": lambda n: parse("FROM a\nRUN <<-E\n" + "\t\tx\n" * n + "E\n"),
    "words": lambda n: parse("FROM a\nCOPY" + " \\\n a" * n + " b/\n"),
    "labels": lambda n: parse("FROM a\nLABEL" + " \\\n a='b\" c'" * n),
    "flags": lambda n: parse(
        "FROM a\nRUN" + " \\\n --mount=type=tmpfs,target=/a" * (n // 4) + " x"
    ),
    "brackets": lambda n: parse("FROM a\nRUN " + "[" * n),
    "json": lambda n: parse("FROM a\nRUN [" + '"a",' * n + '"b"]'),
    "triggers": lambda n: parse("FROM a\n" + "ONBUILD RUN x\n" * (n // 2)),
    "names that are like others": lambda n: refused(
        lambda: planned("FROM a\n" * (n // 20) + "COPY --from=" + "x" * 50 + "99 a b\nNOPE\n")
    ),
    "an error at the end": lambda n: refused(lambda: parse("FROM a\n" + "RUN x\n" * n + "ENV a")),
    "a word of a long instruction": lambda n: refused(
        lambda: parse("FROM a\nCOPY --bad" + " \\\n a" * n)
    ),
    "printing": lambda n: print_dockerfile(parse("FROM a\n" + "ENV a=b\n# c\n" * (n // 4))),
    "plain expansion": lambda n: expand("ab $A " * n, {"A": "x" * 10}),
    "splitting": lambda n: expand_words("ab '$A' $A " * n, {"A": "x y"}),
    "quotes": lambda n: expand("\"a\"'b'" * n, {}),
    "escapes": lambda n: expand("\\a" * n, {}),
    "longest suffix": lambda n: expand("${A%%a*}", {"A": "ba" * n}),
    "shortest suffix": lambda n: expand("${A%a*b}", {"A": "ab" * n}),
    "prefix": lambda n: expand("${A##*a}", {"A": "ba" * n}),
    "many patterns": lambda n: Matcher(parse_ignore("a/*/b\n!c/**\n" * (n // 40))),
    "patterns of exceptions": lambda n: Matcher(
        parse_ignore("".join(f"a{i}\n!b{i}/*\n" for i in range(n // 40)))
    ).excluded("x/y"),
    "deep path": lambda n: Matcher(["**/x", "a/**/b"]).step("a/" * n + "c", 0),
    "stars": lambda n: Matcher(["*a" * (n // 100)]).step("a" * (n // 100) + "b", 0),
    "variables": lambda n: planned(
        "FROM scratch\n"
        + "".join(f"ENV V{i}=$V{i - 1}x\n" for i in range(1, 3))
        + "ENV A=$A B=$A\n" * (n // 8)
    ),
    "different variables": lambda n: planned(
        "FROM scratch\n" + "".join(f"ENV V{i}=$A\n" for i in range(n // 8))
    ),
    "arguments": lambda n: planned(
        "FROM scratch\n" + "".join(f"ARG V{i}=$A\n" for i in range(n // 8))
    ),
    "global arguments": lambda n: planned(
        "".join(f"ARG V{i}=$A\n" for i in range(n // 8)) + "FROM scratch\n"
    ),
    "copies": lambda n: planned("FROM scratch\n" + "COPY a b /c/\n" * (n // 16)),
    "runs": lambda n: planned("FROM a\n" + "RUN make\n" * (n // 16)),
    "runs with variables": lambda n: planned("FROM a\n" + "ENV A=1\nRUN $A\n" * (n // 32)),
    "folders": lambda n: planned("FROM a\n" + "WORKDIR /x\n" * (n // 16)),
    "stages": lambda n: planned("FROM a\nRUN x\n" * (n // 32)),
    "a chain of stages": lambda n: planned(
        "FROM a AS s0\n" + "".join(f"FROM s{i} AS s{i + 1}\nENV A=1\n" for i in range(n // 32))
    ),
    "stages that read each other": lambda n: planned(
        "FROM a AS s0\n"
        + "".join(f"FROM a AS s{i + 1}\nCOPY --from=s{i} x y\n" for i in range(n // 32))
    ),
    "ports": lambda n: planned("FROM scratch\nEXPOSE" + " \\\n 1/udp" * n),
    **{f"word of {piece}": lambda n, p=piece: attempt(p * n) for piece in SLOW},
}


def attempt(word: str) -> object:
    """Expand in both ways, whatever comes of it."""
    try:
        return expand(word, {"A": "ab"}), expand_words(word, {"A": "ab"}), parse_ignore(word)
    except ImagekitError as error:
        return error.code


def seconds(step: Callable[[int], object], size: int) -> float:
    best = float("inf")
    for _ in range(2):
        start = time.process_time()
        step(size)
        best = min(best, time.process_time() - start)
    return best


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_time_grows_with_the_input(step: Callable[[int], object]) -> None:
    size = 250
    while seconds(step, size) < ENOUGH_S and size < 4000:
        size *= 2
    found = []
    for _ in range(ATTEMPTS):
        small, large = seconds(step, size), seconds(step, FACTOR * size)
        if large < LIMIT * small + ENOUGH_S:
            return
        found.append(f"{small * 1e3:.1f} ms, {large * 1e3:.1f} ms")
    pytest.fail(f"{size} and {FACTOR} times that: {'; '.join(found)}")
