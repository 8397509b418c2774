"""What a cache key knows of what is copied."""

from typing import Any

import pytest

from imagekit.errors import LayerError
from imagekit.layer.changes import Changes
from imagekit.layer.content_digest import changes_digest, content_digest, tree_digest
from imagekit.layer.selection import Source
from imagekit.layer.tree import BLOCK, CHARACTER, FIFO, Entry
from imagekit.oci.digest import Digest
from tests.support.memory_build import PATTERNS
from tests.support.trees import directory, file, hard, link, tree

BASE: dict[str, Any] = {"d/a": "A", "d/s/b": "B", "d/s/x.md": "X", "top": "T"}


def digest(
    spec: dict[str, Any],
    path: str = "/d",
    *,
    pattern: str = "",
    exclude: tuple[str, ...] = (),
    source: str = "context",
) -> Digest:
    given = Source(
        tree=tree(spec, source=source), path=path, wildcard="*" in path, pattern=pattern
    )
    return content_digest(given, patterns=PATTERNS, exclude=exclude)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"d/a": file("A", mtime=5)}, id="time of a file"),
        pytest.param({"d/s": directory(mtime=5)}, id="time of a directory"),
        pytest.param({"d": directory(0o700, uid=5)}, id="the top directory"),
        pytest.param({"d/a": file("A", inode=9)}, id="inode"),
        pytest.param({"other": "O", "top": "N"}, id="files elsewhere"),
    ],
)
def test_some_changes_do_not_count(change: dict[str, Any]) -> None:
    assert digest({**BASE, **change}) == digest(BASE)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"d/a": "N"}, id="content"),
        pytest.param({"d/a": file("A", mode=0o600)}, id="mode"),
        pytest.param({"d/a": file("A", uid=1)}, id="uid"),
        pytest.param({"d/a": file("A", gid=1)}, id="gid"),
        pytest.param({"d/a": file("A", xattrs=(("user.a", b""),))}, id="xattr"),
        pytest.param({"d/a": link("s/b")}, id="kind"),
        pytest.param({"d/s": directory(0o700)}, id="mode of a directory below"),
        pytest.param({"d/e/": None}, id="empty directory"),
        pytest.param({"d/new": ""}, id="empty file"),
    ],
)
def test_other_changes_do(change: dict[str, Any]) -> None:
    assert digest({**BASE, **change}) != digest(BASE)


def test_all_sorts_of_entries_differ() -> None:
    sorts = [
        Entry(FIFO, 0o600),
        Entry(CHARACTER, 0o600, device=(1, 3)),
        Entry(CHARACTER, 0o600, device=(1, 5)),
        Entry(CHARACTER, 0o600, device=(13, 0)),
        Entry(BLOCK, 0o600, device=(1, 3)),
        file("", mode=0o600),
        file("x", mode=0o600, xattrs=(("user.a", b"1"), ("user.b", b""))),
        file("x", mode=0o600, xattrs=(("user.a", b""), ("user.b", b"1"))),
        Entry("l", 0o777, link="a"),
        Entry("l", 0o777, link="b"),
        directory(0o600),
    ]
    assert len({digest({"d/n": entry}) for entry in sorts}) == len(sorts)


def test_where_names_end_is_clear() -> None:
    assert digest({"d/ab": "c"}) != digest({"d/a": "bc"})
    one, two = {"d/a": link("b\n1:c l777 0 0 1:d")}, {"d/a": link("b"), "d/c": link("d")}
    assert digest(one) != digest(two)


def test_a_hard_link_is_as_good_as_a_copy() -> None:
    assert digest({"d/a": "x", "d/b": hard("d/a")}) == digest({"d/a": "x", "d/b": "x"})


def test_the_name_of_a_plain_source_is_no_part() -> None:
    assert digest({"a": "x"}, "/a") == digest({"b": "x"}, "/b")
    assert digest({"a": "x"}, "/a") == digest({"a": link("b"), "b": "x"}, "/a")


def test_the_names_that_wildcards_match_are() -> None:
    assert digest({"a1": "x"}, "/a*") != digest({"a2": "x"}, "/a*")
    assert digest({"b": "x"}, "/a*") == digest({}, "/a*")
    assert digest({"a/": None}, "/a*") != digest({}, "/a*")


def test_what_is_excluded_does_not_count() -> None:
    changed = {**BASE, "d/s/x.md": "N"}
    assert digest(changed) != digest(BASE)
    assert digest(changed, exclude=("**/*.md",)) == digest(BASE, exclude=("**/*.md",))
    assert digest(BASE, exclude=("**/*.md",)) != digest(BASE)


def test_what_parents_leave_out_does_not_count_but_the_directories_between_do() -> None:
    assert digest({**BASE, "d/a": "N"}, "/", pattern="d/s/b") == digest(BASE, "/", pattern="d/s/b")
    other = {**BASE, "d": directory(0o700)}
    assert digest(other, "/", pattern="d/s/b") != digest(BASE, "/", pattern="d/s/b")


def test_the_place_of_content_is_no_part() -> None:
    assert digest(BASE, source="elsewhere") == digest(BASE)


def test_content_without_a_digest_has_none() -> None:
    with pytest.raises(LayerError) as caught:
        digest({"d/a": file("A", digest=b"")})
    assert caught.value.code == "digest-unknown"


def test_a_mounted_tree_has_the_digest_of_what_is_in_it() -> None:
    assert tree_digest(tree(BASE).root) == tree_digest(tree(BASE, source="other").root)
    assert tree_digest(tree(BASE).root) != tree_digest(tree({**BASE, "n": ""}).root)


def test_layers_differ_by_what_they_hide() -> None:
    layers = [
        Changes(),
        Changes(whiteouts=frozenset(["a"])),
        Changes(opaque=frozenset(["a"])),
        Changes(implied=frozenset(["a"])),
        Changes(entries={"a": file("x")}),
        Changes(entries={"a": file("y")}),
    ]
    assert len({changes_digest(changes) for changes in layers}) == len(layers)
