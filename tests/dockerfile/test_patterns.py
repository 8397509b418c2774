import re

from hypothesis import given, settings
from hypothesis import strategies as st

from imagekit.dockerfile import patterns
from imagekit.errors import ContextError

PATTERNS = st.text(st.sampled_from("ab/*?[]^-\\"), min_size=1, max_size=10)
PATHS = st.text(st.sampled_from("ab/"), max_size=12)


def items_of(pattern: str) -> list[patterns._Item] | None:
    try:
        compiled = patterns.compile_pattern(pattern)
    except ContextError:
        return None
    if compiled.kind is not patterns.Kind.REGEX:
        return None
    return patterns._Reader(pattern, patterns._expression(pattern)[1]).items()


@settings(max_examples=400)
@given(pattern=PATTERNS, path=PATHS)
def test_bounded_matchers_agree_with_a_backtracking_expression(pattern: str, path: str) -> None:
    items = items_of(pattern)
    if items is None:
        return
    plain = "".join(patterns._plain_source(item) for item in items)
    wanted = re.fullmatch(plain, path) is not None
    assert patterns._Automaton(items)(path) is wanted
    safe = patterns._safe_source(items)
    if safe is not None:
        assert (re.fullmatch(safe, path) is not None) is wanted
    depth = patterns._depth(items)
    if wanted and depth >= 0:
        assert path.count("/") == depth


def test_what_stands_behind_a_backslash_is_read_as_a_regular_expression() -> None:
    for pattern, path in ((r"\d", "7"), (r"\x41", "A"), (r"a\/b", "a/b"), (r"[\w]", "_")):
        compiled = patterns.compile_pattern(pattern)
        assert re.fullmatch(compiled.source, path), pattern
