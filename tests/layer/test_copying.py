"""Where copies go, what they replace, and what they refuse."""

from typing import Any, ClassVar

import pytest

from imagekit.errors import BadWhiteoutError, ContextError, PathError
from imagekit.layer.changes import Changes
from imagekit.layer.copying import CopyOptions, Readers, copy, inline_file, mkdir
from imagekit.layer.selection import Source
from imagekit.layer.tree import FIFO, Entry, Tree, Where
from tests.support.memory_build import PATTERNS
from tests.support.trees import directory, entries, file, hard, link, shown, tree

NOW = 7
PASSWD = "app:x:1001:2002::/:\n"


def read(entry: Entry) -> bytes:
    assert entry.where is not None
    return str(entry.where.at).encode()


READERS = Readers(read_file=read, unpack=lambda _: None, patterns=PATTERNS)


def copied(
    source: dict[str, Any],
    root: dict[str, Any] | None,
    *paths: str,
    dest: str,
    pattern: str = "",
    **options: Any,
) -> Changes:
    context = tree(source, source="context")
    sources = [
        Source(
            tree=context,
            path=path,
            wildcard="*" in path or "[" in path,
            pattern=pattern,
            required=bool(pattern) and "*" not in pattern,
        )
        for path in paths
    ]
    base = None if root is None else tree(root)
    return copy(CopyOptions(dest=dest, **options), sources, base, now=NOW, readers=READERS)


def layer(
    source: dict[str, Any], root: dict[str, Any], *paths: str, **rest: Any
) -> dict[str, str]:
    return shown(Tree.EMPTY.apply(copied(source, root, *paths, **rest)))


def refused(source: dict[str, Any], root: dict[str, Any] | None, *paths: str, **rest: Any) -> str:
    with pytest.raises((PathError, ContextError)) as caught:
        copied(source, root, *paths, **rest)
    return caught.value.code


ONE = {"a": "A", "d/b": "B"}


@pytest.mark.parametrize(
    ("dest", "root", "want"),
    [
        ("/x", {}, {"x": "0644 A"}),
        ("/x/", {}, {"x/": "0755", "x/a": "0644 A"}),
        ("/x/y/z", {}, {"x/": "0755", "x/y/": "0755", "x/y/z": "0644 A"}),
        ("/x", {"x/": 0o700}, {"x/": "0700", "x/a": "0644 A"}),
        ("/x", {"x": "old"}, {"x": "0644 A"}),
        ("/l", {"real/": None, "l": link("real")}, {"real/": "0755", "real/a": "0644 A"}),
        ("/l", {"real": "old", "l": link("/real")}, {"real": "0644 A"}),
        ("/l", {"l": link("no/where")}, {"no/": "0755", "no/where": "0644 A"}),
        ("/l/", {"l": link("nowhere")}, {"nowhere/": "0755", "nowhere/a": "0644 A"}),
        ("/l/x", {"l": link("../../etc")}, {"etc/": "0755", "etc/x": "0644 A"}),
        ("/x", {"x/": None, "x/a": link("/etc/shadow")}, {"x/": "0755", "x/a": "0644 A"}),
        ("/", {}, {"a": "0644 A"}),
    ],
)
def test_a_file_goes_to_its_destination(
    dest: str, root: dict[str, Any], want: dict[str, str]
) -> None:
    assert layer(ONE, root, "/a", dest=dest) == want


def test_made_directories_have_the_time_of_the_build_and_others_keep_theirs() -> None:
    changes = copied(ONE, {"d": directory(mtime=3)}, "/a", dest="/d/new/")
    assert changes.entries["d/new"] == Entry("d", 0o755, mtime=NOW)
    assert changes.entries["d"] == directory(mtime=3)
    assert changes.entries["d/new/a"].mtime == file().mtime


def test_a_directory_gives_its_contents_and_not_its_metadata() -> None:
    source = {"d": directory(0o700, uid=5), "d/s": directory(0o711, uid=6), "d/s/f": "F"}
    want = {"x/": "0755", "x/s/": "0711 6:0", "x/s/f": "0644 F"}
    assert layer(source, {}, "/d", dest="/x") == want


def test_nested_directories_take_the_metadata_of_the_source() -> None:
    root = {"x": directory(0o700, uid=1), "x/s": directory(0o700, uid=2), "x/s/old": "O"}
    changes = copied({"d/s": directory(0o711, uid=6)}, root, "/d", dest="/x")
    assert shown(Tree.EMPTY.apply(changes)) == {"x/": "0700 1:0", "x/s/": "0711 6:0"}


def test_an_existing_directory_keeps_the_attributes_that_the_source_lacks() -> None:
    root = {"x/s": directory(xattrs=(("user.a", b"1"), ("user.b", b"1")))}
    source = {"d/s": directory(0o711, xattrs=(("user.b", b"2"),))}
    changes = copied(source, root, "/d", dest="/x")
    assert changes.entries["x/s"].xattrs == (("user.a", b"1"), ("user.b", b"2"))


def test_links_in_a_copied_directory_stay_links() -> None:
    source = {"d/l": link("/etc/passwd"), "d/m": link("missing")}
    want = {"x/": "0755", "x/l": "-> /etc/passwd", "x/m": "-> missing"}
    assert layer(source, {}, "/d", dest="/x/") == want


@pytest.mark.parametrize("old", ["old", link("/etc")])
@pytest.mark.parametrize("new", ["new", link("else"), Entry(FIFO, 0o600)])
def test_files_and_links_replace_files_and_links(old: object, new: object) -> None:
    changes = copied({"d/n": new}, {"n": old, "etc/": None}, "/d", dest="/")
    assert changes.entries == entries({"n": new}, source="context")


@pytest.mark.parametrize(
    ("source", "root", "path", "dest"),
    [
        (ONE, {"x": "f"}, "/a", "/x/"),
        (ONE, {"x": "f"}, "/a", "/x/y"),
        (ONE, {"x": "f"}, "/d", "/x"),
        (ONE, {"x/a/": None}, "/a", "/x/"),
        ({"d/n/f": "1"}, {"n": "f"}, "/d", "/"),
        ({"d/n/f": "1"}, {"n": link("e"), "e/": None}, "/d", "/"),
        ({"d/n": "1"}, {"n/": None}, "/d", "/"),
        ({"d/n": link("x")}, {"n/": None}, "/d", "/"),
    ],
)
def test_directories_and_files_do_not_replace_each_other(
    source: dict[str, Any], root: dict[str, Any], path: str, dest: str
) -> None:
    assert refused(source, root, path, dest=dest) == "copy-many-to-file"


def test_later_sources_win() -> None:
    assert layer({"a": "A", "b": "B"}, {}, "/a", "/b", dest="/x") == {"x": "0644 B"}


def test_a_copy_that_changes_nothing_is_empty() -> None:
    assert copied(ONE, {"a": "A"}, "/a", dest="/a") == Changes()
    assert copied(ONE, {"x": directory(mtime=1), "x/b": "B"}, "/d", dest="/x") == Changes()


@pytest.mark.parametrize(
    ("path", "want"),
    [
        ("/*.txt", {"x/": "0755", "x/a.txt": "0644 a", "x/b.txt": "0644 b"}),
        ("/[^a].txt", {"x/": "0755", "x/b.txt": "0644 b"}),
        ("/*/*/f", {"x/": "0755", "x/f": "0644 f"}),
        ("/l*", {"x/": "0755", "x/f": "0644 f", "x/l1": "0644 a"}),
        ("/none*", {}),
        ("/nodir/*", {}),
        ("/a.txt/*", {}),
        ("/**/f", {}),
    ],
)
def test_wildcards_name_what_matches(path: str, want: dict[str, str]) -> None:
    source = {
        "a.txt": "a",
        "b.txt": "b",
        "d/e/f": "f",
        "l1": link("a.txt"),
        "l2": link("d/e"),
    }
    assert layer(source, {}, path, dest="/x/") == want


def test_a_bad_pattern_is_refused_even_where_nothing_is() -> None:
    assert refused({}, {}, "/[a", dest="/x") == "pattern-invalid"


@pytest.mark.parametrize("path", ["/nope", "/d/nope", "/a/b", "/dang", "/loop", "/loop/x", "/l*"])
def test_a_source_that_is_not_there_is_refused(path: str) -> None:
    source = {**ONE, "dang": link("x"), "loop": link("loop"), "l1": link("x")}
    assert refused(source, {}, path, dest="/x") == "source-not-found"


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/A", "did you mean /a?"),
        ("/src/mian.py", "did you mean /src/main.py?"),
        ("/srv/main.py", "did you mean /src/main.py?"),
        ("/zzz", "is it excluded by .dockerignore?"),
        ("/a/b", "is it excluded by .dockerignore?"),
    ],
)
def test_a_missing_source_gets_a_hint(path: str, hint: str) -> None:
    with pytest.raises(PathError) as caught:
        copied({"a": "A", "src/main.py": "M"}, {}, path, dest="/x")
    assert caught.value.hint == hint


@pytest.mark.parametrize("at", ["first", "middle", "last"])
def test_links_in_the_source_stay_inside_it(at: str) -> None:
    source = {
        "real/sub/f": "F",
        "first": link("/../../real"),
        "real/middle": link("../../../real/sub"),
        "last": link("/real/sub/f"),
    }
    path = {"first": "/first/sub/f", "middle": "/real/middle/f", "last": "/last"}[at]
    assert layer(source, {}, path, dest="/x") == {"x": "0644 F"}


def test_a_loop_in_the_destination_is_refused() -> None:
    assert refused(ONE, {"l": link("l")}, "/a", dest="/l/x") == "too-many-links"


def test_names_of_one_file_stay_names_of_one_file_within_a_source() -> None:
    source = {"d/a": "A", "d/b": hard("d/a"), "e/c": hard("d/a")}
    changes = copied(source, {"o": file("A", source="context", inode=1)}, "/d", "/e", dest="/x/")
    inodes = {path: changes.entries[f"x/{path}"].inode for path in "abc"}
    assert inodes["a"] == inodes["b"] != inodes["c"]
    assert 0 not in inodes.values()
    assert 1 not in inodes.values()


class TestOwner:
    def test_of_everything_copied_or_made(self) -> None:
        source = {"d": directory(), "d/s": directory(), "d/s/f": "F", "d/l": link("x")}
        want = {
            "n/": "0755 5:6",
            "n/x/": "0755 5:6",
            "n/x/l": "-> x 5:6",
            "n/x/s/": "0755 5:6",
            "n/x/s/f": "0644 5:6 F",
        }
        assert layer(source, {}, "/d", dest="/n/x/", chown="5:6") == want

    def test_is_looked_up_in_the_destination(self) -> None:
        root = {"etc": link("/usr/etc"), "usr/etc/passwd": link("p"), "usr/etc/p": PASSWD}
        assert layer(ONE, root, "/a", dest="/x", chown="app") == {"x": "0644 1001:2002 A"}
        assert layer(ONE, {"etc/passwd/": None}, "/a", dest="/x", chown="app") == {"x": "0644 A"}

    def test_of_existing_directories_is_kept(self) -> None:
        want = {"x/": "0755", "x/a": "0644 5:5 A"}
        assert layer(ONE, {"x/": None}, "/a", dest="/x/", chown="5") == want

    @pytest.mark.parametrize(("root", "link"), [(None, False), ({"etc/passwd": PASSWD}, True)])
    def test_by_name_needs_a_root(self, root: dict[str, Any] | None, link: bool) -> None:  # noqa: FBT001
        assert refused(ONE, root, "/a", dest="/x", chown="app", link=link) == "user-unknown"

    def test_is_not_looked_up_in_a_file_of_any_size(self) -> None:
        root = {"etc/passwd": file(PASSWD, size=(1 << 20) + 1)}
        assert refused(ONE, root, "/a", dest="/x", chown="app") == "user-unknown"


class TestMode:
    def test_octal_is_that_of_made_directories_too(self) -> None:
        source = {"d/s": directory(), "d/s/f": "F", "d/l": link("x")}
        want = {
            "x/": "0640",
            "x/y/": "0640",
            "x/y/l": "-> x",
            "x/y/s/": "1640",
            "x/y/s/f": "1640 F",
        }
        assert layer(source, {}, "/d", dest="/x/y", chmod="1640") == want

    def test_symbolic_leaves_made_directories_alone(self) -> None:
        source = {"d/s": directory(0o700), "d/s/f": "F"}
        want = {"x/": "0755", "x/s/": "0755", "x/s/f": "0644 F"}
        assert layer(source, {}, "/d", dest="/x", chmod="go=rX") == want


class TestLink:
    def test_does_not_see_the_root(self) -> None:
        root = {"l": link("real"), "real/k": "K"}
        assert layer(ONE, root, "/a", dest="/l/x", link=True) == {"l/": "0755", "l/x": "0644 A"}

    def test_makes_a_file_where_there_is_a_directory(self) -> None:
        changes = copied(ONE, {"d/k": "K"}, "/a", dest="/d", link=True)
        assert shown(tree({"d/k": "K"}).apply(changes)) == {"d": "0644 A"}


class TestParents:
    SOURCE: ClassVar = {
        "d": directory(0o700),
        "d/s": directory(0o711),
        "d/s/f": "F",
        "d/g": "G",
        "t": "T",
    }

    @pytest.mark.parametrize(
        ("path", "pattern", "want"),
        [
            ("/", "d/s/f", {"x/": "0755", "x/d/": "0700", "x/d/s/": "0711", "x/d/s/f": "0644 F"}),
            ("/d", "s/f", {"x/": "0755", "x/s/": "0711", "x/s/f": "0644 F"}),
            ("/d", "s", {"x/": "0755", "x/s/": "0711", "x/s/f": "0644 F"}),
            ("/", "**/g", {"x/": "0755", "x/d/": "0700", "x/d/g": "0644 G"}),
            ("/", "t", {"x/": "0755", "x/t": "0644 T"}),
            ("/", "no*", {"x/": "0755"}),
        ],
    )
    def test_are_kept_with_their_modes(
        self, path: str, pattern: str, want: dict[str, str]
    ) -> None:
        assert layer(self.SOURCE, {}, path, dest="/x", pattern=pattern) == want

    def test_that_are_plain_must_be_there(self) -> None:
        assert refused(self.SOURCE, {}, "/", dest="/x", pattern="d/no") == "source-not-found"

    def test_that_exist_keep_their_owner(self) -> None:
        root = {"x/d": directory(0o755, uid=9)}
        want = {"x/": "0755", "x/d/": "0700 9:0", "x/d/g": "0644 G"}
        assert layer(self.SOURCE, root, "/", dest="/x", pattern="d/g") == want


class TestExclude:
    SOURCE: ClassVar = {"a.md": "1", "b": "2", "d/c.md": "3", "d/e": "4", "d/f/g": "5"}

    @pytest.mark.parametrize(
        ("exclude", "want"),
        [
            (("*.md",), ["b", "d", "d/c.md", "d/e", "d/f", "d/f/g"]),
            (("**/*.md",), ["b", "d", "d/e", "d/f", "d/f/g"]),
            (("d",), ["a.md", "b"]),
            (("d", "!d/f"), ["a.md", "b", "d", "d/f", "d/f/g"]),
            (("*", "!d/e"), ["d", "d/e"]),
            (("*", "!d/none"), []),
            (("/d",), ["a.md", "b", "d", "d/c.md", "d/e", "d/f", "d/f/g"]),
        ],
    )
    def test_leaves_out_what_matches(self, exclude: tuple[str, ...], want: list[str]) -> None:
        changes = copied(self.SOURCE, {}, "/", dest="/x", exclude=exclude)
        assert [path.removeprefix("x/") for path in changes.entries][1:] == want

    def test_does_not_reach_what_is_named(self) -> None:
        assert list(copied(self.SOURCE, {}, "/b", dest="/x", exclude=("b",)).entries) == ["x"]
        changes = copied(self.SOURCE, {}, "/d", dest="/x", exclude=("d",))
        assert "x/e" in changes.entries


class TestWhiteouts:
    def test_are_what_names_say(self) -> None:
        changes = copied({"d/.wh.gone": "", "d/s/.wh..wh..opq": ""}, {}, "/d", dest="/x")
        assert (changes.whiteouts, changes.opaque) == ({"x/gone"}, {"x/s"})
        assert list(changes.entries) == ["x", "x/s"]

    @pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", ".wh..wh.x", ".wh.d/f"])
    def test_of_nothing_are_refused(self, name: str) -> None:
        with pytest.raises(BadWhiteoutError):
            copied({f"d/{name}": ""}, {}, "/d", dest="/x")


class TestMkdir:
    def made(self, root: dict[str, Any] | None, path: str, owner: str = "") -> Changes:
        base = None if root is None else tree(root)
        return mkdir(base, path, owner, now=NOW, read_file=read)

    def test_makes_what_is_missing(self) -> None:
        changes = self.made({"a": directory(0o700)}, "/a/b/c", "5:6")
        want = {"a/": "0700", "a/b/": "0755 5:6", "a/b/c/": "0755 5:6"}
        assert shown(Tree.EMPTY.apply(changes)) == want
        assert changes.entries["a/b"].mtime == NOW

    def test_leaves_what_is_there(self) -> None:
        assert self.made({"a/": None}, "/a", "5") == Changes()
        assert self.made(None, "/") == Changes()

    def test_follows_links_inside_the_root(self) -> None:
        root = {"l": link("../../gone"), "m": link("/real"), "real/": None}
        assert list(self.made(root, "/l").entries) == ["gone"]
        assert list(self.made(root, "/m/x").entries) == ["real", "real/x"]

    def test_refuses_a_file_in_the_way(self) -> None:
        for path in ("/f", "/f/x", "/l"):
            with pytest.raises(PathError) as caught:
                self.made({"f": "F", "l": link("f")}, path)
            assert caught.value.code == "copy-many-to-file"

    def test_looks_its_owner_up(self) -> None:
        changes = self.made({"etc/passwd": PASSWD}, "/w", "app")
        assert shown(Tree.EMPTY.apply(changes)) == {"w/": "0755 1001:2002"}
        with pytest.raises(PathError):
            self.made(None, "/w", "app")

    def test_goes_as_deep_as_a_path(self) -> None:
        assert len(self.made({}, "/" + "/".join("a" * 2000)).entries) == 2000


def test_an_inline_file_is_a_tree_of_one() -> None:
    made = inline_file("EOF", b"hi\n", mode=0o644, now=NOW, where=Where("inline", "EOF"))
    changes = copy(
        CopyOptions(dest="/x"), [Source(tree=made, path="/EOF")], None, now=NOW, readers=READERS
    )
    assert shown(Tree.EMPTY.apply(changes)) == {"x": "0644 EOF"}
    assert (changes.entries["x"].size, changes.entries["x"].mtime) == (3, NOW)


@pytest.mark.parametrize("name", ["a/b", "/", "", ".", ".."])
def test_the_name_of_an_inline_file_is_one_component(name: str) -> None:
    with pytest.raises(PathError) as caught:
        inline_file(name, b"", mode=0o644, now=NOW, where=Where("inline", name))
    assert caught.value.code == "source-not-found"
