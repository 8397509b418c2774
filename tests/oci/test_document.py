"""JSON: read strictly, written in one form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagekit.errors import InvalidDocumentError
from imagekit.oci.document import MAX_DOCUMENT, describe, encode_json, parse_json, parse_object


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{} {}", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a":1,}', "not JSON"),
        (b'{"a":1,"a":1}', "a key occurs twice"),
        (b'{"x":{"a":1,"b":2,"a":3}}', "a key occurs twice"),
        (b'[{"a":1,"\\u0061":2}]', "a key occurs twice"),
        (b'{"a":NaN}', "NaN is not JSON"),
        (b"[Infinity]", "Infinity is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b'"\xff"', "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        ("{}".encode("utf-16"), "not JSON"),
        (b'"\n"', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"1" * 5_000, "not JSON"),
    ],
)
def test_what_is_not_strict_json_is_refused(raw: bytes, why: str) -> None:
    with pytest.raises(InvalidDocumentError, match=why):
        parse_json(raw)


def test_a_document_has_a_largest_size() -> None:
    raw = b'"' + b"x" * (MAX_DOCUMENT - 2) + b'"'
    assert len(parse_json(raw)) == MAX_DOCUMENT - 2
    with pytest.raises(InvalidDocumentError, match=f"more than the limit of {MAX_DOCUMENT}"):
        parse_json(raw + b" ")


@pytest.mark.parametrize("raw", [b"[]", b"null", b'"x"', b"1", b"true"])
def test_an_object_is_wanted(raw: bytes) -> None:
    with pytest.raises(InvalidDocumentError, match="config: want an object"):
        parse_object(raw, what="config")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON)
def test_writing_and_reading_again_gives_the_same(value: object) -> None:
    raw = encode_json(value)
    assert parse_json(raw) == value
    assert encode_json(parse_json(raw)) == raw


def test_there_is_one_written_form() -> None:
    written = encode_json({"b": "a/b é <&>", "a": [1, None]})
    assert written == '{"b":"a/b é <&>","a":[1,null]}'.encode()


def test_a_descriptor_names_the_bytes() -> None:
    found = describe(b"{}", "application/x")
    assert (found.media_type, found.size) == ("application/x", 2)
    assert found.digest.short == "44136fa355b3"
