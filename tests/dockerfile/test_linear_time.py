"""Four times the input takes about four times as long, not sixteen times."""

import time
from collections.abc import Callable

import pytest

from imagekit.dockerfile import Matcher, expand, parse

STEPS: dict[str, Callable[[int], object]] = {
    "instructions": lambda n: parse("FROM a\n" + "RUN x y\n" * n),
    "continuations": lambda n: parse("FROM a\nRUN a" + " \\\n b" * n),
    "heredoc": lambda n: parse("FROM a\nRUN <<E\n" + "line\n" * n + "E\n"),
    "comments": lambda n: parse("# c\n" * n + "FROM a\n"),
    "pairs": lambda n: parse("FROM a\nENV" + " \\\n A='b c'" * n),
    "flags": lambda n: parse("FROM a\nCOPY" + " \\\n --exclude=a" * n + " a b"),
    "words": lambda n: expand("$A'b'\\c" * n, {"A": "x"}),
    "replacement": lambda n: expand("${A//a*b*b/$B}", {"A": "ab" * n, "B": "x"}),
    "hopeless replacement": lambda n: expand("${A//a*b*c/x}", {"A": "ab\n" * n}),
    "hopeless suffix": lambda n: expand("${A%a*b*c*d}", {"A": "abc" * n}),
    "hopeless pattern": lambda n: Matcher(["**a**b**[cd]**e"]).excluded("abc" * (n // 10)),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_time_grows_with_the_input(step: Callable[[int], object]) -> None:
    def seconds(size: int) -> float:
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            step(size)
            best = min(best, time.process_time() - start)
        return best

    small, large = seconds(2000), seconds(8000)
    assert large < 10 * small + 0.01


def test_two_hundred_patterns_over_many_paths() -> None:
    forms = ("dir{}", "**/name{}", "**/*.e{}", "src/*/x{}", "*.o{}", "b{}/**", "**/t{}/**/*.l")
    matcher = Matcher(forms[index % len(forms)].format(index) for index in range(200))
    paths = [f"src/p{index % 50}/q{index % 1000}/file{index}.py" for index in range(20_000)]
    start = time.process_time()
    assert not any(matcher.step(path, 0)[0] for path in paths)
    assert time.process_time() - start < 1
