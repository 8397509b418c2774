"""Digests: their form, what they name, and chains of them."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagekit.errors import InvalidDigestError
from imagekit.oci.digest import Digest, chain_id, hasher

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_digest_names_bytes() -> None:
    assert str(Digest.of(b"")) == EMPTY
    assert Digest.parse(EMPTY) == Digest.of(b"")
    assert Digest.of(b"").short == "e3b0c44298fc"


def test_sha512_is_known() -> None:
    text = f"sha512:{hashlib.sha512(b'').hexdigest()}"
    assert str(Digest.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        EMPTY[7:],
        EMPTY[:-1],
        EMPTY + "0",
        EMPTY.replace("e3", "E3"),
        EMPTY.replace("e3", "g3"),
        EMPTY.replace("sha256", "SHA256"),
        EMPTY.replace("sha256", "sha512"),
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        f" {EMPTY}",
        f"{EMPTY}\n",
        f"{EMPTY}:x",
        EMPTY.replace("e3", "\u0663\u0663"),
    ],
)
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidDigestError, match="not a digest"):
        Digest.parse(text)


def test_a_long_text_is_not_repeated_whole() -> None:
    with pytest.raises(InvalidDigestError) as caught:
        Digest.parse("x" * 100_000)
    assert len(caught.value.message) < 300


@given(st.binary(), st.binary())
def test_hashing_in_parts_gives_the_same(first: bytes, second: bytes) -> None:
    running = hasher()
    running.update(first)
    running.update(second)
    assert Digest("sha256", running.hexdigest()) == Digest.of(first + second)


def test_an_algorithm_that_content_may_not_have_is_refused() -> None:
    with pytest.raises(InvalidDigestError, match="unknown digest algorithm: md5"):
        hasher("md5")


def test_chain_ids_follow_the_specification() -> None:
    first, second, third = (Digest.of(text) for text in (b"1", b"2", b"3"))
    two = Digest.of(f"{first} {second}".encode())
    assert chain_id([]) is None
    assert chain_id([first]) == first
    assert chain_id([first, second]) == two
    assert chain_id([first, second, third]) == Digest.of(f"{two} {third}".encode())


def test_digests_have_an_order() -> None:
    digests = [Digest.of(bytes([n])) for n in range(5)]
    assert [str(d) for d in sorted(digests)] == sorted(map(str, digests))
