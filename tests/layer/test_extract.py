"""ADD of archives."""

from typing import Any

import pytest

from imagekit.errors import PathError
from imagekit.layer.changes import Changes
from imagekit.layer.copying import CopyOptions, Readers, copy
from imagekit.layer.extract import Archive, Member
from imagekit.layer.selection import Source
from imagekit.layer.tree import DIRECTORY, FILE, SYMLINK, Entry, Tree, Where
from tests.support.memory_build import PATTERNS
from tests.support.trees import directory, hard, link, shown, tree

NOW = 7


def member(name: str, item: object) -> Member:
    if isinstance(item, Entry):
        return Member(name, item)
    if name.endswith("/"):
        return Member(name, Entry(DIRECTORY, item if isinstance(item, int) else 0o755, mtime=3))
    if isinstance(item, type(link(""))):
        return Member(name, Entry(SYMLINK, 0o777, mtime=3, link=item.target))
    if isinstance(item, type(hard(""))):
        return Member(name, Entry(FILE, 0o600, 5, 6, mtime=4), item.of)
    return Member(name, Entry(FILE, 0o644, mtime=3, where=Where("archive", str(item))))


def added(
    members: list[tuple[str, object]], root: dict[str, Any], dest: str = "/x/", **options: Any
) -> Changes:
    archive: Archive = tuple(member(*pair) for pair in members)
    readers = Readers(read_file=lambda _: b"", unpack=lambda _: archive or None, patterns=PATTERNS)
    source = Source(tree=tree({"t.tar": "T"}), path="/t.tar", unpack=True)
    return copy(CopyOptions(dest=dest, **options), [source], tree(root), now=NOW, readers=readers)


def layer(members: list[tuple[str, object]], root: dict[str, Any], **rest: Any) -> dict[str, str]:
    return shown(Tree.EMPTY.apply(added(members, root, **rest)))


def refused(members: list[tuple[str, object]], root: dict[str, Any], **rest: Any) -> str:
    with pytest.raises(PathError) as caught:
        added(members, root, **rest)
    return caught.value.code


@pytest.mark.parametrize("dest", ["/x", "/x/", "/l", "/l/"])
def test_an_archive_goes_into_a_directory(dest: str) -> None:
    made = layer([("n", "N")], {"l": link("x")}, dest=dest)
    assert made == {"x/": "0755", "x/n": "0644 N"}


def test_a_file_without_members_is_copied() -> None:
    assert layer([], {}) == {"x/": "0755", "x/t.tar": "0644 T"}


def test_an_archive_does_not_go_where_a_file_is() -> None:
    assert refused([("n", "N")], {"x": "f"}) == "copy-many-to-file"


@pytest.mark.parametrize(
    "name", ["n", "./n", "/n", "//n", "../n", "../../n", "a/../n", "a/../../n", "././/n"]
)
def test_names_stay_inside(name: str) -> None:
    assert layer([(name, "N")], {}) == {"x/": "0755", "x/n": "0644 N"}


@pytest.mark.parametrize("name", ["./", "/", ".", "..", ""])
def test_a_member_for_the_root_changes_nothing(name: str) -> None:
    made = layer([(name, Entry(DIRECTORY, 0o700, 5, 6)), ("n", "N")], {"x/": 0o750})
    assert made == {"x/": "0750", "x/n": "0644 N"}


def test_directories_are_merged_and_take_the_metadata_of_the_archive() -> None:
    root = {"x/d": directory(0o755, xattrs=(("user.a", b"1"),)), "x/d/k": "K"}
    changes = added([("d/", Entry(DIRECTORY, 0o700, 7, 8, 3)), ("d/n", "N")], root)
    assert shown(tree(root).apply(changes))["x/d/"] == "0700 7:8"
    assert changes.entries["x/d"].xattrs == (("user.a", b"1"),)
    assert changes.entries["x/d"].mtime == 3


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"x/n": "old"}, ("n", "N")),
        ({"x/n/f": "old"}, ("n", "N")),
        ({"x/n": link("/etc")}, ("n", "N")),
        ({"x/n": "old"}, ("n/", None)),
        ({"x/n": link("/etc")}, ("n/", None)),
        ({"x/n/f": "old"}, ("n", link("l"))),
    ],
)
def test_a_member_replaces_what_is_there(old: dict[str, Any], new: tuple[str, object]) -> None:
    after = tree(old).apply(added([new], old))
    entry, want = after.get("x/n"), member(*new).entry
    assert entry is not None
    assert (entry.kind, entry.link) == (want.kind, want.link)
    assert after.get("x/n/f") is None
    assert after.get("etc") is None


def test_missing_parents_are_made_of_root_and_now() -> None:
    changes = added([("a/b/c", "C")], {}, chown="5:6")
    assert changes.entries["x/a"] == changes.entries["x/a/b"] == Entry("d", 0o755, mtime=NOW)
    assert changes.entries["x/a/b/c"].uid == 5


def test_a_link_on_the_way_is_followed_inside_the_directory() -> None:
    root = {"x/real/": None, "x/l": link("/real"), "real/": None, "x/u": link("../../real")}
    made = layer([("l/n", "N"), ("u/m/o", "O")], root)
    assert made == {
        "x/": "0755",
        "x/real/": "0755",
        "x/real/m/": "0755",
        "x/real/m/o": "0644 O",
        "x/real/n": "0644 N",
    }


@pytest.mark.parametrize("name", ["l/p", "l/q/p"])
def test_a_link_that_dangles_is_not_filled(name: str) -> None:
    assert refused([("l", link("/etc")), (name, "1")], {}) == "source-not-found"


@pytest.mark.parametrize("name", ["n/f", "n/d/f"])
def test_nothing_is_put_below_a_file(name: str) -> None:
    assert refused([("n", "N"), (name, "1")], {}) == "copy-many-to-file"


def test_a_hard_link_shares_the_file_and_says_what_it_is_like() -> None:
    changes = added([("q/r", "R"), ("h", hard("q/r")), ("./i", hard("/h"))], {})
    files = [changes.entries[f"x/{name}"] for name in ("q/r", "h", "i")]
    assert len(set(files)) == 1
    assert files[0][:5] == (FILE, 0o600, 5, 6, 4)
    assert files[0].inode != 0
    assert files[0].where == Where("archive", "R")


def test_a_hard_link_may_name_a_file_that_was_there() -> None:
    root = {"x/old": "O"}
    changes = added([("h", hard("old"))], root, chown="1:2")
    assert changes.entries["x/h"] == changes.entries["x/old"]
    assert changes.entries["x/h"].uid == 1


def test_a_hard_link_to_a_link_is_that_link() -> None:
    changes = added([("l", link("/etc/shadow")), ("h", hard("l"))], {})
    assert changes.entries["x/h"].link == "/etc/shadow"


def test_a_replaced_name_leaves_the_file() -> None:
    changes = added([("a", "A"), ("b", hard("a")), ("a", "N"), ("c", hard("b"))], {})
    assert changes.entries["x/a"].where == Where("archive", "N")
    assert changes.entries["x/b"] == changes.entries["x/c"]
    assert changes.entries["x/a"].inode == 0


@pytest.mark.parametrize(
    ("target", "code"), [("none", "source-not-found"), ("d", "copy-many-to-file")]
)
def test_a_hard_link_needs_a_file(target: str, code: str) -> None:
    assert refused([("d/", None), ("h", hard(target))], {}) == code


def test_a_hard_link_to_itself_is_nothing() -> None:
    assert layer([("a", "A"), ("a", hard("./a"))], {}) == {"x/": "0755", "x/a": "0644 A"}


def test_modes_are_those_of_the_archive() -> None:
    made = layer([("n", Entry(FILE, 0o4755)), ("d/", 0o1777)], {}, chmod="600", exclude=("n",))
    assert made == {"x/": "0755", "x/d/": "1777", "x/n": "4755"}


def test_a_whiteout_in_an_archive_hides_what_is_below() -> None:
    root = {"x/gone": "G"}
    changes = added([(".wh.gone", ""), ("new", "N")], root)
    assert changes.whiteouts == {"x/gone"}
    assert shown(tree(root).apply(changes)) == {"x/": "0755", "x/new": "0644 N"}
