"""Users and groups by name."""

import pytest

from imagekit.errors import PathError
from imagekit.layer.owner import MAX_ID, User, lookup_owner, lookup_user

PASSWD = b"""root:x:0:0:r:/root:/bin/sh
app:x:1001:2002::/home/app:/bin/sh
nogrp:x:1003:4444
short
# comment:x:7:7::/:
+nis::8:8::/:
bad:x:many:few::/:/bin/sh
huge:x:4294967296:1::/:/bin/sh
\xff:x:9:9::/:/bin/sh
app:x:5:5::/second:/bin/sh
"""
GROUP = b"root:x:0:\ngrp:x:3003:app,other\napp:x:2002:\nwheel:x:10:app\n\n"


def database(path: str) -> bytes:
    return {"etc/passwd": PASSWD, "etc/group": GROUP}[path]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", (0, 0)),
        ("5", (5, 5)),
        ("5:6", (5, 6)),
        (":6", (0, 6)),
        ("5:", (5, 0)),
        ("+7", (7, 7)),
        ("007", (7, 7)),
        ("root", (0, 0)),
        ("root:root", (0, 0)),
        ("app", (1001, 2002)),
        ("app:grp", (1001, 3003)),
        ("app:6", (1001, 6)),
        ("6:grp", (6, 3003)),
        ("nogrp", (1003, 4444)),
        ("app:nope", (1001, 2002)),
        ("nope", (0, 0)),
        ("nope:nope", (0, 0)),
        ("short", (0, 0)),
        ("bad", (0, 0)),
        ("# comment", (0, 0)),
        ("\udcff", (9, 9)),
        (str(MAX_ID), (MAX_ID, MAX_ID)),
    ],
)
def test_an_owner_is_looked_up(text: str, want: tuple[int, int]) -> None:
    assert lookup_owner(text, database) == want
    assert lookup_owner(text, lambda _: b"")[0] in (want[0], 0)


@pytest.mark.parametrize("text", ["-1", "2147483648", "1:-2", "0:99999999999999999999", "huge"])
def test_a_number_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(PathError) as caught:
        lookup_owner(text, database)
    assert caught.value.code == "chown-invalid"


@pytest.mark.parametrize("text", ["app", "5:grp", "app:5"])
def test_a_name_needs_a_root_to_be_looked_up_in(text: str) -> None:
    with pytest.raises(PathError) as caught:
        lookup_owner(text, None)
    assert caught.value.code == "user-unknown"


@pytest.mark.parametrize("text", ["", "root", "root:root", "5:6", ":7"])
def test_numbers_and_root_need_none(text: str) -> None:
    lookup_owner(text, None)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", User(uid=0, gid=0, home="/root")),
        ("root", User(uid=0, gid=0, home="/root")),
        ("app", User(uid=1001, gid=2002, groups=(3003, 10), home="/home/app")),
        ("1001", User(uid=1001, gid=2002, groups=(3003, 10), home="/home/app")),
        ("app:wheel", User(uid=1001, gid=10, home="/home/app")),
        ("app:77", User(uid=1001, gid=77, home="/home/app")),
        ("12", User(uid=12, gid=0)),
        ("12:13", User(uid=12, gid=13)),
        ("12:grp", User(uid=12, gid=3003)),
        ("nogrp", User(uid=1003, gid=4444)),
    ],
)
def test_a_process_runs_as_a_user(text: str, want: User) -> None:
    assert lookup_user(text, PASSWD, GROUP) == want


@pytest.mark.parametrize("text", ["nope", "app:nope", "12:nope"])
def test_a_process_cannot_run_as_nobody_knows_whom(text: str) -> None:
    with pytest.raises(PathError) as caught:
        lookup_user(text, PASSWD, GROUP)
    assert caught.value.code == "user-unknown"


@pytest.mark.parametrize("text", ["-1", "4294967296", "huge", "1:-1"])
def test_a_process_has_an_id_in_range(text: str) -> None:
    with pytest.raises(PathError) as caught:
        lookup_user(text, PASSWD, GROUP)
    assert caught.value.code == "chown-invalid"


def test_without_databases_numbers_will_do() -> None:
    assert lookup_user("", b"", b"") == User(uid=0, gid=0)
    assert lookup_user("5:6", b"", b"") == User(uid=5, gid=6)
