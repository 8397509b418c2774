"""The value of --chmod."""

import pytest

from imagekit.errors import PathError
from imagekit.layer.mode import parse_mode
from imagekit.layer.tree import SYMLINK, Entry
from tests.support.trees import directory, file


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("0", 0o644, 0),
        ("755", 0o644, 0o755),
        ("04755", 0o644, 0o4755),
        ("7777", 0o644, 0o7777),
        ("u+x", 0o644, 0o744),
        ("a=r,u+w", 0o755, 0o644),
        ("go-r", 0o644, 0o600),
        ("+x", 0o644, 0o755),
        ("=r", 0o777, 0o444),
        ("u=rwX,go=rX", 0o640, 0o644),
        ("u=rwX,go=rX", 0o740, 0o755),
        ("g=u", 0o640, 0o660),
        ("o=g,g=", 0o640, 0o604),
        ("u+s", 0o755, 0o4755),
        ("g+s", 0o755, 0o2755),
        ("+s", 0o755, 0o6755),
        ("o+s", 0o755, 0o755),
        ("+t", 0o755, 0o1755),
        ("o+t", 0o755, 0o755),
        ("u-s", 0o6755, 0o2755),
        ("u+r-w", 0o200, 0o400),
        ("ug+rw,o-rwx", 0o007, 0o660),
        ("-w", 0o666, 0o444),
        ("a-st", 0o7755, 0o755),
    ],
)
def test_the_mode_of_a_file(text: str, before: int, after: int) -> None:
    assert oct(parse_mode(text).of(file(mode=before))) == oct(after)


def test_capital_x_makes_directories_searchable() -> None:
    assert parse_mode("go=rX").of(directory(0o700)) == 0o755


def test_a_symlink_has_no_mode_to_change() -> None:
    assert parse_mode("600").of(Entry(SYMLINK, 0o777, link="x")) == 0o777


@pytest.mark.parametrize(("text", "mode"), [("640", 0o640), ("1777", 0o777), ("u+x", 0o755)])
def test_made_directories_take_the_permission_bits_of_an_octal_mode(text: str, mode: int) -> None:
    assert parse_mode(text).of_made_directories == mode


@pytest.mark.parametrize(
    "text", ["", "8", "10000", "u", "u+q", "rwx", "u+x,", "-1", "0o755", "u+ug"]
)
def test_what_is_no_mode_is_refused(text: str) -> None:
    with pytest.raises(PathError) as caught:
        parse_mode(text)
    assert caught.value.code == "chmod-invalid"
