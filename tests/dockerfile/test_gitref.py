import pytest

from imagekit.dockerfile import GitReference, parse_git_reference
from imagekit.errors import UsageError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "https://h/o/r.git#v1:sub",
            GitReference(remote="https://h/o/r.git", ref="v1", subdir="sub", short_name="r"),
        ),
        (
            "git@h:o/r.git?tag=v1&keep-git-dir=1",
            GitReference(
                remote="git@h:o/r.git", ref="refs/tags/v1", short_name="r", keep_git_dir=True
            ),
        ),
        (
            "github.com/o/r",
            GitReference(remote="github.com/o/r", short_name="r", looks_local=True),
        ),
        ("https://h/o/r", None),
        ("./r.git", None),
        ("ftp://h/r.git", None),
        ("alpine:3", None),
    ],
)
def test_references(text: str, wanted: GitReference | None) -> None:
    assert parse_git_reference(text) == wanted


@pytest.mark.parametrize(
    "query", ["x=1", "ref=", "ref=a&ref=b", "tag=a&branch=b", "submodules=maybe", "mtime=now"]
)
def test_queries_that_cannot_be(query: str) -> None:
    with pytest.raises(UsageError):
        parse_git_reference(f"https://h/r.git?{query}")
