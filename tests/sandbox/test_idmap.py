import pytest

from imagekit.sandbox.idmap import Extent, extents, is_mapped, parse_subordinate, user_name

SUBUID = "# comment\n\nalice:100000:65536\n1000:200000:10\nbob:1:2\nalice:x:1\nalice:1\n"


def test_ranges_are_found_by_name_and_by_number() -> None:
    assert parse_subordinate(SUBUID, 1000, "alice") == ((100000, 65536), (200000, 10))
    assert parse_subordinate(SUBUID, 7, "bob") == ((1, 2),)
    assert parse_subordinate(SUBUID, 7, "") == ()


def test_root_is_the_caller_and_ranges_follow_each_other() -> None:
    assert extents(1000, ((100000, 5), (7, 3))) == (
        Extent(0, 1000, 1),
        Extent(1, 100000, 5),
        Extent(6, 7, 3),
    )


@pytest.mark.parametrize(
    ("number", "mapped"), [(0, True), (1, False), (10, True), (19, True), (20, False)]
)
def test_mapped_ids(number: int, mapped: bool) -> None:  # noqa: FBT001 - a column of the table
    text = "         0       1000          1\n        10     100000         10\n"
    assert is_mapped(number, text) is mapped


def test_names_of_users() -> None:
    assert user_name(5, "root:x:0:0::/:\nfive:x:5:5::/:\n") == "five"
    assert user_name(6, "broken\n") == ""
