"""Random words and ignore files through `e2b-dockerfile-utils`, a port of BuildKit's lexer.

Where it is known to differ from BuildKit stands in `OF_THE_LEXER` and `OF_THE_MATCHER`; each row
was looked up in BuildKit's own answers to the conformance cases.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from imagekit.dockerfile import Matcher, expand, expand_words, parse_ignore
from imagekit.errors import ContextError, ExpansionError
from tests.support.fuzzing import stepwise
from tests.support.strategies_dockerfile import environments, ignore_files, paths, words

SOME = settings(
    max_examples=600,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
PLAIN = {"raw_quotes": False, "skip_unset": False, "skip_quotes": False}
Row = tuple[str, Callable[[str], bool]]


def having(pattern: str) -> Callable[[str], bool]:
    regex = re.compile(pattern)
    return lambda text: regex.search(text) is not None


OF_THE_LEXER: Sequence[Row] = (
    ("dollars in a replacement are no template there", having(r"//.*\$")),
)
OF_ITS_SPLITTING: Sequence[Row] = (
    *OF_THE_LEXER,
    ("what stands before ${n:-w} is kept there", having(r"\S\$\{[^}]*[-+?#%/]")),
)
OF_THE_MATCHER: Sequence[Row] = (
    ("an exception of the root is a pattern there", lambda text: "!/" in parse_ignore(text)),
)


def expect_equal(mine: Any, theirs: Any, text: str, table: Sequence[Row]) -> None:
    if mine != theirs:
        assert any(seen(text) for _, seen in table), (text, mine, theirs)


def answer_of(function: Callable[[], Any], *errors: type[Exception]) -> Any:
    try:
        return function()
    except errors:
        return None


@SOME
@example(word="a<< b", env={}, escape="\\", modes=PLAIN)
@example(word="1<<- b", env={}, escape="\\", modes=PLAIN)
@example(word="$A b '<<' c", env={"A": "<<"}, escape="\\", modes=PLAIN)
@example(word="<<\v<<\t\r <b <<", env={}, escape="\\", modes=PLAIN)
@given(
    word=words(),
    env=environments(),
    escape=st.sampled_from("\\`"),
    modes=st.fixed_dictionaries({name: st.booleans() for name in PLAIN}),
)
def test_words_expand_as_in_the_port(
    word: str, env: dict[str, str], escape: str, modes: dict[str, bool]
) -> None:
    port = pytest.importorskip("e2b_dockerfile_utils")
    lexer = port.ShellLex(
        escape,
        raw_quotes=modes["raw_quotes"],
        skip_process_quotes=modes["skip_quotes"],
        env=env,
        skip_unset_env=modes["skip_unset"],
    )
    whole = answer_of(lambda: expand(word, env, escape=escape, **modes).result, ExpansionError)
    expect_equal(
        whole, answer_of(lambda: lexer.process_word(word), ValueError), word, OF_THE_LEXER
    )
    split = answer_of(lambda: expand_words(word, env, escape=escape, **modes), ExpansionError)
    theirs = answer_of(lambda: [w for w in lexer.process_words(word) if w], ValueError)
    expect_equal(split, theirs, word, OF_ITS_SPLITTING)  # it has empty words, too


@SOME
@given(text=ignore_files(), some=st.lists(paths(), min_size=1, max_size=8))
def test_ignore_files_match_as_in_the_port(text: str, some: list[str]) -> None:
    port = pytest.importorskip("e2b_dockerfile_utils")

    def mine() -> list[bool]:
        matcher = Matcher(parse_ignore(text))
        return [stepwise(matcher, path) for path in some]

    def theirs() -> list[bool]:
        matcher = port.PatternMatcher(text.split("\n"))
        return [matcher.matches(path) for path in some]

    expect_equal(
        answer_of(mine, ContextError), answer_of(theirs, ValueError), text, OF_THE_MATCHER
    )
