"""Users and groups by name: what --chown and WORKDIR make of one, and what RUN does.

Pure: the bytes of /etc/passwd and /etc/group are handed in, and are only ever those of the root
file system that is built, never the machine's own.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

from attrs import frozen

from imagekit.errors import PathError

MAX_ID: Final = 2**31 - 1
MAX_DATABASE_SIZE: Final = 1 << 20
PASSWD: Final = "etc/passwd"  # noqa: S105 - a path
GROUP: Final = "etc/group"

Databases = Callable[[str], bytes]
"""The content of PASSWD or GROUP; empty where there is no such file."""

_NUMBER = re.compile(r"[+-]?[0-9]+")


@frozen(kw_only=True)
class User:
    """Whom a process runs as.

    Attributes:
        groups: supplementary groups.
        home: the home directory; `/` if none is known.
    """

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"


@frozen(kw_only=True)
class _Account:
    name: str
    uid: int
    gid: int
    home: str


@frozen(kw_only=True)
class _Group:
    name: str
    gid: int
    members: tuple[str, ...]


def lookup_owner(text: str, databases: Databases | None) -> tuple[int, int]:
    """The uid and gid of `user[:group]` as --chown has it.

    A number is a uid, and a gid too where no group is given; a name is looked up, and counts as
    root where it is unknown.

    Args:
        text: `user`, `user:group`, `:group`; empty is root.
        databases: None where there is no root file system to look in.

    Raises:
        PathError: a number that is no id, code `chown-invalid`; a name with nothing to look in,
            code `user-unknown`.

    Spec: dockerfile-semantics.md section 9; security.md C-9.
    """
    user, colon, group = text.partition(":")
    uid = _fixed_id(user, text)
    if uid is None:
        account = _account(user, _database(databases, PASSWD, user))
        uid, gid = (account.uid, account.gid) if account else (0, 0)
    else:
        gid = uid
    if colon:
        number = _fixed_id(group, text)
        if number is None:
            found = _group(group, _database(databases, GROUP, group))
            number = found.gid if found else gid
        gid = number
    return _checked(uid, text), _checked(gid, text)


def lookup_user(text: str, passwd: bytes, group: bytes) -> User:
    """Whom a process runs as, from the text after USER.

    Unlike `lookup_owner`, a number without a group takes the primary group of that account, a name
    that is unknown is an error, and the groups that list the account as a member count.

    Args:
        text: `user[:group]`, names or numbers; empty is root.
        passwd: the content of /etc/passwd, empty if there is none.
        group: the content of /etc/group, empty if there is none.

    Raises:
        PathError: an unknown name, code `user-unknown`; a number that is no id, `chown-invalid`.

    Spec: dockerfile-semantics.md sections 11 and 12; security.md C-9.
    """
    who, _, whose = text.partition(":")
    who = who or "0"
    number, group_number = _number(who, text), _number(whose, text)
    accounts = tuple(_accounts(passwd))
    if number is None:
        account = next((a for a in accounts if a.name == who), None)
        if account is None:
            raise _unknown("user", who, "passwd")
    else:
        account = next((a for a in accounts if a.uid == number), None)
    uid = account.uid if account else number or 0
    gid = account.gid if account else 0
    extra: tuple[int, ...] = ()
    if whose:
        found = None if group_number is not None else _group(whose, group)
        if group_number is None and found is None:
            raise _unknown("group", whose, "group")
        gid = found.gid if found else group_number or 0
    elif account:
        extra = tuple(g.gid for g in _groups(group) if account.name in g.members)
    return User(
        uid=_checked(uid, text),
        gid=_checked(gid, text),
        groups=tuple(_checked(g, text) for g in extra),
        home=(account.home if account else "") or "/",
    )


def _unknown(kind: str, name: str, file: str) -> PathError:
    return PathError(
        f"unable to find {kind} {name}: no matching entries in {file} file",
        path=f"etc/{file}",
        hint=f"create the {kind} in an earlier RUN, or give its number",
        code="user-unknown",
    )


def _fixed_id(name: str, text: str) -> int | None:
    """The id that a user or group is without any look-up; a missing one is root."""
    return 0 if name in ("", "root") else _number(name, text)


def _number(name: str, text: str) -> int | None:
    return _checked(int(name), text) if _NUMBER.fullmatch(name) else None


def _checked(number: int, text: str) -> int:
    if not 0 <= number <= MAX_ID:
        raise PathError(
            f"{text}: {number} is no user or group id",
            hint=f"ids are numbers from 0 to {MAX_ID}",
            code="chown-invalid",
        )
    return number


def _database(databases: Databases | None, path: str, name: str) -> bytes:
    if databases is None:
        raise PathError(
            f"{name}: there is no root file system to look the name up in",
            path=path,
            hint="give a number: with --link, and at the start of a stage from scratch, "
            "no names are known",
            code="user-unknown",
        )
    return databases(path)


def _account(name: str, passwd: bytes) -> _Account | None:
    return next((account for account in _accounts(passwd) if account.name == name), None)


def _group(name: str, group: bytes) -> _Group | None:
    return next((found for found in _groups(group) if found.name == name), None)


def _accounts(passwd: bytes) -> Iterator[_Account]:
    for name, _, uid, gid, _, home, *_ in _records(passwd, 7):
        yield _Account(name=name, uid=_field(uid), gid=_field(gid), home=home)


def _groups(group: bytes) -> Iterator[_Group]:
    for name, _, gid, members, *_ in _records(group, 4):
        yield _Group(name=name, gid=_field(gid), members=tuple(members.split(",")))


def _records(data: bytes, fields: int) -> Iterator[list[str]]:
    """The lines of a database, short ones filled up; NIS lines and comments are no records."""
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        text = line.strip()
        if text and text[0] not in "#+-":
            parts = text.split(":")
            yield parts + [""] * (fields - len(parts))


def _field(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
