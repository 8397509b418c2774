"""References: a table of what is read, refused and how it is printed; and laws."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagekit.errors import InvalidReferenceError
from imagekit.oci.digest import Digest
from imagekit.oci.reference import Reference
from tests.support.tools import FIXTURES

STANDS_FOR = {"<empty>": "", "<space>": " "}


class Row(NamedTuple):
    """A line of the table; `canonical` is `!` for what is no reference."""

    text: str
    canonical: str
    rest: str


def rows() -> list[Row]:
    lines = (FIXTURES / "oci" / "references.tsv").read_text("utf-8").splitlines()
    return [row(line) for line in lines if not line.startswith("#")]


def row(line: str) -> Row:
    text, canonical, rest = line.split("\t")
    if "\\" in text:
        text = text.encode().decode("unicode_escape")
    return Row(STANDS_FOR.get(text, text), canonical, rest)


VALID = [r for r in rows() if r.canonical != "!"]
INVALID = [r for r in rows() if r.canonical == "!"]


def test_the_table_has_both_kinds() -> None:
    assert len(VALID) > 50
    assert len(INVALID) > 50


@pytest.mark.parametrize("row", VALID, ids=lambda r: r.text[:40])
def test_a_reference_is_normalised(row: Row) -> None:
    found = Reference.parse(row.text)
    assert (str(found), found.familiar) == (row.canonical, row.rest)


@pytest.mark.parametrize("row", VALID, ids=lambda r: r.text[:40])
def test_both_printed_forms_mean_the_same(row: Row) -> None:
    found = Reference.parse(row.text)
    assert Reference.parse(str(found)) == found
    assert Reference.parse(found.familiar) == found


@pytest.mark.parametrize("row", INVALID, ids=lambda r: repr(r.text[:40]))
def test_what_is_no_reference_is_refused_with_the_reason(row: Row) -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        Reference.parse(row.text)
    assert any(reason in caught.value.message for reason in row.rest.split("|"))
    assert caught.value.hint


PART = st.from_regex(r"[a-z0-9]{1,5}([._-][a-z0-9]{1,3})?", fullmatch=True)
HOST = st.sampled_from(["", "localhost:5000/", "registry.example/", "[::1]:5000/"])
TAG = st.from_regex(r"(:[A-Za-z0-9_][A-Za-z0-9._-]{0,12})?", fullmatch=True)
PINNED = st.sampled_from(["", f"@{Digest.of(b'x')}"])


@given(HOST, st.lists(PART, min_size=1, max_size=3), TAG, PINNED)
def test_printing_and_reading_again_gives_the_same(
    host: str, parts: list[str], tag: str, pinned: str
) -> None:
    found = Reference.parse(host + "/".join(parts) + tag + pinned)
    assert Reference.parse(str(found)) == found
    assert Reference.parse(found.familiar) == found


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = Reference.parse(text)
    except InvalidReferenceError:
        return
    assert Reference.parse(str(found)) == found


def test_the_default_tag_is_latest_and_only_where_nothing_is_said() -> None:
    pinned = f"debian@{Digest.of(b'')}"
    assert Reference.parse("debian").with_default_tag().tag == "latest"
    assert Reference.parse("debian:12").with_default_tag().tag == "12"
    assert Reference.parse(pinned).with_default_tag().tag == ""


def test_docker_hub_is_asked_at_another_host() -> None:
    assert Reference.parse("debian").api_host == "registry-1.docker.io"
    assert Reference.parse("registry.example:5000/a").api_host == "registry.example:5000"


def test_a_digest_keeps_the_tag_for_display() -> None:
    found = Reference.parse(f"debian:12@{Digest.of(b'')}")
    assert (found.tag, found.digest) == ("12", Digest.of(b""))
