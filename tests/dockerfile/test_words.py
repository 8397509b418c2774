from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagekit.dockerfile import expand, expand_words
from imagekit.dockerfile.words import MAX_DEPTH, MAX_OUTPUT
from imagekit.errors import ExpansionError

TABLE = Path(__file__).parents[2] / "fixtures" / "words.tsv"
ROWS = [
    line.split("\t")
    for line in TABLE.read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]
WORDS = st.text(st.sampled_from("ab \\'\"${}:-+?#%/*`"), max_size=20)


def environment(text: str) -> dict[str, str]:
    if text.count("=") < 2:
        return dict([text.split("=", 1)]) if text else {}
    return dict(pair.split("=", 1) for pair in text.split(" "))


@pytest.mark.parametrize(("word", "env", "wanted"), ROWS, ids=[" ".join(row) for row in ROWS])
def test_words_expand_as_the_table_says(word: str, env: str, wanted: str) -> None:
    if wanted == "!":
        with pytest.raises(ExpansionError):
            expand(word, environment(env))
    else:
        assert expand(word, environment(env)).result == wanted


def test_names_that_are_not_set_are_told_once() -> None:
    assert expand("$A ${B:-$A} $C", {"C": "1"}).unmatched == ("A", "B")


def test_blanks_of_an_unquoted_variable_split() -> None:
    assert expand_words("$P \"$P\" x'y z'", {"P": "1  2"}) == ["1", "2", "1  2", "xy z"]


def test_quotes_of_a_heredoc_body_stay() -> None:
    assert expand("'$A' \"$A\"", {"A": "1"}, skip_quotes=True).result == "'1' \"1\""


def test_unset_variables_of_a_heredoc_name_stay() -> None:
    assert expand("$A${B-x}", {}, skip_unset=True).result == "$A${B-x}"


def test_backquote_as_escape() -> None:
    assert expand("C:\\$A`$A", {"A": "1"}, escape="`").result == "C:\\1$A"


def test_output_is_limited() -> None:
    with pytest.raises(ExpansionError, match="more than"):
        expand("$A" * 17, {"A": "x" * (MAX_OUTPUT // 16)})


def test_replacement_is_limited_while_it_grows() -> None:
    with pytest.raises(ExpansionError, match="more than"):
        expand("${A//a/$B}", {"A": "a" * 2000, "B": "b" * 2000})


def test_nesting_is_limited() -> None:
    def nested(depth: int) -> str:
        return "${A:-" * depth + "x" + "}" * depth

    assert expand(nested(MAX_DEPTH), {}).result == "x"
    with pytest.raises(ExpansionError, match="deeper"):
        expand(nested(MAX_DEPTH + 1), {})


@given(word=WORDS, escape=st.sampled_from("\\`"))
def test_any_text_expands_or_is_refused(word: str, escape: str) -> None:
    env = {"a": "x y", "b": "*/\\"}
    with suppress(ExpansionError):
        joined = expand(word, env, escape=escape).result
        assert isinstance(joined, str)
        assert all(expand_words(word, env, escape=escape))


@given(text=st.text())
def test_text_in_single_quotes_is_itself(text: str) -> None:
    plain = text.replace("'", "")
    assert expand(f"'{plain}'", {}).result == plain
