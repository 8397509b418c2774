from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagekit.sandbox.failure import SetupError
from imagekit.sandbox.users import Account, resolve
from tests.support.busybox import GROUP, PASSWD


@pytest.mark.parametrize(
    ("user", "account"),
    [
        ("", Account(0, 0, (0,), "/root")),
        ("app", Account(1000, 1001, (1001, 10, 50), "/home/app")),
        ("1000", Account(1000, 1001, (1001, 10, 50), "/home/app")),
        ("+1000", Account(1000, 1001, (1001, 10, 50), "/home/app")),
        ("app:wheel", Account(1000, 10, (10,), "/home/app")),
        ("app:", Account(1000, 1001, (1001, 10, 50), "/home/app")),
        ("3", Account(3, 0, (0,), "/")),
        ("3:4", Account(3, 4, (4,), "/")),
        (":4", Account(0, 4, (4,), "/root")),
    ],
)
def test_forms(user: str, account: Account) -> None:
    assert resolve(user, PASSWD, GROUP) == account


def test_a_root_without_passwd() -> None:
    assert resolve("", "", "") == Account(0, 0, (0,), "/")
    with pytest.raises(SetupError, match="unable to find user app"):
        resolve("app", "", "")


def test_lines_that_are_none_are_skipped() -> None:
    passwd = "\n#app:x:1:1::/:\n+::::::\napp:x:nan:1::/:\nb\napp:x:9:8::/h\n"
    assert resolve("app", passwd, "x\n:::\n").uid == 9


@pytest.mark.parametrize("entry", ["2147483648", "4294967296", "99999999999999999999"])
def test_ids_of_the_files_do_not_wrap(entry: str) -> None:
    with pytest.raises(SetupError) as info:
        resolve("app", f"app:x:{entry}:0::/:\n", "")
    assert info.value.code == "id-out-of-range"


@given(st.text(alphabet="ap:01-+ #\n\udcff", max_size=12), st.text(max_size=60))
def test_any_text_gives_an_account_in_range_or_a_typed_error(user: str, passwd: str) -> None:
    with suppress(SetupError):
        account = resolve(user, passwd + "\n" + PASSWD, GROUP)
        assert all(0 <= n < 2**31 for n in (account.uid, account.gid, *account.groups))
