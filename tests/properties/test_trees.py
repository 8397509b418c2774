"""Laws of trees and layers."""

from hypothesis import given
from hypothesis import strategies as st

from imagekit.errors import PathError
from imagekit.layer.changes import Changes, apply, diff
from imagekit.layer.content_digest import changes_digest, tree_digest
from imagekit.layer.tree import DIRECTORY, SYMLINK, Resolved, Tree, link_groups, name_bytes
from tests.support.trees import NAMES, changes, trees

PATHS = st.lists(st.sampled_from(["a", "b", "c", "..", ".", "é", ""]), max_size=6).map("/".join)


@given(lower=trees(), upper=trees())
def test_applying_a_diff_gives_the_upper_tree(lower: Tree, upper: Tree) -> None:
    assert apply(lower, diff(lower, upper)) == upper


@given(lower=trees(), upper=trees())
def test_without_times_of_directories_only_those_differ(lower: Tree, upper: Tree) -> None:
    result = apply(lower, diff(lower, upper, directory_times=False))
    assert timeless(result) == timeless(upper)
    assert link_groups(result) == link_groups(upper)


@given(made=trees())
def test_a_tree_does_not_differ_from_itself_built_anew(made: Tree) -> None:
    again = Tree.EMPTY.apply(Changes(entries={"": made.root.entry, **dict(made.walk())}))
    assert again == made
    assert diff(made, again) == Changes()


@given(lower=trees(), upper=trees())
def test_a_diff_comes_with_parents_and_in_order(lower: Tree, upper: Tree) -> None:
    found = diff(lower, upper)
    paths = [path for path in found.entries if path]
    keys = [[name_bytes(name) for name in path.split("/")] for path in paths]
    assert keys == sorted(keys)
    for path in [*paths, *found.whiteouts]:
        parent = path.rpartition("/")[0]
        assert not parent or found.entries[parent].kind == DIRECTORY
    assert all(lower.get(path) is not None for path in found.whiteouts)
    assert all(upper.get(path) is None for path in found.whiteouts)


@given(base=trees(), layer=changes())
def test_applying_leaves_the_lower_tree_as_it_was(base: Tree, layer: Changes) -> None:
    before = tuple(base.walk())
    base.apply(layer)
    assert tuple(base.walk()) == before


@given(base=trees(), layers=st.lists(changes(), max_size=3))
def test_layers_at_once_give_the_same_as_one_by_one(base: Tree, layers: list[Changes]) -> None:
    whole = diff(Tree.EMPTY, base)
    stepwise = base
    for layer in layers:
        stepwise = stepwise.apply(layer)
    assert Tree.from_layers([whole, *layers]) == stepwise


@given(base=trees(links=False), layer=changes())
def test_applying_a_layer_twice_changes_nothing_more(base: Tree, layer: Changes) -> None:
    if any(entry.kind == SYMLINK for _, entry in base.walk()):
        return  # a layer may go through a link of the base and then replace it
    once = base.apply(layer)
    if any(entry.kind == SYMLINK for _, entry in once.walk()):
        return
    assert once.apply(layer) == once


@given(made=trees(), path=PATHS, cwd=PATHS)
def test_a_resolved_path_is_inside_and_free_of_links(made: Tree, path: str, cwd: str) -> None:
    found = resolved(made, path, f"/{cwd}")
    if found is None:
        return
    parts = found.path.split("/") if found.path else []
    assert not {"..", ".", ""} & set(parts)
    assert found.entry == (made.get(found.path) if not found.missing else None)
    assert found.entry is None or found.entry.kind != SYMLINK
    assert made.resolve(found.path) == found or found.missing
    assert tuple(parts[len(parts) - len(found.missing) :]) == found.missing
    for depth in range(1, len(parts) - len(found.missing)):
        above = made.get("/".join(parts[:depth]))
        assert above is not None
        assert above.kind != SYMLINK


@given(made=trees(links=False), name=NAMES, time=st.integers(4, 9))
def test_a_content_digest_knows_no_times_but_names_and_modes(
    made: Tree, name: str, time: int
) -> None:
    old = dict(made.walk())
    later = {path: entry._replace(mtime=time) for path, entry in old.items()}
    assert tree_digest(Tree.EMPTY.apply(Changes(entries=later)).root) == tree_digest(made.root)
    assert changes_digest(Changes(entries=later)) == changes_digest(Changes(entries=old))
    if name in old:
        other = {**old, name: old[name]._replace(mode=old[name].mode ^ 0o20)}
        assert tree_digest(Tree.EMPTY.apply(Changes(entries=other)).root) != tree_digest(made.root)


def resolved(made: Tree, path: str, cwd: str) -> Resolved | None:
    """Where a path leads, or None if it passes too many links."""
    try:
        return made.resolve(path, cwd=cwd)
    except PathError:
        return None


def timeless(made: Tree) -> list[object]:
    return [
        (
            path,
            entry._replace(
                where=None, inode=0, mtime=0 if entry.kind == DIRECTORY else entry.mtime
            ),
        )
        for path, entry in made.walk()
    ]
