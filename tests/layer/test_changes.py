"""What layers do to trees, and what layer makes one tree of another."""

from typing import Any

import pytest

from imagekit.layer.changes import Changes, apply, diff
from tests.support.trees import directory, entries, file, hard, link, shown, tree

LOWER: dict[str, Any] = {"d/a": "1", "d/e/b": "2", "f": "3", "l": link("d"), "gone": link("new/x")}


def layer(spec: dict[str, Any], **rest: Any) -> Changes:
    return Changes(entries=entries(spec), **{k: frozenset(v) for k, v in rest.items()})


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        pytest.param(layer({}, whiteouts=["d/a"]), ["d", "d/e", "d/e/b"], id="whiteout"),
        pytest.param(layer({}, whiteouts=["d"]), [], id="whiteout of a directory"),
        pytest.param(layer({}, whiteouts=["nope/x", "d/nope"]), None, id="whiteout of nothing"),
        pytest.param(layer({}, whiteouts=["l/a"]), None, id="whiteout through a link"),
        pytest.param(layer({}, opaque=["d"]), ["d"], id="opaque"),
        pytest.param(layer({"d/n": "n"}, opaque=["d"]), ["d", "d/n"], id="opaque keeps its own"),
        pytest.param(layer({"d/a": "n"}, whiteouts=["d/a"]), None, id="whiteout and entry"),
        pytest.param(layer({"d": "n"}), ["d"], id="file over directory"),
        pytest.param(layer({"d": link("x")}), ["d"], id="link over directory"),
        pytest.param(layer({"d/": 0o700}), None, id="directory over directory"),
        pytest.param(layer({"f/": None, "f/x": "n"}), ["f", "f/x"], id="directory over file"),
        pytest.param(layer({"f/x": "n"}), ["f", "f/x"], id="implied directory over file"),
        pytest.param(layer({"l/": None, "l/x": "n"}), ["l", "l/x"], id="directory over link"),
    ],
)
def test_a_layer_changes_a_tree(changes: Changes, want: list[str] | None) -> None:
    lower = tree(LOWER)
    upper = apply(lower, changes)
    top = {path.partition("/")[0] for path in [*changes.entries, *changes.whiteouts]}
    tops = (top | set(changes.opaque)) & {"d", "f", "l"}
    names = [path for name in sorted(tops) for path, _ in upper.walk(name)]
    same = [path for name in sorted(tops) for path, _ in lower.walk(name)]
    assert names == (same if want is None else want)


def test_a_parent_that_is_a_link_is_followed() -> None:
    upper = tree(LOWER).apply(layer({"l/x": "n"}, implied=["l"]))
    assert upper.get("d/x") is not None
    assert upper.get("l") == tree(LOWER).get("l")


def test_a_parent_that_is_a_dangling_link_is_made_where_it_leads() -> None:
    upper = tree(LOWER).apply(layer({"gone/y": "n"}))
    assert upper.get("new/x/y") is not None


def test_a_link_out_of_the_root_is_followed_inside() -> None:
    upper = tree({"l": link("../../etc")}).apply(layer({"l/x": "n"}))
    assert upper.get("etc/x") is not None


def test_implied_directories_keep_what_is_there() -> None:
    lower = tree({"d/": 0o700, "d/a": "1"})
    upper = lower.apply(layer({}, implied=["d", "n/m"]))
    assert upper.get("d") == lower.get("d")
    assert shown(upper)["n/m/"] == "0755"


def test_the_root_takes_an_entry() -> None:
    upper = tree(LOWER).apply(Changes(entries={"": directory(0o700)}))
    assert list(diff(tree(LOWER), upper).entries) == [""]
    assert upper.root.entry.mode == 0o700
    assert upper.get("d/a") is not None


@pytest.mark.parametrize(
    ("before", "after", "put", "gone"),
    [
        pytest.param({"a": "1"}, {"a": "1"}, [], [], id="nothing"),
        pytest.param({"d/a": "1"}, {"d/a": "2"}, ["d", "d/a"], [], id="content"),
        pytest.param({"d/a": "1"}, {"d/": None}, ["d"], ["d/a"], id="removed"),
        pytest.param({"d/e/a": "1"}, {"x": "1"}, ["x"], ["d"], id="removed directory"),
        pytest.param({"a": "1"}, {"a/b": "1"}, ["a", "a/b"], [], id="file to directory"),
        pytest.param({"a/b": "1"}, {"a": "1"}, ["a"], [], id="directory to file"),
        pytest.param({"a/": 0o755}, {"a/": 0o700}, ["a"], [], id="mode of a directory"),
        pytest.param({"a": link("x")}, {"a": link("y")}, ["a"], [], id="link target"),
        pytest.param(
            {"d/a": "1", "d/b": "2"}, {"d/c": "3"}, ["d", "d/c"], ["d/a", "d/b"], id="recreated"
        ),
        pytest.param(
            {"a": "1", "b": "1"}, {"a": "1", "b": hard("a")}, ["a", "b"], [], id="now linked"
        ),
        pytest.param(
            {"a": "1", "b": hard("a")}, {"a": "1", "b": "1"}, ["a", "b"], [], id="no more linked"
        ),
        pytest.param({"a": "1", "b": hard("a")}, {"a": "1"}, [], ["b"], id="one name gone"),
        pytest.param({}, {"a/b/c": "1"}, ["a", "a/b", "a/b/c"], [], id="parents"),
    ],
)
def test_a_diff_holds_what_changed(
    before: dict[str, Any], after: dict[str, Any], put: list[str], gone: list[str]
) -> None:
    lower, upper = tree(before), tree(after)
    found = diff(lower, upper)
    assert (list(found.entries), sorted(found.whiteouts)) == (put, gone)
    assert not found.opaque
    assert apply(lower, found) == upper


def test_equal_content_in_another_place_is_no_change() -> None:
    assert diff(tree({"a": "1"}), tree({"a": "1"}, source="other")) == Changes()


def test_content_without_a_digest_is_equal_only_in_one_place() -> None:
    unknown = file("1", digest=b"")
    assert diff(tree({"a": unknown}), tree({"a": unknown})) == Changes()
    other = tree({"a": file("1", source="other", digest=b"")})
    assert list(diff(tree({"a": unknown}), other).entries) == ["a"]


def test_times_of_directories_count_only_where_asked_for() -> None:
    lower, upper = tree({"d": directory()}), tree({"d": directory(mtime=5)})
    assert list(diff(lower, upper).entries) == ["d"]
    assert diff(lower, upper, directory_times=False) == Changes()


def test_a_parent_in_a_diff_carries_its_own_metadata() -> None:
    lower = tree({"d/": 0o700})
    upper = lower.apply(Changes(entries={"d/a": file("1")}))
    assert diff(lower, upper).entries["d"] == directory(0o700)
