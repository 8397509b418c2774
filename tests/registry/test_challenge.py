"""WWW-Authenticate by its grammar."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagekit.registry.challenge import Challenge, parse_challenges

BEARER = {"realm": "https://auth.example/token", "service": "reg"}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], ()),
        ([""], ()),
        (["Basic"], (Challenge("basic"),)),
        (['Basic realm="a b"'], (Challenge("basic", {"realm": "a b"}),)),
        (["BASIC REALM=x"], (Challenge("basic", {"realm": "x"}),)),
        (
            ['Bearer realm="https://auth.example/token",service="reg"'],
            (Challenge("bearer", BEARER),),
        ),
        (
            ['Bearer realm = "https://auth.example/token" , service=reg'],
            (Challenge("bearer", BEARER),),
        ),
        (
            ['Bearer scope="repository:a:pull,push repository:b:pull"'],
            (Challenge("bearer", {"scope": "repository:a:pull,push repository:b:pull"}),),
        ),
        (
            [r'Basic realm="a\"b\\c"'],
            (Challenge("basic", {"realm": r"a\"b\c".replace(r"\"", '"')}),),
        ),
        (
            ['Basic realm="x", Bearer realm="y"'],
            (Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "y"})),
        ),
        (
            ['Basic realm="x"', 'Bearer realm="y"'],
            (Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "y"})),
        ),
        (
            ["Negotiate, NTLM TlRM==, Basic realm=x"],
            (Challenge("negotiate"), Challenge("ntlm"), Challenge("basic", {"realm": "x"})),
        ),
        ([', ,Basic realm="x",, '], (Challenge("basic", {"realm": "x"}),)),
        (['Basic realm="first", realm="second"'], (Challenge("basic", {"realm": "first"}),)),
        (['Basic realm="open'], (Challenge("basic"),)),
        (["\x01"], ()),
        (["Basic " + "x" * 9000], ()),
    ],
)
def test_challenges_are_read(headers: list[str], expected: tuple[Challenge, ...]) -> None:
    assert parse_challenges(headers) == expected


def test_challenges_are_counted() -> None:
    assert len(parse_challenges(["Basic"] * 40)) == 16
    assert len(parse_challenges([",".join(["Basic"] * 40)])) == 16


words = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=6)
challenges = st.lists(
    st.builds(
        Challenge,
        words,
        st.dictionaries(
            words, st.text(st.characters(min_codepoint=32, max_codepoint=126)), min_size=1
        ),
    ),
    max_size=5,
)


@given(challenges)
def test_what_is_written_by_the_grammar_is_read_back(made: list[Challenge]) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(
        f"{c.scheme} " + ", ".join(f"{k}={quoted(v)}" for k, v in c.parameters.items())
        for c in made
    )
    if len(header) <= 8 << 10:
        assert parse_challenges([header]) == tuple(made)


@given(st.text(max_size=200))
def test_any_header_is_read_in_the_end(header: str) -> None:
    assert len(parse_challenges([header])) <= 16
