"""Platforms: read, normalised and matched as containerd does (registry spec, section 5)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagekit.errors import InvalidDocumentError, InvalidPlatformError
from imagekit.oci.platform import Platform, choose

ARM7 = Platform("linux", "arm", "v7")


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/x86-64", "linux/amd64"),
        ("LINUX/AMD64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v9", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/7", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/i386", "linux/386"),
        ("linux/i686", "linux/386"),
        ("linux/riscv64", "linux/riscv64"),
        ("linux/s390x", "linux/s390x"),
        ("linux/ppc64le", "linux/ppc64le"),
        ("macos/arm64", "darwin/arm64"),
        ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
        ("linux", "linux/amd64"),
        ("arm64", "linux/arm64"),
        ("arm", "linux/arm/v7"),
        ("aarch64", "linux/arm64"),
        ("wasip1/wasm", "wasip1/wasm"),
        ("linux/unheard-of", "linux/unheard-of"),
    ],
)
def test_platforms_are_read_and_normalised(text: str, normal: str) -> None:
    assert str(Platform.parse(text)) == normal


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", "linux/", "/amd64", "a/b/c/d", "linux/amd64/", "lin ux/amd64", "unheard-of"),
        *("linux/é", "linux/amd64,linux/arm64", "linux//v7", "linux(1/amd64", "linux/am(1)d64"),
    ],
)
def test_what_is_no_platform_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(InvalidPlatformError) as caught:
        Platform.parse(text)
    assert "linux/arm64" in caught.value.hint


def test_what_is_left_out_comes_from_the_default() -> None:
    assert Platform.parse("linux", default=ARM7) == ARM7
    assert str(Platform.parse("linux", default=Platform("darwin", "arm64"))) == "linux/arm64"
    assert str(Platform.parse("amd64", default=Platform("windows", "arm64"))) == "windows/amd64"


WORDS = st.from_regex(r"[a-z0-9]{1,6}", fullmatch=True)


@given(st.lists(WORDS, min_size=2, max_size=3).map("/".join))
def test_reading_what_was_printed_gives_the_same(text: str) -> None:
    found = Platform.parse(text)
    assert Platform.parse(str(found)) == found
    assert found.normalised() == found
    assert Platform.from_json(found.to_json()) == found


def test_unknown_fields_and_features_survive() -> None:
    value = {
        "architecture": "amd64",
        "os": "windows",
        "os.version": "10.0",
        "os.features": ["win32k"],
        "features": ["x"],
    }
    assert Platform.from_json(value).to_json() == value


@pytest.mark.parametrize(
    "value",
    [
        [],
        "linux/amd64",
        None,
        {"os": 1, "architecture": "amd64"},
        {"os": "linux", "architecture": ["amd64"]},
        {"os": "linux", "architecture": "amd64", "os.features": [1]},
        {"os": "linux", "architecture": "amd64", "os.features": 7},
        {"os": "linux", "architecture": "amd64", "os.features": "text"},
    ],
)
def test_malformed_json_is_refused(value: object) -> None:
    with pytest.raises(InvalidDocumentError, match="platform"):
        Platform.from_json(value)


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], 1),
        ("linux/amd64", ["linux/amd64", "linux/amd64"], 0),
        ("linux/amd64", ["linux/arm64"], None),
        ("linux/amd64", ["windows/amd64"], None),
        ("linux/amd64", ["linux/amd64/v2"], None),
        ("linux/amd64", ["linux/386"], None),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2"], 1),
        ("linux/amd64/v3", ["linux/amd64/v4", "linux/amd64"], 1),
        ("linux/amd64/v2", ["linux/amd64/v3"], None),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6"], 1),
        ("linux/arm/v7", ["linux/arm/v8"], None),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm/v5"], 1),
        ("linux/arm/v8", ["linux/arm/v6", "linux/arm/v7"], 1),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64/v8"], 1),
        ("linux/arm64", ["linux/arm/v7"], None),
        ("linux/arm64/v9", ["linux/arm64"], 0),
        ("linux/amd64", ["unknown/unknown", "linux/amd64"], 1),
        ("linux/amd64", ["unknown/unknown"], None),
        ("linux/amd64", ["", "linux/amd64"], 1),
        ("linux/amd64", ["", "linux/arm64"], 0),
        ("linux/amd64", [], None),
    ],
)
def test_the_best_match_is_chosen(wanted: str, offered: list[str], chosen: int | None) -> None:
    platforms = [named(text) if text else None for text in offered]
    assert choose(Platform.parse(wanted), platforms) == chosen


def named(text: str) -> Platform:
    return Platform(*text.split("/"))


def test_documents_with_another_spelling_match() -> None:
    assert choose(Platform.parse("linux/arm64"), [Platform("linux", "aarch64", "v8")]) == 0
    assert choose(Platform("Linux", "x86_64"), [Platform("linux", "amd64")]) == 0
