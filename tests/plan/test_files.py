import pytest

from imagekit.errors import DockerfileError
from imagekit.plan import ops
from imagekit.plan.files import file_name
from tests.support.plans import traced


def copy_of(line: str, **options: object) -> ops.Copy:
    plan = traced(f"FROM scratch\nWORKDIR /w\n{line}\n", **options).plan
    found = plan.steps[plan.result].op
    assert isinstance(found, ops.Copy)
    return found


def source_of(line: str) -> ops.CopySource:
    (source,) = copy_of(line).sources
    assert isinstance(source, ops.CopySource)
    return source


@pytest.mark.parametrize(
    ("written", "path", "wildcard"),
    [
        ("a", "/a", False),
        ("../../a/./b/", "/a/b", False),
        ("//a//b", "/a/b", False),
        (".", "/", False),
        ("a/*.c", "/a/*.c", True),
        ("[[]x", "/[[]x", True),
        ("a\\\\*", "/a\\*", True),
    ],
)
def test_sources_are_cleaned_and_never_leave_the_root(
    written: str,
    path: str,
    wildcard: bool,  # noqa: FBT001 - a table
) -> None:
    source = source_of(f"COPY {written} /d/")
    assert (source.path, source.wildcard) == (path, wildcard)


@pytest.mark.parametrize(
    ("written", "dest"),
    [
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("b", "/w/b"),
        (".", "/w/"),
        ("./", "/w/"),
        ("b/.", "/w/b/"),
        ("..", "/"),
        ("/", "/"),
        ("../../x/../y/", "/y/"),
    ],
)
def test_destinations_keep_the_slash_that_says_directory(written: str, dest: str) -> None:
    assert copy_of(f"COPY a {written}").dest == dest


def test_parents_split_at_the_pivot() -> None:
    assert source_of("COPY --parents x/./y/z /d/") == ops.CopySource(
        input=1, path="/x", pattern="y/z", required=True
    )
    assert source_of("COPY --parents x/**/z /d/") == ops.CopySource(
        input=1, path="/", pattern="x/**/z"
    )


def test_add_unpacks_local_archives_and_downloads_only_if_told() -> None:
    assert source_of("ADD a /").unpack
    assert not source_of("ADD --unpack=false a /").unpack
    assert not source_of("ADD https://h/a.tar /").unpack
    assert source_of("ADD --unpack https://h/a.tar /").unpack
    assert not source_of("COPY a /").unpack


def test_sources_of_one_step_share_their_inputs() -> None:
    found = copy_of("ADD a https://h/b c <<E /d/\nbody\nE")
    assert [getattr(source, "input", None) for source in found.sources] == [1, 2, 1, None]


def test_bodies_are_expanded_unless_quoted() -> None:
    found = copy_of("COPY <<-A <<'B' /d/\n\t'$HOME' ${X:-y} \\$X\n\tA\n$X\nB")
    assert found.sources == (
        ops.InlineFile(name="A", content=b"'' y $X\n"),
        ops.InlineFile(name="B", content=b"$X\n"),
    )


def test_a_mode_makes_a_linked_copy_an_ordinary_one() -> None:
    assert copy_of("COPY --link a /").link
    assert not copy_of("COPY --link --chmod=755 a /").link


def test_a_repository_is_checked_out() -> None:
    plan = traced("FROM scratch\nADD --keep-git-dir=true git@h:o/r.git#v1:sub /d\n").plan
    (fetch,) = (step.op for step in plan.steps if isinstance(step.op, ops.Fetch))
    assert fetch == ops.Fetch(
        url="git@h:o/r.git", kind="git", ref="v1", subdir="sub", keep_git_dir=True
    )


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://h/p/f.tar?q=1#x", "f.tar"),
        ("https://h/a%20b", "a b"),
        ("https://h/a%2Fb", "b"),
        ("https://h/d/", "d"),
        ("https://h/", "__unnamed__"),
        ("https://h", "__unnamed__"),
        ("https://h/..", "__unnamed__"),
        ("https://[", "__unnamed__"),
    ],
)
def test_a_download_is_named_by_its_url(url: str, name: str) -> None:
    assert file_name(url) == name


@pytest.mark.parametrize("mode", ["755", "0644", "u+x", "a=rX,go-w", "+t", "g=u", "u+x-w"])
def test_modes_that_are_understood(mode: str) -> None:
    assert copy_of(f"COPY --chmod={mode} a /").chmod == mode


@pytest.mark.parametrize("mode", ["888", "10000", "u+z", "x", "u+x,", "0o755", "-1"])
def test_modes_that_are_not(mode: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        copy_of(f"COPY --chmod={mode} a /")
    assert caught.value.code == "chmod-invalid"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("COPY https://h/x /", "url-in-copy"),
        ("COPY git@h:x.git /", "url-in-copy"),
        ("ADD --checksum=sha256:0 https://h/x /", "checksum-invalid"),
        ("ADD --checksum=sha256:0 x /", "checksum-invalid"),
        ("ADD --checksum=sha256:0 https://h/x https://h/y /", "checksum-invalid"),
        ("COPY --from=later a /", "stage-not-defined-yet"),
    ],
)
def test_copies_that_cannot_be(line: str, code: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        traced(f"FROM scratch AS now\n{line}\nFROM scratch AS later\nFROM now\n")
    assert caught.value.code == code
