from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagekit.dockerfile import Matcher, parse_ignore
from imagekit.dockerfile.gopath import clean, go_match
from imagekit.dockerfile.ignore import NO_STATE
from imagekit.dockerfile.selection import Listing, follow_links, select
from imagekit.errors import ContextError

TABLE = Path(__file__).parents[2] / "fixtures" / "ignore.tsv"
ROWS = [
    line.split("\t")
    for line in TABLE.read_text(encoding="utf-8").splitlines()
    if not line.startswith("# ")
]
NAMES = st.text(st.sampled_from("ab.*"), min_size=1, max_size=3).filter(lambda n: n.strip("."))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
PATTERNS = st.text(st.sampled_from("ab/*?.[]!^\\-"), min_size=1, max_size=8)


@pytest.mark.parametrize(("lines", "path", "wanted"), ROWS, ids=[" ".join(r) for r in ROWS])
def test_paths_are_excluded_as_the_table_says(lines: str, path: str, wanted: str) -> None:
    patterns = parse_ignore(lines.replace("|", "\n") if "(" not in lines else lines)
    if wanted == "!":
        with pytest.raises(ContextError) as caught:
            Matcher(patterns)
        assert caught.value.code == "pattern-invalid"
    else:
        assert Matcher(patterns).excluded(path) is (wanted == "yes")


def test_bytes_and_carriage_returns_are_read() -> None:
    assert parse_ignore(b"\xef\xbb\xbf# c\r\n a \r\n\r\n!/b\r\n") == ("a", "!b")


@given(patterns=st.lists(PATTERNS, max_size=4), path=PATHS)
def test_a_walk_without_exceptions_agrees_with_a_single_look(
    patterns: list[str], path: str
) -> None:
    try:
        matcher = Matcher(pattern.lstrip("!/ ") for pattern in patterns)
    except ContextError:
        return
    state = NO_STATE
    parts = path.split("/")
    excluded = False
    for depth in range(1, len(parts) + 1):
        excluded, state = matcher.step("/".join(parts[:depth]), state)
    assert excluded is matcher.excluded(path)


@given(patterns=st.lists(PATTERNS, max_size=4), tree=st.sets(PATHS, max_size=6))
def test_pruning_changes_nothing_that_is_kept(patterns: list[str], tree: set[str]) -> None:
    files = [path for path in tree if not any(other.startswith(path + "/") for other in tree)]
    listing = Listing.of(files, [], {})
    try:
        kept = select(listing, patterns)
    except ContextError:
        return
    assert set(kept) <= set(listing.paths)
    for path in kept:
        above = path.rpartition("/")[0]
        assert not above or above in kept


def test_a_directory_with_something_kept_is_kept() -> None:
    listing = Listing.of(["a/b", "a/c", "d"], ["e"], {})
    assert select(listing, ["*", "!a/b"]) == ("a", "a/b")


def test_links_on_the_way_are_followed() -> None:
    listing = Listing.of(["t/f"], [], {"l": "t", "d/m": "../l", "x": "x", "r": "/"})
    assert follow_links(listing, ["d/m/f"]) == ("d/m", "l", "t/f")
    assert follow_links(listing, ["x"]) == ("x",)
    assert follow_links(listing, ["r"]) == ()
    assert follow_links(listing, ["d/*"]) == ("d/*", "l", "t")


@pytest.mark.parametrize(
    ("path", "wanted"),
    [("", "."), ("a//b/./c/..", "a/b"), ("/../a", "/a"), ("../a/../..", "../.."), ("/", "/")],
)
def test_paths_are_cleaned(path: str, wanted: str) -> None:
    assert clean(path) == wanted


@pytest.mark.parametrize(
    ("pattern", "name", "wanted"),
    [
        ("*", "abc", True),
        ("a*b*c", "axbbxc", True),
        ("*c", "a/c", False),
        ("[^a-c]?", "da", True),
        ("[]]", "]", None),
        (r"[\]]", "]", True),
        (r"\*", "*", True),
        ("[-", "-", None),
        ("[a-]", "a", None),
        ("a\\", "a", None),
    ],
)
def test_wildcards_are_those_of_go(pattern: str, name: str, wanted: bool | None) -> None:  # noqa: FBT001 - a column of the table
    if wanted is None:
        with pytest.raises(ContextError):
            go_match(pattern, name)
    else:
        assert go_match(pattern, name) is wanted
