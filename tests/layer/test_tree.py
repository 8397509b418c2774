"""Looking things up in trees."""

import pytest

from imagekit.errors import PathError
from imagekit.layer.changes import Changes
from imagekit.layer.draft import Draft
from imagekit.layer.tree import IMPLIED, Entry, Resolved, Tree, sorted_names
from tests.support.trees import directory, file, hard, link, tree

ROOT = tree(
    {
        "etc/passwd": "p",
        "real/sub/f": "f",
        "rel": link("real"),
        "abs": link("/real/sub"),
        "up": link("../../../real"),
        "real/back": link("../etc"),
        "dangling": link("gone/there"),
        "chain": link("rel/back/passwd"),
        "loop": link("loop"),
        "dot": link("."),
    }
)


@pytest.mark.parametrize(
    ("path", "want"),
    [
        ("/etc/passwd", "etc/passwd"),
        ("etc//./passwd/", "etc/passwd"),
        ("/", ""),
        ("", ""),
        ("..", ""),
        ("/../../etc/../etc/passwd", "etc/passwd"),
        ("rel/sub/f", "real/sub/f"),
        ("abs/f", "real/sub/f"),
        ("abs/..", "real"),
        ("up/sub", "real/sub"),
        ("rel/back/passwd", "etc/passwd"),
        ("chain", "etc/passwd"),
        ("dot/dot/dot/etc", "etc"),
    ],
)
def test_a_path_is_followed_inside_the_root(path: str, want: str) -> None:
    assert ROOT.resolve(path) == Resolved(want, ROOT.get(want))


@pytest.mark.parametrize(
    ("path", "want", "missing"),
    [
        ("nope", "nope", ("nope",)),
        ("rel/nope/more", "real/nope/more", ("nope", "more")),
        ("dangling", "gone/there", ("gone", "there")),
        ("dangling/x", "gone/there/x", ("gone", "there", "x")),
        ("dangling/../x", "gone/x", ("gone", "x")),
        ("nope/../etc/nope", "etc/nope", ("nope",)),
        ("etc/passwd/x", "etc/passwd/x", ("x",)),
    ],
)
def test_what_is_missing_is_told_apart(path: str, want: str, missing: tuple[str, ...]) -> None:
    assert ROOT.resolve(path) == Resolved(want, None, missing)


def test_the_last_link_is_kept_where_it_is_not_to_be_followed() -> None:
    found = ROOT.resolve("up/../rel", follow_last=False)
    assert (found.path, found.entry) == ("rel", ROOT.get("rel"))
    assert ROOT.resolve("rel/sub", follow_last=False).path == "real/sub"


def test_a_relative_path_starts_where_it_is_told() -> None:
    assert ROOT.resolve("f", cwd="/abs").path == "real/sub/f"
    assert ROOT.resolve("/etc", cwd="/abs").path == "etc"


@pytest.mark.parametrize("path", ["loop", "loop/x", "dot/loop"])
def test_a_loop_is_an_error(path: str) -> None:
    with pytest.raises(PathError) as caught:
        ROOT.resolve(path)
    assert caught.value.code == "too-many-links"


@pytest.mark.parametrize(("length", "fails"), [(40, False), (41, True)])
def test_forty_links_are_followed_and_no_more(length: int, fails: bool) -> None:  # noqa: FBT001
    spec = {f"l{n}": link(f"l{n + 1}") for n in range(length)} | {f"l{length}": "end"}
    made = tree(spec)
    if fails:
        with pytest.raises(PathError):
            made.resolve("l0")
    else:
        assert made.resolve("l0").path == f"l{length}"


def test_get_follows_no_link() -> None:
    entry = ROOT.get("rel")
    assert entry is not None
    assert entry.link == "real"
    assert ROOT.get("rel/sub") is None
    assert ROOT.get("etc/passwd/x") is None
    assert ROOT.get("") == IMPLIED


def test_a_walk_is_in_the_order_of_bytes_with_parents_first() -> None:
    made = tree({"b.": "1", "b/x": "2", "a": "3", "\ue000": "4", "\udcff": "5", "é": "6"})
    names = [path for path, _ in made.walk()]
    assert names == ["a", "b", "b/x", "b.", "é", "\ue000", "\udcff"]
    assert made.list() == ("a", "b", "b.", "é", "\ue000", "\udcff")
    assert [path for path, _ in made.walk("b")] == ["b", "b/x"]
    assert list(made.walk("nope")) == []
    assert sorted_names(["b", "a"]) == ["a", "b"]


def test_only_a_directory_is_listed() -> None:
    with pytest.raises(PathError):
        ROOT.list("etc/passwd")
    with pytest.raises(PathError):
        ROOT.list("rel")


def test_missing_parents_are_directories_of_root_without_time() -> None:
    assert tree({"a/b/c": "x"}).get("a/b") == Entry("d", 0o755)


def test_equality_is_of_content_and_not_of_place() -> None:
    here, there = tree({"f": "x"}), tree({"f": "x"}, source="elsewhere")
    assert here == there
    assert here != tree({"f": "y"})
    assert here != tree({"f": file("x", mtime=1)})
    assert tree({"f": "x", "g": hard("f")}) != tree({"f": "x", "g": "x"})
    assert here != tree({"f": "x", "g": "x"})
    assert here != Tree.EMPTY.apply(Changes(entries={"": directory(0o700), "f": file("x")}))
    assert here == here.apply(Changes())
    assert here != "f"
    assert repr(here) == "<Tree of 1 entries>"


def test_many_layers_make_one_tree() -> None:
    layers = [Changes(entries={"a": file("1")}), Changes(entries={"b": file("2")})]
    assert Tree.from_layers(layers) == tree({"a": "1", "b": "2"})


def test_a_tree_shares_what_a_layer_leaves_alone() -> None:
    lower = tree({"usr/bin/a": "1", "etc/b": "2"})
    upper = lower.apply(Changes(entries={"etc/c": file("3")}))
    assert upper.root.children["usr"] is lower.root.children["usr"]
    assert lower.get("etc/c") is None


def test_a_draft_does_not_change_the_trees_it_gave() -> None:
    draft = Draft(tree({"d/a": "1"}))
    first = draft.tree()
    draft.put("d/b", file("2"))
    with pytest.raises(PathError):
        draft.resolve("x", within="d/b")
    second = draft.tree()
    draft.remove("d/a")
    draft.clear("d")
    assert [path for path, _ in first.walk()] == ["d", "d/a"]
    assert [path for path, _ in second.walk()] == ["d", "d/a", "d/b"]
    assert [path for path, _ in draft.tree().walk()] == ["d"]


def test_a_draft_that_replaces_a_directory_forgets_what_was_in_it() -> None:
    draft = Draft(tree({"d/e/f": "1"}))
    draft.put("d/e/g", file("2"))
    draft.put("d", file("3"))
    draft.put("d/e/h", file("4"))
    assert [path for path, _ in draft.tree().walk()] == ["d", "d/e", "d/e/h"]
    draft.put("d/e/i", file("5"))
    draft.remove("d")
    draft.put("d/e/j", directory())
    assert [path for path, _ in draft.tree().walk()] == ["d", "d/e", "d/e/j"]


def test_a_tree_as_deep_as_paths_allow_is_no_trouble() -> None:
    deep = "/".join("a" * 2000)
    made = tree({f"{deep}/f": "x"})
    assert made.resolve(deep).entry is not None
    assert len(list(made.walk())) == 2001
    assert Tree.EMPTY.apply(Changes(entries=dict(made.walk()))) == made
