import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagekit.dockerfile import globs

PATTERNS = st.text(st.sampled_from("ab*?\n"), max_size=7)
VALUES = st.text(st.sampled_from("ab\nc"), max_size=12)


def naive(pattern: str, *, longest: bool) -> str:
    star = ".*" if longest else ".*?"
    return "".join({"*": star, "?": "."}.get(char, re.escape(char)) for char in pattern)


@given(value=VALUES, pattern=PATTERNS, longest=st.booleans())
def test_prefixes_are_those_of_a_backtracking_expression(
    value: str, pattern: str, *, longest: bool
) -> None:
    match = re.match(naive(pattern, longest=longest), value)
    wanted = value[match.end() :] if match else value
    assert globs.trim_prefix(value, pattern, longest=longest) == wanted


@given(value=VALUES, pattern=PATTERNS, longest=st.booleans())
def test_suffixes_are_prefixes_seen_from_the_end(
    value: str, pattern: str, *, longest: bool
) -> None:
    mirrored = globs.trim_prefix(value[::-1], pattern[::-1], longest=longest)
    assert globs.trim_suffix(value, pattern, longest=longest) == mirrored[::-1]


@given(value=VALUES, pattern=PATTERNS)
def test_the_first_match_is_that_of_a_backtracking_expression(value: str, pattern: str) -> None:
    wanted = re.sub(naive(pattern, longest=True), "<>", value, count=1)
    assert globs.replace_first(value, pattern, "<>") == wanted


@pytest.mark.parametrize(
    ("replacement", "wanted"), [("$x", "."), ("${x}y", "y."), ("$0$0", "aa."), ("$$", "$.")]
)
def test_dollars_in_the_replacement_of_all_name_groups(replacement: str, wanted: str) -> None:
    assert globs.replace_all("a.", "a", replacement, check=lambda _: None) == wanted


def test_an_empty_match_behind_a_match_is_none() -> None:
    assert globs.replace_all("abc", "*", "x", check=lambda _: None) == "x"
    assert globs.replace_all("ab", "", "x", check=lambda _: None) == "xaxbx"
