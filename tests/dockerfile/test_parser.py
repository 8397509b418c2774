import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imagekit.dockerfile import Copy, Dockerfile, Run, parse, parse_onbuild
from imagekit.dockerfile.lines import MAX_FILE, MAX_LINE
from imagekit.dockerfile.parser import MAX_INSTRUCTIONS
from imagekit.errors import DockerfileSyntaxError, Span
from tests.conformance.parse_view import answer

CASES = sorted((Path(__file__).parents[2] / "fixtures" / "dockerfile").iterdir())
PIECES = [
    *("FROM a", "RUN ", "COPY ", "ENV ", "ONBUILD ", "HEALTHCHECK CMD ", "ARG ", "# escape=`"),
    *("--from=", "--mount=", "<<E", "<<-'E'", "E", "\\", "`", "\n", " ", "[", '"a"', "]", ","),
    *("$", "{", "}", "'", "=", "#", "\r", "\t", "\u00e9", "\x00", "\u0085"),
]


def failure(text: str | bytes) -> DockerfileSyntaxError:
    with pytest.raises(DockerfileSyntaxError) as caught:
        parse(text)
    return caught.value


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_files_parse_to_what_stands_beside_them(case: Path) -> None:
    text = (case / "Dockerfile").read_text(encoding="utf-8")
    assert answer({"dockerfile": text}) == json.loads((case / "ast.json").read_text("utf-8"))


@given(text=st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
@example(text="FROM a\nCOPY <<${} /x\n")
@example(text="FROM a\nRUN <<E$( \n")
@example(text="\ufeff# escape=`\n\\\n")
def test_any_text_parses_or_is_refused_with_its_place(text: str) -> None:
    try:
        parsed = parse(text)
    except DockerfileSyntaxError as error:
        refused = error
    else:
        assert isinstance(parsed, Dockerfile)
        assert parsed == parse(text.encode())
        return
    assert refused.code
    refused.excerpt()


@given(data=st.binary(max_size=60))
def test_bytes_that_are_no_text_are_kept(data: bytes) -> None:
    body = data.replace(b"\n", b".").replace(b"\r", b".").removesuffix(b"E")
    file = parse(b"FROM a\nRUN <<E\n" + body + b"\nE\n")
    run = file.stages[0].commands[0]
    assert isinstance(run, Run)
    assert run.heredocs[0].content.encode("utf-8", "surrogateescape") == body + b"\n"


def test_an_error_points_at_the_word() -> None:
    error = failure("FROM alpine\n  COPPY a b\n")
    assert error.code == "unknown-instruction"
    assert error.place == "Dockerfile:2:3"
    assert error.hint == "did you mean COPY?"
    shown, caret = error.excerpt().split("\n")
    assert caret.index("^^^^^") == shown.index("COPPY")


@pytest.mark.parametrize(
    ("line", "code", "column", "hint"),
    [
        ("COPY --form=x a b", "unknown-flag", 6, "did you mean --from?"),
        ("COPY --link=maybe a b", "flag-value-invalid", 6, ""),
        ("RUN --network=lan x", "network-invalid", 5, ""),
        ("ENV A=1 B", "missing-equals", 9, ""),
        ("RUN ['a', 1]", None, 0, ""),
        ('RUN ["a", 1]', "json-not-strings", 5, ""),
        ("HEALTHCHECK --interval=5 CMD x", "healthcheck-invalid", 24, ""),
        ("COPY a", "needs-two-arguments", 1, ""),
        ("FROM b AS 1", "stage-name-invalid", 11, ""),
        ("COPY a <<E\nE", "heredoc-as-destination", 8, ""),
    ],
)
def test_errors_of_arguments(line: str, code: str | None, column: int, hint: str) -> None:
    text = f"FROM a\n{line}\n"
    if code is None:
        parse(text)
        return
    error = failure(text)
    assert (error.code, error.hint) == (code, hint)
    assert error.span is not None
    assert (error.span.line, error.span.column) == (2, column)


def test_an_error_covers_its_instruction() -> None:
    error = failure("FROM a\nCOPY --from=b \\\n  --bad \\\n  c d\n")
    assert error.span is not None
    assert (error.span.line, error.span.end_line) == (2, 4)


def test_an_open_heredoc_says_how_to_close_it() -> None:
    error = failure("FROM a\nRUN <<EOF\nx\n EOF\n")
    assert error.code == "heredoc-unterminated"
    assert "EOF" in error.hint


def test_instructions_know_their_place_and_their_words() -> None:
    file = parse("FROM a\n# why\n  copy --chown=1 x \\\n y\n")
    copy = file.stages[0].commands[0]
    assert isinstance(copy, Copy)
    assert copy.span == Span(3, 4, 3, 7)
    assert (copy.word, copy.comments, copy.flags) == ("copy", ("why",), ("--chown=1",))
    assert copy.text == "copy --chown=1 x  y"


def test_limits() -> None:
    assert failure("FROM a\n" + "#" * MAX_FILE).code == "file-too-large"
    assert failure("FROM a\nRUN " + "x" * MAX_LINE).code == "line-too-long"
    assert failure("FROM a\nRUN " + "\u00e9" * (MAX_LINE // 2)).code == "line-too-long"
    assert failure("FROM a\n" * (MAX_INSTRUCTIONS + 1)).code == "too-many-instructions"
    parse("FROM a\nRUN " + "x" * (MAX_LINE - 4))


def test_json_that_go_does_not_read_is_plain_text() -> None:
    assert failure("FROM a\nRUN " + "[" * 9000 + "]" * 9000).code == "json-not-strings"
    for plain in ("[1e999]", "[" * 9000, "[" * 10_001 + "]" * 10_001, "[" * 30_000 + "]" * 30_000):
        run = parse(f"FROM a\nRUN {plain}").stages[0].commands[0]
        assert isinstance(run, Run)
        assert run.argv == (plain,)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("FROM x", "onbuild-forbidden"),
        ("ONBUILD RUN x", "onbuild-forbidden"),
        ("MAINTAINER x", "onbuild-forbidden"),
        ("RUN a\nRUN b", "onbuild-trigger"),
        ("NOPE", "unknown-instruction"),
        ("", "no-instructions"),
        ("COPY a", "needs-two-arguments"),
    ],
)
def test_triggers_that_cannot_be(text: str, code: str) -> None:
    place = Span(7, 8)
    with pytest.raises(DockerfileSyntaxError) as caught:
        parse_onbuild(text, filename="F", span=place)
    assert (caught.value.code, caught.value.span) == (code, place)


def test_a_trigger_is_an_instruction_at_its_from() -> None:
    run = parse_onbuild("RUN <<E\nx\nE", span=Span(3, 3))
    assert isinstance(run, Run)
    assert run.span == Span(3, 3)
    assert run.heredocs[0].body == "x\n"
